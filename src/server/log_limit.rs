//! How many log lines of a kind peers may cause: what goes beyond is counted instead of written.
//!
//! Each loop has its own limits, so that nothing is shared and nothing locked. Lines that the program causes itself,
//! or an operator, are not limited.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tracing::warn;

use crate::uring::Millis;

/// Lines of one kind that a loop writes in one second.
const LINES_A_SECOND: u32 = 10;
const SECOND: Millis = 1_000;

/// What a line says, as far as peers can cause it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LineKind {
    /// A publisher came, went, or was refused.
    Publisher,
    /// A viewer was cut, or has gone.
    Viewer,
    /// A request that cannot be answered, or is refused.
    Request,
    /// A peer that broke its protocol.
    Protocol,
    /// A pull that began, failed or ended.
    Pull,
    /// A relay that began, failed or ended.
    Relay,
    /// A connection that could not be accepted, or was turned away.
    Accept,
}

impl LineKind {
    const EVERY: [Self; 7] =
        [Self::Publisher, Self::Viewer, Self::Request, Self::Protocol, Self::Pull, Self::Relay, Self::Accept];

    const fn name(self) -> &'static str {
        match self {
            Self::Publisher => "publisher",
            Self::Viewer => "viewer",
            Self::Request => "request",
            Self::Protocol => "protocol",
            Self::Pull => "pull",
            Self::Relay => "relay",
            Self::Accept => "accept",
        }
    }
}

/// The limit of one kind of line: so many in a second.
#[derive(Clone, Copy, Debug, Default)]
pub struct LogLimit {
    /// When the present second began.
    began: Millis,
    /// Lines written in it.
    written: u32,
    /// Lines left out since the last one that was written.
    left_out: u64,
}

impl LogLimit {
    /// Whether a line may be written now: how many were left out before it, or `None` for one that is to be left out
    /// itself.
    pub fn allow(&mut self, now: Millis) -> Option<u64> {
        if now.saturating_sub(self.began) >= SECOND {
            (self.began, self.written) = (now, 0);
        }
        if self.written >= LINES_A_SECOND {
            self.left_out += 1;
            return None;
        }
        self.written += 1;
        Some(std::mem::take(&mut self.left_out))
    }

    /// What was left out, once its second is over: for lines that no other one follows.
    pub fn settle(&mut self, now: Millis) -> u64 {
        if now.saturating_sub(self.began) < SECOND {
            return 0;
        }
        std::mem::take(&mut self.left_out)
    }
}

/// The limits of one loop, by kind.
#[derive(Debug)]
pub struct LogLimits {
    kinds: [LogLimit; LineKind::EVERY.len()],
    /// Lines left out, for the metrics.
    suppressed: Arc<AtomicU64>,
}

impl LogLimits {
    /// All loops count into one `suppressed` ([`super::shared::Shared::log_suppressed`]).
    pub fn new(suppressed: Arc<AtomicU64>) -> Self {
        Self { kinds: Default::default(), suppressed }
    }

    /// Whether a line of that kind may be written. Says before it what was left out.
    pub fn allow(&mut self, kind: LineKind, now: Millis) -> bool {
        let Some(left_out) = self.kinds[kind as usize].allow(now) else {
            self.suppressed.fetch_add(1, Ordering::Relaxed);
            return false;
        };
        tell(kind, left_out);
        true
    }

    /// Says what was left out and is over; to be called once a second or so.
    pub fn settle(&mut self, now: Millis) {
        for kind in LineKind::EVERY {
            tell(kind, self.kinds[kind as usize].settle(now));
        }
    }
}

fn tell(kind: LineKind, left_out: u64) {
    if left_out > 0 {
        warn!(kind = kind.name(), left_out, "further lines of this kind were left out");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn so_many_lines_a_second_and_the_rest_is_counted() {
        let mut limit = LogLimit::default();
        let written = (0..100).filter(|_| limit.allow(5).is_some()).count();
        assert_eq!(written, LINES_A_SECOND as usize);
        assert_eq!(limit.settle(900), 0, "the second is not over");
        assert_eq!(limit.allow(1_100), Some(90));
        assert_eq!(limit.allow(1_101), Some(0));
    }

    #[test]
    fn what_no_line_follows_is_settled_once() {
        let mut limit = LogLimit::default();
        assert_eq!((0..12).filter(|_| limit.allow(0).is_none()).count(), 2);
        assert_eq!((limit.settle(999), limit.settle(1_000), limit.settle(1_001)), (0, 2, 0));
        assert_eq!(limit.allow(3_000), Some(0));
    }

    #[test]
    fn kinds_do_not_share_their_limits() {
        let suppressed = Arc::new(AtomicU64::new(0));
        let mut limits = LogLimits::new(Arc::clone(&suppressed));
        let written = (0..50).filter(|_| limits.allow(LineKind::Request, 0)).count();
        assert_eq!(written, 10);
        assert!(limits.allow(LineKind::Publisher, 0), "a flood of requests does not hide publishers");
        assert_eq!(suppressed.load(Ordering::Relaxed), 40);
        limits.settle(2_000);
        assert!(limits.allow(LineKind::Request, 2_000));
        assert!(LineKind::EVERY.iter().enumerate().all(|(place, kind)| *kind as usize == place));
    }
}
