//! What a viewer is sent before its first frame.

use bytes::Bytes;

use super::timeline::{StreamTime, wire_time};
use crate::media::encoding::Encoding;
use crate::media::packet::{self, TrackSet};
use crate::media::tag::{Class, Tag, TagKind, classify};

/// What a header tells: a new one replaces those that tell the same of the same tracks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Topic {
    /// Of metadata, of pictures or of sound.
    pub kind: TagKind,
    /// Codec configuration, or what else is told of a track: by its packet type.
    packet: u8,
    /// The tracks.
    pub tracks: TrackSet,
}

impl Topic {
    /// The topic of a body that is metadata, a sequence header, or tells something else of a track.
    pub fn of(kind: TagKind, body: &[u8]) -> Self {
        let parts = packet::parts(kind, body);
        let (packet, tracks) = parts.map_or((0, TrackSet::of(0)), |parts| (parts.packet(), parts.tracks()));
        Self { kind, packet, tracks }
    }

    /// Whether it is a codec configuration.
    pub fn is_config(&self) -> bool {
        self.kind != TagKind::Script && self.packet == 0
    }

    /// Whether nothing is left of `other` when this one comes.
    fn replaces(&self, other: &Self) -> bool {
        self.kind == other.kind && self.packet == other.packet && self.tracks.covers(&other.tracks)
    }
}

/// One of them.
#[derive(Clone, Debug)]
struct Header {
    topic: Topic,
    body: Bytes,
}

/// What a viewer is sent before its first frame.
#[derive(Debug, Default)]
pub struct Headers {
    /// Counts changes; a viewer that was sent this version needs no update.
    pub version: u32,
    /// Metadata first, then of pictures, then of sound; each in the order in which it came.
    all: Vec<Header>,
}

impl Headers {
    /// Headers of these bodies.
    pub fn new(version: u32, bodies: impl IntoIterator<Item = (TagKind, Bytes)>) -> Self {
        let mut headers = Self { version, all: Vec::new() };
        bodies.into_iter().for_each(|(kind, body)| headers.insert(kind, body));
        headers
    }

    /// The newest header of a topic.
    pub fn of(&self, topic: &Topic) -> Option<&Bytes> {
        self.all.iter().find(|header| header.topic == *topic).map(|header| &header.body)
    }

    /// Of the first track of a kind: its sequence header; of `Script`: the metadata.
    pub fn first(&self, kind: TagKind) -> Option<&Bytes> {
        let configs = self.all.iter().filter(|header| header.topic.kind == kind && header.topic.packet == 0);
        configs.min_by_key(|header| header.topic.tracks.first()).map(|header| &header.body)
    }

    /// The next version, in which `tag` is the header of its topic.
    #[must_use]
    pub fn with(&self, tag: &Tag) -> Self {
        let mut next = Self { version: self.version + 1, all: self.all.clone() };
        next.insert(tag.kind, tag.body.clone());
        next
    }

    /// The next version, with only the headers for which `keep` is true; `None`: nothing would change.
    pub fn retain(&self, keep: impl Fn(&Topic) -> bool) -> Option<Self> {
        let all: Vec<_> = self.all.iter().filter(|header| keep(&header.topic)).cloned().collect();
        (all.len() < self.all.len()).then_some(Self { version: self.version + 1, all })
    }

    fn insert(&mut self, kind: TagKind, body: Bytes) {
        let topic = Topic::of(kind, &body);
        // Colours and the like of another codec are not this one's.
        let other_codec = classify(kind, &body) == Class::SequenceHeader
            && self.of(&topic).is_some_and(|before| code(kind, before) != code(kind, &body));
        let leaves = |old: &Topic| {
            topic.replaces(old) || (other_codec && old.kind == kind && topic.tracks.covers(&old.tracks))
        };
        self.all.retain(|header| !leaves(&header.topic));
        let order =
            |kind| [TagKind::Script, TagKind::Video, TagKind::Audio].iter().position(|of| *of == kind);
        let at = self.all.partition_point(|header| order(header.topic.kind) <= order(kind));
        self.all.insert(at, Header { topic, body });
    }

    /// Their number, and the bytes of their bodies.
    pub fn size(&self) -> (usize, usize) {
        (self.all.len(), self.all.iter().map(|header| header.body.len()).sum())
    }

    /// The header tags as sent before a frame of time `at`: metadata, video, audio.
    ///
    /// `at` changes only the timestamps of the headers that are not metadata. In FLV they are bytes 4 to 7 of each tag
    /// (FLV 10.1, E.4.1). In RTMP they are bytes 1 to 3 of a message, and from `0xff_ffff` on (4 h 39 min) these are all
    /// ones and the value stands in four bytes more, after the message's header and after the one byte in front of each
    /// further chunk (RTMP 1.0, clause 5.3.1.3).
    ///
    /// `out` gets them piece by piece. A piece that lies inside a header's body is passed with that body, so
    /// that it can be shared.
    pub fn write(&self, at: StreamTime, encoding: Encoding, mut out: impl FnMut(&Bytes, &[u8])) {
        for (kind, body) in self.bodies() {
            let tag = Tag { kind, timestamp: wire_time(header_time(kind, at)), body: body.clone() };
            encoding.write(&tag, |piece| out(body, piece));
        }
    }

    /// As [`write`](Self::write), into one buffer.
    pub fn write_to(&self, at: StreamTime, encoding: Encoding, bytes: &mut Vec<u8>) {
        self.write(at, encoding, |_, piece| bytes.extend_from_slice(piece));
    }

    /// All headers: metadata, video, audio.
    pub fn bodies(&self) -> impl Iterator<Item = (TagKind, &Bytes)> {
        self.all.iter().map(|header| (header.topic.kind, &header.body))
    }
}

/// The codec of a body's first part.
fn code(kind: TagKind, body: &[u8]) -> Option<[u8; 4]> {
    packet::parts(kind, body)?.next().map(|part| part.code)
}

/// The time of a header tag before a frame of time `at`. Metadata is always at 0: at any other time players
/// take it for a subtitle.
pub fn header_time(kind: TagKind, at: StreamTime) -> StreamTime {
    if kind == TagKind::Script { 0 } else { at }
}

#[cfg(test)]
mod tests {
    use super::*;
    use TagKind::{Audio, Script, Video};

    fn headers(bodies: &[(TagKind, &'static [u8])]) -> Headers {
        Headers::new(1, bodies.iter().map(|(kind, body)| (*kind, Bytes::from_static(body))))
    }

    fn bodies(headers: &Headers) -> Vec<&[u8]> {
        headers.bodies().map(|(_, body)| &body[..]).collect()
    }

    #[test]
    fn headers_come_as_metadata_video_audio() {
        let headers = headers(&[(Audio, b"a"), (Video, b"v"), (Script, b"m")]);
        let mut out = Vec::new();
        headers.write_to(i64::from(u32::MAX) + 6, Encoding::Flv, &mut out);
        assert_eq!(out.len(), 3 * 16);
        let kinds: Vec<u8> = out.chunks(16).map(|tag| tag[0]).collect();
        assert_eq!(kinds, [18, 9, 8]);
        assert_eq!(out[4..8], [0; 4], "metadata is at 0");
        assert_eq!(out[20..24], [0, 0, 5, 0]);
    }

    #[test]
    fn each_track_has_its_own_and_a_new_one_replaces_the_old() {
        let mut all = headers(&[
            (Video, b"\x17\0\0\0\0one"),
            (Video, b"\x96\0avc1\x01one"),
            (Video, b"\x96\0avc1\x02one"),
        ]);
        assert_eq!(bodies(&all).len(), 3);
        assert_eq!(
            all.first(Video).unwrap()[..],
            b"\x17\0\0\0\0one"[..],
            "a body without a number is of track 0"
        );
        all = all.with(&Tag { kind: Video, timestamp: 0, body: Bytes::from_static(b"\x96\0avc1\x01two") });
        assert_eq!(bodies(&all), [&b"\x17\0\0\0\0one"[..], b"\x96\0avc1\x02one", b"\x96\0avc1\x01two"]);
        // One body for both tracks replaces both.
        let both = b"\x96\x10avc1\x01\0\0\x01a\x02\0\0\x01b";
        all = all.with(&Tag { kind: Video, timestamp: 0, body: Bytes::from_static(both) });
        assert_eq!(bodies(&all), [&b"\x17\0\0\0\0one"[..], both]);
    }

    #[test]
    fn colours_stay_with_their_codec() {
        let mut all = headers(&[(Video, b"\x94hvc1colour"), (Video, b"\x90hvc1one")]);
        assert_eq!(bodies(&all), [&b"\x94hvc1colour"[..], b"\x90hvc1one"]);
        all = all.with(&Tag { kind: Video, timestamp: 0, body: Bytes::from_static(b"\x90hvc1two") });
        assert_eq!(bodies(&all), [&b"\x94hvc1colour"[..], b"\x90hvc1two"]);
        all = all.with(&Tag { kind: Video, timestamp: 0, body: Bytes::from_static(b"\x17\0\0\0\0avc") });
        assert_eq!(bodies(&all), [&b"\x17\0\0\0\0avc"[..]]);
    }
}
