//! What the recorder asks of a file system, so that a test can let it fail, fill up, stall or die at any step.

use std::fmt::Debug;
use std::io;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use tokio_uring::fs;

/// One name in a folder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) name: String,
    pub(super) is_dir: bool,
    /// Bytes of a file.
    pub(super) size: u64,
    pub(super) modified: SystemTime,
}

/// A file system.
pub(super) trait Disk: Clone + Debug + 'static {
    /// An open file; dropping it closes it.
    type File: Debug + 'static;

    /// Makes or empties a file.
    async fn create(&self, path: &Path) -> io::Result<Self::File>;
    /// Opens a file that is there, to read and write.
    async fn open(&self, path: &Path) -> io::Result<Self::File>;
    /// Writes all of `bytes` at an offset and gives the memory back.
    async fn write(&self, file: &Self::File, at: u64, bytes: Vec<u8>) -> (io::Result<()>, Vec<u8>);
    /// Reads up to `len` bytes at an offset; fewer only at the end.
    async fn read(&self, file: &Self::File, at: u64, len: usize) -> io::Result<Vec<u8>>;
    /// Waits until what was written is on the disk itself.
    async fn sync(&self, file: &Self::File) -> io::Result<()>;
    /// Cuts a file off.
    async fn truncate(&self, path: &Path, len: u64) -> io::Result<()>;
    /// Renames a file or folder over what is there.
    async fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// Gives a file a second name, or makes a copy of it where the file system has no such thing.
    async fn link(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// Removes a file.
    async fn remove(&self, path: &Path) -> io::Result<()>;
    /// Removes a folder with all in it.
    async fn remove_dir(&self, path: &Path) -> io::Result<()>;
    /// Makes a folder and those above it.
    async fn make_dir(&self, path: &Path) -> io::Result<()>;
    /// What is in a folder, by name.
    async fn list(&self, path: &Path) -> io::Result<Vec<Entry>>;
    /// Bytes that are free where `path` is.
    async fn free(&self, path: &Path) -> io::Result<u64>;
}

/// The real one: the control thread's ring, and a helper thread for the calls that no ring has.
#[derive(Clone, Copy, Debug)]
pub(super) struct Uring;

impl Disk for Uring {
    type File = fs::File;

    async fn create(&self, path: &Path) -> io::Result<fs::File> {
        fs::OpenOptions::new().read(true).write(true).create(true).truncate(true).open(path).await
    }

    async fn open(&self, path: &Path) -> io::Result<fs::File> {
        fs::OpenOptions::new().read(true).write(true).open(path).await
    }

    async fn write(&self, file: &fs::File, at: u64, bytes: Vec<u8>) -> (io::Result<()>, Vec<u8>) {
        file.write_all_at(bytes, at).await
    }

    async fn read(&self, file: &fs::File, at: u64, len: usize) -> io::Result<Vec<u8>> {
        let mut all = Vec::with_capacity(len);
        while all.len() < len {
            let (result, piece) =
                file.read_at(Vec::with_capacity(len - all.len()), at + all.len() as u64).await;
            if result? == 0 {
                break;
            }
            if all.is_empty() {
                all = piece;
            } else {
                all.extend_from_slice(&piece);
            }
        }
        Ok(all)
    }

    async fn sync(&self, file: &fs::File) -> io::Result<()> {
        file.sync_data().await
    }

    async fn truncate(&self, path: &Path, len: u64) -> io::Result<()> {
        blocking(path, move |path| std::fs::OpenOptions::new().write(true).open(path)?.set_len(len)).await
    }

    async fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to).await
    }

    async fn link(&self, from: &Path, to: &Path) -> io::Result<()> {
        let to = to.to_owned();
        blocking(from, move |from| match std::fs::hard_link(from, &to) {
            Err(error)
                if matches!(error.kind(), io::ErrorKind::PermissionDenied | io::ErrorKind::Unsupported) =>
            {
                std::fs::copy(from, &to).map(drop)
            }
            linked => linked,
        })
        .await
    }

    async fn remove(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path).await
    }

    async fn remove_dir(&self, path: &Path) -> io::Result<()> {
        blocking(path, |path| std::fs::remove_dir_all(path)).await
    }

    async fn make_dir(&self, path: &Path) -> io::Result<()> {
        blocking(path, |path| std::fs::create_dir_all(path)).await
    }

    async fn list(&self, path: &Path) -> io::Result<Vec<Entry>> {
        blocking(path, |path| {
            let mut entries = Vec::new();
            for entry in std::fs::read_dir(path)? {
                let entry = entry?;
                // A name of ours is text; a symbolic link is followed nowhere.
                let Ok(name) = entry.file_name().into_string() else { continue };
                let Ok(meta) = entry.metadata() else { continue };
                let modified = meta.modified().unwrap_or(SystemTime::UNIX_EPOCH);
                entries.push(Entry { name, is_dir: meta.is_dir(), size: meta.len(), modified });
            }
            entries.sort_by(|one, other| one.name.cmp(&other.name));
            Ok(entries)
        })
        .await
    }

    async fn free(&self, path: &Path) -> io::Result<u64> {
        blocking(path, |path| {
            let stat = rustix::fs::statvfs(path)?;
            Ok(stat.f_bavail.saturating_mul(stat.f_frsize))
        })
        .await
    }
}

/// Calls on a helper thread.
async fn blocking<T: Send + 'static>(
    path: &Path,
    call: impl FnOnce(&Path) -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    let path: PathBuf = path.to_owned();
    tokio::task::spawn_blocking(move || call(&path)).await.map_err(io::Error::other)?
}

/// Reads a whole file of at most `max` bytes.
pub(super) async fn read_all<D: Disk>(disk: &D, path: &Path, max: usize) -> io::Result<Vec<u8>> {
    /// What is read at once: memory is taken as the file turns out to be long, not for the longest there may be.
    const PIECE: usize = 256 << 10;
    let file = disk.open(path).await?;
    let mut bytes = Vec::new();
    while bytes.len() <= max {
        let len = PIECE.min(max + 1 - bytes.len());
        let piece = disk.read(&file, bytes.len() as u64, len).await?;
        bytes.extend_from_slice(&piece);
        if piece.len() < len {
            return Ok(bytes);
        }
    }
    Err(io::Error::from(io::ErrorKind::FileTooLarge))
}

/// Writes a whole file aside and renames it to its name: nobody ever sees half of it.
pub(super) async fn replace<D: Disk>(disk: &D, path: &Path, bytes: Vec<u8>, sync: bool) -> io::Result<()> {
    let aside = aside(path);
    let file = disk.create(&aside).await?;
    disk.write(&file, 0, bytes).await.0?;
    if sync {
        disk.sync(&file).await?;
    }
    drop(file);
    disk.rename(&aside, path).await
}

/// Where a file is written before it has its name.
pub(super) fn aside(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(ASIDE);
    name.into()
}

/// The end of the name of a file that is not finished.
pub(super) const ASIDE: &str = ".tmp";
