//! The target duration, and where segments end so that it holds.

use super::tests::{Calls, audio, picture, segmenter, sound, video};
use super::*;

/// The segments of a muxer's calls: whether they are fresh, and their lengths.
fn lengths(calls: &Calls) -> Vec<(bool, i64)> {
    let number = |line: &String| line.rsplit(' ').next().unwrap().parse::<i64>().unwrap();
    let pairs = calls.0.chunks_exact(2);
    pairs.map(|pair| (pair[0].starts_with("fresh"), number(&pair[1]) - number(&pair[0]))).collect()
}

/// Feeds pictures and sound in the order of their times; `keys` are times of keyframes.
fn feed(pictures: &[i64], keys: &[i64], sounds: &[i64]) -> (Segmenter, Calls) {
    let tracks =
        Tracks { video: (!pictures.is_empty()).then(video), audio: (!sounds.is_empty()).then(audio) };
    let (mut segmenter, mut calls) = (segmenter(), Calls::default());
    let mut samples: Vec<_> = pictures.iter().map(|dts| picture(*dts, keys.contains(dts))).collect();
    samples.extend(sounds.iter().map(|dts| sound(*dts)));
    samples.sort_by_key(|sample| (sample.dts, !sample.video));
    for sample in &samples {
        segmenter.push(&tracks, sample, &mut calls);
    }
    segmenter.end(&mut calls);
    (segmenter, calls)
}

/// Times from `from` to before `to`, every `step`.
fn every(step: usize, from: i64, to: i64) -> Vec<i64> {
    (from..to).step_by(step).collect()
}

/// Checks that no segment, rounded to seconds, exceeds the target duration.
fn assert_kept(segmenter: &Segmenter, calls: &Calls, target: u32) {
    assert_eq!(segmenter.target_seconds(), Some(target), "{calls:?}");
    let longest = lengths(calls).into_iter().map(|(_, length)| (length + 500) / 1000).max();
    assert!(longest <= Some(i64::from(target)), "{target}: {calls:?}");
}

#[test]
fn the_target_duration_is_a_second_more_than_the_set_length_or_the_longest_group() {
    for (group, target) in [(1_000, 5), (2_000, 5), (3_000, 7), (10_000, 11)] {
        let (segmenter, calls) = feed(&every(40, 0, 60_000), &every(group, 0, 60_000), &every(20, 5, 60_000));
        assert_kept(&segmenter, &calls, target);
        assert!(lengths(&calls)[1..].iter().all(|(fresh, _)| !fresh), "{calls:?}");
    }
}

#[test]
fn groups_that_grow_while_live_are_cut_inside() {
    let keys = [every(2_000, 0, 20_000), every(15_000, 20_000, 90_000)].concat();
    let (segmenter, calls) = feed(&every(40, 0, 90_000), &keys, &every(20, 5, 90_000));
    assert_kept(&segmenter, &calls, 5);
    assert!(lengths(&calls)[1..].iter().all(|(fresh, _)| !fresh), "{calls:?}");
    let starts: Vec<_> = calls.0.iter().filter(|line| line.starts_with("plain")).collect();
    assert!(starts.iter().any(|line| line.ends_with(" 65000")), "at a keyframe where it fits: {starts:?}");
}

#[test]
fn sound_that_goes_on_without_pictures_is_cut_by_time() {
    let pictures = [every(40, 0, 9_000), every(40, 33_000, 50_000)].concat();
    let (segmenter, calls) = feed(&pictures, &every(1_000, 0, 50_000), &every(20, 5, 50_000));
    assert_kept(&segmenter, &calls, 5);
    assert!(lengths(&calls)[1..].iter().all(|(fresh, _)| !fresh), "{calls:?}");
}

#[test]
fn a_pause_ends_the_segment_and_the_next_one_is_fresh() {
    let with_pause = |step| [every(step, 0, 9_000), every(step, 33_000, 50_000)].concat();
    for sounds in [Vec::new(), with_pause(20)] {
        let (segmenter, calls) = feed(&with_pause(40), &every(1_000, 0, 50_000), &sounds);
        assert_kept(&segmenter, &calls, 5);
        let fresh: Vec<_> = calls.0.iter().filter(|line| line.starts_with("fresh")).collect();
        assert_eq!(fresh.len(), 2, "{calls:?}");
        assert!(fresh[1].ends_with(" 33000"), "{calls:?}");
        let whole: i64 = lengths(&calls).iter().map(|(_, length)| length).sum();
        assert_eq!(whole, 26_000, "the pause is in no segment: {calls:?}");
    }
    // A pause in the first segment.
    let pictures = [every(40, 0, 2_000), every(40, 26_000, 40_000)].concat();
    let (segmenter, calls) = feed(&pictures, &every(1_000, 0, 40_000), &[]);
    assert_kept(&segmenter, &calls, 5);
    // A short one is part of a segment.
    let pictures = [every(40, 0, 6_000), every(40, 7_000, 20_000)].concat();
    let (_, calls) = feed(&pictures, &every(1_000, 0, 20_000), &[]);
    assert!(lengths(&calls)[1..].iter().all(|(fresh, _)| !fresh), "{calls:?}");
}

#[test]
fn few_pictures_a_second_are_no_pause() {
    for (distance, target) in [(1_000, 5), (5_000, 6), (20_000, 21)] {
        let pictures = every(distance, 0, 200_000);
        for sounds in [Vec::new(), every(20, 5, 200_000)] {
            let (segmenter, calls) = feed(&pictures, &pictures, &sounds);
            assert_kept(&segmenter, &calls, target);
            let lengths = lengths(&calls);
            assert!(lengths[1..].iter().all(|(fresh, _)| !fresh), "{calls:?}");
            let whole: i64 = lengths.iter().map(|(_, length)| length).sum();
            let want = if sounds.is_empty() { 200_000 } else { 200_005 };
            assert_eq!(
                whole, want,
                "the last picture lasts as long as those before, or the sound: {calls:?}"
            );
        }
    }
}

#[test]
fn segments_keep_the_target_duration_whatever_comes() {
    use proptest::prelude::*;
    let frames = proptest::collection::vec((0..60_i64, 0..400_i64, any::<bool>(), 0..25_u8), 1..400);
    proptest!(|(frames in frames)| {
        let tracks = Tracks { video: Some(video()), audio: Some(audio()) };
        let (mut segmenter, mut calls) = (segmenter(), Calls::default());
        let mut time = 0;
        for (step, pause, is_video, key) in frames {
            // Most steps are usual ones, some are pauses of up to 40 s.
            time += if pause == 0 { 40_000 } else if pause < 4 { pause * 1_000 } else { step };
            let sample = if is_video { picture(time, key == 0) } else { sound(time) };
            segmenter.push(&tracks, &sample, &mut calls);
        }
        segmenter.end(&mut calls);
        let all = lengths(&calls);
        let target = segmenter.target_seconds().map_or(0, i64::from);
        prop_assert!(all.iter().all(|(_, length)| (length + 500) / 1000 <= target), "{target} {:?}", all);
    });
}
