//! A position in a stream's log, for a reader that may lag.
//!
//! It begins at the oldest start that is kept, and holds what it has not read as far as the log's bytes allow. When
//! the log has dropped it nevertheless, it continues at the newest start and reports what it missed.

use std::ops::Range;
use std::sync::Arc;

use crate::live::hold::Hold;
use crate::live::log::{Log, Start, wire_time};
use crate::live::reached::Reached;
use crate::live::stream::{Selection, Stream};
use crate::live::timeline::StreamTime;
use crate::live::waiters::Mark;
use crate::media::tag::{TAG_HEADER, TAG_TRAILER, TagKind, TagRef, Tags};
use crate::memory::Segment;

/// Bytes read at a time, unless a tag is larger.
const PIECE: usize = 256 << 10;

/// The next item of a log.
#[derive(Debug)]
pub(super) enum News {
    /// Nothing yet.
    Nothing,
    /// A place to start: the first one, or another one after a gap.
    Start {
        /// The place.
        start: Start,
        /// Bytes that were missed; 0 at the first start.
        skipped: u64,
    },
    /// Whole tags.
    Tags(Piece),
}

/// A piece of a log.
#[derive(Debug)]
pub(super) struct Piece {
    segment: Arc<Segment>,
    range: Range<usize>,
}

impl Piece {
    /// Its tags.
    pub(super) fn tags(&self) -> Tags<'_> {
        Tags(&self.segment.bytes()[self.range.clone()])
    }
}

/// A reader's position.
#[derive(Debug)]
pub(super) struct Tail {
    log: Arc<Log>,
    hold: Hold,
    at: u64,
    state: State,
    time: StreamTime,
    /// The head and the newest time when the log was checked last.
    looked: (u64, StreamTime),
    /// The first start at or after this time is reported, although nothing is missing before it.
    part: StreamTime,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Fresh,
    Running,
    /// Everything from here to the newest start is skipped.
    Lost,
}

impl Tail {
    /// The position before anything of a stream was read.
    pub(super) fn of(stream: &Stream) -> Self {
        Self::new(stream.log(Selection::All).expect("a stream has this log from its beginning"))
    }

    /// The position before anything was read.
    fn new(log: Arc<Log>) -> Self {
        let hold = log.hold(0);
        Self { log, hold, at: 0, state: State::Fresh, time: 0, looked: (0, 0), part: StreamTime::MAX }
    }

    /// Reports the first clean start at or after `time`, although nothing is missing before it.
    pub(super) fn part_at(&mut self, time: StreamTime) {
        self.part = time;
    }

    /// Whether there was more when the log was checked last.
    pub(super) fn is_behind(&self) -> bool {
        self.at < self.looked.0
    }

    /// Skips what has not been read: continues at the newest start.
    pub(super) fn give_up(&mut self) {
        if self.state == State::Running {
            self.state = State::Lost;
            self.place_hold();
        }
    }

    /// Nothing is held for a reader that skips anyway.
    fn place_hold(&self) {
        self.hold.move_to(if self.state == State::Lost { u64::MAX } else { self.at });
    }

    /// Waits for anything newer than what the log had when it was checked last, or for the end of the log.
    pub(super) fn more(&self) -> Reached {
        Reached::new(Arc::clone(&self.log), Mark::any(self.looked.0))
    }

    /// Waits for this many bytes, for tags of this much time, for a start, or for the end of the log.
    pub(super) fn enough(&self, bytes: u64, time: StreamTime) -> Reached {
        let (head, newest) = self.looked;
        Reached::new(
            Arc::clone(&self.log),
            Mark { head: head + bytes, time: newest.saturating_add(time), start: self.at },
        )
    }

    /// The next item.
    pub(super) fn next(&mut self) -> News {
        let news = self.find_next();
        self.place_hold();
        news
    }

    fn find_next(&mut self) -> News {
        // In this order: a newer index than the head is fine, an older one is not.
        let head = self.log.head();
        let index = self.log.index();
        assert!(self.at <= head, "a reader never passes the head");
        self.looked = (head, self.log.head_time());
        if self.state == State::Running && self.at < index.tail() {
            self.state = State::Lost;
        }
        let is_part = |start: &&Start| start.time >= self.part && start.clean && start.at >= self.at;
        let part = index.starts.iter().find(is_part);
        let start = match self.state {
            State::Running if part.is_none_or(|part| part.at > self.at) => {
                let end = part.map_or(head, |part| part.at.min(head));
                if self.at >= end {
                    return News::Nothing;
                }
                let Some(span) = index.span_at(self.at) else { return News::Nothing };
                let from = usize::try_from(self.at - span.start).unwrap_or(usize::MAX);
                let space = usize::try_from(end - span.start).unwrap_or(usize::MAX);
                let bytes = span.segment.bytes();
                let end = from + whole_tags(&bytes[from..bytes.len().min(space)]);
                assert!(end > from, "the head is at the end of a whole tag");
                self.at += (end - from) as u64;
                return News::Tags(Piece { segment: Arc::clone(&span.segment), range: from..end });
            }
            State::Running => part.filter(|part| part.at < head),
            State::Fresh => index.starts.iter().find(|start| start.at < head),
            State::Lost => {
                let newer = |clean| index.newest_start(head, clean).filter(|start| start.at >= self.at);
                newer(true).or_else(|| newer(false))
            }
        };
        let Some(start) = start.cloned() else { return News::Nothing };
        assert!(self.state == State::Fresh || start.at >= self.at, "a reader does not go back");
        let skipped = if self.state == State::Fresh { 0 } else { start.at - self.at };
        (self.at, self.time, self.state) = (start.at, start.time, State::Running);
        if start.time >= self.part {
            self.part = StreamTime::MAX;
        }
        News::Start { start, skipped }
    }

    /// The time of the next tag, in 64 bits: the tag has only the low half.
    pub(super) fn time_of(&mut self, tag: &TagRef<'_>) -> StreamTime {
        if tag.kind != TagKind::Script {
            let step = tag.timestamp.wrapping_sub(wire_time(self.time)).cast_signed();
            self.time += StreamTime::from(step);
        }
        self.time
    }
}

/// The length of the whole tags at the front of `bytes` that make up a piece.
fn whole_tags(bytes: &[u8]) -> usize {
    let mut len = 0;
    for tag in Tags(bytes) {
        len += TAG_HEADER + tag.body.len() + TAG_TRAILER;
        if len >= PIECE {
            break;
        }
    }
    len
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::live::log::{Headers, LogWriter, Retention, Tracks};
    use crate::media::encoding::Encoding;
    use crate::media::tag::Tag;
    use crate::memory::Arena;

    const RETENTION: Retention = Retention { bytes: 1 << 20, frames: 1000, gop_time: 10_000, history: 4_000 };

    fn grow(writer: &mut LogWriter, frames: Range<i64>) {
        for n in frames {
            if n % 25 == 0 {
                writer.mark_start(
                    writer.head(),
                    n * 40,
                    true,
                    Arc::new(Headers::default()),
                    Tracks::default(),
                );
            }
            let body = Bytes::from(vec![0x27; 1000]);
            writer.append(&Tag { kind: TagKind::Video, timestamp: 0, body }, n * 40).unwrap();
        }
        writer.publish();
    }

    fn read(tail: &mut Tail) -> (Vec<i64>, u64) {
        let (mut times, mut missed) = (Vec::new(), 0);
        loop {
            match tail.next() {
                News::Nothing => return (times, missed),
                News::Start { skipped, .. } => missed += skipped,
                News::Tags(piece) => times.extend(piece.tags().map(|tag| tail.time_of(&tag))),
            }
        }
    }

    #[test]
    fn everything_is_read_from_the_oldest_start_on() {
        let mut writer = LogWriter::new(Arena::new().unwrap(), RETENTION, Encoding::Flv);
        let mut tail = Tail::new(Arc::clone(writer.log()));
        assert!(matches!(tail.next(), News::Nothing));
        let mut times = Vec::new();
        for second in 0..20 {
            grow(&mut writer, second * 25..(second + 1) * 25);
            let (read, missed) = read(&mut tail);
            assert_eq!(missed, 0);
            times.extend(read);
        }
        assert_eq!(times, (0..500).map(|n| n * 40).collect::<Vec<_>>());
    }

    #[test]
    fn a_late_reader_continues_at_the_newest_start_and_counts_what_it_missed() {
        let mut writer = LogWriter::new(Arena::new().unwrap(), RETENTION, Encoding::Flv);
        let mut tail = Tail::new(Arc::clone(writer.log()));
        grow(&mut writer, 0..10);
        assert_eq!(read(&mut tail).0.len(), 10);
        grow(&mut writer, 10..1010);
        assert_eq!(read(&mut tail).0.len(), 1000, "it is less than the log's bytes, and held");
        grow(&mut writer, 1010..3010);
        let (times, missed) = read(&mut tail);
        assert_eq!((times.first(), times.len(), missed), (Some(&120_000), 10, 1990 * 1015));
        tail.give_up();
        assert!(matches!(tail.next(), News::Nothing), "there is no newer start");
        grow(&mut writer, 3010..3035);
        assert_eq!(read(&mut tail), ((3025..3035).map(|n| n * 40).collect(), 15 * 1015));
    }

    #[test]
    fn a_reader_that_splits_gets_the_next_start_and_misses_nothing() {
        let mut writer = LogWriter::new(Arena::new().unwrap(), RETENTION, Encoding::Flv);
        let mut tail = Tail::new(Arc::clone(writer.log()));
        grow(&mut writer, 0..30);
        assert_eq!(read(&mut tail).0.len(), 30);
        tail.part_at(1_500);
        grow(&mut writer, 30..120);
        let mut told = Vec::new();
        loop {
            match tail.next() {
                News::Nothing => break,
                News::Start { start, skipped } => told.push((start.time, skipped)),
                News::Tags(piece) => told.extend(piece.tags().map(|tag| (tail.time_of(&tag), 0))),
            }
        }
        let tags = (30..120).map(|n| (n * 40, 0));
        let want: Vec<_> = tags.clone().take(20).chain([(2_000, 0)]).chain(tags.skip(20)).collect();
        assert_eq!(told, want, "the start is reported again before its tag");
    }
}
