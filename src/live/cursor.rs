//! A viewer's place in a log, and the policy for viewers that fall behind.
//!
//! The promise: headers, then a keyframe, then whole tags; no gap that is not counted. A viewer that lags
//! beyond the limits is sent the rest of the tag (and of the message) that is under way and continues at the
//! newest start. A viewer that cannot keep up at all is disconnected.

use std::sync::Arc;

use super::log::{Headers, Index, Span, Start, Tracks, wire_time};
use super::timeline::StreamTime;
use crate::media::encoding::{Encoding, Stored};
use crate::media::tag::TagKind;

/// How far a viewer may lag behind the head of the log.
#[derive(Clone, Copy, Debug)]
pub struct LagLimits {
    /// In bytes.
    pub bytes: u64,
    /// In milliseconds of stream time.
    pub time: StreamTime,
}

/// Where a new viewer starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StartAt {
    /// At the newest start that is kept: a picture at once.
    Newest,
    /// At the newest start at or after this offset: no burst.
    NotBefore(u64),
    /// At the newest start after this time: the viewer has already seen everything before it.
    After(StreamTime),
}

/// What a viewer is sent next.
#[derive(Debug)]
pub enum Step {
    /// Nothing: the viewer has everything there is, or there is no start yet.
    Idle,
    /// These headers, if the viewer does not have them yet, and then what the next step returns.
    Begin(Beginning),
    /// The log from `from` to `to`; report the bytes the socket took with [`Cursor::sent`].
    Run {
        /// Offset of the first byte.
        from: u64,
        /// Offset after the last byte.
        to: u64,
    },
    /// Nothing more: the viewer takes less than an eighth of the stream and is disconnected.
    Cut,
}

/// Where a viewer was placed, at its start or by a skip.
#[derive(Clone, Debug)]
pub struct Beginning {
    /// Time of the first tag.
    pub time: StreamTime,
    /// Headers that the viewer has not been sent yet.
    pub headers: Option<Arc<Headers>>,
    /// The tracks to announce in the FLV header of a new viewer.
    pub tracks: Tracks,
    /// Bytes that were skipped; 0 at the start.
    pub skipped: u64,
}

/// A viewer is disconnected after this many skips in a row, if less than an eighth was delivered before each.
const STRIKES: u8 = 3;

/// A viewer's place in a log.
#[derive(Clone, Debug)]
pub struct Cursor {
    encoding: Encoding,
    at: u64,
    /// Start of a tag, at or before `at`.
    boundary: u64,
    /// Everything before this offset must be sent before a skip: the end of a message already announced.
    committed: u64,
    /// End of the last run given.
    goal: u64,
    /// Where the viewer started or was placed by the last skip.
    landed: u64,
    state: State,
    /// How far the head was when the viewer began, in bytes and milliseconds, less what it has caught up since: what
    /// it was given at once is not lag.
    burst: (u32, u32),
    /// Version of the headers that it was sent; 0: none, as that version has none.
    sent_headers: u32,
    strikes: u8,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Fresh(StartAt),
    Running,
    /// Sends the rest of a tag up to this offset, then skips.
    Finishing(u64),
}

impl Cursor {
    /// A viewer that has been sent nothing.
    pub fn new(start: StartAt, encoding: Encoding) -> Self {
        Self {
            encoding,
            at: 0,
            boundary: 0,
            committed: 0,
            goal: 0,
            landed: 0,
            state: State::Fresh(start),
            burst: (0, 0),
            sent_headers: 0,
            strikes: 0,
        }
    }

    /// Offset of the next byte to send; meaningless before the first [`Step::Begin`].
    pub fn at(&self) -> u64 {
        self.at
    }

    /// Whether nothing has been sent yet.
    pub fn is_fresh(&self) -> bool {
        matches!(self.state, State::Fresh(_))
    }

    /// Whether all of the last run was sent, so that only newer data can follow.
    pub fn is_at_goal(&self) -> bool {
        self.state == State::Running && self.at == self.goal && self.at > self.landed
    }

    /// The peer's socket took `bytes` of the last run.
    pub fn sent(&mut self, bytes: u64) {
        self.at += bytes;
        assert!(self.at <= self.goal, "sent beyond the run that was given");
    }

    /// Everything before `to` must be sent before a skip, since its length was announced to the peer.
    pub fn commit(&mut self, to: u64) {
        debug_assert!(to <= self.goal);
        self.committed = to;
    }

    /// Decides what comes next. `head` and `head_time` must have been read before `index`; `held` is the span
    /// that contains [`at`](Self::at), if the viewer has one.
    pub fn step(
        &mut self,
        index: &Index,
        head: u64,
        head_time: StreamTime,
        held: Option<&Span>,
        lag: &LagLimits,
    ) -> Step {
        match self.state {
            State::Fresh(start) => self.begin(index, head, head_time, start),
            State::Running => self.go_on(index, head, head_time, held, lag),
            State::Finishing(to) if self.at < to => self.run(to),
            State::Finishing(_) => self.skip(index, head),
        }
    }

    fn begin(&mut self, index: &Index, head: u64, head_time: StreamTime, start: StartAt) -> Step {
        let found = match start {
            StartAt::Newest => index.newest_for_viewers(head, |_| true),
            StartAt::NotBefore(at) => {
                // A keyframe is worth waiting for if the stream has any.
                let clean = index.starts.iter().any(|start| start.clean);
                index.newest_for_viewers(head, |start| start.at >= at && (start.clean || !clean))
            }
            StartAt::After(time) => index.newest_for_viewers(head, |start| start.time > time),
        };
        match found {
            Some(start) => {
                let least = |value: u64| u32::try_from(value).unwrap_or(u32::MAX);
                let time = u64::try_from(head_time - start.time).unwrap_or(0);
                self.burst = (least(head - start.at), least(time));
                self.land(start, 0)
            }
            None => Step::Idle,
        }
    }

    fn go_on(
        &mut self,
        index: &Index,
        head: u64,
        head_time: StreamTime,
        held: Option<&Span>,
        lag: &LagLimits,
    ) -> Step {
        if self.at >= head {
            return Step::Idle;
        }
        if self.at == self.goal {
            self.boundary = self.at; // a run that was sent whole ends with a whole tag
            if self.at > self.landed {
                self.burst = (0, 0); // it has caught up with what there was
            }
        }
        let Some(held) = held else { return self.skip(index, head) };
        self.boundary = self.boundary.max(held.start);
        let dropped = self.at < index.tail();
        // The start first: it is cheap, and most viewers have passed the newest one.
        let newer = index.newest_start_after(self.at, head, true).is_some();
        let lags = (newer || self.burst != (0, 0)) && self.lags(held, head, head_time, lag);
        if dropped || (newer && lags) {
            let to = self.tag_end(held);
            self.state = State::Finishing(to);
            return if self.at < to { self.run(to) } else { self.skip(index, head) };
        }
        self.run(head)
    }

    /// Whether the viewer lags beyond the limits.
    fn lags(&mut self, held: &Span, head: u64, head_time: StreamTime, limits: &LagLimits) -> bool {
        let bytes = head - self.at;
        self.burst.0 = self.burst.0.min(u32::try_from(bytes).unwrap_or(u32::MAX));
        if bytes > limits.bytes.saturating_add(self.burst.0.into()) {
            return true;
        }
        let time = self.lag(held, head_time);
        self.burst.1 = self.burst.1.min(u32::try_from(time.max(0)).unwrap_or(u32::MAX));
        time > limits.time + StreamTime::from(self.burst.1)
    }

    /// How much older than `head_time` the tag at the boundary is, in milliseconds.
    fn lag(&self, held: &Span, head_time: StreamTime) -> StreamTime {
        match self.tag_at(held, self.boundary) {
            // Metadata has no time of its own; the tag after it does.
            None | Some(Stored { kind: TagKind::Script, .. }) => 0,
            Some(tag) => StreamTime::from(wire_time(head_time).wrapping_sub(tag.timestamp).cast_signed()),
        }
    }

    /// The end of the tag that must be sent whole, or the current offset if a tag ends there.
    fn tag_end(&self, held: &Span) -> u64 {
        let (mut end, to) = (self.boundary, self.at.max(self.committed));
        while end < to {
            let Some(tag) = self.tag_at(held, end) else { break };
            end += tag.len as u64;
        }
        end
    }

    fn tag_at(&self, held: &Span, at: u64) -> Option<Stored> {
        let from = usize::try_from(at.checked_sub(held.start)?).ok()?;
        self.encoding.read(held.segment.bytes().get(from..)?)
    }

    fn run(&mut self, to: u64) -> Step {
        self.goal = to;
        Step::Run { from: self.at, to }
    }

    fn skip(&mut self, index: &Index, head: u64) -> Step {
        let Some(start) = index.newest_for_viewers(head, |start| start.at > self.at) else {
            if self.at < index.tail() {
                return Step::Idle; // the next keyframe has not come, or is not published yet
            }
            // No better place: everything after the finished tag is still kept.
            self.state = State::Running;
            self.goal = self.at;
            self.boundary = self.at;
            return if self.at < head { self.run(head) } else { Step::Idle };
        };
        let delivered = self.at - self.landed;
        let advanced = start.at - self.landed;
        self.strikes = if delivered * 8 < advanced { self.strikes + 1 } else { 0 };
        if self.strikes >= STRIKES {
            return Step::Cut;
        }
        self.burst = (0, 0);
        self.land(start, start.at - self.at)
    }

    fn land(&mut self, start: &Start, skipped: u64) -> Step {
        self.at = start.at;
        self.boundary = start.at;
        self.committed = start.at;
        self.goal = start.at;
        self.landed = start.at;
        self.state = State::Running;
        let known = self.sent_headers == start.headers.version;
        self.sent_headers = start.headers.version;
        Step::Begin(Beginning {
            time: start.time,
            headers: (!known).then(|| Arc::clone(&start.headers)),
            tracks: start.tracks,
            skipped,
        })
    }
}

#[cfg(test)]
#[path = "cursor_tests.rs"]
mod tests;
