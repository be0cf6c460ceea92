//! The FLV tag: the unit of media everywhere in the program.
//!
//! A tag is classified by its first two body bytes ([`Tag::class`]); nothing here looks deeper into a codec's
//! bits.

use bytes::Bytes;

/// Bytes of a tag's header (FLV 10.1, E.4.1).
pub const TAG_HEADER: usize = 11;
/// Bytes of the `PreviousTagSize` field after every tag.
pub const TAG_TRAILER: usize = 4;
/// The largest body that the 24-bit `DataSize` field can announce.
pub const TAG_BODY_MAX: usize = 0xff_ffff;

/// What a tag carries; the discriminant is the `TagType` field.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum TagKind {
    /// Sound.
    Audio = 8,
    /// Picture.
    Video = 9,
    /// AMF0 data, such as `onMetaData`.
    Script = 18,
}

impl TagKind {
    /// The kind for a `TagType` byte, which is also the RTMP message type.
    pub const fn from_type(byte: u8) -> Option<Self> {
        match byte {
            8 => Some(Self::Audio),
            9 => Some(Self::Video),
            18 => Some(Self::Script),
            _ => None,
        }
    }
}

/// What a tag means to a log: where a viewer may start, and what must be kept for later viewers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// `onMetaData`: kept for later viewers.
    Metadata,
    /// Codec configuration of the audio or video track: kept for later viewers.
    SequenceHeader,
    /// What else is told of a track once, such as colour metadata or the layout of its channels: kept for later
    /// viewers.
    TrackInfo,
    /// A video frame that can be decoded by itself.
    KeyFrame,
    /// A video frame that needs earlier ones.
    InterFrame,
    /// Coded sound.
    Sound,
    /// Anything else (cue points, end of sequence, …): relayed, not kept.
    Other,
}

impl Class {
    /// Whether it is a picture or sound.
    pub const fn is_media(self) -> bool {
        matches!(self, Self::KeyFrame | Self::InterFrame | Self::Sound)
    }
}

/// One tag: its kind, its time in milliseconds as the publisher wrote it, its body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tag {
    /// What the tag carries.
    pub kind: TagKind,
    /// Decoding time in milliseconds; wraps at 2^32.
    pub timestamp: u32,
    /// The body: at most [`TAG_BODY_MAX`] bytes.
    pub body: Bytes,
}

impl Tag {
    /// What the tag means to a log.
    pub fn class(&self) -> Class {
        classify(self.kind, &self.body)
    }

    /// The same tag, borrowed.
    pub fn borrowed(&self) -> TagRef<'_> {
        TagRef { kind: self.kind, timestamp: self.timestamp, body: &self.body }
    }

    /// Bytes the tag takes in a log: header, body and `PreviousTagSize`.
    pub fn encoded_len(&self) -> usize {
        self.borrowed().encoded_len()
    }

    /// The 11 bytes before the body (FLV 10.1, E.4.1).
    pub fn header(&self) -> [u8; TAG_HEADER] {
        self.borrowed().header()
    }

    /// The 4 bytes after the body: the tag's own size without them.
    pub fn trailer(&self) -> [u8; TAG_TRAILER] {
        self.borrowed().trailer()
    }

    /// Appends the whole tag as in a file.
    pub fn write_to(&self, out: &mut Vec<u8>) {
        self.borrowed().write_to(out);
    }
}

/// A tag borrowed from a log or another buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TagRef<'a> {
    /// What the tag carries.
    pub kind: TagKind,
    /// Decoding time in milliseconds; wraps at 2^32.
    pub timestamp: u32,
    /// The body.
    pub body: &'a [u8],
}

impl TagRef<'_> {
    /// What the tag means to a log.
    pub fn class(&self) -> Class {
        classify(self.kind, self.body)
    }

    /// Bytes the tag takes in a log: header, body and `PreviousTagSize`.
    pub fn encoded_len(&self) -> usize {
        TAG_HEADER + self.body.len() + TAG_TRAILER
    }

    /// The 11 bytes before the body (FLV 10.1, E.4.1).
    pub fn header(&self) -> [u8; TAG_HEADER] {
        let [_, s2, s1, s0] = self.body_len().to_be_bytes();
        let [t3, t2, t1, t0] = self.timestamp.to_be_bytes();
        [self.kind as u8, s2, s1, s0, t2, t1, t0, t3, 0, 0, 0]
    }

    /// The 4 bytes after the body: the tag's own size without them.
    pub fn trailer(&self) -> [u8; TAG_TRAILER] {
        (self.body_len() + 11).to_be_bytes()
    }

    /// Appends the whole tag as in a file.
    pub fn write_to(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.header());
        out.extend_from_slice(self.body);
        out.extend_from_slice(&self.trailer());
    }

    #[allow(clippy::cast_possible_truncation)] // asserted
    fn body_len(&self) -> u32 {
        assert!(self.body.len() <= TAG_BODY_MAX, "a tag body is bounded where it is read");
        self.body.len() as u32
    }

    /// An owned copy.
    pub fn to_tag(&self) -> Tag {
        Tag { kind: self.kind, timestamp: self.timestamp, body: Bytes::copy_from_slice(self.body) }
    }
}

/// The whole tags at the start of some bytes, which must begin with one; ends before the first tag that is
/// truncated or of an unknown kind.
#[derive(Clone, Debug)]
pub struct Tags<'a>(pub &'a [u8]);

impl<'a> Iterator for Tags<'a> {
    type Item = TagRef<'a>;

    fn next(&mut self) -> Option<TagRef<'a>> {
        let (header, rest) = self.0.split_first_chunk::<TAG_HEADER>()?;
        let &[first, s2, s1, s0, t2, t1, t0, t3, _, _, _] = header;
        let kind = TagKind::from_type(first)?;
        let (body, rest) = rest.split_at_checked(u32::from_be_bytes([0, s2, s1, s0]) as usize)?;
        self.0 = rest.get(TAG_TRAILER..)?;
        Some(TagRef { kind, timestamp: u32::from_be_bytes([t3, t2, t1, t0]), body })
    }
}

/// Classifies a body by its first bytes: FLV 10.1 E.4.2/E.4.3, Enhanced RTMP v2 `ExVideoTagHeader` and
/// `ExAudioTagHeader`, and the codec id 12 dialect of HEVC, which has the layout of AVC.
pub fn classify(kind: TagKind, body: &[u8]) -> Class {
    match kind {
        TagKind::Script => {
            // AMF0 string marker, 16-bit length, text.
            if body.starts_with(b"\x02\x00\x0aonMetaData") { Class::Metadata } else { Class::Other }
        }
        TagKind::Video => classify_video(body),
        TagKind::Audio => classify_audio(body),
    }
}

fn classify_video(body: &[u8]) -> Class {
    let Some(&first) = body.first() else { return Class::Other };
    let frame = match (first >> 4) & 7 {
        1 | 4 => Class::KeyFrame,
        5 => Class::Other, // command frame: no picture
        _ => Class::InterFrame,
    };
    if first & 0x80 != 0 {
        return match wrapped_packet_type(first & 0x0f, 6, body) {
            Some(4) => Class::TrackInfo, // colour metadata, of any frame type
            _ if frame == Class::Other => Class::Other,
            Some(0) => Class::SequenceHeader,
            Some(1 | 3) => frame,        // CodedFrames, CodedFramesX
            Some(5) => Class::TrackInfo, // MPEG-2 TS configuration
            _ => Class::Other,           // SequenceEnd
        };
    }
    if frame == Class::Other {
        return frame;
    }
    match (first & 0x0f, body.get(1)) {
        (7 | 12, Some(0)) => Class::SequenceHeader,
        (7 | 12, Some(1)) => frame,
        (7 | 12, _) => Class::Other,
        _ => frame,
    }
}

fn classify_audio(body: &[u8]) -> Class {
    let Some(&first) = body.first() else { return Class::Other };
    match first >> 4 {
        // AudioPacketType: 5 multitrack, 7 ModEx (their video counterparts are 6 and 7).
        9 => match wrapped_packet_type(first & 0x0f, 5, body) {
            Some(0) => Class::SequenceHeader,
            Some(1) => Class::Sound,
            Some(4) => Class::TrackInfo, // channel configuration
            _ => Class::Other,           // SequenceEnd
        },
        10 => match body.get(1) {
            Some(0) => Class::SequenceHeader,
            Some(_) => Class::Sound,
            None => Class::Other,
        },
        _ => Class::Sound,
    }
}

/// The packet type inside a multitrack or `ModEx` (7) body; `multitrack` is 6 in video and 5 in audio. Only a
/// few `ModEx` layers are followed.
fn wrapped_packet_type(mut packet_type: u8, multitrack: u8, body: &[u8]) -> Option<u8> {
    let mut at = 1;
    for _ in 0..4 {
        match packet_type {
            7 => {
                // UI8 size - 1 (255: a 16-bit size - 1 follows), data, then UB4 ModEx type, UB4 packet type.
                let mut size = usize::from(*body.get(at)?) + 1;
                at += 1;
                if size == 256 {
                    size = usize::from(u16::from_be_bytes([*body.get(at)?, *body.get(at + 1)?])) + 1;
                    at += 2;
                }
                at += size;
                packet_type = body.get(at)? & 0x0f;
                at += 1;
            }
            wrapper if wrapper == multitrack => return Some(body.get(at)? & 0x0f), // UB4 multitrack type, UB4 packet type
            other => return Some(other),
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn header_and_trailer_have_the_layout_of_the_standard() {
        let tag = Tag { kind: TagKind::Video, timestamp: 0x0102_0304, body: Bytes::from_static(&[7; 300]) };
        assert_eq!(tag.header(), [9, 0, 1, 44, 2, 3, 4, 1, 0, 0, 0]);
        assert_eq!(tag.trailer(), 311u32.to_be_bytes());
        let mut out = Vec::new();
        tag.write_to(&mut out);
        assert_eq!(out.len(), tag.encoded_len());
    }

    #[test]
    fn classes() {
        use TagKind::{Audio, Script, Video};
        let cases: &[(TagKind, &[u8], Class)] = &[
            (Video, &[0x17, 0, 0, 0, 0], Class::SequenceHeader),
            (Video, &[0x17, 1, 0, 0, 0], Class::KeyFrame),
            (Video, &[0x27, 1, 0, 0, 0], Class::InterFrame),
            (Video, &[0x17, 2, 0, 0, 0], Class::Other),
            (Video, &[0x1c, 0], Class::SequenceHeader),
            (Video, &[0x2c, 1], Class::InterFrame),
            (Video, b"\x90hvc1", Class::SequenceHeader),
            (Video, b"\x91hvc1", Class::KeyFrame),
            (Video, b"\xa3hvc1", Class::InterFrame),
            (Video, b"\x92hvc1", Class::Other),
            (Video, b"\x94hvc1", Class::TrackInfo),
            (Video, b"\xd4hvc1", Class::TrackInfo),
            (Video, b"\x95av01", Class::TrackInfo),
            (Video, b"\x96\x04hvc1\x01", Class::TrackInfo),
            (Video, b"\xd1hvc1", Class::Other),
            (Audio, b"\x94Opus\x01", Class::TrackInfo),
            (Video, b"\x96\x00hvc1", Class::SequenceHeader),
            (Video, b"\x97\x02\x00\x00\x00\x01hvc1", Class::KeyFrame),
            (Video, b"\x57\x00", Class::Other),
            (Video, b"", Class::Other),
            (Audio, &[0xaf, 0, 0x12], Class::SequenceHeader),
            (Audio, &[0xaf, 1, 0x21], Class::Sound),
            (Audio, &[0x2f, 0xff], Class::Sound),
            (Audio, b"\x90Opus", Class::SequenceHeader),
            (Audio, b"\x91Opus", Class::Sound),
            (Audio, b"\x95\x01Opus", Class::Sound),
            (Audio, b"\x97\x02\x00\x00\x00\x05\x00Opus", Class::SequenceHeader),
            (Audio, b"", Class::Other),
            (Script, b"\x02\x00\x0aonMetaData\x08", Class::Metadata),
            (Script, b"\x02\x00\x04onFI", Class::Other),
        ];
        for (kind, body, want) in cases {
            assert_eq!(classify(*kind, body), *want, "{kind:?} {body:02x?}");
        }
    }

    #[test]
    fn any_bytes_are_classified_without_a_panic() {
        for first in 0..=255u8 {
            for second in [0, 1, 6, 7, 0x70, 255] {
                for len in 0..6 {
                    let body = [first, second, 255, 255, 255, 255];
                    for kind in [TagKind::Audio, TagKind::Video, TagKind::Script] {
                        classify(kind, &body[..len]);
                    }
                }
            }
        }
    }
}
