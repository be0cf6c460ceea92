//! Why a run has no report.

use rustix::io::Errno;

/// Why a run could not be made at all; failures of single viewers are in the [`Report`](super::Report).
#[derive(Debug, thiserror::Error)]
pub enum StressError {
    /// The URL cannot be played.
    #[error("{url}: {reason}")]
    Url {
        /// The URL as given.
        url: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// More viewers than the processes may have files open.
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
    /// No server can be trusted.
    #[error(transparent)]
    Trust(#[from] crate::protocol::tls::trust::TrustError),
    /// One of the processes that share the viewers ended early.
    #[error("a process with a part of the viewers died")]
    PartDied,
    /// The operating system refused something.
    #[error("{what}: {source}")]
    Os {
        /// The operation that was tried.
        what: &'static str,
        /// The system's error.
        source: std::io::Error,
    },
}

/// The system's error when `what` was tried.
pub(super) fn os(what: &'static str) -> impl Fn(Errno) -> StressError {
    move |errno| StressError::Os { what, source: errno.into() }
}
