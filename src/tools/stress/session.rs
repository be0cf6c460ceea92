//! What a viewer speaks, sans-IO: it is given the bytes that came, and says what they were and what to send.

mod answer;
mod file;
mod hls;
mod live;
mod rtmp;

use rustix::io::Errno;

use self::file::FileSession;
use self::hls::HlsSession;
use self::live::LiveSession;
use self::rtmp::RtmpSession;
use super::Options;
use super::args::{Protocol, Target};
use super::chain::{Chain, ChainError};
use super::framing::FramingError;
use crate::protocol::rtmp::RtmpError;

/// Why a viewer was not served to the end.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Fault {
    #[error("connect: {0}")]
    Connect(Errno),
    #[error("send: {0}")]
    Send(Errno),
    #[error("receive: {0}")]
    Receive(Errno),
    #[error("answered with status {0}")]
    Status(u16),
    #[error("no HTTP answer")]
    NoAnswer,
    #[error("closed by the server")]
    Closed,
    #[error("{0}")]
    Framing(FramingError),
    #[error("broken chain: {0}")]
    Chain(ChainError),
    #[error("RTMP: {0}")]
    Rtmp(RtmpError),
    #[error("an answer without a length")]
    NoLength,
    #[error("a file of {got} bytes, before it was one of {before}")]
    OtherLength { before: u64, got: u64 },
    #[error("a file's bytes differ from those before")]
    OtherBytes,
    #[error("a playlist that cannot be followed: {0}")]
    Playlist(&'static str),
    #[error("a segment that is no transport stream and no fragment")]
    Segment,
}

/// What came.
#[derive(Clone, Copy, Debug)]
pub(super) enum Input<'a> {
    Bytes(&'a [u8]),
    /// So many bytes, which nobody has looked at.
    Counted(usize),
}

impl Input<'_> {
    const fn len(self) -> usize {
        match self {
            Self::Bytes(bytes) => bytes.len(),
            Self::Counted(len) => len,
        }
    }
}

/// What a session wants to know of the bytes that come next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Appetite {
    /// All of them.
    Bytes,
    /// How many they are, at most so many at a time.
    Count(usize),
}

/// What a session learnt, and what it wants. Times are in microseconds since the run began.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Progress {
    /// Bytes of media, or of files and playlists.
    pub(super) bytes: u64,
    /// The first keyframe, segment or file is there.
    pub(super) has_picture: bool,
    /// To send now.
    pub(super) output: Vec<u8>,
    /// To be asked again then.
    pub(super) wake: Option<u64>,
    /// How long the answer to a request took that is whole now.
    pub(super) answered: Option<u64>,
    /// A player would have had nothing to play.
    pub(super) ran_dry: bool,
    /// The server closes this connection; the next request needs another.
    pub(super) closes: bool,
}

/// A viewer's side of its connection.
#[derive(Debug)]
pub(super) enum Session {
    Live(LiveSession),
    Rtmp(RtmpSession),
    Hls(Box<HlsSession>),
    File(FileSession),
}

impl Session {
    /// Of a viewer of `target`, whose every byte is looked at if it is `sampled`.
    pub(super) fn new(target: &Target, sampled: bool, options: &Options) -> Self {
        match target.protocol {
            Protocol::HttpFlv | Protocol::WsFlv => Self::Live(LiveSession::new(sampled)),
            Protocol::Rtmp => Self::Rtmp(RtmpSession::new(target, sampled)),
            Protocol::Hls => Self::Hls(Box::new(HlsSession::new(target, sampled))),
            Protocol::File => Self::File(FileSession::new(sampled, options.ask_every)),
        }
    }

    pub(super) fn appetite(&self) -> Appetite {
        match self {
            Self::Live(live) => live.appetite(),
            Self::Rtmp(rtmp) => rtmp.appetite(),
            Self::Hls(hls) => hls.appetite(),
            Self::File(file) => file.appetite(),
        }
    }

    /// The connection is there, or the time that it asked for: what to send.
    pub(super) fn speak(&mut self, target: &Target, now: u64) -> Progress {
        match self {
            Self::Live(_) => {
                Progress { output: target.request(&target.path).into_bytes(), ..Progress::default() }
            }
            Self::Rtmp(rtmp) => rtmp.speak(),
            Self::Hls(hls) => hls.speak(target, now),
            Self::File(file) => file.speak(target, now),
        }
    }

    /// Takes what came.
    pub(super) fn take(&mut self, target: &Target, input: Input<'_>, now: u64) -> Result<Progress, Fault> {
        match self {
            Self::Live(live) => live.take(input),
            Self::Rtmp(rtmp) => rtmp.take(input),
            Self::Hls(hls) => hls.take(target, input, now),
            Self::File(file) => file.take(target, input, now),
        }
    }

    /// Whether nothing is due from the server, so that it may close the connection.
    pub(super) fn is_resting(&self) -> bool {
        match self {
            Self::Live(_) | Self::Rtmp(_) => false,
            Self::Hls(hls) => hls.is_resting(),
            Self::File(file) => file.is_resting(),
        }
    }

    /// Whether a player would have nothing to play now.
    pub(super) fn is_dry(&self, now: u64) -> bool {
        matches!(self, Self::Hls(hls) if hls.is_dry(now))
    }

    /// The tags of a live session that are looked at.
    pub(super) fn chain(&mut self) -> Option<&mut Chain> {
        match self {
            Self::Live(live) => live.chain(),
            Self::Rtmp(rtmp) => rtmp.chain(),
            Self::Hls(_) | Self::File(_) => None,
        }
    }
}
