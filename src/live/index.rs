//! What a log keeps, and where in it a viewer may start.

use std::collections::VecDeque;
use std::sync::Arc;

use super::headers::Headers;
use super::timeline::StreamTime;
use crate::memory::Segment;

/// A place where a viewer may start: the first byte of a tag.
#[derive(Clone, Debug)]
pub struct Start {
    /// Offset of the tag in the log.
    pub at: u64,
    /// Its time.
    pub time: StreamTime,
    /// The tag is a keyframe (or the stream has no pictures at all). `false`: the stream has had no keyframe
    /// for so long that a start without one was made.
    pub clean: bool,
    /// Tags before it in the log.
    pub frames: u64,
    /// Bytes of the bodies of all headers before it in the log, and of those it refers to.
    pub header_bytes: u64,
    /// The headers that a viewer starting here is sent first.
    pub headers: Arc<Headers>,
    /// Whether the stream has had pictures and sound so far, for the FLV header.
    pub tracks: Tracks,
}

/// Which tracks a stream has had.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tracks {
    /// Pictures.
    pub video: bool,
    /// Sound.
    pub audio: bool,
}

/// A segment and the range of the log that it holds: from `start` to the start of the next one.
#[derive(Clone, Debug)]
pub struct Span {
    /// Numbers the segments; never repeats within a log.
    pub serial: u64,
    /// Offset of its first byte in the log.
    pub start: u64,
    /// The bytes.
    pub segment: Arc<Segment>,
}

/// What a log keeps. Never changed in place, only replaced.
#[derive(Clone, Debug, Default)]
pub struct Index {
    /// Segments, ascending and without a gap between them.
    pub spans: VecDeque<Span>,
    /// Starts, ascending.
    pub starts: VecDeque<Start>,
    /// From this offset on viewers may start without a keyframe: what is before it is of publishers that send
    /// keyframes. `u64::MAX`: so does the present one.
    pub unkeyed_from: u64,
    /// Counts replacements.
    pub version: u64,
}

impl Index {
    /// The newest start before `head`; only clean ones if `clean`.
    pub fn newest_start(&self, head: u64, clean: bool) -> Option<&Start> {
        self.starts.iter().rev().find(|start| start.at < head && (start.clean || !clean))
    }

    /// As [`newest_start`](Self::newest_start), if it is after `at`.
    pub fn newest_start_after(&self, at: u64, head: u64, clean: bool) -> Option<&Start> {
        // No search for the many viewers that have passed all starts.
        self.starts.back().filter(|last| last.at > at)?;
        self.newest_start(head, clean).filter(|start| start.at > at)
    }

    /// The newest start before `head` for which `good` is true: a clean one, or any of a publisher that has sent no
    /// keyframe.
    pub fn newest_for_viewers(&self, head: u64, good: impl Fn(&Start) -> bool) -> Option<&Start> {
        let newest = |may: fn(&Self, &Start) -> bool| {
            let fits = |start: &&Start| start.at < head && may(self, start) && good(start);
            self.starts.iter().rev().find(fits)
        };
        newest(|_, start| start.clean).or_else(|| newest(Self::is_for_viewers))
    }

    /// Whether viewers may start there.
    pub fn is_for_viewers(&self, start: &Start) -> bool {
        start.clean || start.at >= self.unkeyed_from
    }

    /// Offset of the oldest byte that is kept.
    pub fn tail(&self) -> u64 {
        self.spans.front().map_or(0, |span| span.start)
    }

    /// The span that holds the byte at `offset`, if it is kept.
    pub fn span_at(&self, offset: u64) -> Option<&Span> {
        let after = self.spans.partition_point(|span| span.start <= offset);
        self.spans.get(after.checked_sub(1)?)
    }

    /// The time of the newest start at or before `offset`: how old a viewer's picture is at most.
    pub fn time_at(&self, offset: u64) -> Option<StreamTime> {
        let after = self.starts.partition_point(|start| start.at <= offset);
        Some(self.starts.get(after.checked_sub(1)?)?.time)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_start_after_a_place_is_the_newest_start_if_it_is_after_it() {
        let start = |at, clean| Start {
            at,
            time: 0,
            clean,
            frames: 0,
            header_bytes: 0,
            headers: Arc::default(),
            tracks: Tracks::default(),
        };
        let starts = [start(10, true), start(20, true), start(30, false), start(40, true)];
        let index = Index { starts: starts.into(), ..Index::default() };
        for (at, head, clean) in cases(0..50) {
            let expected =
                index.newest_start(head, clean).filter(|start| start.at > at).map(|start| start.at);
            let found = index.newest_start_after(at, head, clean).map(|start| start.at);
            assert_eq!(found, expected, "after {at}, before {head}, clean: {clean}");
        }
        assert!(Index::default().newest_start_after(0, 50, false).is_none());
    }

    /// Every pair of offsets, with and without the condition.
    fn cases(range: std::ops::Range<u64>) -> impl Iterator<Item = (u64, u64, bool)> {
        let pairs = range.clone().flat_map(move |at| range.clone().map(move |head| (at, head)));
        pairs.flat_map(|(at, head)| [(at, head, true), (at, head, false)])
    }
}
