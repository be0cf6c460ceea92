//! Why there is nothing to report.

use rustix::io::Errno;

/// Why a run could not be made at all; what goes wrong with single viewers is in the [`Report`](super::Report).
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
    #[error(
        "{viewers} viewers need more processes than asked for (or than 64): each may open {limit} files; \
         raise the limit with ulimit -n"
    )]
    FileLimit {
        /// The number asked for.
        viewers: usize,
        /// The hard limit.
        limit: u64,
    },
    /// One of the processes that share the viewers ended before its time.
    #[error("a process that held a part of the viewers died")]
    PartDied,
    /// The operating system refused something.
    #[error("{what}: {source}")]
    Os {
        /// What was tried.
        what: &'static str,
        /// Its answer.
        source: std::io::Error,
    },
}

/// What the system said when `what` was tried.
pub(super) fn os(what: &'static str) -> impl Fn(Errno) -> StressError {
    move |errno| StressError::Os { what, source: errno.into() }
}
