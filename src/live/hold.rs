//! Readers that must not miss anything: a log keeps what they have not read, as far as its bytes allow.
//!
//! A publisher may send minutes of a stream within a second. What viewers may still want of it is a matter of
//! stream time; a recording wants all of it.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};

/// The places that the readers of one log hold.
#[derive(Debug, Default)]
pub(super) struct Holds(Mutex<Vec<Weak<AtomicU64>>>);

/// One reader's place: the log keeps what is after it. Dropping it lets the log go.
#[derive(Debug)]
pub struct Hold(Arc<AtomicU64>);

impl Holds {
    /// A reader that has read everything before `offset`.
    pub(super) fn enter(&self, offset: u64) -> Hold {
        let place = Arc::new(AtomicU64::new(offset));
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(Arc::downgrade(&place));
        Hold(place)
    }

    /// The lowest place that is held; `u64::MAX` if none is.
    pub(super) fn lowest(&self) -> u64 {
        let mut places = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        places.retain(|place| place.strong_count() > 0);
        let held = places.iter().filter_map(Weak::upgrade).map(|place| place.load(Ordering::Relaxed));
        held.min().unwrap_or(u64::MAX)
    }
}

impl Hold {
    /// Everything before `offset` has been read.
    pub fn move_to(&self, offset: u64) {
        self.0.store(offset, Ordering::Relaxed);
    }
}
