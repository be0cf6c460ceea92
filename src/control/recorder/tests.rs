//! Whole takes on a disk that fails: the remaining files play, and nothing that was finished is lost.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;

use super::common::{Common, Left};
use super::disk::Disk;
use super::finish::{finish, is_unfinished, recovered, takes};
use super::flv::Flv;
use super::layout::Kind;
use super::live::Surroundings;
use super::packaged::{self, Work};
use super::playlist::Carry;
use super::sim::Sim;
use super::stats::Stats;
use super::tail::Tail;
use super::take::{About, next_numbers};
use super::task::{Setting, run};
use crate::live::directory::{Claim, Directory, Republish};
use crate::live::key::StreamKey;
use crate::live::log::Retention;
use crate::live::stream::{Stream, StreamWriter};
use crate::media::flv::{FlvItem, FlvReader};
use crate::media::flv_index::FlvIndex;
use crate::media::m3u8::Playlist;
use crate::media::segmenter::Lengths;
use crate::media::tag::{Class, Tag, TagKind};
use crate::memory::Arena;
use crate::package::format::Format;
use crate::package::memory::Memory;
use crate::package::window::Pressure;
use crate::server::recording::RecordingState;

const RETENTION: Retention = Retention { bytes: 1 << 20, frames: 2000, gop_time: 60_000, history: 5_000 };
const AVCC: &[u8] = &[
    1, 77, 64, 30, 255, 225, 0, 24, 103, 77, 64, 30, 236, 160, 80, 23, 252, 184, 8, 128, 0, 0, 3, 0, 128, 0,
    0, 25, 7, 139, 22, 203, 1, 0, 5, 104, 235, 227, 203, 32,
];

/// A publisher: 25 video frames a second with a keyframe each second, and AAC.
pub(super) struct Publisher {
    directory: Directory,
    writer: Box<StreamWriter>,
    /// Milliseconds.
    time: u32,
    sounds: u32,
}

impl Publisher {
    pub(super) fn new() -> Self {
        Self::starting_at(0)
    }

    /// One whose headers have this timestamp.
    pub(super) fn starting_at(time: u32) -> Self {
        let directory = Directory::new(Arena::new().unwrap(), RETENTION, Republish::Reject);
        let writer = directory.publish(&StreamKey::parse("live/x").unwrap(), &Claim::fixed(0)).unwrap();
        let mut publisher = Self { directory, writer, time, sounds: 0 };
        let avc = [&[0x17, 0, 0, 0, 0][..], AVCC].concat();
        publisher.push(TagKind::Video, time, avc);
        publisher.push(TagKind::Audio, time, vec![0xaf, 0, 0x12, 0x10]);
        publisher
    }

    pub(super) fn stream(&self) -> Arc<Stream> {
        Arc::clone(self.writer.stream())
    }

    fn push(&mut self, kind: TagKind, timestamp: u32, body: Vec<u8>) {
        self.writer.push(&Tag { kind, timestamp, body: Bytes::from(body) }).unwrap();
    }

    fn picture(&mut self, timestamp: u32, key: bool) {
        let mut frame = vec![if key { 0x17 } else { 0x27 }, 1, 0, 0, 0, 0, 0, 0, 200];
        frame.push(if key { 0x65 } else { 0x41 });
        frame.extend([7; 199]);
        self.push(TagKind::Video, timestamp, frame);
    }

    /// Publishes a keyframe and a frame of sound.
    pub(super) fn keyframe(&mut self, timestamp: u32) {
        self.picture(timestamp, true);
        self.push(TagKind::Audio, timestamp, vec![0xaf, 1, 0x21, 0x10, 5]);
        self.writer.publish();
    }

    /// Publishes `count` video frames at once, with their audio frames.
    pub(super) fn frames(&mut self, count: u32) {
        for _ in 0..count {
            self.picture(self.time, self.time.is_multiple_of(1_000));
            while self.sounds * 1024 / 441 * 10 <= self.time {
                let time = self.sounds * 10_240 / 441;
                self.push(TagKind::Audio, time, vec![0xaf, 1, 0x21, 0x10, 5]);
                self.sounds += 1;
            }
            self.time += 40;
        }
        self.writer.publish();
    }

    /// Publishes seconds of media in the clock's time, one second at once.
    pub(super) async fn play(&mut self, seconds: u32) {
        for _ in 0..seconds {
            self.frames(25);
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    }

    /// The same, frame by frame.
    pub(super) async fn play_smoothly(&mut self, seconds: u32) {
        for _ in 0..seconds * 25 {
            self.frames(1);
            tokio::time::sleep(Duration::from_millis(40)).await;
        }
    }

    pub(super) fn end(self) {
        self.directory.end(self.writer);
    }
}

pub(super) fn setting(disk: &Sim, kind: Kind, id: &str, common: &Rc<Common>) -> Setting<Sim> {
    Setting {
        disk: disk.clone(),
        about: About {
            stream: "live/x".into(),
            began: "20261121T091545Z".into(),
            id: id.into(),
            ..About::default()
        },
        lengths: Lengths { target: 2_000, longest: 16_000 },
        take: 0,
        parted: None,
        moved: Vec::new(),
        window: 3,
        // A transport stream has more bytes than the log.
        waiting: 2 * RETENTION.bytes,
        sync: true,
        stats: Stats::new(kind, Arc::default()),
        common: Rc::clone(common),
    }
}

/// The folder of a kind's take.
pub(super) fn dir(kind: Kind) -> PathBuf {
    Path::new("/data").join(kind.folder()).join("live/x")
}

/// A recording of a format, without live clients.
pub(super) fn work<D: Disk>(format: Format, setting: Setting<D>, dir: PathBuf) -> Work<D> {
    let (memory, surroundings) = (Memory::default(), Rc::new(Calm));
    Work { format, setting, dir, recorded: true, live: None, memory, surroundings, lapse: None }
}

/// Nothing happens around the recordings of a test.
struct Calm;

impl Surroundings for Calm {
    fn pressure(&self) -> Pressure {
        Pressure::None
    }

    fn now(&self) -> u64 {
        0
    }

    fn told(&self, _: &str) {}
}

/// Runs the task of a kind.
pub(super) async fn record_as(kind: Kind, setting: Setting<Sim>, stream: &Arc<Stream>) -> Option<Left> {
    record_in(kind, setting, stream, dir(kind)).await
}

/// Runs the task of a kind, with its takes in `dir`.
pub(super) async fn record_in(
    kind: Kind,
    setting: Setting<Sim>,
    stream: &Arc<Stream>,
    dir: PathBuf,
) -> Option<Left> {
    let (stream, tail) = (Arc::clone(stream), Tail::of(stream));
    let own = setting.clone();
    match kind {
        Kind::Flv => run(&mut Flv::new(own, dir), stream, tail, setting).await,
        Kind::Hls => packaged::run(work(Format::Hls, own, dir), stream, tail).await.0,
        Kind::Fmp4 => packaged::run(work(Format::Fmp4, own, dir), stream, tail).await.0,
    }
}

/// Runs a task of each kind at once; a kind's disk is its own.
async fn record(disks: &[(Kind, Sim)], stream: &Arc<Stream>, id: &str, common: &Rc<Common>) {
    let one = |kind: Kind, disk: &Sim| {
        let (setting, stream) = (setting(disk, kind, id, common), Arc::clone(stream));
        async move { record_as(kind, setting, &stream).await }
    };
    match disks {
        [(kind, disk)] => {
            one(*kind, disk).await;
        }
        [(a, one_disk), (b, other)] => {
            tokio::join!(one(*a, one_disk), one(*b, other));
        }
        _ => panic!("one or two at a time"),
    }
}

/// Finishes everything that is left under a kind's folder, as the next start does.
pub(super) async fn mend(disk: &Sim, kind: Kind, common: &Common) {
    let root = Path::new("/data").join(kind.folder());
    for take in recovered(disk, &root, common).await.takes {
        if take.unfinished {
            finish(disk, kind, &take.dir, true, common).await.unwrap();
        }
    }
}

/// The playable contents of a take.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Playable {
    pub(super) pictures: usize,
    pub(super) sounds: usize,
    pub(super) segments: usize,
}

/// Plays everything that a take of `kind` has left in `base`, with independent readers.
pub(super) fn play(kind: Kind, files: &BTreeMap<String, Vec<u8>>, base: &str) -> Playable {
    match kind {
        Kind::Hls => {
            let (playlist, bytes) = segments(files, &format!("{base}/"), "index.m3u8");
            let (pictures, sounds) = play_ts(&bytes);
            Playable { pictures, sounds, segments: playlist }
        }
        Kind::Fmp4 => {
            let (merged, _) = segments(files, &format!("{base}/output_merge/"), "index.m3u8");
            for (track, _) in [("video", 0), ("audio", 0)] {
                segments(files, &format!("{base}/output_separate/"), &format!("{track}.m3u8"));
            }
            let full = files.get(&format!("{base}/output_merge/x_full.mp4"));
            let (pictures, sounds) = full.map_or((0, 0), |full| play_mp4(full));
            Playable { pictures, sounds, segments: merged }
        }
        Kind::Flv => {
            let Some(bytes) = files.get(&format!("{base}/index.flv")) else { return Playable::default() };
            assert!(FlvIndex::is_finished(bytes, bytes.len() as u64), "the front gives another length");
            let mut reader = FlvReader::new(1 << 20);
            reader.push(bytes);
            let (mut all, mut len) = (Playable::default(), 13);
            while let Some(item) = reader.next_item().expect("good FLV") {
                let FlvItem::Tag(tag) = item else { continue };
                len += tag.encoded_len();
                all.pictures += usize::from(matches!(tag.class(), Class::KeyFrame | Class::InterFrame));
                all.sounds += usize::from(tag.class() == Class::Sound);
            }
            assert_eq!(len, bytes.len(), "it ends within a tag");
            all
        }
    }
}

/// The number of segments that a finished playlist names, and all their bytes.
fn segments(files: &BTreeMap<String, Vec<u8>>, base: &str, index: &str) -> (usize, Vec<u8>) {
    let Some(text) = files.get(&format!("{base}{index}")) else { return (0, Vec::new()) };
    let (_, playlist) = m3u8_rs::parse_media_playlist(text).expect("a good playlist");
    assert!(playlist.end_list, "{base}{index} does not end");
    let mut bytes = Vec::new();
    for segment in &playlist.segments {
        if let Some(map) = &segment.map {
            assert!(files.contains_key(&format!("{base}{}", map.uri)), "{} lacks", map.uri);
        }
        let name = format!("{base}{}", segment.uri);
        bytes.extend(files.get(&name).unwrap_or_else(|| panic!("{name} lacks")));
    }
    (playlist.segments.len(), bytes)
}

/// Video and AAC frames in a transport stream.
pub(super) fn play_ts(bytes: &[u8]) -> (usize, usize) {
    use mpeg2ts::es::StreamType;
    use mpeg2ts::ts::{ReadTsPacket, TsPacketReader, TsPayload};
    let mut reader = TsPacketReader::new(bytes);
    let (mut pictures, mut sounds) = (0, 0);
    let mut sound_pid = None;
    while let Some(packet) = reader.read_ts_packet().expect("a good transport stream") {
        match packet.payload {
            Some(TsPayload::Pmt(pmt)) => {
                let audio = pmt.es_info.iter().find(|es| es.stream_type == StreamType::AdtsAac);
                sound_pid = audio.map(|es| es.elementary_pid);
            }
            Some(TsPayload::PesStart(pes)) if Some(packet.header.pid) == sound_pid => {
                // Each audio frame of the test is a header and three bytes.
                sounds += usize::from(pes.pes_packet_len - 8) / 10;
            }
            Some(TsPayload::PesStart(_)) => pictures += 1,
            _ => {}
        }
    }
    (pictures, sounds)
}

/// Video and audio samples in an MP4.
fn play_mp4(bytes: &[u8]) -> (usize, usize) {
    use shiguredo_mp4::TrackKind;
    use shiguredo_mp4::demux::{Input, Mp4FileDemuxer};
    let mut demuxer = Mp4FileDemuxer::new();
    while let Some(wanted) = demuxer.required_input() {
        let from = usize::try_from(wanted.position).unwrap();
        let to = wanted.size.map_or(bytes.len(), |size| (from + size).min(bytes.len()));
        demuxer.handle_input(Input { position: wanted.position, data: &bytes[from..to] });
    }
    let (mut pictures, mut sounds) = (0, 0);
    while let Some(sample) = demuxer.next_sample().expect("a good MP4") {
        let from = usize::try_from(sample.data_offset).unwrap();
        let data = &bytes[from..from + sample.data_size];
        match sample.track.kind {
            TrackKind::Video => {
                assert_eq!(data[..4], [0, 0, 0, 200]);
                pictures += 1;
            }
            TrackKind::Audio => {
                assert_eq!(data, [0x21, 0x10, 5]);
                sounds += 1;
            }
        }
    }
    (pictures, sounds)
}

pub(super) fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap()
}

/// Records a take of some seconds on a disk of its own, unless it is killed.
pub(super) async fn one_take(kind: Kind, disk: &Sim, seconds: u32, id: &str) {
    let common = Rc::<Common>::default();
    let mut publisher = Publisher::new();
    let stream = publisher.stream();
    let recording = async {
        record(&[(kind, disk.clone())], &stream, id, &common).await;
    };
    let publishing = async {
        publisher.play(seconds).await;
        publisher.end();
    };
    // A killed task waits for ever.
    let _ =
        tokio::time::timeout(Duration::from_secs(3600), async { tokio::join!(recording, publishing) }).await;
}

const SECONDS: u32 = 7;

#[test]
fn a_take_holds_every_frame() {
    for kind in Kind::EVERY {
        let disk = Sim::default();
        runtime().block_on(async {
            one_take(kind, &disk, SECONDS, "a").await;
            mend(&disk, kind, &Common::default()).await;
        });
        let played = play(kind, &disk.files(), dir(kind).to_str().unwrap());
        let sounds = (0..).take_while(|n| n * 1024 / 441 * 10 <= SECONDS * 1000 - 40).count();
        assert_eq!((played.pictures, played.sounds), (SECONDS as usize * 25, sounds), "{kind:?}");
        assert_eq!(played.segments, if kind == Kind::Flv { 0 } else { 4 });
        assert!(disk.files().keys().all(|name| !name.ends_with(".tmp") && !name.ends_with(".journal")));
    }
}

/// What live players could see of a kind when it was killed: segments of the stream in `dir`.
pub(super) fn seen(kind: Kind, files: &BTreeMap<String, Vec<u8>>, dir: &Path) -> usize {
    let base = dir.display().to_string();
    let index = match kind {
        Kind::Hls => format!("{base}/index.m3u8"),
        Kind::Fmp4 => format!("{base}/output_merge/index.m3u8"),
        Kind::Flv => return 0,
    };
    let text = files.get(&index).map(|bytes| String::from_utf8(bytes.clone()).unwrap());
    text.map_or(0, |text| {
        let playlist = Playlist::parse(&text);
        usize::try_from(playlist.head.sequence).unwrap() + playlist.segments.len()
    })
}

#[test]
fn a_take_killed_at_any_step_is_repaired_and_the_next_one_leaves_it_alone() {
    for kind in Kind::EVERY {
        let mut last = 0;
        for step in 0.. {
            let disk = Sim::default();
            disk.die_at(Some(step));
            runtime().block_on(one_take(kind, &disk, SECONDS, "a"));
            let died = disk.steps() > step;
            let seen = seen(kind, &disk.files(), &dir(kind));
            disk.die_at(None);
            runtime().block_on(mend(&disk, kind, &Common::default()));
            let (files, base) = (disk.files(), dir(kind).display().to_string());
            assert!(
                files.keys().all(|name| !name.ends_with(".journal")),
                "{kind:?} {step}: {:?}",
                files.keys()
            );
            let played = play(kind, &files, &base);
            assert!(
                played.segments >= seen,
                "{kind:?} {step}: {seen} segments were seen, {played:?} are left"
            );
            assert!(
                played.pictures >= (seen * 50).min(SECONDS as usize * 25),
                "{kind:?} {step}: {seen} {played:?}"
            );
            assert!(played.pictures >= last, "{kind:?} {step}: less than a step before");
            last = played.pictures;

            runtime().block_on(one_take(kind, &disk, 3, "b"));
            runtime().block_on(mend(&disk, kind, &Common::default()));
            assert_eq!(play(kind, &disk.files(), &base).pictures, 75, "{kind:?} {step}");
            if kind != Kind::Flv {
                let (before, first) = (played.segments as u64, first_number(kind, &disk.files()));
                assert!(first >= before && first <= before + 1, "{kind:?} {step}: {before} {first}");
            }
            let earlier = play(kind, &disk.files(), &format!("{base}@20261121T091545Z"));
            assert_eq!(earlier, played, "{kind:?} {step}");
            if !died {
                assert!(step > 15, "{kind:?}: a take takes more than {step} steps");
                break;
            }
        }
    }
}

/// The media sequence of a kind's playlist.
pub(super) fn first_number(kind: Kind, files: &BTreeMap<String, Vec<u8>>) -> u64 {
    let name = if kind == Kind::Hls { "index.m3u8" } else { "output_merge/index.m3u8" };
    let text = &files[&format!("{}/{name}", dir(kind).display())];
    Playlist::parse(&String::from_utf8_lossy(text)).head.sequence
}

/// The playlists that live players read; checks that every segment they name exists.
fn assert_playable(files: &BTreeMap<String, Vec<u8>>, base: &str) -> Vec<(String, Playlist)> {
    let folders = ["", "output_merge/", "output_separate/"].map(|folder| format!("{base}/{folder}"));
    let mut playlists = Vec::new();
    for (path, text) in files {
        let Some((folder, _)) = folders.iter().find_map(|folder| {
            let name = path.strip_prefix(folder)?;
            (name.ends_with(".m3u8") && !name.contains('/')).then_some((folder, name))
        }) else {
            continue;
        };
        let playlist = Playlist::parse(&String::from_utf8_lossy(text));
        for segment in &playlist.segments {
            for name in segment.map.iter().chain([&segment.uri]) {
                let named = format!("{folder}{name}");
                assert!(files.contains_key(&named), "{path} names {name}: {:?}", files.keys());
            }
        }
        playlists.push((path.clone(), playlist));
    }
    playlists
}

/// Runs a task whose takes are split every `part` seconds.
async fn record_parted(
    kind: Kind,
    disk: &Sim,
    stream: &Arc<Stream>,
    part: i64,
    common: &Rc<Common>,
) -> Option<Left> {
    let setting = Setting { take: part * 1000, ..setting(disk, kind, "a", common) };
    record_as(kind, setting, stream).await
}

/// Records `seconds` with a split every `part` seconds. Returns what has to be finished of the takes that were
/// split off.
pub(super) async fn one_parted(kind: Kind, disk: &Sim, seconds: u32, part: i64) -> Vec<Left> {
    let common = Rc::<Common>::default();
    let mut publisher = Publisher::new();
    let stream = publisher.stream();
    let recording = record_parted(kind, disk, &stream, part, &common);
    let watching = async {
        let mut sequences: BTreeMap<String, u64> = BTreeMap::new();
        loop {
            for (path, playlist) in assert_playable(&disk.files(), dir(kind).to_str().unwrap()) {
                let last = sequences.insert(path, playlist.head.sequence);
                assert!(last.is_none_or(|last| playlist.head.sequence >= last), "{kind:?}: {last:?}");
            }
            tokio::time::sleep(Duration::from_millis(40)).await;
        }
    };
    let publishing = async {
        publisher.play(seconds).await;
        publisher.end();
    };
    let all = async { tokio::join!(recording, publishing) };
    let all = tokio::time::timeout(Duration::from_secs(3600), all);
    tokio::select! {
        _ = all => {}
        () = watching, if disk.is_immortal() => {}
    }
    common.take_left()
}

/// The playable contents of each take of a kind, the earliest first.
fn play_all(kind: Kind, disk: &Sim) -> Vec<Playable> {
    let (files, base) = (disk.files(), dir(kind).display().to_string());
    let bases = files.keys().filter_map(|path| path.strip_suffix("/take.json"));
    let mut bases: Vec<&str> = bases.filter(|base| !base.ends_with(".tmp")).collect();
    // Takes moved within the same second are called `-2` and so on, after the first one.
    bases.sort_by_key(|path| (*path == base, path.len(), *path));
    bases.into_iter().map(|base| play(kind, &files, base)).collect()
}

#[test]
fn a_long_take_is_split_and_no_frame_is_missing() {
    for kind in Kind::EVERY {
        let disk = Sim::default();
        runtime().block_on(async {
            let left = one_parted(kind, &disk, 20, 6).await;
            assert_eq!(left.len(), 3, "{kind:?}");
            assert!(left.iter().all(|left| left.kind == kind && left.dir != dir(kind)));
            mend(&disk, kind, &Common::default()).await;
        });
        let takes = play_all(kind, &disk);
        let pictures: Vec<_> = takes.iter().map(|take| take.pictures).collect();
        assert_eq!(pictures, [150, 150, 150, 50], "{kind:?}");
        let sounds: usize = takes.iter().map(|take| take.sounds).sum();
        assert_eq!(sounds, (0..).take_while(|n| n * 1024 / 441 * 10 <= 20_000 - 40).count(), "{kind:?}");
        let segments: usize = disk.files().keys().filter(|name| name.contains("/segment_")).count();
        let named: usize = takes.iter().map(|take| take.segments).sum();
        assert_eq!(
            segments, named,
            "{kind:?}: segments of the previous take are gone when a take is finished"
        );
    }
}

#[test]
fn a_take_that_was_split_off_and_not_continued_is_finished() {
    for kind in Kind::EVERY {
        let disk = Sim::default();
        let left = runtime().block_on(async {
            let common = Rc::<Common>::default();
            let mut publisher = Publisher::new();
            let stream = publisher.stream();
            let publishing = async {
                publisher.play(4).await;
                tokio::time::sleep(Duration::from_secs(1)).await;
                disk.set_capacity(Some(disk.used() + 600));
                publisher.play(4).await;
                publisher.end();
            };
            let recording = record_parted(kind, &disk, &stream, 4, &common);
            tokio::join!(recording, publishing).0.expect("something is left")
        });
        disk.set_capacity(None);
        runtime().block_on(async {
            let found = super::take::found(&disk, &left.dir).await.unwrap().unwrap();
            assert_eq!((found.id, left.dir), (left.id, dir(kind)), "{kind:?}");
            mend(&disk, kind, &Common::default()).await;
        });
        let pictures: usize = play_all(kind, &disk).iter().map(|take| take.pictures).sum();
        assert!((50..=100).contains(&pictures), "{kind:?}: {pictures}");
    }
}

#[test]
fn a_split_leaves_other_streams_folders_alone() {
    for kind in [Kind::Hls, Kind::Fmp4] {
        let disk = Sim::default();
        let other = dir(kind).join("other");
        runtime().block_on(async {
            disk.make_dir(&other).await.unwrap();
            disk.replace(&other.join("file"), vec![1], false).await.unwrap();
            one_parted(kind, &disk, 9, 4).await;
            mend(&disk, kind, &Common::default()).await;
        });
        let pictures: usize = play_all(kind, &disk).iter().map(|take| take.pictures).sum();
        assert_eq!(pictures, 225, "{kind:?}");
        assert_eq!(disk.file(other.join("file").to_str().unwrap()), Some(vec![1]));
    }
}

#[test]
fn a_take_killed_during_a_split_is_repaired() {
    for kind in Kind::EVERY {
        let mut parted = 0;
        for step in 0.. {
            let disk = Sim::default();
            disk.die_at(Some(step));
            runtime().block_on(one_parted(kind, &disk, 9, 4));
            let died = disk.steps() > step;
            disk.die_at(None);
            assert_playable(&disk.files(), dir(kind).to_str().unwrap());
            let seen = seen(kind, &disk.files(), &dir(kind));
            runtime().block_on(mend(&disk, kind, &Common::default()));
            let takes = play_all(kind, &disk);
            parted = parted.max(takes.len());
            let pictures: usize = takes.iter().map(|take| take.pictures).sum();
            assert!(pictures >= (seen * 50).min(225), "{kind:?} {step}: {seen} {takes:?}");
            let unfinished = |name: &String| name.ends_with(".journal") || name.contains(".tmp");
            assert!(!disk.files().keys().any(unfinished), "{kind:?} {step}: {:?}", disk.files().keys());

            runtime().block_on(one_take(kind, &disk, 3, "b"));
            runtime().block_on(mend(&disk, kind, &Common::default()));
            let newest = play(kind, &disk.files(), dir(kind).to_str().unwrap());
            assert_eq!(newest.pictures, 75, "{kind:?} {step}");
            if kind != Kind::Flv {
                assert!(first_number(kind, &disk.files()) >= seen as u64, "{kind:?} {step}");
            }
            if !died {
                break;
            }
        }
        assert_eq!(parted, 3, "{kind:?}");
    }
}

#[test]
fn numbers_continue_when_the_earlier_takes_were_removed() {
    for kind in [Kind::Hls, Kind::Fmp4] {
        let disk = Sim::default();
        runtime().block_on(async {
            one_take(kind, &disk, SECONDS, "a").await;
            mend(&disk, kind, &Common::default()).await;
            super::take::remove(&disk, &dir(kind)).await.unwrap();
            assert_eq!(disk.files().len(), 1, "only the numbers stay");
            assert!(takes(&disk, Path::new("/data")).await.takes.is_empty());
            one_take(kind, &disk, 3, "b").await;
            mend(&disk, kind, &Common::default()).await;
        });
        assert_eq!(first_number(kind, &disk.files()), 4, "{kind:?}");
        assert_eq!(play(kind, &disk.files(), dir(kind).to_str().unwrap()).pictures, 75);
    }
}

#[test]
fn names_of_segments_that_a_crash_has_lost_are_not_used_again() {
    for kind in [Kind::Hls, Kind::Fmp4] {
        let numbers = |crash| {
            let disk = Sim::default();
            disk.die_at(crash);
            runtime().block_on(one_take(kind, &disk, SECONDS, "a"));
            disk.die_at(None);
            let at = |seconds| SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
            let next = async |seconds| next_numbers(&disk, &dir(kind), at(seconds)).await.unwrap().sequence;
            runtime().block_on(async { (next(300).await, next(1_000).await, next(100_000).await) })
        };
        assert_eq!(numbers(None), (4, 4, 4), "{kind:?}: all segments are on the disk");
        let mut lost = 0;
        for crash in (10..60).step_by(5) {
            let (soon, later, next_day) = numbers(Some(crash));
            if 0 < next_day && next_day < 4 {
                lost += 1;
                // The disk's clock counts its steps.
                assert!(soon + crash >= next_day + 300, "{kind:?} {crash}: {soon} {next_day}");
                assert_eq!(later, soon + 700, "{kind:?} {crash}: one for each second since then");
            }
        }
        assert!(lost > 1, "{kind:?}: some have segments, but not all of them");
    }
}

#[test]
fn a_repair_that_was_killed_is_repeated() {
    for kind in Kind::EVERY {
        for step in 0.. {
            let disk = Sim::default();
            disk.die_at(Some(40)); // the first segment is in the playlist
            runtime().block_on(one_take(kind, &disk, SECONDS, "a"));
            disk.die_at(Some(step));
            let mending = async {
                let common = Common::default();
                tokio::time::timeout(Duration::from_secs(3600), mend(&disk, kind, &common)).await.is_err()
            };
            let died = runtime().block_on(mending);
            disk.die_at(None);
            runtime().block_on(mend(&disk, kind, &Common::default()));
            let played = play(kind, &disk.files(), dir(kind).to_str().unwrap());
            assert!(played.pictures >= 50, "{kind:?} {step}: {played:?}");
            if !died {
                break;
            }
        }
    }
}

#[test]
fn a_full_disk_stops_one_recording_until_there_is_space() {
    for kind in Kind::EVERY {
        let other = if kind == Kind::Flv { Kind::Hls } else { Kind::Flv };
        let (small, large) = (Sim::default(), Sim::default());
        runtime().block_on(async {
            let common = Rc::<Common>::default();
            let mut publisher = Publisher::new();
            let stream = publisher.stream();
            let disks = [(kind, small.clone()), (other, large.clone())];
            let recording = record(&disks, &stream, "a", &common);
            let publishing = async {
                publisher.play(5).await;
                small.set_capacity(Some(small.used() + 2_000));
                publisher.play(20).await;
                small.set_capacity(None);
                publisher.play(10).await;
                publisher.end();
            };
            tokio::join!(recording, publishing);
            mend(&small, kind, &common).await;
            mend(&large, other, &common).await;
        });
        let played = play(kind, &small.files(), dir(kind).to_str().unwrap());
        // Segments wait in memory until there is space.
        let want = if kind == Kind::Flv { 250..700 } else { 875..876 };
        assert!(want.contains(&played.pictures), "{kind:?}: {played:?}");
        let undisturbed = play(other, &large.files(), dir(other).to_str().unwrap());
        assert_eq!(undisturbed.pictures, 35 * 25);
    }
}

/// A minute is in memory until the disk goes on; of an hour, what the log's bytes allow.
#[test]
fn a_disk_that_stalls_loses_only_what_the_log_does_not_hold() {
    for (kind, stall) in Kind::EVERY.into_iter().flat_map(|kind| [(kind, 60), (kind, 3600)]) {
        let disk = Sim::default();
        runtime().block_on(async {
            let common = Rc::<Common>::default();
            let mut publisher = Publisher::new();
            let stream = publisher.stream();
            let disks = [(kind, disk.clone())];
            let recording = record(&disks, &stream, "a", &common);
            let publishing = async {
                publisher.play(5).await;
                disk.stall(true);
                publisher.play(stall).await;
                disk.stall(false);
                publisher.play(10).await;
                publisher.end();
            };
            tokio::join!(recording, publishing);
            mend(&disk, kind, &common).await;
        });
        let played = play(kind, &disk.files(), dir(kind).to_str().unwrap());
        if stall == 60 {
            assert_eq!(played.pictures, 75 * 25, "{kind:?}");
            continue;
        }
        assert!((14 * 25..600 * 25).contains(&played.pictures), "{kind:?}: {played:?}");
        if kind == Kind::Hls {
            let text = disk.file("/data/hls/live/x/index.m3u8").unwrap();
            assert!(String::from_utf8(text).unwrap().contains("EXT-X-DISCONTINUITY"));
        }
    }
}

#[test]
fn a_take_that_is_split_twice_before_the_next_has_a_folder_is_finished() {
    runtime().block_on(async {
        let (disk, common) = (Sim::default(), Rc::<Common>::default());
        let mut setting = setting(&disk, Kind::Hls, "a", &common);
        let _active = common.activate(&dir(Kind::Hls));
        setting.begin_take(Kind::Hls, &dir(Kind::Hls), &Carry::default()).await.unwrap();
        for id in ["a-1", "a-2"] {
            setting.part(About { id: id.into(), ..setting.about.clone() });
        }
        assert_eq!(setting.left(Kind::Hls, &dir(Kind::Hls)).id, "a");
        setting.begin_take(Kind::Hls, &dir(Kind::Hls), &Carry::default()).await.unwrap();
        assert_eq!(common.take_left().len(), 1);
    });
}

#[test]
fn segments_that_a_journal_does_not_name_are_kept() {
    runtime().block_on(async {
        let (disk, common) = (Sim::default(), Rc::<Common>::default());
        one_take(Kind::Hls, &disk, 3, "a").await;
        let extra = dir(Kind::Hls).join("segment_216000.ts");
        disk.replace(&extra, vec![1], false).await.unwrap();
        mend(&disk, Kind::Hls, &common).await;
        assert!(disk.file(extra.to_str().unwrap()).is_some());
    });
}

#[test]
fn a_merge_that_fails_frees_its_space() {
    let disk = Sim::default();
    runtime().block_on(async {
        one_take(Kind::Fmp4, &disk, 7, "a").await;
        disk.set_capacity(Some(disk.used() + 20_000));
        assert!(finish(&disk, Kind::Fmp4, &dir(Kind::Fmp4), true, &Common::default()).await.is_err());
    });
    assert!(!disk.files().keys().any(|name| name.ends_with(".tmp")));
}

#[test]
fn recording_goes_on_is_said_only_when_something_was_written() {
    runtime().block_on(async {
        let (disk, common, state) =
            (Sim::default(), Rc::<Common>::default(), Arc::<RecordingState>::default());
        let failing = || state.failing.load(std::sync::atomic::Ordering::Relaxed);
        let mut publisher = Publisher::new();
        let stream = publisher.stream();
        let mut setting = setting(&disk, Kind::Hls, "a", &common);
        setting.stats = Stats::new(Kind::Hls, Arc::clone(&state));
        let publishing = async {
            publisher.play(5).await;
            assert_eq!(failing(), 0);
            disk.set_capacity(Some(disk.used()));
            // Tries fail at the end of each segment; in between data is only collected.
            publisher.play(6).await;
            for _ in 0..10 {
                publisher.play(1).await;
                assert_eq!(failing(), 1);
            }
            disk.set_capacity(None);
            publisher.play(8).await;
            assert_eq!(failing(), 0);
            publisher.end();
        };
        tokio::join!(record_as(Kind::Hls, setting, &stream), publishing);
    });
}

#[test]
fn a_take_that_a_crash_has_left_is_finished_although_its_stream_is_published_at_once() {
    for kind in Kind::EVERY {
        let disk = Sim::default();
        disk.die_at(Some(40)); // the first segment is in the playlist
        runtime().block_on(one_take(kind, &disk, SECONDS, "a"));
        disk.die_at(None);
        // The next start records the stream before it has looked for unfinished takes.
        let left = runtime().block_on(async {
            let common = Rc::<Common>::default();
            let mut publisher = Publisher::new();
            let stream = publisher.stream();
            let publishing = async {
                publisher.play(3).await;
                publisher.end();
            };
            let disks = [(kind, disk.clone())];
            tokio::join!(record(&disks, &stream, "b", &common), publishing);
            common.take_left()
        });
        assert_eq!(left.len(), 1, "{kind:?}");
        assert!(left[0].dir.to_str().unwrap().contains('@'), "{kind:?}: {left:?}");
        runtime().block_on(async {
            assert!(is_unfinished(&disk, &left[0].dir).await.unwrap());
            finish(&disk, kind, &left[0].dir, true, &Common::default()).await.unwrap();
        });
        assert!(play(kind, &disk.files(), left[0].dir.to_str().unwrap()).pictures >= 50, "{kind:?}");
    }
}
