//! The recorder's metrics, and what the status page says of it.

use std::cell::Cell;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use metrics::{counter, describe_counter, describe_gauge, gauge};

use super::layout::Kind;
use crate::server::recording::RecordingState;

/// The counters of one recording.
#[derive(Clone, Debug)]
pub(super) struct Stats {
    kind: &'static str,
    state: Arc<RecordingState>,
    /// Bytes that this recording has written.
    written: Rc<Cell<u64>>,
}

/// Describes the metrics.
pub(in crate::control) fn describe() {
    describe_gauge!("uringcast_recordings", "Recordings under way, by kind");
    describe_gauge!("uringcast_recordings_stalled", "Recordings that wait for a slow disk");
    describe_gauge!("uringcast_recordings_failing", "Recordings that failed and have written nothing since");
    describe_gauge!(
        "uringcast_recording_disk_full",
        "1: the disk has too little free space, and nothing is recorded"
    );
    describe_counter!("uringcast_recorded_bytes_total", "Bytes recorded");
    describe_counter!("uringcast_recorded_segments_total", "Segments and files finished");
    describe_counter!("uringcast_recording_failures_total", "Failed attempts to record");
    describe_counter!("uringcast_recording_skipped_bytes_total", "Bytes of streams that were not recorded");
    describe_counter!(
        "uringcast_recording_refused_total",
        "Items that did not fit in a queue: takes, which are finished later, and calls of the hook, which are not made"
    );
}

/// Notes whether the disk is too full to record.
pub(super) fn disk_full(state: &RecordingState, full: bool) {
    state.disk_full.store(full, Ordering::Relaxed);
    gauge!("uringcast_recording_disk_full").set(f64::from(u8::from(full)));
}

impl Stats {
    pub(super) fn new(kind: Kind, state: Arc<RecordingState>) -> Self {
        Self { kind: kind.name(), state, written: Rc::default() }
    }

    /// The recording is under way until this is dropped.
    pub(super) fn began(&self) -> Counted {
        self.count("uringcast_recordings", |state| &state.under_way)
    }

    pub(super) fn wrote(&self, bytes: u64) {
        self.written.set(self.written.get() + bytes);
        counter!("uringcast_recorded_bytes_total", "kind" => self.kind).increment(bytes);
    }

    /// Bytes that this recording has written.
    pub(super) fn written(&self) -> u64 {
        self.written.get()
    }

    pub(super) fn finished_segment(&self) {
        counter!("uringcast_recorded_segments_total", "kind" => self.kind).increment(1);
    }

    pub(super) fn failed(&self) {
        counter!("uringcast_recording_failures_total", "kind" => self.kind).increment(1);
    }

    pub(super) fn skipped(&self, bytes: u64) {
        counter!("uringcast_recording_skipped_bytes_total", "kind" => self.kind).increment(bytes);
    }

    /// A recording waits for its disk until this is dropped.
    pub(super) fn stalled(&self) -> Counted {
        self.count("uringcast_recordings_stalled", |state| &state.stalled)
    }

    /// A recording fails until this is dropped.
    pub(super) fn failing(&self) -> Counted {
        self.count("uringcast_recordings_failing", |state| &state.failing)
    }

    fn count(&self, name: &'static str, field: fn(&RecordingState) -> &AtomicU64) -> Counted {
        gauge!(name, "kind" => self.kind).increment(1.0);
        field(&self.state).fetch_add(1, Ordering::Relaxed);
        Counted { name, field, kind: self.kind, state: Arc::clone(&self.state) }
    }
}

/// Counts a recording in one state until it is dropped.
#[derive(Debug)]
pub(super) struct Counted {
    name: &'static str,
    field: fn(&RecordingState) -> &AtomicU64,
    kind: &'static str,
    state: Arc<RecordingState>,
}

impl Drop for Counted {
    fn drop(&mut self) {
        gauge!(self.name, "kind" => self.kind).decrement(1.0);
        (self.field)(&self.state).fetch_sub(1, Ordering::Relaxed);
    }
}
