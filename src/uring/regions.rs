//! Memory that may be sent from: held while it is needed, registered if the ring has a free slot for it.

use std::collections::VecDeque;
use std::sync::Arc;

use io_uring::Submitter;

use super::engine::Region;
use super::slab::Slab;
use crate::memory::Segment;

/// Slots for registered memory.
const REGISTERED_MAX: u16 = 4096;
/// Bytes of registered memory that are unregistered in one turn.
const STALE_PIECE: usize = 8 << 20;

#[derive(Debug)]
pub(super) struct RegionState {
    pub(super) segment: Arc<Segment>,
    pub(super) fixed: Option<u16>,
    inflight: u32,
    released: bool,
}

/// The memory that a ring may send from.
#[derive(Debug)]
pub(super) struct Regions {
    held: Slab<RegionState>,
    /// Free slots of the ring's table of registered memory.
    pub(super) free: Vec<u16>,
    /// Slots whose memory is not needed any more, with the segment that is kept until they are emptied.
    pub(super) stale: VecDeque<(u16, Arc<Segment>)>,
}

impl Regions {
    /// Makes the ring's table, if the kernel supports one.
    pub(super) fn new(submitter: &Submitter<'_>) -> Self {
        let has_table = submitter.register_buffers_sparse(REGISTERED_MAX.into()).is_ok();
        let free = if has_table { (0..REGISTERED_MAX).rev().collect() } else { Vec::new() };
        Self { held: Slab::new(), free, stale: VecDeque::new() }
    }

    pub(super) fn hold(&mut self, submitter: &Submitter<'_>, segment: &Arc<Segment>) -> Region {
        if self.free.is_empty() {
            self.empty_slot(submitter);
        }
        let fixed = self.free.pop().filter(|slot| self.register(submitter, *slot, segment));
        let segment = Arc::clone(segment);
        let (place, _) = self.held.insert(RegionState { segment, fixed, inflight: 0, released: false });
        Region(place)
    }

    pub(super) fn get(&self, region: Region) -> Option<&RegionState> {
        self.held.get(region.0)
    }

    pub(super) fn release(&mut self, region: Region) {
        let state = self.held.get_mut(region.0).expect("a region is released once");
        state.released = true;
        if state.inflight == 0 {
            self.forget(region);
        }
    }

    /// Counts a send and returns the address of the region's byte `from`, with `len` bytes after it.
    pub(super) fn begin_send(&mut self, region: Region, from: u32, len: u32) -> *const u8 {
        let state = self.held.get_mut(region.0).expect("a region is sent from while it is held");
        let stretch = from as usize..from as usize + len as usize;
        let bytes = &state.segment.bytes()[stretch];
        state.inflight += 1;
        bytes.as_ptr()
    }

    pub(super) fn end_send(&mut self, region: Region) {
        let state = self.held.get_mut(region.0).expect("a region stays while sends use it");
        state.inflight -= 1;
        if state.inflight == 0 && state.released {
            self.forget(region);
        }
    }

    /// Keeps the memory for ever: the kernel may still read it.
    pub(super) fn leak(&mut self) {
        std::mem::forget(std::mem::replace(&mut self.held, Slab::new()));
    }

    fn forget(&mut self, region: Region) {
        let state = self.held.remove(region.0).expect("a region is forgotten once");
        if let Some(slot) = state.fixed {
            self.stale.push_back((slot, state.segment));
        }
    }

    /// Takes memory that is not needed any more out of its slots, one piece at a time: the kernel releases page
    /// by page, and gigabytes at once would stall the loop.
    pub(super) fn empty_slots(&mut self, submitter: &Submitter<'_>) {
        let mut bytes = 0;
        while bytes < STALE_PIECE {
            let Some(segment) = self.empty_slot(submitter) else { return };
            bytes += segment.capacity();
        }
    }

    /// Empties the slot that has waited longest.
    fn empty_slot(&mut self, submitter: &Submitter<'_>) -> Option<Arc<Segment>> {
        let (slot, segment) = self.stale.pop_front()?;
        let empty = libc::iovec { iov_base: std::ptr::null_mut(), iov_len: 0 };
        // SAFETY: an empty vector takes the memory out of the slot; no operation uses it any more.
        let updated = unsafe { submitter.register_buffers_update(slot.into(), &[empty], None) };
        if updated.is_ok() {
            self.free.push(slot);
        }
        Some(segment)
    }

    /// Registers a segment's memory in a free slot.
    fn register(&mut self, submitter: &Submitter<'_>, slot: u16, segment: &Segment) -> bool {
        let base = segment.base().as_ptr().cast();
        let vector = libc::iovec { iov_base: base, iov_len: segment.capacity() };
        // SAFETY: the region that is being made keeps the segment, and with it the mapping, until the slot is
        // emptied in `empty_slot`, or until the ring is dropped.
        let registered = unsafe { submitter.register_buffers_update(slot.into(), &[vector], None) };
        if registered.is_err() {
            self.free.clear(); // no more memory may be locked: plain sends from here on
        }
        registered.is_ok()
    }
}
