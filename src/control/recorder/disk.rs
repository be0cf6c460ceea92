//! The recorder's file system operations, so that a test can let them fail, fill up, stall or die at any step.

use std::fmt::Debug;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, LazyLock};
use std::time::SystemTime;

use tokio::runtime::{self, Runtime};
use tokio::sync::Semaphore;

use super::layout::ABOUT;
use super::space::{self, Held, Space};
use crate::package::segment::File as InMemory;

/// One entry of a folder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) name: String,
    pub(super) is_dir: bool,
    /// Bytes of a file.
    pub(super) size: u64,
    pub(super) modified: SystemTime,
    /// The number of its names.
    pub(super) links: u64,
}

/// A file system.
pub(super) trait Disk: Clone + Debug + 'static {
    /// An open file; dropping it closes it.
    type File: Debug + 'static;

    /// Creates or empties a file.
    async fn create(&self, path: &Path) -> io::Result<Self::File>;
    /// Opens an existing file to read and write.
    async fn open(&self, path: &Path) -> io::Result<Self::File>;
    /// Writes all of `bytes` at an offset, with `sync` also [to the disk itself](Self::sync), and returns the buffer.
    async fn write(
        &self,
        file: &Self::File,
        at: u64,
        bytes: Vec<u8>,
        sync: bool,
    ) -> (io::Result<()>, Vec<u8>);
    /// Reads up to `len` bytes at an offset; fewer only at the end.
    async fn read(&self, file: &Self::File, at: u64, len: usize) -> io::Result<Vec<u8>>;
    /// Waits until what was written is on the disk itself.
    async fn sync(&self, file: &Self::File) -> io::Result<()>;

    /// Writes a whole file under a temporary name and renames it: no reader ever sees half of it.
    async fn replace(&self, path: &Path, bytes: Vec<u8>, sync: bool) -> io::Result<()> {
        let file = self.create(&aside(path)).await?;
        self.write(&file, 0, bytes, sync).await.0?;
        drop(file);
        self.rename(&aside(path), path).await
    }

    /// Writes files that are in memory, whole, with their times, in their order, up to the first that fails: of that
    /// nothing is left.
    async fn store(&self, files: Vec<Stored>, sync: bool) -> io::Result<()> {
        for Stored { path, file } in files {
            if let Err(error) = self.replace(&path, file.body.to_vec(), sync).await {
                let _ = self.remove(&aside(&path)).await;
                return Err(error);
            }
        }
        Ok(())
    }

    /// Makes these changes in their order, up to the first that fails. Returns how many were made.
    async fn change(&self, changes: Vec<Change<'_, Self>>) -> (usize, io::Result<()>) {
        let all = changes.len();
        for (done, Change { lines, path, bytes }) in changes.into_iter().enumerate() {
            let changed = async {
                if let Some(Lines { file, at, bytes }) = lines {
                    self.write(file, at, bytes, false).await.0?;
                }
                self.replace(&path, bytes, false).await
            };
            if let Err(error) = changed.await {
                return (done, Err(error));
            }
        }
        (all, Ok(()))
    }

    /// Truncates a file.
    async fn truncate(&self, path: &Path, len: u64) -> io::Result<()>;
    /// Renames a file or folder, replacing an existing one.
    async fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// Gives a file a second name, or copies it if the file system has no links.
    async fn link(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// Removes a file.
    async fn remove(&self, path: &Path) -> io::Result<()>;
    /// Removes a folder with everything in it, a take's description last: what a crash leaves is still a take.
    async fn remove_dir(&self, path: &Path) -> io::Result<()>;
    /// Creates a folder and its parents.
    async fn make_dir(&self, path: &Path) -> io::Result<()>;
    /// The entries of a folder, by name.
    async fn list(&self, path: &Path) -> io::Result<Vec<Entry>>;
    /// Free space on the file system of `path`.
    async fn free(&self, path: &Path) -> io::Result<Space>;
    /// Removed files below `path` that are still open.
    async fn held(&self, path: &Path) -> io::Result<Held>;
}

/// The real file system, used by helper threads of the control thread. Every call costs a step between threads,
/// so operations that belong together are done in one call.
#[derive(Clone, Copy, Debug)]
pub(super) struct Local;

impl Disk for Local {
    type File = Arc<File>;

    async fn create(&self, path: &Path) -> io::Result<Arc<File>> {
        blocking(path, create).await.map(Arc::new)
    }

    async fn open(&self, path: &Path) -> io::Result<Arc<File>> {
        blocking(path, |path| OpenOptions::new().read(true).write(true).open(path)).await.map(Arc::new)
    }

    async fn write(
        &self,
        file: &Arc<File>,
        at: u64,
        bytes: Vec<u8>,
        sync: bool,
    ) -> (io::Result<()>, Vec<u8>) {
        let file = Arc::clone(file);
        let written = call(move || {
            let written = write_at(&file, &bytes, at);
            let result = written.and_then(|()| if sync { file.sync_data() } else { Ok(()) });
            Ok((result, bytes))
        });
        written.await.unwrap_or_else(|error| (Err(error), Vec::new()))
    }

    async fn read(&self, file: &Arc<File>, at: u64, len: usize) -> io::Result<Vec<u8>> {
        let file = Arc::clone(file);
        call(move || {
            let (mut all, mut filled) = (vec![0; len], 0);
            while filled < len {
                match file.read_at(&mut all[filled..], at + filled as u64) {
                    Ok(0) => break,
                    Ok(more) => filled += more,
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                    Err(error) => return Err(error),
                }
            }
            all.truncate(filled);
            Ok(all)
        })
        .await
    }

    async fn sync(&self, file: &Arc<File>) -> io::Result<()> {
        let file = Arc::clone(file);
        call(move || file.sync_data()).await
    }

    async fn replace(&self, path: &Path, bytes: Vec<u8>, sync: bool) -> io::Result<()> {
        blocking(path, move |path| replace_at(path, &bytes, None, sync)).await
    }

    async fn store(&self, files: Vec<Stored>, sync: bool) -> io::Result<()> {
        call(move || {
            for Stored { path, file } in files {
                if let Err(error) = replace_at(&path, &file.body, Some(file.modified), sync) {
                    let _ = std::fs::remove_file(aside(&path));
                    return Err(error);
                }
            }
            Ok(())
        })
        .await
    }

    async fn change(&self, changes: Vec<Change<'_, Self>>) -> (usize, io::Result<()>) {
        let owned = |Lines { file, at, bytes }: Lines<'_, Self>| (Arc::clone(file), at, bytes);
        let changes: Vec<_> =
            changes.into_iter().map(|change| (change.lines.map(owned), change.path, change.bytes)).collect();
        let changed = call(move || {
            for (done, (lines, path, bytes)) in changes.iter().enumerate() {
                let added = lines.as_ref().map_or(Ok(()), |(file, at, bytes)| write_at(file, bytes, *at));
                if let Err(error) = added.and_then(|()| replace_at(path, bytes, None, false)) {
                    return Ok((done, Err(error)));
                }
            }
            Ok((changes.len(), Ok(())))
        });
        changed.await.unwrap_or_else(|error| (0, Err(error)))
    }

    async fn truncate(&self, path: &Path, len: u64) -> io::Result<()> {
        blocking(path, move |path| std::fs::OpenOptions::new().write(true).open(path)?.set_len(len)).await
    }

    async fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let to = to.to_owned();
        blocking(from, move |from| std::fs::rename(from, to)).await
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
        blocking(path, |path| std::fs::remove_file(path)).await
    }

    async fn remove_dir(&self, path: &Path) -> io::Result<()> {
        blocking(path, remove_dir_at).await
    }

    async fn make_dir(&self, path: &Path) -> io::Result<()> {
        blocking(path, |path| std::fs::create_dir_all(path)).await
    }

    async fn list(&self, path: &Path) -> io::Result<Vec<Entry>> {
        blocking(path, |path| {
            let mut entries = Vec::new();
            for entry in std::fs::read_dir(path)? {
                let entry = entry?;
                // Names that the recorder writes are text; symbolic links are not followed.
                let Ok(name) = entry.file_name().into_string() else { continue };
                let Ok(meta) = entry.metadata() else { continue };
                let modified = meta.modified().unwrap_or(SystemTime::UNIX_EPOCH);
                let (is_dir, size, links) = (meta.is_dir(), meta.len(), meta.nlink());
                entries.push(Entry { name, is_dir, size, modified, links });
            }
            entries.sort_by(|one, other| one.name.cmp(&other.name));
            Ok(entries)
        })
        .await
    }

    async fn free(&self, path: &Path) -> io::Result<Space> {
        blocking(path, space::free).await
    }

    async fn held(&self, path: &Path) -> io::Result<Held> {
        blocking(path, space::held).await
    }
}

/// The most calls that may be under way at once.
const CALLS_MAX: usize = 64;
/// Calls wait here, not in the helper threads' queue, for which a caller that has given up would not be known.
static CALLS: Semaphore = Semaphore::const_new(CALLS_MAX);
/// The helper threads, as many at the most: a thread whose call has ended may not be idle yet when the next one begins. The
/// runtime has nothing else to do.
static HELPERS: LazyLock<Runtime> = LazyLock::new(|| {
    let mut helpers = runtime::Builder::new_current_thread();
    helpers
        .max_blocking_threads(CALLS_MAX)
        .thread_name("disk")
        .build()
        .expect("without drivers it needs nothing that may be missing")
});

/// Runs a call on a helper thread.
async fn call<T: Send + 'static>(call: impl FnOnce() -> io::Result<T> + Send + 'static) -> io::Result<T> {
    let place = CALLS.acquire().await.expect("the semaphore is never closed");
    let helper = HELPERS.spawn_blocking(move || {
        let result = call();
        drop(place); // only now, even if no task waits for the result
        result
    });
    helper.await.map_err(io::Error::other)?
}

async fn blocking<T: Send + 'static>(
    path: &Path,
    work: impl FnOnce(&Path) -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    let path: PathBuf = path.to_owned();
    call(move || work(&path)).await
}

fn create(path: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).write(true).create(true).truncate(true).open(path)
}

/// Bytes given to the kernel at a time. It gives each call's bytes page cache in blocks as large as the call, and
/// blocks of 2 MiB are the ones that a virtual machine's host has taken back: writing 10 MiB in one call took 2.0 s
/// of CPU per GB, in calls of up to 1 MiB 0.3 s.
const WRITE: usize = 512 << 10;

fn write_at(file: &File, bytes: &[u8], at: u64) -> io::Result<()> {
    let mut at = at;
    for piece in bytes.chunks(WRITE) {
        file.write_all_at(piece, at)?;
        at += piece.len() as u64;
    }
    Ok(())
}

fn replace_at(path: &Path, bytes: &[u8], modified: Option<SystemTime>, sync: bool) -> io::Result<()> {
    let aside = aside(path);
    let file = create(&aside)?;
    write_at(&file, bytes, 0)?;
    if let Some(modified) = modified {
        file.set_modified(modified)?;
    }
    if sync {
        file.sync_data()?;
    }
    drop(file);
    std::fs::rename(aside, path)
}

fn remove_dir_at(path: &Path) -> io::Result<()> {
    for entry in std::fs::read_dir(path)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            remove_dir_at(&entry.path())?;
        } else if entry.file_name() != ABOUT {
            std::fs::remove_file(entry.path())?;
        }
    }
    std::fs::remove_dir_all(path)
}

/// Reads a whole file of at most `max` bytes.
pub(super) async fn read_all<D: Disk>(disk: &D, path: &Path, max: usize) -> io::Result<Vec<u8>> {
    /// The size of one read: memory grows with the file and is not reserved for `max` bytes.
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

/// The entries of a folder; none if there is no such folder.
pub(super) async fn listed<D: Disk>(disk: &D, dir: &Path) -> io::Result<Vec<Entry>> {
    match disk.list(dir).await {
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
            Ok(Vec::new())
        }
        listed => listed,
    }
}

/// A file that is in memory, and its path on the disk.
#[derive(Clone, Debug)]
pub(super) struct Stored {
    pub(super) path: PathBuf,
    pub(super) file: Arc<InMemory>,
}

/// Lines are written, and then a file is replaced.
#[derive(Debug)]
pub(super) struct Change<'a, D: Disk> {
    pub(super) lines: Option<Lines<'a, D>>,
    /// The file that is replaced.
    pub(super) path: PathBuf,
    pub(super) bytes: Vec<u8>,
}

/// Lines to be written to an open file.
#[derive(Debug)]
pub(super) struct Lines<'a, D: Disk> {
    pub(super) file: &'a D::File,
    /// Offset of the first of them.
    pub(super) at: u64,
    pub(super) bytes: Vec<u8>,
}

/// The temporary name under which a file is written.
pub(super) fn aside(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(ASIDE);
    name.into()
}

/// The suffix of a file that is not finished.
pub(super) const ASIDE: &str = ".tmp";
