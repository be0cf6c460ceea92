//! What a viewer is told before the first byte of a log: the FLV header and the stream's own headers (metadata,
//! sequence headers), framed as its protocol has it.
//!
//! A greeting is made once for each version of the headers and each framing, and shared by all viewers that
//! are told it.

use std::collections::VecDeque;

use bytes::Bytes;

use super::viewer::Framing;
use crate::live::log::Headers;
use crate::media::flv::FileHeader;
use crate::protocol::http::chunked::{CHUNK_HEAD_MAX, chunk_head};
use crate::protocol::ws;

/// Greetings that a view keeps: of the newest versions, for each framing, for new viewers and for those that
/// have skipped.
const KEPT: usize = 8;

/// What a greeting depends on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::server) struct Opening {
    /// The version of the headers; `None`: the viewer knows them.
    version: Option<u32>,
    /// A new viewer gets the FLV header as well, with these tracks.
    file: Option<FileHeader>,
    framing: Framing,
}

/// The greetings of a view.
#[derive(Debug, Default)]
pub(in crate::server) struct Greetings {
    made: VecDeque<(Opening, Bytes)>,
}

impl Greetings {
    /// The greeting for a viewer: `file` for a new one, `headers` if it has not been told them.
    pub(in crate::server) fn get(
        &mut self,
        framing: Framing,
        file: Option<FileHeader>,
        headers: Option<&Headers>,
    ) -> Bytes {
        let file = file.filter(|_| framing != Framing::Rtmp);
        if file.is_none() && headers.is_none() {
            return Bytes::new();
        }
        let opening = Opening { version: headers.map(|headers| headers.version), file, framing };
        if let Some((_, bytes)) = self.made.iter().find(|(known, _)| *known == opening) {
            return bytes.clone();
        }
        let bytes = make(&opening, headers);
        if self.made.len() == KEPT {
            self.made.pop_front();
        }
        self.made.push_back((opening, bytes.clone()));
        bytes
    }

    /// Bytes that are kept.
    pub(in crate::server) fn bytes(&self) -> usize {
        self.made.iter().map(|(_, bytes)| bytes.len()).sum()
    }
}

fn make(opening: &Opening, headers: Option<&Headers>) -> Bytes {
    let mut bytes = Vec::new();
    if let Some(file) = opening.file {
        bytes.extend_from_slice(&file.encode());
    }
    if let Some(headers) = headers {
        headers.write_to(opening.framing.encoding(), &mut bytes);
    }
    if bytes.is_empty() {
        return Bytes::new();
    }
    frame(opening.framing, opening.file.is_some(), bytes)
}

/// Puts the head of one message in front of bytes of any length. `first`: nothing was sent before them.
fn frame(framing: Framing, first: bool, bytes: Vec<u8>) -> Bytes {
    let mut framed = Vec::with_capacity(bytes.len() + 2 + CHUNK_HEAD_MAX.max(ws::HEADER_MAX));
    match framing {
        Framing::Plain | Framing::Rtmp => return bytes.into(),
        Framing::WebSocket => {
            let mut head = [0; ws::HEADER_MAX];
            let len = ws::frame_header(ws::Opcode::Binary, bytes.len(), &mut head);
            framed.extend_from_slice(&head[..len]);
        }
        Framing::Chunked => {
            if !first {
                framed.extend_from_slice(b"\r\n"); // the end of the chunk before
            }
            let mut head = [0; CHUNK_HEAD_MAX];
            let len = chunk_head(bytes.len(), &mut head);
            framed.extend_from_slice(&head[..len]);
        }
    }
    framed.extend_from_slice(&bytes);
    framed.into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::http::ChunkedReader;

    fn headers(version: u32, len: usize) -> Headers {
        let body = |first| Some(Bytes::from(vec![first; len]));
        Headers { version, metadata: body(2), video: body(0x17), audio: body(0xaf), ..Headers::default() }
    }

    const FILE: Option<FileHeader> = Some(FileHeader { audio: true, video: true });

    #[test]
    fn all_viewers_share_one_greeting_of_a_version_and_framing() {
        let mut greetings = Greetings::default();
        let first = greetings.get(Framing::Plain, FILE, Some(&headers(1, 1000)));
        let again = greetings.get(Framing::Plain, FILE, Some(&headers(1, 1000)));
        assert_eq!(first.as_ptr(), again.as_ptr());
        assert_ne!(first.len(), greetings.get(Framing::Plain, None, Some(&headers(1, 1000))).len());
        let newer = greetings.get(Framing::Plain, FILE, Some(&headers(2, 500)));
        assert!(newer.len() < first.len());
        for version in 3..40 {
            greetings.get(Framing::WebSocket, FILE, Some(&headers(version, 10)));
        }
        assert_eq!(greetings.made.len(), KEPT);
        assert_eq!(greetings.bytes(), greetings.made.iter().map(|(_, bytes)| bytes.len()).sum::<usize>());
    }

    #[test]
    fn greetings_of_any_size_are_framed() {
        for len in [1, 1000, 70_000, 6 << 20] {
            let plain = Greetings::default().get(Framing::Plain, FILE, Some(&headers(1, len)));
            let chunked = Greetings::default().get(Framing::Chunked, FILE, Some(&headers(1, len)));
            let (mut reader, mut body) = (ChunkedReader::new(), Vec::new());
            reader.push(&chunked, &mut |piece| body.extend_from_slice(piece)).unwrap();
            assert!(body == plain, "{len}");
            let socket = Greetings::default().get(Framing::WebSocket, FILE, Some(&headers(1, len)));
            assert!(socket.ends_with(&plain) && socket.len() <= plain.len() + ws::HEADER_MAX);
        }
    }

    #[test]
    fn who_knows_all_is_told_nothing() {
        assert!(Greetings::default().get(Framing::Plain, None, None).is_empty());
        assert!(Greetings::default().get(Framing::Rtmp, FILE, None).is_empty());
    }
}
