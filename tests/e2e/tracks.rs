//! Streams as real encoders send them: clocks that start anew, pictures in several tags, several tracks, channels that
//! stand in a program config element. Each is made from a clip of ffmpeg, pushed tag by tag, and checked in every
//! output: as many frames as went in, times that rise and last as long as the media, no complaint of a decoder.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use crate::harness::flv::{AUDIO, SCRIPT, VIDEO};
use crate::harness::raw::{FILE_HEADER, Poster, tag};
use crate::harness::{Flavor, Scratch, Server, Watch, need_ffmpeg, until};

const ANY: &str = "127.0.0.1:0";
/// Media seconds per second.
const SPEED: u32 = 4;
/// How far an output's length may be from that of the media, in seconds: a frame at each break, and rounding.
const APART: f64 = 0.3;
const H264: &str = "-c:v libx264 -preset ultrafast -pix_fmt yuv420p -threads 1 -sc_threshold 0 -g 25";

/// A tag of an FLV file.
#[derive(Clone, Debug)]
pub(crate) struct Piece {
    pub(crate) kind: u8,
    pub(crate) time: u32,
    pub(crate) body: Vec<u8>,
}

impl Piece {
    pub(crate) fn is_header(&self) -> bool {
        self.kind == SCRIPT || self.body.get(1) == Some(&0)
    }
}

/// A stream to push, and what must come out of it.
struct Input {
    name: &'static str,
    tags: Vec<Piece>,
    pictures: usize,
    sounds: usize,
    seconds: f64,
}

fn make(scratch: &Scratch, name: &str, options: &str) -> Vec<Piece> {
    let file = scratch.path(name);
    let mut command = Command::new("ffmpeg");
    command.args(["-v", "error", "-nostdin", "-y"]);
    command.args(["-f", "lavfi", "-i", "testsrc2=size=160x90:rate=25:duration=4"]);
    command.args(["-f", "lavfi", "-i", "sine=frequency=440:sample_rate=48000:duration=4"]);
    command.args(H264.split_whitespace()).args(options.split_whitespace());
    command.args(["-c:a", "aac", "-flvflags", "no_sequence_end"]).arg(&file);
    assert!(command.status().unwrap().success(), "ffmpeg could not make {name}");
    pieces(&std::fs::read(file).unwrap())
}

/// The tags of an FLV file.
pub(crate) fn pieces(bytes: &[u8]) -> Vec<Piece> {
    let (mut at, mut all) = (FILE_HEADER.len(), Vec::new());
    while let Some(head) = bytes.get(at..at + 11) {
        let len = u32::from_be_bytes([0, head[1], head[2], head[3]]) as usize;
        let time = u32::from_be_bytes([head[7], head[4], head[5], head[6]]);
        all.push(Piece { kind: head[0], time, body: bytes[at + 11..at + 11 + len].to_vec() });
        at += 11 + len + 4;
    }
    all
}

fn count(tags: &[Piece], kind: u8) -> usize {
    tags.iter().filter(|tag| tag.kind == kind && !tag.is_header()).count()
}

fn input(name: &'static str, tags: Vec<Piece>, times: usize) -> Input {
    let (pictures, sounds) = (count(&tags, VIDEO), count(&tags, AUDIO));
    #[allow(clippy::cast_precision_loss, reason = "a few")]
    Input { name, tags, pictures, sounds, seconds: 4.0 * times as f64 }
}

/// Sends the media of a clip `times` times; `time` gives the timestamp of a frame of a round.
fn rounds(clip: &[Piece], times: u32, time: impl Fn(u32, &Piece) -> u32) -> Vec<Piece> {
    let (headers, media): (Vec<_>, Vec<_>) = clip.iter().cloned().partition(Piece::is_header);
    let media = (0..times).flat_map(|round| {
        let stamped = |tag: &Piece| Piece { time: time(round, tag), ..tag.clone() };
        media.iter().map(stamped).collect::<Vec<_>>()
    });
    headers.into_iter().chain(media).collect()
}

/// Each NAL unit in a tag of its own, parameter sets in front of keyframes.
fn split(clip: &[Piece], time: impl Fn(&Piece) -> u32) -> Vec<Piece> {
    let header = clip.iter().find(|tag| tag.kind == VIDEO && tag.is_header()).unwrap();
    let sets = parameter_sets(&header.body[5..]);
    let mut all = Vec::new();
    for piece in clip {
        let time = time(piece);
        if piece.kind != VIDEO || piece.is_header() {
            all.push(Piece { time, ..piece.clone() });
            continue;
        }
        let mut units = if piece.body[0] >> 4 == 1 { sets.clone() } else { Vec::new() };
        let mut rest = &piece.body[5..];
        while !rest.is_empty() {
            let len = u32::from_be_bytes(*rest.first_chunk().unwrap()) as usize;
            units.push(rest[4..4 + len].to_vec());
            rest = &rest[4 + len..];
        }
        for unit in units {
            let len = u32::try_from(unit.len()).unwrap().to_be_bytes();
            all.push(Piece { time, body: [&piece.body[..5], &len, &unit].concat(), ..*piece });
        }
    }
    all
}

/// The parameter sets of an `avcC`: one of each kind.
fn parameter_sets(record: &[u8]) -> Vec<Vec<u8>> {
    let mut at = 6;
    let mut take = || {
        let len = usize::from(u16::from_be_bytes([record[at], record[at + 1]]));
        at += 2 + len + 1; // and the count of the next kind
        record[at - len - 1..at - 1].to_vec()
    };
    vec![take(), take()]
}

/// A second video track after each tag of the first, as Enhanced RTMP wraps it.
fn two_tracks(clip: &[Piece]) -> Vec<Piece> {
    let mut all = Vec::new();
    for piece in clip {
        all.push(piece.clone());
        if piece.kind == VIDEO {
            let (frame, packet) = (piece.body[0] & 0x70, piece.body[1]);
            let payload = if packet == 0 { &piece.body[5..] } else { &piece.body[2..] };
            let body = [&[0x80 | frame | 6, packet][..], b"avc1\x01", payload].concat();
            all.push(Piece { body, ..*piece });
        }
    }
    all
}

fn inputs(scratch: &Scratch) -> Vec<Input> {
    let clip = make(scratch, "plain.flv", "-bf 2");
    let slices = make(scratch, "slices.flv", "-bf 2 -x264-params slices=4");
    let side = make(scratch, "side.flv", "-bf 0 -af pan=5.1(side)|FL=c0|FR=c0|FC=c0|LFE=c0|SL=c0|SR=c0");
    let (pictures, sounds) = (count(&clip, VIDEO), count(&clip, AUDIO));
    let whole = |name, tags| Input { name, tags, pictures, sounds, seconds: 4.0 };
    let anew =
        |kind| move |round, tag: &Piece| if tag.kind == kind { tag.time } else { round * 4_000 + tag.time };
    let mut strays = clip.clone();
    strays.iter_mut().skip(20).step_by(20).for_each(|tag| tag.time = tag.time.wrapping_add(3_600_000));
    vec![
        input("looped", rounds(&clip, 4, |_, tag| tag.time), 4),
        input("set-back", rounds(&clip, 3, |round, tag| 60_000 + round * 3_000 + tag.time), 3),
        input("pictures-anew", rounds(&clip, 3, anew(VIDEO)), 3),
        input("sound-anew", rounds(&clip, 3, anew(AUDIO)), 3),
        input("strays", strays, 1),
        whole("slices", split(&slices, |tag| tag.time)),
        whole("standing-still", split(&slices, |_| 0)),
        whole("two-tracks", two_tracks(&clip)),
        input("side", side, 1),
    ]
}

/// Pushes tags at [`SPEED`], by the number of frames of sound. The publisher is there until what is returned is dropped.
pub(crate) fn send(origin: &Server, name: &str, tags: &[Piece]) -> Poster {
    let mut poster = Poster::start(origin.addr("flv"), &format!("live/{name}"));
    poster.send(FILE_HEADER);
    let (start, mut frames) = (Instant::now(), 0);
    for piece in tags {
        let due = start + Duration::from_micros(frames * 21_333) / SPEED;
        std::thread::sleep(due.saturating_duration_since(Instant::now()));
        assert!(poster.send(&tag(piece.kind, piece.time, &piece.body)), "{name}");
        frames += u64::from(piece.kind == AUDIO && !piece.is_header());
    }
    poster
}

/// Decoding times of a file's packets of one type, in seconds.
fn times(file: &Path, kind: &str) -> Vec<f64> {
    let mut command = Command::new("ffprobe");
    command.args([
        "-v",
        "quiet",
        "-select_streams",
        kind,
        "-show_entries",
        "packet=dts_time",
        "-of",
        "csv=p=0",
    ]);
    let output = command.arg(file).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    text.lines().filter_map(|line| line.trim_end_matches(',').parse().ok()).collect()
}

fn assert_times(what: &str, times: &[f64], count: usize, seconds: f64) {
    assert_eq!(times.len(), count, "{what}");
    let falls = times.windows(2).filter(|pair| pair[1] <= pair[0]).count();
    let length = times[times.len() - 1] - times[0];
    assert!(falls == 0 && (length - seconds).abs() <= APART, "{what}: {length} s, {falls} times not rising");
}

/// The outputs that hold one track of each kind.
fn outputs(data: &Path, name: &str) -> [PathBuf; 3] {
    let merge = data.join(format!("mp4/live/{name}/output_merge"));
    let full = merge.join(format!("{name}_full.mp4"));
    [data.join(format!("hls/live/{name}/index.m3u8")), merge.join("index.m3u8"), full]
}

fn check(data: &Path, input: &Input, viewer: &Watch) {
    let full = &outputs(data, input.name)[2];
    until(&format!("{}", full.display()), || full.exists().then_some(()));
    for file in outputs(data, input.name) {
        let what = format!("{} in {}", input.name, file.display());
        assert_times(&what, &times(&file, "v"), input.pictures, input.seconds);
        assert_times(&what, &times(&file, "a"), input.sounds, input.seconds);
        let mut decoder = Command::new("ffmpeg");
        decoder.args(["-v", "error", "-nostdin", "-i"]).arg(&file).args(["-f", "null", "-"]);
        let complaints = decoder.output().unwrap().stderr;
        assert!(complaints.is_empty(), "{what}: {}", String::from_utf8_lossy(&complaints));
    }
    // A viewer gets each tag as it went in.
    let tags = viewer.tags();
    for kind in [VIDEO, AUDIO] {
        let got: Vec<_> = tags.iter().filter(|tag| tag.kind == kind && !tag.header && tag.len > 5).collect();
        let sent = input.tags.iter().filter(|tag| tag.kind == kind && !tag.is_header()).count();
        assert_eq!(got.len(), sent, "{}: kind {kind}", input.name);
        let length = f64::from(got[got.len() - 1].time.wrapping_sub(got[0].time)) / 1000.0;
        assert!((length - input.seconds).abs() <= APART, "{}: kind {kind} takes {length} s", input.name);
    }
}

#[test]
fn streams_of_all_kinds_of_encoders_come_out_right_everywhere() {
    need_ffmpeg!();
    let scratch = Scratch::new("tracks");
    let (home, data) = (scratch.path(""), scratch.path("data"));
    let listen = ["--rtmp", ANY, "--flv", ANY, "--web", ANY, "--admin", ANY, "--gap", "500ms"];
    let recording = ["--data", data.to_str().unwrap(), "--record", "flv,hls,fmp4"];
    let origin = Server::start(&home, &[&["origin"], &listen[..], &recording[..]].concat());
    let inputs = inputs(&scratch);
    for group in inputs.chunks(3) {
        std::thread::scope(|scope| {
            for input in group {
                let (origin, data) = (&origin, &data);
                scope.spawn(move || {
                    let path: &'static str = format!("/live/{}.flv", input.name).leak();
                    let early = Watch::early(origin.addr("flv"), path, Flavor::Http);
                    std::thread::sleep(Duration::from_millis(300));
                    send(origin, input.name, &input.tags).finish();
                    let viewer = early.join().unwrap().unwrap();
                    viewer.wait_end();
                    check(data, input, &viewer);
                });
            }
        });
    }
}
