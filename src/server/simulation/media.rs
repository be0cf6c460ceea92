//! What the scripted publishers push: tags that can be identified by their bodies.
//!
//! A frame's body carries its session, its number in the session and the version of the sequence header it
//! needs; the rest is random bytes from a pool at a random offset, so that a shift by one byte is noticed.

use std::sync::LazyLock;

use bytes::Bytes;

use super::net::EndId;
use super::rng::Rng;
use crate::media::tag::{Class, Tag, TagKind};
use crate::uring::Millis;

static NOISE: LazyLock<Vec<u8>> = LazyLock::new(|| {
    let mut rng = Rng::new(7);
    (0..64 << 10).flat_map(|_| rng.next().to_le_bytes()).collect()
});

/// Which tracks a stream has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Tracks {
    Both,
    Audio,
    Video,
}

/// What has been published under a key, session after session.
#[derive(Debug)]
pub(super) struct Library {
    pub(super) key: String,
    pub(super) tracks: Tracks,
    /// Its publisher's line is so slow that one tag may take longer than a publisher may be silent.
    pub(super) crawls: bool,
    pub(super) sessions: Vec<Session>,
    /// Versions of the headers: metadata, video, audio.
    pub(super) versions: [u32; 3],
}

/// What one publisher pushed on one connection.
#[derive(Debug)]
pub(super) struct Session {
    pub(super) tags: Vec<Tag>,
    /// For each tag that was sent, the number of bytes sent up to its end.
    pub(super) ends: Vec<u64>,
    /// Its connection.
    pub(super) end: EndId,
    pub(super) began: Millis,
    /// It ended properly.
    pub(super) clean: bool,
    /// The stream may be over before the next session.
    pub(super) last: bool,
}

/// The identity that a frame's body carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Name {
    pub(super) session: usize,
    pub(super) place: usize,
    pub(super) version: u32,
}

/// Reads a frame's identity from its body.
pub(super) fn name_of(tag: &Tag) -> Option<Name> {
    let from = if tag.kind == TagKind::Video { 5 } else { 2 };
    let field = |at: usize| {
        let bytes = tag.body.get(from + at..from + at + 4)?;
        Some(u32::from_be_bytes(bytes.try_into().ok()?))
    };
    Some(Name { session: field(0)? as usize, place: field(4)? as usize, version: field(8)? })
}

/// The version that a header tag carries.
pub(super) fn version_of(tag: &Tag) -> Option<u32> {
    let from = match tag.kind {
        TagKind::Script => 13,
        TagKind::Video => 5,
        TagKind::Audio => 2,
    };
    Some(u32::from_be_bytes(tag.body.get(from..from + 4)?.try_into().ok()?))
}

/// The slot of a kind's version.
pub(super) const fn slot(kind: TagKind) -> usize {
    match kind {
        TagKind::Script => 0,
        TagKind::Video => 1,
        TagKind::Audio => 2,
    }
}

/// The properties of a seed's streams.
#[derive(Clone, Copy, Debug)]
pub(super) struct Taste {
    pub(super) gop: (usize, usize),
    pub(super) inter: usize,
    pub(super) key: usize,
    /// Keyframes larger than any segment, in permille.
    pub(super) huge: u64,
}

/// Writes a session of about `length` milliseconds: when each tag is due, and the tag.
pub(super) struct Script<'a> {
    pub(super) rng: &'a mut Rng,
    pub(super) session: usize,
    pub(super) tracks: Tracks,
    pub(super) versions: &'a mut [u32; 3],
    pub(super) taste: Taste,
    tags: Vec<(Millis, Tag)>,
    base: u32,
}

impl<'a> Script<'a> {
    pub(super) fn new(
        rng: &'a mut Rng,
        session: usize,
        tracks: Tracks,
        versions: &'a mut [u32; 3],
        taste: Taste,
    ) -> Self {
        let base = rng.pick(&[0, 0, 0, 5_000, u32::MAX - 3_000]);
        Self { rng, session, tracks, versions, taste, tags: Vec::new(), base }
    }

    pub(super) fn write(mut self, length: Millis) -> Vec<(Millis, Tag)> {
        for kind in [TagKind::Script, TagKind::Video, TagKind::Audio] {
            let there = match kind {
                TagKind::Script => self.rng.chance(800),
                TagKind::Video => self.tracks != Tracks::Audio,
                TagKind::Audio => self.tracks != Tracks::Video,
            };
            if there {
                let changed = self.versions[slot(kind)] == 0 || self.rng.chance(400);
                self.header(kind, 0, changed);
            }
        }
        let mut video_at = if self.tracks == Tracks::Audio { Millis::MAX } else { self.late_start() };
        let mut audio_at = if self.tracks == Tracks::Video { Millis::MAX } else { self.rng.range(0, 20) };
        let mut left = if self.rng.chance(200) { self.rng.size(1, 5) } else { 0 };
        let mut first = left > 0; // frames that cannot be decoded
        while video_at.min(audio_at) < length {
            if audio_at <= video_at {
                self.audio(audio_at);
                audio_at += self.rng.range(15, 30);
                continue;
            }
            if left == 0 {
                left = self.rng.size(self.taste.gop.0, self.taste.gop.1);
                first = false;
                self.key(video_at);
            } else {
                self.video(video_at, false, self.taste.inter);
            }
            left -= usize::from(left > 0);
            video_at += if first { 10 } else { self.rng.range(30, 50) };
        }
        self.tags
    }

    fn late_start(&mut self) -> Millis {
        if self.rng.chance(300) { self.rng.range(0, 400) } else { 0 }
    }

    fn push(&mut self, at: Millis, kind: TagKind, body: Vec<u8>) {
        let step = u32::try_from(at).expect("a short session");
        let tag = Tag { kind, timestamp: self.base.wrapping_add(step), body: body.into() };
        self.tags.push((at, tag));
    }

    fn header(&mut self, kind: TagKind, at: Millis, changed: bool) {
        let version = &mut self.versions[slot(kind)];
        *version += u32::from(changed);
        let front: &[u8] = match kind {
            TagKind::Script => b"\x02\x00\x0aonMetaData",
            TagKind::Video => &[0x17, 0, 0, 0, 0],
            TagKind::Audio => &[0xaf, 0],
        };
        let body = [front, &version.to_be_bytes()].concat();
        self.push(at, kind, body);
    }

    fn key(&mut self, at: Millis) {
        if self.rng.chance(120) {
            let changed = self.rng.chance(600);
            self.header(TagKind::Video, at, changed);
        }
        if self.rng.chance(30) {
            self.header(TagKind::Script, at, true);
        }
        let size =
            if self.rng.chance(self.taste.huge) { self.rng.size(65_000, 200_000) } else { self.taste.key };
        self.video(at, true, size);
    }

    fn video(&mut self, at: Millis, key: bool, size_max: usize) {
        let b_frame = if self.rng.chance(300) { 80 } else { 0 };
        let front = [if key { 0x17 } else { 0x27 }, 1, 0, 0, b_frame];
        let body = self.frame(&front, self.versions[1], size_max);
        self.push(at, TagKind::Video, body);
    }

    fn audio(&mut self, at: Millis) {
        if self.rng.chance(5) {
            let changed = self.rng.chance(700);
            self.header(TagKind::Audio, at, changed);
        }
        let body = self.frame(&[0xaf, 1], self.versions[2], 400);
        self.push(at, TagKind::Audio, body);
    }

    fn frame(&mut self, front: &[u8], version: u32, size_max: usize) -> Vec<u8> {
        let narrow = |n: usize| u32::try_from(n).expect("few").to_be_bytes();
        let len = self.rng.size(0, size_max);
        let from = self.rng.size(0, NOISE.len() - len);
        let mut body = Vec::with_capacity(front.len() + 12 + len);
        body.extend_from_slice(front);
        body.extend_from_slice(&narrow(self.session));
        body.extend_from_slice(&narrow(self.tags.len()));
        body.extend_from_slice(&version.to_be_bytes());
        body.extend_from_slice(&NOISE[from..from + len]);
        body
    }
}

/// A frame that a viewer may be sent, in the order in which the server received them.
#[derive(Clone, Copy, Debug)]
pub(super) struct Frame {
    pub(super) session: usize,
    pub(super) place: usize,
    pub(super) kind: TagKind,
    pub(super) key: bool,
    /// Bytes, tags of all kinds and milliseconds since the newest keyframe of the same session.
    pub(super) since_key: (u64, u64, Millis),
    /// No keyframe of its session precedes it.
    pub(super) leading: bool,
}

impl Session {
    /// The number of its tags that the server has taken, from the number of bytes delivered to it.
    pub(super) fn taken(&self, delivered: u64) -> usize {
        self.ends.iter().take_while(|end| **end <= delivered).count()
    }
}

impl Library {
    /// All frames that the server has taken and keeps: frames before a publisher's first keyframe that cannot
    /// be decoded are not kept.
    pub(super) fn frames(&self, wants: impl Fn(TagKind) -> bool, taken: &[usize]) -> Vec<Frame> {
        let mut frames = Vec::new();
        for (number, session) in self.sessions.iter().enumerate() {
            let first_time = session.tags.first().map_or(0, |tag| tag.timestamp);
            let (mut key_seen, mut bytes, mut count, mut key_time) = (false, 0, 0, first_time);
            for (place, tag) in session.tags.iter().take(taken[number]).enumerate() {
                let class = tag.class();
                let key = class == Class::KeyFrame;
                if key && !key_seen {
                    key_seen = true; // its start is the audio before it
                } else if key {
                    (key_seen, bytes, count, key_time) = (true, 0, 0, tag.timestamp);
                }
                let since_key = (bytes, count, Millis::from(tag.timestamp.wrapping_sub(key_time)));
                bytes += tag.encoded_len() as u64;
                count += 1;
                match class {
                    Class::Metadata | Class::SequenceHeader => {}
                    Class::InterFrame if !key_seen => {}
                    _ if !wants(tag.kind) => {}
                    _ => frames.push(Frame {
                        session: number,
                        place,
                        kind: tag.kind,
                        key,
                        since_key,
                        leading: !key_seen,
                    }),
                }
            }
        }
        frames
    }

    /// The body of a tag as it was pushed.
    pub(super) fn body(&self, name: Name) -> Option<&Bytes> {
        Some(&self.sessions.get(name.session)?.tags.get(name.place)?.body)
    }
}
