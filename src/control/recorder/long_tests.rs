//! Streams that are longer than their containers' clocks count.

use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

use mpeg2ts::ts::{ReadTsPacket, TsPacketReader, TsPayload};

use super::common::Common;
use super::layout::Kind;
use super::sim::Sim;
use super::tests::{Publisher, dir, mend, play, record_as, runtime, setting};
use crate::media::flv::{FlvItem, FlvReader};
use crate::media::m3u8::Playlist;
use crate::media::segmenter::Lengths;
use crate::media::tag::{Class, TagKind};

/// In milliseconds.
const HOURS: u32 = 3_600_000;
/// The length of the stream.
const LENGTH: u32 = 27 * HOURS;
/// The publisher's first timestamp: 32 bits are over after ten hours.
const FIRST: u32 = u32::MAX - 10 * HOURS + 1;
/// The time at which the 33 bits of a transport stream's clock are over, in milliseconds: it begins at one second.
const WRAP: u32 = 95_442_717;
/// A transport stream's clock counts so far.
const TICKS: u64 = 1 << 33;

/// When frames come: every 12 s, and every 40 ms while the transport stream's clock starts again. A distance grows
/// little by little, so that none is a pause.
fn times() -> Vec<u32> {
    let (mut all, mut time, mut gap) = (Vec::new(), 0, 40);
    while time < LENGTH {
        all.push(time);
        gap = (gap + (gap / 2).min(1_900)).min(12_000);
        let dense = WRAP - 20_000..WRAP + 10_000;
        if dense.contains(&(time + gap)) {
            gap = 40;
        }
        time += gap;
    }
    all
}

/// Publishes the stream in the clock's time.
async fn publish(mut publisher: Publisher, times: &[u32]) {
    for (n, time) in times.iter().enumerate() {
        publisher.keyframe(FIRST.wrapping_add(*time));
        let next = times.get(n + 1).unwrap_or(&LENGTH);
        tokio::time::sleep(Duration::from_millis(u64::from(next - time))).await;
    }
    publisher.end();
}

/// Records the stream as all three kinds.
fn record(times: &[u32]) -> [(Kind, Sim); 3] {
    let disks = Kind::EVERY.map(|kind| (kind, Sim::default()));
    runtime().block_on(async {
        let common = Rc::<Common>::default();
        let publisher = Publisher::starting_at(FIRST);
        let stream = publisher.stream();
        let lengths = Lengths { target: 120_000, longest: 240_000 };
        let one = |n: usize| {
            let (kind, disk) = &disks[n];
            let mut setting = setting(disk, *kind, "a", &common);
            setting.lengths = lengths;
            record_as(*kind, setting, &stream)
        };
        tokio::join!(one(0), one(1), one(2), publish(publisher, times));
        for (kind, disk) in &disks {
            mend(disk, *kind, &common).await;
        }
    });
    disks
}

/// The value near `near` that is `ticks` in 33 bits.
fn unwrapped(near: u64, ticks: u64) -> u64 {
    let ahead = ticks.wrapping_sub(near) % TICKS;
    if ahead < TICKS / 2 { near + ahead } else { near - (TICKS - ahead) }
}

/// Checks a transport stream against the times at which it was published; returns how often its clock began again.
fn check_ts(bytes: &[u8], times: &[u32]) -> u32 {
    let mut reader = TsPacketReader::new(bytes);
    let (mut pictures, mut wraps) = (0, 0);
    let (mut clock, mut sound) = (0, None);
    while let Some(packet) = reader.read_ts_packet().expect("a good transport stream") {
        if let Some(told) = packet.adaptation_field.and_then(|field| field.pcr) {
            let now = unwrapped(clock, told.as_u64() / 300);
            assert!(now > clock, "the clock goes on: {now} after {clock}");
            wraps += u32::from(now / TICKS > clock / TICKS);
            clock = now;
        }
        let Some(TsPayload::PesStart(pes)) = packet.payload else { continue };
        let time = unwrapped(clock, pes.header.pts.expect("each frame has a time").as_u64());
        assert!(time >= clock && time - clock < 20 * 90_000, "{time} at {clock}");
        if pes.header.stream_id.is_video() {
            let want = (u64::from(times[pictures]) + 1_000) * 90;
            assert_eq!(time, want, "picture {pictures}");
            pictures += 1;
        } else {
            assert!(sound.is_none_or(|last| time > last), "sound goes on: {time} after {sound:?}");
            sound = Some(time);
        }
    }
    assert_eq!(pictures, times.len());
    wraps
}

/// The decoding times of the fragments in a segment, by track.
fn fragment_times(segment: &[u8]) -> Vec<u64> {
    let at = |name: &'static [u8; 4]| segment.windows(4).enumerate().filter(move |(_, bytes)| bytes == name);
    let value = |at: usize| u64::from_be_bytes(segment[at + 8..at + 16].try_into().unwrap());
    at(b"tfdt").map(|(at, _)| value(at)).collect()
}

/// The segments of a playlist in their order; checks that it is a whole one.
fn segments<'a>(files: &'a BTreeMap<String, Vec<u8>>, folder: &str, index: &str) -> Vec<&'a [u8]> {
    let text = String::from_utf8(files[&format!("{folder}/{index}")].clone()).unwrap();
    let playlist = Playlist::parse(&text);
    assert!(text.ends_with("#EXT-X-ENDLIST\n") && playlist.head.sequence == 0, "{index}");
    assert_eq!(playlist.segments.iter().filter(|segment| segment.discontinuity).count(), 0, "{index}");
    let total: i64 = playlist.segments.iter().map(|segment| i64::from(segment.duration)).sum();
    assert!((total - i64::from(LENGTH)).abs() < 30_000, "{index}: {total} ms");
    let files = playlist.segments.iter().map(|segment| &files[&format!("{folder}/{}", segment.uri)][..]);
    files.collect()
}

#[test]
fn twenty_seven_hours_go_on_over_the_wraps_of_all_clocks() {
    let times = times();
    let [(_, flv), (_, hls), (_, fmp4)] = record(&times);

    let folder = dir(Kind::Hls).display().to_string();
    let all = segments(&hls.files(), &folder, "index.m3u8").concat();
    assert_eq!(check_ts(&all, &times), 1, "the transport stream's clock began again once");

    let (files, base) = (fmp4.files(), dir(Kind::Fmp4).display().to_string());
    let mut last = 0;
    for segment in segments(&files, &format!("{base}/output_separate"), "video.m3u8") {
        for time in fragment_times(segment) {
            assert!(time > last || last == 0, "{time} after {last}");
            assert!(time - last < 300 * 90_000, "{time} after {last}");
            last = time;
        }
    }
    assert!(last > u64::from(u32::MAX), "the last fragment begins after 32 bits: {last}");
    segments(&files, &format!("{base}/output_separate"), "audio.m3u8");
    segments(&files, &format!("{base}/output_merge"), "index.m3u8");
    assert_eq!(play(Kind::Fmp4, &files, &base).pictures, times.len());

    let (files, base) = (flv.files(), dir(Kind::Flv).display().to_string());
    assert_eq!(play(Kind::Flv, &files, &base).pictures, times.len());
    let mut reader = FlvReader::new(1 << 20);
    reader.push(&files[&format!("{base}/index.flv")]);
    let mut pictures = times.iter();
    while let Some(item) = reader.next_item().unwrap() {
        let FlvItem::Tag(tag) = item else { continue };
        if tag.kind == TagKind::Video && tag.class() == Class::KeyFrame {
            assert_eq!(Some(&tag.timestamp), pictures.next(), "counted from the file's beginning");
        }
    }
}
