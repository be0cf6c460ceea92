use super::*;
use TagKind::{Audio, Script, Video};
use proptest::prelude::*;

/// AAC at 48 kHz: 1,024 samples.
const AAC: Unit = Unit { duration: Some(21_333), ..Unit::new(Audio) };
const DAY: u32 = 24 * 3600 * 1000;

impl Timeline {
    fn tag(&mut self, kind: TagKind, timestamp: u32) -> StreamTime {
        self.map(Unit::new(kind), timestamp)
    }
}

/// Frames in the order in which an encoder sends them: pictures every 40 ms, sound every 20 ms, until `end`.
fn interleaved(end: u32) -> Vec<(TagKind, u32)> {
    let pictures = (0..end / 40).map(|n| (Video, n * 40));
    let sound = (0..end / 20).map(|n| (Audio, n * 20));
    let mut all: Vec<_> = pictures.chain(sound).collect();
    all.sort_by_key(|(_, time)| *time);
    all
}

/// Maps timestamps and checks that each track rises; returns the times.
fn run(line: &mut Timeline, tags: &[(TagKind, u32)]) -> Vec<(TagKind, StreamTime)> {
    let mut last = [Video, Audio].map(|kind| (kind, line.newest(kind).unwrap_or(i64::MIN)));
    let mut all = Vec::new();
    for (kind, timestamp) in tags {
        let time = line.tag(*kind, *timestamp);
        let last = &mut last[usize::from(*kind == Audio)].1;
        assert!(time > *last, "{kind:?} {timestamp}: {time} after {last}");
        *last = time;
        all.push((*kind, time));
    }
    all
}

fn times_of(kind: TagKind, all: &[(TagKind, StreamTime)]) -> Vec<StreamTime> {
    all.iter().filter(|(of, _)| *of == kind).map(|(_, time)| *time).collect()
}

fn steps(times: &[StreamTime]) -> Vec<i64> {
    times.windows(2).map(|pair| pair[1] - pair[0]).collect()
}

#[test]
fn the_first_publisher_keeps_its_timestamps() {
    let mut line = Timeline::default();
    assert_eq!(line.tag(Video, 1000), 1000);
    assert_eq!(line.tag(Audio, 990), 990);
    assert_eq!(line.tag(Script, 0), 1000);
    assert_eq!(line.tag(Video, 1040), 1040);
}

#[test]
fn the_next_publisher_goes_on_where_the_last_one_stopped() {
    let mut line = Timeline::default();
    line.tag(Video, 5000);
    line.tag(Audio, 5010);
    line.end_session();
    assert_eq!(line.tag(Video, 0), 5050);
    assert_eq!(line.tag(Audio, 7), 5057);
    // Sound that begins before the first picture, and had gone on longer.
    line.tag(Audio, 900);
    line.end_session();
    assert_eq!(line.tag(Video, 700), 5990);
    assert_eq!(line.tag(Audio, 500), 5951);
    assert_eq!(line.tag(Video, 740), 5951 + 240);
}

#[test]
fn time_goes_on_over_the_wrap_at_2_32() {
    let mut line = Timeline::default();
    let start = u32::MAX - 10;
    assert_eq!(line.tag(Video, start), i64::from(start));
    assert_eq!(line.tag(Video, 29), i64::from(start) + 40);
    assert_eq!(line.tag(Audio, u32::MAX), i64::from(u32::MAX));
}

#[test]
fn a_jump_becomes_a_small_step() {
    let mut line = Timeline::default();
    line.tag(Video, 1000);
    // A millisecond less than a picture's duration: if this timestamp is alone, the next one keeps its time.
    assert_eq!(line.tag(Video, 9_000_000), 1039);
    assert_eq!(line.tag(Video, 9_000_040), 1080);
    assert_eq!(line.tag(Video, 0), 1119);
    assert_eq!(line.tag(Video, 40), 1160);
}

#[test]
fn both_kinds_jump_together_and_clocks_that_are_far_apart_do_not_jump() {
    let mut line = Timeline::default();
    line.tag(Video, 1000);
    line.tag(Audio, 1010);
    assert_eq!(line.tag(Video, 500_000), 1039);
    assert_eq!(line.tag(Audio, 500_010), 1050);
    assert_eq!(line.tag(Video, 500_040), 1080);
    let mut line = Timeline::default();
    for n in 0..100 {
        assert_eq!(line.tag(Video, n * 40), i64::from(n) * 40);
        assert_eq!(line.tag(Audio, 90_000 + n * 40), 90_000 + i64::from(n) * 40);
    }
}

#[test]
fn a_pause_stays_a_pause() {
    let mut line = Timeline::default();
    line.tag(Video, 1000);
    assert_eq!(line.tag(Video, 21_000), 21_000);
    // With sound, the jump is believed as soon as both have taken it.
    let mut line = Timeline::default();
    run(&mut line, &interleaved(4_000));
    assert_eq!(line.tag(Video, 14_000), 3_999);
    assert_eq!(line.tag(Audio, 14_000), 14_000);
    assert_eq!(line.tag(Audio, 14_020), 14_020);
    assert_eq!(line.tag(Video, 14_040), 14_040);
}

/// Pictures every few seconds to sound that goes on, and without sound.
#[test]
fn a_jump_to_where_another_clock_is_by_chance_is_no_pause_of_both() {
    let mut line = Timeline::default();
    for n in 0..50 {
        line.tag(Video, n * 40);
        line.tag(Audio, 200_000 + n * 40);
    }
    let mut last = line.tag(Video, 205_000);
    assert_eq!(last, 1_999, "a jump alone");
    line.tag(Audio, 205_000); // its own jump is short
    for n in 1..50 {
        let time = line.tag(Video, 205_000 + n * 40);
        assert!(time - last <= 41, "a picture is {} ms later", time - last);
        last = time;
    }
}

#[test]
fn rare_pictures_keep_their_times() {
    for distance in [1_000, 2_500, 5_000, 20_000u32] {
        let mut line = Timeline::default();
        for n in 0..20 {
            let start = n * distance;
            assert_eq!(line.tag(Video, start), i64::from(start), "{distance}");
            for sound in (start..start + distance).step_by(20) {
                assert_eq!(line.tag(Audio, sound), i64::from(sound), "{distance}");
            }
        }
        // The sound has ended. At most one picture is taken for a jump.
        let from = line.tag(Video, 20 * distance);
        for n in 21..40 {
            let time = line.tag(Video, n * distance);
            assert_eq!(time - from, i64::from((n - 20) * distance), "{distance}");
        }
    }
}

#[test]
fn a_looped_file_goes_on() {
    let mut line = Timeline::default();
    let clip = interleaved(10_000);
    let all: Vec<_> = (0..4).flat_map(|_| run(&mut line, &clip)).collect();
    for (kind, step) in [(Video, 40), (Audio, 20)] {
        let times = times_of(kind, &all);
        assert!(steps(&times).iter().all(|is| (step - 2..=step + 2).contains(is)), "{kind:?}");
        let end = *times.last().unwrap();
        assert!((end - (40_000 - step)).abs() <= 3, "{kind:?} ends at {end}");
    }
}

/// Every step back is mended, however short, and neither clock lags the other after it.
#[test]
fn clocks_that_are_set_back_go_on_together() {
    for back in [270, 300, 400, 1_000, 7_000, 29_000, 31_000, 3_600_000u32] {
        let mut line = Timeline::default();
        let before: Vec<_> =
            interleaved(8_000).iter().map(|(kind, time)| (*kind, time + 4_000_000)).collect();
        let after: Vec<_> =
            interleaved(8_000).iter().map(|(kind, time)| (*kind, time + 4_008_000 - back)).collect();
        run(&mut line, &before);
        let all = run(&mut line, &after);
        let apart = times_of(Video, &all)[100] - times_of(Audio, &all)[200];
        assert!(apart.abs() <= 2, "{back}: {apart} ms apart");
        assert!((line.now() - 4_015_980).abs() <= 3, "{back}: ends at {}", line.now());
    }
}

/// One clock starts anew or jumps, the other goes on: nothing runs faster, and later both stay as they are.
#[test]
fn one_clock_alone_starts_anew() {
    for (kind, at) in [(Video, 0), (Audio, 0), (Video, 3_600_000), (Audio, 3_600_000), (Video, 42_000)] {
        let mut line = Timeline::default();
        run(&mut line, &interleaved(32_000));
        let rest: Vec<_> = interleaved(60_000)
            .iter()
            .map(|(of, time)| (*of, if *of == kind { at + time } else { 32_000 + time }))
            .collect();
        let all = run(&mut line, &rest);
        for (of, step) in [(Video, 40), (Audio, 20)] {
            let times = times_of(of, &all);
            assert!((times[0] - 32_000).abs() <= 2, "{kind:?} {at}: {of:?} begins at {}", times[0]);
            assert!(
                steps(&times).iter().all(|is| (step - 2..=step + 2).contains(is)),
                "{kind:?} {at}: {of:?}"
            );
        }
    }
}

#[test]
fn single_timestamps_far_off_move_nothing() {
    for off in [40_000, 3_600_000, 0x8000_0000, 0u32.wrapping_sub(60_000), 0u32.wrapping_sub(400)] {
        let mut line = Timeline::default();
        let mut wrong = 0;
        for (n, (kind, time)) in interleaved(60_000).into_iter().enumerate() {
            let time = time + 100_000;
            if n % 7 == 3 {
                line.tag(kind, time.wrapping_add(off));
                wrong += 1;
            } else {
                assert_eq!(line.tag(kind, time), i64::from(time), "{off}, after {wrong}");
            }
        }
    }
}

#[test]
fn timestamps_that_stand_still_advance_by_the_duration() {
    let mut line = Timeline::default();
    for n in 0..1_000 {
        assert_eq!(line.map(AAC, 0), n * 21_333 / 1000);
        if n % 2 == 0 {
            line.tag(Video, 0);
        }
    }
    let apart = line.newest(Video).unwrap() - line.newest(Audio).unwrap();
    assert!(apart.abs() < 200, "pictures follow the sound: {apart}");
    // The clock begins to move: time goes on from where it stood.
    let from = line.now();
    for n in 1..100u32 {
        line.map(AAC, n * 21);
        line.tag(Video, n * 21);
    }
    assert!((line.now() - from - 99 * 21).abs() < 100, "{}", line.now() - from);
    // Pictures alone, of a known duration.
    let mut line = Timeline::default();
    let unit = Unit { duration: Some(33_333), ..Unit::new(Video) };
    for n in 0..300 {
        assert_eq!(line.map(unit, 7), 7 + n * 33_333 / 1000);
    }
}

/// A clock with steps of a second neither runs ahead nor lags.
#[test]
fn frames_that_stand_still_after_a_pause_are_not_as_long_as_the_pause() {
    let mut line = Timeline::default();
    line.tag(Video, 0);
    assert_eq!(line.tag(Video, 17_000), 17_000);
    assert_eq!([(); 3].map(|()| line.tag(Video, 17_000)), [18_000, 19_000, 20_000]);
}

#[test]
fn frames_that_stood_still_are_not_counted_after_the_clock_has_gone_on() {
    let mut line = Timeline::default();
    line.tag(Audio, 10);
    line.tag(Audio, 51_721);
    line.tag(Audio, 69_120);
    for _ in 0..3 {
        line.tag(Audio, 69_120);
    }
    let time = line.tag(Audio, 72_718);
    assert!(line.tag(Audio, 72_718) <= time + 1_000, "one frame later");
}

#[test]
fn a_coarse_clock_keeps_its_pace() {
    for rate in [10, 25, 50, 60] {
        let mut line = Timeline::default();
        for n in 0..rate * 60 {
            let time = line.tag(Video, n / rate * 1000);
            assert!((time - i64::from(n * 1000 / rate)).abs() <= 3_000, "{rate}: {n} at {time}");
        }
    }
}

#[test]
fn tags_of_one_picture_share_its_time_and_tracks_count_each_for_itself() {
    let mut line = Timeline::default();
    let of = |track, continues| Unit { track, continues, ..Unit::new(Video) };
    for n in 0..10u32 {
        let time = i64::from(n) * 40;
        assert_eq!(line.map(of(0, false), n * 40), time);
        assert_eq!(line.map(of(0, true), n * 40 + 1), time, "a slice of the same picture");
        assert_eq!(line.map(of(1, false), n * 40), time);
        assert_eq!(line.map(of(1, true), n * 40), time);
    }
}

/// Both clocks over sixty days: 32-bit wraps, each followed by a jump.
#[test]
fn a_tag_that_is_no_frame_is_not_later_than_its_tracks_first_frame() {
    let mut line = Timeline::default();
    for n in 0..20 {
        line.tag(Video, n * 40);
        line.tag(Audio, n * 40 + 100);
    }
    let second = Unit { track: 1, ..Unit::new(Video) };
    let header = line.map(Unit { passive: true, ..second }, 0);
    assert_eq!((header, line.now()), (760, 860), "as early as the earliest track is");
    assert_eq!(line.map(second, 780), 780);
}

#[test]
fn sixty_days_of_sound_and_pictures() {
    let mut line = Timeline::default();
    let (mut raw, mut last) = (u32::MAX - DAY, None::<(StreamTime, StreamTime)>);
    for n in 0..60 * 24 * 360 {
        let jumps = n % 100_000 == 99_999;
        raw = raw.wrapping_add(if jumps { 2 * DAY } else { 10_000 });
        let (video, audio) = (line.tag(Video, raw), line.tag(Audio, raw.wrapping_sub(7)));
        if let Some((last_video, last_audio)) = last {
            // After a jump the next picture comes after the usual distance.
            assert!((video - last_video - 10_000).abs() <= 1, "at {raw}: {}", video - last_video);
            assert!(audio > last_audio && (video - audio).abs() <= 8);
        }
        last = Some((video, audio));
    }
    assert!(line.now() > 59 * StreamTime::from(DAY));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn each_track_only_rises(
        tags in prop::collection::vec((0..4u8, any::<u32>(), 0..20u8, any::<bool>()), 0..300),
        small in any::<bool>(),
    ) {
        let mut line = Timeline::default();
        let mut last = [i64::MIN; 4];
        for (track, timestamp, what, continues) in tags {
            if what == 0 { line.end_session(); }
            let kind = if track < 2 { Video } else { Audio };
            let timestamp = if small { timestamp % 5_000 } else { timestamp };
            let unit = Unit { track: track % 2, continues, duration: None, ..Unit::new(kind) };
            let (time, last) = (line.map(unit, timestamp), &mut last[usize::from(track)]);
            prop_assert!(time > *last || (continues && time == *last), "{time} after {last}");
            *last = time;
        }
    }

    /// Any series of steps of either clock: time runs neither faster nor slower than the frames do.
    #[test]
    fn time_keeps_its_pace_over_any_breaks(
        breaks in prop::collection::vec((any::<u32>(), any::<bool>(), any::<bool>()), 1..8),
    ) {
        let mut line = Timeline::default();
        let mut clocks = [0u32; 2];
        for (to, video, audio) in &breaks {
            run(&mut line, &interleaved(20_000)
                .iter()
                .map(|(kind, time)| (*kind, clocks[usize::from(*kind == Audio)].wrapping_add(*time)))
                .collect::<Vec<_>>());
            clocks = clocks.map(|clock| clock.wrapping_add(20_000));
            if *video { clocks[0] = *to; }
            if *audio { clocks[1] = *to; }
        }
        let media = 20_000 * i64::try_from(breaks.len()).unwrap();
        // Small steps ahead are the publisher's own; these are none.
        let small = breaks.iter().any(|(to, ..)| *to < 200_000);
        prop_assert!(small || (line.now() - media).abs() <= 50 * i64::try_from(breaks.len()).unwrap(),
            "{} for {media}", line.now());
        let apart = line.newest(Video).unwrap() - line.newest(Audio).unwrap();
        prop_assert!(small || apart.abs() <= 200, "{apart} apart");
    }

    #[test]
    fn sixty_days_of_frames_keep_their_distance(start in any::<u32>()) {
        let mut line = Timeline::default();
        let first = line.tag(Video, start);
        let step = 25_000u32;
        for n in 1..=(60 * 24 * 3600 * 1000 / i64::from(step)) {
            #[allow(clippy::cast_possible_truncation)]
            let time = line.tag(Video, start.wrapping_add((n as u32).wrapping_mul(step)));
            prop_assert_eq!(time, first + n * i64::from(step));
        }
    }
}
