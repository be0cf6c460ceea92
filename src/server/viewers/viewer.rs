//! One viewer: a cursor, the bytes to send before the log continues, and the framing of its bytes.

use std::collections::VecDeque;

use bytes::{Buf, Bytes};

use crate::live::cursor::{Cursor, LagLimits, StartAt};
use crate::live::stream::{Selection, Stream};
use crate::media::encoding::Encoding;
use crate::protocol::http::chunked::{CHUNK_HEAD_MAX, chunk_head};
use crate::protocol::http::response::Head;
use crate::protocol::ws;
use crate::uring::{FRAME_HEAD_MAX, FrameHead, Millis, Sock};

/// A viewer's place in the fan-out's table.
pub(in crate::server) type ViewerId = u32;

/// How a role serves its viewers.
#[derive(Clone, Copy, Debug)]
pub(in crate::server) struct Policy {
    /// Milliseconds between two sends to a viewer; 0: each batch of tags is sent at once; `None`: the loop decides.
    pub(in crate::server) flush: Option<Millis>,
    /// How far a viewer may lag.
    pub(in crate::server) lag: LagLimits,
    /// Milliseconds that a socket may stay full.
    pub(in crate::server) stall: Millis,
}

/// The framing of a viewer's bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::server) enum Framing {
    /// HTTP-FLV: unframed, until the end of the connection.
    Plain,
    /// WS-FLV: in binary messages.
    WebSocket,
    /// The body of a POST that the server itself sends, in chunks: each begins with the line end of the
    /// previous one.
    Chunked,
    /// RTMP: its log holds chunks; control messages are sent between whole tags.
    Rtmp,
}

impl Framing {
    /// The encoding of the log that it is cut from.
    pub(in crate::server) const fn encoding(self) -> Encoding {
        match self {
            Self::Plain | Self::WebSocket | Self::Chunked => Encoding::Flv,
            Self::Rtmp => Encoding::Rtmp,
        }
    }

    /// The protocol's name in metrics and logs.
    pub(in crate::server) const fn protocol(self) -> Protocol {
        match self {
            Self::Plain | Self::Chunked => Protocol::HttpFlv,
            Self::WebSocket => Protocol::WsFlv,
            Self::Rtmp => Protocol::Rtmp,
        }
    }

    /// The header before `len` bytes.
    fn frame_head(self, len: usize) -> FrameHead {
        match self {
            Self::Plain | Self::Rtmp => FrameHead::default(),
            Self::WebSocket => {
                let mut head = [0; FRAME_HEAD_MAX];
                let head_len = ws::frame_header(ws::Opcode::Binary, len, &mut head);
                FrameHead::new(&head[..head_len])
            }
            // At most ten bytes: runs are far below 16 MiB.
            Self::Chunked => {
                let mut head = [0; CHUNK_HEAD_MAX];
                let head_len = chunk_head(len, &mut head);
                let mut framed = [b'\r', b'\n', 0, 0, 0, 0, 0, 0, 0, 0];
                framed[2..2 + head_len].copy_from_slice(&head[..head_len]);
                FrameHead::new(&framed[..2 + head_len])
            }
        }
    }

    /// The close frame of a WebSocket, or nothing.
    pub(in crate::server) fn goodbye(self, code: u16, reason: &str) -> Bytes {
        match self {
            Self::Plain | Self::Chunked | Self::Rtmp => Bytes::new(),
            Self::WebSocket => ws::close_frame(code, reason).into(),
        }
    }
}

/// The protocol of a viewer, for metrics and logs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// HTTP-FLV play.
    HttpFlv,
    /// WebSocket-FLV play.
    WsFlv,
    /// RTMP play.
    Rtmp,
}

impl Protocol {
    /// All protocols.
    pub const EVERY: [Self; 3] = [Self::HttpFlv, Self::WsFlv, Self::Rtmp];

    /// Its value as a metric's label.
    pub const fn name(self) -> &'static str {
        match self {
            Self::HttpFlv => "http-flv",
            Self::WsFlv => "ws-flv",
            Self::Rtmp => "rtmp",
        }
    }
}

/// What a viewer asked for.
#[derive(Clone, Debug)]
pub(in crate::server) struct Wish {
    /// Which tracks.
    pub(in crate::server) selection: Selection,
    /// Where it wants to start; an offset is counted from the head.
    pub(in crate::server) start: StartAt,
    /// How its bytes travel.
    pub(in crate::server) framing: Framing,
    /// The bytes before its first byte: the answer to its upgrade, or to its `play`.
    pub(in crate::server) answer: Bytes,
    /// It asks for the response head only.
    pub(in crate::server) head_only: bool,
    /// When it asked.
    pub(in crate::server) since: Millis,
}

/// Why a viewer is removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(in crate::server) enum Farewell {
    /// The stream is over and the viewer has received all of it.
    #[error("the stream ended")]
    StreamEnded,
    /// The stream ended before there was anything to send; the status is that of its answer.
    #[error("the stream never began")]
    NeverBegan(u16),
    /// It took less than an eighth of the stream over several skips.
    #[error("it takes less than an eighth of the stream")]
    TooSlow,
    /// Its socket stayed full for too long.
    #[error("it took nothing for too long")]
    Stalled,
    /// The connection broke.
    #[error("the connection broke: {0}")]
    Broken(rustix::io::Errno),
    /// The final answer has been sent.
    #[error("it has been answered")]
    Refused,
    /// An operator has ended it.
    #[error("an operator has ended it")]
    Kicked,
    /// The end that its token tells has come.
    #[error("the token that it came with has ended")]
    Expired,
}

impl Farewell {
    /// Its value as a metric's label.
    pub(in crate::server) const fn name(self) -> &'static str {
        match self {
            Self::StreamEnded => "stream-ended",
            Self::NeverBegan(_) => "never-began",
            Self::TooSlow => "too-slow",
            Self::Stalled => "stalled",
            Self::Broken(_) => "broken",
            Self::Refused => "refused",
            Self::Kicked => "kicked",
            Self::Expired => "expired",
        }
    }
}

/// What a viewer is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::server) enum State {
    /// It had everything available when it was served last.
    Idle,
    /// Bytes of its own (response head, headers, control frames) are under way.
    SendingOwn,
    /// Bytes of the log are under way.
    SendingLog,
    /// Its socket has been full since then.
    Blocked(Millis),
    /// Nothing, and nothing more will be sent: it is about to be removed.
    Leaving,
}

/// A viewer, kept small: tens of thousands of them are walked many times a second.
#[derive(Debug)]
pub(in crate::server) struct Viewer {
    pub(in crate::server) sock: Sock,
    /// The index of its view, and its own index among the view's members.
    pub(in crate::server) view: u32,
    pub(in crate::server) member: u32,
    pub(in crate::server) state: State,
    pub(in crate::server) framing: Framing,
    /// The reason to remove it once its own bytes are sent.
    pub(in crate::server) last_words: Option<Farewell>,
    /// It asks for the response head only.
    pub(in crate::server) head_only: bool,
    /// It has received its first picture.
    pub(in crate::server) started: bool,
    /// A walk found it busy: it is served at once when its send is done.
    pub(in crate::server) passed_over: bool,
    /// Header bytes of the current message that are still to be sent.
    pub(in crate::server) frame: FrameHead,
    /// End of the current message in the log or, without messages, of the tags that it was given.
    pub(in crate::server) message_end: u64,
    /// Serial of the segment that its cursor is in; `u64::MAX`: none yet.
    pub(in crate::server) span: u64,
    pub(in crate::server) cursor: Cursor,
    /// Its own bytes, to be sent before the log continues.
    pub(in crate::server) own: Own,
    pub(in crate::server) since: Millis,
}

const _: () = assert!(size_of::<Viewer>() <= 192, "a viewer, three cache lines");

/// The header by which a puller recognises a timeline that it has seen before; its value lists the timeline's
/// names in hexadecimal.
pub(in crate::server) const EPOCH_HEADER: &str = "X-Uringcast-Epoch";

/// The head of the answer that an HTTP-FLV viewer's bytes follow.
pub(in crate::server) fn flv_head(stream: &Stream) -> Vec<u8> {
    let names: Vec<String> = stream.epochs().map(|name| format!("{name:016x}")).collect();
    Head::new(200)
        .header("Content-Type", "video/x-flv")
        .header("Cache-Control", "no-store")
        .header(EPOCH_HEADER, names.join(" "))
        .cors()
        .connection(false)
        .encode()
}

/// A viewer's own bytes, in order. Small pieces are joined, so that they are sent together; large ones are
/// shared with others and stay as they are.
#[derive(Debug, Default)]
pub(in crate::server) struct Own {
    front: Bytes,
    /// Rarely used, and then briefly: a viewer has to be small.
    #[expect(clippy::box_collection, reason = "a null pointer for nearly all viewers")]
    more: Option<Box<VecDeque<Bytes>>>,
}

impl Own {
    /// Pieces are joined up to this many bytes.
    const JOIN: usize = 4 << 10;

    /// Adds bytes after those that wait already.
    pub(in crate::server) fn push(&mut self, bytes: Bytes) {
        if bytes.is_empty() {
            return;
        }
        let last = match &mut self.more {
            Some(more) if !more.is_empty() => more.back_mut().expect("it is not empty"),
            _ => &mut self.front,
        };
        if last.len() + bytes.len() <= Self::JOIN || last.is_empty() {
            *last = if last.is_empty() { bytes } else { [&last[..], &bytes[..]].concat().into() };
        } else {
            self.more.get_or_insert_default().push_back(bytes);
        }
    }

    /// The next bytes to send.
    pub(in crate::server) fn front(&self) -> &Bytes {
        &self.front
    }

    /// The peer's socket took `bytes` bytes of the front.
    pub(in crate::server) fn sent(&mut self, bytes: usize) {
        self.front.advance(bytes);
        if self.front.is_empty() {
            // An empty rest would keep the memory.
            self.front = self.more.as_mut().and_then(|more| more.pop_front()).unwrap_or_default();
            self.more.take_if(|more| more.is_empty());
        }
    }

    /// The bytes that still wait, in one piece.
    pub(in crate::server) fn into_rest(self) -> Bytes {
        let more = self.more.into_iter().flat_map(|more| more.into_iter());
        more.fold(self.front, |all, bytes| [&all[..], &bytes[..]].concat().into())
    }

    /// Whether nothing waits.
    pub(in crate::server) fn is_empty(&self) -> bool {
        self.front.is_empty()
    }

    /// Waiting bytes that only this viewer holds; large headers are shared with other viewers.
    pub(in crate::server) fn alone(&self) -> usize {
        let more = self.more.iter().flat_map(|more| more.iter());
        more.chain([&self.front]).map(Bytes::len).filter(|len| *len <= Self::JOIN).sum()
    }
}

/// The segment of a viewer whose cursor is in none.
pub(in crate::server) const NO_SPAN: u64 = u64::MAX;

impl Viewer {
    /// Whether its own bytes may be inserted now, or the connection may end: not inside a message or a tag.
    pub(in crate::server) fn at_message_boundary(&self) -> bool {
        self.frame.is_empty() && self.cursor.at() >= self.message_end
    }

    /// Whether it has sent everything that it was given and waits for the next walk.
    pub(in crate::server) fn is_served(&self) -> bool {
        self.own.is_empty() && self.last_words.is_none() && !self.passed_over && self.cursor.is_at_goal()
    }

    /// The peer's socket took `bytes` of the message's header and the log.
    pub(in crate::server) fn log_sent(&mut self, bytes: u32) {
        let mut of_log = u64::from(bytes);
        if !self.frame.is_empty() {
            let head = self.frame.as_slice();
            let of_head = head.len().min(bytes as usize);
            self.frame = FrameHead::new(&head[of_head..]);
            of_log -= of_head as u64;
        }
        self.cursor.sent(of_log);
    }

    /// Frames the run from the cursor to `to`, which is the end of a whole tag; returns where it ends, at most
    /// `most` bytes from here.
    pub(in crate::server) fn frame_run(&mut self, to: u64, most: u64) -> u64 {
        let cut = to.min(self.cursor.at() + most);
        match self.framing {
            Framing::Plain | Framing::Rtmp => {
                self.message_end = to;
                cut
            }
            Framing::WebSocket | Framing::Chunked => self.announce_run(cut),
        }
    }

    /// Begins a message from the cursor to `to`, unless one that was announced has to be completed first; returns
    /// the message's end.
    #[inline(never)] // most viewers have no messages, and should not pay for this one's registers
    fn announce_run(&mut self, to: u64) -> u64 {
        if self.cursor.at() < self.message_end {
            return self.message_end;
        }
        self.frame = self.framing.frame_head(run_len(self.cursor.at(), to));
        self.message_end = to;
        self.cursor.commit(to);
        to
    }
}

fn run_len(from: u64, to: u64) -> usize {
    usize::try_from(to - from).expect("a run fits memory")
}
