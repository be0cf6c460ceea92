//! Live HLS and fMP4 come out of memory: they go on whatever the disk does, and need none if nothing is recorded.

use std::path::Path;
use std::process::Command;

use crate::harness::disk::Disk;
use crate::harness::ffmpeg::{Packet, make_clip, packets, publish};
use crate::harness::flv::{SCRIPT, VIDEO};
use crate::harness::process::Guard;
use crate::harness::{Scratch, Server, http, need_ffmpeg, until};
use crate::tracks::{Piece, pieces, send};

const KEY: &str = "live/stream";
const ANY: &str = "127.0.0.1:0";
const HLS: &str = "/hls/live/stream/index.m3u8";
const MERGED: &str = "/mp4/live/stream/output_merge/index.m3u8";
/// Seconds of a clip.
const LENGTH: u32 = 12;

/// An origin with short segments.
fn origin(home: &Path, data: &Path, more: &[&str]) -> Server {
    origin_with("2s", home, data, more)
}

/// An origin with segments of that length.
fn origin_with(segment: &str, home: &Path, data: &Path, more: &[&str]) -> Server {
    let config = home.join("packaging.toml");
    let recording = format!("[recording]\nsegment = '{segment}'\nwindow = 4\nmin_free = 0\n");
    std::fs::write(&config, recording).unwrap();
    let (config, data) = (config.to_str().unwrap(), data.to_str().unwrap());
    let listen = ["--rtmp", ANY, "--flv", ANY, "--web", ANY, "--admin", ANY, "--config", config];
    Server::start(home, &[&["origin"], &listen[..], &["--data", data], more].concat())
}

/// A file of the origin's web port as text, if it is there.
fn get(origin: &Server, path: &str) -> Option<String> {
    let (answer, body) = http(origin.addr("web"), "GET", path, "");
    (answer.status == 200).then(|| String::from_utf8(body).unwrap())
}

/// A playlist's line that begins with `tag`, as a number.
fn number(text: &str, tag: &str) -> u64 {
    text.lines().find_map(|line| line.strip_prefix(tag)).map_or(0, |value| value.parse().unwrap())
}

/// A player that copies a live playlist from its oldest segment on.
fn play(origin: &Server, path: &str, to: &Path, filters: &[&str]) -> Guard {
    let url = format!("http://{}{path}", origin.addr("web"));
    let mut player = Command::new("ffmpeg");
    player.args(["-v", "error", "-nostdin", "-live_start_index", "0", "-i", &url, "-c", "copy"]);
    Guard::spawn(path, player.args(filters).arg(to))
}

/// Plays HLS and fMP4 while the clip is published and `trouble` happens, and compares them with the clip.
fn assert_live_is_whole(scratch: &Scratch, origin: &Server, trouble: impl FnOnce()) {
    let clip = scratch.path("clip.flv");
    make_clip(&clip, LENGTH, "320x180");
    let mut publisher = publish(&clip, &origin.rtmp(KEY), false);
    let files = [scratch.path("hls.mp4"), scratch.path("fmp4.mp4")];
    let players = [(HLS, &files[0]), (MERGED, &files[1])].map(|(path, file)| {
        until(path, || get(origin, path));
        play(origin, path, file, &["-bsf:a", "aac_adtstoasc"])
    });
    trouble();
    assert!(publisher.wait());
    for mut player in players {
        assert!(player.wait(), "{:?}", player.log());
    }
    let hashes = |packets: &[Packet]| packets.iter().map(|packet| packet.hash.clone()).collect::<Vec<_>>();
    let want = packets(&clip);
    for file in files {
        let got = packets(&file);
        assert_eq!(hashes(&got["audio"]), hashes(&want["audio"]), "{}", file.display());
        assert_eq!(got["video"].len(), want["video"].len(), "{}", file.display());
        if file.ends_with("fmp4.mp4") {
            assert_eq!(hashes(&got["video"]), hashes(&want["video"]));
        }
        assert_eq!(pictures(&file), pictures(&clip), "{}", file.display());
    }
}

/// The checksums of all decoded pictures.
fn pictures(file: &Path) -> Vec<String> {
    let output = Command::new("ffmpeg")
        .args(["-v", "error", "-nostdin", "-i"])
        .arg(file)
        .args(["-map", "0:v", "-f", "framemd5", "-"])
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    lines.map(|line| line.rsplit(',').next().unwrap().trim().to_owned()).collect()
}

#[test]
fn live_goes_on_when_the_disk_is_full() {
    need_ffmpeg!();
    let scratch = Scratch::new("packaging-full");
    let Some(disk) = Disk::small(&scratch, "4m") else { return };
    let mut origin = origin(&scratch.path(""), &disk.0.join("data"), &["--record", "hls,fmp4"]);
    let ballast = || {
        let _ = std::fs::write(disk.0.join("ballast"), vec![0; 8 << 20]);
    };
    assert_live_is_whole(&scratch, &origin, ballast);
    origin.assert_up();
}

#[test]
fn live_goes_on_when_the_disk_freezes() {
    need_ffmpeg!();
    let scratch = Scratch::new("packaging-frozen");
    let Some(disk) = Disk::freezable(&scratch) else { return };
    let data = disk.0.join("data");
    let mut origin = origin(&scratch.path(""), &data, &["--record", "hls,fmp4"]);
    let mut frozen = None;
    assert_live_is_whole(&scratch, &origin, || frozen = Some(disk.freeze()));
    origin.assert_up();
    drop(frozen);
    let replay = data.join("hls/live/stream/index.m3u8");
    until("the replay", || std::fs::read_to_string(&replay).ok().filter(|text| text.contains("VOD")));
}

#[test]
fn what_is_not_recorded_is_packaged_for_the_first_client() {
    need_ffmpeg!();
    let scratch = Scratch::new("packaging-demand");
    let data = scratch.path("data");
    let mut origin = origin(&scratch.path(""), &data, &["--packaging", "hls,fmp4", "--gap", "300ms"]);
    let clip = scratch.path("clip.flv");
    make_clip(&clip, 30, "320x180");
    let publisher = publish(&clip, &origin.rtmp(KEY), true);
    until("the stream", || {
        let (_, list) = http(origin.addr("flv"), "GET", "/api/v1/streams", "");
        String::from_utf8_lossy(&list).contains(KEY).then_some(())
    });
    // The request waits for the first segment.
    for path in [HLS, MERGED, "/mp4/live/stream/output_separate/index.m3u8"] {
        let text = get(&origin, path).unwrap_or_else(|| panic!("no {path}"));
        assert!(text.starts_with("#EXTM3U"), "{text}");
    }
    let playlist = get(&origin, HLS).unwrap();
    let segment = playlist.lines().find(|line| line.ends_with(".ts")).unwrap();
    let path = format!("/hls/live/stream/{segment}");
    let (answer, body) = http(origin.addr("web"), "GET", &path, "");
    assert_eq!((answer.status, body[0], answer.header("content-type")), (200, 0x47, Some("video/mp2t")));
    assert_eq!(answer.header("cache-control"), Some("public, max-age=86400, immutable"));
    let etag = format!("If-None-Match: {}\r\n", answer.header("etag").unwrap());
    assert_eq!(http(origin.addr("web"), "GET", &path, &etag).0.status, 304);
    let (part, bytes) = http(origin.addr("web"), "GET", &path, "Range: bytes=188-375\r\n");
    assert_eq!((part.status, &bytes[..]), (206, &body[188..376]));
    let (_, metrics) = http(origin.addr("admin"), "GET", "/metrics", "");
    let held = "uringcast_memory_used_bytes{for=\"packages\"}";
    assert!(String::from_utf8_lossy(&metrics).contains(held), "{}", String::from_utf8_lossy(&metrics));
    assert_eq!(http(origin.addr("web"), "GET", "/hls/live/none/index.m3u8", "").0.status, 404);
    drop(publisher);
    until("the end of the playlist", || get(&origin, HLS)?.contains("#EXT-X-ENDLIST").then_some(()));
    // The next stream of that name does not wait until the files of this one are gone.
    let publisher = publish(&clip, &origin.rtmp(KEY), true);
    let next = until("the next stream", || get(&origin, HLS).filter(|text| !text.contains("#EXT-X-ENDLIST")));
    let sequence = |text| number(text, "#EXT-X-MEDIA-SEQUENCE:");
    assert!(sequence(&next) > sequence(&playlist), "{playlist}{next}");
    drop(publisher);
    until("its end", || get(&origin, HLS)?.contains("#EXT-X-ENDLIST").then_some(()));
    until("the end of its files", || get(&origin, HLS).is_none().then_some(()));
    assert!(!data.exists(), "nothing was recorded");
    origin.assert_up();
}

#[test]
fn a_publisher_that_comes_back_within_the_gap_continues_the_playlist() {
    need_ffmpeg!();
    let scratch = Scratch::new("packaging-gap");
    let mut origin = origin(&scratch.path(""), &scratch.path("data"), &["--record", "hls", "--gap", "30s"]);
    let clip = scratch.path("clip.flv");
    make_clip(&clip, 30, "320x180");
    let mut publisher = publish(&clip, &origin.rtmp(KEY), true);
    let live = until("a live playlist", || get(&origin, HLS));
    publisher.kill();
    until("the publisher to be gone", || {
        origin.guard.log().iter().any(|line| line.contains("publisher")).then_some(())
    });
    let target = number(&live, "#EXT-X-TARGETDURATION:");
    let mut last = number(&live, "#EXT-X-MEDIA-SEQUENCE:");
    let publisher = publish(&clip, &origin.rtmp(KEY), true);
    until("the playlist to slide on", || {
        let text = get(&origin, HLS).expect("a playlist at any time");
        assert!(!text.contains("#EXT-X-ENDLIST"), "{text}");
        assert_eq!(number(&text, "#EXT-X-TARGETDURATION:"), target);
        let sequence = number(&text, "#EXT-X-MEDIA-SEQUENCE:");
        assert!(sequence >= last, "{text}");
        last = sequence;
        (sequence >= 2).then_some(())
    });
    drop(publisher);
    origin.assert_up();
}

#[test]
fn a_restart_continues_the_numbers_and_players_are_told_no_end() {
    need_ffmpeg!();
    let scratch = Scratch::new("packaging-restart");
    let (home, data) = (scratch.path(""), scratch.path("data"));
    let start = |gap, segment| origin_with(segment, &home, &data, &["--record", "hls", "--gap", gap]);
    let clip = scratch.path("clip.flv");
    make_clip(&clip, 30, "320x180");
    let mut first = start("60s", "2s");
    let publisher = publish(&clip, &first.rtmp(KEY), true);
    let before =
        until("two segments", || get(&first, HLS).filter(|text| text.matches("#EXTINF").count() > 1));
    // There is no viewer, so that it ends at once.
    first.guard.terminate();
    assert!(first.guard.wait());
    drop((publisher, first));

    // The publisher is back before the gap is over, its first segment is not.
    let mut second = start("4s", "8s");
    let left = get(&second, HLS).expect("the playlist as it was");
    assert!(!left.contains("#EXT-X-ENDLIST"), "{left}");
    let publisher = publish(&clip, &second.rtmp(KEY), true);
    let after = until("the next take", || get(&second, HLS).filter(|text| *text != left));
    assert!(!after.contains("#EXT-X-ENDLIST") && after.contains("#EXT-X-DISCONTINUITY\n"), "{after}");
    let next = number(&left, "#EXT-X-MEDIA-SEQUENCE:") + left.matches("#EXTINF").count() as u64;
    assert_eq!(number(&after, "#EXT-X-MEDIA-SEQUENCE:"), next, "{left}{after}");
    assert!(number(&left, "#EXT-X-MEDIA-SEQUENCE:") >= number(&before, "#EXT-X-MEDIA-SEQUENCE:"));
    drop(publisher);
    second.guard.terminate();
    assert!(second.guard.wait());
    drop(second);

    // No publisher comes back.
    let third = start("200ms", "2s");
    until("the end", || get(&third, HLS)?.contains("#EXT-X-ENDLIST").then_some(()));
}

/// A clip's tags, `later` milliseconds later.
fn clip(scratch: &Scratch, name: &str, size: &str, later: u32) -> Vec<Piece> {
    let file = scratch.path(name);
    make_clip(&file, LENGTH, size);
    let mut pieces = pieces(&std::fs::read(file).unwrap());
    pieces.retain(|piece| piece.kind != SCRIPT && !piece.body.is_empty());
    pieces.iter_mut().for_each(|piece| piece.time += later);
    pieces
}

#[test]
fn the_master_playlist_follows_a_camera_that_comes_later_and_changes() {
    need_ffmpeg!();
    let scratch = Scratch::new("packaging-camera");
    let data = scratch.path("data");
    let mut origin = origin(&scratch.path(""), &data, &["--record", "fmp4"]);
    // Sound alone for 5 s, then pictures, and later larger ones.
    let mut sound = clip(&scratch, "small.flv", "320x180", 0);
    let header = sound.iter().position(|piece| piece.kind == VIDEO && piece.is_header()).unwrap();
    let header = Piece { time: 5_000, ..sound.remove(header) };
    sound.retain(|piece| piece.kind != VIDEO || piece.time >= 5_000);
    let with_pictures = sound.split_off(sound.iter().position(|piece| piece.time >= 5_000).unwrap());
    let larger = clip(&scratch, "large.flv", "640x360", LENGTH * 1000);
    let tags = [sound, vec![header], with_pictures, larger].concat();

    let master = "output_separate/index.m3u8";
    let masters = || {
        let live = get(&origin, &format!("/mp4/live/camera/{master}"))?;
        Some([live, std::fs::read_to_string(data.join("mp4/live/camera").join(master)).ok()?])
    };
    std::thread::scope(|scope| {
        let publisher = scope.spawn(|| send(&origin, "camera", &tags));
        let both_say = |what, says: &dyn Fn(&String) -> bool| {
            until(what, || masters().filter(|both| both.iter().all(says)));
        };
        both_say("sound alone", &|text| text.contains("audio.m3u8") && !text.contains("video.m3u8"));
        let has = |text: &String, size: &str| text.contains("video.m3u8") && text.contains(size);
        both_say("the camera", &|text| has(text, "RESOLUTION=320x180"));
        both_say("its other size", &|text| has(text, "RESOLUTION=640x360"));
        let audio = get(&origin, "/mp4/live/camera/output_separate/audio.m3u8").unwrap();
        assert!(!audio.contains("#EXT-X-ENDLIST"), "it is still live: {audio}");
        drop(publisher.join().unwrap());
    });
    origin.assert_up();
}

#[test]
fn a_pause_does_not_change_the_target_duration() {
    need_ffmpeg!();
    let scratch = Scratch::new("packaging-pause");
    let mut origin = origin(&scratch.path(""), &scratch.path("data"), &["--record", "hls"]);
    // No pictures for 24 s while sound goes on, and then neither for 24 s.
    let before = clip(&scratch, "clip.flv", "320x180", 0);
    let again = |rounds: u32| {
        before
            .iter()
            .filter(|piece| !piece.is_header())
            .cloned()
            .map(move |piece| Piece { time: piece.time + rounds * LENGTH * 1000, ..piece })
    };
    let sound = [1, 2].into_iter().flat_map(again).filter(|piece| piece.kind != VIDEO);
    let tags: Vec<Piece> = before.iter().cloned().chain(sound).chain(again(3)).chain(again(6)).collect();
    let (mut targets, mut breaks) = (Vec::new(), 0);
    std::thread::scope(|scope| {
        let publisher = scope.spawn(|| send(&origin, "pause", &tags));
        until("the end of what is published", || {
            let is_over = publisher.is_finished();
            if let Some(text) = get(&origin, "/hls/live/pause/index.m3u8") {
                targets.push(number(&text, "#EXT-X-TARGETDURATION:"));
                let longest = text.lines().filter_map(|line| line.strip_prefix("#EXTINF:"));
                let longest = longest.map(|value| value.trim_end_matches(',').parse::<f64>().unwrap());
                let longest = longest.fold(0.0, f64::max);
                assert!(longest < targets[0] as f64 + 0.5, "{text}");
                breaks = breaks.max(text.matches("#EXT-X-DISCONTINUITY\n").count());
            }
            is_over.then_some(())
        });
        drop(publisher.join().unwrap());
    });
    targets.dedup();
    assert_eq!((targets.len(), breaks), (1, 1), "{targets:?}");
    origin.assert_up();
}
