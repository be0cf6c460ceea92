//! What every connection has, whatever it is at present, and what a handler decides of it.

use std::borrow::Cow;
use std::net::IpAddr;

use bytes::Bytes;

use super::limits::Pass;
use super::transport::Outbox;
use super::viewers::play::Play;
use super::viewers::viewer::ViewerId;
use crate::protocol::http::request::Request;
use crate::uring::Sock;

/// What every connection has.
#[derive(Debug)]
pub(super) struct ConnHead {
    pub(super) sock: Sock,
    /// The role whose listener it came in on, or that opened it.
    pub(super) role: usize,
    /// What waits to be sent. Not used while the fan-out has the socket.
    pub(super) out: Outbox,
    /// Its place in the fan-out, which sends on this socket then.
    pub(super) viewer: Option<ViewerId>,
    /// It came in when only the reserve was left: it may publish and nothing else.
    pub(super) reserved: bool,
    /// The peer sends no more.
    pub(super) finished: bool,
    /// Bytes of memory that the budget counts for it.
    pub(super) held: usize,
    /// The client's address, where it is known.
    pub(super) address: Option<IpAddr>,
    /// Its place among the connections of its address, until it watches.
    pub(super) pass: Option<Pass>,
    /// Its place among those of its address that wait for a stream.
    pub(super) wait_pass: Option<Pass>,
}

impl ConnHead {
    /// A connection that has said nothing yet.
    pub(super) fn new(sock: Sock, role: usize) -> Self {
        Self {
            sock,
            role,
            out: Outbox::default(),
            viewer: None,
            reserved: false,
            finished: false,
            held: 0,
            address: None,
            pass: None,
            wait_pass: None,
        }
    }
}

impl ConnHead {
    /// It watches a stream: the limits of its address do not count it any more.
    pub(super) fn is_established(&mut self) {
        (self.pass, self.wait_pass) = (None, None);
    }
}

/// What a connection that the server itself has opened is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum LinkId {
    /// A pull of a gateway, by its place in the loop's table.
    Pull(u32),
    /// A relay, by its place in the loop's table.
    Relay(u32),
    /// A question to an upstream whether it is there, by its role and its place among the upstreams.
    Probe(usize, usize),
}

/// Why a connection ends, for the log.
pub(super) type Reason = Cow<'static, str>;

/// What becomes of a connection after a handler.
#[derive(Debug)]
#[must_use]
pub(super) enum Next {
    /// It stays as it is.
    Stay,
    /// It is closed, through no fault of the peer.
    Close(Reason),
    /// It is closed because the peer broke its protocol or a limit.
    Refuse(Reason),
    /// It asks for a stream: it watches it, or waits for it.
    Play(Box<Play>),
    /// It begins to push a stream over HTTP or WebSocket; the bytes are what came after the request's head.
    Push(Box<Request>, Bytes),
}

impl Next {
    /// It is closed, through no fault of the peer.
    pub(super) fn close(reason: impl Into<Reason>) -> Self {
        Self::Close(reason.into())
    }

    /// It is closed because the peer broke its protocol or a limit.
    pub(super) fn refuse(reason: impl Into<Reason>) -> Self {
        Self::Refuse(reason.into())
    }

    /// Whether the connection stays as it is.
    pub(super) fn is_stay(&self) -> bool {
        matches!(self, Self::Stay)
    }
}
