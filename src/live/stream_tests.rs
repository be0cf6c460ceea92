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
    assert_eq!(start.headers.audio, Some(aac().body));
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
    assert_eq!(index.starts[0].headers.audio, Some(aac().body));
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
    assert_eq!(headers.audio, Some(aac().body));
    assert_eq!(headers.video, Some(avc().body), "a header that first comes after it is sent at once");
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
    assert_eq!(index.starts[0].headers.video, Some(avc().body));
    assert!(index.starts[0].headers.audio.is_none());
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
    assert_eq!((headers.video.as_ref(), headers.audio.as_ref()), (Some(&head.body), Some(&opus.body)));
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
