//! A peer that pushes any bytes over HTTP or WebSocket: no panic, and the same result however they are split.
#![no_main]

use libfuzzer_sys::fuzz_target;
use uringcast::protocol::http::BodyLength;
use uringcast::protocol::push::{FlvPush, PushEvent};

fn run<'a>(mut push: FlvPush, pieces: impl Iterator<Item = &'a [u8]>) -> (usize, bool) {
    let mut media = 0;
    for piece in pieces {
        let pushed = push.push(piece);
        loop {
            match push.next_event() {
                Ok(Some(PushEvent::Tag(tag))) => media += tag.encoded_len(),
                Ok(Some(PushEvent::Begin | PushEvent::End)) => {}
                Ok(None) => break,
                Err(_) => return (media, true),
            }
        }
        push.take_output();
        if pushed.is_err() {
            return (media, true);
        }
    }
    (media, false)
}

fuzz_target!(|data: &[u8]| {
    let [way, cut, data @ ..] = data else { return };
    let make = || match way % 3 {
        0 => FlvPush::websocket(1 << 16),
        1 => FlvPush::http(BodyLength::Chunked, 1 << 16).expect("it has a body"),
        _ => FlvPush::http(BodyLength::Length(1 << 20), 1 << 16).expect("it has a body"),
    };
    let (small, large) =
        (run(make(), data.chunks(usize::from(*cut) + 1)), run(make(), std::iter::once(data)));
    assert_eq!(small.1, large.1, "refused in one split, accepted in another");
    if !small.1 {
        assert_eq!(small.0, large.0);
    }
});
