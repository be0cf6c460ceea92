//! Why a push fails, and the exit code for each cause.

use std::io;
use std::path::PathBuf;

use crate::media::flv::FlvError;
use crate::media::mp4::Mp4Error;
use crate::protocol::tls::trust::TrustError;

/// What is wrong with the file.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// It cannot be opened.
    #[error("{path}: {error}")]
    Open {
        /// Its path.
        path: PathBuf,
        /// The system's error.
        error: io::Error,
    },
    /// It cannot be read.
    #[error("the file cannot be read: {0}")]
    Read(#[from] io::Error),
    /// It is not FLV.
    #[error("the file is neither FLV nor MP4 ({0})")]
    Flv(#[from] FlvError),
    /// It is not an MP4 that can be pushed.
    #[error("the MP4 file cannot be pushed: {0}")]
    Mp4(#[from] Mp4Problem),
}

/// Why an MP4 file cannot be pushed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Mp4Problem {
    /// There is no `moov` box.
    #[error("it has no moov box: it was not written to its end")]
    NoMovie,
    /// The `moov` box cannot be read.
    #[error("its moov box is damaged")]
    Movie,
    /// Another box cannot be read.
    #[error("it is damaged: {0}")]
    Damaged(Mp4Error),
    /// The sample tables contradict each other.
    #[error("its tables of samples are damaged")]
    Tables,
    /// The sample tables claim too much.
    #[error("its tables claim more samples than are possible")]
    TooManySamples,
    /// No track can be pushed.
    #[error("no track has a codec that FLV can carry")]
    NoTrack,
    /// A sample does not fit in a tag.
    #[error("a sample of {size} bytes, more than a tag holds")]
    SampleTooLarge {
        /// Its bytes.
        size: usize,
    },
    /// A box is too large to be read.
    #[error("a box of {size} bytes, more than is read")]
    BoxTooLarge {
        /// Its bytes.
        size: u64,
    },
}

/// Why a push ended before the end of the file.
#[derive(Debug, thiserror::Error)]
pub enum PushError {
    /// The URL cannot be pushed to.
    #[error("{url}: {reason}")]
    Url {
        /// The URL as given.
        url: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// Standard input cannot be pushed twice.
    #[error("--loop needs a file: standard input cannot be read again")]
    LoopedInput,
    /// The file cannot be read, or has the wrong format.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// The server could not be reached, or the connection was lost.
    #[error("{0}")]
    Lost(String),
    /// No server can be trusted.
    #[error(transparent)]
    Trust(#[from] TrustError),
    /// The server's certificate is not trusted.
    #[error("the certificate of {host} is not trusted ({why}): give its authority with --ca FILE")]
    Untrusted {
        /// The host in the URL.
        host: String,
        /// What is wrong with it.
        why: String,
    },
    /// The server refused the stream.
    #[error("the server refused: {0}")]
    Refused(String),
}

impl PushError {
    /// The codes of `sysexits.h`, for scripts: 2 usage, 65 not FLV or MP4, 66 no such file, 75 no connection,
    /// 77 refused or not trusted.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Url { .. } | Self::LoopedInput | Self::Trust(_) => 2,
            Self::Source(SourceError::Open { .. }) => 66,
            Self::Source(_) => 65,
            Self::Lost(_) => 75,
            Self::Refused(_) | Self::Untrusted { .. } => 77,
        }
    }
}
