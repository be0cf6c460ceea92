//! Memory that may be sent from: held while it is needed, registered where the ring has room for it.

use std::sync::Arc;

use super::Region;
use super::ring::Uring;
use crate::memory::Segment;

/// Bytes of registered memory that a turn lets go of.
const STALE_PIECE: usize = 8 << 20;

#[derive(Debug)]
pub(super) struct RegionState {
    pub(super) segment: Arc<Segment>,
    pub(super) fixed: Option<u16>,
    pub(super) inflight: u32,
    released: bool,
}

impl Uring {
    pub(super) fn hold_region(&mut self, segment: &Arc<Segment>) -> Region {
        if self.fixed_free.is_empty() {
            self.empty_slot();
        }
        let fixed = self.fixed_free.pop().filter(|slot| self.register(*slot, segment));
        let segment = Arc::clone(segment);
        let (place, _) = self.regions.insert(RegionState { segment, fixed, inflight: 0, released: false });
        Region(place)
    }

    pub(super) fn release_region(&mut self, region: Region) {
        let state = self.regions.get_mut(region.0).expect("a region is released once");
        state.released = true;
        if state.inflight == 0 {
            self.forget_region(region);
        }
    }

    pub(super) fn region_done(&mut self, region: Region) {
        let state = self.regions.get_mut(region.0).expect("a region stays while sends use it");
        state.inflight -= 1;
        if state.inflight == 0 && state.released {
            self.forget_region(region);
        }
    }

    fn forget_region(&mut self, region: Region) {
        let state = self.regions.remove(region.0).expect("a region is forgotten once");
        if let Some(slot) = state.fixed {
            self.stale.push_back((slot, state.segment));
        }
    }

    /// Takes memory that is not needed any more out of its slots, a piece of it: the kernel lets go of each page by
    /// itself, and of gigabytes at once that would hold the loop up.
    pub(super) fn empty_slots(&mut self) {
        let mut bytes = 0;
        while bytes < STALE_PIECE {
            let Some(segment) = self.empty_slot() else { return };
            bytes += segment.capacity();
        }
    }

    /// Empties the slot that has waited longest.
    fn empty_slot(&mut self) -> Option<Arc<Segment>> {
        let (slot, segment) = self.stale.pop_front()?;
        let empty = libc::iovec { iov_base: std::ptr::null_mut(), iov_len: 0 };
        let submitter = self.ring.submitter();
        // SAFETY: an empty vector takes the memory out of the slot; no operation uses it any more.
        let updated = unsafe { submitter.register_buffers_update(slot.into(), &[empty], None) };
        if updated.is_ok() {
            self.fixed_free.push(slot);
        }
        Some(segment)
    }

    /// Registers a segment's memory in a free slot.
    fn register(&mut self, slot: u16, segment: &Segment) -> bool {
        let base = segment.base().as_ptr().cast();
        let vector = libc::iovec { iov_base: base, iov_len: segment.capacity() };
        let submitter = self.ring.submitter();
        // SAFETY: the region that is being made keeps the segment, and with it the mapping, until the slot
        // is emptied in `empty_slot`, or until the ring is gone.
        let registered = unsafe { submitter.register_buffers_update(slot.into(), &[vector], None) };
        if registered.is_err() {
            self.fixed_free.clear(); // no more memory may be locked: plain sends from here on
        }
        registered.is_ok()
    }
}
