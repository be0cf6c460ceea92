//! The log of a stream: encoded tags, one after the other, in append-only memory.
//!
//! Positions are byte offsets from the stream's first tag and never restart. A tag never straddles two
//! segments. The [`Index`] names the places where a viewer may start and the segments that are kept; it changes
//! a few times a second and is replaced as a whole. The head is one atomic number that moves with each batch of
//! tags. Readers on other threads therefore take no lock and copy nothing.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

use arc_swap::ArcSwap;

pub use super::headers::{Headers, Topic, header_time};
use super::hold::{Hold, Holds};
pub use super::index::{Index, Span, Start, Tracks};
use super::timeline::StreamTime;
pub use super::timeline::wire_time;
use super::waiters::Waiters;
use crate::media::encoding::Encoding;
use crate::media::tag::Tag;
use crate::memory::{Arena, SegmentWriter};

/// Bounds of what a log keeps, whichever is reached first; the newest start and everything after it are always
/// kept.
#[derive(Clone, Copy, Debug)]
pub struct Retention {
    /// Bytes between the oldest start and the head.
    pub bytes: u64,
    /// Tags between the oldest start and the head.
    pub frames: u64,
    /// A group of pictures longer than this is no longer kept whole.
    pub gop_time: StreamTime,
    /// Starts older than this are dropped while a newer one is old enough as well.
    pub history: StreamTime,
}

/// A log as its readers see it.
#[derive(Debug)]
pub struct Log {
    head: AtomicU64,
    head_time: AtomicI64,
    index: ArcSwap<Index>,
    waiters: Waiters,
    holds: Holds,
}

impl Log {
    /// The end of the last whole tag that was published. Read it before the index: an index newer than the head
    /// is fine, an older one is not.
    pub fn head(&self) -> u64 {
        self.head.load(Ordering::SeqCst)
    }

    /// The time of the newest tag.
    pub fn head_time(&self) -> StreamTime {
        self.head_time.load(Ordering::Relaxed)
    }

    /// The index as it stands now.
    pub fn index(&self) -> Arc<Index> {
        self.index.load_full()
    }

    /// Keeps what is after `offset` for a reader, as far as the log's bytes allow and beyond its other bounds.
    pub fn hold(&self, offset: u64) -> Hold {
        self.holds.enter(offset)
    }

    /// Bytes that a reader which holds its place has not read.
    pub(super) fn unread(&self) -> u64 {
        self.head().saturating_sub(self.holds.lowest())
    }

    /// Nothing more comes: wakes the readers that wait.
    pub(super) fn close(&self) {
        self.waiters.close();
    }

    pub(super) fn waiters(&self) -> &Waiters {
        &self.waiters
    }
}

/// Bytes of headers that the starts of a log may refer to; each header is in the log as well.
const HEADERS_KEPT: u64 = 4 << 20;

/// Starts that are kept for readers that hold them.
const STARTS_HELD: usize = 1024;

/// The smallest segment, and so the least memory that a stream takes.
const SEGMENT_MIN: usize = 64 << 10;
/// The largest segment, unless a tag is larger.
const SEGMENT_MAX: usize = 4 << 20;

/// The one writer of a log.
#[derive(Debug)]
pub struct LogWriter {
    log: Arc<Log>,
    encoding: Encoding,
    arena: Arc<Arena>,
    retention: Retention,
    index: Index,
    index_changed: bool,
    open: Option<SegmentWriter>,
    head: u64,
    time: StreamTime,
    frames: u64,
    header_bytes: u64,
    /// There are starts that the readers waiting for one have not been told of.
    has_untold_starts: bool,
}

impl LogWriter {
    /// An empty log.
    pub fn new(arena: Arc<Arena>, retention: Retention, encoding: Encoding) -> Self {
        let log = Log {
            head: AtomicU64::new(0),
            head_time: AtomicI64::new(0),
            index: ArcSwap::default(),
            waiters: Waiters::default(),
            holds: Holds::default(),
        };
        Self {
            log: Arc::new(log),
            encoding,
            arena,
            retention,
            index: Index::default(),
            index_changed: false,
            open: None,
            head: 0,
            time: 0,
            frames: 0,
            header_bytes: 0,
            has_untold_starts: false,
        }
    }

    /// The log, for readers.
    pub fn log(&self) -> &Arc<Log> {
        &self.log
    }

    /// The offset at which the next tag will stand.
    pub fn head(&self) -> u64 {
        self.head
    }

    /// The time of the newest tag.
    pub fn time(&self) -> StreamTime {
        self.time
    }

    /// The newest start, if there is one.
    pub fn last_start(&self) -> Option<&Start> {
        self.index.starts.back()
    }

    /// Whether a reader that holds its place has more unread than one `part`th of what the log may hold.
    pub fn is_unread(&self, part: u64) -> bool {
        self.log.unread() > self.bytes_max() / part
    }

    /// The index as the writer has it, published or not.
    pub fn index(&self) -> &Index {
        &self.index
    }

    /// Whether the tags since the newest start, or since the first tag, exceed what may follow a start: the log
    /// can drop only what is before a start.
    pub fn wants_start(&self, time: StreamTime) -> bool {
        self.has_outgrown_start(time, 1)
    }

    /// Whether the newest start is so far back that it will be dropped soon: half as far as
    /// [`wants_start`](Self::wants_start) allows.
    pub fn is_far_from_start(&self, time: StreamTime) -> bool {
        self.has_outgrown_start(time, 2)
    }

    fn has_outgrown_start(&self, time: StreamTime, part: u8) -> bool {
        let (at, frames, header_bytes) =
            self.last_start().map_or((0, 0, 0), |last| (last.at, last.frames, last.header_bytes));
        let part = u64::from(part);
        let gop_time = self.retention.gop_time / part.cast_signed();
        self.last_start().is_some_and(|last| time - last.time > gop_time)
            || self.head - at > self.bytes_max() / (2 * part)
            || self.frames - frames > self.retention.frames / (2 * part)
            || self.header_bytes - header_bytes > HEADERS_KEPT / (2 * part)
    }

    /// Marks `at` as a place where a viewer may start; `at` is the head or, for the very first start, an
    /// earlier tag.
    pub fn mark_start(
        &mut self,
        at: u64,
        time: StreamTime,
        clean: bool,
        headers: Arc<Headers>,
        tracks: Tracks,
    ) {
        debug_assert!(at <= self.head && self.last_start().is_none_or(|last| last.at <= at));
        let (frames, header_bytes) = (self.frames, self.header_bytes);
        if self.last_start().is_some_and(|last| last.at == at) {
            self.index.starts.pop_back(); // no viewer has started where there is no tag yet
        }
        self.index.starts.push_back(Start { at, time, clean, frames, header_bytes, headers, tracks });
        self.trim(time);
        self.index_changed = true;
        self.has_untold_starts = true;
    }

    /// The publisher sends keyframes: viewers wait for one. `false`: from here on it is unknown.
    pub fn set_keyed(&mut self, keyed: bool) {
        let was = self.index.unkeyed_from;
        self.index.unkeyed_from = match (keyed, was) {
            (true, _) => u64::MAX,
            (false, u64::MAX) => self.head,
            (false, from) => from,
        };
        self.index_changed |= self.index.unkeyed_from != was;
    }

    /// Appends a tag. Readers see it after [`publish`](Self::publish).
    ///
    /// # Errors
    /// When no memory can be mapped; the log is unchanged.
    pub fn append(&mut self, tag: &Tag, time: StreamTime) -> std::io::Result<()> {
        let stamped = Tag { timestamp: wire_time(time), ..tag.clone() };
        let len = self.encoding.len(&stamped);
        if self.open.as_ref().is_none_or(|open| open.room() < len) {
            self.open_segment(len)?;
        }
        let open = self.open.as_mut().expect("opened above");
        self.encoding.write(&stamped, |piece| open.append(piece));
        self.head += len as u64;
        self.time = self.time.max(time);
        self.frames += 1;
        Ok(())
    }

    /// Appends a header that later starts may refer to.
    ///
    /// # Errors
    /// As [`append`](Self::append).
    pub fn append_header(&mut self, tag: &Tag, time: StreamTime) -> std::io::Result<()> {
        self.append(tag, time)?;
        self.header_bytes += tag.body.len() as u64;
        Ok(())
    }

    /// Makes all that was appended and marked visible to the readers; `true` if there was anything new.
    pub fn publish(&mut self) -> bool {
        if let Some(open) = &mut self.open {
            open.publish();
        }
        if self.index_changed {
            self.index_changed = false;
            self.index.version += 1;
            self.log.index.store(Arc::new(self.index.clone()));
        }
        self.log.head_time.store(self.time, Ordering::Relaxed);
        let is_new = self.log.head.swap(self.head, Ordering::SeqCst) != self.head;
        if is_new {
            let start = self.untold_start();
            self.log.waiters.moved(self.head, self.time, start);
        }
        is_new
    }

    /// The newest start with a tag after it, if readers have not been told of it.
    fn untold_start(&mut self) -> Option<u64> {
        if !self.has_untold_starts {
            return None;
        }
        self.has_untold_starts = self.last_start().is_some_and(|last| last.at >= self.head);
        self.index.newest_start(self.head, false).map(|start| start.at)
    }

    /// The most bytes between the oldest start and the head, as configured or as memory allows.
    fn bytes_max(&self) -> u64 {
        self.retention.bytes.min(self.arena.log_limit())
    }

    /// Drops what exceeds the bounds now; `true` if anything was dropped. If all of it belongs to one group of
    /// pictures, a start without a keyframe is made.
    pub fn shorten(&mut self, headers: &Arc<Headers>, tracks: Tracks) -> bool {
        let oldest = self.index.starts.front().map_or(0, |start| start.at);
        if self.head - oldest <= self.bytes_max() {
            return false;
        }
        let newest = self.last_start().map_or(0, |start| start.at);
        if self.head - newest > self.bytes_max() {
            self.mark_start(self.head, self.time, false, Arc::clone(headers), tracks);
        }
        self.trim(self.time);
        self.index_changed = true;
        true
    }

    fn open_segment(&mut self, len: usize) -> std::io::Result<()> {
        let fresh = self.arena.segment(self.segment_size().max(len))?;
        if let Some(mut full) = self.open.take() {
            full.publish();
        }
        let serial = self.index.spans.back().map_or(0, |span| span.serial + 1);
        let segment = Arc::clone(fresh.segment());
        self.index.spans.push_back(Span { serial, start: self.head, segment });
        self.index_changed = true;
        self.open = Some(fresh);
        Ok(())
    }

    /// About two seconds of the stream at its recent rate, so that idle streams stay small and busy ones rarely
    /// change segments.
    fn segment_size(&self) -> usize {
        let Some(oldest) = self.index.starts.front() else { return SEGMENT_MIN };
        let millis = u64::try_from(self.time - oldest.time).unwrap_or(0).max(500);
        let two_seconds = (self.head - oldest.at).saturating_mul(2000) / millis;
        usize::try_from(two_seconds)
            .unwrap_or(SEGMENT_MAX)
            .next_power_of_two()
            .min(usize::try_from(self.bytes_max() / 4).unwrap_or(SEGMENT_MAX))
            .clamp(SEGMENT_MIN, SEGMENT_MAX)
    }

    /// Drops starts beyond the bounds, then the segments before the oldest remaining start.
    fn trim(&mut self, now: StreamTime) {
        let bytes_max = self.bytes_max();
        let held = self.log.holds.lowest();
        while self.index.starts.len() > 1 {
            let starts = &self.index.starts;
            let is_held = starts[1].at > held && starts.len() <= STARTS_HELD;
            // A newer start that viewers can use is old enough. Any other will do once the group is too long to be
            // kept whole: viewers that are reading it need its last part all the same.
            let too_long = now - starts[0].time > self.retention.gop_time;
            let old = |start: &Start| {
                now - start.time >= self.retention.history && (too_long || self.index.is_for_viewers(start))
            };
            let spare = starts.iter().skip(1).any(old);
            let many = self.frames - starts[0].frames > self.retention.frames;
            let outgrown = self.head - starts[0].at > bytes_max
                || self.header_bytes - starts[0].header_bytes > HEADERS_KEPT;
            if !outgrown && (is_held || !(spare || many)) {
                break;
            }
            self.index.starts.pop_front();
        }
        let oldest = self.index.starts.front().map_or(0, |start| start.at);
        while self.index.spans.get(1).is_some_and(|second| second.start <= oldest) {
            self.index.spans.pop_front();
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::media::tag::TagKind;

    pub(crate) const RETENTION: Retention =
        Retention { bytes: 1 << 20, frames: 1000, gop_time: 10_000, history: 4_000 };

    pub(crate) fn writer(retention: Retention) -> LogWriter {
        LogWriter::new(Arena::new().unwrap(), retention, Encoding::Flv)
    }

    pub(crate) fn tag(timestamp: u32, len: usize) -> Tag {
        Tag { kind: TagKind::Video, timestamp, body: Bytes::from(vec![0x27; len]) }
    }

    fn check_invariants(index: &Index, head: u64) {
        let spans: Vec<_> = index.spans.iter().collect();
        for pair in spans.windows(2) {
            let len = pair[0].segment.bytes().len() as u64;
            assert_eq!(pair[0].start + len, pair[1].start, "no gap between segments");
            assert_eq!(pair[0].serial + 1, pair[1].serial);
        }
        if let Some(last) = spans.last() {
            assert!(last.start + last.segment.bytes().len() as u64 >= head);
        }
        assert!(index.starts.iter().zip(index.starts.iter().skip(1)).all(|(a, b)| a.at < b.at));
        if let Some(first) = index.starts.front() {
            assert!(first.at >= index.tail());
        }
    }

    #[test]
    fn the_bytes_are_whole_tags_and_the_head_is_published_last() {
        let mut writer = writer(RETENTION);
        let log = Arc::clone(writer.log());
        writer.append(&tag(0, 100), 7).unwrap();
        assert_eq!(log.head(), 0);
        assert!(writer.publish());
        assert!(!writer.publish());
        assert_eq!(log.head(), 115);
        let index = log.index();
        let bytes = index.spans[0].segment.bytes();
        let mut want = Vec::new();
        tag(7, 100).write_to(&mut want);
        assert_eq!(bytes, want);
    }

    #[test]
    fn a_large_tag_gets_a_segment_of_its_own_size() {
        let mut writer = writer(RETENTION);
        writer.append(&tag(0, 10), 0).unwrap();
        writer.append(&tag(1, 300_000), 1).unwrap();
        writer.append(&tag(2, 10), 2).unwrap();
        writer.publish();
        let index = writer.log().index();
        check_invariants(&index, writer.head());
        assert_eq!(index.spans.len(), 2);
        assert!(index.spans[1].segment.capacity() >= 300_015);
        assert_eq!(index.span_at(24).unwrap().serial, 0);
        assert_eq!(index.span_at(25).unwrap().serial, 1);
    }

    #[test]
    fn history_is_kept_and_no_more() {
        let mut writer = writer(RETENTION);
        let headers = Arc::new(Headers::default());
        for n in 0..600i64 {
            let time = n * 40;
            if n % 25 == 0 {
                let at = writer.head();
                writer.mark_start(at, time, true, Arc::clone(&headers), Tracks::default());
            }
            writer.append(&tag(0, 2000), time).unwrap();
            writer.publish();
            let index = writer.log().index();
            check_invariants(&index, writer.log().head());
            let oldest = index.starts.front().unwrap();
            assert!(time - oldest.time <= 4_000 + 2_000);
            assert!(index.starts.len() <= 6);
        }
        assert!(writer.index.spans.len() <= 8);
    }

    #[test]
    fn what_a_reader_holds_is_kept_as_far_as_bytes_allow() {
        let mut writer = writer(RETENTION);
        let headers = Arc::new(Headers::default());
        let hold = writer.log().hold(0);
        let mut grow = |seconds: std::ops::Range<i64>| {
            for n in seconds.start * 25..seconds.end * 25 {
                if n % 25 == 0 {
                    let at = writer.head();
                    writer.mark_start(at, n * 40, true, Arc::clone(&headers), Tracks::default());
                }
                writer.append(&tag(0, 200), n * 40).unwrap();
            }
            writer.publish();
            let index = writer.log().index();
            check_invariants(&index, writer.head());
            (index.starts.front().unwrap().at, writer.head())
        };
        // A minute, of which viewers are offered the last four seconds.
        let (oldest, head) = grow(0..60);
        assert_eq!(oldest, 0);
        hold.move_to(head / 2);
        assert_eq!(grow(60..61).0, head / 2);
        // Seven minutes are more than the log may hold.
        let (oldest, head) = grow(61..421);
        let group = 25 * 215;
        assert!((RETENTION.bytes - group..RETENTION.bytes + group).contains(&(head - oldest)));
        drop(hold);
        let (oldest, head) = grow(421..422);
        assert!(head - oldest < 6 * group);
    }

    #[test]
    fn a_group_that_is_too_long_leaves_its_last_part_to_those_who_read_it() {
        let mut writer = writer(RETENTION);
        writer.set_keyed(true);
        for n in 0..2_000i64 {
            let time = n * 40;
            if n == 0 || writer.wants_start(time) {
                let at = writer.head();
                writer.mark_start(at, time, n == 0, Arc::default(), Tracks::default());
            }
            writer.append(&tag(0, 100), time).unwrap();
            writer.publish();
            let oldest = writer.index.starts.front().unwrap().time;
            assert!(time - oldest >= time.min(RETENTION.history), "at {time}: only {oldest} and later");
            assert!(time - oldest <= 2 * RETENTION.gop_time + 100, "at {time}: {oldest}");
        }
    }

    #[test]
    fn bytes_and_frames_bound_the_log() {
        let mut writer = writer(Retention { bytes: 100_000, frames: 50, ..RETENTION });
        let headers = Arc::new(Headers::default());
        for n in 0..2000i64 {
            if n == 0 || writer.wants_start(n) {
                let at = writer.head();
                writer.mark_start(at, n, n == 0, Arc::clone(&headers), Tracks::default());
            }
            writer.append(&tag(0, if n < 1000 { 3000 } else { 5 }), n).unwrap();
            let oldest = writer.index.starts.front().unwrap();
            assert!(writer.head() - oldest.at <= 100_000 + 60_000, "{n}");
            assert!(writer.frames - oldest.frames <= 100, "{n}");
        }
    }
}
