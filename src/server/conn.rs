//! What a connection is at present.

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

/// What a connection is at present.
#[derive(Debug)]
pub(super) enum Kind {
    /// Sends HTTP requests and gets answers.
    Http(Box<Connection>),
    /// Pushes a stream over HTTP or WebSocket.
    Push(Box<Push>),
    /// Plays a stream over HTTP or WebSocket, or waits for it.
    Player(Box<Player>),
    /// Speaks RTMP: publishes, plays, or has not said yet.
    Rtmp(Box<Peer>),
    /// Opened by the server itself, to an upstream or another server.
    Link(LinkId),
    /// Has its last words; the peer is to hang up, so that it can read them.
    Leaving,
}

impl Conn {
    /// Bytes of memory that this connection takes besides its own state.
    pub(super) fn held(&self) -> usize {
        let own = match &self.kind {
            Kind::Http(http) => http.held(),
            Kind::Push(push) => push.held(),
            Kind::Rtmp(rtmp) => rtmp.held(),
            Kind::Player(_) | Kind::Link(_) | Kind::Leaving => 0,
        };
        own + self.head.out.bytes()
    }
}
