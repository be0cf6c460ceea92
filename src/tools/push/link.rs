//! One connection to a server, sans-IO: RTMP, a POST in chunks, or a WebSocket. The three differ here only.

use std::hash::{BuildHasher, RandomState};

use super::PushError;
use super::args::{Scheme, Target};
use crate::media::flv::FileHeader;
use crate::media::tag::Tag;
use crate::protocol::http::client::{ResponseReader, State};
use crate::protocol::rtmp::RtmpError;
use crate::protocol::rtmp::client::PublishSession;
use crate::protocol::ws::{self, FrameReader, Opcode};

/// Bytes of an answer's head, and of a refusal's text.
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
        /// The answer to the upgrade; none behind it.
        answer: Option<Answer>,
        accept: String,
        frames: Box<FrameReader>,
        /// The server's close frame came.
        closed: bool,
    },
}

/// The answer to a request, and the beginning of its text.
struct Answer {
    reader: ResponseReader,
    text: Vec<u8>,
    /// The server said something: at least that the body may come.
    heard: bool,
}

impl Answer {
    fn new() -> Self {
        Self { reader: ResponseReader::new(HEAD_MAX), text: Vec::new(), heard: false }
    }

    /// The status, once the answer is whole.
    fn input(&mut self, bytes: &[u8]) -> Result<Option<u16>, PushError> {
        self.heard = true;
        let text = &mut self.text;
        let take = |_: &_, piece: &[u8]| {
            let room = TEXT_MAX - text.len();
            text.extend_from_slice(&piece[..piece.len().min(room)]);
        };
        let state = self.reader.push(bytes, take).map_err(|error| PushError::Lost(error.to_string()))?;
        let head = self.reader.head().filter(|_| state == State::Finished);
        Ok(head.map(|head| head.status))
    }

    fn refusal(&self, status: u16) -> PushError {
        let text = String::from_utf8_lossy(&self.text);
        let line = text.lines().last().unwrap_or_default();
        PushError::Refused(format!("{status} {line}"))
    }
}

impl Link {
    /// Begins; the first output is ready at once.
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
    /// [`PushError::Refused`] where it said so, [`PushError::Lost`] where it cannot be understood.
    pub(super) fn input(&mut self, bytes: &[u8]) -> Result<(), PushError> {
        match &mut self.kind {
            Kind::Rtmp(session) => session.input(bytes).map_err(|error| match error {
                RtmpError::Refused { code, description } => {
                    PushError::Refused(format!("{code}: {description}"))
                }
                other => PushError::Lost(other.to_string()),
            }),
            Kind::Http(answer) => match answer.input(bytes)? {
                None | Some(200..=299) => Ok(()),
                Some(status) => Err(answer.refusal(status)),
            },
            Kind::Ws { answer: waiting @ Some(_), accept, frames, closed } => {
                let answer = waiting.as_mut().expect("matched");
                // Frames may come right behind the head.
                let end =
                    bytes.windows(4).position(|part| part == b"\r\n\r\n").map_or(bytes.len(), |at| at + 4);
                let Some(status) = answer.input(&bytes[..end])? else { return Ok(()) };
                let head = answer.reader.head().expect("it has a status");
                if status != 101 {
                    return Err(answer.refusal(status));
                }
                if head.headers.get("sec-websocket-accept") != Some(accept) {
                    return Err(PushError::Lost("the server does not speak WebSocket".to_owned()));
                }
                *waiting = None;
                take_frames(frames, &bytes[end..], closed, &mut self.out)
            }
            Kind::Ws { frames, closed, .. } => take_frames(frames, bytes, closed, &mut self.out),
        }
    }

    /// Whether tags may be written. Servers that know nothing of `Expect` say nothing: wait a second at most.
    pub(super) fn is_ready(&self) -> bool {
        match &self.kind {
            Kind::Rtmp(session) => session.is_publishing(),
            Kind::Http(answer) => answer.heard,
            Kind::Ws { answer, .. } => answer.is_none(),
        }
    }

    /// Whether silence means that the body may come.
    pub(super) fn may_be_silent(&self) -> bool {
        matches!(self.kind, Kind::Http(_))
    }

    /// Writes what stands before all tags.
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
            Kind::Rtmp(_) => unreachable!("messages have their own way"),
            Kind::Http(_) => {
                self.out.extend(format!("{:x}\r\n", bytes.len()).into_bytes());
                self.out.extend_from_slice(bytes);
                self.out.extend_from_slice(b"\r\n");
            }
            Kind::Ws { .. } => ws::client_frame(Opcode::Binary, bytes, mask(), &mut self.out),
        }
    }

    /// Says that the stream is over.
    pub(super) fn finish(&mut self) {
        match &mut self.kind {
            Kind::Rtmp(session) => session.unpublish(),
            Kind::Http(_) => self.out.extend_from_slice(b"0\r\n\r\n"),
            Kind::Ws { .. } => {
                ws::client_frame(Opcode::Close, &ws::code::NORMAL.to_be_bytes(), mask(), &mut self.out);
            }
        }
    }

    /// Whether the server has confirmed the end; over RTMP it hangs up.
    pub(super) fn is_confirmed(&self) -> bool {
        match &self.kind {
            Kind::Rtmp(_) => false,
            Kind::Http(answer) => answer.reader.state() == State::Finished,
            Kind::Ws { closed, .. } => *closed,
        }
    }

    /// Whether the end is not confirmed by words.
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

/// It hides nothing from anybody, it only must not be the same each time (RFC 6455, 10.3).
fn mask() -> [u8; 4] {
    let [a, b, c, d, ..] = RandomState::new().hash_one(0u8).to_ne_bytes();
    [a, b, c, d]
}
