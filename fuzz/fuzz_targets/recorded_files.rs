//! Any bytes as recorded files, as after a crash or a foreign change: no panic, and a playlist is read back as
//! written.
#![no_main]

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use uringcast::media::flv_index::FlvIndex;
use uringcast::media::m3u8::Playlist;
use uringcast::media::mp4::merge::Merger;
use uringcast::media::{aac, av1, h264, h265, mpeg_audio, opus};

fuzz_target!(|data: &[u8]| {
    let playlist = Playlist::parse(&String::from_utf8_lossy(data));
    let again = Playlist::parse(&playlist.render());
    assert_eq!(again.segments.len(), playlist.segments.len());
    playlist.next_head();

    let mut merger = Merger::default();
    let (front, back) = data.split_at(data.len() / 2);
    if merger.init(front).is_ok() {
        let _ = merger.fragment(back, 1000);
    }
    merger.finish();

    FlvIndex::is_finished(data, 7);
    FlvIndex::default().metadata(data);

    let record = Bytes::copy_from_slice(data);
    let _ = (h264::parse_config(&record), h265::parse_config(&record), av1::parse_config(&record));
    let _ = (aac::parse_config(&record), opus::parse_config(&record), mpeg_audio::parse_frame(data));
    let _ = (aac::Adts::new(data), opus::duration(data));
});
