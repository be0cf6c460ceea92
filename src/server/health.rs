//! Whether an upstream answers: unknown until the first request, then the result of the last one.
//!
//! An upstream is up when it has answered, whatever the answer says. An established connection proves nothing,
//! since the kernel accepts connections for a frozen process as well. All loops and the control thread share
//! this state.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use crate::uring::Millis;

/// The pauses between probes of an upstream that is down.
const PROBE: Backoff = Backoff { first: 500, longest: 5_000 };
/// A probe that was started and has not been reported counts as failed after this time.
const PROBE_LOST: Millis = 15_000;

/// The known state of an upstream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// It has not been asked yet.
    Unknown,
    /// It has answered.
    Up,
    /// It did not answer the last request.
    Down,
}

impl State {
    /// Its name in lists and metrics.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Unknown => "unknown",
            Self::Up => "up",
            Self::Down => "down",
        }
    }
}

/// The health of one upstream; see the module.
#[derive(Debug, Default)]
pub struct Health {
    /// Failures in a row, and whether there was ever an answer: see [`Health::state`].
    failures: AtomicU32,
    answered: AtomicU32,
    /// When it may be probed again while it is down.
    next_probe: AtomicU64,
}

impl Health {
    /// The known state.
    pub fn state(&self) -> State {
        match (self.failures.load(Ordering::Relaxed), self.answered.load(Ordering::Relaxed)) {
            (0, 0) => State::Unknown,
            (0, _) => State::Up,
            _ => State::Down,
        }
    }

    /// Whether it answered the last request.
    pub fn is_up(&self) -> bool {
        self.state() == State::Up
    }

    /// Records an answer.
    pub fn answered(&self) {
        self.answered.store(1, Ordering::Relaxed);
        self.failures.store(0, Ordering::Relaxed);
    }

    /// Records that it did not answer, or broke its answer off.
    pub fn failed(&self, now: Millis) {
        let before = self.failures.fetch_add(1, Ordering::Relaxed);
        self.next_probe.store(now + PROBE.pause(before), Ordering::Relaxed);
    }

    /// Claims the next probe of an upstream that is not up: only one runs at a time.
    pub fn take_probe(&self, now: Millis) -> bool {
        let next = self.next_probe.load(Ordering::Relaxed);
        !self.is_up()
            && now >= next
            && self
                .next_probe
                .compare_exchange(next, now + PROBE_LOST, Ordering::Relaxed, Ordering::Relaxed)
                .is_ok()
    }
}

/// Chooses the upstream to ask: the first from `from` on (cyclically) that is not known to be down, or the one
/// at `from` if all are down.
pub fn choose<'a>(healths: impl ExactSizeIterator<Item = &'a Health> + Clone, from: usize) -> usize {
    let count = healths.len().max(1);
    let known: Vec<State> = healths.map(Health::state).collect();
    let round = (0..count).map(|step| (from + step) % count);
    round
        .into_iter()
        .find(|place| known.get(*place).is_some_and(|state| *state != State::Down))
        .unwrap_or(from % count)
}

/// The pauses between tries: each is twice as long as the one before it.
#[derive(Clone, Copy, Debug)]
pub struct Backoff {
    /// After the first failure.
    pub first: Millis,
    /// The longest.
    pub longest: Millis,
}

impl Backoff {
    /// The pause after a failure that followed `failures` others in a row.
    pub fn pause(self, failures: u32) -> Millis {
        self.first.saturating_mul(1 << failures.min(32)).min(self.longest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_state_is_unknown_at_first_then_that_of_the_last_request() {
        let health = Health::default();
        assert_eq!(health.state(), State::Unknown);
        health.answered();
        assert_eq!((health.state(), health.is_up()), (State::Up, true));
        health.failed(1_000);
        assert_eq!(health.state(), State::Down);
        health.answered();
        assert_eq!(health.state(), State::Up);
    }

    #[test]
    fn one_probe_runs_at_a_time_and_the_pauses_grow() {
        let health = Health::default();
        assert!(health.take_probe(0) && !health.take_probe(0));
        health.failed(0);
        assert!(!health.take_probe(499) && health.take_probe(500));
        assert!(
            !health.take_probe(500 + PROBE_LOST - 1) && health.take_probe(500 + PROBE_LOST),
            "a lost probe expires"
        );
        health.failed(20_000);
        assert!(!health.take_probe(20_999) && health.take_probe(21_000));
        health.answered();
        assert!(!health.take_probe(1_000_000), "an upstream that is up needs no probe");
    }

    #[test]
    fn upstreams_that_are_down_are_skipped() {
        let [a, b, c] = [Health::default(), Health::default(), Health::default()];
        let all = [&a, &b, &c];
        let choose = |from| super::choose(all.iter().copied(), from);
        assert_eq!([choose(0), choose(1), choose(5)], [0, 1, 2]);
        a.failed(0);
        assert_eq!([choose(0), choose(2), choose(3)], [1, 2, 1]);
        b.failed(0);
        c.failed(0);
        assert_eq!([choose(0), choose(1), choose(2)], [0, 1, 2], "all are down: each is asked in turn");
    }

    #[test]
    fn pauses_grow_to_the_longest_and_stay_there() {
        let backoff = Backoff { first: 500, longest: 5_000 };
        let pauses: Vec<Millis> = (0..5).map(|failures| backoff.pause(failures)).collect();
        assert_eq!(pauses, [500, 1_000, 2_000, 4_000, 5_000]);
        assert!((5..200).chain([u32::MAX]).all(|failures| backoff.pause(failures) == 5_000));
    }
}
