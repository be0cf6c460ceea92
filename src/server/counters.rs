//! What a loop counts for each role. One thread writes, any thread may read, without a lock or a contended
//! cache line.

pub use super::counter::Counter;
use super::files::counters::FileCounters;
use super::limits::Refused;
use super::viewers::viewer::{Farewell, Protocol};
use crate::uring::Millis;

/// Why viewers are disconnected, as labels of the metric.
pub const FAREWELLS: [&str; 8] =
    ["stream-ended", "too-slow", "stalled", "broken", "refused", "never-began", "kicked", "expired"];

/// What one loop counts for one role.
#[derive(Debug)]
#[repr(align(128))]
pub struct RoleCounters {
    /// Connections now.
    pub connections: Counter,
    /// Connections accepted.
    pub accepted: Counter,
    /// Accepts that failed in the kernel, usually because no descriptor was free.
    pub accept_failures: Counter,
    /// Viewers now, by protocol.
    pub viewers: [Counter; Protocol::EVERY.len()],
    /// Connections turned away because the server was full.
    pub turned_away: Counter,
    /// Refusals, by [`Refused`].
    pub refused: [Counter; Refused::EVERY.len()],
    /// Publishers now.
    pub publishers: Counter,
    /// Pulls from an upstream now.
    pub pulls: Counter,
    /// Pulls and relays that were connected again.
    pub reconnects: Counter,
    /// Bytes received from publishers and upstreams.
    pub bytes_in: Counter,
    /// Bytes sent to viewers, by protocol.
    pub bytes_out: [Counter; Protocol::EVERY.len()],
    /// Sends to viewers; with the bytes, this gives the mean batch.
    pub sends: Counter,
    /// Walks over a stream's viewers.
    pub flushes: Counter,
    /// Skips of viewers that lagged too far.
    pub skips: Counter,
    /// Bytes skipped by them.
    pub skipped_bytes: Counter,
    /// Viewers disconnected by the server, by [`FAREWELLS`].
    pub farewells: [Counter; FAREWELLS.len()],
    /// Connections closed because the peer broke its protocol.
    pub bad_peers: Counter,
    /// Requests for files and pages.
    pub files: FileCounters,
    first_picture: metrics::Histogram,
}

impl RoleCounters {
    /// All zero; the time to a viewer's first picture is recorded in `first_picture`, in seconds.
    pub fn new(first_picture: metrics::Histogram) -> Self {
        Self {
            connections: Counter::default(),
            accepted: Counter::default(),
            accept_failures: Counter::default(),
            turned_away: Counter::default(),
            refused: Default::default(),
            viewers: Default::default(),
            publishers: Counter::default(),
            pulls: Counter::default(),
            reconnects: Counter::default(),
            bytes_in: Counter::default(),
            bytes_out: Default::default(),
            sends: Counter::default(),
            flushes: Counter::default(),
            skips: Counter::default(),
            skipped_bytes: Counter::default(),
            farewells: Default::default(),
            bad_peers: Counter::default(),
            files: FileCounters::default(),
            first_picture,
        }
    }

    /// Records that a viewer has got its first picture, `after` milliseconds after its request.
    #[expect(clippy::cast_precision_loss, reason = "milliseconds of a start")]
    pub(super) fn first_picture(&self, after: Millis) {
        self.first_picture.record(after as f64 / 1000.0);
    }

    /// Counts a refusal.
    pub(super) fn refused(&self, why: Refused) {
        self.refused[why as usize].add(1);
    }

    pub(super) fn farewell(&self, farewell: Farewell) {
        let place = FAREWELLS.iter().position(|name| *name == farewell.name());
        self.farewells[place.expect("every farewell has a name")].add(1);
    }
}
