//! Append-only memory: one writer, any number of readers on any thread, no lock and no copy.
//!
//! An [`Arena`] is one memfd; a [`Segment`] is a range of it, mapped and shared. A segment's bytes are
//! written once, below a length that is published afterwards, and never change again: so a reader needs no
//! lock, a ring may register the memory, and the kernel may send the pages by reference. The memory of a segment
//! that nobody holds becomes another segment of its size: fresh pages cost more than what is written to them. What
//! is too much for that is unmapped and punched out of the memfd, and its range of the file is not used again.
//!
//! It knows nothing of media, logs or rings. With `uring` it is the only place that contains `unsafe`.
#![expect(unsafe_code, reason = "shared mappings; each block says who owns the memory and what frees it")]

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use rustix::fs::{FallocateFlags, MemfdFlags};
use rustix::mm::{MapFlags, ProtFlags};

const PAGE: usize = 4096;
/// The memfd is sparse: its size is only room for offsets, which are never used twice.
const ARENA_SIZE: u64 = 1 << 62;
/// Memory that is kept for segments to come: a quarter of what is in use at the most.
const SPARE_PART: u64 = 4;

/// The memfd that all segments of a process are cut from.
#[derive(Debug)]
pub struct Arena {
    memfd: OwnedFd,
    next: AtomicU64,
    mapped: AtomicU64,
    /// Memory that nobody holds, the newest last.
    spare: Mutex<Vec<Mapping>>,
}

impl Arena {
    /// Makes an empty arena: one file descriptor, no memory yet.
    ///
    /// # Errors
    /// What `memfd_create(2)` or `ftruncate(2)` says.
    pub fn new() -> std::io::Result<Arc<Self>> {
        let memfd = rustix::fs::memfd_create("uringcast-log", MemfdFlags::CLOEXEC)?;
        rustix::fs::ftruncate(&memfd, ARENA_SIZE)?;
        let (next, mapped, spare) = (AtomicU64::new(0), AtomicU64::new(0), Mutex::default());
        Ok(Arc::new(Self { memfd, next, mapped, spare }))
    }

    /// Bytes of living segments now.
    pub fn mapped(&self) -> u64 {
        self.mapped.load(Ordering::Relaxed)
    }

    /// Maps a segment of at least `capacity` bytes (rounded up to whole pages).
    ///
    /// # Errors
    /// What `mmap(2)` says, above all that memory or mappings ran out.
    pub fn segment(self: &Arc<Self>, capacity: usize) -> std::io::Result<SegmentWriter> {
        assert!(capacity > 0, "an empty segment holds nothing");
        let capacity = capacity.next_multiple_of(PAGE);
        let mapping = match self.take_spare(capacity) {
            Some(mapping) => mapping,
            None => self.map(capacity)?,
        };
        self.mapped.fetch_add(capacity as u64, Ordering::Relaxed);
        let (arena, len, lent) = (Arc::clone(self), AtomicUsize::new(0), AtomicBool::new(false));
        Ok(SegmentWriter { segment: Arc::new(Segment { arena, mapping, len, lent }), written: 0 })
    }

    fn map(&self, capacity: usize) -> std::io::Result<Mapping> {
        let offset = self.next.fetch_add(capacity as u64, Ordering::Relaxed);
        // SAFETY: a fresh shared mapping at an address of the kernel's choice, of a range of our own memfd
        // that was given to nobody before. The `Mapping` below owns it; `unmap` ends both.
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
        Ok(Mapping { base: NonNull::new(base.cast()).expect("mmap gives no null"), capacity, offset })
    }

    fn take_spare(&self, capacity: usize) -> Option<Mapping> {
        let mut spare = self.spare.lock().expect("nobody panics with this lock");
        let place = spare.iter().rposition(|mapping| mapping.capacity == capacity)?;
        Some(spare.remove(place))
    }

    /// Keeps the memory of a segment that is no more, and lets go what is too much.
    fn keep(&self, mapping: Mapping) {
        let limit = self.mapped() / SPARE_PART;
        let mut spare = self.spare.lock().expect("nobody panics with this lock");
        spare.push(mapping);
        let mut bytes: u64 = spare.iter().map(|mapping| mapping.capacity as u64).sum();
        let mut too_many = 0;
        while bytes > limit {
            bytes -= spare[too_many].capacity as u64;
            too_many += 1;
        }
        let gone: Vec<Mapping> = spare.drain(..too_many).collect();
        drop(spare);
        gone.into_iter().for_each(|mapping| self.unmap(mapping));
    }

    fn unmap(&self, mapping: Mapping) {
        let Mapping { base, capacity, offset } = mapping;
        // SAFETY: a mapping made in `map`, given away by its only owner: no reference to its bytes is left. A
        // ring that registered it held an `Arc` of its segment until it let go.
        let unmapped = unsafe { rustix::mm::munmap(base.as_ptr().cast(), capacity) };
        debug_assert!(unmapped.is_ok(), "munmap of our own mapping");
        let hole = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        let punched = rustix::fs::fallocate(&self.memfd, hole, offset, capacity as u64);
        debug_assert!(punched.is_ok(), "punching our own memfd");
    }
}

impl Drop for Arena {
    fn drop(&mut self) {
        let spare = std::mem::take(self.spare.get_mut().expect("nobody panics with this lock"));
        spare.into_iter().for_each(|mapping| self.unmap(mapping));
    }
}

/// A range of the memfd, and where it is mapped. One segment owns it, or the arena while it is spare.
#[derive(Debug)]
struct Mapping {
    base: NonNull<u8>,
    capacity: usize,
    offset: u64,
}

// SAFETY: whoever owns it owns the memory; only a segment gives access, by the rules below.
unsafe impl Send for Mapping {}

/// A range of append-only memory. Readers see the bytes below the published length; these never change.
#[derive(Debug)]
pub struct Segment {
    arena: Arc<Arena>,
    mapping: Mapping,
    len: AtomicUsize,
    /// Its range of the file was given out: sockets may refer to its pages for longer than it lives.
    lent: AtomicBool,
}

// SAFETY: the mapping is reached through shared references only below `len`, where no byte changes any more; the
// writer alone touches the bytes above it. `len` is published with Release and read with Acquire.
unsafe impl Sync for Segment {}

impl Segment {
    /// The bytes published so far.
    pub fn bytes(&self) -> &[u8] {
        let len = self.len.load(Ordering::Acquire);
        // SAFETY: `len` bytes from `base` lie in our mapping, were written before `len` was published, and
        // are not written again while `self` lives, and the mapping with it.
        unsafe { std::slice::from_raw_parts(self.mapping.base.as_ptr(), len) }
    }

    /// Bytes the segment can hold.
    pub fn capacity(&self) -> usize {
        self.mapping.capacity
    }

    /// The address of the first byte, for registration with a ring.
    pub fn base(&self) -> NonNull<u8> {
        self.mapping.base
    }

    /// The memfd and the offset in it at which the segment starts, for sends by page reference. Its pages are
    /// never used again then.
    pub fn file(&self) -> (BorrowedFd<'_>, u64) {
        self.lent.store(true, Ordering::Relaxed);
        (self.arena.memfd.as_fd(), self.mapping.offset)
    }
}

impl Drop for Segment {
    fn drop(&mut self) {
        let Mapping { base, capacity, offset } = self.mapping;
        let mapping = Mapping { base, capacity, offset };
        self.arena.mapped.fetch_sub(capacity as u64, Ordering::Relaxed);
        if *self.lent.get_mut() { self.arena.unmap(mapping) } else { self.arena.keep(mapping) }
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
        self.segment.mapping.capacity - self.written
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
        let target = unsafe { self.segment.mapping.base.add(self.written) };
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
    fn memory_is_used_again_unless_sockets_may_refer_to_it() {
        let arena = Arena::new().unwrap();
        let held: Vec<SegmentWriter> = (0..8).map(|_| arena.segment(PAGE).unwrap()).collect();
        let mut writer = arena.segment(PAGE).unwrap();
        let base = writer.segment().base();
        writer.append(b"before");
        drop(writer);
        let again = arena.segment(1).unwrap();
        assert_eq!((again.segment().base(), again.segment().bytes()), (base, &b""[..]));
        let (_, offset) = again.segment().file();
        drop(again);
        assert_eq!(arena.spare.lock().unwrap().len(), 0);
        let fresh = arena.segment(PAGE).unwrap();
        assert!(fresh.segment().file().1 > offset);
        drop(held);
        let spare: usize = arena.spare.lock().unwrap().iter().map(|mapping| mapping.capacity).sum();
        assert_eq!((arena.mapped(), spare), (PAGE as u64, 0));
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
