//! What every connection has in common, and what a handler decides about it.

use std::borrow::Cow;
use std::net::IpAddr;

use bytes::Bytes;

use super::limits::Pass;
use super::transport::Outbox;
use super::viewers::play::Play;
use super::viewers::viewer::ViewerId;
use crate::access::Grant;
use crate::protocol::http::request::Request;
use crate::uring::Sock;

/// What every connection has in common.
#[derive(Debug)]
pub(super) struct ConnHead {
    pub(super) sock: Sock,
    /// The role whose listener accepted it, or that opened it.
    pub(super) role: usize,
    /// What waits to be sent. Not used while the fan-out has the socket.
    pub(super) out: Outbox,
    /// Its place in the fan-out, which then owns this socket.
    pub(super) viewer: Option<ViewerId>,
    /// It was accepted when only the reserve was left: it may only publish.
    pub(super) reserved: bool,
    /// Its listener takes no plain connections.
    pub(super) requires_tls: bool,
    /// Its peer is trusted and has not sent anything yet: a PROXY header may come.
    pub(super) awaits_header: bool,
    /// Its peer, or the one that a PROXY header names, is trusted to forward requests.
    pub(super) is_proxy: bool,
    /// The peer sends no more.
    pub(super) finished: bool,
    /// Bytes of memory counted for it in the budget.
    pub(super) held: usize,
    /// The client's address, if known.
    pub(super) address: Option<IpAddr>,
    /// Its count among the connections of its address, until it becomes a viewer.
    pub(super) pass: Option<Pass>,
    /// Its count among the waits of its address.
    pub(super) wait_pass: Option<Pass>,
}

impl ConnHead {
    /// A connection that has not sent anything yet.
    pub(super) fn new(sock: Sock, role: usize) -> Self {
        Self {
            sock,
            role,
            out: Outbox::default(),
            viewer: None,
            reserved: false,
            requires_tls: false,
            awaits_header: false,
            is_proxy: false,
            finished: false,
            held: 0,
            address: None,
            pass: None,
            wait_pass: None,
        }
    }
}

impl ConnHead {
    /// It has become a viewer: it no longer counts against the limits of its address.
    pub(super) fn is_established(&mut self) {
        (self.pass, self.wait_pass) = (None, None);
    }
}

/// The purpose of a connection that the server itself has opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum LinkId {
    /// A pull of a gateway, by its index in the loop's table.
    Pull(u32),
    /// A relay, by its index in the loop's table.
    Relay(u32),
    /// A health probe of an upstream, by the role and the index among its upstreams.
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
    /// It asks for a stream: it becomes a viewer or waits.
    Play(Box<Play>),
    /// It starts to push a stream over HTTP or WebSocket, as it was granted; the bytes are those received after the
    /// request's head.
    Push(Box<(Request, Grant)>, Bytes),
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
