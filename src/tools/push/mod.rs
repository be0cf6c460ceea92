//! The pusher: publishes an FLV or MP4 file, or FLV from standard input, in real time.
//!
//! One thread, one connection. Tags are sent when their timestamps are due. A lost connection is made again and
//! continues with the next tag, after the headers that the server needs.

mod args;
mod error;
mod link;
mod mp4;
mod pace;
mod run;
mod socket;
mod source;

pub use args::{PushArgs, Scheme, Target};
pub use error::{PushError, SourceError};
pub use source::Source;

use std::io::Write;
use std::process::ExitCode;

/// The `push` subcommand: pushes to the end of the file and prints a summary.
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
