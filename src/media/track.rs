//! How a track is coded: all that a muxer needs to know before the first frame.

use std::sync::Arc;

use bytes::Bytes;

/// How pictures are coded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum VideoCodec {
    /// H.264, AVC.
    H264,
    /// H.265, HEVC.
    H265,
    /// AV1.
    Av1,
}

/// A video track.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Video {
    /// How it is coded.
    pub codec: VideoCodec,
    /// The configuration record: the content of `avcC`, `hvcC` or `av1C`.
    pub record: Bytes,
    /// In pixels.
    pub width: u16,
    /// In pixels.
    pub height: u16,
    /// The codec string of RFC 6381, with profile and level.
    pub codecs: String,
    /// Bytes of the length before each NAL unit; 0 if there are no NAL units.
    pub length_size: u8,
    /// Parameter sets as NAL units, in the order in which a decoder needs them.
    pub parameter_sets: Vec<Bytes>,
}

/// How sound is coded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AudioCodec {
    /// AAC of any object type.
    Aac,
    /// MPEG-1 and MPEG-2 audio layers 1 to 3.
    Mpeg,
    /// Opus.
    Opus,
}

/// An audio track.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Audio {
    /// How it is coded.
    pub codec: AudioCodec,
    /// AAC: the `AudioSpecificConfig`; Opus: the body of `dOps`; MPEG audio: nothing.
    pub record: Bytes,
    /// Samples per second of the coded signal.
    pub sample_rate: u32,
    /// Channels; at least 1.
    pub channels: u8,
    /// Samples of a frame; 0 if each frame has its own length (Opus).
    pub frame: u32,
    /// The codec string of RFC 6381.
    pub codecs: String,
}

/// The tracks that a stream has at some time; a track that did not change is the same object.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tracks {
    /// Pictures.
    pub video: Option<Arc<Video>>,
    /// Sound.
    pub audio: Option<Arc<Audio>>,
}
