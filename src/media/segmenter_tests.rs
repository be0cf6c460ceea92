use super::*;
use crate::media::track::{Audio, AudioCodec, Video, VideoCodec};

const LENGTHS: Lengths = Lengths { target: 4_000, longest: 20_000 };

/// What a muxer was given: segments with their frames.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Calls(pub(super) Vec<String>);

impl Muxer for Calls {
    fn open(&mut self, opening: &Opening) {
        let tracks = [opening.tracks.video.is_some(), opening.tracks.audio.is_some()];
        let kind = if opening.fresh { "fresh" } else { "plain" };
        let tracks = ["-", "a", "v", "va"][usize::from(tracks[0]) * 2 + usize::from(tracks[1])];
        self.0.push(format!("{kind} {tracks} {}", opening.start));
    }

    fn sample(&mut self, _: &Sample<'_>) {}

    fn close(&mut self, end: i64) {
        self.0.push(format!("end {end}"));
    }
}

pub(super) fn video() -> Arc<Video> {
    Arc::new(Video {
        codec: VideoCodec::H264,
        record: bytes::Bytes::new(),
        width: 1,
        height: 1,
        codecs: String::new(),
        length_size: 4,
        parameter_sets: Vec::new(),
    })
}

pub(super) fn audio() -> Arc<Audio> {
    Arc::new(Audio {
        codec: AudioCodec::Aac,
        record: bytes::Bytes::new(),
        sample_rate: 48_000,
        channels: 2,
        frame: 1024,
        codecs: String::new(),
    })
}

pub(super) fn picture(dts: i64, key: bool) -> Sample<'static> {
    Sample { video: true, dts, cts: 0, key, place: Place::Begins, data: b"v" }
}

pub(super) fn sound(dts: i64) -> Sample<'static> {
    Sample { video: false, dts, cts: 0, key: true, place: Place::Begins, data: b"a" }
}

pub(super) fn segmenter() -> Segmenter {
    Segmenter::new(LENGTHS, Tracks::clone)
}

#[test]
fn cuts_are_at_the_first_keyframe_at_or_after_the_target() {
    let tracks = Tracks { video: Some(video()), audio: Some(audio()) };
    let (mut segmenter, mut calls) = (segmenter(), Calls::default());
    for n in 0..400 {
        segmenter.push(&tracks, &picture(n * 40, n % 75 == 0), &mut calls);
        segmenter.push(&tracks, &sound(n * 40 + 5), &mut calls);
    }
    segmenter.end(&mut calls);
    let want = ["fresh va 0", "end 6000", "plain va 6000", "end 12000", "plain va 12000", "end 16000"];
    assert_eq!(calls.0, want);
}

/// Which samples a muxer was given, and whether each continued a picture.
#[derive(Debug, Default)]
struct Whole(Vec<(i64, bool, Vec<u8>)>);

impl Muxer for Whole {
    fn open(&mut self, _: &Opening) {}
    fn sample(&mut self, sample: &Sample<'_>) {
        let more = sample.place == Place::Continues;
        match self.0.last_mut().filter(|_| more) {
            Some((dts, _, data)) => {
                assert_eq!(*dts, sample.dts);
                data.extend_from_slice(sample.data);
            }
            None => self.0.push((sample.dts, sample.key, sample.data.to_vec())),
        }
    }
    fn close(&mut self, end: i64) {
        self.0.push((end, false, b"end".to_vec()));
    }
}

#[test]
fn pictures_in_several_tags_stay_whole() {
    let tracks = Tracks { video: Some(video()), audio: None };
    let (mut segmenter, mut whole) = (segmenter(), Whole::default());
    let tag = |dts, key, place, data| Sample { video: true, dts, cts: 0, key, place, data };
    segmenter.push(&tracks, &tag(0, true, Place::Continues, b"lost"), &mut whole);
    for n in 0..220 {
        let (dts, key) = (n * 40, n % 100 == 0);
        if key {
            // Parameter sets, with a flag of their own or none.
            segmenter.push(&tracks, &tag(dts, n == 0, Place::Leads, b"sps"), &mut whole);
            segmenter.push(&tracks, &tag(dts, n == 0, Place::Leads, b"pps"), &mut whole);
        }
        segmenter.push(&tracks, &tag(dts, key, Place::Begins, b"1"), &mut whole);
        segmenter.push(&tracks, &tag(dts, key, Place::Continues, b"2"), &mut whole);
    }
    segmenter.end(&mut whole);
    segmenter.push(&tracks, &tag(8_800, false, Place::Continues, b"lost"), &mut whole);
    segmenter.end(&mut whole);
    let ends: Vec<_> = whole.0.iter().filter(|(.., data)| data == b"end").map(|(end, ..)| *end).collect();
    assert_eq!(ends, [4_000, 8_000, 8_800]);
    let pictures: Vec<_> = whole.0.iter().filter(|(.., data)| data != b"end").collect();
    assert_eq!(pictures.len(), 220);
    for (dts, key, data) in pictures {
        let want = if dts % 4_000 == 0 { &b"spspps12"[..] } else { b"12" };
        assert_eq!((*key, &data[..]), (dts % 4_000 == 0, want), "{dts}");
    }
    assert_eq!(segmenter.dropped, 2);
}

/// One picture in 20 seconds: the last one lasts as long as the others.
#[test]
fn rare_pictures_last_until_the_next_one() {
    for distance in [1_000, 5_000, 20_000] {
        let tracks = Tracks { video: Some(video()), audio: None };
        let (mut segmenter, mut calls) = (segmenter(), Calls::default());
        for n in 0..10 {
            segmenter.push(&tracks, &picture(n * distance, true), &mut calls);
        }
        segmenter.end(&mut calls);
        assert_eq!(calls.0.last().unwrap(), &format!("end {}", 10 * distance));
        // With sound, which ends first.
        let tracks = Tracks { video: Some(video()), audio: Some(audio()) };
        let (mut segmenter, mut calls) = (self::segmenter(), Calls::default());
        for n in 0..3 * distance / 20 {
            if n * 20 % distance == 0 {
                segmenter.push(&tracks, &picture(n * 20, true), &mut calls);
            }
            segmenter.push(&tracks, &sound(n * 20), &mut calls);
        }
        segmenter.push(&tracks, &picture(3 * distance, true), &mut calls);
        segmenter.push(&tracks, &sound(3 * distance), &mut calls);
        segmenter.end(&mut calls);
        assert_eq!(calls.0.last().unwrap(), &format!("end {}", 3 * distance + 20));
    }
}

#[test]
fn sound_alone_is_cut_by_time_after_waiting_for_an_announced_picture() {
    let tracks = Tracks { video: Some(video()), audio: Some(audio()) };
    let (mut segmenter, mut calls) = (segmenter(), Calls::default());
    for n in 0..500 {
        segmenter.push(&tracks, &sound(n * 20), &mut calls);
    }
    segmenter.end(&mut calls);
    let want = ["fresh a 0", "end 3990", "plain a 3990", "end 7980", "plain a 7980", "end 10000"];
    let rounded: Vec<_> =
        calls.0.iter().map(|line| line.replace("4000", "3990").replace("8000", "7980")).collect();
    assert_eq!(rounded, want);
}

#[test]
fn pictures_without_a_keyframe_are_cut_at_the_longest() {
    let tracks = Tracks { video: Some(video()), audio: None };
    let (mut segmenter, mut calls) = (segmenter(), Calls::default());
    for n in 0..1000 {
        segmenter.push(&tracks, &picture(n * 40, false), &mut calls);
    }
    segmenter.end(&mut calls);
    assert_eq!(calls.0, ["fresh v 0", "end 20000", "plain v 20000", "end 40000"]);
}

#[test]
fn another_header_begins_a_fresh_segment_at_the_next_keyframe() {
    let (sound_track, pictures) = (audio(), [video(), video()]);
    let (mut segmenter, mut calls) = (segmenter(), Calls::default());
    for n in 0..100 {
        let tracks =
            Tracks { video: Some(pictures[usize::from(n >= 50)].clone()), audio: Some(sound_track.clone()) };
        segmenter.push(&tracks, &picture(n * 40, n % 50 == 0), &mut calls);
        segmenter.push(&tracks, &sound(n * 40 + 5), &mut calls);
    }
    segmenter.end(&mut calls);
    assert_eq!(calls.0, ["fresh va 0", "end 2000", "fresh va 2000", "end 4000"]);
    // Sound with a new header: its frames wait for a picture to start with.
    let (mut segmenter, mut calls) = (self::segmenter(), Calls::default());
    let sounds = [audio(), audio()];
    for n in 0..100 {
        let tracks =
            Tracks { video: Some(pictures[0].clone()), audio: Some(sounds[usize::from(n >= 40)].clone()) };
        segmenter.push(&tracks, &picture(n * 40, n % 50 == 0), &mut calls);
        segmenter.push(&tracks, &sound(n * 40 + 5), &mut calls);
    }
    segmenter.end(&mut calls);
    assert_eq!((calls.0.len(), segmenter.dropped), (4, 10));
    assert_eq!(calls.0[1..3], ["end 2000", "fresh va 2000"]);
}

#[test]
fn a_gap_begins_a_fresh_segment_with_a_keyframe() {
    let tracks = Tracks { video: Some(video()), audio: None };
    let (mut segmenter, mut calls) = (segmenter(), Calls::default());
    for n in 0..50 {
        segmenter.push(&tracks, &picture(n * 40, n == 0), &mut calls);
    }
    segmenter.gap(&mut calls);
    segmenter.push(&tracks, &picture(9000, false), &mut calls);
    for n in 0..50 {
        segmenter.push(&tracks, &picture(9040 + n * 40, n == 0), &mut calls);
    }
    segmenter.end(&mut calls);
    assert_eq!(calls.0, ["fresh v 0", "end 2000", "fresh v 9040", "end 11040"]);
}
