//! An upstream that sends any bytes: no panic, and the same body however they are split.
#![no_main]

use libfuzzer_sys::fuzz_target;
use uringcast::protocol::http::client::ResponseReader;

fn run<'a>(pieces: impl Iterator<Item = &'a [u8]>) -> (Vec<u8>, bool) {
    let mut reader = ResponseReader::new(4096);
    let mut body = Vec::new();
    for piece in pieces {
        if reader.push(piece, |_, bytes| body.extend_from_slice(bytes)).is_err() {
            return (body, true);
        }
    }
    (body, false)
}

fuzz_target!(|data: &[u8]| {
    let Some((cut, data)) = data.split_first() else { return };
    assert_eq!(run(data.chunks(usize::from(*cut) + 1)), run(std::iter::once(data)));
});
