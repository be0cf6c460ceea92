//! Live clients are served whatever the disk does, and what the disk could not take is missing in the recording only.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use super::common::Common;
use super::layout::Kind;
use super::live::{Live, Surroundings};
use super::packaged;
use super::sim::Sim;
use super::tail::Tail;
use super::task::Setting;
use super::tests::{self, Publisher, dir, mend, play, play_ts, runtime, work};
use crate::live::stream::Stream;
use crate::media::m3u8::Playlist;
use crate::package::format::Format;
use crate::package::memory::Memory;
use crate::package::shelf::Shelf;
use crate::package::window::{LiveWindow, Pressure};

/// Surroundings that a test sets.
#[derive(Debug)]
struct Scene {
    pressure: Cell<Pressure>,
    now: Cell<u64>,
    told: RefCell<Vec<String>>,
}

impl Surroundings for Scene {
    fn pressure(&self) -> Pressure {
        self.pressure.get()
    }

    fn now(&self) -> u64 {
        self.now.get()
    }

    fn told(&self, stream: &str) {
        self.told.borrow_mut().push(stream.to_owned());
    }
}

/// What a player that reads every playlist and segment has seen.
#[derive(Debug, Default)]
struct Seen {
    segments: BTreeMap<u64, Vec<u8>>,
    last: Option<Playlist>,
    targets: Vec<u32>,
    discontinuities: usize,
    most_bytes: u64,
}

/// A stream whose live files are on a shelf.
struct Stage {
    shelf: Shelf,
    scene: Rc<Scene>,
    memory: Memory,
}

impl Stage {
    fn new() -> Self {
        let scene =
            Scene { pressure: Cell::new(Pressure::None), now: Cell::new(0), told: RefCell::default() };
        Self { shelf: Shelf::default(), scene: Rc::new(scene), memory: Memory::default() }
    }

    fn live(&self, format: Format) -> Live {
        let window = LiveWindow::new(format, 3, self.memory.clone());
        let scene = Rc::clone(&self.scene) as Rc<dyn Surroundings>;
        Live::new("live/x".into(), self.shelf.show("live/x"), window, format, scene)
    }

    /// Reads what is new; what is not in memory must be on the disk.
    fn look(&self, disk: &Sim, seen: &mut Seen) {
        let place = self.shelf.show("live/x");
        let Some(snapshot) = place.place(Format::Hls).snapshot() else { return };
        let text = snapshot.find("index.m3u8").unwrap().body.to_vec();
        let playlist = Playlist::parse(&String::from_utf8(text).unwrap());
        let before = seen.last.as_ref().map_or(0, |last| last.head.sequence);
        assert!(playlist.head.sequence >= before, "the media sequence went back");
        for segment in &playlist.segments {
            let number = super::take::number_of(&segment.uri).unwrap();
            if seen.segments.contains_key(&number) {
                continue;
            }
            seen.discontinuities += usize::from(segment.discontinuity);
            let bytes = match snapshot.find(&segment.uri) {
                Some(file) => file.body.to_vec(),
                None => disk.file(dir(Kind::Hls).join(&segment.uri).to_str().unwrap()).unwrap(),
            };
            seen.segments.insert(number, bytes);
        }
        seen.targets.push(playlist.head.target);
        seen.most_bytes = seen.most_bytes.max(self.memory.bytes());
        seen.last = Some(playlist);
    }
}

/// As few segments as possible may wait for the disk.
fn setting(disk: &Sim, id: &str, common: &Rc<Common>) -> Setting<Sim> {
    Setting { waiting: 0, ..tests::setting(disk, Kind::Hls, id, common) }
}

/// Publishes for some seconds on a disk that `trouble` does something to, and plays along.
fn watched(seconds: u32, trouble: impl Fn(&Sim, u32)) -> (Sim, Seen, Stage) {
    let (disk, stage, mut seen) = (Sim::default(), Stage::new(), Seen::default());
    runtime().block_on(async {
        let common = Rc::<Common>::default();
        let mut publisher = Publisher::new();
        let stream = publisher.stream();
        let mut work = work(Format::Hls, setting(&disk, "a", &common), dir(Kind::Hls));
        (work.live, work.memory) = (Some(stage.live(Format::Hls)), stage.memory.clone());
        let recording = packaged::run(work, Arc::clone(&stream), Tail::of(&stream));
        let publishing = async {
            for second in 0..seconds {
                trouble(&disk, second);
                publisher.play(1).await;
                stage.look(&disk, &mut seen);
            }
            publisher.end();
            // Packaging ends at once, whatever the disk does.
            tokio::time::sleep(Duration::from_secs(3)).await;
            stage.look(&disk, &mut seen);
            assert!(seen.last.as_ref().unwrap().ended, "live players are told the end");
            disk.stall(false);
            disk.set_capacity(None);
        };
        let ((_, live), ()) = tokio::join!(recording, publishing);
        live.unwrap().leave();
        mend(&disk, Kind::Hls, &common).await;
    });
    (disk, seen, stage)
}

/// Checks that a player has seen every picture and sound, in a row.
fn assert_whole(seen: &Seen, seconds: usize) {
    let numbers: Vec<u64> = seen.segments.keys().copied().collect();
    let first = numbers[0];
    assert!(numbers.iter().zip(first..).all(|(number, want)| *number == want), "{numbers:?}");
    let (pictures, sounds) = play_ts(&seen.segments.values().flatten().copied().collect::<Vec<_>>());
    let want = (0..).take_while(|n| n * 1024 / 441 * 10 <= seconds * 1000 - 40).count();
    assert_eq!((pictures, sounds), (seconds * 25, want));
    assert!(seen.discontinuities <= 1, "only the first segment may follow another take");
    assert!(seen.targets.windows(2).all(|pair| pair[0] == pair[1]), "{:?}", seen.targets);
}

#[test]
fn live_goes_on_while_the_disk_is_frozen_and_the_recording_after_that() {
    let (disk, seen, stage) = watched(100, |disk, second| disk.stall((10..70).contains(&second)));
    assert_whole(&seen, 100);
    assert_eq!(stage.memory.bytes(), 0, "nothing is kept in the end");
    // The window, those that wait, and the one that is being written: not a minute.
    let segment = seen.segments.values().map(|bytes| bytes.len() as u64).max().unwrap();
    assert!(seen.most_bytes < 20 * segment, "{} of {segment}", seen.most_bytes);
    let recorded = play(Kind::Hls, &disk.files(), dir(Kind::Hls).to_str().unwrap());
    assert!((50 * 25..80 * 25).contains(&recorded.pictures), "{recorded:?}");
    let text = String::from_utf8(disk.file("/data/hls/live/x/index.m3u8").unwrap()).unwrap();
    assert_eq!(text.matches("#EXT-X-DISCONTINUITY\n").count(), 1, "{text}");
    for (number, bytes) in &seen.segments {
        let recorded = disk.file(&format!("/data/hls/live/x/segment_{number}.ts"));
        assert!(recorded.is_none_or(|recorded| recorded == *bytes), "one name, two contents: {number}");
    }
}

/// Records two streams of one name while `publishing` runs, and finishes their takes.
fn two_takes(disk: &Sim, publishing: impl AsyncFnOnce(Publisher, Publisher)) {
    runtime().block_on(async {
        let common = Rc::<Common>::default();
        let record = |stream: Arc<Stream>, id| {
            let (setting, tail) = (setting(disk, id, &common), Tail::of(&stream));
            packaged::run(work(Format::Hls, setting, dir(Kind::Hls)), stream, tail)
        };
        let (first, second) = (Publisher::new(), Publisher::new());
        let recordings = (record(first.stream(), "a"), record(second.stream(), "b"));
        let (first, second, ()) = tokio::join!(recordings.0, recordings.1, publishing(first, second));
        assert!(first.0.is_some() && second.0.is_some());
        mend(disk, Kind::Hls, &common).await;
    });
}

#[test]
fn the_next_take_waits_for_the_writer_of_the_one_before() {
    let disk = Sim::default();
    two_takes(&disk, async |mut first, mut second| {
        first.play(5).await;
        disk.stall(true);
        first.play(5).await;
        first.end();
        second.play(10).await;
        disk.stall(false);
        second.play(5).await;
        second.end();
    });
    let base = dir(Kind::Hls).display().to_string();
    let files = disk.files();
    assert_eq!(play(Kind::Hls, &files, &format!("{base}@20261121T091545Z")).pictures, 250);
    assert_eq!(play(Kind::Hls, &files, &base).pictures, 375);
}

#[test]
fn the_next_take_is_numbered_when_the_one_before_is_packaged() {
    let disk = Sim::default();
    two_takes(&disk, async |mut first, mut second| {
        // Far more at once than may wait for the disk.
        disk.stall(true);
        first.frames(25 * 60);
        first.end();
        second.play(30).await;
        disk.stall(false);
        second.play(5).await;
        second.end();
    });
    let base = dir(Kind::Hls).display().to_string();
    let files = disk.files();
    let numbers = |base: &str| {
        let playlist = String::from_utf8(files[&format!("{base}/index.m3u8")].clone()).unwrap();
        let segments = Playlist::parse(&playlist).segments.into_iter();
        segments.map(|segment| super::take::number_of(&segment.uri).unwrap()).collect::<Vec<_>>()
    };
    let (first, second) = (numbers(&format!("{base}@20261121T091545Z")), numbers(&base));
    assert!(first.iter().max() < second.iter().min(), "{first:?} {second:?}");
}

#[test]
fn the_recorded_live_playlist_has_the_numbers_of_its_segments() {
    let folder = dir(Kind::Hls).display().to_string();
    let (disk, seen, _) = watched(100, |disk, second| {
        disk.stall((10..70).contains(&second));
        let Some(text) = disk.file(&format!("{folder}/index.m3u8")) else { return };
        let playlist = Playlist::parse(&String::from_utf8(text).unwrap());
        for (segment, number) in playlist.segments.iter().zip(playlist.head.sequence..) {
            assert_eq!(super::take::number_of(&segment.uri), Some(number), "{playlist:?}");
        }
    });
    assert_whole(&seen, 100);
    assert!(disk.file(&format!("{folder}/index.m3u8")).is_some());
}

#[test]
fn live_goes_on_when_the_disk_is_frozen_from_the_start() {
    let (disk, seen, _) = watched(30, |disk, _| disk.stall(true));
    assert_whole(&seen, 30);
    let recorded = play(Kind::Hls, &disk.files(), dir(Kind::Hls).to_str().unwrap());
    assert!(recorded.pictures > 0, "what waited is recorded when the disk is there again");
}

#[test]
fn live_goes_on_while_the_disk_is_full() {
    let full = |disk: &Sim, second| match second {
        10 => disk.set_capacity(Some(disk.used() + 2_000)),
        60 => disk.set_capacity(None),
        _ => {}
    };
    let (disk, seen, _) = watched(100, full);
    assert_whole(&seen, 100);
    let recorded = play(Kind::Hls, &disk.files(), dir(Kind::Hls).to_str().unwrap());
    assert!((50 * 25..90 * 25).contains(&recorded.pictures), "{recorded:?}");
}

#[test]
fn a_good_disk_holds_what_has_left_memory() {
    let (disk, seen, stage) = watched(60, |_, _| {});
    assert_whole(&seen, 60);
    let segment = seen.segments.values().map(|bytes| bytes.len() as u64).max().unwrap();
    assert!(seen.most_bytes < 6 * segment, "{} of {segment}", seen.most_bytes);
    let recorded = play(Kind::Hls, &disk.files(), dir(Kind::Hls).to_str().unwrap());
    assert_eq!(recorded.pictures, 60 * 25);
    assert_eq!(*stage.scene.told.borrow(), ["live/x"], "waiting clients are told once");
}

#[test]
fn what_is_not_recorded_touches_no_disk_and_ends_when_no_client_asks() {
    let (disk, stage) = (Sim::default(), Stage::new());
    disk.stall(true);
    runtime().block_on(async {
        let common = Rc::<Common>::default();
        let mut publisher = Publisher::new();
        let stream = publisher.stream();
        let mut sequences = Vec::new();
        for _ in 0..2 {
            let mut work = work(Format::Hls, setting(&disk, "a", &common), dir(Kind::Hls));
            (work.live, work.memory) = (Some(stage.live(Format::Hls)), stage.memory.clone());
            (work.recorded, work.lapse) = (false, Some(20_000));
            let mut seen = Seen::default();
            let publishing = async {
                for _ in 0..10 {
                    publisher.play(1).await;
                    stage.look(&disk, &mut seen);
                }
                stage.scene.now.set(stage.scene.now.get() + 20_001);
                publisher.play(5).await;
            };
            let ((left, live), ()) =
                tokio::join!(packaged::run(work, Arc::clone(&stream), Tail::of(&stream)), publishing);
            assert!(left.is_none());
            live.unwrap().leave();
            assert_eq!(stage.memory.bytes(), 0);
            let numbers: Vec<u64> = seen.segments.keys().copied().collect();
            assert!(numbers.len() >= 4, "{numbers:?}");
            sequences.extend(numbers);
            stage.scene.now.set(0);
        }
        assert!(sequences.windows(2).all(|pair| pair[0] < pair[1]), "numbers only rise: {sequences:?}");
        publisher.end();
    });
    assert_eq!(disk.steps(), 0);
}
