//! The recorder's metrics.

use metrics::{counter, describe_counter, describe_gauge, gauge};

use super::layout::Kind;

/// The counters of one kind of recording.
#[derive(Clone, Copy, Debug)]
pub(super) struct Stats(&'static str);

/// Describes the metrics.
pub(in crate::control) fn describe() {
    describe_gauge!("uringcast_recordings", "Recordings under way, by kind");
    describe_gauge!("uringcast_recordings_stalled", "Recordings that wait for a slow disk");
    describe_counter!("uringcast_recorded_bytes_total", "Bytes recorded");
    describe_counter!("uringcast_recorded_segments_total", "Segments and files finished");
    describe_counter!("uringcast_recording_failures_total", "Failed attempts to record");
    describe_counter!("uringcast_recording_skipped_bytes_total", "Bytes of streams that were not recorded");
    describe_counter!(
        "uringcast_recording_refused_total",
        "Items that did not fit in a queue: takes, which are finished later, and calls of the hook, which are not made"
    );
}

impl Stats {
    pub(super) fn new(kind: Kind) -> Self {
        Self(kind.name())
    }

    pub(super) fn began(self) {
        gauge!("uringcast_recordings", "kind" => self.0).increment(1.0);
    }

    pub(super) fn ended(self) {
        gauge!("uringcast_recordings", "kind" => self.0).decrement(1.0);
    }

    pub(super) fn wrote(self, bytes: u64) {
        counter!("uringcast_recorded_bytes_total", "kind" => self.0).increment(bytes);
    }

    pub(super) fn finished_segment(self) {
        counter!("uringcast_recorded_segments_total", "kind" => self.0).increment(1);
    }

    pub(super) fn failed(self) {
        counter!("uringcast_recording_failures_total", "kind" => self.0).increment(1);
    }

    pub(super) fn skipped(self, bytes: u64) {
        counter!("uringcast_recording_skipped_bytes_total", "kind" => self.0).increment(bytes);
    }

    /// A recording waits for its disk until this is dropped.
    pub(super) fn stalled(self) -> Stalled {
        gauge!("uringcast_recordings_stalled", "kind" => self.0).increment(1.0);
        Stalled(self.0)
    }
}

/// A recording that waits.
#[derive(Debug)]
pub(super) struct Stalled(&'static str);

impl Drop for Stalled {
    fn drop(&mut self) {
        gauge!("uringcast_recordings_stalled", "kind" => self.0).decrement(1.0);
    }
}
