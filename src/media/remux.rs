//! Turns tags into samples: unwraps what FLV carries for other containers.
//!
//! Of several tracks of a kind, the one with the lowest number is taken. A track with an unknown codec is skipped;
//! the others are not affected.

use std::sync::Arc;

use bytes::Bytes;

use super::packet::{self, Part};
use super::picture::{Pictures, Place};
use super::tag::{Class, TagKind, TagRef};
use super::track::{Audio, AudioCodec, Tracks, Video, VideoCodec};
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
    /// Whether it is a whole frame, or belongs to the picture before or after it.
    pub place: Place,
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
    /// The numbers of the audio and the video track that are taken.
    taken: [Option<u8>; 2],
    pictures: Pictures,
}

impl Remuxer {
    /// The tracks that headers have announced, or frames that need none.
    pub fn tracks(&self) -> &Tracks {
        &self.tracks
    }

    /// Forgets what was announced.
    pub fn reset(&mut self) {
        *self = Self::default();
    }

    /// Takes the next tag; `time` is its time in milliseconds, unwrapped. `Ok(None)`: it contains no frame.
    ///
    /// # Errors
    /// [`RemuxError`]; skip the tag, the next one may be valid.
    pub fn push<'a>(&mut self, tag: &TagRef<'a>, time: i64) -> Result<Option<Sample<'a>>, RemuxError> {
        let class = tag.class();
        if !matches!(class, Class::SequenceHeader | Class::KeyFrame | Class::InterFrame | Class::Sound) {
            return Ok(None);
        }
        let Some(body) = self.part(tag, class)? else { return Ok(None) };
        match tag.kind {
            TagKind::Script => Ok(None),
            TagKind::Video => self.video(body, class, time),
            TagKind::Audio => self.audio(body, class, time),
        }
    }

    /// The part of a tag that belongs to the track that is taken.
    fn part<'a>(&mut self, tag: &TagRef<'a>, class: Class) -> Result<Option<Part<'a>>, RemuxError> {
        let truncated = RemuxError::Truncated { len: tag.body.len() };
        let parts = packet::parts(tag.kind, tag.body).ok_or(truncated)?;
        let lowest = parts.clone().map(|part| part.track).min().ok_or(truncated)?;
        let taken = &mut self.taken[usize::from(tag.kind == TagKind::Video)];
        if class == Class::SequenceHeader || taken.is_none() {
            *taken = Some(taken.map_or(lowest, |track| track.min(lowest)));
        }
        let mut parts = parts;
        Ok(parts.find(|part| Some(part.track) == *taken))
    }

    fn video<'a>(
        &mut self,
        body: Part<'a>,
        class: Class,
        time: i64,
    ) -> Result<Option<Sample<'a>>, RemuxError> {
        let codec = video_codec(body.code).ok_or(RemuxError::Codec { track: VIDEO })?;
        if class == Class::SequenceHeader {
            let video = video_config(codec, body.payload).ok_or(RemuxError::Header { track: VIDEO })?;
            self.pictures.configure(body.code, body.payload);
            if self.tracks.video.as_deref() != Some(&video) {
                self.tracks.video = Some(Arc::new(video));
            }
            return Ok(None);
        }
        if self.tracks.video.as_ref().is_none_or(|video| video.codec != codec) {
            return Err(RemuxError::NoHeader { track: VIDEO });
        }
        let data = if codec == VideoCodec::Av1 { av1::without_delimiter(body.payload) } else { body.payload };
        if data.is_empty() {
            return Ok(None);
        }
        let (key, place) = (class == Class::KeyFrame, self.pictures.place(data));
        Ok(Some(Sample { video: true, dts: time, cts: body.cts, key, place, data }))
    }

    fn audio<'a>(
        &mut self,
        body: Part<'a>,
        class: Class,
        time: i64,
    ) -> Result<Option<Sample<'a>>, RemuxError> {
        let codec = audio_codec(body.code).ok_or(RemuxError::Codec { track: AUDIO })?;
        let header = class == Class::SequenceHeader;
        let announced = match codec {
            AudioCodec::Mpeg if header => return Ok(None),
            AudioCodec::Aac | AudioCodec::Opus if header => audio_config(codec, body.payload),
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
        let data = body.payload;
        // Some encoders repeat the configuration as a frame.
        let is_config =
            codec == AudioCodec::Aac && self.tracks.audio.as_ref().is_some_and(|a| a.record == data);
        let sample = Sample { video: false, dts: time, cts: 0, key: true, place: Place::Begins, data };
        Ok((!header && !data.is_empty() && !is_config).then_some(sample))
    }
}

fn video_codec(code: [u8; 4]) -> Option<VideoCodec> {
    Some(match &code {
        b"avc1" => VideoCodec::H264,
        b"hvc1" => VideoCodec::H265,
        b"av01" => VideoCodec::Av1,
        _ => return None,
    })
}

fn audio_codec(code: [u8; 4]) -> Option<AudioCodec> {
    Some(match &code {
        b"mp4a" => AudioCodec::Aac,
        b".mp3" => AudioCodec::Mpeg,
        b"Opus" => AudioCodec::Opus,
        _ => return None,
    })
}

fn video_config(codec: VideoCodec, record: &[u8]) -> Option<Video> {
    let record = Bytes::copy_from_slice(record);
    match codec {
        VideoCodec::H264 => h264::parse_config(&record),
        VideoCodec::H265 => h265::parse_config(&record),
        VideoCodec::Av1 => av1::parse_config(&record),
    }
}

fn audio_config(codec: AudioCodec, record: &[u8]) -> Option<Audio> {
    match codec {
        AudioCodec::Aac => aac::parse_config(&Bytes::copy_from_slice(record)),
        AudioCodec::Opus => opus::parse_config(&Bytes::copy_from_slice(record)),
        AudioCodec::Mpeg => None,
    }
}

/// Width and height in pixels by a video sequence header.
pub fn size(kind: TagKind, part: &Part<'_>) -> Option<(u32, u32)> {
    let codec = video_codec(part.code).filter(|_| kind == TagKind::Video)?;
    video_config(codec, part.payload).map(|video| (video.width.into(), video.height.into()))
}

/// Whether a sequence header of `kind` can be read; `None`: its codec is not known here.
pub fn is_readable(kind: TagKind, part: &Part<'_>) -> Option<bool> {
    match kind {
        TagKind::Video => video_codec(part.code).map(|codec| video_config(codec, part.payload).is_some()),
        TagKind::Audio => match audio_codec(part.code)? {
            AudioCodec::Mpeg => None,
            codec => Some(audio_config(codec, part.payload).is_some()),
        },
        TagKind::Script => None,
    }
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
            let place = Place::Begins;
            let want = Sample { video: true, dts: 7, cts: -2, key: false, place, data: &frame[5..] };
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
