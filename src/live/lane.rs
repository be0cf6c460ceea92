//! A lane of a stream: the log of one choice of tracks and encoding, and the rules for where a viewer may start
//! in it.

use std::sync::Arc;

use bytes::Bytes;

use super::content::Content;
use super::log::{Headers, Log, LogWriter, Retention, Start, Topic, Tracks, header_time};
use super::timeline::StreamTime;
use crate::media::codec;
use crate::media::encoding::Encoding;
use crate::media::tag::{Class, TAG_HEADER, TAG_TRAILER, Tag, TagKind};
use crate::memory::Arena;

/// Which tracks a viewer wants.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Selection {
    /// All tracks.
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
}

/// What a viewer wants, and how it is written. Each choice that a viewer asks for has a log of its own, so that
/// every viewer is a cursor on contiguous bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Choice {
    /// Which tracks.
    pub selection: Selection,
    /// How they are written.
    pub encoding: Encoding,
}

impl Choice {
    /// The number of choices.
    pub const COUNT: usize = Selection::EVERY.len() * Encoding::EVERY.len();

    /// All choices.
    pub fn every() -> impl Iterator<Item = Self> {
        let of = |encoding| Selection::EVERY.into_iter().map(move |selection| Self { selection, encoding });
        Encoding::EVERY.into_iter().flat_map(of)
    }

    /// Its position among all choices.
    pub(super) const fn place(self) -> usize {
        self.encoding as usize * Selection::EVERY.len() + self.selection as usize
    }

    pub(super) const fn bit(self) -> u8 {
        1 << self.place()
    }
}

impl From<Selection> for Choice {
    /// As FLV.
    fn from(selection: Selection) -> Self {
        Self { selection, encoding: Encoding::Flv }
    }
}

/// How long sound waits for a picture that nothing has announced, and the distance between starts without a
/// picture.
const AUDIO_PATIENCE: StreamTime = 1_000;
/// Sound is all there is once no picture has come for so long; some cameras send one in 20 seconds.
const PICTURE_PATIENCE: StreamTime = 30_000;
/// How long sound waits if a video sequence header, or metadata that promises pictures, came but no frame did.
const ANNOUNCED_PATIENCE: StreamTime = 3_000;

/// The log of one choice, and the rules for where a viewer may start in it.
#[derive(Debug)]
pub(super) struct Lane {
    selection: Selection,
    writer: LogWriter,
    headers: Arc<Headers>,
    /// Headers that the current publisher has sent.
    sent: Vec<Topic>,
    /// Tracks that it has sent frames of.
    tracks: Tracks,
    /// Its first clean start was marked, so its tracks are known. Until then the tracks of earlier publishers
    /// count as well.
    settled: bool,
    before: Tracks,
    /// Tracks that its metadata promises; some encoders promise tracks that never come.
    promised: Tracks,
    /// When its first frame came.
    since: Option<StreamTime>,
    /// When its sound began, or the last picture came before sound became all there is.
    sound_since: Option<StreamTime>,
    /// When its newest picture came.
    picture: Option<StreamTime>,
    /// The first tag, until a start is marked.
    leading: Option<Leading>,
}

/// Sound, or data such as captions, that came before anything that a stream can start with.
#[derive(Clone, Debug)]
struct Leading {
    at: u64,
    /// Of the first frame; data has no time of its own.
    time: Option<StreamTime>,
    /// As they were when it came, with those that first came after it.
    headers: Arc<Headers>,
}

impl Lane {
    pub(super) fn new(choice: Choice, arena: Arc<Arena>, retention: Retention) -> Self {
        Self {
            selection: choice.selection,
            writer: LogWriter::new(arena, retention, choice.encoding),
            headers: Arc::default(),
            sent: Vec::new(),
            tracks: Tracks::default(),
            settled: false,
            before: Tracks::default(),
            promised: Tracks::default(),
            since: None,
            sound_since: None,
            picture: None,
            leading: None,
        }
    }

    pub(super) fn log(&self) -> &Arc<Log> {
        self.writer.log()
    }

    /// Makes all that was pushed visible to the readers; `true` if there was anything new.
    pub(super) fn time(&self) -> StreamTime {
        self.writer.time()
    }

    pub(super) fn is_unread(&self, part: u64) -> bool {
        self.writer.is_unread(part)
    }

    pub(super) fn publish(&mut self) -> bool {
        self.writer.publish()
    }

    /// Drops what no longer fits in memory; `true` if anything was dropped.
    pub(super) fn shorten(&mut self) -> bool {
        let tracks = self.announced(self.writer.time());
        self.writer.shorten(&Arc::clone(&self.headers), tracks)
    }

    /// Another publisher: it may have other tracks, and other headers or none.
    pub(super) fn begin_session(&mut self) {
        self.before = self.announced(StreamTime::MAX);
        self.sent.clear();
        self.tracks = Tracks::default();
        self.settled = false;
        self.promised = Tracks::default();
        (self.since, self.sound_since, self.picture) = (None, None, None);
        self.writer.set_keyed(false);
    }

    /// The headers that the present publisher has sent.
    fn own_headers(&mut self) -> Arc<Headers> {
        if let Some(left) = self.headers.retain(|topic| self.sent.contains(topic)) {
            self.headers = Arc::new(left);
        }
        Arc::clone(&self.headers)
    }

    /// Keeps a header for new viewers and appends it for current ones, unless it is unchanged.
    pub(super) fn push_header(&mut self, tag: &Tag, time: StreamTime) -> std::io::Result<()> {
        if !self.selection.takes(tag.kind) {
            return Ok(());
        }
        let topic = Topic::of(tag.kind, &tag.body);
        if !self.sent.contains(&topic) {
            self.sent.push(topic);
        }
        if tag.kind == TagKind::Script {
            let codec::Facts { video, audio, .. } = codec::facts(&tag.body);
            let takes = |kind| self.selection.takes(kind);
            self.promised =
                Tracks { video: video && takes(TagKind::Video), audio: audio && takes(TagKind::Audio) };
        }
        let known = self.headers.of(&topic);
        if known == Some(&tag.body) {
            return Ok(());
        }
        let is_first = known.is_none();
        self.headers = Arc::new(self.headers.with(tag));
        if let Some(leading) = self.leading.as_mut().filter(|_| is_first) {
            leading.headers = Arc::new(leading.headers.with(tag));
        }
        self.writer.append_header(tag, header_time(tag.kind, time))?;
        // After the header, which viewers that start here are sent anyway.
        self.before_data(Class::SequenceHeader, time);
        Ok(())
    }

    pub(super) fn push(&mut self, class: Class, tag: &Tag, time: StreamTime) -> std::io::Result<()> {
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
            _ => self.before_data(class, time),
        }
        self.writer.append(tag, time)
    }

    /// Neither picture nor sound: it needs no start, but must not let the log grow without one.
    fn before_data(&mut self, class: Class, time: StreamTime) {
        if class == Class::Other && self.writer.last_start().is_none() && self.leading.is_none() {
            let (at, headers) = (self.writer.head(), self.own_headers());
            self.leading = Some(Leading { at, time: None, headers });
        }
        if self.writer.wants_start(time) {
            self.mark(self.writer.head(), time, false);
        }
    }

    fn before_keyframe(&mut self, time: StreamTime) {
        self.tracks.video = true;
        self.picture = Some(time);
        self.writer.set_keyed(true);
        // Viewers that start at the first picture get the sound before it as well.
        match self.leading.take().filter(|_| self.writer.last_start().is_none()) {
            Some(leading) => {
                self.mark_leading(leading, time);
                if self.writer.is_far_from_start(time) {
                    self.mark(self.writer.head(), time, true);
                }
            }
            None => self.mark(self.writer.head(), time, true),
        }
    }

    fn before_inter_frame(&mut self, time: StreamTime) {
        self.tracks.video = true;
        self.picture = Some(time);
        if self.writer.last_start().is_none() || self.writer.wants_start(time) {
            self.mark(self.writer.head(), time, false);
        }
    }

    fn before_sound(&mut self, time: StreamTime) {
        self.tracks.audio = true;
        if self.tracks.video {
            let ended = self.picture.is_some_and(|picture| time - picture > PICTURE_PATIENCE);
            let last = self.writer.last_start().map_or(StreamTime::MIN / 2, |start| start.time);
            if self.writer.wants_start(time) || (ended && time - last >= AUDIO_PATIENCE) {
                self.mark(self.writer.head(), time, ended);
            }
            return;
        }
        let since = *self.sound_since.get_or_insert(time);
        let alone = time - since >= self.patience();
        let wanted = self.writer.wants_start(time);
        let Some(last) = self.writer.last_start() else {
            let (at, headers) = (self.writer.head(), self.own_headers());
            let mut leading = self.leading.take().unwrap_or(Leading { at, time: None, headers });
            leading.time.get_or_insert(time);
            if alone || wanted {
                self.mark_leading(leading, time);
            } else {
                self.leading = Some(leading);
            }
            return;
        };
        if wanted || (alone && time - last.time >= AUDIO_PATIENCE) {
            self.mark(self.writer.head(), time, alone);
        }
    }

    /// How long sound alone waits before it counts as the only track.
    fn patience(&self) -> StreamTime {
        match (self.selection, self.promised.video || self.has_config(TagKind::Video)) {
            (Selection::Audio, _) => 0,
            (_, false) => AUDIO_PATIENCE,
            (_, true) => ANNOUNCED_PATIENCE,
        }
    }

    /// Whether the publisher has sent a sequence header of a kind.
    fn has_config(&self, kind: TagKind) -> bool {
        self.sent.iter().any(|topic| topic.kind == kind && topic.is_config())
    }

    fn mark(&mut self, at: u64, time: StreamTime, clean: bool) {
        // A second start at the same place adds nothing, unless it is a clean one.
        let better = |last: &Start| last.at < at || (last.at == at && clean && !last.clean);
        if self.writer.last_start().is_none_or(better) {
            self.settled |= clean;
            let headers = if self.settled { self.own_headers() } else { Arc::clone(&self.headers) };
            self.writer.mark_start(at, time, clean, headers, self.announced(time));
        }
    }

    /// Marks the start of the sound that has waited for a picture until `time`.
    fn mark_leading(&mut self, leading: Leading, time: StreamTime) {
        self.settled = true;
        let announced = self.announced(time);
        let since = leading.time.unwrap_or(time);
        self.writer.mark_start(leading.at, since, true, leading.headers, announced);
    }

    /// The tracks to announce to a viewer that starts at `time`. If too few are announced, players miss a
    /// track; if too many, they wait for one that never comes. So a promise (metadata, or a sequence header
    /// without a frame) counts only for a while.
    fn announced(&self, time: StreamTime) -> Tracks {
        let before = if self.settled { Tracks::default() } else { self.before };
        let fresh = self.since.is_none_or(|since| time.saturating_sub(since) < ANNOUNCED_PATIENCE);
        let promised = |promise, kind| fresh && (promise || self.has_config(kind));
        Tracks {
            video: self.tracks.video || before.video || promised(self.promised.video, TagKind::Video),
            audio: self.tracks.audio || before.audio || promised(self.promised.audio, TagKind::Audio),
        }
    }

    /// Fills a new lane with what a new viewer of `all` would get: the headers and the newest group of
    /// pictures, or what precedes the first one.
    pub(super) fn copy_newest_gop(&mut self, all: &Self) -> std::io::Result<()> {
        let index = all.writer.index();
        let start = index.newest_start(u64::MAX, true).or(all.writer.last_start());
        let (from, mut time, headers) = match (start, &all.leading) {
            (Some(start), _) => (start.at, start.time, &start.headers),
            (None, Some(leading)) => (leading.at, leading.time.unwrap_or(0), &leading.headers),
            (None, None) => (all.writer.head(), 0, &all.headers),
        };
        // Which tracks there are has been found out already.
        let (video, audio) = (self.selection.takes(TagKind::Video), self.selection.takes(TagKind::Audio));
        self.tracks = Tracks { video: video && all.tracks.video, audio: audio && all.tracks.audio };
        (self.since, self.sound_since, self.picture) = (all.since, all.sound_since, all.picture);
        let mut content = Content::default();
        for (kind, body) in headers.bodies() {
            let tag = Tag { kind, timestamp: 0, body: body.clone() };
            content.header(tag.class(), &tag);
            self.push_header(&tag, time)?;
        }
        // Sound at the head of the copy waits for its picture, though it is known that one comes.
        if video && audio && start.is_some_and(|start| start.clean) {
            let (at, headers) = (self.writer.head(), self.own_headers());
            self.leading = Some(Leading { at, time: Some(time), headers });
        }
        for span in index.spans.iter().filter(|span| span_end(span) > from) {
            let skip = usize::try_from(from.saturating_sub(span.start)).unwrap_or(usize::MAX);
            for tag in Tags(span.segment.bytes().get(skip..).unwrap_or_default()) {
                if tag.kind != TagKind::Script {
                    // The tag contains the low 32 bits; the newest time supplies the rest.
                    let step = tag.timestamp.wrapping_sub(super::log::wire_time(time)).cast_signed();
                    time += StreamTime::from(step);
                }
                match tag.class() {
                    class @ (Class::Metadata | Class::SequenceHeader | Class::TrackInfo) => {
                        content.header(class, &tag);
                        self.push_header(&tag, time)?;
                    }
                    class => {
                        let frame = content.frame(class, &tag, time);
                        self.push(frame.map_or(Class::Other, |frame| frame.class), &tag, time)?;
                    }
                }
            }
        }
        // So has whether viewers wait for keyframes, and that they do in what earlier publishers have left.
        self.writer.set_keyed(video && index.unkeyed_from > 0);
        if index.unkeyed_from < u64::MAX {
            self.writer.set_keyed(false);
        }
        Ok(())
    }
}

fn span_end(span: &super::log::Span) -> u64 {
    span.start + span.segment.bytes().len() as u64
}

/// The tags of a stretch of log in FLV, which always consists of whole tags.
pub(super) struct Tags<'a>(pub(super) &'a [u8]);

impl Iterator for Tags<'_> {
    type Item = Tag;

    fn next(&mut self) -> Option<Tag> {
        let header = self.0.first_chunk::<TAG_HEADER>()?;
        let kind = TagKind::from_type(header[0])?;
        let timestamp = u32::from_be_bytes([header[7], header[4], header[5], header[6]]);
        let len = u32::from_be_bytes([0, header[1], header[2], header[3]]) as usize;
        let body = Bytes::copy_from_slice(self.0.get(TAG_HEADER..TAG_HEADER + len)?);
        self.0 = self.0.get(TAG_HEADER + len + TAG_TRAILER..)?;
        Some(Tag { kind, timestamp, body })
    }
}
