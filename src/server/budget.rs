//! One memory budget for the process: the logs of streams, what is packaged of them, what connections hold (partial
//! messages, requests, answers, outboxes), greetings, and what the kernel holds for viewers that do not read.
//!
//! Each loop counts what it holds; loop 0 sums it up a few times a second. As the limit comes near, histories
//! are shortened first, then new publishers are refused, then everything that would grow is refused. Nothing
//! aborts.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use crate::memory::Arena;
use crate::package::memory::Memory;

/// In percent of the budget: above this, histories are shortened so that all streams fit.
const SHORTEN: u64 = 60;
/// Above this, new publishers are refused.
const REFUSE: u64 = 85;
/// The smallest size that a log may be shortened to, in bytes.
const LOG_MIN: u64 = 512 << 10;

/// What a loop holds, in bytes. Written by that loop alone.
#[derive(Debug, Default)]
#[repr(align(128))]
pub struct Held {
    /// Partial messages, requests, answers and outboxes of connections.
    pub connections: AtomicU64,
    /// Greetings.
    pub greetings: AtomicU64,
    /// Socket queues of viewers that do not read.
    pub kernel: AtomicU64,
}

/// The memory budget; see the module.
#[derive(Debug)]
pub struct Budget {
    /// In bytes.
    pub limit: u64,
    arena: Arc<Arena>,
    /// Packaged segments and playlists.
    pub packages: Memory,
    /// By loop.
    pub loops: Vec<Held>,
    tight: AtomicBool,
}

impl Budget {
    /// A budget of `limit` bytes for `loops` loops and the logs of `arena`.
    pub(super) fn new(limit: u64, arena: Arc<Arena>, loops: usize) -> Self {
        let loops = std::iter::repeat_with(Held::default).take(loops).collect();
        let (packages, tight) = (Memory::default(), AtomicBool::new(false));
        let budget = Self { limit, arena, packages, loops, tight };
        budget.adjust(0);
        budget
    }

    /// Bytes held outside the logs.
    fn besides_logs(&self) -> u64 {
        let of = |held: &Held| {
            [&held.connections, &held.greetings, &held.kernel]
                .into_iter()
                .map(|bytes| bytes.load(Ordering::Relaxed))
                .sum::<u64>()
        };
        self.packages.bytes() + self.loops.iter().map(of).sum::<u64>()
    }

    /// Bytes used in total.
    pub fn used(&self) -> u64 {
        self.arena.mapped() + self.besides_logs()
    }

    /// Whether the budget is used up: nothing may grow.
    pub fn is_spent(&self) -> bool {
        self.used() >= self.limit
    }

    /// Whether another publisher is accepted.
    pub fn admits_publisher(&self) -> bool {
        self.used() < self.limit / 100 * REFUSE
    }

    /// Whether histories are shorter than configured, so that all streams fit.
    pub fn is_tight(&self) -> bool {
        self.tight.load(Ordering::Relaxed)
    }

    /// Sets how much the logs may take, together and each, from the present use and the number of streams.
    /// Returns the new limit of a log if it is lower than before: the logs are then to be shortened.
    pub(super) fn adjust(&self, streams: usize) -> Option<u64> {
        self.arena.set_limit(self.limit.saturating_sub(self.besides_logs()));
        let tight = self.used() > self.limit / 100 * SHORTEN;
        self.tight.store(tight, Ordering::Relaxed);
        let each =
            if tight { (self.limit / 100 * SHORTEN / (streams as u64 + 1)).max(LOG_MIN) } else { u64::MAX };
        let before = self.arena.log_limit();
        // It grows back in steps: memory that was just freed is not all given away at once.
        let each = if each > before && tight { before.saturating_add(before / 8).min(each) } else { each };
        self.arena.set_log_limit(each);
        (each < before).then_some(each)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn near_the_limit_histories_are_shortened_then_publishers_refused() {
        let arena = Arena::new().unwrap();
        let budget = Budget::new(100 << 20, Arc::clone(&arena), 2);
        assert_eq!((budget.used(), budget.adjust(3), arena.log_limit()), (0, None, u64::MAX));
        let logs: Vec<_> = (0..7).map(|_| arena.segment(10 << 20).unwrap()).collect();
        assert!(!budget.is_tight() && budget.admits_publisher());
        let each = budget.adjust(6).unwrap();
        assert!(budget.is_tight() && (8 << 20..9 << 20).contains(&each), "{each}");
        assert_eq!(budget.adjust(6), None, "the limit has not changed");
        budget.loops[1].connections.store(16 << 20, Ordering::Relaxed);
        assert!(!budget.admits_publisher() && !budget.is_spent());
        budget.adjust(6);
        assert!(arena.segment(15 << 20).is_err(), "memory held elsewhere is not free for logs");
        budget.loops[0].kernel.store(14 << 20, Ordering::Relaxed);
        assert!(budget.is_spent());
        drop(logs);
        budget.adjust(0);
        assert!(!budget.is_tight() && arena.log_limit() == u64::MAX);
    }
}
