//! A stream's bit rate: measured by its writer when bytes come, read on demand; no timer is needed.

use std::sync::atomic::{AtomicU64, Ordering};

/// The least time that is measured at once, in milliseconds.
const WINDOW: u64 = 2_000;

/// What came in the newest whole window, and where the current one began.
///
/// The writer stores the rate, then the time, then the bytes; a reader loads them in the opposite order. If it
/// sees new bytes it also sees the new time, and with a new time the new rate.
#[derive(Debug, Default)]
pub(super) struct Rate {
    bits_per_second: AtomicU64,
    since: AtomicU64,
    bytes_before: AtomicU64,
}

impl Rate {
    /// Another publisher begins, after `bytes` that earlier ones sent.
    pub(super) fn begin(&self, now: u64, bytes: u64) {
        self.next_window(now, bytes, 0);
    }

    /// `bytes` have come in total. Called by the writer only.
    pub(super) fn measure(&self, now: u64, bytes: u64) {
        let since = self.since.load(Ordering::Relaxed);
        if now.saturating_sub(since) >= WINDOW {
            let before = self.bytes_before.load(Ordering::Relaxed);
            self.next_window(now, bytes, bits_per_second(bytes - before, now - since));
        }
    }

    fn next_window(&self, now: u64, bytes: u64, rate: u64) {
        self.bits_per_second.store(rate, Ordering::Relaxed);
        self.since.store(now, Ordering::Release);
        self.bytes_before.store(bytes, Ordering::Release);
    }

    /// The recent rate in bits per second, when `bytes` have come in total: that of the newest whole window, or
    /// that of the current one once it is long enough, so that the rate falls to zero when nothing comes.
    pub(super) fn at(&self, now: u64, bytes: u64) -> u64 {
        let before = self.bytes_before.load(Ordering::Acquire);
        let since = self.since.load(Ordering::Acquire);
        if now.saturating_sub(since) < WINDOW {
            return self.bits_per_second.load(Ordering::Relaxed);
        }
        bits_per_second(bytes.saturating_sub(before), now - since)
    }
}

fn bits_per_second(bytes: u64, millis: u64) -> u64 {
    bytes.saturating_mul(8_000) / millis.max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rate_is_of_the_newest_two_seconds_and_falls_when_nothing_comes() {
        let rate = Rate::default();
        rate.begin(10_000, 500);
        assert_eq!(rate.at(10_500, 100_000), 0, "too short to tell");
        for millis in 1..=2_500 {
            rate.measure(10_000 + millis, 500 + millis * 125);
        }
        assert_eq!(rate.at(12_500, 500 + 2_500 * 125), 1_000_000, "of the whole window");
        let bytes = 500 + 2_500 * 125;
        assert_eq!(rate.at(14_000, bytes), 500 * 125 * 8 / 2, "a quarter of the window had any");
        assert!(rate.at(1_000_000, bytes) < 1_000);
        rate.begin(20_000, bytes);
        assert_eq!(rate.at(20_000, bytes), 0, "another publisher begins with nothing");
    }
}
