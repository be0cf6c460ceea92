//! How recording is doing, for the status page: written by the control thread, read for the listing of streams.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// The state of all recordings of the process.
#[derive(Debug, Default)]
pub struct RecordingState {
    /// Recordings under way; one stream may have several.
    pub under_way: AtomicU64,
    /// Of these, those that failed and have written nothing since.
    pub failing: AtomicU64,
    /// Of these, those that wait for a slow disk.
    pub stalled: AtomicU64,
    /// The disk has too little free space, and nothing is recorded.
    pub disk_full: AtomicBool,
}

/// The same at one time, for the listing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
pub(in crate::server) struct RecordingFacts {
    under_way: u64,
    failing: u64,
    stalled: u64,
    disk_full: bool,
}

impl RecordingState {
    pub(in crate::server) fn facts(&self) -> RecordingFacts {
        RecordingFacts {
            under_way: self.under_way.load(Ordering::Relaxed),
            failing: self.failing.load(Ordering::Relaxed),
            stalled: self.stalled.load(Ordering::Relaxed),
            disk_full: self.disk_full.load(Ordering::Relaxed),
        }
    }
}
