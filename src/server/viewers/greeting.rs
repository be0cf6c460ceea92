//! The greeting: what a viewer gets before the first byte of a log, that is the FLV header and the stream's own
//! headers (metadata, sequence headers), in the viewer's framing.
//!
//! A greeting is made once for each start and framing, and shared by all viewers that start there. Large
//! headers are never copied: a greeting refers to the one copy that the stream keeps of each version.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;

use super::viewer::Framing;
use crate::live::log::Headers;
use crate::live::timeline::StreamTime;
use crate::media::flv::FileHeader;
use crate::protocol::http::chunked::{CHUNK_HEAD_MAX, chunk_head};
use crate::protocol::ws;

/// The greetings that a view keeps: those of the newest versions, for each framing, for new viewers and for
/// those that have skipped.
const KEPT: usize = 8;

/// What a greeting depends on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::server) struct Opening {
    /// The version of the headers; `None`: the viewer has them already.
    version: Option<u32>,
    /// The time of the first frame, which the headers carry.
    time: StreamTime,
    /// For a new viewer: the FLV header to begin with, which names these tracks.
    file: Option<FileHeader>,
    framing: Framing,
}

/// The greetings of a view.
#[derive(Debug, Default)]
pub(in crate::server) struct Greetings {
    made: VecDeque<(Opening, Greeting)>,
}

/// The pieces of a greeting, in order.
pub(in crate::server) type Greeting = Arc<[Bytes]>;

impl Greetings {
    /// The greeting for a viewer that starts at `time`: `file` for a new one, `headers` if it does not have
    /// them yet.
    pub(in crate::server) fn get(
        &mut self,
        framing: Framing,
        file: Option<FileHeader>,
        headers: Option<&Headers>,
        time: StreamTime,
    ) -> Greeting {
        let file = file.filter(|_| framing != Framing::Rtmp);
        let opening = Opening { version: headers.map(|headers| headers.version), time, file, framing };
        if let Some((_, greeting)) = self.made.iter().find(|(known, _)| *known == opening) {
            return Arc::clone(greeting);
        }
        let greeting: Greeting = make(&opening, headers).into();
        if self.made.len() == KEPT {
            self.made.pop_front();
        }
        self.made.push_back((opening, Arc::clone(&greeting)));
        greeting
    }

    /// Bytes of the largest greeting: the others share nearly all of theirs with it.
    pub(in crate::server) fn bytes(&self) -> usize {
        let len = |(_, greeting): &(Opening, Greeting)| greeting.iter().map(Bytes::len).sum();
        self.made.iter().map(len).max().unwrap_or(0)
    }
}

/// Pieces of this many bytes are shared; smaller ones are copied, so that there are few.
const SHARED_MIN: usize = 4 << 10;

/// Joins pieces: small ones are copied together, large ones stay as they are.
#[derive(Default)]
struct Rope {
    pieces: Vec<Bytes>,
    small: Vec<u8>,
    len: usize,
}

impl Rope {
    /// Adds bytes, which may lie in `whole`.
    fn add(&mut self, whole: &Bytes, piece: &[u8]) {
        self.len += piece.len();
        if piece.len() >= SHARED_MIN && whole.as_ptr_range().contains(&piece.as_ptr()) {
            self.cut();
            self.pieces.push(whole.slice_ref(piece));
        } else {
            self.small.extend_from_slice(piece);
        }
    }

    fn cut(&mut self) {
        if !self.small.is_empty() {
            self.pieces.push(std::mem::take(&mut self.small).into());
        }
    }
}

fn make(opening: &Opening, headers: Option<&Headers>) -> Vec<Bytes> {
    let mut rope = Rope::default();
    if let Some(file) = opening.file {
        rope.add(&Bytes::new(), &file.encode());
    }
    if let Some(headers) = headers {
        headers.write(opening.time, opening.framing.encoding(), |body, piece| rope.add(body, piece));
    }
    let head = if rope.len > 0 { message_head(opening, rope.len) } else { Vec::new() };
    rope.cut();
    match rope.pieces.first_mut() {
        Some(first) if first.len() < SHARED_MIN => *first = [&head[..], &first[..]].concat().into(),
        _ if head.is_empty() => {}
        _ => rope.pieces.insert(0, head.into()),
    }
    rope.pieces
}

/// The header of a message of `len` bytes.
fn message_head(opening: &Opening, len: usize) -> Vec<u8> {
    match opening.framing {
        Framing::Plain | Framing::Rtmp => Vec::new(),
        Framing::WebSocket => {
            let mut head = [0; ws::HEADER_MAX];
            let head_len = ws::frame_header(ws::Opcode::Binary, len, &mut head);
            head[..head_len].to_vec()
        }
        Framing::Chunked => {
            let mut head = [0; CHUNK_HEAD_MAX];
            let head_len = chunk_head(len, &mut head);
            // The line end of the previous chunk, if there was one.
            let end: &[u8] = if opening.file.is_some() { b"" } else { b"\r\n" };
            [end, &head[..head_len]].concat()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::media::tag::TagKind;
    use crate::protocol::http::ChunkedReader;

    fn headers(version: u32, len: usize) -> Headers {
        let body = |kind, first| (kind, Bytes::from(vec![first; len]));
        let (metadata, video) = (body(TagKind::Script, 2), body(TagKind::Video, 0x17));
        Headers::new(version, [metadata, video, body(TagKind::Audio, 0xaf)])
    }

    const FILE: Option<FileHeader> = Some(FileHeader { audio: true, video: true });

    fn whole(greeting: &Greeting) -> Vec<u8> {
        greeting.concat()
    }

    #[test]
    fn viewers_that_start_at_one_place_share_a_greeting() {
        let mut greetings = Greetings::default();
        let first = greetings.get(Framing::Plain, FILE, Some(&headers(1, 1000)), 40);
        let again = greetings.get(Framing::Plain, FILE, Some(&headers(1, 1000)), 40);
        assert!(Arc::ptr_eq(&first, &again) && first.len() == 1, "small ones are one piece");
        let later = greetings.get(Framing::Plain, FILE, Some(&headers(1, 1000)), 80);
        assert_eq!(whole(&first).len(), whole(&later).len());
        assert_ne!(whole(&first), whole(&later));
        for time in 0..40 {
            greetings.get(Framing::WebSocket, FILE, Some(&headers(2, 10)), time);
        }
        assert_eq!(greetings.made.len(), KEPT);
    }

    #[test]
    fn large_headers_are_not_copied() {
        let headers = headers(1, 1 << 20);
        for (framing, time) in [(Framing::Plain, 0), (Framing::WebSocket, 40), (Framing::Rtmp, 0x100_0000)] {
            let greeting = Greetings::default().get(framing, FILE, Some(&headers), time);
            let copied = greeting.iter().filter(|piece| {
                !headers.bodies().any(|(_, body)| body.as_ptr_range().contains(&piece.as_ptr()))
            });
            assert!(copied.map(Bytes::len).sum::<usize>() < 8 << 10, "{framing:?}");
        }
    }

    #[test]
    fn greetings_of_any_size_are_framed() {
        for len in [1, 1000, 4095, 4096, 70_000, 6 << 20] {
            let get =
                |framing, file| whole(&Greetings::default().get(framing, file, Some(&headers(1, len)), 40));
            let plain = get(Framing::Plain, FILE);
            let (mut reader, mut body) = (ChunkedReader::new(), Vec::new());
            reader.push(&get(Framing::Chunked, FILE), &mut |piece| body.extend_from_slice(piece)).unwrap();
            assert!(body == plain, "{len}");
            assert!(get(Framing::Chunked, None).starts_with(b"\r\n"));
            let socket = get(Framing::WebSocket, FILE);
            assert!(socket.ends_with(&plain) && socket.len() <= plain.len() + ws::HEADER_MAX);
            let mut written = Vec::new();
            headers(1, len).write_to(40, Framing::Rtmp.encoding(), &mut written);
            assert!(get(Framing::Rtmp, FILE) == written, "{len}");
        }
    }

    #[test]
    fn a_viewer_that_has_all_headers_gets_none() {
        assert!(Greetings::default().get(Framing::WebSocket, None, None, 0).is_empty());
        assert!(Greetings::default().get(Framing::Rtmp, FILE, None, 0).is_empty());
    }
}
