//! What an audio or video body carries, however it is wrapped: classic bodies (FLV 10.1, E.4.2 and E.4.3), the
//! dialect that numbers HEVC 12, and Enhanced RTMP v2 with its FourCCs, `ModEx` and several tracks.
//!
//! A body that says nothing of tracks is of track 0, as in Enhanced RTMP.

use super::tag::TagKind;

/// Video `PacketType` of several tracks; in audio it is 5.
const MULTITRACK_VIDEO: u8 = 6;
const MULTITRACK_AUDIO: u8 = 5;
/// `PacketType` of a body with an extension in front.
const MOD_EX: u8 = 7;
/// `AvMultitrackType` of a body with one track; the other two hold several, with sizes.
const ONE_TRACK: u8 = 0;
const MANY_CODECS: u8 = 2;
/// Layers of `ModEx` that are followed.
const MOD_EX_MAX: usize = 4;
/// No FourCC: an unnamed codec.
pub(super) const UNKNOWN: [u8; 4] = [0; 4];

/// Numbers of tracks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct TrackSet([u64; 4]);

impl TrackSet {
    /// One track.
    pub fn of(track: u8) -> Self {
        let mut set = Self::default();
        set.insert(track);
        set
    }

    /// Adds a track.
    pub fn insert(&mut self, track: u8) {
        self.0[usize::from(track >> 6)] |= 1 << (track & 63);
    }

    /// Whether a track is in it.
    pub fn contains(&self, track: u8) -> bool {
        self.0[usize::from(track >> 6)] >> (track & 63) & 1 == 1
    }

    /// Whether all of `other` are in it.
    pub fn covers(&self, other: &Self) -> bool {
        self.0.iter().zip(other.0).all(|(own, other)| other & !own == 0)
    }

    /// The lowest one; 0 if there is none.
    pub fn first(&self) -> u8 {
        (0..=u8::MAX).find(|track| self.contains(*track)).unwrap_or(0)
    }
}

/// One track's part of a body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Part<'a> {
    /// The track's number.
    pub track: u8,
    /// The codec's FourCC in Enhanced RTMP; zeros: one without.
    pub code: [u8; 4],
    /// Composition time minus decoding time, in milliseconds.
    pub cts: i32,
    /// The codec's own bytes.
    pub payload: &'a [u8],
}

/// The parts of a body, one for each track in it. It ends at the first one that is truncated.
#[derive(Clone, Debug)]
pub struct Parts<'a> {
    /// The innermost `PacketType`.
    packet: u8,
    has_cts: bool,
    left: Left<'a>,
}

#[derive(Clone, Debug)]
enum Left<'a> {
    None,
    /// A single track, without a number of its own.
    Plain([u8; 4], &'a [u8]),
    /// Tracks with numbers; the codec of all of them unless each has its own; whether there are sizes.
    Numbered {
        code: Option<[u8; 4]>,
        sized: bool,
        rest: &'a [u8],
    },
}

/// The parts of a body. `None`: it ends within its own header.
pub fn parts(kind: TagKind, body: &[u8]) -> Option<Parts<'_>> {
    let (&first, rest) = body.split_first()?;
    match kind {
        TagKind::Video if first & 0x80 != 0 => enhanced(first & 0x0f, MULTITRACK_VIDEO, rest),
        TagKind::Audio if first >> 4 == 9 => enhanced(first & 0x0f, MULTITRACK_AUDIO, rest),
        TagKind::Video => {
            let code = match first & 0x0f {
                7 => *b"avc1",
                12 => *b"hvc1",
                _ => return Some(plain(0, UNKNOWN, &[])),
            };
            let (&packet, rest) = rest.split_first()?;
            Some(Parts { packet, has_cts: true, left: Left::Plain(code, rest) })
        }
        TagKind::Audio => Some(match first >> 4 {
            10 => {
                let (&packet, rest) = rest.split_first()?;
                plain(packet, *b"mp4a", rest)
            }
            2 | 14 => plain(1, *b".mp3", rest),
            _ => plain(1, UNKNOWN, &[]),
        }),
        TagKind::Script => None,
    }
}

fn plain(packet: u8, code: [u8; 4], rest: &[u8]) -> Parts<'_> {
    Parts { packet, has_cts: false, left: Left::Plain(code, rest) }
}

/// `ExVideoTagHeader` and `ExAudioTagHeader` after their first byte.
fn enhanced(mut packet: u8, multitrack: u8, mut rest: &[u8]) -> Option<Parts<'_>> {
    for _ in 0..MOD_EX_MAX {
        if packet != MOD_EX {
            break;
        }
        // UI8 size - 1 (255: a 16-bit size - 1 follows), data, then UB4 ModEx type, UB4 packet type.
        let (&size, tail) = rest.split_first()?;
        let (size, tail) = match size {
            255 => (usize::from(u16::from_be_bytes(*tail.first_chunk()?)) + 1, &tail[2..]),
            size => (usize::from(size) + 1, tail),
        };
        let (&next, tail) = tail.get(size..)?.split_first()?;
        (packet, rest) = (next & 0x0f, tail);
    }
    let is_video = multitrack == MULTITRACK_VIDEO;
    if packet != multitrack {
        let (code, rest) = rest.split_first_chunk()?;
        let has_cts = is_video && packet == 1 && has_composition(*code);
        return Some(Parts { packet, has_cts, left: Left::Plain(*code, rest) });
    }
    // UB4 AvMultitrackType, UB4 packet type; the FourCC here unless each track has one.
    let (&kinds, rest) = rest.split_first()?;
    let (many, packet) = (kinds >> 4, kinds & 0x0f);
    let (code, rest) = match many {
        MANY_CODECS => (None, rest),
        _ => rest.split_first_chunk().map(|(code, rest)| (Some(*code), rest))?,
    };
    let left = Left::Numbered { code, sized: many != ONE_TRACK, rest };
    Some(Parts { packet, has_cts: is_video && packet == 1, left })
}

/// `CodedFrames` of codecs that reorder carry a composition time.
fn has_composition(code: [u8; 4]) -> bool {
    matches!(&code, b"avc1" | b"hvc1" | b"vvc1")
}

/// A signed 24-bit number.
fn signed_24(bytes: [u8; 3]) -> i32 {
    i32::from_be_bytes([bytes[0], bytes[1], bytes[2], 0]) >> 8
}

impl Parts<'_> {
    /// The `PacketType` inside all wrappers; 0: codec configuration, 1: frames.
    pub fn packet(&self) -> u8 {
        self.packet
    }

    /// The numbers of the tracks.
    pub fn tracks(&self) -> TrackSet {
        if let Left::Plain(..) = self.left {
            return TrackSet::of(0);
        }
        let mut set = TrackSet::default();
        self.clone().for_each(|part| set.insert(part.track));
        set
    }
}

impl<'a> Iterator for Parts<'a> {
    type Item = Part<'a>;

    fn next(&mut self) -> Option<Part<'a>> {
        let (track, code, payload) = match std::mem::replace(&mut self.left, Left::None) {
            Left::None => return None,
            Left::Plain(code, payload) => (0, code, payload),
            Left::Numbered { code, sized, rest } => {
                let (own, rest) = match code {
                    Some(code) => (code, rest),
                    None => rest.split_first_chunk().map(|(own, rest)| (*own, rest))?,
                };
                let (&track, rest) = rest.split_first()?;
                if sized {
                    let (size, rest) = rest.split_first_chunk::<3>()?;
                    let size = u32::from_be_bytes([0, size[0], size[1], size[2]]) as usize;
                    let (payload, rest) = rest.split_at_checked(size)?;
                    self.left = Left::Numbered { code, sized, rest };
                    (track, own, payload)
                } else {
                    (track, own, rest)
                }
            }
        };
        if !self.has_cts || !has_composition(code) {
            return Some(Part { track, code, cts: 0, payload });
        }
        let (cts, payload) = payload.split_first_chunk()?;
        Some(Part { track, code, cts: signed_24(*cts), payload })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use TagKind::{Audio, Video};

    fn all(kind: TagKind, body: &[u8]) -> Vec<(u8, [u8; 4], i32, Vec<u8>)> {
        let parts = parts(kind, body).into_iter().flatten();
        parts.map(|part| (part.track, part.code, part.cts, part.payload.to_vec())).collect()
    }

    #[test]
    fn bodies_of_one_track() {
        type Case<'a> = (TagKind, &'a [u8], [u8; 4], i32, &'a [u8]);
        let cases: [Case<'_>; 8] = [
            (Video, b"\x17\x01\xff\xff\xfeab", *b"avc1", -2, b"ab"),
            (Video, b"\x1c\x01\0\0\x07ab", *b"hvc1", 7, b"ab"),
            (Video, b"\x91hvc1\0\0\x07ab", *b"hvc1", 7, b"ab"),
            (Video, b"\x93hvc1ab", *b"hvc1", 0, b"ab"),
            (Video, b"\x91av01ab", *b"av01", 0, b"ab"),
            (Video, b"\x97\x02\0\0\0\x01avc1\0\0\x03ab", *b"avc1", 3, b"ab"),
            (Audio, b"\xaf\x01ab", *b"mp4a", 0, b"ab"),
            (Audio, b"\x91Opusab", *b"Opus", 0, b"ab"),
        ];
        for (kind, body, code, cts, payload) in cases {
            assert_eq!(all(kind, body), [(0, code, cts, payload.to_vec())], "{body:02x?}");
        }
    }

    #[test]
    fn bodies_of_numbered_tracks() {
        let one = |track, payload: &[u8]| (track, *b"avc1", 2, payload.to_vec());
        assert_eq!(all(Video, b"\x96\x01avc1\x05\0\0\x02ab"), [one(5, b"ab")]);
        let many = b"\x96\x11avc1\x03\0\0\x05\0\0\x02ab\x01\0\0\x04\0\0\x02c";
        assert_eq!(all(Video, many), [one(3, b"ab"), one(1, b"c")]);
        assert_eq!(parts(Video, many).unwrap().tracks().first(), 1);
        let codecs = b"\x96\x21avc1\x03\0\0\x05\0\0\x02abav01\x01\0\0\x01c";
        assert_eq!(all(Video, codecs), [one(3, b"ab"), (1, *b"av01", 0, b"c".to_vec())]);
        // An extension in front of several tracks.
        assert_eq!(all(Video, b"\x97\x02\0\0\0\x06\x01avc1\x05\0\0\x02ab"), [one(5, b"ab")]);
        assert_eq!(all(Audio, b"\x95\x01Opus\x01ab"), [(1, *b"Opus", 0, b"ab".to_vec())]);
        assert_eq!(all(Video, b"\x96\x11avc1\x03\0\0\x09ab"), [], "truncated");
    }

    #[test]
    fn any_body_is_read_without_a_panic() {
        for first in 0..=255u8 {
            for second in [0, 1, 6, 7, 0x13, 0x21, 255] {
                let body = [first, second, b'a', b'v', b'c', b'1', 0, 0, 0, 1, 2, 0, 0, 0, 1];
                for len in 0..body.len() {
                    for kind in [Audio, Video, TagKind::Script] {
                        all(kind, &body[..len]);
                        let _ = parts(kind, &body[..len]).map(|parts| parts.tracks().first());
                    }
                }
            }
        }
    }
}
