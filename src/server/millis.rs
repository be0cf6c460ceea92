//! Durations in the unit of the loops' clock.

use std::time::Duration;

use crate::uring::Millis;

/// A duration in milliseconds.
pub(super) fn millis(duration: Duration) -> Millis {
    u64::try_from(duration.as_millis()).unwrap_or(Millis::MAX)
}
