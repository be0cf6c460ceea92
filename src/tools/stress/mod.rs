//! The stress tool: runs many viewers, checks what they get, and reports what they cost the server.
//!
//! One thread, one epoll, and one process unless the limit on open files is too low for that. The tag chain of
//! every live viewer is checked up to its first keyframe, and playlists and response heads always. Beyond that
//! only the bytes of *sampled* viewers are examined; those of the others are counted and discarded in the
//! kernel (`MSG_TRUNC`), so that the tool does not need more of the machine than the server. Sockets are
//! checked every two milliseconds and never waited for in between: on one machine, waking the tool would be the
//! server's work.
//!
//! It deliberately does not answer WebSocket pings of unsampled viewers: it never sees them.

mod args;
mod chain;
mod crowd;
mod error;
mod findings;
mod fleet;
mod framing;
mod html;
mod monitor;
mod procfs;
mod report;
mod session;
mod viewer;
mod wire;

pub use args::{Options, Protocol, StressArgs, Target};
pub use chain::ChainError;
pub use error::StressError;
use monitor::Monitor;
pub use report::{Percentiles, Report, ServerCost};

use std::io::Write;
use std::process::ExitCode;

/// Runs the viewers as `args` describe, in as many processes as needed.
///
/// # Errors
/// [`StressError`], if there is nothing to report.
pub fn run(args: &StressArgs) -> Result<Report, StressError> {
    let mut monitor = Monitor::new(args);
    let found = match fleet::processes(args)? {
        1 => fleet::run_alone(args, &mut monitor)?,
        parts => fleet::run_together(args, parts, &mut monitor)?,
    };
    let report = Report::new(&found, monitor.cost(found.bytes));
    if let Some(file) = &args.html {
        let distributions =
            html::Distributions { first_keyframe: &found.first_keyframe, latency: &found.latency };
        let page = html::page(&report, &monitor.course, &distributions);
        let failed = |source| StressError::Os { what: "write the page", source };
        std::fs::write(file, page).map_err(failed)?;
    }
    Ok(report)
}

/// The `stress` subcommand: runs, and prints the report on standard output; the exit code is 0 only if every
/// viewer was served.
///
/// # Errors
/// [`StressError`], or a standard output that cannot be written.
pub fn main(args: &StressArgs) -> anyhow::Result<ExitCode> {
    if let Some(part) = args.part {
        fleet::run_part(args, part, args.processes.max(1))?;
        return Ok(ExitCode::SUCCESS);
    }
    let report = run(args)?;
    let text = if args.json { serde_json::to_string(&report)? + "\n" } else { report.to_string() };
    std::io::stdout().write_all(text.as_bytes())?;
    Ok(if report.passed() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
