//! One stream: what everybody sees of it, and the writer that its publisher holds.

use std::fmt;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, Ordering};

use arc_swap::ArcSwapOption;
use bytes::Bytes;

use super::key::StreamKey;
use super::log::{Headers, Log, LogWriter, Retention, Start, Tracks, header_time};
use super::timeline::{StreamTime, Timeline};
use crate::media::codec;
use crate::media::tag::{Class, Tag, TagKind, Tags};
use crate::memory::Arena;

/// Which tracks a viewer wants. Each choice that somebody asks for is a log of its own, so that a viewer is
/// a cursor on contiguous bytes all the same.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Selection {
    /// All there is.
    #[default]
    All,
    /// No pictures.
    Audio,
    /// No sound.
    Video,
}

impl Selection {
    const EVERY: [Self; 3] = [Self::All, Self::Audio, Self::Video];

    fn takes(self, kind: TagKind) -> bool {
        match self {
            Self::All => true,
            Self::Audio => kind != TagKind::Video,
            Self::Video => kind != TagKind::Audio,
        }
    }

    const fn bit(self) -> u8 {
        1 << self as u8
    }
}

/// A stream as everybody sees it.
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
    /// Bits per second that came in lately; whoever measures writes it.
    pub bitrate: AtomicU64,
    /// When the present publisher began, in milliseconds on the caller's clock.
    since: AtomicU64,
    /// When it was heard last, and its longest silence.
    heard: AtomicU64,
    longest_silence: AtomicU64,
    logs: [ArcSwapOption<Log>; 3],
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
    /// The first bytes of the video sequence header.
    pub video: Option<Bytes>,
    /// The first bytes of the audio sequence header.
    pub audio: Option<Bytes>,
}

impl fmt::Debug for Stream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Stream").field("id", &self.id).field("key", &self.key).finish_non_exhaustive()
    }
}

impl Stream {
    /// The log of a selection; `None` until the writer has made it. Asking is what makes it.
    pub fn log(&self, selection: Selection) -> Option<Arc<Log>> {
        let log = self.logs[selection as usize].load_full();
        if log.is_none() {
            self.wanted.fetch_or(selection.bit(), Ordering::Relaxed);
        }
        log
    }

    /// Loop `index` has viewers here, or has none any more.
    ///
    /// A loop subscribes and then reads the head; the writer moves the head and then reads the subscribers.
    /// All four are `SeqCst`, so that a loop either sees the new head or is told of it.
    pub fn subscribe(&self, index: usize, wanted: bool) {
        let bit = 1u64 << index;
        if wanted {
            self.loops.fetch_or(bit, Ordering::SeqCst);
        } else {
            self.loops.fetch_and(!bit, Ordering::SeqCst);
        }
    }

    /// The loops that must be told of news.
    pub fn subscribers(&self) -> impl Iterator<Item = usize> + use<> {
        let loops = self.loops.load(Ordering::SeqCst);
        (0..64).filter(move |index| loops & (1 << index) != 0)
    }

    /// A publisher began.
    pub fn began(&self, now: u64) {
        self.since.store(now, Ordering::Relaxed);
        self.heard.store(now, Ordering::Relaxed);
        self.longest_silence.store(0, Ordering::Relaxed);
    }

    /// The present publisher sent something.
    pub fn heard(&self, now: u64) {
        let before = self.heard.swap(now, Ordering::Relaxed);
        self.longest_silence.fetch_max(now.saturating_sub(before), Ordering::Relaxed);
    }

    /// Whether the present publisher has been silent for `limit` milliseconds, and for three times as long as
    /// it ever was before: some send a picture every few seconds and nothing else.
    pub fn is_silent(&self, now: u64, limit: u64) -> bool {
        let usual = self.longest_silence.load(Ordering::Relaxed);
        now.saturating_sub(self.heard.load(Ordering::Relaxed)) >= limit.max(usual.saturating_mul(3))
    }

    /// Milliseconds since the present publisher began.
    pub fn uptime(&self, now: u64) -> u64 {
        now.saturating_sub(self.since.load(Ordering::Relaxed))
    }

    /// Names of this stream's timeline, its own first, then the one it is a copy of: a puller that sees one of
    /// them again knows that timestamps go on.
    pub fn epochs(&self) -> impl Iterator<Item = u64> {
        let copy_of = self.copy_of.load(Ordering::Relaxed);
        std::iter::once(self.epoch).chain((copy_of != 0).then_some(copy_of))
    }

    /// Whether it is over for good.
    pub fn has_ended(&self) -> bool {
        self.ended.load(Ordering::Acquire)
    }

    pub(super) fn end(&self) {
        self.ended.store(true, Ordering::Release);
    }

    /// What is known of its content.
    pub fn facts(&self) -> Facts {
        self.facts.lock().expect("nobody panics with this lock").clone()
    }
}

/// A video frame that needs others is dropped until its publisher's first keyframe, but no longer than this:
/// some encoders never send one.
const KEYFRAME_PATIENCE: StreamTime = 5_000;
/// How long sound waits for a picture that nothing has announced, and the distance of starts without one.
const AUDIO_PATIENCE: StreamTime = 1_000;
/// The same where a video sequence header came, or metadata that promises pictures, but no frame.
const ANNOUNCED_PATIENCE: StreamTime = 3_000;

/// The writer of a stream: one publisher after the other holds it.
#[derive(Debug)]
pub struct StreamWriter {
    stream: Arc<Stream>,
    arena: Arc<Arena>,
    retention: Retention,
    timeline: Timeline,
    lanes: [Option<Lane>; 3],
    session: Session,
    /// Undecodable frames that were dropped.
    pub dropped: u64,
}

/// What is known of the publisher that writes now.
#[derive(Debug, Default)]
struct Session {
    key_seen: bool,
    first_video: Option<StreamTime>,
    /// Tags that the same timeline gave before are dropped, per kind, until a newer one comes.
    overlap: [bool; 2],
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
            bitrate: AtomicU64::new(0),
            since: AtomicU64::new(0),
            heard: AtomicU64::new(0),
            longest_silence: AtomicU64::new(0),
            logs: Default::default(),
            wanted: AtomicU8::new(Selection::All.bit()),
            loops: AtomicU64::new(0),
            ended: AtomicBool::new(false),
            facts: Mutex::default(),
        });
        let mut writer = Self {
            stream,
            arena,
            retention,
            timeline: Timeline::default(),
            lanes: [None, None, None],
            session: Session::default(),
            dropped: 0,
        };
        writer.add_lane(Selection::All);
        writer
    }

    /// The stream, as everybody sees it.
    pub fn stream(&self) -> &Arc<Stream> {
        &self.stream
    }

    /// Another publisher begins, or the same one again: its clock starts anew, viewers' does not.
    pub fn begin_session(&mut self) {
        if !self.timeline.is_untouched() {
            self.stream.copy_of.store(0, Ordering::Relaxed);
        }
        self.timeline.end_session();
        self.session = Session::default();
        self.lanes.iter_mut().flatten().for_each(Lane::begin_session);
        *self.stream.facts.lock().expect("nobody panics with this lock") = Facts::default();
    }

    /// The first session is a copy of a timeline of that name: those who know it, from here or from elsewhere,
    /// may go on with it here.
    pub fn copy_of(&mut self, epoch: u64) {
        if self.timeline.is_untouched() {
            self.stream.copy_of.store(epoch, Ordering::Relaxed);
        }
    }

    /// The same publisher's timeline goes on over a new connection: what came before is recognised by its
    /// time and dropped, so that the cut leaves no trace.
    pub fn resume_session(&mut self) {
        let key_seen = self.session.key_seen;
        self.session = Session { overlap: [true; 2], key_seen, ..Session::default() };
    }

    /// Takes a tag as the publisher sent it.
    ///
    /// # Errors
    /// When no memory can be mapped for it.
    pub fn push(&mut self, tag: &Tag) -> std::io::Result<()> {
        self.stream.bytes_in.fetch_add(tag.encoded_len() as u64, Ordering::Relaxed);
        let class = tag.class();
        match class {
            Class::Metadata | Class::SequenceHeader => return self.push_header(tag),
            Class::Other if tag.body.is_empty() => return Ok(()),
            Class::KeyFrame | Class::InterFrame | Class::Sound | Class::Other => {}
        }
        if self.is_overlap(tag) {
            return Ok(());
        }
        let time = self.timeline.map(tag.kind, tag.timestamp);
        if !self.is_decodable(class, time) {
            self.dropped += 1;
            return Ok(());
        }
        for lane in self.lanes.iter_mut().flatten() {
            lane.push(class, tag, time)?;
        }
        Ok(())
    }

    /// Shows the readers all that was pushed; `true` if somebody should be told.
    pub fn publish(&mut self) -> bool {
        let mut news = false;
        for lane in self.lanes.iter_mut().flatten() {
            news |= lane.writer.publish();
        }
        let wanted = self.stream.wanted.load(Ordering::Relaxed);
        for selection in Selection::EVERY {
            if wanted & selection.bit() != 0 && self.lanes[selection as usize].is_none() {
                self.add_lane(selection);
                news = true;
            }
        }
        news
    }

    fn push_header(&mut self, tag: &Tag) -> std::io::Result<()> {
        if tag.body.is_empty() {
            return Ok(());
        }
        // Kept for long: in memory of its own, not in the buffer that it came in.
        let tag = &Tag { body: Bytes::copy_from_slice(&tag.body), ..*tag };
        let time = self.timeline.now();
        for lane in self.lanes.iter_mut().flatten() {
            lane.push_header(tag, time)?;
        }
        let mut facts = self.stream.facts.lock().expect("nobody panics with this lock");
        let fact = match tag.kind {
            TagKind::Script => &mut facts.metadata,
            TagKind::Video => &mut facts.video,
            TagKind::Audio => &mut facts.audio,
        };
        *fact = Some(tag.body.clone());
        Ok(())
    }

    /// Whether a resumed session has not yet come to anything new.
    fn is_overlapping(&self) -> bool {
        let kinds = [TagKind::Audio, TagKind::Video].into_iter().zip(self.session.overlap);
        kinds.into_iter().any(|(kind, overlap)| overlap && self.timeline.newest(kind).is_some())
    }

    /// Whether a resumed session's tag was seen before.
    fn is_overlap(&mut self, tag: &Tag) -> bool {
        let overlap = match tag.kind {
            TagKind::Audio => &mut self.session.overlap[0],
            TagKind::Video => &mut self.session.overlap[1],
            // What stands between tags that were seen was seen as well.
            TagKind::Script => return self.is_overlapping(),
        };
        if !*overlap {
            return false;
        }
        let seen = match (self.timeline.peek(tag.kind, tag.timestamp), self.timeline.newest(tag.kind)) {
            (Some(time), Some(newest)) => time <= newest,
            _ => false,
        };
        *overlap = seen;
        seen
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

    fn add_lane(&mut self, selection: Selection) {
        let mut lane = Lane::new(selection, Arc::clone(&self.arena), self.retention);
        if let Some(all) = &self.lanes[Selection::All as usize] {
            // On failure the lane starts with the next keyframe.
            let _ = lane.copy_newest_gop(all);
        }
        lane.writer.publish();
        self.stream.logs[selection as usize].store(Some(Arc::clone(lane.writer.log())));
        self.lanes[selection as usize] = Some(lane);
    }
}

/// The log of one selection, and what decides where in it a viewer may start.
#[derive(Debug)]
struct Lane {
    selection: Selection,
    writer: LogWriter,
    headers: Arc<Headers>,
    /// Kinds of headers that the present publisher has sent.
    sent: Vec<TagKind>,
    /// Tracks that it has shown.
    tracks: Tracks,
    /// Its first clean start was marked: from there on it is known what it has. Until then what the ones
    /// before it had counts as well.
    settled: bool,
    before: Tracks,
    /// Tracks that its metadata promises; some promise what never comes.
    promised: Tracks,
    /// When its first frame came.
    since: Option<StreamTime>,
    /// When its sound began.
    sound_since: Option<StreamTime>,
    /// The first frame, while no start was marked.
    leading: Option<Leading>,
}

/// Sound that came before anything that a stream can start with.
#[derive(Clone, Debug)]
struct Leading {
    at: u64,
    time: StreamTime,
    /// As they were when it came, with those that came first behind it.
    headers: Arc<Headers>,
}

impl Lane {
    fn new(selection: Selection, arena: Arc<Arena>, retention: Retention) -> Self {
        Self {
            selection,
            writer: LogWriter::new(arena, retention),
            headers: Arc::default(),
            sent: Vec::new(),
            tracks: Tracks::default(),
            settled: false,
            before: Tracks::default(),
            promised: Tracks::default(),
            since: None,
            sound_since: None,
            leading: None,
        }
    }

    /// Another publisher: it may have other tracks, and other headers or none.
    fn begin_session(&mut self) {
        self.before = self.announced(StreamTime::MAX);
        self.sent.clear();
        self.tracks = Tracks::default();
        self.settled = false;
        self.promised = Tracks::default();
        (self.since, self.sound_since) = (None, None);
    }

    /// The headers that the present publisher has sent.
    fn own_headers(&mut self) -> Arc<Headers> {
        if let Some(left) = self.headers.retain(|kind| self.sent.contains(&kind)) {
            self.headers = Arc::new(left);
        }
        Arc::clone(&self.headers)
    }

    /// Keeps a header for those to come and appends it for those who watch, unless it is known.
    fn push_header(&mut self, tag: &Tag, time: StreamTime) -> std::io::Result<()> {
        if !self.selection.takes(tag.kind) {
            return Ok(());
        }
        if !self.sent.contains(&tag.kind) {
            self.sent.push(tag.kind);
        }
        if tag.kind == TagKind::Script {
            let codec::Facts { video, audio, .. } = codec::facts(&tag.body);
            let takes = |kind| self.selection.takes(kind);
            self.promised =
                Tracks { video: video && takes(TagKind::Video), audio: audio && takes(TagKind::Audio) };
        }
        let known = self.headers.of(tag.kind);
        if known == Some(&tag.body) {
            return Ok(());
        }
        let is_first = known.is_none();
        self.headers = Arc::new(self.headers.with(tag));
        if let Some(leading) = self.leading.as_mut().filter(|_| is_first) {
            leading.headers = Arc::new(leading.headers.with(tag));
        }
        self.writer.append(tag, header_time(tag.kind, time))?;
        // Behind the header, which viewers that start here are told anyway.
        self.before_data(time);
        Ok(())
    }

    fn push(&mut self, class: Class, tag: &Tag, time: StreamTime) -> std::io::Result<()> {
        if !self.selection.takes(tag.kind) {
            return Ok(());
        }
        if tag.kind != TagKind::Script {
            self.since.get_or_insert(time);
        }
        match class {
            Class::KeyFrame => self.before_keyframe(time),
            Class::InterFrame => self.before_inter_frame(time),
            Class::Sound => self.before_sound(time),
            _ => self.before_data(time),
        }
        self.writer.append(tag, time)
    }

    /// Neither picture nor sound: it asks for no start, but must not let the log grow without one.
    fn before_data(&mut self, time: StreamTime) {
        if self.writer.wants_start(time) {
            self.mark(self.writer.head(), time, false);
        }
    }

    fn before_keyframe(&mut self, time: StreamTime) {
        self.tracks.video = true;
        // The first picture's viewers get the sound before it as well.
        match self.leading.take().filter(|_| self.writer.last_start().is_none()) {
            Some(leading) => {
                self.mark_leading(leading);
                if self.writer.is_far_from_start(time) {
                    self.mark(self.writer.head(), time, true);
                }
            }
            None => self.mark(self.writer.head(), time, true),
        }
    }

    fn before_inter_frame(&mut self, time: StreamTime) {
        self.tracks.video = true;
        if self.writer.last_start().is_none() || self.writer.wants_start(time) {
            self.mark(self.writer.head(), time, false);
        }
    }

    fn before_sound(&mut self, time: StreamTime) {
        self.tracks.audio = true;
        if self.tracks.video {
            if self.writer.wants_start(time) {
                self.mark(self.writer.head(), time, false);
            }
            return;
        }
        let since = *self.sound_since.get_or_insert(time);
        let alone = time - since >= self.patience();
        let wanted = self.writer.wants_start(time);
        let Some(last) = self.writer.last_start() else {
            let (at, headers) = (self.writer.head(), self.own_headers());
            let leading = self.leading.take().unwrap_or(Leading { at, time, headers });
            if alone || wanted {
                self.mark_leading(leading);
            } else {
                self.leading = Some(leading);
            }
            return;
        };
        if wanted || (alone && time - last.time >= AUDIO_PATIENCE) {
            self.mark(self.writer.head(), time, alone);
        }
    }

    /// How long sound alone waits before it counts as all there is.
    fn patience(&self) -> StreamTime {
        match (self.selection, self.promised.video || self.sent.contains(&TagKind::Video)) {
            (Selection::Audio, _) => 0,
            (_, false) => AUDIO_PATIENCE,
            (_, true) => ANNOUNCED_PATIENCE,
        }
    }

    fn mark(&mut self, at: u64, time: StreamTime, clean: bool) {
        // A start twice at the same place says nothing new, unless it is a better one.
        let better = |last: &Start| last.at < at || (last.at == at && clean && !last.clean);
        if self.writer.last_start().is_none_or(better) {
            self.settled |= clean;
            let headers = if self.settled { self.own_headers() } else { Arc::clone(&self.headers) };
            self.writer.mark_start(at, time, clean, headers, self.announced(time));
        }
    }

    fn mark_leading(&mut self, leading: Leading) {
        self.settled = true;
        let announced = self.announced(leading.time);
        self.writer.mark_start(leading.at, leading.time, true, leading.headers, announced);
    }

    /// The tracks that a viewer who starts at `time` is to expect: players that are told of too few miss one,
    /// players that are told of too many wait for it in vain. So a promise holds for a while only.
    fn announced(&self, time: StreamTime) -> Tracks {
        let audio = self.tracks.audio || self.sent.contains(&TagKind::Audio);
        let before = if self.settled { Tracks::default() } else { self.before };
        let fresh = self.since.is_none_or(|since| time.saturating_sub(since) < ANNOUNCED_PATIENCE);
        let promised = if fresh { self.promised } else { Tracks::default() };
        Tracks {
            video: self.tracks.video || before.video || promised.video,
            audio: audio || before.audio || promised.audio,
        }
    }

    /// Fills a new lane with what a new viewer of `all` would get: the headers and the newest group of
    /// pictures, or what leads up to the first one.
    fn copy_newest_gop(&mut self, all: &Self) -> std::io::Result<()> {
        let index = all.writer.index();
        let start = index.newest_start(u64::MAX, true).or(all.writer.last_start());
        let (from, mut time, headers) = match (start, &all.leading) {
            (Some(start), _) => (start.at, start.time, &start.headers),
            (None, Some(leading)) => (leading.at, leading.time, &leading.headers),
            (None, None) => (all.writer.head(), 0, &all.headers),
        };
        for (kind, body) in headers.bodies() {
            self.push_header(&Tag { kind, timestamp: 0, body: body.clone() }, time)?;
        }
        for span in index.spans.iter().filter(|span| span_end(span) > from) {
            let skip = usize::try_from(from.saturating_sub(span.start)).unwrap_or(usize::MAX);
            for tag in tags(span.segment.bytes().get(skip..).unwrap_or_default()) {
                if tag.kind != TagKind::Script {
                    // The low 32 bits stand in the tag; the newest time supplies the rest.
                    let step = tag.timestamp.wrapping_sub(super::log::wire_time(time)).cast_signed();
                    time += StreamTime::from(step);
                }
                match tag.class() {
                    Class::Metadata | Class::SequenceHeader => {
                        self.push_header(&tag, time)?;
                    }
                    class => self.push(class, &tag, time)?,
                }
            }
        }
        Ok(())
    }
}

fn span_end(span: &super::log::Span) -> u64 {
    span.start + span.segment.bytes().len() as u64
}

/// The tags of a stretch of log, which is always whole tags.
fn tags(bytes: &[u8]) -> impl Iterator<Item = Tag> {
    Tags(bytes).map(|tag| tag.to_tag())
}

#[cfg(test)]
mod tests {
    use super::super::log::tests::RETENTION;
    use super::*;
    use crate::media::amf0;
    use Class::{InterFrame, KeyFrame, Metadata, SequenceHeader, Sound};

    fn writer() -> StreamWriter {
        StreamWriter::new(1, StreamKey::parse("live/x").unwrap(), 7, Arena::new().unwrap(), RETENTION)
    }

    fn tag(kind: TagKind, timestamp: u32, body: &'static [u8]) -> Tag {
        Tag { kind, timestamp, body: Bytes::from_static(body) }
    }
    fn meta() -> Tag {
        tag(TagKind::Script, 0, b"\x02\x00\x0aonMetaData\x05")
    }
    fn avc() -> Tag {
        tag(TagKind::Video, 0, &[0x17, 0, 0, 0, 0, 1])
    }
    fn aac() -> Tag {
        tag(TagKind::Audio, 0, &[0xaf, 0, 0x12])
    }
    fn key(timestamp: u32) -> Tag {
        tag(TagKind::Video, timestamp, &[0x17, 1, 0, 0, 0, 9])
    }
    fn inter(timestamp: u32) -> Tag {
        tag(TagKind::Video, timestamp, &[0x27, 1, 0, 0, 0, 9])
    }
    fn sound(timestamp: u32) -> Tag {
        tag(TagKind::Audio, timestamp, &[0xaf, 1, 3])
    }

    fn push(writer: &mut StreamWriter, tags: &[Tag]) {
        for tag in tags {
            writer.push(tag).unwrap();
        }
        writer.publish();
    }

    fn content(writer: &StreamWriter, selection: Selection) -> Vec<(Class, u32)> {
        let Some(log) = writer.stream().log(selection) else { return Vec::new() };
        log.index()
            .spans
            .iter()
            .flat_map(|span| tags(span.segment.bytes()))
            .map(|tag| (tag.class(), tag.timestamp))
            .collect()
    }

    #[test]
    fn a_stream_starts_with_the_sound_before_its_first_picture() {
        let mut writer = writer();
        push(&mut writer, &[meta(), avc(), aac(), sound(0), sound(20), key(33), inter(66)]);
        let log = writer.stream().log(Selection::All).unwrap();
        let index = log.index();
        assert_eq!(index.starts.len(), 1);
        let start = &index.starts[0];
        assert_eq!((start.time, start.clean), (0, true));
        let headers = meta().encoded_len() + avc().encoded_len() + aac().encoded_len();
        assert_eq!(start.at, headers as u64);
        assert_eq!(start.tracks, Tracks { video: true, audio: true });
        assert_eq!(start.headers.audio, Some(aac().body));
    }

    #[test]
    fn frames_before_the_first_keyframe_are_dropped() {
        let mut writer = writer();
        push(&mut writer, &[avc(), inter(0), inter(40), key(80), inter(120)]);
        assert_eq!(
            content(&writer, Selection::All),
            [(SequenceHeader, 0), (KeyFrame, 80), (InterFrame, 120)]
        );
        assert_eq!(writer.dropped, 2);
    }

    #[test]
    fn a_stream_that_never_has_a_keyframe_starts_all_the_same() {
        let mut writer = writer();
        for n in 0..200 {
            push(&mut writer, &[inter(n * 40)]);
        }
        let index = writer.stream().log(Selection::All).unwrap().index();
        assert!(!index.starts[0].clean);
        assert_eq!(index.starts[0].time, 5000);
    }

    #[test]
    fn sound_alone_starts_after_a_second_and_every_second() {
        let mut writer = writer();
        push(&mut writer, &[aac()]);
        for n in 0..150 {
            push(&mut writer, &[sound(n * 20)]);
        }
        let index = writer.stream().log(Selection::All).unwrap().index();
        assert_eq!(index.starts.iter().map(|s| s.time).collect::<Vec<_>>(), [0, 1020, 2020]);
        assert!(index.starts.iter().all(|s| s.clean && s.tracks == Tracks { video: false, audio: true }));
    }

    /// Whatever a publisher sends, and whatever time it says it is, the log forgets.
    #[test]
    fn a_log_is_bounded_without_pictures_and_without_time() {
        const LONG: &[u8] = &[0; 1000];
        let body = |first: &[u8]| Bytes::from([first, LONG].concat());
        let cue = Tag { kind: TagKind::Script, timestamp: 0, body: body(b"\x02\x00\x05onCue") };
        let sound = Tag { kind: TagKind::Audio, timestamp: 0, body: body(&[0xaf, 1]) };
        let header = |n: u8| Tag { kind: TagKind::Video, timestamp: 0, body: body(&[0x17, 0, 0, 0, 0, n]) };
        let streams: [(&str, Vec<Tag>); 5] = [
            ("data", vec![cue.clone()]),
            ("sound at a standstill", vec![sound.clone()]),
            ("announced pictures that never come", vec![avc(), sound.clone()]),
            ("ever new headers", vec![header(1), header(2)]),
            ("a picture, then data", vec![cue, header(3), header(4)]),
        ];
        for (what, tags) in streams {
            let mut writer = writer();
            if what.starts_with("a picture") {
                push(&mut writer, &[key(0)]);
            }
            for tag in tags.iter().cycle().take(20_000) {
                push(&mut writer, std::slice::from_ref(tag));
            }
            let log = writer.stream().log(Selection::All).unwrap();
            let kept = log.head() - log.index().tail();
            // Memory goes by segments, which are large where much comes in no time.
            assert!(kept <= RETENTION.bytes + (8 << 20), "{what}: {kept} bytes");
        }
    }

    #[test]
    fn repeated_headers_are_dropped_and_changed_ones_counted() {
        let mut writer = writer();
        push(&mut writer, &[meta(), avc(), key(0), meta(), avc(), key(40)]);
        let changed = tag(TagKind::Video, 0, &[0x17, 0, 0, 0, 0, 2]);
        push(&mut writer, &[changed, key(80)]);
        assert_eq!(
            content(&writer, Selection::All),
            [
                (Metadata, 0),
                (SequenceHeader, 0),
                (KeyFrame, 0),
                (KeyFrame, 40),
                (SequenceHeader, 40),
                (KeyFrame, 80)
            ]
        );
        let index = writer.stream().log(Selection::All).unwrap().index();
        assert_eq!(index.starts.iter().map(|s| s.headers.version).collect::<Vec<_>>(), [2, 2, 3]);
    }

    #[test]
    fn the_next_publisher_goes_on_in_the_same_log() {
        let mut writer = writer();
        push(&mut writer, &[avc(), key(1000), inter(1040), sound(1050)]);
        writer.begin_session();
        push(&mut writer, &[avc(), inter(5), key(50), inter(90)]);
        let times: Vec<_> = content(&writer, Selection::All).iter().map(|(_, t)| *t).collect();
        assert_eq!(times, [0, 1000, 1040, 1050, 1135, 1175]);
    }

    #[test]
    fn a_resumed_session_leaves_no_trace() {
        let mut writer = writer();
        push(&mut writer, &[avc(), key(1000), sound(1010), inter(1040), sound(1050)]);
        writer.resume_session();
        push(
            &mut writer,
            &[avc(), key(1000), sound(1010), inter(1040), sound(1050), inter(1080), sound(1090)],
        );
        let times: Vec<_> = content(&writer, Selection::All).iter().map(|(_, t)| *t).collect();
        assert_eq!(times, [0, 1000, 1010, 1040, 1050, 1080, 1090]);
    }

    #[test]
    fn a_selection_begins_with_the_headers_that_its_first_frame_needs() {
        let mut writer = writer();
        let changed = tag(TagKind::Audio, 0, &[0xaf, 0, 0x13]);
        push(&mut writer, &[avc(), aac(), key(0), sound(5), changed.clone(), sound(25)]);
        assert!(content(&writer, Selection::Audio).is_empty());
        writer.publish();
        assert_eq!(
            content(&writer, Selection::Audio),
            [(SequenceHeader, 0), (Sound, 5), (SequenceHeader, 5), (Sound, 25)]
        );
        let index = writer.stream().log(Selection::Audio).unwrap().index();
        assert_eq!(index.starts[0].headers.audio, Some(aac().body));
    }

    #[test]
    fn a_selection_that_is_asked_for_before_the_first_picture_has_all() {
        let mut writer = writer();
        push(&mut writer, &[avc(), aac(), sound(0)]);
        assert!(content(&writer, Selection::Audio).is_empty());
        push(&mut writer, &[sound(20)]);
        assert_eq!(content(&writer, Selection::Audio), [(SequenceHeader, 0), (Sound, 0), (Sound, 20)]);
    }

    #[test]
    fn the_sound_before_the_first_picture_has_its_own_header() {
        let mut writer = writer();
        let changed = tag(TagKind::Audio, 0, &[0xaf, 0, 0x13]);
        push(&mut writer, &[aac(), sound(0), changed, sound(20), avc(), key(33)]);
        let headers = &writer.stream().log(Selection::All).unwrap().index().starts[0].headers;
        assert_eq!(headers.audio, Some(aac().body));
        assert_eq!(headers.video, Some(avc().body), "what comes first behind it is told at once");
    }

    #[test]
    fn a_selection_is_made_when_asked_for_and_has_the_newest_gop() {
        let mut writer = writer();
        push(&mut writer, &[meta(), avc(), aac(), key(0), sound(5), key(40), sound(45), inter(80)]);
        assert!(content(&writer, Selection::Video).is_empty());
        assert!(writer.publish());
        assert_eq!(
            content(&writer, Selection::Video),
            [(Metadata, 0), (SequenceHeader, 40), (KeyFrame, 40), (InterFrame, 80)]
        );
        assert!(content(&writer, Selection::Audio).is_empty());
        push(&mut writer, &[sound(85)]);
        assert_eq!(
            content(&writer, Selection::Audio),
            [(Metadata, 0), (SequenceHeader, 40), (Sound, 45), (Sound, 85)]
        );
        let index = writer.stream().log(Selection::Audio).unwrap().index();
        assert!(index.starts[0].clean);
    }

    #[test]
    fn a_selection_that_is_asked_for_before_the_first_picture_has_its_headers() {
        let mut writer = writer();
        assert!(content(&writer, Selection::Video).is_empty());
        push(&mut writer, &[meta(), avc(), aac(), sound(0)]);
        push(&mut writer, &[key(20)]);
        let index = writer.stream().log(Selection::Video).unwrap().index();
        assert_eq!(index.starts[0].headers.video, Some(avc().body));
        assert!(index.starts[0].headers.audio.is_none());
    }

    #[test]
    fn a_copy_bears_both_names_until_another_session_begins() {
        let mut writer = writer();
        writer.begin_session();
        writer.copy_of(99);
        push(&mut writer, &[avc(), key(0)]);
        let names = |writer: &StreamWriter| writer.stream().epochs().collect::<Vec<_>>();
        assert_eq!(names(&writer), [7, 99]);
        writer.resume_session();
        writer.copy_of(5);
        assert_eq!(names(&writer), [7, 99]);
        writer.begin_session();
        assert_eq!(names(&writer), [7]);
    }

    /// As most encoders write it: pictures and sound, by number.
    fn promising() -> Tag {
        let property = |name: &str, value: f64| (name.to_owned(), amf0::Value::Number(value));
        let properties = vec![property("videocodecid", 7.0), property("audiocodecid", 10.0)];
        let body = amf0::encode(&["onMetaData".into(), amf0::Value::EcmaArray(properties)]);
        Tag { kind: TagKind::Script, timestamp: 0, body: body.into() }
    }

    #[test]
    fn a_promised_track_is_announced_for_a_while() {
        let mut writer = writer();
        push(&mut writer, &[promising(), avc(), key(0)]);
        let tracks = |writer: &StreamWriter| {
            let index = writer.stream().log(Selection::All).unwrap().index();
            index.starts.back().unwrap().tracks
        };
        assert_eq!(tracks(&writer), Tracks { video: true, audio: true }, "it is only late");
        push(&mut writer, &[key(1000), key(2999), key(3000)]);
        assert_eq!(tracks(&writer), Tracks { video: true, audio: false }, "it does not come");
        push(&mut writer, &[aac(), sound(3010), key(4000)]);
        assert_eq!(tracks(&writer), Tracks { video: true, audio: true }, "it has come after all");
        let mut lone = self::writer();
        push(&mut lone, &[promising(), aac()]);
        for n in 0..200 {
            push(&mut lone, &[sound(n * 20)]);
        }
        let starts = lone.stream().log(Selection::All).unwrap().index().starts.clone();
        assert_eq!(starts.back().unwrap().tracks, Tracks { video: false, audio: true });
    }

    #[test]
    fn what_the_next_publisher_lacks_is_not_announced() {
        let mut writer = writer();
        push(&mut writer, &[meta(), avc(), aac(), key(0), sound(5), inter(40)]);
        writer.begin_session();
        push(&mut writer, &[aac()]);
        for n in 0..60 {
            push(&mut writer, &[sound(n * 20)]);
        }
        let index = writer.stream().log(Selection::All).unwrap().index();
        let start = index.starts.back().unwrap();
        assert_eq!(start.tracks, Tracks { video: false, audio: true });
        assert_eq!(start.headers.bodies().map(|(kind, _)| kind).collect::<Vec<_>>(), [TagKind::Audio]);
        assert!(writer.stream().facts().video.is_none());
    }
}
