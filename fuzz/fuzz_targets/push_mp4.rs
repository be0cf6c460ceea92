//! Any bytes as an MP4 file for the pusher: no panic, no body above the limit, and the same tags after a
//! rewind.
#![no_main]

use std::path::PathBuf;
use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use uringcast::media::tag::{TAG_BODY_MAX, Tag};
use uringcast::tools::push::Source;

/// The bytes by which the pusher recognises MP4.
const FTYP: &[u8] = b"\0\0\0\x10ftypiso5\0\0\0\0";
/// Tables can name far more samples than a file has bytes.
const TAGS_MAX: usize = 10_000;

static FILE: LazyLock<PathBuf> =
    LazyLock::new(|| std::env::temp_dir().join(format!("uringcast-fuzz-{}.mp4", std::process::id())));

fn tags(source: &mut Source) -> Vec<Tag> {
    std::iter::from_fn(|| source.next_tag().ok().flatten()).take(TAGS_MAX).collect()
}

fuzz_target!(|data: &[u8]| {
    let head = if data.get(4..8) == Some(b"ftyp") { &[][..] } else { FTYP };
    std::fs::write(&*FILE, [head, data].concat()).expect("a temporary file");
    let Ok(mut source) = Source::open(&FILE) else { return };
    let _ = (source.header(), source.duration());
    let first = tags(&mut source);
    assert!(first.iter().all(|tag| tag.body.len() <= TAG_BODY_MAX));
    if source.rewind().is_ok() {
        assert_eq!(tags(&mut source), first);
    }
});
