//! Append-only memory: one writer, any number of readers on any thread, no lock and no copy.
//!
//! An [`Arena`] is a memfd; a [`Segment`] is a range of it, mapped and shared. A segment's bytes are written
//! once, at or above the published length, and never change after the length covers them. Readers therefore
//! need no lock, a ring may register the memory, and the kernel may send the pages by reference. The memory of
//! a segment that is no longer referenced is reused for another segment of the same size, because fresh pages
//! cost more than the bytes written to them. Memory that exceeds this reserve is unmapped and punched out of
//! the memfd by a separate thread (`release`), and its range of the file is not used again.
//!
//! This module knows nothing of media, logs or rings. With `uring` it is the only place that contains `unsafe`.
#![expect(unsafe_code, reason = "shared mappings; each block says who owns the memory and what frees it")]

use std::os::fd::{AsFd, BorrowedFd};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use file::{Mapping, Memfd, PAGE};

mod file;
mod release;
#[cfg(test)]
mod tests;

/// At most this part (a quarter) of the memory in use is kept for later segments.
const SPARE_PART: u64 = 4;

/// The memfd from which all segments of a process are allocated. If `RLIMIT_FSIZE` bounds its size, another one
/// is made when it is used up.
#[derive(Debug)]
pub struct Arena {
    memfd: Mutex<Arc<Memfd>>,
    mapped: AtomicU64,
    /// Bytes that living segments may take.
    limit: AtomicU64,
    /// The most bytes that one log should keep.
    log_limit: AtomicU64,
    /// Memory that no segment uses, the newest last.
    spare: Mutex<Vec<Mapping>>,
    /// Bytes waiting to be returned to the system.
    leaving: Arc<release::Leaving>,
}

impl Arena {
    /// Makes an empty arena: one file descriptor, no memory yet.
    ///
    /// # Errors
    /// What `memfd_create(2)` or `ftruncate(2)` says.
    pub fn new() -> std::io::Result<Arc<Self>> {
        // Here and not on the first release, when there may be too little memory for a thread.
        release::start();
        Ok(Arc::new(Self {
            memfd: Mutex::new(Arc::new(Memfd::new()?)),
            mapped: AtomicU64::new(0),
            limit: AtomicU64::new(u64::MAX),
            log_limit: AtomicU64::new(u64::MAX),
            spare: Mutex::default(),
            leaving: Arc::default(),
        }))
    }

    /// Bytes of living segments now.
    pub fn mapped(&self) -> u64 {
        self.mapped.load(Ordering::Relaxed)
    }

    /// Limits the living segments, in bytes; existing segments are not affected.
    pub fn set_limit(&self, bytes: u64) {
        self.limit.store(bytes, Ordering::Relaxed);
    }

    /// Sets how many bytes one log should keep at most. Logs ask for it; nothing is taken from them.
    pub fn set_log_limit(&self, bytes: u64) {
        self.log_limit.store(bytes, Ordering::Relaxed);
    }

    /// The value last set with [`set_log_limit`](Self::set_log_limit); `u64::MAX`: no limit.
    pub fn log_limit(&self) -> u64 {
        self.log_limit.load(Ordering::Relaxed)
    }

    /// Bytes that belong to no segment any more but still to the process: kept for later segments, or waiting
    /// to be released.
    pub fn idle(&self) -> u64 {
        let spare = self.spare.lock().expect("no thread panics while it holds this lock");
        let spare: u64 = spare.iter().map(|mapping| mapping.capacity as u64).sum();
        spare + self.leaving.bytes()
    }

    /// Maps a segment of at least `capacity` bytes (rounded up to whole pages).
    ///
    /// # Errors
    /// The error of `mmap(2)`, usually that memory or mappings ran out; [`QuotaExceeded`] beyond the limit.
    ///
    /// [`QuotaExceeded`]: std::io::ErrorKind::QuotaExceeded
    pub fn segment(self: &Arc<Self>, capacity: usize) -> std::io::Result<SegmentWriter> {
        assert!(capacity > 0, "an empty segment holds nothing");
        let capacity = capacity.next_multiple_of(PAGE);
        if self.mapped().saturating_add(capacity as u64) > self.limit.load(Ordering::Relaxed) {
            let why = "the memory budget is used up";
            return Err(std::io::Error::new(std::io::ErrorKind::QuotaExceeded, why));
        }
        let mapping = match self.take_spare(capacity) {
            Some(mapping) => mapping,
            None => self.map(capacity)?,
        };
        self.mapped.fetch_add(capacity as u64, Ordering::Relaxed);
        let (arena, len, lent) = (Arc::clone(self), AtomicUsize::new(0), AtomicBool::new(false));
        let segment = Arc::new(Segment { arena, mapping: Some(mapping), len, lent });
        Ok(SegmentWriter { segment, written: 0 })
    }

    fn map(&self, capacity: usize) -> std::io::Result<Mapping> {
        let mut memfd = self.memfd.lock().expect("no thread panics while it holds this lock");
        if let Some(offset) = memfd.reserve(capacity) {
            return Mapping::new(&memfd, offset, capacity);
        }
        let fresh = Arc::new(Memfd::new()?);
        let offset = fresh.reserve(capacity).ok_or(rustix::io::Errno::FBIG)?;
        let mapping = Mapping::new(&fresh, offset, capacity)?;
        *memfd = fresh;
        Ok(mapping)
    }

    fn take_spare(&self, capacity: usize) -> Option<Mapping> {
        let mut spare = self.spare.lock().expect("no thread panics while it holds this lock");
        let place = spare.iter().rposition(|mapping| mapping.capacity == capacity)?;
        Some(spare.remove(place))
    }

    /// Keeps the memory of a dropped segment, and releases what exceeds the reserve.
    fn keep(&self, mapping: Mapping) {
        let limit = self.mapped() / SPARE_PART;
        let mut spare = self.spare.lock().expect("no thread panics while it holds this lock");
        spare.push(mapping);
        let mut bytes: u64 = spare.iter().map(|mapping| mapping.capacity as u64).sum();
        let mut too_many = 0;
        while bytes > limit {
            bytes -= spare[too_many].capacity as u64;
            too_many += 1;
        }
        let gone: Vec<Mapping> = spare.drain(..too_many).collect();
        drop(spare);
        gone.into_iter().for_each(|mapping| release::release(mapping, &self.leaving));
    }
}

impl Drop for Arena {
    fn drop(&mut self) {
        let spare = std::mem::take(self.spare.get_mut().expect("no thread panics while it holds this lock"));
        spare.into_iter().for_each(|mapping| release::release(mapping, &self.leaving));
    }
}

/// A range of append-only memory. Readers see the bytes below the published length; these never change.
#[derive(Debug)]
pub struct Segment {
    arena: Arc<Arena>,
    /// Taken out only by the drop.
    mapping: Option<Mapping>,
    len: AtomicUsize,
    /// Its range of the file was handed out: sockets may refer to its pages for longer than it lives.
    lent: AtomicBool,
}

// SAFETY: through shared references the mapping is reached only below `len`, where bytes no longer change; only
// the writer touches the bytes above it. `len` is published with Release and read with Acquire.
unsafe impl Sync for Segment {}

impl Segment {
    fn mapping(&self) -> &Mapping {
        self.mapping.as_ref().expect("there until the segment is dropped")
    }

    /// The bytes published so far.
    pub fn bytes(&self) -> &[u8] {
        let len = self.len.load(Ordering::Acquire);
        // SAFETY: `len` bytes from `base` lie in our mapping, were written before `len` was published, and are
        // not written again while `self`, and with it the mapping, lives.
        unsafe { std::slice::from_raw_parts(self.mapping().base.as_ptr(), len) }
    }

    /// Bytes the segment can hold.
    pub fn capacity(&self) -> usize {
        self.mapping().capacity
    }

    /// The address of the first byte, for registration with a ring.
    pub fn base(&self) -> NonNull<u8> {
        self.mapping().base
    }

    /// The memfd and the offset in it at which the segment starts, for sends by page reference. After this call
    /// its pages are never reused.
    pub fn file(&self) -> (BorrowedFd<'_>, u64) {
        self.lent.store(true, Ordering::Relaxed);
        (self.mapping().memfd.as_fd(), self.mapping().offset)
    }
}

impl Drop for Segment {
    fn drop(&mut self) {
        let mapping = self.mapping.take().expect("dropped once");
        self.arena.mapped.fetch_sub(mapping.capacity as u64, Ordering::Relaxed);
        if *self.lent.get_mut() {
            release::release(mapping, &self.arena.leaving);
        } else {
            self.arena.keep(mapping);
        }
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
        self.segment.mapping().capacity - self.written
    }

    /// Bytes written, published or not.
    pub fn written(&self) -> usize {
        self.written
    }

    /// Appends `bytes`. Readers see them after [`publish`](Self::publish).
    ///
    /// # Panics
    /// If they do not fit: the caller checks [`room`](Self::room) first.
    pub fn append(&mut self, bytes: &[u8]) {
        assert!(bytes.len() <= self.room(), "append beyond the segment");
        // SAFETY: `written` is within the mapping.
        let target = unsafe { self.segment.mapping().base.add(self.written) };
        // SAFETY: by the assertion the target lies in our mapping, and above the published length, where only
        // this writer (not Clone, `&mut self`) touches memory; `bytes` cannot overlap it, since no reference to
        // it exists.
        unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), target.as_ptr(), bytes.len()) };
        self.written += bytes.len();
    }

    /// Makes all that was written visible to the readers.
    pub fn publish(&mut self) {
        self.segment.len.store(self.written, Ordering::Release);
    }
}
