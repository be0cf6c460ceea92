//! A loop that is short of CPU time collects more data before it sends: large sends cost less.
//!
//! The windows of all views are at least as wide as the loop's floor. The floor doubles while the loop has
//! almost no time left, and halves once half of its time has been free for a while. Halving a window costs less
//! than twice the time, so the floor does not oscillate.

use std::time::Duration;

use crate::uring::Millis;

/// The interval of the checks.
const LOOK: Millis = 100;
/// Share of the time used, in percent, above which the floor rises, and below which it may fall.
const BUSY: u128 = 90;
const CALM: u128 = 50;
/// The number of consecutive calm checks before it falls.
const CALM_LOOKS: u32 = 10;
/// The lowest floor above 0.
const LOWEST: Millis = 5;

/// The floor of a loop's windows.
#[derive(Debug)]
pub(in crate::server) struct Pace {
    highest: Millis,
    floor: Millis,
    /// When it was checked last, and the CPU time of the loop's thread by then.
    looked: Millis,
    used: Duration,
    calm: u32,
}

impl Pace {
    /// No floor yet; it will never exceed `highest`.
    pub(in crate::server) fn new(highest: Millis) -> Self {
        Self { highest, floor: 0, looked: 0, used: Duration::ZERO, calm: 0 }
    }

    /// Whether it is time for another [`look`](Self::look).
    pub(in crate::server) fn is_due(&self, now: Millis) -> bool {
        now.saturating_sub(self.looked) >= LOOK
    }

    /// Adjusts the floor and returns it; `used` is the CPU time of the loop's thread so far.
    pub(in crate::server) fn look(&mut self, now: Millis, used: Duration) -> Millis {
        let (passed, busy) = (now - self.looked, used.saturating_sub(self.used));
        (self.looked, self.used) = (now, used);
        let percent = busy.as_millis() * 100 / u128::from(passed.max(1));
        if percent >= BUSY {
            self.calm = 0;
            self.floor = (self.floor * 2).max(LOWEST).min(self.highest);
        } else if percent >= CALM {
            self.calm = 0;
        } else {
            self.calm += 1;
            if self.calm >= CALM_LOOKS {
                self.calm = 0;
                self.floor = if self.floor / 2 < LOWEST { 0 } else { self.floor / 2 };
            }
        }
        self.floor
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(pace: &mut Pace, looks: u32, percent: u64) -> Millis {
        let mut floor = pace.floor;
        for _ in 0..looks {
            let (now, used) = (pace.looked + LOOK, pace.used + Duration::from_millis(LOOK * percent / 100));
            assert!(pace.is_due(now) && !pace.is_due(now - 1));
            floor = pace.look(now, used);
        }
        floor
    }

    #[test]
    fn it_rises_while_time_is_short_and_falls_when_there_is_plenty() {
        let mut pace = Pace::new(500);
        assert_eq!(run(&mut pace, 20, 80), 0);
        assert_eq!([run(&mut pace, 1, 100), run(&mut pace, 1, 95), run(&mut pace, 1, 90)], [5, 10, 20]);
        assert_eq!(run(&mut pace, 20, 100), 500);
        assert_eq!(run(&mut pace, 100, 70), 500);
        assert_eq!([run(&mut pace, 9, 40), run(&mut pace, 1, 40)], [500, 250]);
        assert_eq!(run(&mut pace, 100, 10), 0);
    }

    #[test]
    fn windows_are_not_widened_when_the_floor_is_disabled() {
        assert_eq!(run(&mut Pace::new(0), 50, 100), 0);
    }
}
