//! A connection: what it is at present, and what waits to be sent to it.

use std::collections::VecDeque;
use std::fmt;

use bytes::{Buf, Bytes};

use super::fanout::ViewerId;
use super::files::Client;
use super::play::Play;
use super::publish::Publisher;
use super::pull::PullId;
use super::relay::RelayId;
use super::rtmp::RtmpPeer;
use crate::protocol::http::request::RequestReader;
use crate::protocol::ws;
use crate::uring::Sock;

/// A connection of a loop.
#[derive(Debug)]
pub(super) struct Conn {
    pub(super) sock: Sock,
    /// The role whose listener it came in on, or that opened it.
    pub(super) role: usize,
    pub(super) kind: Kind,
    pub(super) out: Outbox,
    /// Its session, if it speaks RTMP.
    pub(super) rtmp: Option<Box<RtmpPeer>>,
}

impl Conn {
    /// One that has said nothing yet.
    pub(super) fn new(sock: Sock, role: usize, kind: Kind) -> Self {
        Self { sock, role, kind, out: Outbox::default(), rtmp: None }
    }
}

impl Conn {
    /// Whether a file client's answer is on its way; other bytes go through [`Outbox`].
    pub(super) fn is_answered(&self) -> bool {
        matches!(&self.kind, Kind::Client(client) if client.is_answered())
    }
}

/// What a connection is at present.
#[derive(Debug)]
pub(super) enum Kind {
    /// Publishes, or speaks RTMP and may do so.
    Publisher(Box<Publisher>),
    /// Sends HTTP requests.
    Request(Box<RequestReader>),
    /// Asks for files and pages.
    Client(Box<Client>),
    /// Asked for a stream that is not there yet.
    Waiting(Box<Play>),
    /// Watches.
    Viewer(ViewerId, Box<Watching>),
    /// Our pull from an upstream.
    Pull(PullId),
    /// Our connection to another server, unless it has become a viewer.
    Relay(RelayId),
    /// Has its answer; we wait for it to hang up, so that it can read what we said.
    Leaving,
}

/// What a viewer's connection needs besides its place in the fan-out.
#[derive(Debug)]
pub(super) struct Watching {
    /// What it asked for.
    pub(super) play: Play,
    /// Reads its control frames.
    pub(super) frames: Option<Box<ws::FrameReader>>,
    /// Bytes that it sent although it should only read.
    pub(super) noise: usize,
    /// It is a forward of ours.
    pub(super) relay: Option<RelayId>,
}

/// What becomes of a connection after a handler.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Fate {
    /// It stays.
    Keep,
    /// It is closed for a reason that is nobody's fault.
    Close(String),
    /// It is closed because the peer broke its protocol.
    Refuse(String),
}

impl fmt::Display for Fate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Keep => f.write_str("it stays"),
            Self::Close(reason) | Self::Refuse(reason) => f.write_str(reason),
        }
    }
}

/// The most that may wait for a peer that does not read.
const OUTBOX_MAX: usize = 4 << 20;

/// Bytes that wait to be sent on a connection that is no viewer.
#[derive(Debug, Default)]
pub(super) struct Outbox {
    queue: VecDeque<Bytes>,
    bytes: usize,
    /// A send or a poll is under way.
    busy: bool,
    /// Hang up once all is sent.
    pub(super) last_words: bool,
}

impl Outbox {
    /// Queues bytes; `false` if the peer has let too much pile up.
    #[must_use]
    pub(super) fn push(&mut self, bytes: Bytes) -> bool {
        if !bytes.is_empty() {
            self.bytes += bytes.len();
            self.queue.push_back(bytes);
        }
        self.bytes <= OUTBOX_MAX
    }

    /// What to send now, if nothing is under way.
    pub(super) fn next(&mut self) -> Option<Bytes> {
        if self.busy {
            return None;
        }
        let bytes = self.queue.front()?.clone();
        self.busy = true;
        Some(bytes)
    }

    /// The socket took so many bytes.
    pub(super) fn sent(&mut self, bytes: usize) {
        self.busy = false;
        self.bytes -= bytes;
        let front = self.queue.front_mut().expect("what was sent stands in front");
        front.advance(bytes);
        if front.is_empty() {
            self.queue.pop_front();
        }
    }

    /// The socket has room again.
    pub(super) fn writable(&mut self) {
        self.busy = false;
    }

    /// Whether all is sent.
    pub(super) fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }
}
