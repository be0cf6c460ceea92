//! Publishers that send faster than real time.
//!
//! Minutes of a stream may come within a second: a file without a pace, an encoder's backlog. A recording wants all of
//! it and the log has room for a part, so a publisher that is ahead of real time is read no faster than it is
//! recorded; TCP tells it. One at or behind real time is never slowed down: then recording misses a part, not the
//! viewers.

use crate::live::stream::StreamWriter;
use crate::live::timeline::StreamTime;
use crate::uring::Millis;

/// The stream time by which a publisher may be ahead of real time, whatever is unread.
const AHEAD: StreamTime = 1_000;
/// A publisher is paused when a quarter of its log is unread, and goes on at half of that. What has arrived by then
/// still comes: the loop's receive buffers, 16 MiB at most.
const UNREAD: u64 = 4;

/// How a publisher's stream goes beside the clock.
#[derive(Debug, Default)]
pub(super) struct Pacing {
    /// The clock and the stream's time when its first media had come.
    began: Option<(Millis, StreamTime)>,
    paused: bool,
}

impl Pacing {
    pub(super) fn is_paused(&self) -> bool {
        self.paused
    }

    /// Whether the publisher is to wait now.
    pub(super) fn look(&mut self, writer: &StreamWriter, now: Millis) -> bool {
        let time = writer.time();
        let (since, from) = *self.began.get_or_insert((now, time));
        let passed = StreamTime::try_from(now.saturating_sub(since)).unwrap_or(StreamTime::MAX);
        let part = if self.paused { 2 * UNREAD } else { UNREAD };
        self.paused = time.saturating_sub(from).saturating_sub(passed) > AHEAD && writer.is_unread(part);
        self.paused
    }
}
