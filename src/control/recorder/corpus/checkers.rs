//! Readers that are neither ours nor ffmpeg's, which judge what the recorder wrote: mp4box.js, MediaInfo, tsreport.

use std::path::{Path, PathBuf};
use std::process::Command;

/// Where the readers that npm has are installed.
const CHECKERS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/checkers");

/// Whether mp4box.js and MediaInfo are installed; prints how they are when they are not.
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

/// Writes `parts`, one behind the other, as one file for a reader of whole files.
pub(super) fn joined(parts: &[PathBuf], into: PathBuf) -> PathBuf {
    let bytes: Vec<u8> = parts.iter().flat_map(|part| std::fs::read(part).unwrap()).collect();
    std::fs::write(&into, bytes).unwrap();
    into
}

/// Lets mp4box.js and MediaInfo read files, with the frames each is to have of pictures and sound. The first counts
/// what MP4 files hold, the second checks their boxes and bitstreams, and those of other files.
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

/// Lets tsreport read a transport stream: its counters, and that its clock is told every tenth of a second.
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
