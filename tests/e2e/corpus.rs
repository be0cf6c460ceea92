//! Files of all sorts, pushed in every way, come out of every way the same, byte by byte of each tag.
//!
//! What comes out by RTMP is written down by rtmpdump and by ffmpeg, clients that are not ours.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::harness::flv::{self, AUDIO, Brief, VIDEO};
use crate::harness::process::Guard;
use crate::harness::{Flavor, Scratch, Server, Watch, ffmpeg, need_ffmpeg, until};

const PICTURE: &str = "testsrc2=size=160x90:rate=25:duration=3";
const SOUND: &str = "sine=frequency=440:sample_rate=44100:duration=3";
const H264: &str = "-c:v libx264 -preset ultrafast -pix_fmt yuv420p -threads 1 -sc_threshold 0";
const AAC: &str = "-c:a aac -b:a 64k";

/// Name, picture, sound, options; an empty source leaves the track out. One keyframe each: a viewer whose first
/// look is late on a busy machine starts at the same place as all others.
const MADE: [(&str, &str, &str, &str); 14] = [
    ("b-frames.flv", PICTURE, SOUND, "-bf 3 -g 1000"),
    ("long-gop.flv", PICTURE, SOUND, "-bf 0 -g 1000"),
    ("60-fps.flv", "testsrc2=size=160x90:rate=60:duration=2", SOUND, "-g 1000"),
    ("mono.flv", PICTURE, SOUND, "-g 1000 -ac 1"),
    ("surround.flv", PICTURE, SOUND, "-g 1000 -ac 6"),
    ("audio-only.flv", "", SOUND, ""),
    ("video-only.flv", PICTURE, "", "-g 1000"),
    ("mp3.flv", PICTURE, SOUND, "-g 1000 -c:a libmp3lame"),
    ("no-metadata.flv", PICTURE, SOUND, "-g 1000 -flvflags no_metadata"),
    ("no-sequence-end.flv", PICTURE, SOUND, "-g 1000 -flvflags no_sequence_end"),
    (
        "large-keyframes.flv",
        "nullsrc=size=1280x720:rate=2:duration=2,noise=alls=100:allf=t",
        "",
        "-g 1000 -qp 0",
    ),
    ("hevc.mp4", PICTURE, SOUND, "-c:v libx265 -x265-params log-level=error:pools=1 -g 1000"),
    ("av1.mp4", "testsrc2=size=160x90:rate=10:duration=2", SOUND, "-c:v libaom-av1 -cpu-used 8 -g 1000"),
    (
        "vp9-opus.mp4",
        PICTURE,
        SOUND,
        "-c:v libvpx-vp9 -deadline realtime -cpu-used 8 -g 1000 -c:a libopus -ar 48000",
    ),
];

fn make(scratch: &Scratch, (name, picture, sound, options): (&str, &str, &str, &str)) -> PathBuf {
    let file = scratch.path(name);
    let mut command = Command::new("ffmpeg");
    command.args(["-hide_banner", "-loglevel", "error", "-nostdin", "-y"]);
    for source in [picture, sound].into_iter().filter(|source| !source.is_empty()) {
        command.args(["-f", "lavfi", "-i", source]);
    }
    let codecs = [(picture, H264), (sound, AAC)].into_iter().filter(|(source, _)| !source.is_empty());
    for (_, codec) in codecs {
        command.args(codec.split_whitespace());
    }
    command.args(options.split_whitespace()).arg(&file);
    assert!(command.status().unwrap().success(), "ffmpeg could not make {name}");
    file
}

/// Files that ffmpeg does not make: clocks that pass a wrap, and a picture that changes its size.
fn spliced(scratch: &Scratch, plain: &Path) -> Vec<PathBuf> {
    let plain = std::fs::read(plain).unwrap();
    let large =
        make(scratch, ("large.flv", "testsrc2=size=320x180:rate=25:duration=2", SOUND, "-bf 0 -g 1000"));
    let large = std::fs::read(large).unwrap();
    let files = [
        ("past-2-24.flv", flv::shifted(&plain, (1 << 24) - 1_500, true)),
        ("past-2-32.flv", flv::shifted(&plain, u32::MAX - 1_500, true)),
        ("new-size.flv", [flv::shifted(&plain, 0, true), flv::shifted(&large, 3_200, false)].concat()),
    ];
    files
        .map(|(name, bytes)| {
            std::fs::write(scratch.path(name), bytes).unwrap();
            scratch.path(name)
        })
        .to_vec()
}

/// The tags of both kinds, without their times.
fn bodies(tags: &[Brief]) -> [Vec<(u64, usize)>; 2] {
    [VIDEO, AUDIO]
        .map(|kind| tags.iter().filter(|tag| tag.kind == kind).map(|tag| (tag.hash, tag.len)).collect())
}

/// Times from the first tag on.
fn times(tags: &[Brief]) -> Vec<(u8, u32)> {
    let media: Vec<_> = tags.iter().filter(|tag| tag.kind != flv::SCRIPT && !tag.header).collect();
    media.iter().map(|tag| (tag.kind, tag.time.wrapping_sub(media[0].time))).collect()
}

#[track_caller]
fn assert_bodies(what: &str, want: &[Brief], got: &[Brief]) {
    for (kind, (want, got)) in ["video", "audio"].iter().zip(bodies(want).iter().zip(&bodies(got))) {
        let differ = want.iter().zip(got).position(|(want, got)| want != got);
        assert_eq!((differ, want.len()), (None, got.len()), "{what}: {kind}");
    }
}

struct Stage {
    origin: Server,
    gateways: [Server; 3],
    scratch: Scratch,
}

impl Stage {
    /// Pushes a file in one way and gives what came out of each, by name.
    fn run(&self, file: &Path, way: &str) -> Vec<(String, Vec<Brief>)> {
        let name = file.file_stem().unwrap().to_str().unwrap();
        let key = format!("live/{name}-{way}");
        let path: &'static str = format!("/{key}.flv").leak();
        let rtmp = self.origin.rtmp(&key);
        let dump = self.scratch.path(&format!("{name}-{way}.flv"));
        let mut player = match way {
            // The local ffmpeg knows nothing of FourCC in RTMP.
            "ws" if file.extension().unwrap() == "flv" => {
                let mut command = Command::new("ffmpeg");
                command.args([
                    "-hide_banner",
                    "-loglevel",
                    "debug",
                    "-nostdin",
                    "-y",
                    "-i",
                    &rtmp,
                    "-c",
                    "copy",
                ]);
                Guard::spawn("ffmpeg player", command.args(["-flvflags", "no_sequence_end"]).arg(&dump))
            }
            _ => {
                let mut command = Command::new("rtmpdump");
                Guard::spawn("rtmpdump", command.args(["--live", "-r", &rtmp, "-o"]).arg(&dump))
            }
        };
        let outs = [("http", &self.origin, "flv", Flavor::Http), ("ws", &self.origin, "flv", Flavor::Ws)];
        let levels = self.gateways.iter().map(|gateway| ("gateway", gateway, "listen", Flavor::Http));
        let early: Vec<_> = outs
            .into_iter()
            .chain(levels)
            .map(|(name, server, addr, flavor)| (name, Watch::early(server.addr(addr), path, flavor)))
            .collect();
        // A program takes its time to start: the sound before the first keyframe is for those who have asked by then.
        let asked = |line: &String| line.contains("Connected...") || line.contains("Sending play command");
        until(&format!("{key}: the player to ask"), || player.log().iter().any(asked).then_some(()));
        std::thread::sleep(Duration::from_millis(700));
        let url = match way {
            "rtmp" => rtmp,
            scheme => format!("{scheme}://{}/{key}", self.origin.addr("flv")),
        };
        let mut command = Command::new(env!("CARGO_BIN_EXE_uringcast"));
        let mut pusher = Guard::spawn("push", command.arg("push").arg(file).args([&url, "--speed", "3"]));
        assert!(pusher.wait(), "{key}: {:?}", pusher.log());
        let mut all = Vec::new();
        for (name, early) in early {
            let watch = early.join().unwrap().unwrap_or_else(|error| panic!("{key} by {name}: {error}"));
            watch.wait_end();
            all.push((format!("{key} by {name}"), watch.tags()));
        }
        player.wait();
        let dumped =
            std::fs::read(&dump).unwrap_or_else(|error| panic!("{key}: {error}: {:?}", player.log()));
        all.push((format!("{key} by rtmp"), flv::read(&dumped)));
        all
    }
}

#[test]
fn every_file_comes_out_of_every_way_as_it_went_in() {
    need_ffmpeg!();
    if Command::new("rtmpdump").arg("-h").output().is_err() {
        assert!(std::env::var_os("CI").is_none(), "rtmpdump is missing, and CI must have it");
        eprintln!("skipped: rtmpdump is not installed");
        return;
    }
    let scratch = Scratch::new("corpus");
    let home = scratch.path("");
    let mut files: Vec<PathBuf> = MADE.map(|made| make(&scratch, made)).to_vec();
    files.extend(spliced(&scratch, &files[1].clone()));
    let origin = Server::origin(&home, "1s");
    let first = Server::gateway(&home, "1s", origin.addr("flv"));
    let second = Server::gateway(&home, "1s", first.addr("listen"));
    let third = Server::gateway(&home, "1s", second.addr("listen"));
    let stage = Stage { origin, gateways: [first, second, third], scratch };
    for pair in files.chunks(2) {
        std::thread::scope(|scope| {
            for file in pair {
                let stage = &stage;
                scope.spawn(move || check(stage, file));
            }
        });
    }
}

fn check(stage: &Stage, file: &Path) {
    let is_flv = file.extension().unwrap() == "flv";
    // What is pushed; of an MP4, what the first way out gave, whose packets ffmpeg counts.
    let mut want = if is_flv { flv::read(&std::fs::read(file).unwrap()) } else { Vec::new() };
    // A sequence header that says nothing new is left out.
    let mut known = [0; 2];
    want.retain(|tag| {
        !tag.header || std::mem::replace(&mut known[usize::from(tag.kind == VIDEO)], tag.hash) != tag.hash
    });
    let outs: Vec<_> = std::thread::scope(|scope| {
        let ways = ["rtmp", "http", "ws"].map(|way| scope.spawn(move || stage.run(file, way)));
        ways.into_iter().flat_map(|way| way.join().unwrap()).collect()
    });
    if !is_flv {
        want.clone_from(&outs[0].1);
        let packets = ffmpeg::packets(file);
        for (kind, media) in [(VIDEO, "video"), (AUDIO, "audio")] {
            let pushed: Vec<_> = want.iter().filter(|tag| tag.kind == kind && !tag.header).collect();
            assert_eq!(pushed.len(), packets[media].len(), "{}", file.display());
            let overhead: Vec<_> = pushed
                .iter()
                .zip(&packets[media])
                .map(|(tag, packet)| tag.len as u64 - packet.size)
                .collect();
            assert!(overhead.iter().all(|more| *more == overhead[0] && *more <= 8), "{overhead:?}");
        }
    }
    for (what, got) in &outs {
        // ffmpeg writes what it has read in its own way: its packets are compared, not its tags.
        if what.ends_with("-ws by rtmp") && is_flv {
            continue;
        }
        // Sound alone has a start every second: who comes late begins at a newer one, behind the header.
        let late =
            if what.contains("audio-only") { bodies(&want)[1].len() - bodies(got)[1].len() } else { 0 };
        assert!(late <= bodies(&want)[1].len() * 2 / 3, "{what}: {late} frames too late");
        let mut want = want.clone();
        let first = want.iter().position(|tag| tag.kind == AUDIO && !tag.header).unwrap_or(0);
        want.drain(first..first + late);
        // rtmpdump leaves out what is no picture: the five bytes that end a sequence.
        let tags = |tags: &[Brief]| {
            let is_kept = |tag: &&Brief| !what.ends_with("rtmp") || tag.kind != VIDEO || tag.len > 5;
            tags.iter().filter(is_kept).copied().collect::<Vec<_>>()
        };
        assert_bodies(what, &tags(&want), &tags(got));
        if !what.ends_with("rtmp") {
            assert_eq!(times(got), times(&want), "{what}");
        }
    }
    if is_flv {
        let name = file.file_stem().unwrap().to_str().unwrap();
        let (pushed, got) =
            (ffmpeg::packets(file), ffmpeg::packets(&stage.scratch.path(&format!("{name}-ws.flv"))));
        for kind in ["video", "audio"] {
            let hashes = |list: Option<&Vec<ffmpeg::Packet>>| {
                list.map(|list| list.iter().map(|packet| packet.hash.clone()).collect::<Vec<_>>())
            };
            assert_eq!(hashes(pushed.get(kind)), hashes(got.get(kind)), "{name} by ffmpeg: {kind}");
        }
    }
}
