//! System calls that the kernel refused for lack of resources, counted and logged.

use std::time::{Duration, Instant};

use rustix::io::Errno;

/// The log mentions a kernel that is short of resources no more often than this.
const TELL: Duration = Duration::from_secs(10);

/// System calls that the kernel refused for the time being.
#[derive(Debug, Default)]
pub(super) struct Refusals {
    pub(super) count: u64,
    logged: Option<Instant>,
    /// Refusals to inject, the next one first.
    #[cfg(test)]
    pub(super) injected: std::collections::VecDeque<Errno>,
}

impl Refusals {
    /// Counts one; logged unless another one was logged just now.
    pub(super) fn add(&mut self, errno: Errno) {
        self.count += 1;
        if self.logged.is_none_or(|logged| logged.elapsed() > TELL) {
            self.logged = Some(Instant::now());
            let refusals = self.count;
            tracing::warn!(error = %errno, refusals, "the kernel is short of resources; io_uring calls are tried again");
        }
    }
}
