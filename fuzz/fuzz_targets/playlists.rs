//! Any text as a playlist: no panic; what was read is read back as written, and the next head continues it.
#![no_main]

use libfuzzer_sys::fuzz_target;
use uringcast::media::m3u8::Playlist;

fuzz_target!(|data: &[u8]| {
    let read = Playlist::parse(&String::from_utf8_lossy(data));
    let written = read.render();
    let again = Playlist::parse(&written);
    assert_eq!(again.segments, read.segments);
    assert_eq!(again.next_head(), read.next_head());
    assert!(again.ended);
    assert_eq!(again.render(), written);
});
