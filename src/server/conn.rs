//! What a connection is used for at present.

use super::head::{ConnHead, LinkId};
use super::http::connection::Connection;
use super::publishers::push::Push;
use super::rtmp::Peer;
use super::viewers::player::Player;

/// A connection of a loop.
#[derive(Debug)]
pub(super) struct Conn {
    pub(super) head: ConnHead,
    pub(super) kind: Kind,
}

/// Every viewer takes one, and its send looks it up: what only some connections need is boxed.
const _: () = assert!(size_of::<Conn>() <= 144);

/// What a connection is used for at present.
#[derive(Debug)]
pub(super) enum Kind {
    /// Sends HTTP requests and gets answers.
    Http(Box<Connection>),
    /// Pushes a stream over HTTP or WebSocket.
    Push(Box<Push>),
    /// Plays a stream over HTTP or WebSocket, or waits for it.
    Player(Box<Player>),
    /// Speaks RTMP: publishes, plays, or has not decided yet.
    Rtmp(Box<Peer>),
    /// Opened by the server itself, to an upstream or another server.
    Link(LinkId),
    /// The final answer is being sent; the peer closes the connection once it has read it.
    Leaving {
        /// Bytes that the transport had still to send when that was checked last.
        unsent: usize,
    },
}

impl Conn {
    /// Bytes of memory that this connection holds in addition to its own state.
    pub(super) fn held(&self) -> usize {
        let own = match &self.kind {
            Kind::Http(http) => http.held(),
            Kind::Push(push) => push.held(),
            Kind::Rtmp(rtmp) => rtmp.held(),
            Kind::Player(_) | Kind::Link(_) | Kind::Leaving { .. } => 0,
        };
        own + self.head.out.bytes()
    }
}
