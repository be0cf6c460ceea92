//! What goes between a session and the one who has its socket: what came, what was learnt, what is wrong.

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
pub(in crate::tools::stress) enum Input<'a> {
    Bytes(&'a [u8]),
    /// So many bytes, which nobody has looked at.
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

/// What a session wants to know of the bytes that come next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::tools::stress) enum Appetite {
    /// All of them.
    Bytes,
    /// How many they are, at most so many at a time.
    Count(usize),
}

/// What a session learnt, and what it wants. Times are in microseconds since the run began.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(in crate::tools::stress) struct Progress {
    /// Bytes of media, or of files and playlists.
    pub(in crate::tools::stress) bytes: u64,
    /// The first keyframe, segment or file is there.
    pub(in crate::tools::stress) has_picture: bool,
    /// To send now.
    pub(in crate::tools::stress) output: Vec<u8>,
    /// To be asked again then.
    pub(in crate::tools::stress) wake: Option<u64>,
    /// How long the answer to a request took that is whole now.
    pub(in crate::tools::stress) answered: Option<u64>,
    /// A player would have had nothing to play.
    pub(in crate::tools::stress) ran_dry: bool,
    /// The server closes this connection; the next request needs another.
    pub(in crate::tools::stress) closes: bool,
}
