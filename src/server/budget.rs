//! One budget of memory for the process: the logs of streams, what connections hold (partial messages, requests,
//! answers, outboxes), greetings, and what the kernel holds for viewers that do not read.
//!
//! Loops count what they hold; loop 0 looks at the sum a few times a second. Near the limit histories get
//! shorter, then new publishers are refused, then what would grow is refused. Nothing aborts.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use crate::memory::Arena;

/// Parts of the budget, in percent: from here on histories are shortened to have space for all.
const SHORTEN: u64 = 60;
/// From here on new publishers are refused.
const REFUSE: u64 = 85;
/// The least that a log may keep, in bytes.
const LOG_MIN: u64 = 512 << 10;

/// What a loop holds, in bytes. The loop alone writes it.
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

/// See the module.
#[derive(Debug)]
pub struct Budget {
    /// In bytes.
    pub limit: u64,
    arena: Arc<Arena>,
    /// By loop.
    pub loops: Vec<Held>,
    tight: AtomicBool,
}

impl Budget {
    /// A budget of `limit` bytes for so many loops and the logs of an arena.
    pub(super) fn new(limit: u64, arena: Arc<Arena>, loops: usize) -> Self {
        let loops = std::iter::repeat_with(Held::default).take(loops).collect();
        let budget = Self { limit, arena, loops, tight: AtomicBool::new(false) };
        budget.adjust(0);
        budget
    }

    /// Bytes that are held besides the logs.
    fn besides_logs(&self) -> u64 {
        let of = |held: &Held| {
            [&held.connections, &held.greetings, &held.kernel]
                .into_iter()
                .map(|bytes| bytes.load(Ordering::Relaxed))
                .sum::<u64>()
        };
        self.loops.iter().map(of).sum()
    }

    /// Bytes that are used in all.
    pub fn used(&self) -> u64 {
        self.arena.mapped() + self.besides_logs()
    }

    /// Whether nothing may grow any more.
    pub fn is_spent(&self) -> bool {
        self.used() >= self.limit
    }

    /// Whether another publisher may come.
    pub fn admits_publisher(&self) -> bool {
        self.used() < self.limit / 100 * REFUSE
    }

    /// Whether histories are short of their configured length, so that all fit.
    pub fn is_tight(&self) -> bool {
        self.tight.load(Ordering::Relaxed)
    }

    /// Sets what logs may take, in all and each, by what is used now and the number of streams. Gives the most
    /// that a log may keep if that is less than before: the logs are to be shortened.
    pub(super) fn adjust(&self, streams: usize) -> Option<u64> {
        self.arena.set_limit(self.limit.saturating_sub(self.besides_logs()));
        let tight = self.used() > self.limit / 100 * SHORTEN;
        self.tight.store(tight, Ordering::Relaxed);
        let each =
            if tight { (self.limit / 100 * SHORTEN / (streams as u64 + 1)).max(LOG_MIN) } else { u64::MAX };
        let before = self.arena.log_limit();
        // It grows back in steps: what has just become free is not given away at once.
        let each = if each > before && tight { before.saturating_add(before / 8).min(each) } else { each };
        self.arena.set_log_limit(each);
        (each < before).then_some(each)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn near_the_limit_histories_get_shorter_then_publishers_are_refused() {
        let arena = Arena::new().unwrap();
        let budget = Budget::new(100 << 20, Arc::clone(&arena), 2);
        assert_eq!((budget.used(), budget.adjust(3), arena.log_limit()), (0, None, u64::MAX));
        let logs: Vec<_> = (0..7).map(|_| arena.segment(10 << 20).unwrap()).collect();
        assert!(!budget.is_tight() && budget.admits_publisher());
        let each = budget.adjust(6).unwrap();
        assert!(budget.is_tight() && (8 << 20..9 << 20).contains(&each), "{each}");
        assert_eq!(budget.adjust(6), None, "they were told");
        budget.loops[1].connections.store(16 << 20, Ordering::Relaxed);
        assert!(!budget.admits_publisher() && !budget.is_spent());
        budget.adjust(6);
        assert!(arena.segment(15 << 20).is_err(), "what is held otherwise is no space for logs");
        budget.loops[0].kernel.store(14 << 20, Ordering::Relaxed);
        assert!(budget.is_spent());
        drop(logs);
        budget.adjust(0);
        assert!(!budget.is_tight() && arena.log_limit() == u64::MAX);
    }
}
