//! Streams that are packaged in memory: what players find, and what is kept.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use super::format::Format;
use super::memory::Memory;
use super::segment::{File, Init, Piece, Segment};
use super::shelf::{Found, Shelf};
use super::window::{LiveWindow, Pressure};
use crate::media::m3u8::{Head, Playlist};
use crate::media::track::{Tracks, Video, VideoCodec};

const NOW: SystemTime = SystemTime::UNIX_EPOCH;

/// A segment of 4 s and 1,000 bytes in each lane; the init segment is the one with that number.
fn segment(format: Format, number: u64, init: u32, memory: &Memory) -> Arc<Segment> {
    let head = Head { target: 5, sequence: number, discontinuities: 0 };
    let mut segment = Segment::new(head, false, 4_000, Tracks::default());
    for lane in format.lanes() {
        let name = format!("{}_{init}.mp4", lane.init);
        let init = (!lane.init.is_empty())
            .then(|| Arc::new(Init { name, file: File::new(vec![0; 100], NOW, memory) }));
        let (name, file) =
            (format!("{}_{number}{}", lane.segment, lane.suffix), File::new(vec![0; 1000], NOW, memory));
        segment.pieces.push(Some(Piece { name, file, init, dependent: false }));
    }
    Arc::new(segment)
}

fn text(window: &LiveWindow, path: &str) -> String {
    let snapshot = window.snapshot(NOW);
    String::from_utf8(snapshot.find(path).expect(path).body.to_vec()).unwrap()
}

/// The numbers of the segments in memory.
fn kept(window: &LiveWindow) -> Vec<u64> {
    let snapshot = window.snapshot(NOW);
    let number = |path: &str| path.strip_prefix("segment_")?.strip_suffix(".ts")?.parse().ok();
    let mut numbers: Vec<u64> = snapshot.paths().filter_map(number).collect();
    numbers.sort_unstable();
    numbers
}

#[test]
fn what_playlists_name_is_there_and_a_playlist_longer() {
    let memory = Memory::default();
    for format in Format::EVERY {
        let mut window = LiveWindow::new(format, 4, memory.clone());
        for number in 7..30 {
            window.push(segment(format, number, 1 + u32::from(number > 20), &memory), Pressure::None);
            let snapshot = window.snapshot(NOW);
            for lane in format.lanes() {
                let playlist = Playlist::parse(&text(&window, &lane.path(lane.index)));
                assert_eq!(playlist.head.sequence, (number + 1).saturating_sub(4).max(7), "{format:?}");
                for named in &playlist.segments {
                    for name in named.map.iter().chain([&named.uri]) {
                        assert!(snapshot.find(&lane.path(name)).is_some(), "{format:?} {number}: {name}");
                    }
                }
            }
            let gone = format!("{}_{}{}", "segment", number.saturating_sub(9), ".ts");
            assert!(format != Format::Hls || snapshot.find(&gone).is_none(), "{number}: {gone}");
        }
        let ended = format.lanes()[0];
        window.end();
        assert!(text(&window, &ended.path(ended.index)).ends_with("#EXT-X-ENDLIST\n"));
    }
    assert_eq!(memory.bytes(), 0, "all of it is dropped");
}

#[test]
fn what_is_on_the_disk_leaves_memory_except_for_the_live_edge() {
    let memory = Memory::default();
    let mut window = LiveWindow::new(Format::Hls, 6, memory.clone());
    for number in 0..20 {
        let segment = segment(Format::Hls, number, 0, &memory);
        if number != 12 {
            segment.set_on_disk();
        }
        window.push(segment, Pressure::None);
    }
    assert_eq!(kept(&window), [12, 17, 18, 19], "12 is not on the disk");
    assert!(!window.is_on_disk());
    assert_eq!(memory.bytes(), 4_000);
    window.trim(Pressure::Tight);
    assert_eq!(kept(&window), [] as [u64; 0], "12 is named by no playlist");
    assert!(text(&window, "index.m3u8").contains("segment_14.ts"), "it is named and served from the disk");
}

#[test]
fn when_memory_is_spent_playlists_get_shorter() {
    let memory = Memory::default();
    let mut window = LiveWindow::new(Format::Hls, 6, memory.clone());
    for number in 0..20 {
        window.push(segment(Format::Hls, number, 0, &memory), Pressure::None);
    }
    assert_eq!(kept(&window).len(), 13);
    window.trim(Pressure::Tight);
    assert_eq!(kept(&window), [14, 15, 16, 17, 18, 19]);
    window.push(segment(Format::Hls, 20, 0, &memory), Pressure::Spent);
    let playlist = Playlist::parse(&text(&window, "index.m3u8"));
    assert_eq!((playlist.head.sequence, kept(&window)), (18, vec![18, 19, 20]));
    for number in 21..24 {
        window.push(segment(Format::Hls, number, 0, &memory), Pressure::None);
    }
    let playlist = Playlist::parse(&text(&window, "index.m3u8"));
    assert_eq!((playlist.head.sequence, playlist.segments.len()), (18, 6), "it grows again");
}

#[test]
fn the_master_playlist_follows_the_tracks() {
    let memory = Memory::default();
    let video = |width, codecs: &str| {
        Arc::new(Video {
            codec: VideoCodec::H264,
            record: bytes::Bytes::new(),
            width,
            height: 360,
            codecs: codecs.to_owned(),
            length_size: 4,
            parameter_sets: Vec::new(),
        })
    };
    let mut window = LiveWindow::new(Format::Fmp4, 6, memory.clone());
    let mut master = |number, video: Option<Arc<Video>>| {
        let mut segment = Arc::into_inner(segment(Format::Fmp4, number, 1, &memory)).unwrap();
        segment.tracks.video = video;
        window.push(Arc::new(segment), Pressure::None);
        text(&window, "output_separate/index.m3u8")
    };
    assert!(!master(0, None).contains("video.m3u8"));
    let small = master(1, Some(video(640, "avc1.42c01e")));
    assert!(small.contains("CODECS=\"avc1.42c01e\",RESOLUTION=640x360") && small.contains("video.m3u8"));
    assert!(master(2, Some(video(1280, "avc1.4d4020"))).contains("avc1.4d4020\",RESOLUTION=1280x360"));
    assert!(!master(3, None).contains("video.m3u8"));
}

#[test]
fn paths_of_live_files() {
    let parsed = |path| Format::parse(path);
    assert_eq!(parsed("hls/live/a/index.m3u8"), Some((Format::Hls, "live/a", "index.m3u8")));
    let merged = "mp4/x/live/a/output_merge/segment_1.m4s";
    assert_eq!(parsed(merged), Some((Format::Fmp4, "x/live/a", "output_merge/segment_1.m4s")));
    for path in ["hls/index.m3u8", "flv/live/a/index.flv", "mp4/a/b.mp4", "index.html", ""] {
        assert_eq!(parsed(path), None, "{path}");
    }
}

#[test]
fn the_shelf_shows_live_files_and_takes_wishes() {
    let (shelf, memory) = (Shelf::default(), Memory::default());
    let find = |now| shelf.find("hls/live/a/index.m3u8", now);
    assert!(matches!(find(1), Found::Nothing));
    let shown = shelf.show("live/a");
    assert!(Arc::ptr_eq(&shown, &shelf.show("live/a")), "the next stream has the same place");
    shelf.withdraw("live/a");
    assert!(matches!(find(2), Found::Nothing), "it has no file yet");
    let place = shown.place(Format::Hls);
    place.offer();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    runtime.block_on(async {
        assert!(tokio::time::timeout(Duration::from_millis(1), place.wanted()).await.is_err());
        assert!(matches!(find(3), Found::Soon));
        place.wanted().await;
    });
    let mut window = LiveWindow::new(Format::Hls, 6, memory.clone());
    window.push(segment(Format::Hls, 0, 0, &memory), Pressure::None);
    let snapshot = Arc::new(window.snapshot(NOW));
    place.put(&snapshot);
    assert!(matches!(find(4), Found::File(_)));
    assert_eq!(place.asked(), 4);
    assert!(matches!(shelf.find("mp4/live/a/output_merge/index.m3u8", 4), Found::Nothing));
    let later = Arc::new(window.snapshot(NOW));
    place.put(&later);
    place.remove(&snapshot);
    assert!(matches!(find(5), Found::File(_)), "a later take's files stay");
    place.remove(&later);
    place.retract();
    shelf.withdraw("live/a");
    assert!(matches!(find(6), Found::Nothing));
    assert!(!Arc::ptr_eq(&shown, &shelf.show("live/a")));
}

#[test]
fn playlists_of_a_stream_that_is_over_give_way_to_the_next_one() {
    let (shelf, memory) = (Shelf::default(), Memory::default());
    let shown = shelf.show("live/a");
    let place = shown.place(Format::Hls);
    let found = || ["index.m3u8", "segment_0.ts"].map(|name| shelf.find(&format!("hls/live/a/{name}"), 1));
    place.offer();
    let mut window = LiveWindow::new(Format::Hls, 6, memory.clone());
    window.push(segment(Format::Hls, 0, 0, &memory), Pressure::None);
    window.end();
    place.put(&Arc::new(window.snapshot(NOW)));
    assert!(matches!(found(), [Found::Soon, Found::File(_)]));
    place.offer(); // the next one comes before this one is told to be over
    place.retract();
    assert!(matches!(found(), [Found::Soon, Found::File(_)]));
    place.retract();
    assert!(matches!(found(), [Found::File(_), Found::File(_)]), "no next one: players read the end");
}

#[test]
fn a_track_that_was_away_comes_back_with_the_numbers_of_the_others() {
    let memory = Memory::default();
    let mut window = LiveWindow::new(Format::Fmp4, 6, memory.clone());
    let mut discontinuities = 0;
    for number in 0..20 {
        let mut next = Arc::into_inner(segment(Format::Fmp4, number, 1, &memory)).unwrap();
        next.discontinuity = [5, 9].contains(&number);
        next.discontinuities = discontinuities;
        discontinuities += u64::from(next.discontinuity);
        if (5..9).contains(&number) {
            next.pieces[2] = None;
        }
        window.push(Arc::new(next), Pressure::None);
        let [audio, video] = ["audio", "video"].map(|track| {
            let playlist = Playlist::parse(&text(&window, &format!("output_separate/{track}.m3u8")));
            for (segment, number) in playlist.segments.iter().zip(playlist.head.sequence..) {
                assert_eq!(segment.uri, format!("{track}_{number}.m4s"));
            }
            playlist
        });
        if !(5..9).contains(&number) {
            assert_eq!(audio.next_head(), video.next_head(), "{number}");
        }
    }
}

#[test]
fn init_segments_stay_as_long_as_segments_that_need_them() {
    let memory = Memory::default();
    let mut window = LiveWindow::new(Format::Fmp4, 3, memory.clone());
    for number in 0..12 {
        window.push(segment(Format::Fmp4, number, 1 + u32::from(number >= 6), &memory), Pressure::None);
        let snapshot = window.snapshot(NOW);
        let is_there = |name: &str| snapshot.find(&format!("output_merge/{name}")).is_some();
        let needs_first = (0..6).any(|number| is_there(&format!("segment_{number}.m4s")));
        assert_eq!(is_there("init_1.mp4"), needs_first, "{number}");
    }
}
