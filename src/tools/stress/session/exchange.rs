//! What passes between a session and the owner of its socket: input, progress and faults.

use rustix::io::Errno;

use crate::protocol::rtmp::RtmpError;
use crate::tools::stress::chain::ChainError;
use crate::tools::stress::framing::FramingError;

/// Why a viewer was not served to the end.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(in crate::tools::stress) enum Fault {
    #[error("connect: {0}")]
    Connect(Errno),
    #[error("send: {0}")]
    Send(Errno),
    #[error("receive: {0}")]
    Receive(Errno),
    #[error("{0}")]
    Tls(String),
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
    #[error("a file of {got} bytes that had {before} bytes before")]
    OtherLength { before: u64, got: u64 },
    #[error("a file whose bytes have changed")]
    OtherBytes,
    #[error("a playlist that cannot be followed: {0}")]
    Playlist(&'static str),
    #[error("a segment that is neither a transport stream nor a fragment")]
    Segment,
}

/// Input of a session.
#[derive(Clone, Copy, Debug)]
pub(in crate::tools::stress) enum Input<'a> {
    Bytes(&'a [u8]),
    /// This many bytes, which were not examined.
    Counted(usize),
}

impl Input<'_> {
    pub(super) const fn len(self) -> usize {
        match self {
            Self::Bytes(bytes) => bytes.len(),
            Self::Counted(len) => len,
        }
    }
}

/// What a session needs of the next bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::tools::stress) enum Appetite {
    /// All of them.
    Bytes,
    /// The number of bytes, at most this many at a time.
    Count(usize),
}

/// The result of a step of a session. Times are in microseconds since the run began.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(in crate::tools::stress) struct Progress {
    /// Bytes of media, or of files and playlists.
    pub(in crate::tools::stress) bytes: u64,
    /// The first keyframe, segment or file is complete.
    pub(in crate::tools::stress) has_picture: bool,
    /// Bytes to send now.
    pub(in crate::tools::stress) output: Vec<u8>,
    /// When the session asks to be called again.
    pub(in crate::tools::stress) wake: Option<u64>,
    /// How long the response took that is complete now.
    pub(in crate::tools::stress) answered: Option<u64>,
    /// A player would have had nothing to play.
    pub(in crate::tools::stress) ran_dry: bool,
    /// The server closes this connection; the next request needs another one.
    pub(in crate::tools::stress) closes: bool,
}
