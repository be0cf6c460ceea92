//! When a stream's current publisher began, and when it sent what. Times are the caller's, in milliseconds.

use std::sync::atomic::{AtomicU64, Ordering};

/// Stands for a time that is not known.
const NEVER: u64 = u64::MAX;

/// The times of the current publisher. Only its thread stores them; any thread may read them.
#[derive(Debug)]
pub(super) struct Life {
    since: AtomicU64,
    /// When its newest bytes came, media or not: the time of what is pushed next.
    heard: AtomicU64,
    /// When its first and its newest media frame came; [`NEVER`]: none has come.
    first_media: AtomicU64,
    newest_media: AtomicU64,
    /// The longest time between two of its media frames.
    longest_pause: AtomicU64,
}

impl Default for Life {
    fn default() -> Self {
        let [since, heard, longest_pause] = [0; 3].map(AtomicU64::new);
        let [first_media, newest_media] = [NEVER; 2].map(AtomicU64::new);
        Self { since, heard, first_media, newest_media, longest_pause }
    }
}

impl Life {
    pub(super) fn began(&self, now: u64) {
        self.since.store(now, Ordering::Relaxed);
        self.heard.store(now, Ordering::Relaxed);
        self.first_media.store(NEVER, Ordering::Relaxed);
        self.newest_media.store(NEVER, Ordering::Relaxed);
        self.longest_pause.store(0, Ordering::Relaxed);
    }

    pub(super) fn heard(&self, now: u64) {
        self.heard.store(now, Ordering::Relaxed);
    }

    /// A media frame came with the bytes that were last reported.
    pub(super) fn came_media(&self) {
        let now = self.heard.load(Ordering::Relaxed);
        let before = self.newest_media.load(Ordering::Relaxed);
        if before == now {
            return;
        }
        self.newest_media.store(now, Ordering::Relaxed);
        if before == NEVER {
            self.first_media.store(now, Ordering::Relaxed);
        } else if now.saturating_sub(before) > self.longest_pause.load(Ordering::Relaxed) {
            self.longest_pause.store(now.saturating_sub(before), Ordering::Relaxed);
        }
    }

    pub(super) fn first_media(&self) -> Option<u64> {
        known(&self.first_media)
    }

    pub(super) fn newest_media(&self) -> Option<u64> {
        known(&self.newest_media)
    }

    pub(super) fn is_silent(&self, now: u64, limit: u64) -> bool {
        let usual = self.longest_pause.load(Ordering::Relaxed);
        let since = self.newest_media().unwrap_or_else(|| self.since.load(Ordering::Relaxed));
        now.saturating_sub(since) >= limit.max(usual.saturating_mul(3))
    }

    pub(super) fn uptime(&self, now: u64) -> u64 {
        now.saturating_sub(self.since.load(Ordering::Relaxed))
    }
}

fn known(time: &AtomicU64) -> Option<u64> {
    Some(time.load(Ordering::Relaxed)).filter(|time| *time != NEVER)
}
