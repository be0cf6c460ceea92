//! A publisher that sends any bytes after a valid handshake: no panic, and the same events however they are
//! split.
#![no_main]

use libfuzzer_sys::fuzz_target;
use uringcast::protocol::rtmp::server::{Event, Limits, ServerSession};

const HANDSHAKE: usize = 1537 + 1536;

fn run<'a>(pieces: impl Iterator<Item = &'a [u8]>) -> (usize, bool) {
    let mut session = ServerSession::new(Limits::default());
    let mut hello = vec![0; HANDSHAKE];
    hello[0] = 3;
    session.input(&hello).expect("a valid handshake");
    let mut media = 0;
    for piece in pieces {
        let result = session.input(piece);
        while let Some(event) = session.poll_event() {
            match event {
                Event::Publish { .. } => session.accept_publish(),
                Event::Media(tag) => media += tag.encoded_len(),
                Event::Play { .. } => session.accept_play(),
                _ => {}
            }
        }
        session.take_output();
        if result.is_err() {
            return (media, true);
        }
    }
    (media, false)
}

fuzz_target!(|data: &[u8]| {
    let Some((cut, data)) = data.split_first() else { return };
    let small = run(data.chunks(usize::from(*cut) + 1));
    let large = run(data.chunks(16 << 10));
    assert_eq!(small.1, large.1, "refused in one split, accepted in another");
});
