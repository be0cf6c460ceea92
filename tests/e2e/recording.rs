//! What a stream leaves behind: HLS, fMP4 and FLV, while it is live, after it, after a crash, and on a full disk.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::harness::disk::Disk;
use crate::harness::ffmpeg::{make_clip, packets, publish};
use crate::harness::players::{available, pipeline, vlc};
use crate::harness::process::Guard;
use crate::harness::{Flavor, Scratch, Server, Watch, http, need_ffmpeg, until};

const KEY: &str = "live/stream";
const ANY: &str = "127.0.0.1:0";
/// Seconds of a clip.
const LENGTH: u32 = 9;

/// An origin that records everything into `data`, with short segments and a short gap.
fn origin(home: &Path, data: &Path, more: &str) -> Server {
    let config = home.join("recording.toml");
    let text = format!("[recording]\nsegment = '2s'\nwindow = 3\nmin_free = 0\n{more}");
    std::fs::write(&config, text).unwrap();
    let (config, data) = (config.to_str().unwrap(), data.to_str().unwrap());
    let listen = ["--rtmp", ANY, "--flv", ANY, "--web", ANY, "--admin", ANY, "--config", config];
    let recording = ["--data", data, "--record", "flv,hls,fmp4", "--gap", "500ms"];
    Server::start(home, &[&["origin"], &listen[..], &recording[..]].concat())
}

/// The files of a finished take.
fn outputs(data: &Path, name: &str) -> [PathBuf; 4] {
    let merge = data.join(format!("mp4/live/{name}/output_merge"));
    [
        data.join(format!("hls/live/{name}/index.m3u8")),
        merge.join("index.m3u8"),
        merge.join("stream_full.mp4"),
        data.join(format!("flv/live/{name}/index.flv")),
    ]
}

/// Waits until a take is finished: nothing of it is under way any more.
fn wait_finished(data: &Path, name: &str) {
    until(&format!("{name} to be finished"), || {
        let outputs = outputs(data, name);
        let journals = outputs.iter().filter(|path| {
            let mut journal = path.as_os_str().to_owned();
            journal.push(".journal");
            Path::new(&journal).exists()
        });
        (outputs.iter().all(|path| path.exists()) && journals.count() == 0).then_some(())
    });
}

/// Pictures and sounds of a file, all of which must decode without a complaint.
fn counts(file: &Path) -> (usize, usize) {
    let decoded = Command::new("ffmpeg")
        .args(["-v", "error", "-nostdin", "-i"])
        .arg(file)
        .args(["-f", "null", "-"])
        .output()
        .unwrap();
    let complaints = String::from_utf8_lossy(&decoded.stderr);
    assert!(decoded.status.success() && complaints.is_empty(), "{}: {complaints}", file.display());
    let packets = packets(file);
    let count = |kind| packets.get(kind).map_or(0, Vec::len);
    (count("video"), count("audio"))
}

/// A playlist's line that begins with `tag`, as a number.
fn number(text: &str, tag: &str) -> u64 {
    let line = text.lines().find_map(|line| line.strip_prefix(tag));
    line.map_or(0, |value| value.parse().unwrap())
}

#[test]
fn a_stream_is_live_as_hls_and_leaves_everything_behind() {
    need_ffmpeg!();
    let scratch = Scratch::new("recording");
    let data = scratch.path("data");
    let clip = scratch.path("clip.flv");
    make_clip(&clip, LENGTH, "320x180");
    let told = scratch.path("told");
    let hook = format!("hook = 'cat >> {}; echo >> {0}'\n", told.display());
    let origin = origin(&scratch.path(""), &data, &hook);
    let mut publisher = publish(&clip, &origin.rtmp(KEY), false);

    // While it is live the playlist slides and its number only rises.
    let (mut last, mut over) = (0, false);
    let live = outputs(&data, "stream")[0].clone();
    until("the live playlist to slide and end", || {
        let text = std::fs::read_to_string(&live).ok()?;
        let sequence = number(&text, "#EXT-X-MEDIA-SEQUENCE:");
        let whole = text.contains("PLAYLIST-TYPE:VOD");
        assert!(sequence >= last || whole, "the media sequence went back from {last}:\n{text}");
        assert!(!whole || over, "the replay came before live players could read that it is over");
        over |= text.contains("#EXT-X-ENDLIST");
        last = sequence;
        (over && sequence >= 1).then_some(())
    });
    assert!(publisher.wait());
    wait_finished(&data, "stream");

    let want = counts(&clip);
    for output in outputs(&data, "stream") {
        assert_eq!(counts(&output), want, "{}", output.display());
    }
    for (track, want) in [("video", (want.0, 0)), ("audio", (0, want.1)), ("index", want)] {
        let playlist = data.join(format!("mp4/live/stream/output_separate/{track}.m3u8"));
        assert_eq!(counts(&playlist), want, "{track}");
    }
    let (answer, body) = http(origin.addr("web"), "GET", "/mp4/live/stream/output_merge/stream_full.mp4", "");
    assert_eq!((answer.status, &body[4..8]), (200, &b"ftyp"[..]));
    let told = until("the hook", || {
        let text = std::fs::read_to_string(&told).ok()?;
        ["index.flv", "hls/live/stream/index.m3u8", "stream_full.mp4"]
            .iter()
            .all(|file| text.contains(file))
            .then_some(text)
    });
    assert!(told.lines().all(|line| line.is_empty() || line.contains("\"event\":\"recorded\"")), "{told}");
    let (_, metrics) = http(origin.addr("admin"), "GET", "/metrics", "");
    assert!(String::from_utf8_lossy(&metrics).contains("uringcast_recorded_bytes_total{kind=\"hls\"}"));
}

/// As by ffmpeg without `-re`: what comes within a second is more than what viewers are offered, in time, and more
/// than the stream's memory may be, in bytes.
#[test]
fn a_stream_that_comes_faster_than_real_time_is_recorded_whole() {
    need_ffmpeg!();
    let scratch = Scratch::new("fast");
    let (data, clip) = (scratch.path("data"), scratch.path("clip.flv"));
    let made = Command::new("ffmpeg")
        .args(["-v", "error", "-f", "lavfi", "-i", "testsrc2=size=320x180:rate=25:duration=30"])
        .args(["-f", "lavfi", "-i", "sine=duration=30:sample_rate=44100", "-c:v", "libx264", "-g", "25"])
        .args(["-preset", "ultrafast", "-b:v", "20M", "-minrate", "20M", "-maxrate", "20M", "-bufsize", "2M"])
        .args(["-x264-params", "nal-hrd=cbr", "-threads", "1", "-c:a", "aac"])
        .arg(&clip)
        .status();
    assert!(made.unwrap().success());
    assert!(std::fs::metadata(&clip).unwrap().len() > 64 << 20, "twice live.gop_bytes");
    let origin = origin(&scratch.path(""), &data, "");
    let mut push = Command::new(env!("CARGO_BIN_EXE_uringcast"));
    push.arg("push").arg(&clip).args([&origin.rtmp(KEY), "--speed", "0"]);
    let mut push = Guard::spawn("push", &mut push);
    assert!(push.wait(), "{:?}", push.log());
    wait_finished(&data, "stream");
    let want = counts(&clip);
    assert_eq!(want.0, 30 * 25);
    let [_, _, mp4, flv] = outputs(&data, "stream");
    assert_eq!([counts(&mp4), counts(&flv)], [want; 2]);
    assert_eq!(origin.metric("uringcast_recording_skipped_bytes_total", ""), 0.0);
}

#[test]
fn vlc_and_gstreamer_play_what_was_recorded() {
    need_ffmpeg!();
    if !available("cvlc") || !available("gst-launch-1.0") {
        return;
    }
    let scratch = Scratch::new("recording-players");
    let data = scratch.path("data");
    let clip = scratch.path("clip.flv");
    make_clip(&clip, LENGTH, "320x180");
    let mut origin = origin(&scratch.path(""), &data, "");
    assert!(publish(&clip, &origin.rtmp(KEY), false).wait());
    wait_finished(&data, "stream");
    let (pictures, sounds) = counts(&clip);

    let raw = scratch.path("raw");
    let sources = [
        ("/mp4/live/stream/output_merge/stream_full.mp4", "qtdemux"),
        ("/flv/live/stream/index.flv", "flvdemux"),
        ("/hls/live/stream/index.m3u8", "hlsdemux ! tsdemux"),
    ];
    for (path, demux) in sources {
        let url = format!("http://{}{path}", origin.addr("web"));
        let mut player = pipeline(&format!(
            "souphttpsrc location={url} ! {demux} ! queue ! h264parse ! openh264dec ! filesink location={}",
            raw.display()
        ));
        assert!(player.wait(), "{path}: {:?}", player.log());
        let decoded = std::fs::metadata(&raw).unwrap().len() / (320 * 180 * 3 / 2);
        assert_eq!(decoded, pictures as u64, "GStreamer: {path}");
    }

    let fragments = ("/mp4/live/stream/output_merge/index.m3u8", "");
    for (path, _) in sources.into_iter().chain([fragments]) {
        // What it decoded it encodes anew: some it drops, more on a busy machine, and its encoder keeps the last few.
        let url = format!("http://{}{path}", origin.addr("web"));
        let encode = "transcode{vcodec=mp2v,vb=800,acodec=mpga,ab=64,channels=1,samplerate=44100,threads=1}:";
        let (seen, heard) = vlc(&scratch, &url, &[], encode);
        assert!(seen > pictures * 8 / 10 && seen <= pictures + 1, "VLC: {path}: {seen} of {pictures}");
        // Frames of AAC have 1024 samples, those of MP2 1152.
        let wanted = sounds * 1024 / 1152;
        assert!(heard > wanted * 8 / 10 && heard <= wanted + 2, "VLC: {path}: {heard} of {wanted}");
    }
    origin.assert_up();
}

#[test]
fn a_long_take_is_parted_and_who_plays_it_live_notices_nothing() {
    need_ffmpeg!();
    let scratch = Scratch::new("recording-parted");
    let data = scratch.path("data");
    let clip = scratch.path("clip.flv");
    make_clip(&clip, LENGTH, "320x180");
    let mut origin = origin(&scratch.path(""), &data, "take = '4s'\n");
    let mut publisher = publish(&clip, &origin.rtmp(KEY), false);
    let live =
        [("hls/live/stream/index.m3u8", "hls.ts"), ("mp4/live/stream/output_merge/index.m3u8", "mp4.ts")];
    let players = live.map(|(path, written)| {
        until(path, || data.join(path).exists().then_some(()));
        let url = format!("http://{}/{path}", origin.addr("web"));
        let mut player = Command::new("ffmpeg");
        player.args(["-v", "error", "-nostdin", "-live_start_index", "0", "-i", &url, "-c", "copy"]);
        let file = scratch.path(written);
        (Guard::spawn(path, player.arg(&file)), file)
    });
    assert!(publisher.wait());
    let (pictures, sounds) = counts(&clip);
    for (mut player, file) in players {
        assert!(player.wait(), "{:?}", player.log());
        let packets = packets(&file);
        let played = (packets["video"].len(), packets["audio"].len());
        assert_eq!(played, (pictures, sounds), "{}", file.display());
    }

    wait_finished(&data, "stream");
    let outputs = [
        ("hls", "index.m3u8"),
        ("mp4", "output_merge/index.m3u8"),
        ("mp4", "output_merge/stream_full.mp4"),
        ("flv", "index.flv"),
    ];
    for (kind, file) in outputs {
        let takes = std::fs::read_dir(data.join(kind).join("live")).unwrap();
        let mut found: Vec<(usize, usize)> = takes
            .map(|take| {
                let file = take.unwrap().path().join(file);
                until(&format!("{}", file.display()), || file.exists().then_some(()));
                counts(&file)
            })
            .collect();
        found.sort_unstable();
        let seen: Vec<usize> = found.iter().map(|(pictures, _)| *pictures).collect();
        assert_eq!(seen, [25, 100, 100], "{kind}/…/{file}");
        assert_eq!(found.iter().map(|(_, sounds)| sounds).sum::<usize>(), sounds, "{kind}/…/{file}");
    }
    origin.assert_up();
}

#[test]
fn a_crash_costs_the_segment_under_way_and_the_next_take_leaves_it_alone() {
    need_ffmpeg!();
    let scratch = Scratch::new("recording-crash");
    let data = scratch.path("data");
    let clip = scratch.path("clip.flv");
    make_clip(&clip, LENGTH, "320x180");
    let mut crashed = origin(&scratch.path(""), &data, "");
    let publisher = publish(&clip, &crashed.rtmp(KEY), true);
    until("three segments", || {
        data.join("mp4/live/stream/output_merge/segment_2.m4s").exists().then_some(())
    });
    crashed.guard.kill();
    drop(publisher);

    let origin = origin(&scratch.path(""), &data, "");
    wait_finished(&data, "stream");
    // Two segments at least are in the playlist before the third one's file has its name.
    let finished = outputs(&data, "stream").map(|output| counts(&output));
    assert!(finished.iter().all(|(pictures, sounds)| *pictures >= 100 && *sounds >= 150), "{finished:?}");

    let mut publisher = publish(&clip, &origin.rtmp(KEY), false);
    assert!(publisher.wait());
    let earlier = until("the earlier take to have moved", || {
        let mut names =
            std::fs::read_dir(data.join("hls/live")).unwrap().map(|name| name.unwrap().file_name());
        let name = names.find(|name| name.to_str().unwrap().starts_with("stream@"))?;
        Some(name.into_string().unwrap())
    });
    wait_finished(&data, "stream");
    assert_eq!(outputs(&data, &earlier).map(|output| counts(&output)), finished);
    let want = counts(&clip);
    for output in outputs(&data, "stream") {
        assert_eq!(counts(&output), want, "{}", output.display());
    }
    let sequence = |name: &str| {
        let text = std::fs::read_to_string(&outputs(&data, name)[0]).unwrap();
        (number(&text, "#EXT-X-MEDIA-SEQUENCE:"), text.matches("#EXTINF").count() as u64)
    };
    let (first, count) = sequence(&earlier);
    // Live clients may have got segments that the crash has lost: their names are not used again.
    assert!(sequence("stream").0 > first + count, "numbers go on");
}

#[test]
fn a_full_disk_stops_recording_and_no_viewer_notices() {
    need_ffmpeg!();
    let scratch = Scratch::new("recording-full");
    let Some(disk) = Disk::small(&scratch, "16m") else { return };
    let clip = scratch.path("clip.flv");
    make_clip(&clip, 30, "320x180");
    let ballast = disk.0.join("ballast");
    let mut origin = origin(&scratch.path(""), &disk.0.join("data"), "");
    let publisher = publish(&clip, &origin.rtmp(KEY), true);
    let watch = Watch::start(origin.addr("flv"), "/live/stream.flv", Flavor::Http);
    until("the first segment", || disk.0.join("data/hls/live/stream/segment_0.ts").exists().then_some(()));
    let _ = std::fs::write(&ballast, vec![0; 32 << 20]);
    for kind in ["flv", "hls", "fmp4"] {
        origin.wait_log(&format!("kind=\"{kind}\" error=No space left"));
    }
    let mark = watch.count();
    watch.wait_pictures_after(mark);
    watch.assert_well();
    std::fs::remove_file(&ballast).unwrap();
    for kind in ["flv", "hls", "fmp4"] {
        let again = |line: &String| line.contains("continues stream") && line.contains(kind);
        until(&format!("{kind} to continue"), || origin.guard.log().iter().any(again).then_some(()));
    }
    let mark = watch.count();
    until("more of the stream", || (watch.count() > mark + 200).then_some(()));
    watch.assert_well();
    let (_, metrics) = http(origin.addr("admin"), "GET", "/metrics", "");
    assert!(String::from_utf8_lossy(&metrics).contains("uringcast_recording_failures_total"));
    drop(publisher);
    wait_finished(&disk.0.join("data"), "stream");
    for output in outputs(&disk.0.join("data"), "stream") {
        assert!(counts(&output).0 > 50, "{}", output.display());
    }
    origin.assert_up();
}
