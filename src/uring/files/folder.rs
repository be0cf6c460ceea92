//! A folder that is served, and how files below it are opened.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::sync::Arc;

use rustix::fs::{Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

use super::open_file::OpenFile;

/// A folder below which files are opened, and never outside it.
#[derive(Debug)]
pub struct Folder {
    fd: OwnedFd,
    /// Device and inode.
    identity: (u64, u64),
}

impl Folder {
    /// Opens a folder. Blocks.
    ///
    /// # Errors
    /// The system's error.
    pub fn open(path: &Path) -> io::Result<Arc<Self>> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let fd = rustix::fs::open(path, flags, Mode::empty())?;
        let stat = rustix::fs::fstat(&fd)?;
        Ok(Arc::new(Self { fd, identity: (stat.st_dev, stat.st_ino) }))
    }

    /// Whether both are the same folder, and not only of the same name.
    pub fn is_same(&self, other: &Self) -> bool {
        self.identity == other.identity
    }

    /// Opens a file below the folder as the ring does, but blocks.
    ///
    /// # Errors
    /// As in [`Event::Opened`](crate::uring::Event::Opened).
    pub fn open_file(&self, path: &str) -> Result<OpenFile, Errno> {
        let fd = rustix::fs::openat2(&self.fd, path, open_flags(), Mode::empty(), resolve_flags())?;
        OpenFile::new(fd)
    }
}

/// Opening a pipe or a device must not block, and a terminal must not become the controlling one.
pub(super) fn open_flags() -> OFlags {
    OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC
}

/// Links may point elsewhere below the folder, but not out of it, and not through `/proc`.
pub(super) fn resolve_flags() -> ResolveFlags {
    ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS
}

impl AsFd for Folder {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}
