use super::super::lane::Tags;
use super::super::log::Tracks;
use super::super::log::tests::RETENTION;
use super::*;
use crate::media::amf0;
use Class::{InterFrame, KeyFrame, Metadata, SequenceHeader, Sound};

fn writer() -> StreamWriter {
    StreamWriter::new(1, StreamKey::parse("live/x").unwrap(), 7, Arena::new().unwrap(), RETENTION)
}

fn tag(kind: TagKind, timestamp: u32, body: &'static [u8]) -> Tag {
    Tag { kind, timestamp, body: Bytes::from_static(body) }
}
fn meta() -> Tag {
    tag(TagKind::Script, 0, b"\x02\x00\x0aonMetaData\x05")
}
fn avc() -> Tag {
    tag(TagKind::Video, 0, &[0x17, 0, 0, 0, 0, 1])
}
fn aac() -> Tag {
    tag(TagKind::Audio, 0, &[0xaf, 0, 0x12])
}
fn key(timestamp: u32) -> Tag {
    tag(TagKind::Video, timestamp, &[0x17, 1, 0, 0, 0, 9])
}
fn inter(timestamp: u32) -> Tag {
    tag(TagKind::Video, timestamp, &[0x27, 1, 0, 0, 0, 9])
}
fn sound(timestamp: u32) -> Tag {
    tag(TagKind::Audio, timestamp, &[0xaf, 1, 3])
}

fn push(writer: &mut StreamWriter, tags: &[Tag]) {
    for tag in tags {
        writer.push(tag).unwrap();
    }
    writer.publish();
}

fn content(writer: &StreamWriter, selection: Selection) -> Vec<(Class, u32)> {
    let Some(log) = writer.stream().log(selection) else { return Vec::new() };
    log.index()
        .spans
        .iter()
        .flat_map(|span| Tags(span.segment.bytes()))
        .map(|tag| (tag.class(), tag.timestamp))
        .collect()
}

#[test]
fn a_stream_starts_with_the_sound_before_its_first_picture() {
    let mut writer = writer();
    push(&mut writer, &[meta(), avc(), aac(), sound(0), sound(20), key(33), inter(66)]);
    let log = writer.stream().log(Selection::All).unwrap();
    let index = log.index();
    assert_eq!(index.starts.len(), 1);
    let start = &index.starts[0];
    assert_eq!((start.time, start.clean), (0, true));
    let headers = meta().encoded_len() + avc().encoded_len() + aac().encoded_len();
    assert_eq!(start.at, headers as u64);
    assert_eq!(start.tracks, Tracks { video: true, audio: true });
    assert_eq!(start.headers.first(TagKind::Audio), Some(&aac().body));
}

#[test]
fn frames_before_the_first_keyframe_are_dropped() {
    let mut writer = writer();
    push(&mut writer, &[avc(), inter(0), inter(40), key(80), inter(120)]);
    assert_eq!(content(&writer, Selection::All), [(SequenceHeader, 0), (KeyFrame, 80), (InterFrame, 120)]);
    assert_eq!(writer.dropped, 2);
}

#[test]
fn a_stream_without_keyframes_still_starts() {
    let mut writer = writer();
    for n in 0..200 {
        push(&mut writer, &[inter(n * 40)]);
    }
    let index = writer.stream().log(Selection::All).unwrap().index();
    assert!(!index.starts[0].clean);
    assert_eq!(index.starts[0].time, 5000);
}

#[test]
fn sound_alone_starts_after_a_second_and_every_second() {
    let mut writer = writer();
    push(&mut writer, &[aac()]);
    for n in 0..150 {
        push(&mut writer, &[sound(n * 20)]);
    }
    let index = writer.stream().log(Selection::All).unwrap().index();
    assert_eq!(index.starts.iter().map(|s| s.time).collect::<Vec<_>>(), [0, 1020, 2020]);
    assert!(index.starts.iter().all(|s| s.clean && s.tracks == Tracks { video: false, audio: true }));
}

/// Whatever a publisher sends, and whatever its timestamps, the log drops old tags.
#[test]
fn a_log_is_bounded_without_pictures_and_without_time() {
    const LONG: &[u8] = &[0; 1000];
    let body = |first: &[u8]| Bytes::from([first, LONG].concat());
    let cue = Tag { kind: TagKind::Script, timestamp: 0, body: body(b"\x02\x00\x05onCue") };
    let sound = Tag { kind: TagKind::Audio, timestamp: 0, body: body(&[0xaf, 1]) };
    let header = |n: u8| Tag { kind: TagKind::Video, timestamp: 0, body: body(&[0x17, 0, 0, 0, 0, n]) };
    let streams: [(&str, Vec<Tag>); 5] = [
        ("data", vec![cue.clone()]),
        ("sound at a standstill", vec![sound.clone()]),
        ("announced pictures that never come", vec![avc(), sound.clone()]),
        ("ever new headers", vec![header(1), header(2)]),
        ("a picture, then data", vec![cue, header(3), header(4)]),
    ];
    for (what, tags) in streams {
        let mut writer = writer();
        if what.starts_with("a picture") {
            push(&mut writer, &[key(0)]);
        }
        for tag in tags.iter().cycle().take(20_000) {
            push(&mut writer, std::slice::from_ref(tag));
        }
        let log = writer.stream().log(Selection::All).unwrap();
        let kept = log.head() - log.index().tail();
        // Memory is dropped by whole segments, which are large when much comes in no time.
        assert!(kept <= RETENTION.bytes + (8 << 20), "{what}: {kept} bytes");
    }
}

#[test]
fn repeated_headers_are_dropped_and_changed_ones_counted() {
    let mut writer = writer();
    push(&mut writer, &[meta(), avc(), key(0), meta(), avc(), key(40)]);
    let changed = tag(TagKind::Video, 0, &[0x17, 0, 0, 0, 0, 2]);
    push(&mut writer, &[changed, key(80)]);
    assert_eq!(
        content(&writer, Selection::All),
        [
            (Metadata, 0),
            (SequenceHeader, 0),
            (KeyFrame, 0),
            (KeyFrame, 40),
            (SequenceHeader, 40),
            (KeyFrame, 80)
        ]
    );
    let index = writer.stream().log(Selection::All).unwrap().index();
    assert_eq!(index.starts.iter().map(|s| s.headers.version).collect::<Vec<_>>(), [2, 2, 3]);
}

#[test]
fn the_next_publisher_goes_on_in_the_same_log() {
    let mut writer = writer();
    push(&mut writer, &[avc(), key(1000), inter(1040), sound(1050)]);
    writer.begin_session();
    push(&mut writer, &[avc(), inter(5), key(50), inter(90)]);
    let times: Vec<_> = content(&writer, Selection::All).iter().map(|(_, t)| *t).collect();
    assert_eq!(times, [0, 1000, 1040, 1050, 1135, 1175]);
}

#[test]
fn a_resumed_session_leaves_no_trace() {
    let mut writer = writer();
    push(&mut writer, &[avc(), key(1000), sound(1010), inter(1040), sound(1050)]);
    writer.resume_session();
    push(&mut writer, &[avc(), key(1000), sound(1010), inter(1040), sound(1050), inter(1080), sound(1090)]);
    let times: Vec<_> = content(&writer, Selection::All).iter().map(|(_, t)| *t).collect();
    assert_eq!(times, [0, 1000, 1010, 1040, 1050, 1080, 1090]);
}

#[test]
fn a_resumed_session_does_not_fill_an_earlier_gap() {
    let mut writer = writer();
    // The publisher has skipped from 1010 to the next keyframe.
    push(&mut writer, &[avc(), key(1000), sound(1010), key(2000)]);
    writer.resume_session();
    push(&mut writer, &[avc(), key(1000), sound(1010), sound(1900), key(2000), sound(1990), inter(2040)]);
    let times: Vec<_> = content(&writer, Selection::All).iter().map(|(_, t)| *t).collect();
    assert_eq!(times, [0, 1000, 1010, 2000, 1990, 2040]);
}

#[test]
fn a_copied_timeline_keeps_its_times_over_a_part_that_was_not_received() {
    let mut writer = writer();
    writer.copy_of(5);
    push(&mut writer, &[avc(), key(1000), sound(1010), inter(1040), sound(1030)]);
    writer.resume_session();
    push(&mut writer, &[avc(), key(6000), sound(6010), inter(6040)]);
    let times: Vec<_> = content(&writer, Selection::All).iter().map(|(_, t)| *t).collect();
    assert_eq!(times, [0, 1000, 1010, 1040, 1030, 6000, 6010, 6040]);
}

#[test]
fn a_resumed_session_whose_history_begins_later_starts_at_its_keyframe() {
    let mut writer = writer();
    // The sound runs ahead of the pictures.
    push(&mut writer, &[avc(), key(1000), sound(2100)]);
    writer.resume_session();
    push(&mut writer, &[avc(), key(2000), inter(2040), sound(2120)]);
    let times: Vec<_> = content(&writer, Selection::All).iter().map(|(_, t)| *t).collect();
    assert_eq!(times, [0, 1000, 2100, 2000, 2040, 2120]);
}

#[test]
fn a_lane_that_comes_late_knows_that_sound_is_all_there_is() {
    let mut writer = writer();
    (0..=110).for_each(|n| push(&mut writer, &[sound(n * 10)]));
    writer.publish();
    let choice = Choice { selection: Selection::All, encoding: crate::media::encoding::Encoding::Rtmp };
    assert!(writer.stream().log(choice).is_none());
    writer.publish();
    let log = writer.stream().log(choice).unwrap();
    assert!(log.index().newest_start(log.head(), true).is_some());
}

#[test]
fn a_lane_that_comes_late_starts_with_the_sound_before_the_first_picture() {
    let mut writer = writer();
    push(&mut writer, &[meta(), avc(), aac(), sound(0), sound(20), key(33), inter(66), sound(70)]);
    let choice = Choice { selection: Selection::All, encoding: crate::media::encoding::Encoding::Rtmp };
    assert!(writer.stream().log(choice).is_none() && writer.stream().log(Selection::Video).is_none());
    writer.publish();
    let starts = |choice: Choice| {
        let log = writer.stream().log(choice).unwrap();
        log.index().starts.iter().map(|start| (start.time, start.clean)).collect::<Vec<_>>()
    };
    assert_eq!(starts(choice), [(0, true)]);
    assert_eq!(starts(Selection::Video.into()), [(33, true)]);
}

#[test]
fn a_selection_begins_with_the_headers_that_its_first_frame_needs() {
    let mut writer = writer();
    let changed = tag(TagKind::Audio, 0, &[0xaf, 0, 0x13]);
    push(&mut writer, &[avc(), aac(), key(0), sound(5), changed.clone(), sound(25)]);
    assert!(content(&writer, Selection::Audio).is_empty());
    writer.publish();
    assert_eq!(
        content(&writer, Selection::Audio),
        [(SequenceHeader, 0), (Sound, 5), (SequenceHeader, 5), (Sound, 25)]
    );
    let index = writer.stream().log(Selection::Audio).unwrap().index();
    assert_eq!(index.starts[0].headers.first(TagKind::Audio), Some(&aac().body));
}

#[test]
fn a_selection_requested_before_the_first_picture_is_complete() {
    let mut writer = writer();
    push(&mut writer, &[avc(), aac(), sound(0)]);
    assert!(content(&writer, Selection::Audio).is_empty());
    push(&mut writer, &[sound(20)]);
    assert_eq!(content(&writer, Selection::Audio), [(SequenceHeader, 0), (Sound, 0), (Sound, 20)]);
}

#[test]
fn the_sound_before_the_first_picture_has_its_own_header() {
    let mut writer = writer();
    let changed = tag(TagKind::Audio, 0, &[0xaf, 0, 0x13]);
    push(&mut writer, &[aac(), sound(0), changed, sound(20), avc(), key(33)]);
    let headers = &writer.stream().log(Selection::All).unwrap().index().starts[0].headers;
    assert_eq!(headers.first(TagKind::Audio), Some(&aac().body));
    assert_eq!(
        headers.first(TagKind::Video),
        Some(&avc().body),
        "a header that first comes after it is sent at once"
    );
}

#[test]
fn a_selection_is_made_on_request_and_has_the_newest_gop() {
    let mut writer = writer();
    push(&mut writer, &[meta(), avc(), aac(), key(0), sound(5), key(40), sound(45), inter(80)]);
    assert!(content(&writer, Selection::Video).is_empty());
    assert!(writer.publish());
    assert_eq!(
        content(&writer, Selection::Video),
        [(Metadata, 0), (SequenceHeader, 40), (KeyFrame, 40), (InterFrame, 80)]
    );
    assert!(content(&writer, Selection::Audio).is_empty());
    push(&mut writer, &[sound(85)]);
    assert_eq!(
        content(&writer, Selection::Audio),
        [(Metadata, 0), (SequenceHeader, 40), (Sound, 45), (Sound, 85)]
    );
    let index = writer.stream().log(Selection::Audio).unwrap().index();
    assert!(index.starts[0].clean);
}

#[test]
fn a_selection_requested_before_the_first_picture_has_its_headers() {
    let mut writer = writer();
    assert!(content(&writer, Selection::Video).is_empty());
    push(&mut writer, &[meta(), avc(), aac(), sound(0)]);
    push(&mut writer, &[key(20)]);
    let index = writer.stream().log(Selection::Video).unwrap().index();
    assert_eq!(index.starts[0].headers.first(TagKind::Video), Some(&avc().body));
    assert!(index.starts[0].headers.first(TagKind::Audio).is_none());
}

#[test]
fn a_copy_has_both_epochs_until_another_session_begins() {
    let mut writer = writer();
    writer.begin_session();
    writer.copy_of(99);
    push(&mut writer, &[avc(), key(0)]);
    let names = |writer: &StreamWriter| writer.stream().epochs().collect::<Vec<_>>();
    assert_eq!(names(&writer), [7, 99]);
    writer.resume_session();
    writer.copy_of(5);
    assert_eq!(names(&writer), [7, 99]);
    writer.begin_session();
    assert_eq!(names(&writer), [7]);
}

/// As most encoders write it: picture and sound codecs by number.
fn promising() -> Tag {
    let property = |name: &str, value: f64| (name.to_owned(), amf0::Value::Number(value));
    let properties = vec![property("videocodecid", 7.0), property("audiocodecid", 10.0)];
    let body = amf0::encode(&["onMetaData".into(), amf0::Value::EcmaArray(properties)]);
    Tag { kind: TagKind::Script, timestamp: 0, body: body.into() }
}

#[test]
fn a_promised_track_is_announced_for_a_while() {
    let mut writer = writer();
    push(&mut writer, &[promising(), avc(), key(0)]);
    let tracks = |writer: &StreamWriter| {
        let index = writer.stream().log(Selection::All).unwrap().index();
        index.starts.back().unwrap().tracks
    };
    assert_eq!(tracks(&writer), Tracks { video: true, audio: true }, "it may only be late");
    push(&mut writer, &[key(1000), key(2999), key(3000)]);
    assert_eq!(tracks(&writer), Tracks { video: true, audio: false }, "it did not come in time");
    push(&mut writer, &[aac(), sound(3010), key(4000)]);
    assert_eq!(tracks(&writer), Tracks { video: true, audio: true }, "it came after all");
    let mut lone = self::writer();
    push(&mut lone, &[promising(), aac()]);
    for n in 0..200 {
        push(&mut lone, &[sound(n * 20)]);
    }
    let starts = lone.stream().log(Selection::All).unwrap().index().starts.clone();
    assert_eq!(starts.back().unwrap().tracks, Tracks { video: false, audio: true });
}

/// A wrong bit in the FLV header makes players wait for a track that never comes.
#[test]
fn a_sequence_header_without_frames_is_no_track() {
    let mut writer = writer();
    push(&mut writer, &[avc(), aac(), key(0), inter(40)]);
    let tracks = |writer: &StreamWriter, at: usize| {
        let starts = &writer.stream().log(Selection::All).unwrap().index().starts;
        starts[at].tracks
    };
    assert_eq!(tracks(&writer, 0), Tracks { video: true, audio: true }, "it may be late");
    push(&mut writer, &[key(3000)]);
    assert_eq!(tracks(&writer, 1), Tracks { video: true, audio: false });
    // Sound that has waited for a picture in vain starts without one.
    let mut writer = self::writer();
    push(&mut writer, &[promising(), avc(), aac()]);
    for n in 0..160 {
        push(&mut writer, &[sound(n * 20)]);
    }
    let index = writer.stream().log(Selection::All).unwrap().index();
    assert_eq!((index.starts[0].time, index.starts[0].tracks), (0, Tracks { video: false, audio: true }));
}

/// Codecs identified by FourCC start streams, are kept and are skipped to like any other.
#[test]
fn enhanced_streams_start_at_their_keyframes() {
    let head = tag(TagKind::Video, 0, b"\x90hvc1\x01");
    let opus = tag(TagKind::Audio, 0, b"\x90OpusHead");
    let key = |timestamp| tag(TagKind::Video, timestamp, b"\x91hvc1\0\0\0abc");
    let inter = |timestamp| tag(TagKind::Video, timestamp, b"\xa3hvc1abc");
    let sound = |timestamp| tag(TagKind::Audio, timestamp, b"\x91Opusabc");
    // Multitrack: track 0 of many; ModEx: a nanosecond offset in front. Both are relayed unchanged.
    let multi = tag(TagKind::Video, 120, b"\x96\x01hvc1\0\0\0abc");
    let modex = tag(TagKind::Video, 160, b"\x97\x02\0\0\0\x01hvc1\0\0\0abc");
    let mut writer = writer();
    push(&mut writer, &[head.clone(), opus.clone(), inter(0), key(40), sound(45), inter(80), multi, modex]);
    let index = writer.stream().log(Selection::All).unwrap().index();
    assert_eq!(index.starts.iter().map(|start| start.time).collect::<Vec<_>>(), [40, 120, 160]);
    let headers = &index.starts[0].headers;
    let first = |kind| headers.first(kind);
    assert_eq!((first(TagKind::Video), first(TagKind::Audio)), (Some(&head.body), Some(&opus.body)));
    assert_eq!(writer.dropped, 1);
    assert_eq!(content(&writer, Selection::All).len(), 7, "both headers and five frames");
}

#[test]
fn tracks_that_the_next_publisher_lacks_are_not_announced() {
    let mut writer = writer();
    push(&mut writer, &[meta(), avc(), aac(), key(0), sound(5), inter(40)]);
    writer.begin_session();
    push(&mut writer, &[aac()]);
    for n in 0..60 {
        push(&mut writer, &[sound(n * 20)]);
    }
    let index = writer.stream().log(Selection::All).unwrap().index();
    let start = index.starts.back().unwrap();
    assert_eq!(start.tracks, Tracks { video: false, audio: true });
    assert_eq!(start.headers.bodies().map(|(kind, _)| kind).collect::<Vec<_>>(), [TagKind::Audio]);
    assert!(writer.stream().facts().video.is_none());
}

fn header(kind: TagKind, len: usize, n: u32) -> Tag {
    let first: &[u8] = match kind {
        TagKind::Script => b"\x02\x00\x0aonMetaData\x05",
        TagKind::Video => &[0x17, 0, 0, 0, 0],
        TagKind::Audio => &[0xaf, 0],
    };
    let mut body = [first, &n.to_be_bytes()].concat();
    body.resize(len, 7);
    Tag { kind, timestamp: 0, body: Bytes::from(body) }
}

#[test]
fn a_header_over_the_limit_is_refused_and_the_stream_continues() {
    for kind in [TagKind::Script, TagKind::Video, TagKind::Audio] {
        let mut writer = writer();
        writer.push(&header(kind, HEADER_MAX, 0)).unwrap();
        push(&mut writer, &[key(0), sound(5)]);
        let before = content(&writer, Selection::All);
        let len = HEADER_MAX + 1;
        let refused = writer.push(&header(kind, len, 0));
        assert_eq!(refused, Err(PushError::HeaderTooLarge { kind, len, limit: HEADER_MAX }));
        writer.publish();
        assert_eq!(content(&writer, Selection::All), before);
        push(&mut writer, &[key(40)]);
        assert_eq!(content(&writer, Selection::All).len(), before.len() + 1);
    }
    let error = PushError::HeaderTooLarge { kind: TagKind::Video, len: 2_000_000, limit: HEADER_MAX };
    assert_eq!(error.to_string(), "video sequence header of 2000000 bytes, limit 1048576");
}

/// A publisher that changes its headers all the time makes its stream keep only some of them.
#[test]
fn the_headers_that_a_stream_keeps_are_bounded_together() {
    let retention = Retention { bytes: 256 << 20, frames: 100_000, gop_time: 60_000, history: 600_000 };
    let key_of_live = StreamKey::parse("live/x").unwrap();
    let mut writer = StreamWriter::new(1, key_of_live, 7, Arena::new().unwrap(), retention);
    for n in 0..100 {
        push(&mut writer, &[header(TagKind::Video, HEADER_MAX, n), header(TagKind::Script, HEADER_MAX, n)]);
        push(&mut writer, &[key(n * 40)]);
        let index = writer.stream().log(Selection::All).unwrap().index();
        let bodies = index.starts.iter().flat_map(|start| start.headers.bodies());
        let distinct: std::collections::HashMap<_, _> =
            bodies.map(|(_, body)| (body.as_ptr(), body.len())).collect();
        let kept: usize = distinct.values().sum();
        assert!(kept <= 8 << 20, "{kept} bytes of headers after {n} changes");
    }
}

#[test]
fn only_media_counts_as_activity_and_its_times_are_known() {
    let mut writer = writer();
    let stream = Arc::clone(writer.stream());
    assert_eq!((stream.first_media(), stream.newest_media()), (None, None));
    stream.began(1_000);
    for now in 1_001..5_000 {
        stream.heard(now); // a byte now and then
    }
    push(&mut writer, &[meta(), avc(), aac()]);
    assert_eq!((stream.first_media(), stream.newest_media()), (None, None), "headers are no media");
    assert!(stream.is_silent(5_000, 4_000) && !stream.is_silent(4_999, 4_000));
    for (now, tag) in [(6_000, key(0)), (6_000, sound(0)), (7_000, inter(40)), (9_000, meta())] {
        stream.heard(now);
        push(&mut writer, &[tag]);
    }
    assert_eq!((stream.first_media(), stream.newest_media()), (Some(6_000), Some(7_000)));
    assert!(stream.is_silent(10_000, 3_000) && !stream.is_silent(9_999, 3_000));
    writer.begin_session();
    stream.began(20_000);
    assert_eq!(
        (stream.first_media(), stream.newest_media()),
        (None, None),
        "those were the previous publisher's"
    );
}

/// Two video tracks as OBS sends them: the first without a number, the other as single tracks.
#[test]
fn each_track_has_its_header_and_viewers_start_at_keyframes_of_the_first() {
    let second = tag(TagKind::Video, 0, b"\x96\x00avc1\x01record");
    let colour = tag(TagKind::Video, 0, b"\x94avc1colour");
    let key_of_second = |timestamp| tag(TagKind::Video, timestamp, b"\x96\x01avc1\x01\0\0\0abc");
    let inter_of_second = |timestamp| tag(TagKind::Video, timestamp, b"\xa6\x01avc1\x01\0\0\0abc");
    let mut writer = writer();
    push(&mut writer, &[colour.clone(), avc(), second.clone()]);
    for n in 0..10u32 {
        let (first, other) = if n % 5 == 0 {
            (key(n * 40), key_of_second(n * 40))
        } else {
            (inter(n * 40), inter_of_second(n * 40))
        };
        push(&mut writer, &[first, other]);
    }
    let all = content(&writer, Selection::All);
    assert_eq!(all.len(), 3 + 20);
    assert!(all[3..].chunks(2).all(|pair| pair[0].1 == pair[1].1), "tracks keep their times: {all:?}");
    let index = writer.stream().log(Selection::All).unwrap().index();
    assert_eq!(index.starts.iter().map(|start| start.time).collect::<Vec<_>>(), [0, 200]);
    let bodies = |index: &super::super::index::Index| {
        let bodies = index.starts[1].headers.bodies();
        bodies.map(|(_, body)| body.clone()).collect::<Vec<_>>()
    };
    assert_eq!(bodies(&index), [colour.body, avc().body, second.body.clone()]);
    // A lane that is made later starts at the same place.
    assert!(content(&writer, Selection::Video).is_empty());
    writer.publish();
    let late = writer.stream().log(Selection::Video).unwrap().index();
    assert_eq!(late.starts.iter().map(|start| start.time).collect::<Vec<_>>(), [200]);
    assert_eq!(writer.stream().facts().headers.len(), 2);
    // The first track ends: the other one is what viewers start with.
    for n in 10..1000u32 {
        push(&mut writer, &[if n % 5 == 0 { key_of_second(n * 40) } else { inter_of_second(n * 40) }]);
    }
    let index = writer.stream().log(Selection::All).unwrap().index();
    assert!(index.newest_start(u64::MAX, true).unwrap().time > 39_000);
}

#[test]
fn what_comes_in_front_of_the_first_picture_reaches_viewers() {
    let text = tag(TagKind::Script, 0, b"\x02\x00\x0aonTextData\x05");
    let mut writer = writer();
    push(&mut writer, &[text, meta(), avc(), key(1_000_000), inter(1_000_040)]);
    let log = writer.stream().log(Selection::All).unwrap();
    let start = &log.index().starts[0];
    assert_eq!((start.at, start.time, start.clean), (0, 1_000_000, true));
    let bodies = start.headers.bodies().count();
    assert_eq!(bodies, 2, "headers that first come after it are sent at once");
}

#[test]
fn metadata_of_a_file_does_not_describe_a_live_stream() {
    let property = |name: &str, value: f64| (name.to_owned(), amf0::Value::Number(value));
    let body =
        |properties| Bytes::from(amf0::encode(&["onMetaData".into(), amf0::Value::EcmaArray(properties)]));
    let of_file = body(vec![property("duration", 10.0), property("width", 640.0), property("filesize", 5.0)]);
    let mut writer = writer();
    push(&mut writer, &[Tag { kind: TagKind::Script, timestamp: 0, body: of_file }, avc(), key(0)]);
    let metadata = writer.stream().facts().metadata;
    assert_eq!(metadata, Some(body(vec![property("width", 640.0)])));
    assert_eq!(writer.stream().log(Selection::All).unwrap().index().starts[0].headers.bodies().count(), 2);
}

#[test]
fn a_header_that_cannot_be_read_does_not_replace_a_good_one() {
    let good = tag(TagKind::Audio, 0, &[0xaf, 0, 0x12, 0x10]);
    let mut writer = writer();
    push(&mut writer, &[tag(TagKind::Audio, 0, &[0xaf, 0]), good.clone(), sound(0)]);
    push(&mut writer, &[tag(TagKind::Audio, 0, &[0xaf, 0]), sound(20)]);
    push(&mut writer, &[tag(TagKind::Audio, 0, &[0xaf, 0, 0xff, 0xff]), sound(40)]);
    assert_eq!(content(&writer, Selection::All), [(SequenceHeader, 0), (Sound, 0), (Sound, 20), (Sound, 40)]);
    assert_eq!(writer.stream().facts().audio, Some(good.body));
    let other = tag(TagKind::Audio, 0, &[0xaf, 0, 0x11, 0x90]);
    push(&mut writer, std::slice::from_ref(&other));
    assert_eq!(writer.stream().facts().audio, Some(other.body), "another good one does");
}

#[test]
fn a_configuration_sent_as_a_frame_is_no_frame() {
    let mut writer = writer();
    push(&mut writer, &[tag(TagKind::Audio, 0, &[0xaf, 0, 0x12, 0x10]), sound(0)]);
    push(&mut writer, &[tag(TagKind::Audio, 0, &[0xaf, 1, 0x12, 0x10]), sound(20)]);
    assert_eq!(content(&writer, Selection::All), [(SequenceHeader, 0), (Sound, 0), (Sound, 20)]);
}

/// Slices and parameter sets in tags of their own: viewers start where a picture begins, and its tags share a time.
#[test]
fn a_picture_in_several_tags_has_one_start_and_one_time() {
    let header = Tag {
        kind: TagKind::Video,
        timestamp: 0,
        body: [&[0x17, 0, 0, 0, 0][..], crate::media::h264::tests::AVCC].concat().into(),
    };
    let of = |first: u8, timestamp, unit: &[u8]| Tag {
        kind: TagKind::Video,
        timestamp,
        body: [&[first, 1, 0, 0, 0, 0, 0, 0, u8::try_from(unit.len()).unwrap()][..], unit].concat().into(),
    };
    let mut writer = writer();
    push(&mut writer, &[header]);
    let mut heads = Vec::new();
    for n in 0..20u32 {
        heads.push(writer.stream().log(Selection::All).unwrap().head());
        // All timestamps are the same: pictures are told apart by their slices.
        let first = if n % 10 == 0 { 0x17 } else { 0x27 };
        if n % 10 == 0 {
            push(&mut writer, &[of(first, 7, &[0x67, 77, 1]), of(first, 7, &[0x68, 1])]);
        }
        push(
            &mut writer,
            &[of(first, 7, &[0x65, 0x88]), of(first, 7, &[0x65, 0x40]), of(first, 7, &[0x65, 0x40])],
        );
    }
    let index = writer.stream().log(Selection::All).unwrap().index();
    assert_eq!(index.starts.iter().map(|start| start.at).collect::<Vec<_>>(), [heads[0], heads[10]]);
    let mut times: Vec<_> = content(&writer, Selection::All)[1..].iter().map(|(_, time)| *time).collect();
    times.dedup();
    assert_eq!(times, (0..20).map(|n| 7 + n * 40).collect::<Vec<_>>());
}

/// A group that is larger than what is kept: there is nothing to start with until the next keyframe.
#[test]
fn viewers_never_start_within_a_group() {
    let body = Bytes::from([&[0x27, 1, 0, 0, 0][..], &[9; 4000]].concat());
    let large = |timestamp| Tag { kind: TagKind::Video, timestamp, body: body.clone() };
    let mut writer = writer();
    push(&mut writer, &[avc(), key(0)]);
    for n in 1..600 {
        push(&mut writer, &[large(n * 40)]);
    }
    let log = writer.stream().log(Selection::All).unwrap();
    let index = log.index();
    assert!(index.tail() > 0 && index.newest_start(log.head(), true).is_none(), "more than is kept");
    assert!(index.newest_for_viewers(log.head(), |_| true).is_none());
    push(&mut writer, &[key(24_000), inter(24_040)]);
    let index = log.index();
    assert_eq!(index.newest_for_viewers(log.head(), |_| true).map(|start| start.time), Some(24_000));
    // A group that fits in memory is kept whole, though starts in it are older than the history.
    let mut writer = self::writer();
    push(&mut writer, &[avc(), key(0)]);
    for n in 1..240 {
        push(&mut writer, &[inter(n * 40)]);
    }
    let log = writer.stream().log(Selection::All).unwrap();
    assert_eq!(log.index().newest_for_viewers(log.head(), |_| true).map(|start| start.time), Some(0));
    // Pictures that have ended: sound alone is what is left.
    for n in 0..4000 {
        push(&mut writer, &[sound(9_600 + n * 20)]);
    }
    let start = log.index().newest_for_viewers(log.head(), |_| true).map(|start| start.time);
    assert!(start.is_some_and(|time| time > 88_000), "{start:?}");
    // Another publisher, without any keyframe.
    writer.begin_session();
    for n in 0..400 {
        push(&mut writer, &[inter(n * 40)]);
    }
    let start =
        log.index().newest_for_viewers(log.head(), |start| start.time > 90_000).map(|start| start.clean);
    assert_eq!(start, Some(false));
}

/// The rule holds in lanes that are made later, and for what the last publisher has left.
#[test]
fn viewers_never_start_within_a_group_of_a_late_lane_or_of_an_earlier_publisher() {
    let body = Bytes::from([&[0x27, 1, 0, 0, 0][..], &[9; 4000]].concat());
    let mut writer = writer();
    push(&mut writer, &[avc(), aac(), key(0)]);
    for n in 1..600 {
        push(
            &mut writer,
            &[Tag { kind: TagKind::Video, timestamp: n * 40, body: body.clone() }, sound(n * 40)],
        );
    }
    let choice = Choice { selection: Selection::All, encoding: crate::media::encoding::Encoding::Rtmp };
    assert!(writer.stream().log(choice).is_none());
    writer.publish();
    let logs = [writer.stream().log(Selection::All).unwrap(), writer.stream().log(choice).unwrap()];
    let starts = || logs.each_ref().map(|log| log.index().newest_for_viewers(log.head(), |_| true).cloned());
    assert!(logs.iter().all(|log| !log.index().starts.is_empty()) && starts().iter().all(Option::is_none));
    writer.begin_session();
    push(&mut writer, &[avc(), sound(0)]);
    assert!(starts().iter().all(Option::is_none), "{:?}", starts());
    // A lane that is made now begins with what the last publisher has left.
    assert!(writer.stream().log(Selection::Video).is_none());
    writer.publish();
    let late = writer.stream().log(Selection::Video).unwrap();
    assert!(late.head() > 0 && late.index().newest_for_viewers(late.head(), |_| true).is_none());
    push(&mut writer, &[key(40)]);
    assert!(starts().iter().flatten().filter(|start| start.clean).count() == 2, "{:?}", starts());
}

/// Headers of many tracks are bounded together.
#[test]
fn the_number_of_headers_is_bounded() {
    let mut writer = writer();
    let header = |track: u8| {
        let body = [&b"\x96\x00avc1"[..], &[track, 1]].concat();
        Tag { kind: TagKind::Video, timestamp: 0, body: body.into() }
    };
    for track in 0..64 {
        writer.push(&header(track)).unwrap();
    }
    assert_eq!(writer.push(&header(64)), Err(PushError::TooManyHeaders { count: 65, bytes: 65 * 8 }));
    writer.push(&header(3)).unwrap();
}
