//! Append-only memory: one writer, any number of readers on any thread, no lock and no copy.
//!
//! An [`Arena`] is one memfd; a [`Segment`] is a range of it, mapped and shared. A segment's bytes are
//! written once, below a length that is published afterwards, and never change again: so a reader needs no
//! lock, a ring may register the memory, and the kernel may send the pages by reference. A segment that
//! nobody holds is unmapped and its pages are punched out of the memfd; its range of the file is not used
//! again.
//!
//! It knows nothing of media, logs or rings. With `uring` it is the only place that contains `unsafe`.
#![expect(unsafe_code, reason = "shared mappings; each block says who owns the memory and what frees it")]

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use rustix::fs::{FallocateFlags, MemfdFlags};
use rustix::mm::{MapFlags, ProtFlags};

const PAGE: usize = 4096;
/// The memfd is sparse: its size is only room for offsets, which are never used twice.
const ARENA_SIZE: u64 = 1 << 62;

/// The memfd that all segments of a process are cut from.
#[derive(Debug)]
pub struct Arena {
    memfd: OwnedFd,
    next: AtomicU64,
    mapped: AtomicU64,
}

impl Arena {
    /// Makes an empty arena: one file descriptor, no memory yet.
    ///
    /// # Errors
    /// What `memfd_create(2)` or `ftruncate(2)` says.
    pub fn new() -> std::io::Result<Arc<Self>> {
        let memfd = rustix::fs::memfd_create("uringcast-log", MemfdFlags::CLOEXEC)?;
        rustix::fs::ftruncate(&memfd, ARENA_SIZE)?;
        Ok(Arc::new(Self { memfd, next: AtomicU64::new(0), mapped: AtomicU64::new(0) }))
    }

    /// Bytes that are mapped by living segments now.
    pub fn mapped(&self) -> u64 {
        self.mapped.load(Ordering::Relaxed)
    }

    /// Maps a fresh segment of at least `capacity` bytes (rounded up to whole pages).
    ///
    /// # Errors
    /// What `mmap(2)` says, above all that memory or mappings ran out.
    pub fn segment(self: &Arc<Self>, capacity: usize) -> std::io::Result<SegmentWriter> {
        assert!(capacity > 0, "an empty segment holds nothing");
        let capacity = capacity.next_multiple_of(PAGE);
        let offset = self.next.fetch_add(capacity as u64, Ordering::Relaxed);
        // SAFETY: a fresh shared mapping at an address of the kernel's choice, of a range of our own memfd
        // that was given to nobody before. The `Segment` below owns it; its drop unmaps it.
        let base = unsafe {
            rustix::mm::mmap(
                std::ptr::null_mut(),
                capacity,
                ProtFlags::READ | ProtFlags::WRITE,
                MapFlags::SHARED,
                &self.memfd,
                offset,
            )
        }?;
        let base = NonNull::new(base.cast::<u8>()).expect("mmap gives no null");
        self.mapped.fetch_add(capacity as u64, Ordering::Relaxed);
        let segment =
            Arc::new(Segment { arena: Arc::clone(self), base, capacity, offset, len: AtomicUsize::new(0) });
        Ok(SegmentWriter { segment, written: 0 })
    }
}

/// A range of append-only memory. Readers see the bytes below the published length; these never change.
#[derive(Debug)]
pub struct Segment {
    arena: Arc<Arena>,
    base: NonNull<u8>,
    capacity: usize,
    offset: u64,
    len: AtomicUsize,
}

// SAFETY: the mapping belongs to the segment until its drop and is reached through shared references only
// below `len`, where no byte changes any more; the writer alone touches the bytes above it.
unsafe impl Send for Segment {}
// SAFETY: as above; `len` is published with Release and read with Acquire.
unsafe impl Sync for Segment {}

impl Segment {
    /// The bytes published so far.
    pub fn bytes(&self) -> &[u8] {
        let len = self.len.load(Ordering::Acquire);
        // SAFETY: `len` bytes from `base` lie in our mapping, were written before `len` was published, and
        // are never written again; the mapping lives as long as `self`.
        unsafe { std::slice::from_raw_parts(self.base.as_ptr(), len) }
    }

    /// Bytes the segment can hold.
    pub fn capacity(&self) -> usize {
        self.capacity
    }

    /// The address of the first byte, for registration with a ring.
    pub fn base(&self) -> NonNull<u8> {
        self.base
    }

    /// The memfd and the offset in it at which the segment starts, for sends by page reference.
    pub fn file(&self) -> (BorrowedFd<'_>, u64) {
        (self.arena.memfd.as_fd(), self.offset)
    }
}

impl Drop for Segment {
    fn drop(&mut self) {
        self.arena.mapped.fetch_sub(self.capacity as u64, Ordering::Relaxed);
        // SAFETY: the mapping made in `Arena::segment`; nobody else holds the segment now, so no reference
        // to its bytes is left. A ring that registered it holds an `Arc` of it until it let go.
        let unmapped = unsafe { rustix::mm::munmap(self.base.as_ptr().cast(), self.capacity) };
        debug_assert!(unmapped.is_ok(), "munmap of our own mapping");
        let hole = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        let punched = rustix::fs::fallocate(&self.arena.memfd, hole, self.offset, self.capacity as u64);
        debug_assert!(punched.is_ok(), "punching our own memfd");
    }
}

/// The one writer of a segment.
#[derive(Debug)]
pub struct SegmentWriter {
    segment: Arc<Segment>,
    written: usize,
}

impl SegmentWriter {
    /// The segment, for readers.
    pub fn segment(&self) -> &Arc<Segment> {
        &self.segment
    }

    /// Bytes that still fit.
    pub fn room(&self) -> usize {
        self.segment.capacity - self.written
    }

    /// Bytes written, published or not.
    pub fn written(&self) -> usize {
        self.written
    }

    /// Writes `bytes` behind what stands there. Readers see them after [`publish`](Self::publish).
    ///
    /// # Panics
    /// If they do not fit: the caller asks [`room`](Self::room) first.
    pub fn append(&mut self, bytes: &[u8]) {
        assert!(bytes.len() <= self.room(), "append beyond the segment");
        // SAFETY: `written` is within the mapping.
        let target = unsafe { self.segment.base.add(self.written) };
        // SAFETY: by the assertion the target lies in our mapping, and above the published length, where only
        // this writer (not Clone, `&mut self`) touches memory; `bytes` cannot overlap it, for no reference to
        // it exists.
        unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), target.as_ptr(), bytes.len()) };
        self.written += bytes.len();
    }

    /// Shows the readers all that was written.
    pub fn publish(&mut self) {
        self.segment.len.store(self.written, Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn readers_see_what_was_published_and_nothing_more() {
        let arena = Arena::new().unwrap();
        let mut writer = arena.segment(5000).unwrap();
        let segment = Arc::clone(writer.segment());
        assert_eq!(segment.capacity(), 8192);
        writer.append(b"abc");
        assert_eq!(segment.bytes(), b"");
        writer.publish();
        assert_eq!(segment.bytes(), b"abc");
        writer.append(b"def");
        assert_eq!(segment.bytes(), b"abc");
        writer.publish();
        assert_eq!(segment.bytes(), b"abcdef");
        assert_eq!(writer.room(), 8186);
    }

    #[test]
    fn a_dropped_segment_gives_its_memory_back() {
        let arena = Arena::new().unwrap();
        let mut writer = arena.segment(1 << 20).unwrap();
        writer.append(&vec![7; 1 << 20]);
        writer.publish();
        let blocks = || rustix::fs::fstat(&arena.memfd).unwrap().st_blocks;
        assert!(blocks() >= 2048);
        let reader = Arc::clone(writer.segment());
        drop(writer);
        assert_eq!(arena.mapped(), 1 << 20);
        assert!(reader.bytes().iter().all(|byte| *byte == 7));
        drop(reader);
        assert_eq!((arena.mapped(), blocks()), (0, 0));
    }

    #[test]
    fn the_memfd_holds_the_same_bytes() {
        let arena = Arena::new().unwrap();
        let _first = arena.segment(1).unwrap();
        let mut writer = arena.segment(1).unwrap();
        writer.append(b"by page reference");
        writer.publish();
        let (fd, offset) = writer.segment().file();
        let mut got = [0; 17];
        rustix::io::pread(fd, &mut got, offset).unwrap();
        assert_eq!(&got, b"by page reference");
    }
}
