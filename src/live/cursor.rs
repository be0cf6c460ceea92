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
    /// Version of the headers that it was sent.
    sent_headers: Option<u32>,
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
            sent_headers: None,
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
            State::Fresh(start) => self.begin(index, head, start),
            State::Running => self.go_on(index, head, head_time, held, lag),
            State::Finishing(to) if self.at < to => self.run(to),
            State::Finishing(_) => self.skip(index, head),
        }
    }

    fn begin(&mut self, index: &Index, head: u64, start: StartAt) -> Step {
        let found = match start {
            StartAt::Newest => index.newest_start(head, true).or_else(|| index.newest_start(head, false)),
            StartAt::NotBefore(at) => {
                // A keyframe is worth waiting for if the stream has any.
                let clean = index.starts.iter().any(|start| start.clean);
                let good = |start: &&Start| start.at >= at && start.at < head && (start.clean || !clean);
                index.starts.iter().rev().find(good)
            }
            StartAt::After(time) => {
                let newest = |clean| index.newest_start(head, clean).filter(|start| start.time > time);
                newest(true).or_else(|| newest(false))
            }
        };
        match found {
            Some(start) => self.land(start, 0),
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
        }
        let Some(held) = held else { return self.skip(index, head) };
        self.boundary = self.boundary.max(held.start);
        let dropped = self.at < index.tail();
        // The start first: it is cheap, and most viewers have passed the newest one.
        let newer = index.newest_start_after(self.at, head, true).is_some();
        let lags = || head - self.at > lag.bytes || self.lag(held, head_time) > lag.time;
        if dropped || (newer && lags()) {
            let to = self.tag_end(held);
            self.state = State::Finishing(to);
            return if self.at < to { self.run(to) } else { self.skip(index, head) };
        }
        self.run(head)
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
        let newer = |clean| index.newest_start_after(self.at, head, clean);
        let Some(start) = newer(true).or_else(|| newer(false)) else {
            if self.at < index.tail() {
                return Step::Idle; // the index is newer than the head: the target is not published yet
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
        self.land(start, start.at - self.at)
    }

    fn land(&mut self, start: &Start, skipped: u64) -> Step {
        self.at = start.at;
        self.boundary = start.at;
        self.committed = start.at;
        self.goal = start.at;
        self.landed = start.at;
        self.state = State::Running;
        let known = self.sent_headers == Some(start.headers.version);
        self.sent_headers = Some(start.headers.version);
        Step::Begin(Beginning {
            time: start.time,
            headers: (!known).then(|| Arc::clone(&start.headers)),
            tracks: start.tracks,
            skipped,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::log::LogWriter;
    use super::super::log::tests::{RETENTION, tag, writer};
    use super::*;

    const LAG: LagLimits = LagLimits { bytes: 50_000, time: 3_000 };

    /// A log with a keyframe each second, 25 tags of 1,015 bytes a second.
    fn grow(writer: &mut LogWriter, frames: std::ops::Range<i64>, headers: &Arc<Headers>) {
        for n in frames {
            if n % 25 == 0 {
                let at = writer.head();
                writer.mark_start(at, n * 40, true, Arc::clone(headers), Tracks::default());
            }
            writer.append(&tag(0, 1000), n * 40).unwrap();
        }
        writer.publish();
    }

    fn step(cursor: &mut Cursor, writer: &LogWriter) -> Step {
        let log = writer.log();
        let (head, time, index) = (log.head(), log.head_time(), log.index());
        let held = index.span_at(cursor.at()).cloned();
        cursor.step(&index, head, time, held.as_ref(), &LAG)
    }

    #[test]
    fn a_new_viewer_starts_at_the_newest_keyframe() {
        let mut writer = writer(RETENTION);
        let headers = Arc::new(Headers { version: 3, ..Headers::default() });
        let mut cursor = Cursor::new(StartAt::Newest, Encoding::Flv);
        assert!(matches!(step(&mut cursor, &writer), Step::Idle));
        grow(&mut writer, 0..60, &headers);
        let Step::Begin(begin) = step(&mut cursor, &writer) else { panic!("no start") };
        assert_eq!((begin.time, begin.skipped), (2000, 0));
        assert_eq!(begin.headers.unwrap().version, 3);
        let Step::Run { from, to } = step(&mut cursor, &writer) else { panic!("no run") };
        assert_eq!((from, to), (50 * 1015, 60 * 1015));
        cursor.sent(to - from);
        assert!(matches!(step(&mut cursor, &writer), Step::Idle));
    }

    #[test]
    fn without_the_gop_a_viewer_waits_for_the_next_keyframe() {
        let mut writer = writer(RETENTION);
        let headers = Arc::default();
        grow(&mut writer, 0..30, &headers);
        let mut cursor = Cursor::new(StartAt::NotBefore(writer.head()), Encoding::Flv);
        assert!(matches!(step(&mut cursor, &writer), Step::Idle));
        grow(&mut writer, 30..49, &headers);
        assert!(matches!(step(&mut cursor, &writer), Step::Idle));
        grow(&mut writer, 49..51, &headers);
        assert!(matches!(step(&mut cursor, &writer), Step::Begin(_)));
        assert_eq!(cursor.at(), 50 * 1015);
    }

    #[test]
    fn without_the_gop_a_viewer_ignores_a_start_without_a_keyframe() {
        let mut writer = writer(RETENTION);
        grow(&mut writer, 0..10, &Arc::default());
        let mut cursor = Cursor::new(StartAt::NotBefore(writer.head()), Encoding::Flv);
        let at = writer.head();
        writer.mark_start(at, 400, false, Arc::default(), Tracks::default());
        grow(&mut writer, 10..20, &Arc::default());
        assert!(matches!(step(&mut cursor, &writer), Step::Idle));
        grow(&mut writer, 20..30, &Arc::default());
        assert!(matches!(step(&mut cursor, &writer), Step::Begin(_)));
        assert_eq!(cursor.at(), 25 * 1015);
    }

    #[test]
    fn a_viewer_that_lags_finishes_its_tag_and_skips_to_the_newest_keyframe() {
        let mut writer = writer(RETENTION);
        let headers = Arc::default();
        grow(&mut writer, 0..10, &headers);
        let mut cursor = Cursor::new(StartAt::Newest, Encoding::Flv);
        step(&mut cursor, &writer);
        let Step::Run { .. } = step(&mut cursor, &writer) else { panic!("no run") };
        cursor.sent(2 * 1015 + 7); // cut inside the third tag
        grow(&mut writer, 10..90, &headers);
        let Step::Run { from, to } = step(&mut cursor, &writer) else { panic!("no finish") };
        assert_eq!((from, to), (2 * 1015 + 7, 3 * 1015));
        cursor.sent(to - from);
        let Step::Begin(begin) = step(&mut cursor, &writer) else { panic!("no skip") };
        assert_eq!(begin.skipped, (75 - 3) * 1015);
        assert!(begin.headers.is_none(), "the same headers are not sent twice");
        assert_eq!(cursor.at(), 75 * 1015);
    }

    #[test]
    fn an_announced_message_is_finished_before_a_skip() {
        let mut writer = writer(RETENTION);
        let headers = Arc::default();
        grow(&mut writer, 0..10, &headers);
        let mut cursor = Cursor::new(StartAt::Newest, Encoding::Flv);
        step(&mut cursor, &writer);
        step(&mut cursor, &writer);
        cursor.commit(5000);
        cursor.sent(10);
        grow(&mut writer, 10..90, &headers);
        let Step::Run { to, .. } = step(&mut cursor, &writer) else { panic!("no finish") };
        assert_eq!(to, 5 * 1015);
    }

    #[test]
    fn a_skip_waits_for_a_head_that_is_older_than_the_index() {
        let mut writer = writer(super::super::log::Retention { bytes: 60_000, ..RETENTION });
        let headers = Arc::default();
        grow(&mut writer, 0..10, &headers);
        let mut cursor = Cursor::new(StartAt::Newest, Encoding::Flv);
        step(&mut cursor, &writer);
        step(&mut cursor, &writer);
        cursor.sent(1015);
        let (head, time) = (writer.log().head(), writer.log().head_time());
        grow(&mut writer, 10..200, &headers);
        let index = writer.log().index();
        assert!(index.tail() > head);
        assert!(matches!(cursor.step(&index, head, time, None, &LAG), Step::Idle));
        assert!(matches!(step(&mut cursor, &writer), Step::Begin(_)));
    }

    #[test]
    fn changed_headers_are_sent_at_a_skip() {
        let mut writer = writer(RETENTION);
        grow(&mut writer, 0..10, &Arc::default());
        let mut cursor = Cursor::new(StartAt::Newest, Encoding::Flv);
        step(&mut cursor, &writer);
        grow(&mut writer, 10..100, &Arc::new(Headers { version: 1, ..Headers::default() }));
        let Step::Begin(begin) = step(&mut cursor, &writer) else { panic!("no skip") };
        assert_eq!(begin.headers.unwrap().version, 1);
    }

    #[test]
    fn a_viewer_that_takes_almost_nothing_is_disconnected() {
        let mut writer = writer(RETENTION);
        let headers = Arc::default();
        let mut cursor = Cursor::new(StartAt::Newest, Encoding::Flv);
        let mut skips = 0;
        for second in 0..60 {
            grow(&mut writer, second * 25..(second + 1) * 25, &headers);
            match step(&mut cursor, &writer) {
                Step::Begin(begin) => skips += u32::from(begin.skipped > 0),
                Step::Run { from, to } => cursor.sent((to - from).min(100)),
                Step::Cut => {
                    assert!(skips >= 2);
                    return;
                }
                Step::Idle => {}
            }
        }
        panic!("never disconnected");
    }

    #[test]
    fn a_viewer_at_half_speed_is_kept() {
        let mut writer = writer(RETENTION);
        let headers = Arc::default();
        let mut cursor = Cursor::new(StartAt::Newest, Encoding::Flv);
        let (mut skips, mut taken) = (0, 0);
        for second in 0..300 {
            grow(&mut writer, second * 25..(second + 1) * 25, &headers);
            let mut budget = 12_000;
            while budget > 0 {
                match step(&mut cursor, &writer) {
                    Step::Begin(begin) => skips += u32::from(begin.skipped > 0),
                    Step::Run { from, to } => {
                        let take = (to - from).min(budget);
                        cursor.sent(take);
                        budget -= take;
                        taken += take;
                    }
                    Step::Cut => panic!("disconnected although it takes half"),
                    Step::Idle => break,
                }
            }
        }
        assert!(skips > 10);
        assert!(taken > 300 * 11_000);
    }
}
