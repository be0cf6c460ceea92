//! Hands each event of a connection to the handler for its kind. This is the only file that matches on the
//! kind.
//!
//! Handlers own their tables; each is called with what it may use, and returns what becomes of the connection
//! ([`Next`]).

use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use tracing::{debug, warn};

use super::conn::{Conn, Kind};
use super::conns::Conns;
use super::core::{Core, LEAVE, Task};
use super::head::{ConnHead, Next, Reason};
use super::http::web::Web;
use super::limits::Refused;
use super::log_limit::LineKind;
use super::publishers::push::Push;
use super::reception::Reception;
use super::streams::Streams;
use super::upstreams::links::Upstreams;
use super::viewers::audience::{EXPIRED, Seat, Viewers};
use super::viewers::play::Play;
use super::viewers::player::Player;
use super::viewers::viewer::Farewell;
use crate::access::Grant;
use crate::live::stream::Stream;
use crate::protocol::http::request::Request;
use crate::uring::{Engine, SendError, Sock};

/// The connections of a loop, and their handlers.
#[derive(Debug)]
pub(super) struct Dispatch<E: Engine> {
    pub(super) core: Core<E>,
    pub(super) conns: Conns,
    pub(super) streams: Streams,
    pub(super) upstreams: Upstreams,
    pub(super) web: Web,
}

/// Whether a stream may have another viewer.
fn may_watch<E: Engine>(core: &Core<E>, stream: &Stream) -> Result<(), Refused> {
    let limits = &core.shared.config.limits;
    let (viewers, bitrate) = (stream.viewers.load(Ordering::Relaxed), stream.bitrate(core.now()));
    if limits.viewers_per_stream > 0 && viewers as usize >= limits.viewers_per_stream {
        return Err(Refused::Viewers);
    }
    let after = bitrate.saturating_mul(u64::from(viewers) + 1);
    if limits.egress_per_stream.bits > 0 && after > limits.egress_per_stream.bits {
        return Err(Refused::StreamEgress);
    }
    if core.shared.egress.admit(limits.egress, bitrate) { Ok(()) } else { Err(Refused::Egress) }
}

impl<E: Engine> Dispatch<E> {
    pub(super) fn new(core: Core<E>, web: Web) -> Self {
        let (conns, streams, upstreams) = (Conns::default(), Streams::default(), Upstreams::default());
        Self { core, conns, streams, upstreams, web }
    }

    /// Adds a connection.
    pub(super) fn add(&mut self, head: ConnHead, kind: Kind) {
        self.core.counters[head.role].connections.add(1);
        self.conns.add(Conn { head, kind });
    }

    /// Does what handlers wanted done with other connections.
    pub(super) fn do_tasks(&mut self) {
        while let Some(task) = self.core.tasks.pop() {
            match task {
                Task::Close(sock, reason) => self.with(sock, |_, _| Next::Close(reason)),
                Task::Opened(head, link) => self.add(head, Kind::Link(link)),
                Task::AskAgain(sock) => self.with(sock, |own, conn| match &mut conn.kind {
                    Kind::Http(http) => http.ask_again(&mut own.core, &mut own.web, &mut conn.head),
                    Kind::Rtmp(peer) => peer.ask_again(&mut own.core, &mut own.streams, &mut conn.head),
                    _ => Next::Stay,
                }),
            }
        }
    }

    /// Calls a handler with a connection and does what it returns.
    pub(super) fn with(&mut self, sock: Sock, handler: impl FnOnce(&mut Self, &mut Conn) -> Next) {
        let Some(mut conn) = self.conns.take(sock) else { return };
        let mut next = handler(self, &mut conn);
        loop {
            next = match next {
                Next::Stay => match self.settle(&mut conn) {
                    Next::Stay => break self.conns.put_back(conn),
                    next => next,
                },
                Next::Play(play) => self.play(&mut conn, *play),
                Next::Push(granted, body) => self.push(&mut conn, *granted, &body),
                Next::Close(reason) => break self.close(conn, &reason, false),
                Next::Refuse(reason) => break self.close(conn, &reason, true),
            };
        }
    }

    /// What follows from the connection's state after its handler has returned.
    fn settle(&mut self, conn: &mut Conn) -> Next {
        let held = conn.held() + self.core.net.held(conn.head.sock);
        if !self.core.account(&mut conn.head, held) {
            self.core.count_refusal(conn.head.role, Refused::Memory);
            return Next::close(Refused::Memory.to_string());
        }
        let head = &mut conn.head;
        if !head.out.is_empty() || head.viewer.is_some() {
            return Next::Stay;
        }
        if head.out.is_closed() && !matches!(conn.kind, Kind::Leaving { .. }) {
            self.leave(conn, "the final answer has been sent");
            self.core.net.shutdown_write(conn.head.sock);
            self.core.deadline(conn.head.sock, LEAVE);
            return Next::Stay;
        }
        let pending = match &mut conn.kind {
            Kind::Player(player) if player.seat == Seat::Pending => Some(player.play.clone()),
            Kind::Rtmp(peer) => peer.pending().cloned(),
            Kind::Link(link) => {
                self.upstreams.drained(&mut self.core, &mut self.streams.viewers, head, *link);
                None
            }
            _ => None,
        };
        let since = self.core.now();
        pending.map_or(Next::Stay, |play| Next::Play(Box::new(Play { since, ..play })))
    }

    /// Makes a connection a viewer of its stream, or lets it wait for the stream.
    fn play(&mut self, conn: &mut Conn, play: Play) -> Next {
        if matches!(conn.kind, Kind::Http(_)) {
            self.leave(conn, "it plays");
            conn.kind = Kind::Player(Box::new(Player::new(play.clone())));
        }
        let (core, head, viewers) = (&mut self.core, &mut conn.head, &mut self.streams.viewers);
        if head.finished {
            return Next::close("the peer closed the connection");
        }
        let seat = if head.out.is_empty() {
            match Self::take_seat(core, (viewers, &mut self.upstreams), (head, &mut conn.kind), &play) {
                Ok(seat) => seat,
                Err(why) => {
                    core.count_refusal(head.role, why);
                    return match &mut conn.kind {
                        Kind::Player(player) => player.turn_away(core, head, why),
                        Kind::Rtmp(peer) => peer.turn_away(core, head, why),
                        _ => Next::close(why.to_string()),
                    };
                }
            }
        } else {
            // An earlier answer is still being sent, and the fan-out needs the socket for itself: `settle`
            // continues.
            core.deadline(head.sock, core.request_time());
            Seat::Pending
        };
        match &mut conn.kind {
            Kind::Player(player) => player.seat = seat,
            Kind::Rtmp(peer) => {
                peer.sit(play, seat);
                return peer.events(core, &mut self.streams, head);
            }
            _ => {}
        }
        Next::Stay
    }

    /// Makes a connection a viewer of its stream, which may still have to be pulled, or lets it wait for one.
    fn take_seat(
        core: &mut Core<E>,
        (viewers, upstreams): (&mut Viewers, &mut Upstreams),
        (head, kind): (&mut ConnHead, &mut Kind),
        play: &Play,
    ) -> Result<Seat, Refused> {
        let mut stream = core.role(head.role).directory.get(&play.key);
        if stream.is_none() {
            core.admit_wait(head)?;
            stream = upstreams.pull(core, head.role, &play.key);
        }
        let Some(stream) = stream.filter(|stream| !stream.has_ended()) else {
            return Ok(Seat::Waiting(viewers.wait(core, head, play)?));
        };
        may_watch(core, &stream)?;
        let answer = match kind {
            Kind::Rtmp(peer) => peer.answer(),
            Kind::Player(player) => player.answer(),
            _ => Bytes::new(),
        };
        viewers.watch(core, head, play, answer, &stream);
        Ok(Seat::Watching)
    }

    /// Makes a client the publisher of a stream over HTTP or WebSocket.
    fn push(&mut self, conn: &mut Conn, (request, grant): (Request, Grant), body: &[u8]) -> Next {
        match Push::begin(&mut self.core, &conn.head, &request, grant) {
            Ok((push, answer)) => {
                self.leave(conn, "it pushes");
                conn.kind = Kind::Push(Box::new(push));
                let next = match self.core.say(&mut conn.head, answer) {
                    Next::Stay => self.received(conn, body),
                    next => next,
                };
                // If the rest of the body has not come by now, it never will.
                match next {
                    Next::Stay if conn.head.finished && !conn.head.out.is_closed() => {
                        Next::close("the peer closed the connection")
                    }
                    next => next,
                }
            }
            Err(last) => self.core.say_last(&mut conn.head, last),
        }
    }

    /// Removes a connection from all tables.
    fn leave(&mut self, conn: &mut Conn, reason: &str) {
        let (core, head) = (&mut self.core, &mut conn.head);
        let viewers = &mut self.streams.viewers;
        match std::mem::replace(&mut conn.kind, Kind::Leaving { unsent: usize::MAX }) {
            Kind::Http(mut http) => http.closed(core, &mut self.web, head),
            Kind::Push(mut push) => {
                self.streams.publishers.give_up(core, head, &mut push.publication, reason);
            }
            Kind::Player(player) => {
                viewers.leave(core, head);
                viewers.forget(head, &player.play.key, player.seat);
            }
            Kind::Rtmp(mut peer) => peer.closed(core, &mut self.streams, head, reason),
            Kind::Link(link) => self.upstreams.closed(core, viewers, head, link, reason),
            Kind::Leaving { .. } => {}
        }
    }

    fn close(&mut self, mut conn: Conn, reason: &Reason, refused: bool) {
        let (sock, role) = (conn.head.sock, conn.head.role);
        let name = self.core.shared.roles[role].name;
        let tls_fault = self.core.net.tls_fault(sock).map(|fault| Reason::from(fault.to_string()));
        let reason = tls_fault.as_ref().unwrap_or(reason);
        if refused {
            self.core.counters[role].bad_peers.add(1);
            if self.core.may_log(LineKind::Protocol) {
                let peer = self.core.peer(sock);
                warn!(role = name, peer, %reason, "closed a connection that broke its protocol");
            }
        } else {
            debug!(role = name, peer = self.core.peer(sock), %reason, "connection closed");
        }
        self.leave(&mut conn, reason);
        let _ = self.core.account(&mut conn.head, 0);
        self.core.counters[role].connections.sub(1);
        self.conns.closed();
        self.core.no_deadline(sock);
        self.core.end_at(sock, None);
        self.core.net.close(sock);
    }

    /// The result of connecting to another server.
    pub(super) fn connected(&mut self, conn: &mut Conn, result: Result<(), rustix::io::Errno>) -> Next {
        match conn.kind {
            Kind::Link(link) => self.upstreams.connected(&mut self.core, &mut conn.head, link, result),
            _ => Next::close("it is not a connection that the server opens"),
        }
    }

    /// Bytes from a peer.
    pub(super) fn received(&mut self, conn: &mut Conn, data: &[u8]) -> Next {
        if conn.head.out.is_closed() {
            return Next::Stay; // after the final answer, whatever follows is ignored
        }
        if let Err(why) = self.core.learn_client(&mut conn.head) {
            return Reception::turn_away(&mut self.core, conn, why);
        }
        let (core, head) = (&mut self.core, &mut conn.head);
        if head.requires_tls && !core.net.is_secure(head.sock) {
            match &mut conn.kind {
                Kind::Http(http) => http.require_tls(),
                _ => return Next::refuse("it speaks plain RTMP where TLS is required"),
            }
        }
        match &mut conn.kind {
            Kind::Http(http) => http.received(core, &mut self.web, head, data),
            Kind::Push(push) => push.received(core, &mut self.streams.publishers, head, data),
            Kind::Player(player) => player.received(core, &mut self.streams.viewers, head, data),
            Kind::Rtmp(peer) => peer.received(core, &mut self.streams, head, data),
            Kind::Link(link) => self.upstreams.received(core, &mut self.streams.viewers, head, *link, data),
            Kind::Leaving { .. } => Next::Stay,
        }
    }

    /// The peer sends no more. A finite answer is still sent; a live stream or a wait ends.
    pub(super) fn finished(&mut self, conn: &mut Conn, error: Option<rustix::io::Errno>) -> Next {
        conn.head.finished = true;
        match (&mut conn.kind, error) {
            (_, Some(error)) => match self.core.net.header_fault(conn.head.sock) {
                Some(fault) => Next::refuse(fault.to_string()),
                None => Next::close(error.to_string()),
            },
            (Kind::Leaving { .. }, None) if self.core.net.unsent(conn.head.sock) > 0 => Next::Stay,
            (Kind::Leaving { .. }, None) => Next::close("the peer closed the connection"),
            (_, None) if conn.head.out.is_closed() => Next::Stay,
            (Kind::Http(http), None) => http.finished(&mut self.web, &conn.head),
            (_, None) => Next::close("the peer closed the connection"),
        }
    }

    /// A send has ended.
    pub(super) fn sent(&mut self, sock: Sock, result: Result<u32, SendError>) {
        if let Some(id) = self.conns.get(sock).and_then(|conn| conn.head.viewer) {
            let Core { net, counters, .. } = &mut self.core;
            return self.streams.viewers.fanout.sent(net, id, result, counters);
        }
        self.with(sock, |own, conn| {
            let (core, head) = (&mut own.core, &mut conn.head);
            match (&mut conn.kind, result) {
                (Kind::Http(http), result) if http.is_answering() => {
                    return http.sent(core, &mut own.web, head, result);
                }
                (_, Ok(bytes)) => {
                    head.out.sent(bytes as usize);
                    core.send_next(head);
                }
                (_, Err(SendError::Full)) => core.net.poll_writable(sock),
                (_, Err(SendError::Broken(error))) => return Next::close(error.to_string()),
            }
            Next::Stay
        });
    }

    /// A full socket has capacity again.
    pub(super) fn writable(&mut self, sock: Sock) {
        if let Some(id) = self.conns.get(sock).and_then(|conn| conn.head.viewer) {
            let Core { net, counters, .. } = &mut self.core;
            return self.streams.viewers.fanout.writable(net, id, counters);
        }
        self.with(sock, |own, conn| {
            match &mut conn.kind {
                Kind::Http(http) if http.is_answering() => {
                    http.writable(&mut own.core, &mut own.web, &conn.head);
                }
                _ => {
                    conn.head.out.writable();
                    own.core.send_next(&mut conn.head);
                }
            }
            Next::Stay
        });
    }

    /// Sends a client the next slice of its file; returns its length.
    pub(super) fn send_slice(&mut self, sock: Sock) -> u64 {
        let mut bytes = 0;
        self.with(sock, |own, conn| {
            if let Kind::Http(http) = &mut conn.kind {
                bytes = http.send_slice(&mut own.core, &conn.head).into();
            }
            Next::Stay
        });
        bytes
    }

    /// A connection's deadline has passed.
    pub(super) fn deadline(&mut self, conn: &mut Conn) -> Next {
        let (core, head) = (&mut self.core, &mut conn.head);
        match &mut conn.kind {
            Kind::Leaving { unsent } => {
                let before = std::mem::replace(unsent, core.net.unsent(head.sock));
                match *unsent {
                    0 => return Next::close("it was answered"),
                    left if left >= before => return Next::close("it does not take its answer"),
                    _ => {}
                }
                core.deadline(head.sock, core.send_time());
                Next::Stay
            }
            _ if head.out.is_closed() => Next::close("it does not take its answer"),
            Kind::Http(http) => http.deadline(core, &mut self.web, head),
            Kind::Push(push) => push.deadline(core, &mut self.streams.publishers, head),
            Kind::Player(player) => player.deadline(core, &mut self.streams.viewers, head),
            Kind::Rtmp(peer) => peer.deadline(core, &mut self.streams, head),
            Kind::Link(_) => Next::Stay,
        }
    }

    /// The end that a connection's token tells has come.
    pub(super) fn expired(&mut self, conn: &mut Conn) -> Next {
        let (core, head) = (&mut self.core, &mut conn.head);
        if head.out.is_closed() {
            return Next::Stay;
        }
        match &mut conn.kind {
            Kind::Push(push) => push.dismiss(core, &mut self.streams.publishers, head, 403, EXPIRED),
            Kind::Player(player) => player.expired(core, &mut self.streams.viewers, head),
            Kind::Rtmp(peer) => peer.expired(core, &mut self.streams, head),
            Kind::Http(_) | Kind::Link(_) | Kind::Leaving { .. } => Next::Stay,
        }
    }

    /// The fan-out has removed a viewer.
    pub(super) fn farewell(&mut self, sock: Sock, farewell: Farewell) {
        self.with(sock, |own, conn| {
            let (core, head) = (&mut own.core, &mut conn.head);
            core.counters[head.role].farewell(farewell);
            match &mut conn.kind {
                Kind::Player(player) => player.farewell(core, &mut own.streams.viewers, head, farewell),
                Kind::Rtmp(peer) => peer.farewell(core, &mut own.streams, head, farewell),
                Kind::Link(link) => {
                    own.upstreams.farewell(core, &mut own.streams.viewers, head, *link, farewell)
                }
                Kind::Http(_) | Kind::Push(_) | Kind::Leaving { .. } => Next::close(farewell.to_string()),
            }
        });
    }

    /// A stream has been published: the connections that wait for it become viewers.
    pub(super) fn stream_came(&mut self, role: usize, stream: &Arc<Stream>) {
        for sock in self.streams.viewers.take_waiting(role, &stream.key) {
            self.with(sock, |_, conn| match &mut conn.kind {
                Kind::Player(player) => {
                    player.seat = Seat::Pending;
                    Next::Play(Box::new(player.play.clone()))
                }
                Kind::Rtmp(peer) => peer.called(),
                _ => Next::Stay,
            });
        }
        self.upstreams.forward(&mut self.core, role, stream);
    }

    /// A stream is over: its viewers, and those that have paused it, are notified.
    pub(super) fn stream_ended(&mut self, role: usize, stream: &Stream, status: u16) {
        self.streams.viewers.fanout.stream_ended(stream.id, status, self.core.now());
        for sock in self.streams.viewers.take_paused(role, &stream.key) {
            self.with(sock, |own, conn| match &mut conn.kind {
                Kind::Rtmp(peer) => peer.paused_stream_ended(&mut own.core, &mut conn.head),
                _ => Next::Stay,
            });
        }
    }

    /// Messages were lost: checks for everything that they may have announced.
    pub(super) fn look_again(&mut self) {
        let shared = Arc::clone(&self.core.shared);
        for (role, key) in self.streams.viewers.awaited() {
            if let Some(stream) = shared.roles[role].directory.get(&key) {
                self.stream_came(role, &stream);
            }
        }
        for (role, key) in self.streams.publishers.claimed() {
            if let Some(stream) = shared.roles[role].directory.get(&key) {
                self.stream_given_up(role, &stream);
            }
        }
        let watched: Vec<_> = self
            .streams
            .viewers
            .fanout
            .views(None)
            .map(|view| (view.role, Arc::clone(&view.stream)))
            .collect();
        for (role, stream) in watched {
            self.core.news.push(stream.id);
            if stream.has_ended() {
                self.stream_ended(role, &stream, 404);
            }
        }
        self.core.tasks.extend(self.web.responder.take_listing().into_iter().map(Task::AskAgain));
    }

    /// A stream has been given up: publishers of this loop that wait for it claim it again.
    pub(super) fn stream_given_up(&mut self, role: usize, stream: &Stream) {
        for sock in self.streams.publishers.take_claimants(role, &stream.key) {
            self.with(sock, |own, conn| {
                let (core, head) = (&mut own.core, &mut conn.head);
                match &mut conn.kind {
                    Kind::Push(push) => push.claim_again(core, &mut own.streams.publishers, head),
                    Kind::Rtmp(peer) => peer.claim_again(core, &mut own.streams, head),
                    _ => Next::Stay,
                }
            });
        }
    }

    /// Ends the publisher of a stream, if it is one of this loop's.
    pub(super) fn dismiss_publisher(&mut self, stream: u64, status: u16, reason: &str) -> bool {
        let Some(sock) = self.streams.publishers.writer_of(stream) else { return false };
        self.with(sock, |own, conn| {
            let (core, head) = (&mut own.core, &mut conn.head);
            match &mut conn.kind {
                Kind::Push(push) => push.dismiss(core, &mut own.streams.publishers, head, status, reason),
                Kind::Rtmp(peer) => peer.dismiss(core, &mut own.streams, head, reason),
                _ => Next::Stay,
            }
        });
        true
    }

    /// Memory is short: the streams that are written here keep less.
    pub(super) fn shorten(&mut self) {
        for sock in self.streams.publishers.writers() {
            self.with(sock, |own, conn| {
                let publication = match &mut conn.kind {
                    Kind::Push(push) => &mut push.publication,
                    Kind::Rtmp(peer) => &mut peer.publication,
                    _ => return Next::Stay,
                };
                if let Some(writer) = &mut publication.writer {
                    writer.shorten();
                    own.core.announce(writer);
                }
                Next::Stay
            });
        }
        self.upstreams.shorten(&mut self.core);
    }

    /// The server is shutting down: idle clients are disconnected.
    pub(super) fn drain(&mut self) {
        let idle = |conn: &&Conn| matches!(&conn.kind, Kind::Http(http) if http.is_idle());
        for sock in self.conns.iter().filter(idle).map(|conn| conn.head.sock).collect::<Vec<_>>() {
            self.with(sock, |own, conn| match &mut conn.kind {
                Kind::Http(http) => http.drain(&mut own.core, &mut conn.head),
                _ => Next::Stay,
            });
        }
    }
}
