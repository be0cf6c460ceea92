//! The memfd, and ranges of it that are mapped.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::fs::{FallocateFlags, MemfdFlags};
use rustix::io::Errno;
use rustix::mm::{MapFlags, ProtFlags};
use rustix::process::{Resource, getrlimit};

pub(super) const PAGE: usize = 4096;
/// A memfd is sparse: its size only bounds the offsets, which are never used twice.
const SIZE: u64 = 1 << 62;

/// A memfd and how much of it has been given out.
#[derive(Debug)]
pub(super) struct Memfd {
    fd: OwnedFd,
    size: u64,
    next: AtomicU64,
}

impl Memfd {
    /// An empty one, as large as the process's file size limit allows.
    pub(super) fn new() -> std::io::Result<Self> {
        let limit = getrlimit(Resource::Fsize).current.unwrap_or(SIZE);
        Self::of_size(SIZE.min(limit - limit % PAGE as u64))
    }

    pub(super) fn of_size(size: u64) -> std::io::Result<Self> {
        if size == 0 {
            return Err(Errno::FBIG.into());
        }
        let create = |flags| rustix::fs::memfd_create("uringcast-log", flags | MemfdFlags::CLOEXEC);
        // If vm.memfd_noexec is 2, only this kind is allowed; kernels before 6.3 do not know the flag.
        let fd = match create(MemfdFlags::NOEXEC_SEAL) {
            Err(Errno::INVAL) => create(MemfdFlags::empty()),
            other => other,
        }?;
        rustix::fs::ftruncate(&fd, size)?;
        Ok(Self { fd, size, next: AtomicU64::new(0) })
    }

    /// The offset of a range that was never given out; `None` if there is none left.
    pub(super) fn reserve(&self, capacity: usize) -> Option<u64> {
        let end = |next: u64| next.checked_add(capacity as u64).filter(|end| *end <= self.size);
        self.next.fetch_update(Ordering::Relaxed, Ordering::Relaxed, end).ok()
    }
}

impl AsFd for Memfd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// A range of a memfd, and where it is mapped. Owned by a segment, by the arena while it is spare, or by the
/// thread that releases it.
#[derive(Debug)]
pub(super) struct Mapping {
    pub(super) memfd: Arc<Memfd>,
    pub(super) base: NonNull<u8>,
    pub(super) capacity: usize,
    pub(super) offset: u64,
}

// SAFETY: the owner of the mapping owns the memory; only a segment gives access, by its own rules.
unsafe impl Send for Mapping {}

impl Mapping {
    /// Maps a range that [`Memfd::reserve`] gave.
    pub(super) fn new(memfd: &Arc<Memfd>, offset: u64, capacity: usize) -> std::io::Result<Self> {
        // SAFETY: a fresh shared mapping at an address of the kernel's choice, of a range of our own memfd that
        // was never given out before. The `Mapping` below owns it; its drop ends both.
        let base = unsafe {
            rustix::mm::mmap(
                std::ptr::null_mut(),
                capacity,
                ProtFlags::READ | ProtFlags::WRITE,
                MapFlags::SHARED,
                memfd,
                offset,
            )
        }?;
        let base = NonNull::new(base.cast()).expect("mmap gives no null");
        Ok(Self { memfd: Arc::clone(memfd), base, capacity, offset })
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: a mapping made in `new`, whose only owner is being dropped: no reference to its bytes is
        // left. A ring that registered it held an `Arc` of its segment until it unregistered it.
        let unmapped = unsafe { rustix::mm::munmap(self.base.as_ptr().cast(), self.capacity) };
        debug_assert!(unmapped.is_ok(), "munmap of our own mapping");
        let hole = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        let punched = rustix::fs::fallocate(&self.memfd, hole, self.offset, self.capacity as u64);
        debug_assert!(punched.is_ok(), "punching our own memfd");
    }
}
