//! One connection to a server, sans-IO: RTMP, a chunked POST, or a WebSocket. Only this file distinguishes
//! them.

use std::hash::{BuildHasher, RandomState};

use super::args::{Scheme, Target};
use super::error::PushError;
use crate::media::flv::FileHeader;
use crate::media::tag::Tag;
use crate::protocol::http::client::{ResponseReader, State};
use crate::protocol::http::response::reason;
use crate::protocol::rtmp::RtmpError;
use crate::protocol::rtmp::client::PublishSession;
use crate::protocol::ws::{self, FrameReader, Opcode};

/// The most bytes of a response's head, and of a refusal's text.
const HEAD_MAX: usize = 16 << 10;
const TEXT_MAX: usize = 1 << 10;

/// A connection.
pub(super) struct Link {
    kind: Kind,
    header: FileHeader,
    /// Bytes for the server.
    out: Vec<u8>,
}

enum Kind {
    Rtmp(Box<PublishSession>),
    Http(Answer),
    Ws {
        /// The response to the upgrade; none once it is complete.
        answer: Option<Answer>,
        accept: String,
        frames: Box<FrameReader>,
        /// The server's close frame has come.
        closed: bool,
    },
}

/// The response to a request, and the beginning of its text.
struct Answer {
    reader: ResponseReader,
    text: Vec<u8>,
    /// The server answered: at least that the body may be sent.
    heard: bool,
}

impl Answer {
    fn new() -> Self {
        Self { reader: ResponseReader::new(HEAD_MAX), text: Vec::new(), heard: false }
    }

    /// Takes the bytes of the response and returns the rest: after the head of a 101 come the bytes of the new
    /// protocol.
    fn input<'a>(&mut self, bytes: &'a [u8]) -> Result<&'a [u8], PushError> {
        self.heard = true;
        let mut rest = bytes;
        // A head ends with a line, so reading line by line takes nothing after it.
        while self.reader.state() == State::Head && !rest.is_empty() {
            let line = rest.iter().position(|byte| *byte == b'\n').map_or(rest.len(), |at| at + 1);
            self.push(&rest[..line])?;
            rest = &rest[line..];
        }
        if self.status() != Some(101) {
            self.push(rest)?;
            rest = &[];
        }
        Ok(rest)
    }

    fn push(&mut self, bytes: &[u8]) -> Result<(), PushError> {
        let text = &mut self.text;
        let take = |_: &_, piece: &[u8]| {
            let space = TEXT_MAX - text.len();
            text.extend_from_slice(&piece[..piece.len().min(space)]);
        };
        self.reader.push(bytes, take).map_err(|error| PushError::Lost(error.to_string()))?;
        Ok(())
    }

    /// The status, once the head is complete.
    fn status(&self) -> Option<u16> {
        self.reader.head().map(|head| head.status)
    }

    /// Whether no more of its text is expected.
    fn is_whole(&self) -> bool {
        self.reader.state() == State::Finished || self.text.len() >= TEXT_MAX
    }

    /// The status and the most informative line of the text: the last one that is not markup.
    fn refusal(&self, status: u16) -> PushError {
        let text = String::from_utf8_lossy(&self.text);
        let mut lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
        let line = lines.rfind(|line| !line.starts_with('<')).unwrap_or(reason(status));
        PushError::Refused(format!("{status} {line}"))
    }
}

impl Link {
    /// Starts; the first output is ready at once.
    pub(super) fn new(target: &Target, header: FileHeader) -> Self {
        let Target { authority, path, .. } = target;
        let agent = concat!("uringcast-push/", env!("CARGO_PKG_VERSION"));
        let mut out = Vec::new();
        let kind = match target.scheme {
            Scheme::Rtmp => {
                let (app, tc_url, name) = target.rtmp();
                Kind::Rtmp(Box::new(PublishSession::new(&app, &tc_url, &name)))
            }
            Scheme::Http => {
                out = format!(
                    "POST {path} HTTP/1.1\r\nHost: {authority}\r\nUser-Agent: {agent}\r\nContent-Type: video/x-flv\r\n\
                     Transfer-Encoding: chunked\r\nExpect: 100-continue\r\nConnection: close\r\n\r\n"
                )
                .into_bytes();
                Kind::Http(Answer::new())
            }
            Scheme::Ws => {
                let key = ws::handshake::random_key();
                out = format!(
                    "GET {path} HTTP/1.1\r\nHost: {authority}\r\nUser-Agent: {agent}\r\nUpgrade: websocket\r\n\
                     Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {key}\r\n\r\n"
                )
                .into_bytes();
                let accept = ws::accept_key(&key);
                let frames = Box::new(FrameReader::for_client(1 << 20));
                Kind::Ws { answer: Some(Answer::new()), accept, frames, closed: false }
            }
        };
        Self { kind, header, out }
    }

    /// Takes bytes from the server.
    ///
    /// # Errors
    /// [`PushError::Refused`] if the server refused, [`PushError::Lost`] if its answer cannot be understood.
    pub(super) fn input(&mut self, bytes: &[u8]) -> Result<(), PushError> {
        match &mut self.kind {
            Kind::Rtmp(session) => session.input(bytes).map_err(|error| match error {
                RtmpError::Refused { code, description } => {
                    PushError::Refused(format!("{code}: {description}"))
                }
                other => PushError::Lost(other.to_string()),
            }),
            Kind::Http(answer) => {
                answer.input(bytes)?;
                let whole = answer.is_whole();
                self.refusal().filter(|_| whole).map_or(Ok(()), Err)
            }
            Kind::Ws { answer: waiting @ Some(_), accept, frames, closed } => {
                let answer = waiting.as_mut().expect("matched");
                let rest = answer.input(bytes)?;
                let Some(head) = answer.reader.head() else { return Ok(()) };
                if head.status != 101 {
                    return if answer.is_whole() { Err(answer.refusal(head.status)) } else { Ok(()) };
                }
                if head.headers.get("sec-websocket-accept") != Some(accept) {
                    return Err(PushError::Lost("the server does not speak WebSocket".to_owned()));
                }
                *waiting = None;
                take_frames(frames, rest, closed, &mut self.out)
            }
            Kind::Ws { frames, closed, .. } => take_frames(frames, bytes, closed, &mut self.out),
        }
    }

    /// The server's refusal as far as it has come: the rest of its text may be missing.
    pub(super) fn refusal(&self) -> Option<PushError> {
        let (answer, good) = match &self.kind {
            Kind::Http(answer) => (answer, 200..=299),
            Kind::Ws { answer: Some(answer), .. } => (answer, 101..=101),
            Kind::Rtmp(_) | Kind::Ws { answer: None, .. } => return None,
        };
        answer.status().filter(|status| !good.contains(status)).map(|status| answer.refusal(status))
    }

    /// Whether tags may be written. Servers without support for `Expect` send nothing: wait a second at most.
    pub(super) fn is_ready(&self) -> bool {
        match &self.kind {
            Kind::Rtmp(session) => session.is_publishing(),
            Kind::Http(answer) => answer.heard && self.refusal().is_none(),
            Kind::Ws { answer, .. } => answer.is_none(),
        }
    }

    /// Whether the body may be sent if the server sends nothing.
    pub(super) fn may_be_silent(&self) -> bool {
        matches!(self.kind, Kind::Http(_))
    }

    /// Writes what comes before all tags.
    pub(super) fn begin(&mut self) {
        if !matches!(self.kind, Kind::Rtmp(_)) {
            let header = self.header.encode();
            self.write(&header);
        }
    }

    pub(super) fn write_tag(&mut self, tag: &Tag) {
        if let Kind::Rtmp(session) = &mut self.kind {
            return session.write_tag(tag);
        }
        let mut bytes = Vec::with_capacity(tag.encoded_len());
        tag.write_to(&mut bytes);
        self.write(&bytes);
    }

    fn write(&mut self, bytes: &[u8]) {
        match &self.kind {
            Kind::Rtmp(_) => unreachable!("RTMP messages are written elsewhere"),
            Kind::Http(_) => {
                self.out.extend(format!("{:x}\r\n", bytes.len()).into_bytes());
                self.out.extend_from_slice(bytes);
                self.out.extend_from_slice(b"\r\n");
            }
            Kind::Ws { .. } => ws::client_frame(Opcode::Binary, bytes, mask(), &mut self.out),
        }
    }

    /// Tells the server that the stream is over.
    pub(super) fn finish(&mut self) {
        match &mut self.kind {
            Kind::Rtmp(session) => session.unpublish(),
            Kind::Http(_) => self.out.extend_from_slice(b"0\r\n\r\n"),
            Kind::Ws { .. } => {
                ws::client_frame(Opcode::Close, &ws::code::NORMAL.to_be_bytes(), mask(), &mut self.out);
            }
        }
    }

    /// Whether the server has confirmed the end; over RTMP it closes the connection.
    pub(super) fn is_confirmed(&self) -> bool {
        match &self.kind {
            Kind::Rtmp(_) => false,
            Kind::Http(answer) => answer.reader.state() == State::Finished,
            Kind::Ws { closed, .. } => *closed,
        }
    }

    /// Whether the end is confirmed by the close of the connection alone.
    pub(super) fn ends_silently(&self) -> bool {
        matches!(self.kind, Kind::Rtmp(_))
    }

    /// Bytes for the server.
    pub(super) fn take_output(&mut self) -> Vec<u8> {
        if let Kind::Rtmp(session) = &mut self.kind
            && let Some(output) = session.take_output()
        {
            return output.into();
        }
        std::mem::take(&mut self.out)
    }
}

fn take_frames(
    frames: &mut FrameReader,
    bytes: &[u8],
    closed: &mut bool,
    out: &mut Vec<u8>,
) -> Result<(), PushError> {
    let mut refusal = None;
    let result = frames.push(bytes, &mut |event| match event {
        ws::Event::Ping(payload) => ws::client_frame(Opcode::Pong, payload, mask(), out),
        ws::Event::Close { code, reason } => {
            *closed = true;
            match code {
                None | Some(ws::code::NORMAL) => {}
                Some(code) => refusal = Some(format!("{code} {reason}")),
            }
        }
        ws::Event::Data { .. } | ws::Event::Pong(_) => {}
    });
    result.map_err(|error| PushError::Lost(error.to_string()))?;
    refusal.map_or(Ok(()), |reason| Err(PushError::Refused(reason)))
}

/// The mask hides nothing; it only must differ each time (RFC 6455, 10.3).
fn mask() -> [u8; 4] {
    let [a, b, c, d, ..] = RandomState::new().hash_one(0u8).to_ne_bytes();
    [a, b, c, d]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn link(url: &str) -> Link {
        Link::new(&Target::parse(url).unwrap(), FileHeader { audio: true, video: true })
    }

    /// What a link reports for a response that comes in pieces of `piece` bytes, also after the server has
    /// closed the connection.
    fn answered(url: &str, answer: &str, piece: usize) -> Option<String> {
        let mut link = link(url);
        let refused = answer.as_bytes().chunks(piece).find_map(|piece| link.input(piece).err());
        assert!(!link.is_ready() || refused.is_none(), "{answer}");
        refused.or_else(|| link.refusal()).map(|error| {
            assert_eq!(error.exit_code(), 77, "{error}");
            error.to_string()
        })
    }

    #[test]
    fn a_refusal_with_a_body_is_understood_in_any_pieces() {
        let page = "<html>\r\n<h1>\r\nno such app\r\n</h1>\r\n</html>\r\n";
        let length = format!("HTTP/1.1 403 Forbidden\r\nContent-Length: {}\r\n\r\n{page}", page.len());
        let close = format!("HTTP/1.1 403 Forbidden\r\nConnection: close\r\n\r\n{page}");
        let chunks = format!(
            "HTTP/1.1 403 No\r\nTransfer-Encoding: chunked\r\n\r\n{:x}\r\n{page}\r\n0\r\n\r\n",
            page.len()
        );
        for url in ["ws://h/live/x", "http://h/live/x"] {
            for answer in [&length, &close, &chunks] {
                for piece in [1, 2, 3, 7, 50, 10_000] {
                    let said = answered(url, answer, piece);
                    assert_eq!(
                        said.as_deref(),
                        Some("the server refused: 403 no such app"),
                        "{url} {answer} {piece}"
                    );
                }
            }
            let said = answered(url, "HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n", 5);
            assert_eq!(said.as_deref(), Some("the server refused: 404 Not Found"));
            let said = answered(url, "HTTP/1.1 502 Bad Gateway\r\nContent-Length: 900\r\n\r\n<html>", 5);
            assert_eq!(
                said.as_deref(),
                Some("the server refused: 502 Bad Gateway"),
                "the connection was closed early"
            );
        }
    }

    #[test]
    fn an_endless_refusal_is_not_read_to_its_end() {
        let head = "HTTP/1.1 403 Forbidden\r\n\r\n";
        let mut link = link("ws://h/live/x");
        link.input(head.as_bytes()).unwrap();
        assert!((0..3).any(|_| link.input(&[b'x'; TEXT_MAX]).is_err()));
    }

    #[test]
    fn frames_after_the_head_are_kept_at_any_split() {
        let mut first = link("ws://h/live/x");
        let request = String::from_utf8(first.take_output()).unwrap();
        let key = request.lines().find_map(|line| line.strip_prefix("Sec-WebSocket-Key: ")).unwrap();
        let answer = String::from_utf8(ws::upgrade_response(key, None)).unwrap();
        let all = [answer.as_bytes(), &[0x89, 2, b'h', b'i']].concat();
        for at in 1..all.len() {
            let mut link = link("ws://h/live/x");
            let Kind::Ws { accept, .. } = &mut link.kind else { panic!("a WebSocket") };
            *accept = ws::accept_key(key);
            link.take_output();
            link.input(&all[..at]).unwrap();
            link.input(&all[at..]).unwrap();
            assert!(link.is_ready());
            assert_eq!(link.take_output().len(), 8, "the ping is answered, split at {at}");
        }
    }
}
