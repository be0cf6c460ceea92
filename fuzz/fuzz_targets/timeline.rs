//! Any timestamps of any tracks: each track's time only rises, and no step is larger than the publisher's own.
#![no_main]

use libfuzzer_sys::fuzz_target;
use uringcast::live::timeline::{Timeline, Unit};
use uringcast::media::tag::TagKind;

/// A frame's step ahead beyond what its publisher's clock has made: breaks add frames and wait for other tracks.
const STEP_MAX: i64 = 200_000;

fuzz_target!(|data: &[u8]| {
    let mut line = Timeline::default();
    let mut last = [None::<(i64, u32)>; 4];
    let mut clocks = [0u32; 4];
    for command in data.chunks_exact(4) {
        let (track, what) = (usize::from(command[0] & 3), command[0] >> 2);
        let step = u32::from_be_bytes([0, command[1], command[2], command[3]]);
        let clock = &mut clocks[track];
        *clock = match what % 16 {
            0 => step << 8, // any value
            1 => clock.wrapping_sub(step & 0xffff),
            2 => clock.wrapping_add(step & 0xffff),
            3 => *clock,
            4 => {
                line.end_session();
                step
            }
            _ => clock.wrapping_add(step & 0x3f),
        };
        let kind = if track < 2 { TagKind::Video } else { TagKind::Audio };
        let unit = Unit {
            track: u8::from(track % 2 == 1),
            continues: what % 16 == 5,
            passive: what % 16 == 6,
            duration: (what & 16 != 0).then_some(21_333),
            ..Unit::new(kind)
        };
        let time = line.map(unit, *clock);
        if let Some((before, raw)) = last[track] {
            let lax = unit.continues || unit.passive;
            assert!(time > before || (lax && time == before), "{time} after {before}");
            let own = i64::from(clock.wrapping_sub(raw).cast_signed()).clamp(0, 60_000);
            assert!(time - before <= own + STEP_MAX || what % 16 == 4 || line.now() - time < STEP_MAX);
        }
        last[track] = Some((time, *clock));
    }
});
