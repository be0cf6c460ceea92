//! Clips of every kind, recorded by all three tasks onto a real disk and checked by ffmpeg and others
//! ([`checkers`]): each output decodes without a complaint, holds as many frames as the clip, and has the same
//! duration to a frame.

mod checkers;

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::rc::Rc;
use std::sync::Arc;

use bytes::Bytes;

use super::common::Common;
use super::disk::Local;
use super::finish::finish;
use super::flv::Flv;
use super::layout::Kind;
use super::packaged;
use super::stats::Stats;
use super::tail::Tail;
use super::take::About;
use super::task::{Setting, run};
use super::tests::work;
use crate::live::directory::{Claim, Directory, Republish};
use crate::live::key::StreamKey;
use crate::live::log::Retention;
use crate::media::flv::{FlvItem, FlvReader};
use crate::media::segmenter::Lengths;
use crate::media::tag::{Tag, TagKind};
use crate::memory::Arena;
use crate::package::format::Format;

const PICTURE: &str = "testsrc2=size=160x92:rate=25:duration=6";
const SOUND: &str = "sine=frequency=440:sample_rate=44100:duration=6";

/// A clip: how ffmpeg makes it, and which containers besides FLV can hold it.
struct Clip {
    name: &'static str,
    arguments: &'static str,
    /// Made as MP4 and wrapped as Enhanced RTMP specifies: this ffmpeg cannot write the codec to FLV.
    enhanced: bool,
    ts: bool,
}

const fn clip(name: &'static str, arguments: &'static str) -> Clip {
    Clip { name, arguments, enhanced: false, ts: true }
}

const CLIPS: &[Clip] = &[
    clip("b-frames", "-i PICTURE -i SOUND -c:v libx264 -preset veryfast -bf 3 -g 50 -c:a aac"),
    clip("baseline", "-i PICTURE -i SOUND -c:v libx264 -profile:v baseline -g 25 -c:a aac -ac 1"),
    clip("one-long-gop", "-i PICTURE -i SOUND -c:v libx264 -preset ultrafast -g 500 -c:a aac"),
    clip(
        "keyframes-where-the-scene-is-cut",
        "-i PICTURE -i SOUND -c:v libx264 -preset ultrafast -g 90 -c:a aac",
    ),
    clip("slices", "-i PICTURE -i SOUND -c:v libx264 -preset ultrafast -x264-params slices=4 -g 50 -c:a aac"),
    clip("interlaced", "-i PICTURE -i SOUND -c:v libx264 -preset veryfast -flags +ildct+ilme -g 50 -c:a aac"),
    clip(
        "odd-rate",
        "-i PICTURE -i SOUND -vf fps=30000/1001 -c:v libx264 -preset ultrafast -g 60 -c:a aac -ar 48000",
    ),
    clip(
        "high-rate",
        "-i PICTURE -i SOUND -vf fps=60 -c:v libx264 -preset ultrafast -g 120 -c:a aac -ar 32000",
    ),
    clip("slide-show", "-i PICTURE -i SOUND -vf fps=2 -c:v libx264 -preset ultrafast -g 4 -c:a aac"),
    clip("odd-size", "-i PICTURE -i SOUND -vf scale=162:94 -c:v libx264 -preset ultrafast -g 50 -c:a aac"),
    clip("mp3", "-i PICTURE -i SOUND -c:v libx264 -preset ultrafast -g 50 -c:a libmp3lame"),
    clip(
        "mp3-low-rate",
        "-i PICTURE -i SOUND -c:v libx264 -preset ultrafast -g 50 -c:a libmp3lame -ar 22050",
    ),
    clip("pictures-only", "-i PICTURE -c:v libx264 -preset ultrafast -g 50"),
    clip("sound-only", "-i SOUND -c:a aac"),
    clip("surround", "-i PICTURE -i SOUND -c:v libx264 -preset ultrafast -g 50 -c:a aac -ac 6"),
    Clip {
        name: "hevc",
        arguments: "-i PICTURE -i SOUND -c:v libx265 -preset ultrafast -g 50 -x265-params log-level=none -tag:v hvc1 -c:a aac",
        enhanced: true,
        ts: true,
    },
    Clip {
        name: "av1-opus",
        arguments: "-i PICTURE -i SOUND -c:v libaom-av1 -cpu-used 8 -usage realtime -g 50 -c:a libopus",
        enhanced: true,
        ts: false,
    },
];

/// Whether ffmpeg is installed; prints why the test is skipped if it is not.
fn available() -> bool {
    let found = Command::new("ffmpeg").arg("-version").stdout(Stdio::null()).stderr(Stdio::null()).status();
    let found = found.is_ok_and(|status| status.success());
    assert!(found || std::env::var_os("CI").is_none(), "ffmpeg is missing, and CI must have it");
    if !found {
        eprintln!("skipped: ffmpeg is not installed");
    }
    found
}

fn ffmpeg(arguments: &[&str]) -> String {
    let output = Command::new("ffmpeg")
        .args(["-hide_banner", "-nostdin", "-y", "-v", "error"])
        .args(arguments)
        .output()
        .unwrap();
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// Frames of each kind, and the seconds from the first to the end of the last.
#[derive(Debug, Default)]
struct Found {
    pictures: usize,
    sounds: usize,
    length: f64,
}

fn probe(file: &Path) -> Found {
    let output = Command::new("ffprobe")
        .args(["-v", "error", "-show_entries", "packet=codec_type,pts_time,duration_time", "-of", "csv=p=0"])
        .arg(file)
        .output()
        .unwrap();
    let complaints = String::from_utf8_lossy(&output.stderr);
    assert!(complaints.is_empty(), "{}: {complaints}", file.display());
    let (mut found, mut from, mut to) = (Found::default(), f64::MAX, f64::MIN);
    for line in String::from_utf8_lossy(&output.stdout).lines() {
        let fields: Vec<&str> = line.split(',').collect();
        match fields[0] {
            "video" => found.pictures += 1,
            "audio" => found.sounds += 1,
            _ => continue,
        }
        let Ok(time) = fields[1].parse::<f64>() else { continue };
        from = from.min(time);
        to = to.max(time);
    }
    found.length = to - from;
    found
}

/// The tags of an FLV file.
fn tags_of_flv(file: &Path) -> Vec<Tag> {
    let mut reader = FlvReader::new(1 << 24);
    reader.push(&std::fs::read(file).unwrap());
    let items = std::iter::from_fn(|| reader.next_item().unwrap());
    items.filter_map(|item| if let FlvItem::Tag(tag) = item { Some(tag) } else { None }).collect()
}

/// The samples of an MP4 as Enhanced RTMP wraps them.
fn tags_of_mp4(file: &Path) -> Vec<Tag> {
    use shiguredo_mp4::TrackKind;
    use shiguredo_mp4::demux::{Input, Mp4FileDemuxer};
    let bytes = std::fs::read(file).unwrap();
    let mut demuxer = Mp4FileDemuxer::new();
    while let Some(wanted) = demuxer.required_input() {
        let from = usize::try_from(wanted.position).unwrap();
        let to = wanted.size.map_or(bytes.len(), |size| (from + size).min(bytes.len()));
        demuxer.handle_input(Input { position: wanted.position, data: &bytes[from..to] });
    }
    // A configuration box, found by its name.
    let config = |kind: &[u8; 4]| {
        let at = bytes.windows(4).position(|window| window == kind)?;
        let size = u32::from_be_bytes(*bytes[at - 4..].first_chunk().unwrap()) as usize;
        Some(bytes[at + 4..at - 4 + size].to_vec())
    };
    let (video_code, record) = config(b"hvcC")
        .map(|record| (b"hvc1", record))
        .or_else(|| config(b"av1C").map(|record| (b"av01", record)))
        .unwrap();
    let (audio_code, audio_record) = match config(b"dOps") {
        Some(dops) => {
            let mut head = b"OpusHead\x01".to_vec();
            head.extend([dops[1], dops[3], dops[2], dops[7], dops[6], dops[5], dops[4], 0, 0, 0]);
            (b"Opus", head)
        }
        None => (b"mp4a", vec![0x12, 0x08]),
    };
    let tag = |kind, timestamp, parts: &[&[u8]]| Tag { kind, timestamp, body: Bytes::from(parts.concat()) };
    let mut tags = vec![
        tag(TagKind::Video, 0, &[&[0x90], video_code, &record]),
        tag(TagKind::Audio, 0, &[&[0x90], audio_code, &audio_record]),
    ];
    while let Some(sample) = demuxer.next_sample().unwrap() {
        let millis = |units: i64| units * 1000 / i64::from(sample.track.timescale.get());
        let time = u32::try_from(millis(i64::try_from(sample.timestamp).unwrap())).unwrap();
        let from = usize::try_from(sample.data_offset).unwrap();
        let data = &bytes[from..from + sample.data_size];
        tags.push(match sample.track.kind {
            TrackKind::Audio => tag(TagKind::Audio, time, &[&[0x91], audio_code, data]),
            TrackKind::Video => {
                let first = if sample.keyframe { 0x91 } else { 0xa1 };
                let cts = i32::try_from(millis(sample.composition_time_offset.unwrap_or(0))).unwrap();
                let cts = &cts.to_be_bytes()[1..];
                let cts = if video_code == b"hvc1" { cts } else { &[] };
                tag(TagKind::Video, time, &[&[first], video_code, cts, data])
            }
        });
    }
    tags
}

/// Records tags as fast as the disk takes them, with all three tasks.
fn record(tags: &[Tag], data: &Path) {
    let retention = Retention { bytes: 1 << 30, frames: 1 << 20, gop_time: 3_600_000, history: 3_600_000 };
    let directory = Directory::new(Arena::new().unwrap(), retention, Republish::Reject);
    let mut writer = directory.publish(&StreamKey::parse("live/x").unwrap(), &Claim::fixed(0)).unwrap();
    let stream = Arc::clone(writer.stream());
    for tag in tags {
        writer.push(tag).unwrap();
    }
    writer.publish();
    directory.end(writer);
    tokio_uring::start(async {
        let common = Rc::<Common>::default();
        let setting = |kind| Setting {
            disk: Local,
            about: About {
                stream: "live/x".into(),
                began: "20261121T091545Z".into(),
                id: "a".into(),
                ..About::default()
            },
            lengths: Lengths { target: 2_000, longest: 16_000 },
            take: 0,
            parted: None,
            moved: Vec::new(),
            window: 3,
            waiting: 1 << 20,
            sync: false,
            stats: Stats::new(kind, Arc::default()),
            common: Rc::clone(&common),
        };
        let dir = |kind: Kind| data.join(kind.folder()).join("live/x");
        let [flv, hls, fmp4] = Kind::EVERY;
        let mut recording = Flv::new(setting(flv), dir(flv));
        tokio::join!(
            run(&mut recording, Arc::clone(&stream), Tail::of(&stream), setting(flv)),
            packaged::run(work(Format::Hls, setting(hls), dir(hls)), Arc::clone(&stream), Tail::of(&stream)),
            packaged::run(
                work(Format::Fmp4, setting(fmp4), dir(fmp4)),
                Arc::clone(&stream),
                Tail::of(&stream)
            ),
        );
        for kind in Kind::EVERY {
            if dir(kind).exists() {
                finish(&Local, kind, &dir(kind), false, &common).await.unwrap();
            }
        }
    });
}

/// Checks the files of a clip with readers other than ffmpeg.
fn check_by_others(clip: &Clip, home: &Path, want: &Found) {
    let segments = |folder: &str, init: Option<&str>, prefix: &str, kind: &str| {
        let name = |n: usize| home.join(folder).join(format!("{prefix}_{n}.{kind}"));
        let parts: Vec<_> = init.map(|init| home.join(folder).join(init)).into_iter().collect();
        [parts, (0..).map(name).take_while(|segment| segment.exists()).collect()].concat()
    };
    let (merge, separate) = ("mp4/live/x/output_merge", "mp4/live/x/output_separate");
    let mut files = vec![
        (home.join(merge).join("x_full.mp4"), want.pictures, want.sounds),
        (
            checkers::joined(&segments(merge, Some("init.mp4"), "segment", "m4s"), home.join("merge.mp4")),
            want.pictures,
            want.sounds,
        ),
    ];
    for (track, pictures, sounds) in [("video", want.pictures, 0), ("audio", 0, want.sounds)] {
        if pictures + sounds > 0 {
            let parts = segments(separate, Some(&format!("{track}_init.mp4")), track, "m4s");
            files.push((checkers::joined(&parts, home.join(format!("{track}.mp4"))), pictures, sounds));
        }
    }
    if !clip.enhanced {
        files.push((home.join("flv/live/x/index.flv"), want.pictures, want.sounds));
    }
    if clip.ts {
        let all = checkers::joined(&segments("hls/live/x", None, "segment", "ts"), home.join("all.ts"));
        checkers::check_transport_stream(&all);
        files.push((all, want.pictures, want.sounds));
    }
    checkers::check_files(&files);
}

#[test]
fn every_output_of_every_clip_plays_whole() {
    if !available() {
        return;
    }
    let scratch = std::env::temp_dir().join(format!("uringcast-corpus-{}", std::process::id()));
    for clip in CLIPS {
        let home = scratch.join(clip.name);
        std::fs::create_dir_all(&home).unwrap();
        let source = home.join(if clip.enhanced { "clip.mp4" } else { "clip.flv" });
        let mut arguments = Vec::new();
        for word in clip.arguments.split(' ') {
            match word {
                "-i" => arguments.extend(["-f", "lavfi", "-i"]),
                "PICTURE" => arguments.push(PICTURE),
                "SOUND" => arguments.push(SOUND),
                word => arguments.push(word),
            }
        }
        if clip.arguments.contains("-c:v") {
            arguments.extend(["-pix_fmt", "yuv420p"]);
        }
        arguments.push(source.to_str().unwrap());
        ffmpeg(&arguments);
        let tags = if clip.enhanced { tags_of_mp4(&source) } else { tags_of_flv(&source) };
        record(&tags, &home);
        let want = probe(&source);
        let merged = "mp4/live/x/output_merge";
        let separate = "mp4/live/x/output_separate";
        let mut outputs: Vec<(PathBuf, bool, bool)> = vec![
            (home.join(merged).join("x_full.mp4"), true, true),
            (home.join(merged).join("index.m3u8"), true, true),
        ];
        if !clip.enhanced {
            outputs.push((home.join("flv/live/x/index.flv"), true, true));
        }
        if clip.ts {
            outputs.push((home.join("hls/live/x/index.m3u8"), true, true));
        } else {
            assert!(!home.join("hls/live/x/index.m3u8").exists(), "{}: TS cannot hold it", clip.name);
        }
        if want.pictures > 0 {
            outputs.push((home.join(separate).join("video.m3u8"), true, false));
        }
        if want.sounds > 0 {
            outputs.push((home.join(separate).join("audio.m3u8"), false, true));
        }
        for (output, pictures, sounds) in outputs {
            let name = format!("{}: {}", clip.name, output.display());
            let got = probe(&output);
            assert_eq!(got.pictures, if pictures { want.pictures } else { 0 }, "{name}");
            assert_eq!(got.sounds, if sounds { want.sounds } else { 0 }, "{name}");
            if pictures && sounds {
                assert!((got.length - want.length).abs() < 0.045, "{name}: {got:?} for {want:?}");
            }
            let complaints = ffmpeg(&["-i", output.to_str().unwrap(), "-f", "null", "-"]);
            assert!(complaints.is_empty(), "{name}: {complaints}");
        }
        check_by_others(clip, &home, &want);
    }
    std::fs::remove_dir_all(&scratch).unwrap();
}
