//! ffmpeg as encoder, publisher and second opinion.

use std::collections::HashMap;
use std::path::Path;
use std::process::{Command, Stdio};

use super::process::Guard;

/// Whether ffmpeg is there; prints why a test is skipped when it is not.
///
/// # Panics
/// In CI, where it has to be there.
pub(crate) fn available() -> bool {
    let found = Command::new("ffmpeg").arg("-version").stdout(Stdio::null()).stderr(Stdio::null()).status();
    let found = found.is_ok_and(|status| status.success());
    assert!(found || std::env::var_os("CI").is_none(), "ffmpeg is missing, and CI must have it");
    if !found {
        eprintln!("skipped: ffmpeg is not installed");
    }
    found
}

/// Makes an FLV of `seconds` with H.264 (B-frames, GOP 1 s, 25 fps) and AAC.
pub(crate) fn make_clip(to: &Path, seconds: u32, size: &str) {
    let picture = format!("testsrc2=size={size}:rate=25:duration={seconds}");
    let sound = format!("sine=frequency=440:sample_rate=44100:duration={seconds}");
    let status = quiet()
        .args(["-y", "-f", "lavfi", "-i", &picture, "-f", "lavfi", "-i", &sound])
        .args(["-c:v", "libx264", "-preset", "ultrafast", "-bf", "2", "-g", "25", "-sc_threshold", "0"])
        .args([
            "-pix_fmt", "yuv420p", "-b:v", "300k", "-threads", "1", "-c:a", "aac", "-b:a", "64k", "-f", "flv",
        ])
        .arg(to)
        .status()
        .unwrap();
    assert!(status.success(), "ffmpeg could not make {}", to.display());
}

/// Publishes `file` in real time, once or for ever, as its packets are.
pub(crate) fn publish(file: &Path, url: &str, forever: bool) -> Guard {
    let mut command = quiet();
    command.arg("-re");
    if forever {
        command.args(["-stream_loop", "-1"]);
    }
    command.arg("-i").arg(file).args(["-c", "copy", "-f", "flv", url]);
    Guard::spawn(&format!("ffmpeg to {url}"), &mut command)
}

/// One packet as ffmpeg's demuxer gives it; times count from the file's first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Packet {
    pub(crate) dts: i64,
    pub(crate) pts: i64,
    pub(crate) size: u64,
    pub(crate) hash: String,
}

/// The packets of each media type of `file`.
pub(crate) fn packets(file: &Path) -> HashMap<String, Vec<Packet>> {
    let output = quiet()
        .arg("-i")
        .arg(file)
        .args(["-c", "copy", "-f", "framehash", "-hash", "md5", "-"])
        .output()
        .unwrap();
    assert!(output.status.success(), "{}: {}", file.display(), String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8_lossy(&output.stdout);
    let mut kinds = HashMap::new();
    let mut packets: HashMap<String, Vec<Packet>> = HashMap::new();
    for line in text.lines() {
        if let Some((index, kind)) = line.strip_prefix("#media_type ").and_then(|rest| rest.split_once(": "))
        {
            kinds.insert(index.to_owned(), kind.to_owned());
        }
        let fields: Vec<&str> = line.split(',').map(str::trim).collect();
        let &[index, dts, pts, _, size, hash, ..] = fields.as_slice() else { continue };
        let (Ok(dts), Ok(pts), Ok(size)) = (dts.parse(), pts.parse(), size.parse()) else { continue };
        let list = packets.entry(kinds[index].clone()).or_default();
        list.push(Packet { dts, pts, size, hash: hash.to_owned() });
    }
    let first = packets.values().filter_map(|list| list.first()).map(|packet| packet.dts).min().unwrap_or(0);
    for packet in packets.values_mut().flatten() {
        packet.dts -= first;
        packet.pts -= first;
    }
    packets
}

fn quiet() -> Command {
    let mut command = Command::new("ffmpeg");
    command.args(["-hide_banner", "-loglevel", "warning", "-nostdin"]);
    command
}
