//! Players that are neither ours nor ffmpeg's, which decode what they get.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::Scratch;
use super::ffmpeg;
use super::process::Guard;

/// Whether `program` is there; prints why a test is skipped when it is not.
pub(crate) fn available(program: &str) -> bool {
    let found = Command::new(program).arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status();
    let found = found.is_ok();
    assert!(found || std::env::var_os("CI").is_none(), "{program} is missing, and CI must have it");
    if !found {
        eprintln!("skipped: {program} is not installed");
    }
    found
}

/// A pipeline of GStreamer's.
pub(crate) fn pipeline(text: &str) -> Guard {
    let mut command = Command::new("gst-launch-1.0");
    Guard::spawn(text, command.arg("-q").args(text.split_whitespace()))
}

/// Lets VLC play `url` with `options` and send what it plays through `chain` to a transport stream; gives the packets
/// of pictures and sound in that.
pub(crate) fn vlc(scratch: &Scratch, url: &str, options: &[&str], chain: &str) -> (usize, usize) {
    // VLC refuses to run as root.
    let mut command = Command::new("timeout");
    command.arg("60");
    if rustix::process::geteuid().is_root() {
        command.args(["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "env", "HOME=/tmp"]);
    }
    let written: PathBuf = scratch.path("vlc.ts");
    let output = command
        .args(["cvlc", "--intf", "dummy", "--no-interact", "--play-and-exit"])
        .args(options)
        .args(["--sout", &format!("#{chain}std{{access=file,mux=ts,dst=-}}"), url, "vlc://quit"])
        .stdin(Stdio::null())
        .stdout(File::create(&written).unwrap())
        .output()
        .unwrap();
    assert!(output.status.success(), "{url}: {}", String::from_utf8_lossy(&output.stderr));
    frames(&written)
}

/// Packets of pictures and of sound in a file.
fn frames(file: &Path) -> (usize, usize) {
    let packets = ffmpeg::packets(file);
    let count = |kind: &str| packets.get(kind).map_or(0, Vec::len);
    (count("video"), count("audio"))
}
