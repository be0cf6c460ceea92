//! Independent readers other than ffmpeg, which check what the recorder wrote: mp4box.js, MediaInfo, tsreport.

use std::path::{Path, PathBuf};
use std::process::Command;

/// Where the readers from npm are installed.
const CHECKERS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/checkers");

/// Whether mp4box.js and MediaInfo are installed; prints how to install them if they are not.
fn installed() -> bool {
    let found = Path::new(CHECKERS).join("node_modules").exists();
    assert!(
        found || std::env::var_os("CI").is_none(),
        "tests/checkers is not installed, and CI must have it"
    );
    if !found {
        eprintln!("not checked by mp4box.js and MediaInfo: npm ci in tests/checkers installs them");
    }
    found
}

/// Concatenates `parts` to one file, for readers of whole files.
pub(super) fn joined(parts: &[PathBuf], into: PathBuf) -> PathBuf {
    let bytes: Vec<u8> = parts.iter().flat_map(|part| std::fs::read(part).unwrap()).collect();
    std::fs::write(&into, bytes).unwrap();
    into
}

/// Reads files with mp4box.js and MediaInfo; with each file come its expected numbers of video and audio
/// frames. The first counts what MP4 files hold, the second checks the boxes and bitstreams of all files.
pub(super) fn check_files(files: &[(PathBuf, usize, usize)]) {
    if !installed() {
        return;
    }
    let script = Path::new(CHECKERS).join("check.mjs");
    let output = Command::new("node").arg(script).args(files.iter().map(|(file, ..)| file)).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
    for (file, pictures, sounds) in files {
        let is_mp4 = file.extension().is_some_and(|extension| extension == "mp4");
        let part = |kind, count: usize| {
            let frames = if is_mp4 { count.to_string() } else { "?".to_owned() };
            (count > 0).then(|| format!("{kind} {frames}"))
        };
        let parts: Vec<_> =
            [part("video", *pictures), part("audio", *sounds)].into_iter().flatten().collect();
        let line = format!("{}: {}", file.display(), parts.join(", "));
        assert!(text.lines().any(|found| found == line), "{line} is wanted:\n{text}");
    }
}

/// Reads a transport stream with tsreport: checks its continuity counters, and that it has a clock reference
/// every tenth of a second.
pub(super) fn check_transport_stream(file: &Path) {
    let Ok(output) = Command::new("tsreport").args(["-buffering", "-timing"]).arg(file).output() else {
        assert!(std::env::var_os("CI").is_none(), "tsreport is missing, and CI must have it");
        eprintln!("not checked by tsreport: it is in Debian's package tstools");
        return;
    };
    let text = String::from_utf8_lossy(&output.stdout);
    let complaints: Vec<_> =
        text.lines().filter(|line| ["###", "!!!"].iter().any(|mark| line.contains(mark))).collect();
    assert!(output.status.success() && complaints.is_empty(), "{}: {complaints:?}", file.display());
    assert!(text.contains("Bad (>.1s) gaps: 0"), "{}: {text}", file.display());
}
