//! One stream: what readers see of it, and the writer that its publisher holds.

use std::fmt;
use std::io;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, Ordering};

use arc_swap::ArcSwapOption;
use bytes::Bytes;

use super::content::{Content, Frame};
use super::headers::{Headers, Topic};
use super::key::StreamKey;
use super::lane::Lane;
pub use super::lane::{Choice, Selection};
use super::life::Life;
use super::log::{Log, Retention};
use super::rate::Rate;
use super::timeline::{StreamTime, Timeline};
use crate::media::metadata;
use crate::media::tag::{Class, Tag, TagKind};
use crate::memory::Arena;

/// A stream as all threads see it.
pub struct Stream {
    /// Unique in the process.
    pub id: u64,
    /// Its name.
    pub key: StreamKey,
    epoch: u64,
    /// The timeline that this one is a copy of; 0: none.
    copy_of: AtomicU64,
    /// Bytes of tags that came in.
    pub bytes_in: AtomicU64,
    /// Viewers on all loops.
    pub viewers: AtomicU32,
    rate: Rate,
    life: Life,
    logs: [ArcSwapOption<Log>; Choice::COUNT],
    wanted: AtomicU8,
    loops: AtomicU64,
    ended: AtomicBool,
    facts: Mutex<Facts>,
}

/// What is known of a stream's content, for listings.
#[derive(Clone, Debug, Default)]
pub struct Facts {
    /// Body of `onMetaData`, as sent.
    pub metadata: Option<Bytes>,
    /// The video sequence header, of the first track.
    pub video: Option<Bytes>,
    /// The audio sequence header, of the first track.
    pub audio: Option<Bytes>,
    /// All sequence headers.
    pub headers: Vec<(TagKind, Bytes)>,
}

impl fmt::Debug for Stream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Stream").field("id", &self.id).field("key", &self.key).finish_non_exhaustive()
    }
}

impl Stream {
    /// The log of a choice; `None` until the writer has made it. This call requests it.
    pub fn log(&self, choice: impl Into<Choice>) -> Option<Arc<Log>> {
        let choice = choice.into();
        let log = self.logs[choice.place()].load_full();
        if log.is_none() {
            self.wanted.fetch_or(choice.bit(), Ordering::Relaxed);
        }
        log
    }

    /// Loop `index` has viewers here, or no longer has any.
    ///
    /// A loop subscribes and then reads the head; the writer moves the head and then reads the subscribers. All
    /// four are `SeqCst`, so the loop either sees the new head or is notified of it.
    pub fn subscribe(&self, index: usize, wanted: bool) {
        let bit = 1u64 << index;
        if wanted {
            self.loops.fetch_or(bit, Ordering::SeqCst);
        } else {
            self.loops.fetch_and(!bit, Ordering::SeqCst);
        }
    }

    /// The loops that must be notified of new tags.
    pub fn subscribers(&self) -> impl Iterator<Item = usize> + use<> {
        let loops = self.loops.load(Ordering::SeqCst);
        (0..64).filter(move |index| loops & (1 << index) != 0)
    }

    /// A publisher began at `now`.
    pub fn began(&self, now: u64) {
        self.life.began(now);
        self.rate.begin(now, self.bytes_in.load(Ordering::Relaxed));
    }

    /// Bytes of the current publisher, media or not, came at `now`; tags pushed before the next call get that
    /// time. Called by the writer's thread only, before it pushes.
    pub fn heard(&self, now: u64) {
        self.life.heard(now);
        self.rate.measure(now, self.bytes_in.load(Ordering::Relaxed));
    }

    /// When the current publisher's first media frame came: a picture or sound, not metadata or a header.
    pub fn first_media(&self) -> Option<u64> {
        self.life.first_media()
    }

    /// When its newest media frame came.
    pub fn newest_media(&self) -> Option<u64> {
        self.life.newest_media()
    }

    /// Whether the current publisher has sent no media for `limit` milliseconds, and for three times its
    /// longest pause: some send one picture every few seconds and nothing else. Other bytes do not count.
    pub fn is_silent(&self, now: u64, limit: u64) -> bool {
        self.life.is_silent(now, limit)
    }

    /// The recent input rate in bits per second.
    pub fn bitrate(&self, now: u64) -> u64 {
        self.rate.at(now, self.bytes_in.load(Ordering::Relaxed))
    }

    /// Milliseconds since the current publisher began.
    pub fn uptime(&self, now: u64) -> u64 {
        self.life.uptime(now)
    }

    /// Identifiers of this stream's timeline: its own first, then that of the timeline it copies. A puller that
    /// sees one of them again knows that timestamps continue.
    pub fn epochs(&self) -> impl Iterator<Item = u64> {
        let copy_of = self.copy_of.load(Ordering::Relaxed);
        std::iter::once(self.epoch).chain((copy_of != 0).then_some(copy_of))
    }

    /// Whether it has ended for good.
    pub fn has_ended(&self) -> bool {
        self.ended.load(Ordering::Acquire)
    }

    pub(super) fn end(&self) {
        self.ended.store(true, Ordering::Release);
        self.logs.iter().filter_map(ArcSwapOption::load_full).for_each(|log| log.close());
    }

    /// What is known of its content.
    pub fn facts(&self) -> Facts {
        self.facts.lock().expect("no thread panics while it holds this lock").clone()
    }
}

/// The largest metadata or sequence header that a stream keeps, in bytes: each new viewer is sent it.
pub const HEADER_MAX: usize = 1 << 20;
/// The most bytes of all of them together, and their number: each track may have some.
const HEADERS_MAX: (usize, usize) = (3 * HEADER_MAX, 64);

/// Why a tag was not taken. The stream is unchanged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PushError {
    /// Metadata or a sequence header that every viewer would have to be sent.
    #[error("{} of {len} bytes, limit {limit}", header_name(*.kind))]
    HeaderTooLarge {
        /// The kind of header; `Script`: metadata.
        kind: TagKind,
        /// Bytes of its body.
        len: usize,
        /// The limit in bytes.
        limit: usize,
    },
    /// More headers than a stream keeps.
    #[error("{count} headers of {bytes} bytes in all, limits {} and {}", HEADERS_MAX.1, HEADERS_MAX.0)]
    TooManyHeaders {
        /// Their number.
        count: usize,
        /// Bytes of their bodies.
        bytes: usize,
    },
    /// No memory can be mapped for it.
    #[error("no memory for the stream's log: {0}")]
    Memory(io::ErrorKind),
}

impl From<io::Error> for PushError {
    fn from(error: io::Error) -> Self {
        Self::Memory(error.kind())
    }
}

fn header_name(kind: TagKind) -> &'static str {
    match kind {
        TagKind::Script => "metadata",
        TagKind::Video => "video sequence header",
        TagKind::Audio => "audio sequence header",
    }
}

/// Video frames that are not keyframes are dropped until the publisher's first keyframe, but for no longer than
/// this: some encoders never send one.
const KEYFRAME_PATIENCE: StreamTime = 5_000;

/// The writer of a stream, held by one publisher after another.
#[derive(Debug)]
pub struct StreamWriter {
    stream: Arc<Stream>,
    arena: Arc<Arena>,
    retention: Retention,
    timeline: Timeline,
    lanes: [Option<Lane>; Choice::COUNT],
    session: Session,
    content: Content,
    /// The headers of this session.
    headers: Headers,
    /// The newest tag.
    newest: Option<(TagKind, StreamTime)>,
    /// Undecodable frames that were dropped.
    pub dropped: u64,
}

/// What is known of the current publisher.
#[derive(Debug, Default)]
struct Session {
    key_seen: bool,
    first_video: Option<StreamTime>,
    /// Per kind: tags that the same timeline already delivered are dropped until a newer one comes.
    overlap: [bool; 2],
    /// The last tag before a resumed session. What precedes it there is dropped even if it is not known here,
    /// because a skip has left it out: viewers have seen later tags.
    anchor: Option<(TagKind, StreamTime)>,
}

impl StreamWriter {
    /// A new stream without content.
    pub fn new(id: u64, key: StreamKey, epoch: u64, arena: Arc<Arena>, retention: Retention) -> Self {
        let stream = Arc::new(Stream {
            id,
            key,
            epoch,
            copy_of: AtomicU64::new(0),
            bytes_in: AtomicU64::new(0),
            viewers: AtomicU32::new(0),
            rate: Rate::default(),
            life: Life::default(),
            logs: Default::default(),
            wanted: AtomicU8::new(Choice::default().bit()),
            loops: AtomicU64::new(0),
            ended: AtomicBool::new(false),
            facts: Mutex::default(),
        });
        let mut writer = Self {
            stream,
            arena,
            retention,
            timeline: Timeline::default(),
            lanes: Default::default(),
            session: Session::default(),
            content: Content::default(),
            headers: Headers::default(),
            newest: None,
            dropped: 0,
        };
        writer.add_lane(Choice::default());
        writer
    }

    /// The stream, for readers.
    pub fn stream(&self) -> &Arc<Stream> {
        &self.stream
    }

    /// The time of the newest tag.
    pub fn time(&self) -> StreamTime {
        self.first_lane().time()
    }

    /// Whether a reader that holds its place has more unread than one `part`th of what is kept at most.
    pub fn is_unread(&self, part: u64) -> bool {
        self.first_lane().is_unread(part)
    }

    fn first_lane(&self) -> &Lane {
        self.lanes[Choice::default().place()].as_ref().expect("made with the stream")
    }

    /// A publisher begins, a new one or the same one again: its clock starts anew, that of the viewers does
    /// not.
    pub fn begin_session(&mut self) {
        if !self.timeline.is_untouched() {
            self.stream.copy_of.store(0, Ordering::Relaxed);
        }
        self.timeline.end_session();
        self.session = Session::default();
        (self.content, self.headers) = (Content::default(), Headers::default());
        self.lanes.iter_mut().flatten().for_each(Lane::begin_session);
        *self.stream.facts.lock().expect("no thread panics while it holds this lock") = Facts::default();
    }

    /// The session copies the timeline `epoch`. If it is the first one, viewers that know that timeline, from this
    /// server or another, may continue here.
    pub fn copy_of(&mut self, epoch: u64) {
        self.timeline.copy();
        if self.timeline.is_untouched() {
            self.stream.copy_of.store(epoch, Ordering::Relaxed);
        }
    }

    /// The same publisher's timeline continues over a new connection: tags that came before are recognised by
    /// their time and dropped, so that the interruption leaves no trace.
    pub fn resume_session(&mut self) {
        let key_seen = self.session.key_seen;
        self.session = Session { overlap: [true; 2], key_seen, anchor: self.newest, ..Session::default() };
    }

    /// Takes a tag as the publisher sent it.
    ///
    /// # Errors
    /// [`PushError`]: a header is too large, or no memory can be mapped.
    pub fn push(&mut self, tag: &Tag) -> Result<(), PushError> {
        // Stored by this one writer only.
        let bytes = self.stream.bytes_in.load(Ordering::Relaxed);
        self.stream.bytes_in.store(bytes + tag.encoded_len() as u64, Ordering::Relaxed);
        let class = tag.class();
        match class {
            Class::Metadata | Class::SequenceHeader | Class::TrackInfo => {
                return self.push_header(class, tag);
            }
            Class::Other if tag.body.is_empty() => return Ok(()),
            Class::KeyFrame | Class::InterFrame | Class::Sound => self.stream.life.came_media(),
            Class::Other => {}
        }
        if self.is_overlap(class, tag) {
            return Ok(());
        }
        let Some(Frame { unit, class }) = self.content.frame(class, tag, self.timeline.now()) else {
            return Ok(());
        };
        let time = self.timeline.map(unit, tag.timestamp);
        self.newest = Some((tag.kind, time));
        if !self.is_decodable(class, time) {
            self.dropped += 1;
            return Ok(());
        }
        for lane in self.lanes.iter_mut().flatten() {
            lane.push(class, tag, time)?;
        }
        Ok(())
    }

    /// Drops what no longer fits in memory. [`publish`](Self::publish) makes that visible to the readers.
    pub fn shorten(&mut self) {
        for lane in self.lanes.iter_mut().flatten() {
            lane.shorten();
        }
    }

    /// Makes all that was pushed visible to the readers; `true` if the subscribers should be notified.
    pub fn publish(&mut self) -> bool {
        let mut news = false;
        for lane in self.lanes.iter_mut().flatten() {
            news |= lane.publish();
        }
        let wanted = self.stream.wanted.load(Ordering::Relaxed);
        for choice in Choice::every() {
            if wanted & choice.bit() != 0 && self.lanes[choice.place()].is_none() {
                self.add_lane(choice);
                news = true;
            }
        }
        news
    }

    fn push_header(&mut self, class: Class, tag: &Tag) -> Result<(), PushError> {
        let (kind, len) = (tag.kind, tag.body.len());
        if len == 0 {
            return Ok(());
        }
        if len > HEADER_MAX {
            return Err(PushError::HeaderTooLarge { kind, len, limit: HEADER_MAX });
        }
        if !self.content.header(class, tag) {
            return Ok(());
        }
        // Kept for long: in memory of its own, not in the buffer that it came in.
        let live = if class == Class::Metadata { metadata::for_live(&tag.body) } else { None };
        let body = live.map_or_else(|| Bytes::copy_from_slice(&tag.body), Bytes::from);
        let tag = &Tag { body, ..*tag };
        let headers = self.headers.with(tag);
        let (count, bytes) = headers.size();
        if bytes > HEADERS_MAX.0 || count > HEADERS_MAX.1 {
            return Err(PushError::TooManyHeaders { count, bytes });
        }
        self.headers = headers;
        let time = self.timeline.now();
        for lane in self.lanes.iter_mut().flatten() {
            lane.push_header(tag, time)?;
        }
        let mut facts = self.stream.facts.lock().expect("no thread panics while it holds this lock");
        let first = |kind| self.headers.first(kind).cloned();
        let (video, audio) = (first(TagKind::Video), first(TagKind::Audio));
        let is_config = |(kind, body): &(TagKind, &Bytes)| Topic::of(*kind, body).is_config();
        let configs = self.headers.bodies().filter(is_config).map(|(kind, body)| (kind, body.clone()));
        *facts = Facts { metadata: first(TagKind::Script), video, audio, headers: configs.collect() };
        Ok(())
    }

    /// Whether a resumed session has sent nothing new yet.
    fn is_overlapping(&self) -> bool {
        let kinds = [TagKind::Audio, TagKind::Video].into_iter().zip(self.session.overlap);
        kinds.into_iter().any(|(kind, overlap)| overlap && self.timeline.newest(kind).is_some())
    }

    /// Whether this tag of a resumed session was seen before, or precedes what was.
    fn is_overlap(&mut self, class: Class, tag: &Tag) -> bool {
        let overlap = match tag.kind {
            TagKind::Audio => &mut self.session.overlap[0],
            TagKind::Video => &mut self.session.overlap[1],
            // What lies between tags that were seen was seen as well.
            TagKind::Script => return self.is_overlapping(),
        };
        if !*overlap {
            return false;
        }
        let Some(time) = self.timeline.peek(tag.kind, tag.timestamp) else {
            *overlap = false;
            return false;
        };
        let seen = self.timeline.newest(tag.kind).is_some_and(|newest| time <= newest);
        // The anchor itself, or what can only follow it. Viewers can start at a new keyframe in any case.
        let follows = |(kind, at)| (kind, at) == (tag.kind, time) || time > at;
        if self.session.anchor.is_some_and(follows) || (class == Class::KeyFrame && !seen) {
            self.session.anchor = None;
        }
        *overlap = seen || self.session.anchor.is_some();
        *overlap
    }

    fn is_decodable(&mut self, class: Class, time: StreamTime) -> bool {
        match class {
            Class::KeyFrame => {
                self.session.key_seen = true;
                true
            }
            Class::InterFrame if !self.session.key_seen => {
                let first = *self.session.first_video.get_or_insert(time);
                time - first >= KEYFRAME_PATIENCE
            }
            _ => true,
        }
    }

    fn add_lane(&mut self, choice: Choice) {
        let mut lane = Lane::new(choice, Arc::clone(&self.arena), self.retention);
        if let Some(all) = &self.lanes[Choice::default().place()] {
            // On failure the lane starts with the next keyframe.
            let _ = lane.copy_newest_gop(all);
        }
        lane.publish();
        self.stream.logs[choice.place()].store(Some(Arc::clone(lane.log())));
        self.lanes[choice.place()] = Some(lane);
    }
}

#[cfg(test)]
#[path = "stream_tests.rs"]
mod tests;
