//! New connections: what each listener speaks, which are accepted, and which have to make way when the loop is
//! full.

use tracing::warn;

use super::conn::{Conn, Kind};
use super::conns::Conns;
use super::core::Core;
use super::head::{ConnHead, Next};
use super::http::connection::{Connection, SERVER_FULL};
use super::http::routes::Routes;
use super::limits::Refused;
use super::log_limit::LineKind;
use super::rtmp::Peer;
use crate::protocol::http::error_page;
use crate::protocol::http::request::RequestLimits;
use crate::uring::{Engine, Sock};

/// A listener of a role.
#[derive(Clone, Copy, Debug)]
pub(super) struct Listener {
    /// The role.
    pub(super) role: usize,
    /// The protocol of its clients.
    pub(super) speaks: Speaks,
    /// It takes no plain connections.
    pub(super) requires_tls: bool,
}

impl Listener {
    /// Takes plain connections, and TLS if there is a certificate.
    pub(super) fn new(role: usize, speaks: Speaks) -> Self {
        Self { role, speaks, requires_tls: false }
    }
}

/// The protocol of a listener's clients.
#[derive(Clone, Copy, Debug)]
pub(super) enum Speaks {
    /// RTMP.
    Rtmp,
    /// HTTP, with these routes.
    Http(&'static Routes),
}

/// The limits of a loop.
#[derive(Clone, Copy, Debug)]
pub(super) struct Capacity {
    /// Connections; further ones get the answer that the server is full.
    pub(super) connections: usize,
    /// How many of them are reserved for publishers.
    pub(super) reserve: usize,
    /// Open files that it keeps for later requests.
    pub(super) files: usize,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Reception {
    listeners: Vec<Listener>,
    capacity: Capacity,
    /// Listeners that have stopped accepting for a while.
    resting: Vec<u32>,
}

impl Reception {
    pub(super) fn new(listeners: Vec<Listener>, capacity: Capacity) -> Self {
        Self { listeners, capacity, resting: Vec::new() }
    }

    /// A connection was accepted: makes it one of its listener's kind, if its address may have another one.
    pub(super) fn accept<E: Engine>(
        &self,
        core: &mut Core<E>,
        conns: &Conns,
        (listener, sock): (u32, Sock),
    ) -> (Conn, Result<(), Refused>) {
        let Listener { role, speaks, requires_tls } = self.listeners[listener as usize];
        core.counters[role].accepted.add(1);
        let limits = RequestLimits::new(core.shared.config.limits.request_head);
        let kind = match speaks {
            Speaks::Rtmp => Kind::Rtmp(Box::new(Peer::new(&core.shared.config))),
            Speaks::Http(routes) => Kind::Http(Box::new(Connection::new(routes, limits))),
        };
        core.net.accepted(sock);
        let mut head = ConnHead::new(sock, role);
        head.requires_tls = requires_tls;
        head.address = core.net.peer(sock).map(|peer| peer.ip().to_canonical());
        if head.address.is_some_and(|peer| core.shared.config.limits.is_trusted(peer)) {
            core.net.await_header(sock);
            (head.awaits_header, head.is_proxy) = (true, true);
        }
        head.reserved = conns.open() + self.capacity.reserve >= self.capacity.connections;
        core.deadline(sock, core.request_time());
        let admitted = core.admit(&mut head);
        (Conn { head, kind }, admitted)
    }

    /// Whether the loop has more connections than its limit: one has to go.
    pub(super) fn is_full(&self, conns: &Conns) -> bool {
        conns.open() > self.capacity.connections
    }

    /// An idle client that can make way for a new connection, if there is one.
    pub(super) fn makes_way(conns: &mut Conns, newcomer: Sock) -> Option<Sock> {
        conns.find_idle(|conn| {
            conn.head.sock != newcomer && matches!(&conn.kind, Kind::Http(http) if http.is_idle())
        })
    }

    /// Answers a client that the server is full, instead of letting it wait.
    pub(super) fn turn_away<E: Engine>(core: &mut Core<E>, conn: &mut Conn, why: Refused) -> Next {
        core.counters[conn.head.role].turned_away.add(1);
        core.count_refusal(conn.head.role, why);
        if matches!(conn.kind, Kind::Rtmp(_)) {
            return Next::close(why.to_string());
        }
        let message = if why == Refused::Full { SERVER_FULL.to_owned() } else { why.to_string() };
        core.say_last(&mut conn.head, error_page(why.status(), &message, false, false).into())
    }

    /// An accept failed: the listener rests for a while.
    pub(super) fn failed<E: Engine>(&mut self, core: &mut Core<E>, listener: u32, error: rustix::io::Errno) {
        let role = self.listeners[listener as usize].role;
        core.counters[role].accept_failures.add(1);
        if core.may_log(LineKind::Accept) {
            let role = core.role(role).name;
            warn!(role, %error, "cannot accept for now; raise the descriptor limit if this stays");
        }
        self.resting.push(listener);
    }

    /// Listeners that have rested accept again.
    pub(super) fn resume<E: Engine>(&mut self, core: &mut Core<E>) {
        self.resting.drain(..).for_each(|listener| core.net.resume_accept(listener));
    }
}
