//! The stress tool: holds many viewers of one stream, checks what they get, says what it cost the server.
//!
//! One thread, one epoll. Every viewer's tag chain is checked up to its first keyframe; from there on only the
//! *sampled* viewers are followed tag by tag, the others' bytes are counted and thrown away in the kernel
//! (`MSG_TRUNC`), so that the tool does not need more of the machine than the server.
//!
//! It deliberately does not answer WebSocket pings of unsampled viewers: it never sees them.

mod args;
mod chain;
mod crowd;
mod framing;
mod procfs;
mod report;
mod viewer;

pub use args::{Options, StressArgs, Target};
pub use chain::ChainError;
pub use report::{Percentiles, Report, ServerCost};

use std::io::Write;
use std::process::ExitCode;

/// Why a run could not be made at all; what goes wrong with single viewers is in the [`Report`].
#[derive(Debug, thiserror::Error)]
pub enum StressError {
    /// The URL is not one that can be played.
    #[error("{url}: {reason}")]
    Url {
        /// The URL as given.
        url: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// More viewers than this process may have files open.
    #[error("{viewers} viewers need more open files than the limit of {limit}; raise it with ulimit -n")]
    FileLimit {
        /// The number asked for.
        viewers: usize,
        /// The hard limit.
        limit: u64,
    },
    /// The operating system refused something.
    #[error("{what}: {source}")]
    Os {
        /// What was tried.
        what: &'static str,
        /// Its answer.
        source: std::io::Error,
    },
}

/// Holds the viewers for as long as `options` say.
///
/// # Errors
/// [`StressError`], when there is nothing to report.
pub fn run(options: &Options) -> Result<Report, StressError> {
    crowd::Crowd::new(options)?.run()
}

/// The `stress` subcommand: runs, prints the report on standard output; the code is 0 only when every viewer
/// was served.
///
/// # Errors
/// [`StressError`], and a standard output that cannot be written.
pub fn main(args: &StressArgs) -> anyhow::Result<ExitCode> {
    let report = run(&args.options()?)?;
    let text = if args.json { serde_json::to_string(&report)? + "\n" } else { report.to_string() };
    std::io::stdout().write_all(text.as_bytes())?;
    Ok(if report.passed() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
