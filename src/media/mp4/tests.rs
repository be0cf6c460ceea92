use std::sync::Arc;

use bytes::Bytes;
use proptest::prelude::*;

use super::fragment::{Fragmenter, Output};
use super::merge::Merger;
use super::*;
use crate::media::picture::Place;
use crate::media::remux::Sample;
use crate::media::segmenter::{Muxer, Opening};
use crate::media::{aac, h264};

fn tracks() -> Tracks {
    let video = h264::parse_config(&Bytes::from_static(h264::tests::AVCC)).unwrap();
    let audio = aac::parse_config(&Bytes::from_static(&[0x12, 0x10])).unwrap();
    Tracks { video: Some(Arc::new(video)), audio: Some(Arc::new(audio)) }
}

/// Segments of one second each, of 25 pictures and their sound: the bytes of each output's files.
fn segments(count: i64, size: usize) -> Vec<[Vec<u8>; 3]> {
    let mut fragmenter = Fragmenter::default();
    let (mut files, mut sound) = (Vec::new(), 0);
    for second in 0..count {
        let start = 5_000 + second * 1000;
        fragmenter.open(&Opening { tracks: tracks(), fresh: second == 0, start });
        for n in 0..25 {
            let dts = start + n * 40;
            let cts = if n % 3 == 0 { 80 } else { -40 };
            let data = vec![7; size + usize::try_from(n).unwrap()];
            fragmenter.sample(&Sample {
                video: true,
                dts,
                cts,
                key: n == 0,
                place: Place::Begins,
                data: &data,
            });
            while sound * 1024 * 1000 / 44_100 < (dts - 5_000) {
                let dts = 5_000 + sound * 1024 * 1000 / 44_100;
                fragmenter.sample(&Sample {
                    video: false,
                    dts,
                    cts: 0,
                    key: true,
                    place: Place::Begins,
                    data: &[9; 100],
                });
                sound += 1;
            }
        }
        fragmenter.close(start + 1000);
        files.push(std::mem::take(&mut fragmenter.outs));
    }
    files
}

/// The heads of a file's fragments and their media data.
fn fragments(mut file: &[u8]) -> Vec<(&[u8], &[u8])> {
    let mut found = Vec::new();
    let mut moof = &file[..0];
    while !file.is_empty() {
        let header = read_header(file).unwrap();
        let (whole, rest) = file.split_at(usize::try_from(header.size).unwrap());
        match &header.kind {
            b"moof" => moof = whole,
            b"mdat" => found.push((moof, &whole[8..])),
            other => panic!("{other:?}"),
        }
        file = rest;
    }
    found
}

fn merge(files: &[[Vec<u8>; 3]]) -> Vec<u8> {
    let mut merger = Merger::default();
    merger.init(&init(&tracks())).unwrap();
    let mut media = Vec::new();
    for file in files {
        for (moof, mdat) in fragments(&file[0]) {
            merger.fragment(moof, mdat.len() as u64).unwrap();
            media.extend_from_slice(mdat);
        }
    }
    assert_eq!(merger.payload(), media.len() as u64);
    let mut file = merger.finish();
    file.extend(media);
    file
}

/// Every sample as an independent reader finds it: track, time, offset, key, bytes.
fn read(file: &[u8]) -> Vec<(u32, u64, i64, bool, Vec<u8>)> {
    use shiguredo_mp4::demux::{Input, Mp4FileDemuxer};
    let mut demuxer = Mp4FileDemuxer::new();
    while let Some(wanted) = demuxer.required_input() {
        let from = usize::try_from(wanted.position).unwrap();
        let to = wanted.size.map_or(file.len(), |size| (from + size).min(file.len()));
        demuxer.handle_input(Input { position: wanted.position, data: &file[from..to] });
    }
    let mut samples = Vec::new();
    while let Some(sample) = demuxer.next_sample().unwrap() {
        let from = usize::try_from(sample.data_offset).unwrap();
        samples.push((
            sample.track.track_id,
            sample.timestamp,
            sample.composition_time_offset.unwrap_or(0),
            sample.keyframe,
            file[from..from + sample.data_size].to_vec(),
        ));
    }
    samples
}

#[test]
fn fragments_and_the_merged_file_have_every_frame() {
    // Large frames: several fragments in a segment.
    for size in [100, 100_000] {
        let files = segments(5, size);
        assert_eq!(fragments(&files[0][0]).len() > 1, size > 1000);
        let samples = read(&merge(&files));
        let video: Vec<_> = samples.iter().filter(|sample| sample.0 == VIDEO_ID).collect();
        assert_eq!(video.len(), 125);
        for (n, (_, time, cts, key, data)) in video.iter().enumerate() {
            assert_eq!(*time, n as u64 * 3600);
            assert_eq!(*cts, if n % 25 % 3 == 0 { 7200 } else { -3600 });
            assert_eq!((*key, data.len()), (n % 25 == 0, size + n % 25));
            assert!(data.iter().all(|byte| *byte == 7));
        }
        let audio: Vec<_> = samples.iter().filter(|sample| sample.0 == AUDIO_ID).collect();
        assert!(audio.len() > 200);
        for (n, (_, time, _, _, data)) in audio.iter().enumerate() {
            assert_eq!((*time, data.as_slice()), (n as u64 * 1024, &[9; 100][..]), "sound lies end to end");
        }
    }
}

/// The offsets of one track cross 4 GiB, which makes the head longer, so that those of the other one cross it too.
#[test]
fn offsets_are_right_wherever_the_tracks_cross_four_gib() {
    let files = segments(40, 10);
    let parts: Vec<_> = files.iter().flat_map(|file| fragments(&file[0])).collect();
    let len: u64 = parts.iter().map(|(_, mdat)| mdat.len() as u64).sum();
    for short in (8_000..24_000).step_by(40) {
        let mut merger = Merger::default();
        merger.init(&init(&tracks())).unwrap();
        for (n, (moof, mdat)) in parts.iter().enumerate() {
            // The first fragment is so long that the last ones are near the limit.
            let long = if n == 0 { (1 << 32) - len - short } else { 0 };
            merger.fragment(moof, mdat.len() as u64 + long).unwrap();
        }
        let head = merger.finish();
        let first = head.windows(4).enumerate().filter_map(|(at, kind)| match kind {
            b"stco" => Some(u64::from(u32::from_be_bytes(*head[at + 12..].first_chunk()?))),
            b"co64" => Some(u64::from_be_bytes(*head[at + 12..].first_chunk()?)),
            _ => None,
        });
        let first = first.min();
        assert_eq!(first, Some(head.len() as u64), "{short}");
    }
}

#[test]
fn separate_outputs_have_the_same_frames() {
    for file in segments(3, 100) {
        let sizes = |output: Output| {
            let pieces = fragments(&file[output as usize]);
            pieces.iter().map(|(_, data)| data.len()).sum::<usize>()
        };
        assert_eq!(sizes(Output::Merge), sizes(Output::Audio) + sizes(Output::Video));
        assert!(sizes(Output::Audio) > 0 && sizes(Output::Video) > 0);
    }
}

#[test]
fn a_track_that_comes_later_waits_for_its_time() {
    let mut merger = Merger::default();
    merger.init(&init(&tracks())).unwrap();
    let mut fragmenter = Fragmenter::default();
    fragmenter.open(&Opening { tracks: tracks(), fresh: true, start: 0 });
    fragmenter.sample(&Sample { video: true, dts: 0, cts: 0, key: true, place: Place::Begins, data: &[1] });
    fragmenter.sample(&Sample {
        video: false,
        dts: 500,
        cts: 0,
        key: true,
        place: Place::Begins,
        data: &[2],
    });
    fragmenter.close(1000);
    for (moof, mdat) in fragments(&fragmenter.outs[0]) {
        merger.fragment(moof, mdat.len() as u64).unwrap();
    }
    let head = merger.finish();
    let at = head.windows(4).rposition(|window| window == b"elst").unwrap();
    // Version and flags, two entries: 500 ms of nothing, then from the beginning.
    let mut fields = boxes::Fields::new(*b"elst", &head[at + 8..]);
    let first = (fields.u32().unwrap(), fields.u64().unwrap(), fields.u64().unwrap());
    assert_eq!(first, (2, 500, u64::MAX));
}

#[test]
fn foreign_files_are_refused() {
    let files = segments(1, 100);
    let (moof, mdat) = fragments(&files[0][0])[0];
    let mut merger = Merger::default();
    assert!(merger.fragment(moof, mdat.len() as u64).is_err(), "no init segment");
    merger.init(&init(&tracks())).unwrap();
    assert!(merger.fragment(moof, mdat.len() as u64 - 1).is_err());
    assert!(merger.is_empty());
    for len in 0..moof.len() {
        assert!(merger.fragment(&moof[..len], mdat.len() as u64).is_err(), "{len}");
    }
    let header = init(&tracks());
    for len in 0..header.len() {
        let _ = Merger::default().init(&header[..len]);
    }
}

proptest! {
    #[test]
    fn any_bytes_are_borne(mut bytes in prop::collection::vec(any::<u8>(), 0..400), at in 0..2000usize) {
        let mut merger = Merger::default();
        let _ = merger.init(&bytes);
        let _ = merger.fragment(&bytes, 1000);
        let mut header = init(&tracks());
        let at = at % header.len();
        bytes.truncate(header.len() - at);
        header[at..at + bytes.len()].copy_from_slice(&bytes);
        let _ = merger.init(&header);
        let _ = merger.finish();
    }
}

/// The segments that a fragmenter has written: their openings, and the bytes with all tracks.
#[derive(Default)]
struct Written {
    fragmenter: Fragmenter,
    openings: Vec<Opening>,
    files: Vec<Vec<u8>>,
}

impl Muxer for Written {
    fn open(&mut self, opening: &Opening) {
        self.openings.push(opening.clone());
        self.fragmenter.open(opening);
    }

    fn sample(&mut self, sample: &Sample<'_>) {
        self.fragmenter.sample(sample);
    }

    fn close(&mut self, end: i64) {
        self.fragmenter.close(end);
        let [file, ..] = std::mem::take(&mut self.fragmenter.outs);
        self.files.push(file);
    }
}

/// For any tags, the muxers write whole packets, and fragments that the merge can read.
fn mux_anything(data: &[u8]) {
    use crate::media::remux::Remuxer;
    use crate::media::segmenter::{Lengths, Segmenter};
    use crate::media::tag::{TagKind, TagRef};
    use crate::media::ts::{self, TsMuxer};
    const LENGTHS: Lengths = Lengths { target: 1000, longest: 8000 };
    let mut remuxer = Remuxer::default();
    let mut segmenters = (Segmenter::new(LENGTHS, ts::supported), Segmenter::new(LENGTHS, supported));
    let (mut packets, mut written) = (TsMuxer::default(), Written::default());
    let headers: [(TagKind, &[u8]); 2] = [
        (TagKind::Video, &[&[0x17, 0, 0, 0, 0], h264::tests::AVCC].concat()),
        (TagKind::Audio, &[0xaf, 0, 0x12, 0x10]),
    ];
    for (kind, body) in headers {
        let _ = remuxer.push(&TagRef { kind, timestamp: 0, body }, 0);
    }
    let mut time = 0;
    for piece in data.chunks(24) {
        let [first, step, body @ ..] = piece else { continue };
        let kind = if first % 2 == 0 { TagKind::Video } else { TagKind::Audio };
        let classic: &[u8] = if kind == TagKind::Video { &[0x17, 1] } else { &[0xaf, 1] };
        let wrapped = [if first & 0x40 == 0 { classic } else { &[] }, body].concat();
        time += i64::from(*step) * 8;
        if let Ok(Some(sample)) = remuxer.push(&TagRef { kind, timestamp: 0, body: &wrapped }, time) {
            segmenters.0.push(remuxer.tracks(), &sample, &mut packets);
            segmenters.1.push(remuxer.tracks(), &sample, &mut written);
        }
    }
    segmenters.0.end(&mut packets);
    segmenters.1.end(&mut written);
    assert!(packets.out.chunks(ts::PACKET).all(|packet| packet.len() == ts::PACKET && packet[0] == 0x47));
    let mut merger = Merger::default();
    assert_eq!(written.openings.len(), written.files.len());
    for (opening, file) in written.openings.iter().zip(&written.files) {
        merger.init(&init(&Output::Merge.pick(&opening.tracks).unwrap())).unwrap();
        for (moof, mdat) in fragments(file) {
            merger.fragment(moof, mdat.len() as u64).unwrap();
        }
    }
    merger.finish();
}

proptest! {
    #[test]
    fn any_tags_are_muxed(data in prop::collection::vec(any::<u8>(), 0..2000)) {
        mux_anything(&data);
    }
}
