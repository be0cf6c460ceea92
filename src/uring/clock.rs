//! Time, as a loop's engine counts it.

use std::time::{Duration, Instant};

/// Milliseconds on the engine's monotonic clock.
pub type Millis = u64;

/// The engine's clock: it counts from a moment that all loops of a process share.
#[derive(Clone, Copy, Debug)]
pub(super) struct Clock {
    started: Instant,
}

impl Clock {
    pub(super) fn since(started: Instant) -> Self {
        Self { started }
    }

    pub(super) fn now(self) -> Millis {
        u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX)
    }
}

/// CPU time that the calling thread has used so far.
pub(super) fn thread_cpu_time() -> Duration {
    let used = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    Duration::try_from(used).unwrap_or_default()
}
