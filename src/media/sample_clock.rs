//! Times of sound, counted in samples.
//!
//! A stream's times are whole milliseconds. Written unchanged into another container, each frame would begin a
//! fraction of a millisecond away from the end of the one before, and players would pop. So frames are placed
//! end to end, and only if the stream's own time is too far away is there a gap, or a shortening.

/// How far the count may be from the stream's time, in milliseconds, before it is corrected.
const TOLERANCE: i64 = 100;

/// Places frames of one track end to end.
#[derive(Clone, Debug)]
pub struct SampleClock {
    rate: u32,
    /// The time of the last frame and the expected time of the next one, in samples.
    last: Option<(i64, i64)>,
}

impl SampleClock {
    /// A clock of `rate` samples per second.
    pub fn new(rate: u32) -> Self {
        Self { rate: rate.max(1), last: None }
    }

    /// The time, in samples, of a frame that came with the time `dts` in milliseconds and lasts `samples`. It
    /// is after that of every earlier frame.
    pub fn stamp(&mut self, dts: i64, samples: u32) -> i64 {
        let rate = i64::from(self.rate);
        let own = dts * rate / 1000;
        let time = match self.last {
            None => own,
            Some((_, next)) if (next - own).abs() * 1000 <= TOLERANCE * rate => next,
            Some((last, _)) => own.max(last + 1),
        };
        self.last = Some((time, time + i64::from(samples)));
        time
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rounded_times_become_exact_ones() {
        let mut clock = SampleClock::new(44_100);
        for n in 0..100_000i64 {
            let rounded = (n * 1024 * 1000 + 22_050) / 44_100;
            assert_eq!(clock.stamp(rounded, 1024), n * 1024);
        }
    }

    #[test]
    fn a_gap_stays_a_gap_and_time_never_goes_back() {
        let mut clock = SampleClock::new(48_000);
        assert_eq!([clock.stamp(0, 960), clock.stamp(20, 960), clock.stamp(1000, 960)], [0, 960, 48_000]);
        // Frames that come faster than they last are squeezed together.
        let mut last = 48_000;
        for n in 1..100 {
            let time = clock.stamp(1000 + n, 960);
            assert!(time > last);
            last = time;
        }
        assert!(last < 48_000 + 48 * 300);
    }
}
