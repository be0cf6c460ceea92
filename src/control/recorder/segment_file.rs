//! A segment's file, which is written aside and gets its name when it is whole.

use std::io;
use std::path::PathBuf;

use super::disk::{Disk, aside};

/// A segment that is being written.
#[derive(Debug)]
pub(super) struct SegmentFile<D: Disk> {
    disk: D,
    file: D::File,
    path: PathBuf,
    len: u64,
}

impl<D: Disk> SegmentFile<D> {
    /// Begins the file that will be at `path`.
    pub(super) async fn create(disk: &D, path: PathBuf) -> io::Result<Self> {
        let file = disk.create(&aside(&path)).await?;
        Ok(Self { disk: disk.clone(), file, path, len: 0 })
    }

    /// Bytes so far.
    pub(super) fn len(&self) -> u64 {
        self.len
    }

    /// Writes what comes next.
    pub(super) async fn append(&mut self, bytes: Vec<u8>) -> io::Result<()> {
        let more = bytes.len() as u64;
        self.disk.write(&self.file, self.len, bytes).await.0?;
        self.len += more;
        Ok(())
    }

    /// Gives the file its name; with `sync` only when it is on the disk itself.
    pub(super) async fn finish(self, sync: bool) -> io::Result<()> {
        if sync {
            self.disk.sync(&self.file).await?;
        }
        drop(self.file);
        self.disk.rename(&aside(&self.path), &self.path).await
    }

    /// Removes what there is: it takes room that is wanted.
    pub(super) async fn discard(self) -> io::Result<()> {
        self.disk.remove(&aside(&self.path)).await
    }
}
