//! Maps publishers' timestamps to a clock that never goes back.
//!
//! A publisher counts milliseconds in 32 bits from any value, starts again when it reconnects, and jumps.
//! Viewers must see time that only rises. Internally time is 64 bits; on the wire it is the low 32.

use crate::media::tag::TagKind;

/// Milliseconds on a stream's own clock, which starts at its first publisher's timestamp and never wraps.
pub type StreamTime = i64;

/// A step of a publisher's clock larger than this is a jump, not a pause.
const JUMP: i64 = 30_000;
/// The step at a join of two sessions or after a jump: one frame at 25 per second.
const JOIN_STEP: i64 = 40;

/// The low 32 bits, as FLV and RTMP carry time.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "the low 32 bits are meant")]
pub const fn wire_time(time: StreamTime) -> u32 {
    time as u32
}

/// Maps one publisher after another onto one rising clock.
#[derive(Debug, Default)]
pub struct Timeline {
    session: Option<Session>,
    /// The newest time given out for audio and for video: each kind rises independently.
    last: [Option<StreamTime>; 2],
}

#[derive(Debug)]
struct Session {
    /// The publisher's newest timestamp of each kind, unwrapped: its two clocks may be far apart.
    newest: [Option<i64>; 2],
    /// Stream time minus publisher's time.
    offset: i64,
}

impl Timeline {
    /// The publisher left: the next timestamp is on another clock.
    pub fn end_session(&mut self) {
        self.session = None;
    }

    /// The newest time given out for any kind; 0 before the first.
    pub fn now(&self) -> StreamTime {
        self.last.iter().flatten().copied().max().unwrap_or(0)
    }

    /// Whether no time has been given out yet.
    pub fn is_untouched(&self) -> bool {
        self.last == [None; 2]
    }

    /// The newest time given out for `kind`.
    pub fn newest(&self, kind: TagKind) -> Option<StreamTime> {
        self.last[slot(kind)?]
    }

    /// The time that a timestamp of the current session would get; changes nothing.
    pub fn peek(&self, kind: TagKind, timestamp: u32) -> Option<StreamTime> {
        let session = self.session.as_ref()?;
        Some(unwrap(session.near(slot(kind)?)?, timestamp) + session.offset)
    }

    /// Maps the timestamp of a tag to its time, which is never before an earlier one of its kind.
    ///
    /// Script data gets the newest time: its own timestamps are commonly zero.
    pub fn map(&mut self, kind: TagKind, timestamp: u32) -> StreamTime {
        let Some(slot) = slot(kind) else { return self.now() };
        let newest_out = self.last.iter().flatten().copied().max();
        let session = self.session.get_or_insert_with(|| {
            let offset = newest_out.map_or(0, |out| out + JOIN_STEP - i64::from(timestamp));
            Session { newest: [None; 2], offset }
        });
        let raw = unwrap(session.near(slot).unwrap_or_else(|| i64::from(timestamp)), timestamp);
        if session.newest[slot].is_some_and(|newest| (raw - newest).abs() > JUMP) {
            session.offset = newest_out.unwrap_or(raw) + JOIN_STEP - raw;
            // The other kind moves along, so that it does not count as a second jump.
            session.newest = session.newest.map(|newest| newest.map(|_| raw));
        }
        session.newest[slot] = session.newest[slot].max(Some(raw));
        let time = (raw + session.offset).max(self.last[slot].unwrap_or(i64::MIN));
        self.last[slot] = Some(time);
        time
    }
}

impl Session {
    /// A timestamp close to the next one of a kind.
    fn near(&self, slot: usize) -> Option<i64> {
        self.newest[slot].or(self.newest[1 - slot])
    }
}

fn slot(kind: TagKind) -> Option<usize> {
    match kind {
        TagKind::Audio => Some(0),
        TagKind::Video => Some(1),
        TagKind::Script => None,
    }
}

/// The 64-bit value nearest to `near` whose low 32 bits are `timestamp`.
fn unwrap(near: i64, timestamp: u32) -> i64 {
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "the low 32 bits are meant")]
    let step = timestamp.wrapping_sub(near as u32).cast_signed();
    near + i64::from(step)
}

#[cfg(test)]
mod tests {
    use super::*;
    use TagKind::{Audio, Script, Video};
    use proptest::prelude::*;

    #[test]
    fn the_first_publisher_keeps_its_timestamps() {
        let mut line = Timeline::default();
        assert_eq!(line.map(Video, 1000), 1000);
        assert_eq!(line.map(Audio, 990), 990);
        assert_eq!(line.map(Script, 0), 1000);
        assert_eq!(line.map(Video, 1040), 1040);
    }

    #[test]
    fn the_next_publisher_goes_on_where_the_last_one_stopped() {
        let mut line = Timeline::default();
        line.map(Video, 5000);
        line.map(Audio, 5010);
        line.end_session();
        assert_eq!(line.map(Video, 0), 5050);
        assert_eq!(line.map(Audio, 7), 5057);
    }

    #[test]
    fn time_goes_on_over_the_wrap_at_2_32() {
        let mut line = Timeline::default();
        let start = u32::MAX - 10;
        assert_eq!(line.map(Video, start), i64::from(start));
        assert_eq!(line.map(Video, 29), i64::from(start) + 40);
        assert_eq!(line.map(Audio, u32::MAX), i64::from(u32::MAX));
    }

    #[test]
    fn a_jump_becomes_a_small_step() {
        let mut line = Timeline::default();
        line.map(Video, 1000);
        assert_eq!(line.map(Video, 9_000_000), 1040);
        assert_eq!(line.map(Video, 9_000_040), 1080);
        assert_eq!(line.map(Video, 0), 1120);
    }

    #[test]
    fn both_kinds_jump_together_and_clocks_that_are_far_apart_do_not_jump() {
        let mut line = Timeline::default();
        line.map(Video, 1000);
        line.map(Audio, 1010);
        assert_eq!(line.map(Video, 500_000), 1050);
        assert_eq!(line.map(Audio, 500_010), 1060);
        let mut line = Timeline::default();
        for n in 0..100 {
            assert_eq!(line.map(Video, n * 40), i64::from(n) * 40);
            assert_eq!(line.map(Audio, 90_000 + n * 40), 90_000 + i64::from(n) * 40);
        }
    }

    #[test]
    fn a_pause_stays_a_pause() {
        let mut line = Timeline::default();
        line.map(Video, 1000);
        assert_eq!(line.map(Video, 21_000), 21_000);
    }

    /// Both clocks over sixty days: 32-bit wraps, each followed by a jump.
    #[test]
    fn sixty_days_of_sound_and_pictures() {
        const DAY: u32 = 24 * 3600 * 1000;
        let mut line = Timeline::default();
        let (mut raw, mut last) = (u32::MAX - DAY, None::<(StreamTime, StreamTime)>);
        for n in 0..60 * 24 * 360 {
            let jumps = n % 100_000 == 99_999;
            raw = raw.wrapping_add(if jumps { 2 * DAY } else { 10_000 });
            let (video, audio) = (line.map(Video, raw), line.map(Audio, raw.wrapping_sub(7)));
            if let Some((last_video, last_audio)) = last {
                let step = if jumps { JOIN_STEP } else { 10_000 };
                assert_eq!(video - last_video, step, "at {raw}");
                assert!(audio > last_audio && (video - audio).abs() <= 7 + JOIN_STEP);
            }
            last = Some((video, audio));
        }
        assert!(line.now() > 59 * StreamTime::from(DAY));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]

        #[test]
        fn each_kind_only_rises(tags in prop::collection::vec((any::<bool>(), any::<u32>(), prop::bool::weighted(0.1)), 0..200)) {
            let mut line = Timeline::default();
            let mut last = [i64::MIN; 2];
            for (video, timestamp, ends) in tags {
                if ends { line.end_session(); }
                let time = line.map(if video { Video } else { Audio }, timestamp);
                prop_assert!(time >= last[usize::from(video)]);
                last[usize::from(video)] = time;
            }
        }

        #[test]
        fn sixty_days_of_frames_keep_their_distance(start in any::<u32>()) {
            let mut line = Timeline::default();
            let first = line.map(Video, start);
            let step = 25_000u32;
            for n in 1..=(60 * 24 * 3600 * 1000 / i64::from(step)) {
                #[allow(clippy::cast_possible_truncation)]
                let time = line.map(Video, start.wrapping_add((n as u32).wrapping_mul(step)));
                prop_assert_eq!(time, first + n * i64::from(step));
            }
        }
    }
}
