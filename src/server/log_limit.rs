//! Limits of the log lines that peers can cause: lines over the limit are counted instead of written.
//!
//! Each loop has its own limits, without shared state or locks. Lines caused by the program itself or by an
//! operator are not limited.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tracing::warn;

use crate::uring::Millis;

/// Lines of one kind that a loop writes in one second.
const LINES_A_SECOND: u32 = 10;
const SECOND: Millis = 1_000;

/// The subject of a line that peers can cause.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LineKind {
    /// A publisher came, went, or was refused.
    Publisher,
    /// A viewer was disconnected, or has left.
    Viewer,
    /// A request that cannot be answered, or is refused.
    Request,
    /// A peer that broke its protocol.
    Protocol,
    /// A pull that began, failed or ended.
    Pull,
    /// A relay that began, failed or ended.
    Relay,
    /// A peer without a right to a stream.
    Access,
    /// A connection that could not be accepted, or was turned away.
    Accept,
}

impl LineKind {
    const EVERY: [Self; 8] = [
        Self::Publisher,
        Self::Viewer,
        Self::Request,
        Self::Protocol,
        Self::Pull,
        Self::Relay,
        Self::Access,
        Self::Accept,
    ];

    const fn name(self) -> &'static str {
        match self {
            Self::Publisher => "publisher",
            Self::Viewer => "viewer",
            Self::Request => "request",
            Self::Protocol => "protocol",
            Self::Pull => "pull",
            Self::Relay => "relay",
            Self::Access => "access",
            Self::Accept => "accept",
        }
    }
}

/// The limit of one kind of line, per second.
#[derive(Clone, Copy, Debug, Default)]
pub struct LogLimit {
    /// When the current second began.
    began: Millis,
    /// Lines written in it.
    written: u32,
    /// Lines left out since the last one that was written.
    left_out: u64,
}

impl LogLimit {
    /// Whether a line may be written now: `Some` is the number of lines left out before it, `None` means that
    /// this one is left out as well.
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

    /// The number of lines left out in a second that is over, when no other line followed that could report it.
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

    /// Whether a line of that kind may be written. Reports the lines left out before it.
    pub fn allow(&mut self, kind: LineKind, now: Millis) -> bool {
        let Some(left_out) = self.kinds[kind as usize].allow(now) else {
            self.suppressed.fetch_add(1, Ordering::Relaxed);
            return false;
        };
        tell(kind, left_out);
        true
    }

    /// Reports lines left out in seconds that are over; to be called about once a second.
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
    fn lines_over_the_limit_are_counted() {
        let mut limit = LogLimit::default();
        let written = (0..100).filter(|_| limit.allow(5).is_some()).count();
        assert_eq!(written, LINES_A_SECOND as usize);
        assert_eq!(limit.settle(900), 0, "the second is not over");
        assert_eq!(limit.allow(1_100), Some(90));
        assert_eq!(limit.allow(1_101), Some(0));
    }

    #[test]
    fn lines_left_out_at_the_end_are_reported_once() {
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
