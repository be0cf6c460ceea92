//! How the loops' counters come together at a scrape.

use crate::server::counters::{Counter, RoleCounters};

/// Chooses one of the counters of a role.
pub(super) type Pick<'a> = &'a dyn Fn(&RoleCounters) -> &Counter;

/// A number as Prometheus has it.
#[expect(clippy::cast_precision_loss, reason = "its values are doubles")]
pub(super) fn float(n: u64) -> f64 {
    n as f64
}
