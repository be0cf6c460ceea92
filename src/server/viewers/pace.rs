//! A loop that is short of CPU time collects more data before it sends: large sends cost less.
//!
//! The windows of all views are at least as wide as the loop's floor. The floor doubles while the loop has
//! almost no time left, and halves once half of its time has been free for a while. Halving a window costs less
//! than twice the time, so the floor does not oscillate.
//!
//! Views whose width is not configured have no windows while the loop has little to do, and else windows of a picture's
//! time: a picture and its sound are one send. That saves half of the time at most, and the two thresholds are further
//! apart than that.

use std::time::Duration;

use crate::uring::Millis;

/// The interval of the checks.
const LOOK: Millis = 100;
/// Share of the time used, in percent, above which the floor rises, and below which it may fall.
const BUSY: u128 = 90;
const CALM: u128 = 50;
/// The number of consecutive checks before a width falls.
const CALM_LOOKS: u32 = 10;
/// The lowest floor above 0.
const LOWEST: Millis = 5;
/// Share of the time used, in percent, above which a loop has much to do, and below which it has little again.
const MUCH: u128 = 20;
const LITTLE: u128 = 6;
/// The time of a picture at 25 a second.
const PICTURE: Millis = 40;

/// The widths of windows, in milliseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(in crate::server) struct Windows {
    /// At the least.
    pub(in crate::server) floor: Millis,
    /// Where none is configured.
    pub(in crate::server) usual: Millis,
}

/// The windows of a loop.
#[derive(Debug)]
pub(in crate::server) struct Pace {
    highest: Millis,
    windows: Windows,
    /// When it was checked last, and the CPU time of the loop's thread by then.
    looked: Millis,
    used: Duration,
    calm: u32,
    little: u32,
}

impl Pace {
    /// No floor yet; it will never exceed `highest`.
    pub(in crate::server) fn new(highest: Millis) -> Self {
        Self { highest, windows: Windows::default(), looked: 0, used: Duration::ZERO, calm: 0, little: 0 }
    }

    /// Whether it is time for another [`look`](Self::look).
    pub(in crate::server) fn is_due(&self, now: Millis) -> bool {
        now.saturating_sub(self.looked) >= LOOK
    }

    /// Adjusts the widths and returns them; `used` is the CPU time of the loop's thread so far.
    pub(in crate::server) fn look(&mut self, now: Millis, used: Duration) -> Windows {
        let (passed, busy) = (now - self.looked, used.saturating_sub(self.used));
        (self.looked, self.used) = (now, used);
        let percent = busy.as_millis() * 100 / u128::from(passed.max(1));
        let Windows { floor, usual } = &mut self.windows;
        if percent >= BUSY {
            self.calm = 0;
            *floor = (*floor * 2).max(LOWEST).min(self.highest);
        } else if lasts(&mut self.calm, percent < CALM) {
            *floor = if *floor / 2 < LOWEST { 0 } else { *floor / 2 };
        }
        if percent >= MUCH {
            self.little = 0;
            *usual = PICTURE;
        } else if lasts(&mut self.little, percent < LITTLE) {
            *usual = 0;
        }
        self.windows
    }
}

/// Counts checks in a row; whether there were enough.
fn lasts(looks: &mut u32, is_so: bool) -> bool {
    *looks = if is_so { *looks + 1 } else { 0 };
    let enough = *looks >= CALM_LOOKS;
    if enough {
        *looks = 0;
    }
    enough
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(pace: &mut Pace, looks: u32, percent: u64) -> Millis {
        run_all(pace, looks, percent).floor
    }

    fn run_all(pace: &mut Pace, looks: u32, percent: u64) -> Windows {
        let mut windows = pace.windows;
        for _ in 0..looks {
            let (now, used) = (pace.looked + LOOK, pace.used + Duration::from_millis(LOOK * percent / 100));
            assert!(pace.is_due(now) && !pace.is_due(now - 1));
            windows = pace.look(now, used);
        }
        windows
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
    fn a_loop_with_many_viewers_gathers_for_a_picture() {
        let mut pace = Pace::new(500);
        let mut usual = |looks, percent| run_all(&mut pace, looks, percent).usual;
        assert_eq!([usual(20, 19), usual(1, 20), usual(50, 6), usual(9, 5), usual(1, 5)], [0, 40, 40, 40, 0]);
        // What the windows save does not end them.
        assert_eq!([usual(1, 20), usual(50, 10)], [40, 40]);
    }

    #[test]
    fn windows_are_not_widened_when_the_floor_is_disabled() {
        assert_eq!(run(&mut Pace::new(0), 50, 100), 0);
    }
}
