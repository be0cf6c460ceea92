//! What the server sends in all, so that new viewers, of live streams and of playlists, can be refused before its link is
//! full. Viewers who are there stay.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use crate::config::Rate;
use crate::uring::Millis;

/// What is sent is measured at this interval.
const INTERVAL: Millis = 1_000;

/// Bits a second; see the module.
#[derive(Debug, Default)]
pub(super) struct Egress {
    /// Sent within the last interval.
    measured: AtomicU64,
    /// What the viewers take that have come since then.
    admitted: AtomicU64,
    /// When it was measured, and the bytes sent until then.
    at: AtomicU64,
    bytes: AtomicU64,
}

impl Egress {
    /// Measures again if it is time; `bytes`: all that were ever sent. One loop alone calls this.
    pub(super) fn measure(&self, now: Millis, bytes: impl FnOnce() -> u64) {
        let passed = now.saturating_sub(self.at.load(Relaxed));
        if passed < INTERVAL {
            return;
        }
        let bytes = bytes();
        let sent = bytes.saturating_sub(self.bytes.swap(bytes, Relaxed));
        self.at.store(now, Relaxed);
        self.measured.store(sent.saturating_mul(8_000) / passed, Relaxed);
        self.admitted.store(0, Relaxed);
    }

    /// Whether a viewer of a stream with `bitrate` bits a second fits in; it counts if it does.
    #[must_use]
    pub(super) fn admit(&self, limit: Rate, bitrate: u64) -> bool {
        let others = self.measured.load(Relaxed).saturating_add(self.admitted.load(Relaxed));
        if limit.bits > 0 && others.saturating_add(bitrate) > limit.bits {
            return false;
        }
        self.admitted.fetch_add(bitrate, Relaxed);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn viewers_fit_in_until_the_limit_of_what_is_sent_and_promised() {
        let (egress, limit) = (Egress::default(), Rate { bits: 10_000 });
        assert!(egress.admit(limit, 6_000) && egress.admit(limit, 4_000));
        assert!(!egress.admit(limit, 1), "promised within one interval");
        egress.measure(1_000, || 500);
        assert!(egress.admit(limit, 6_000), "4,000 bits are sent a second");
        assert!(!egress.admit(limit, 1));
        egress.measure(1_999, || unreachable!("it is too early"));
        egress.measure(3_000, || 3_000);
        assert!(!egress.admit(limit, 1), "10,000 are");
        assert!(egress.admit(Rate::default(), u64::MAX), "there is no limit");
        egress.measure(4_000, || 3_000);
        assert!(egress.admit(limit, 10_000), "nothing is sent any more");
    }
}
