//! Turns tags into samples: unwraps what FLV carries for other containers.
//!
//! Classic bodies (FLV 10.1, E.4.2 and E.4.3), the dialect that numbers HEVC 12, and Enhanced RTMP v2 with its
//! FourCCs. A track with an unknown codec is skipped; the others are not affected.

use std::sync::Arc;

use bytes::Bytes;

use super::tag::{Class, TagKind, TagRef};
use super::track::{AudioCodec, Tracks, VideoCodec};
use super::{aac, av1, h264, h265, mpeg_audio, opus};

/// One frame of one track.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sample<'a> {
    /// `true`: a picture; `false`: sound.
    pub video: bool,
    /// Decoding time in milliseconds.
    pub dts: i64,
    /// Presentation time minus decoding time in milliseconds.
    pub cts: i32,
    /// It can be decoded by itself.
    pub key: bool,
    /// In the form of MP4: NAL units after their lengths, OBUs, a raw AAC frame, …
    pub data: &'a [u8],
}

/// Why a tag gave no sample.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RemuxError {
    /// The body ends within its own header.
    #[error("a tag of {len} bytes ends within its header")]
    Truncated {
        /// The body's length in bytes.
        len: usize,
    },
    /// A codec that is not known here.
    #[error("the {track} codec is not known here")]
    Codec {
        /// `video` or `audio`.
        track: &'static str,
    },
    /// A sequence header that cannot be read.
    #[error("the {track} sequence header cannot be read")]
    Header {
        /// `video` or `audio`.
        track: &'static str,
    },
    /// A frame before any sequence header.
    #[error("a frame before its {track} sequence header")]
    NoHeader {
        /// `video` or `audio`.
        track: &'static str,
    },
}

const VIDEO: &str = "video";
const AUDIO: &str = "audio";

/// Turns the tags of one stream into samples.
#[derive(Debug, Default)]
pub struct Remuxer {
    tracks: Tracks,
}

impl Remuxer {
    /// The tracks that headers have announced, or frames that need none.
    pub fn tracks(&self) -> &Tracks {
        &self.tracks
    }

    /// Forgets what was announced.
    pub fn reset(&mut self) {
        self.tracks = Tracks::default();
    }

    /// Takes the next tag; `time` is its time in milliseconds, unwrapped. `Ok(None)`: it contains no frame.
    ///
    /// # Errors
    /// [`RemuxError`]; skip the tag, the next one may be valid.
    pub fn push<'a>(&mut self, tag: &TagRef<'a>, time: i64) -> Result<Option<Sample<'a>>, RemuxError> {
        let class = tag.class();
        let truncated = RemuxError::Truncated { len: tag.body.len() };
        match tag.kind {
            TagKind::Script => Ok(None),
            TagKind::Video => match class {
                Class::SequenceHeader | Class::KeyFrame | Class::InterFrame => {
                    self.video(video_body(tag.body).ok_or(truncated)?, class, time)
                }
                _ => Ok(None),
            },
            TagKind::Audio => match class {
                Class::SequenceHeader | Class::Sound => {
                    self.audio(audio_body(tag.body).ok_or(truncated)?, class, time)
                }
                _ => Ok(None),
            },
        }
    }

    fn video<'a>(
        &mut self,
        body: Body<'a>,
        class: Class,
        time: i64,
    ) -> Result<Option<Sample<'a>>, RemuxError> {
        let codec = match &body.code {
            b"avc1" => VideoCodec::H264,
            b"hvc1" => VideoCodec::H265,
            b"av01" => VideoCodec::Av1,
            _ => return Err(RemuxError::Codec { track: VIDEO }),
        };
        if class == Class::SequenceHeader {
            let record = Bytes::copy_from_slice(body.payload);
            let parsed = match codec {
                VideoCodec::H264 => h264::parse_config(&record),
                VideoCodec::H265 => h265::parse_config(&record),
                VideoCodec::Av1 => av1::parse_config(&record),
            };
            let video = parsed.ok_or(RemuxError::Header { track: VIDEO })?;
            if self.tracks.video.as_deref() != Some(&video) {
                self.tracks.video = Some(Arc::new(video));
            }
            return Ok(None);
        }
        if self.tracks.video.as_ref().is_none_or(|video| video.codec != codec) {
            return Err(RemuxError::NoHeader { track: VIDEO });
        }
        let data = if codec == VideoCodec::Av1 { av1::without_delimiter(body.payload) } else { body.payload };
        let key = class == Class::KeyFrame;
        Ok((!data.is_empty()).then_some(Sample { video: true, dts: time, cts: body.cts, key, data }))
    }

    fn audio<'a>(
        &mut self,
        body: Body<'a>,
        class: Class,
        time: i64,
    ) -> Result<Option<Sample<'a>>, RemuxError> {
        let codec = match &body.code {
            b"mp4a" => AudioCodec::Aac,
            b".mp3" => AudioCodec::Mpeg,
            b"Opus" => AudioCodec::Opus,
            _ => return Err(RemuxError::Codec { track: AUDIO }),
        };
        let header = class == Class::SequenceHeader;
        let announced = match codec {
            AudioCodec::Aac if header => aac::parse_config(&Bytes::copy_from_slice(body.payload)),
            AudioCodec::Opus if header => opus::parse_config(&Bytes::copy_from_slice(body.payload)),
            AudioCodec::Mpeg if header => return Ok(None),
            // Each frame is its own header.
            AudioCodec::Mpeg => mpeg_audio::parse_frame(body.payload),
            AudioCodec::Aac | AudioCodec::Opus => {
                self.tracks.audio.as_deref().filter(|a| a.codec == codec).cloned()
            }
        };
        let wrong = if header || codec == AudioCodec::Mpeg {
            RemuxError::Header { track: AUDIO }
        } else {
            RemuxError::NoHeader { track: AUDIO }
        };
        let audio = announced.ok_or(wrong)?;
        if self.tracks.audio.as_deref() != Some(&audio) {
            self.tracks.audio = Some(Arc::new(audio));
        }
        let sample = Sample { video: false, dts: time, cts: 0, key: true, data: body.payload };
        Ok((!header && !sample.data.is_empty()).then_some(sample))
    }
}

/// The contents of a tag's body, however it was wrapped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Body<'a> {
    /// The codec's FourCC in Enhanced RTMP.
    code: [u8; 4],
    /// Milliseconds.
    cts: i32,
    payload: &'a [u8],
}

/// No FourCC: an unnamed codec.
const UNKNOWN: [u8; 4] = [0; 4];

/// A signed 24-bit number.
fn signed_24(bytes: [u8; 3]) -> i32 {
    i32::from_be_bytes([bytes[0], bytes[1], bytes[2], 0]) >> 8
}

fn video_body(body: &[u8]) -> Option<Body<'_>> {
    let (&first, rest) = body.split_first()?;
    if first & 0x80 == 0 {
        let code = match first & 0x0f {
            7 => *b"avc1",
            12 => *b"hvc1",
            _ => UNKNOWN,
        };
        let &[_, c2, c1, c0, ref payload @ ..] = rest else { return (code == UNKNOWN).then_some(unknown()) };
        return Some(Body { code, cts: signed_24([c2, c1, c0]), payload });
    }
    let (packet, code, rest) = unwrap(first & 0x0f, 6, rest)?;
    // CodedFrames of codecs that reorder carry a composition time, CodedFramesX do not.
    if packet == 1 && matches!(&code, b"avc1" | b"hvc1") {
        let (cts, payload) = rest.split_first_chunk()?;
        return Some(Body { code, cts: signed_24(*cts), payload });
    }
    Some(Body { code, cts: 0, payload: rest })
}

fn audio_body(body: &[u8]) -> Option<Body<'_>> {
    let (&first, rest) = body.split_first()?;
    match first >> 4 {
        9 => unwrap(first & 0x0f, 5, rest).map(|(_, code, payload)| Body { code, cts: 0, payload }),
        10 => Some(Body { code: *b"mp4a", cts: 0, payload: rest.get(1..)? }),
        2 | 14 => Some(Body { code: *b".mp3", cts: 0, payload: rest }),
        _ => Some(unknown()),
    }
}

fn unknown<'a>() -> Body<'a> {
    Body { code: UNKNOWN, cts: 0, payload: &[] }
}

/// Removes `ModEx` (7) and multitrack (6 in video, 5 in audio) from an enhanced body: returns the packet type,
/// the FourCC and the bytes after them. Of several tracks, the first is returned.
fn unwrap(mut packet: u8, multitrack: u8, mut rest: &[u8]) -> Option<(u8, [u8; 4], &[u8])> {
    for _ in 0..4 {
        if packet != 7 {
            break;
        }
        let (&size, tail) = rest.split_first()?;
        let (size, tail) = match size {
            255 => (usize::from(u16::from_be_bytes(*tail.first_chunk()?)) + 1, &tail[2..]),
            size => (usize::from(size) + 1, tail),
        };
        let (&next, tail) = tail.get(size..)?.split_first()?;
        packet = next & 0x0f;
        rest = tail;
    }
    if packet != multitrack {
        let (code, rest) = rest.split_first_chunk()?;
        return Some((packet, *code, rest));
    }
    let (&kinds, rest) = rest.split_first()?;
    let (code, rest) = rest.split_first_chunk()?;
    let (_track, rest) = rest.split_first()?;
    if kinds >> 4 == 0 {
        return Some((kinds & 0x0f, *code, rest));
    }
    let (size, rest) = rest.split_first_chunk::<3>()?;
    let size = u32::from_be_bytes([0, size[0], size[1], size[2]]) as usize;
    Some((kinds & 0x0f, *code, rest.get(..size)?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::media::h264::tests::AVCC;

    fn push<'a>(
        remuxer: &mut Remuxer,
        kind: TagKind,
        body: &'a [u8],
    ) -> Result<Option<Sample<'a>>, RemuxError> {
        remuxer.push(&TagRef { kind, timestamp: 7, body }, 7)
    }

    #[test]
    fn classic_and_enhanced_bodies_give_the_same() {
        let classic = [&[0x17, 0, 0, 0, 0][..], AVCC].concat();
        let enhanced = [&b"\x90avc1"[..], AVCC].concat();
        for header in [classic, enhanced] {
            let mut remuxer = Remuxer::default();
            let frame = b"\x27\x01\xff\xff\xfe\0\0\0\x01\x41";
            assert_eq!(push(&mut remuxer, TagKind::Video, frame), Err(RemuxError::NoHeader { track: VIDEO }));
            assert_eq!(push(&mut remuxer, TagKind::Video, &header), Ok(None));
            let want = Sample { video: true, dts: 7, cts: -2, key: false, data: &frame[5..] };
            assert_eq!(push(&mut remuxer, TagKind::Video, frame), Ok(Some(want)));
            let frame = b"\xa1avc1\xff\xff\xfe\0\0\0\x01\x41";
            assert_eq!(push(&mut remuxer, TagKind::Video, frame), Ok(Some(want)));
            let frame = b"\x93avc1\0\0\0\x01\x65";
            let want = Sample { cts: 0, key: true, data: &frame[5..], ..want };
            assert_eq!(push(&mut remuxer, TagKind::Video, frame), Ok(Some(want)));
            let frame = b"\x97\x02\0\0\0\x03avc1\0\0\0\x01\x65";
            assert_eq!(push(&mut remuxer, TagKind::Video, frame), Ok(Some(want)));
            let frame = b"\x96\x03avc1\0\0\0\0\x01\x65";
            assert_eq!(push(&mut remuxer, TagKind::Video, frame), Ok(Some(want)));
            let frame = b"\x96\x13avc1\0\0\0\x05\0\0\0\x01\x65\x01\0\0\0\x01\x65";
            assert_eq!(push(&mut remuxer, TagKind::Video, frame), Ok(Some(want)));
        }
    }

    #[test]
    fn sound() {
        let mut remuxer = Remuxer::default();
        assert_eq!(push(&mut remuxer, TagKind::Audio, &[0xaf, 0, 0x12, 0x10]), Ok(None));
        let track = Arc::clone(remuxer.tracks().audio.as_ref().unwrap());
        assert_eq!(push(&mut remuxer, TagKind::Audio, b"\x90mp4a\x12\x10"), Ok(None));
        assert!(
            Arc::ptr_eq(&track, remuxer.tracks().audio.as_ref().unwrap()),
            "the same header is not a change"
        );
        let sample = push(&mut remuxer, TagKind::Audio, &[0xaf, 1, 0x21, 0x22]).unwrap().unwrap();
        assert_eq!((sample.data, sample.video), (&[0x21, 0x22][..], false));
        let sample = push(&mut remuxer, TagKind::Audio, &[0x2f, 0xff, 0xfb, 0x90, 0x64]).unwrap().unwrap();
        assert_eq!(sample.data.len(), 4);
        assert_eq!(remuxer.tracks().audio.as_ref().unwrap().codec, AudioCodec::Mpeg);
        assert_eq!(
            push(&mut remuxer, TagKind::Audio, b"\x91Opus\xfc"),
            Err(RemuxError::NoHeader { track: AUDIO })
        );
        assert_eq!(push(&mut remuxer, TagKind::Audio, b"\x90Opus"), Ok(None));
        assert!(push(&mut remuxer, TagKind::Audio, b"\x91Opus\xfc").unwrap().is_some());
        assert_eq!(push(&mut remuxer, TagKind::Audio, &[0xbf, 1]), Err(RemuxError::Codec { track: AUDIO }));
    }

    #[test]
    fn any_body_is_read_without_a_panic() {
        for first in 0..=255u8 {
            for second in [0, 1, 6, 7, 0x13, 255] {
                let body = [first, second, b'a', b'v', b'c', b'1', 0, 0, 1, 2];
                for len in 0..body.len() {
                    for kind in [TagKind::Audio, TagKind::Video] {
                        let _ = push(&mut Remuxer::default(), kind, &body[..len]);
                    }
                }
            }
        }
    }
}
