//! The pusher: publishes an FLV or MP4 file, or FLV from standard input, in real time.
//!
//! One thread, one connection. Tags go out when their timestamps say; a connection that is lost is made again
//! and goes on with the tag it stopped at, behind the headers that the server needs.

mod args;
mod link;
mod mp4;
mod pace;
mod run;
mod source;

pub use args::{PushArgs, Scheme, Target};
pub use source::{Source, SourceError};

use std::io::Write;
use std::process::ExitCode;

/// Why a push ended before the file did.
#[derive(Debug, thiserror::Error)]
pub enum PushError {
    /// The URL is not one that can be pushed to.
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
    /// The file cannot be read, or is not what it should be.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// The server could not be reached, or the connection was lost.
    #[error("{0}")]
    Lost(String),
    /// The server does not want the stream.
    #[error("the server refused: {0}")]
    Refused(String),
}

impl PushError {
    /// As `sysexits.h` has it, so that scripts can tell: 2 usage, 65 not FLV or MP4, 66 no such file, 75 no
    /// connection, 77 refused.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Url { .. } | Self::LoopedInput => 2,
            Self::Source(SourceError::Open { .. }) => 66,
            Self::Source(_) => 65,
            Self::Lost(_) => 75,
            Self::Refused(_) => 77,
        }
    }
}

/// The `push` subcommand: pushes to the end of the file and says what it did.
pub fn main(args: &PushArgs) -> ExitCode {
    let mut err = std::io::stderr();
    match run::run(args) {
        Ok(pushed) => {
            let _ = writeln!(err, "{pushed}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            let _ = writeln!(err, "uringcast push: {error}");
            error.exit_code().into()
        }
    }
}
