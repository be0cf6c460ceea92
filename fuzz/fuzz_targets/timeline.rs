//! Any timestamps of any tracks: each track's time only rises, no frame is far ahead of what its publisher's clock and
//! the stream's newest time say, and a session begins where the one before ended.
#![no_main]

use libfuzzer_sys::fuzz_target;
use uringcast::live::timeline::{Timeline, Unit};
use uringcast::media::tag::TagKind;

/// The largest step ahead that is a pause, in milliseconds; a larger one is a jump and adds no time.
const PAUSE_MAX: i64 = 30_000;
/// How far a frame may be ahead of the newest time of all tracks, its own step apart: a track that waited for another
/// one, and a frame that is as long as a pause.
const AHEAD_MAX: i64 = 2 * PAUSE_MAX + 5_000;
/// The distance of two sessions.
const JOIN: i64 = 40;

/// What is known of a track.
#[derive(Clone, Copy, Default)]
struct Seen {
    /// The time of its newest frame.
    last: Option<i64>,
    /// It has had a frame in this session.
    begun: bool,
    clock: u32,
}

fuzz_target!(|data: &[u8]| {
    let mut line = Timeline::default();
    let mut tracks = [Seen::default(); 4];
    for command in data.chunks_exact(4) {
        let (track, what) = (usize::from(command[0] & 3), command[0] >> 2);
        let step = u32::from_be_bytes([0, command[1], command[2], command[3]]);
        if what % 16 == 4 {
            line.end_session();
            tracks.iter_mut().for_each(|track| track.begun = false);
        }
        let before = tracks[track].clock;
        let clock = match what % 16 {
            0 => step << 8, // any value
            1 => before.wrapping_sub(step & 0xffff),
            2 => before.wrapping_add(step & 0xffff),
            3 => before,
            4 => step,
            _ => before.wrapping_add(step & 0x3f),
        };
        let kind = if track < 2 { TagKind::Video } else { TagKind::Audio };
        let unit = Unit {
            track: u8::from(track % 2 == 1),
            continues: what % 16 == 5,
            passive: what % 16 == 6,
            duration: (what & 16 != 0).then_some(21_333),
            ..Unit::new(kind)
        };
        let (newest, is_untouched) = (line.now(), line.is_untouched());
        let time = line.map(unit, clock);
        let is_first_of_all = tracks.iter().all(|track| !track.begun);
        let seen = &mut tracks[track];
        if let Some(last) = seen.last {
            let lax = unit.continues || unit.passive;
            assert!(time > last || (lax && time == last), "{time} after {last}");
        }
        if seen.begun {
            let own = i64::from(clock.wrapping_sub(before).cast_signed()).clamp(0, PAUSE_MAX);
            assert!(time <= newest + own + AHEAD_MAX, "{time} when the newest was {newest}, {own} later");
        } else if !unit.passive && is_first_of_all && !is_untouched {
            assert_eq!(time, newest + JOIN, "a session's first frame");
        }
        // What comes before a track's first frame is no part of it.
        if !unit.passive || seen.last.is_some() {
            seen.last = Some(time);
        }
        seen.begun |= !unit.passive;
        seen.clock = clock;
    }
});
