//! Any bytes as AMF0: no panic; what was decoded and encoded again decodes to bytes that encode the same.
#![no_main]

use libfuzzer_sys::fuzz_target;
use uringcast::media::amf0::{Limits, decode_all, encode};

fuzz_target!(|data: &[u8]| {
    let limits = Limits::default();
    let Ok(values) = decode_all(data, &limits) else { return };
    let encoded = encode(&values);
    // Text that was not UTF-8 may have grown beyond the limits.
    if let Ok(again) = decode_all(&encoded, &limits) {
        assert_eq!(encode(&again), encoded);
    }
});
