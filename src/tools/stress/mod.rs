//! The stress tool: holds many viewers, checks what they get, says what it cost the server.
//!
//! One thread, one epoll, and one process unless the limit on open files is too low for that. A live viewer's tag
//! chain is checked up to its first keyframe, and playlists and heads of answers always; beyond that only the
//! *sampled* viewers' bytes are looked at, the others' are counted and thrown away in the kernel (`MSG_TRUNC`), so
//! that the tool does not need more of the machine than the server. Sockets are looked at every two milliseconds
//! and nobody sleeps on them in between: on one machine, waking the tool up would be the server's work.
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

pub use args::{Options, Protocol, StressArgs, Target};
pub use chain::ChainError;
pub use error::StressError;
use monitor::Monitor;
pub use report::{Percentiles, Report, ServerCost};

use std::io::Write;
use std::process::ExitCode;

/// Holds the viewers for as long as `args` say, in as many processes as that takes.
///
/// # Errors
/// [`StressError`], when there is nothing to report.
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

/// The `stress` subcommand: runs, prints the report on standard output; the code is 0 only when every viewer
/// was served.
///
/// # Errors
/// [`StressError`], and a standard output that cannot be written.
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
