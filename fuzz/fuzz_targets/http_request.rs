//! A client that sends any bytes: no panic, and the same requests however they are split.
#![no_main]

use libfuzzer_sys::fuzz_target;
use uringcast::protocol::http::request::{HttpError, Request, RequestLimits, RequestReader};

fn run<'a>(pieces: impl Iterator<Item = &'a [u8]>) -> (Vec<Request>, Option<HttpError>) {
    let mut reader = RequestReader::new(RequestLimits::new(4096));
    let mut requests = Vec::new();
    for piece in pieces {
        let mut piece = piece;
        loop {
            match reader.push(std::mem::take(&mut piece)) {
                Ok(Some(request)) => requests.push(request),
                Ok(None) => break,
                Err(error) => return (requests, Some(error)),
            }
        }
    }
    (requests, None)
}

fuzz_target!(|data: &[u8]| {
    let Some((cut, data)) = data.split_first() else { return };
    assert_eq!(run(data.chunks(usize::from(*cut) + 1)), run(std::iter::once(data)));
});
