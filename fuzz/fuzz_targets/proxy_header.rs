//! A proxy that sends any bytes: no panic, and the same header however the bytes are split.
#![no_main]

use libfuzzer_sys::fuzz_target;
use uringcast::protocol::proxy::{Opening, opening};

fuzz_target!(|data: &[u8]| {
    let data = &data[..data.len().min(8192)];
    let whole = opening(data);
    for end in 0..data.len() {
        let part = opening(&data[..end]);
        assert!(part == Ok(None) || part == whole, "{part:?} after {end} bytes, {whole:?} after all");
    }
    if let Ok(Some(Opening::Header { len, .. })) = whole {
        assert!(len <= data.len());
    }
});
