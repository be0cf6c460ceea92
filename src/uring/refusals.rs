//! Calls of the kernel that it refused for want of resources, counted and logged.

use std::time::{Duration, Instant};

use rustix::io::Errno;

/// The log speaks of a kernel that is short of something no more often than this.
const TELL: Duration = Duration::from_secs(10);

/// Calls that the kernel refused for the time being.
#[derive(Debug, Default)]
pub(super) struct Refusals {
    pub(super) count: u64,
    told: Option<Instant>,
    /// Refusals to come, the next one first.
    #[cfg(test)]
    pub(super) injected: std::collections::VecDeque<Errno>,
}

impl Refusals {
    /// One more; logged unless another one was just now.
    pub(super) fn add(&mut self, errno: Errno) {
        self.count += 1;
        if self.told.is_none_or(|told| told.elapsed() > TELL) {
            self.told = Some(Instant::now());
            let refusals = self.count;
            tracing::warn!(error = %errno, refusals, "the kernel is short of resources; io_uring calls are tried again");
        }
    }
}
