//! Any bytes as an FLV file: no panic, and the same tags however they are split.
#![no_main]

use libfuzzer_sys::fuzz_target;
use uringcast::media::flv::{FlvError, FlvItem, FlvReader};

fn run<'a>(pieces: impl Iterator<Item = &'a [u8]>) -> (Vec<FlvItem>, Option<FlvError>) {
    let mut reader = FlvReader::new(1 << 16);
    let mut items = Vec::new();
    for piece in pieces {
        reader.push(piece);
        loop {
            match reader.next_item() {
                Ok(Some(item)) => items.push(item),
                Ok(None) => break,
                Err(error) => return (items, Some(error)),
            }
        }
    }
    (items, None)
}

fuzz_target!(|data: &[u8]| {
    let Some((cut, data)) = data.split_first() else { return };
    assert_eq!(run(data.chunks(usize::from(*cut) + 1)), run(std::iter::once(data)));
});
