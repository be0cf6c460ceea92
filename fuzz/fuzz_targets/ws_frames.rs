//! A WebSocket client that sends any bytes: no panic, and the same data however they are split.
#![no_main]

use libfuzzer_sys::fuzz_target;
use uringcast::protocol::ws::{Event, FrameReader};

fn run<'a>(pieces: impl Iterator<Item = &'a [u8]>) -> (Vec<u8>, bool) {
    let mut reader = FrameReader::new(1 << 16);
    let mut data = Vec::new();
    for piece in pieces {
        let result = reader.push(piece, &mut |event| {
            if let Event::Data { bytes, .. } = event {
                data.extend_from_slice(bytes);
            }
        });
        if result.is_err() {
            return (data, true);
        }
    }
    (data, false)
}

fuzz_target!(|data: &[u8]| {
    let Some((cut, data)) = data.split_first() else { return };
    let (small, large) = (run(data.chunks(usize::from(*cut) + 1)), run(std::iter::once(data)));
    assert_eq!(small.1, large.1);
    if !small.1 {
        assert_eq!(small.0, large.0);
    }
});
