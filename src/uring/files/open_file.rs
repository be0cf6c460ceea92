//! A regular file that is open, and whether a part of it is in memory.

use std::any::Any;
use std::cell::{Cell, RefCell};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use rustix::fs::{AtFlags, FileType, StatxFlags};
use rustix::io::{Errno, ReadWriteFlags};

use crate::uring::clock::Millis;

/// How long a part that was found in memory is assumed to stay there.
const HOT_FOR: Millis = 1_000;
/// How much is checked and remembered at once.
const BLOCK: u64 = 4 << 20;
/// Without `cachestat(2)`, one byte in this many is probed.
const TRIAL_STEP: u64 = 128 << 10;
/// `cachestat(2)`, the same number on every architecture.
const SYS_CACHESTAT: libc::c_long = 451;

/// When a file was last changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Modified {
    /// Seconds since 1970.
    pub seconds: i64,
    /// Nanoseconds within the second.
    pub nanos: u32,
}

impl Modified {
    /// The time since 1970; times before that count as 1970.
    pub fn since_epoch(self) -> Duration {
        u64::try_from(self.seconds).map_or(Duration::ZERO, |seconds| Duration::new(seconds, self.nanos))
    }
}

/// A regular file as it was when it was opened.
#[derive(Debug)]
pub struct OpenFile {
    fd: OwnedFd,
    /// Bytes.
    pub len: u64,
    /// When it was last changed.
    pub modified: Modified,
    /// When its inode was last changed: also by a rename, or by setting its times.
    pub inode_changed: Modified,
    /// Device and inode.
    pub identity: (u64, u64),
    probe: Cell<Probe>,
    hot: Cell<Hot>,
    /// Dropped after the file is closed.
    companion: RefCell<Option<Box<dyn Any>>>,
}

/// How a file's pages are checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Probe {
    Cachestat,
    Trial,
}

/// The part that was last found in memory, and how long that counts.
#[derive(Clone, Copy, Debug, Default)]
struct Hot {
    from: u64,
    to: u64,
    until: Millis,
}

impl OpenFile {
    /// Checks what was opened and keeps it if it is a regular file.
    ///
    /// # Errors
    /// [`Errno::ISDIR`] for a folder, [`Errno::NXIO`] for anything else that is not a regular file.
    pub(super) fn new(fd: OwnedFd) -> Result<Self, Errno> {
        // The inode is in memory, and a file server is not asked: this does not block.
        let flags = AtFlags::EMPTY_PATH | AtFlags::STATX_DONT_SYNC;
        let stat = rustix::fs::statx(&fd, "", flags, StatxFlags::BASIC_STATS)?;
        match FileType::from_raw_mode(stat.stx_mode.into()) {
            FileType::RegularFile => {}
            FileType::Directory => return Err(Errno::ISDIR),
            _ => return Err(Errno::NXIO),
        }
        let device = u64::from(stat.stx_dev_major) << 32 | u64::from(stat.stx_dev_minor);
        Ok(Self {
            fd,
            len: stat.stx_size,
            modified: Modified { seconds: stat.stx_mtime.tv_sec, nanos: stat.stx_mtime.tv_nsec },
            inode_changed: Modified { seconds: stat.stx_ctime.tv_sec, nanos: stat.stx_ctime.tv_nsec },
            identity: (device, stat.stx_ino),
            probe: Cell::new(Probe::Cachestat),
            hot: Cell::default(),
            companion: RefCell::default(),
        })
    }

    /// Keeps a value until the file is closed.
    pub fn accompany(&self, companion: impl Any) {
        self.companion.replace(Some(Box::new(companion)));
    }

    /// Whether both are the same version of the same file.
    pub fn is_same(&self, other: &Self) -> bool {
        (self.identity, self.len, self.modified) == (other.identity, other.len, other.modified)
    }

    /// Reads from `from` on. Blocks if that is not in memory.
    ///
    /// # Errors
    /// The system's error.
    pub fn read_at(&self, from: u64, into: &mut [u8]) -> Result<usize, Errno> {
        rustix::io::pread(&self.fd, into, from)
    }

    /// Whether a part can be sent without waiting for a disk, as far as can be known.
    pub(in crate::uring) fn is_hot(&self, from: u64, len: u32, now: Millis) -> bool {
        let to = from + u64::from(len);
        let known = self.hot.get();
        if known.from <= from && to <= known.to && now < known.until {
            return true;
        }
        let block = from - from % BLOCK;
        let block = (block, (block + BLOCK).min(self.len));
        for (start, end) in [block, (from, to)] {
            if start <= from && to <= end && self.is_cached(start, end) {
                self.hot.set(Hot { from: start, to: end, until: now + HOT_FOR });
                return true;
            }
        }
        false
    }

    /// A part was just read: if a probe still does not see it, that probe is not used again.
    pub(in crate::uring) fn was_read(&self, from: u64, len: u32, now: Millis) {
        if !self.is_hot(from, len, now) {
            self.probe.set(Probe::Trial);
        }
    }

    fn is_cached(&self, from: u64, to: u64) -> bool {
        if self.probe.get() == Probe::Cachestat {
            if let Some(cached) = cachestat(self.fd.as_fd(), from, to) {
                return cached;
            }
            self.probe.set(Probe::Trial);
        }
        let mut at = from;
        while at < to {
            if !self.has_byte(at) {
                return false;
            }
            at += TRIAL_STEP;
        }
        self.has_byte(to.saturating_sub(1))
    }

    fn has_byte(&self, at: u64) -> bool {
        let mut byte = [0];
        let into = &mut [io::IoSliceMut::new(&mut byte)];
        rustix::io::preadv2(&self.fd, into, at, ReadWriteFlags::NOWAIT).is_ok()
    }
}

/// Whether all pages from byte `from` to byte `to` are in memory; `None`: the kernel cannot say.
fn cachestat(fd: BorrowedFd<'_>, from: u64, to: u64) -> Option<bool> {
    #[repr(C)]
    struct Range {
        from: u64,
        len: u64,
    }
    #[repr(C)]
    #[derive(Default)]
    struct Found {
        cached: u64,
        others: [u64; 4],
    }
    let page = rustix::param::page_size() as u64;
    let range = Range { from, len: to - from };
    let mut found = Found::default();
    // SAFETY: both structures have the layout that the call expects and live until it returns.
    let result = unsafe {
        libc::syscall(SYS_CACHESTAT, fd.as_raw_fd(), &raw const range, &raw mut found, 0 as libc::c_uint)
    };
    (result == 0).then(|| found.cached >= to.div_ceil(page) - from / page)
}

impl AsFd for OpenFile {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}
