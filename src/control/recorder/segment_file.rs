//! A segment's file, which is written aside and gets its name when it is whole.
//!
//! A file that is whole at the first write is made at once; another one is there from the first write on.

use std::io;
use std::path::PathBuf;

use super::disk::{Disk, aside};

/// A segment that is being written.
#[derive(Debug)]
pub(super) struct SegmentFile<D: Disk> {
    disk: D,
    /// `None`: nothing is written yet.
    file: Option<D::File>,
    path: PathBuf,
    len: u64,
}

impl<D: Disk> SegmentFile<D> {
    /// The file that will be at `path`.
    pub(super) fn new(disk: &D, path: PathBuf) -> Self {
        Self { disk: disk.clone(), file: None, path, len: 0 }
    }

    /// Bytes so far.
    pub(super) fn len(&self) -> u64 {
        self.len
    }

    /// Writes what comes next.
    pub(super) async fn append(&mut self, bytes: Vec<u8>) -> io::Result<()> {
        let more = bytes.len() as u64;
        let file = match &mut self.file {
            Some(file) => file,
            none => none.insert(self.disk.create(&aside(&self.path)).await?),
        };
        self.disk.write(file, self.len, bytes).await.0?;
        self.len += more;
        Ok(())
    }

    /// Writes the last of it and gives the file its name; with `sync` only when it is on the disk itself. Where that
    /// fails, nothing is left.
    pub(super) async fn finish(mut self, last: Vec<u8>, sync: bool) -> io::Result<()> {
        let finished = self.try_finish(last, sync).await;
        if finished.is_err() {
            let _ = self.discard().await;
        }
        finished
    }

    async fn try_finish(&mut self, last: Vec<u8>, sync: bool) -> io::Result<()> {
        if self.file.is_none() {
            return self.disk.replace(&self.path, last, sync).await;
        }
        if !last.is_empty() {
            self.append(last).await?;
        }
        let file = self.file.take().expect("asked above");
        self.disk.publish(file, &self.path, sync).await
    }

    /// Removes what there is: it takes room that is wanted.
    pub(super) async fn discard(self) -> io::Result<()> {
        match self.disk.remove(&aside(&self.path)).await {
            // A write that failed may have left one; there need not be any.
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }
}
