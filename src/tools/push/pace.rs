//! When a tag is due, and its time when a file is pushed repeatedly.

use std::time::{Duration, Instant};

use crate::media::tag::{Tag, TagKind};

/// A larger step is a jump of the file's clock and not waited for.
const JUMP: i64 = 10_000;
/// The distance to the next round if a file has too few tags to measure it.
const STEP: i64 = 40;

/// One rising time over all rounds of a file.
#[derive(Debug, Default)]
pub(super) struct Rounds {
    /// Added to the file's times in this round.
    offset: i64,
    /// What was seen of sound and of pictures in this round.
    seen: [Option<Seen>; 2],
}

/// Times as in the file, unwrapped.
#[derive(Clone, Copy, Debug)]
struct Seen {
    first: i64,
    last: i64,
    /// The distance between the last two tags.
    step: i64,
}

impl Rounds {
    /// The time of a tag, in milliseconds since the start of the file's clock; `None` for script data, which
    /// has none.
    pub(super) fn time(&mut self, tag: &Tag) -> Option<i64> {
        let slot = match tag.kind {
            TagKind::Audio => 0,
            TagKind::Video => 1,
            TagKind::Script => return None,
        };
        let near = self.seen[slot].or(self.seen[1 - slot]).map_or(i64::from(tag.timestamp), |seen| seen.last);
        let time = near + i64::from(tag.timestamp.wrapping_sub(low(near)).cast_signed());
        let seen = self.seen[slot].get_or_insert(Seen { first: time, last: time, step: STEP });
        if time > seen.last {
            (seen.last, seen.step) = (time, (time - seen.last).min(JUMP));
        }
        Some(time + self.offset)
    }

    /// The file starts again: its first picture follows the last one at the distance of the last two, or later
    /// if sound lasts longer.
    pub(super) fn next_round(&mut self) {
        let [sound, pictures] = self.seen.map(|seen| seen.map(|seen| (seen.last - seen.first, seen.step)));
        self.offset += match (pictures, sound) {
            (Some((pictures, step)), Some((sound, _))) => (pictures + step).max(sound + 1),
            (Some((length, step)), None) | (None, Some((length, step))) => length + step,
            (None, None) => 0,
        };
        self.seen = [None; 2];
    }
}

/// The low 32 bits, as FLV and RTMP carry time.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "the low 32 bits are meant")]
pub(super) fn low(time: i64) -> u32 {
    time as u32
}

/// Determines when times are due.
#[derive(Debug)]
pub(super) struct Pacer {
    /// 0: at once.
    speed: f64,
    /// A moment and the time that was due then; none before the first tag and after an interruption.
    anchor: Option<(Instant, i64)>,
    last: i64,
}

impl Pacer {
    pub(super) fn new(speed: f64) -> Self {
        Self { speed, anchor: None, last: 0 }
    }

    /// The next tag is due at once: the missed time is not made up.
    pub(super) fn interrupt(&mut self) {
        self.anchor = None;
    }

    /// When a tag of that time is due.
    pub(super) fn due(&mut self, time: i64, now: Instant) -> Instant {
        if self.speed == 0.0 {
            return now;
        }
        let jumped = (time - self.last).abs() > JUMP;
        self.last = time;
        let (since, zero) = *self.anchor.insert(self.anchor.filter(|_| !jumped).unwrap_or((now, time)));
        #[expect(clippy::cast_precision_loss, reason = "days of milliseconds")]
        let millis = (time - zero) as f64 / self.speed;
        since + Duration::from_secs_f64(millis.max(0.0) / 1000.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tag(kind: TagKind, timestamp: u32) -> Tag {
        Tag { kind, timestamp, body: bytes::Bytes::new() }
    }

    #[test]
    fn rounds_follow_each_other_without_a_gap() {
        let mut rounds = Rounds::default();
        let file =
            [(TagKind::Video, 100), (TagKind::Audio, 110), (TagKind::Video, 140), (TagKind::Video, 180)];
        let mut round = || {
            let times = file.map(|(kind, time)| rounds.time(&tag(kind, time)).unwrap());
            assert_eq!(rounds.time(&tag(TagKind::Script, 0)), None);
            rounds.next_round();
            times
        };
        assert_eq!(round(), [100, 110, 140, 180]);
        assert_eq!(round(), [220, 230, 260, 300]);
        assert_eq!(round(), [340, 350, 380, 420]);
    }

    #[test]
    fn time_rises_over_the_wrap() {
        let mut rounds = Rounds::default();
        let start = u32::MAX - 10;
        assert_eq!(rounds.time(&tag(TagKind::Video, start)), Some(i64::from(start)));
        assert_eq!(rounds.time(&tag(TagKind::Video, 29)), Some(i64::from(start) + 40));
        assert_eq!(low(i64::from(start) + 40), 29);
    }

    #[test]
    fn a_jump_is_not_waited_for_and_speed_divides() {
        let now = Instant::now();
        let mut pacer = Pacer::new(2.0);
        assert_eq!(pacer.due(1000, now), now);
        assert_eq!(pacer.due(3000, now), now + Duration::from_secs(1));
        assert_eq!(pacer.due(900_000, now), now);
        assert_eq!(pacer.due(900_100, now), now + Duration::from_millis(50));
        pacer.interrupt();
        assert_eq!(pacer.due(900_200, now), now);
        assert_eq!(Pacer::new(0.0).due(55, now), now);
    }
}
