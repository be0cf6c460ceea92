//! One loop: takes events from the engine and messages from the others, hands them to the handlers of the
//! connections, flushes the fan-out, and looks after time. The one place that knows what a connection is.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use tracing::{debug, info, warn};

use super::conn::{Conn, Kind};
use super::conns::Conns;
use super::core::{Core, LEAVE, Task};
use super::files::store::Files;
use super::head::{ConnHead, Next, Reason};
use super::http::connection::{self, Connection, SERVER_FULL};
use super::http::responder::Responder;
use super::limits::Refused;
use super::listener::{Capacity, Listener, Speaks};
use super::log_limit::LineKind;
use super::publishers::claim::Publishers;
use super::publishers::clip::Clips;
use super::publishers::push::Push;
use super::rtmp::{self, Peer};
use super::shared::{Message, Shared, millis};
use super::upstreams::links::Upstreams;
use super::viewers::audience::{Seat, Viewers};
use super::viewers::fanout::SLICE;
use super::viewers::listing::Kick;
use super::viewers::pace::Pace;
use super::viewers::play::Play;
use super::viewers::player::Player;
use crate::live::key::StreamKey;
use crate::live::stream::Stream;
use crate::protocol::http::error_page;
use crate::protocol::http::request::{Request, RequestLimits};
use crate::uring::mailbox::Mailbox;
use crate::uring::{Engine, Event, Millis, SendError, Sock};

/// Events handled before the fan-out has its turn.
const EVENTS_A_TURN: usize = 4096;
/// Bytes of files that a loop sends before it looks at its other work.
const FILE_BYTES_A_TURN: u64 = 4 << 20;
/// The distance of sweeps.
const SWEEP: Millis = 100;
/// The distance of looks for viewers whose sockets stay full: each looks at all viewers.
const STALL_SWEEP: Millis = 1_000;

/// One loop.
pub(super) struct Worker<E: Engine> {
    core: Core<E>,
    conns: Conns,
    pub(super) viewers: Viewers,
    publishers: Publishers,
    upstreams: Upstreams,
    responder: Responder,
    files: Files,
    pub(super) clips: Clips,
    pace: Pace,
    listeners: Vec<Listener>,
    mail: Mailbox<Message>,
    resting: Vec<u32>,
    next_sweep: Millis,
    next_stall_sweep: Millis,
    capacity: Capacity,
    stop: bool,
}

impl<E: Engine> Worker<E> {
    pub(super) fn new(
        engine: E,
        index: usize,
        shared: Arc<Shared>,
        listeners: Vec<Listener>,
        mail: Mailbox<Message>,
        capacity: Capacity,
    ) -> Self {
        Self {
            responder: Responder::new(&shared),
            pace: Pace::new(millis(shared.config.live.flush_max)),
            core: Core::new(engine, index, shared),
            conns: Conns::default(),
            viewers: Viewers::new(SLICE),
            publishers: Publishers::default(),
            upstreams: Upstreams::default(),
            files: Files::new(capacity.files),
            clips: Clips::default(),
            listeners,
            mail,
            resting: Vec::new(),
            next_sweep: 0,
            next_stall_sweep: 0,
            capacity,
            stop: false,
        }
    }

    /// Publishes the demo's clip under `key`.
    pub(super) fn publish_clip(&mut self, role: usize, key: &StreamKey) {
        self.clips.publish(&mut self.core, role, key);
    }

    /// Runs until it is told to stop, or has drained.
    pub(super) fn run(&mut self) {
        while !self.is_done() {
            self.turn();
        }
        // Others may drain for long yet: a loop that has ended does not hang.
        self.core.shared.beats[self.core.index].store(Millis::MAX, Ordering::Relaxed);
        self.hand_over();
    }

    /// Whether it was told to stop, or to drain and no connection is left.
    pub(super) fn is_done(&self) -> bool {
        self.stop || (self.conns.open() == 0 && self.core.is_draining())
    }

    /// When there is something to do, whatever comes in before.
    pub(super) fn next_deadline(&self) -> Option<Millis> {
        let files = self.responder.is_ready().then_some(0);
        let deadlines = [Some(self.next_sweep), self.viewers.fanout.next_flush(), self.clips.next(), files];
        deadlines.into_iter().flatten().min()
    }

    /// Waits for something to do and does it.
    pub(super) fn turn(&mut self) {
        let until = self.next_deadline();
        self.core.net.wait(until);
        for _ in 0..EVENTS_A_TURN {
            let Some(event) = self.core.net.next_event() else { break };
            self.on_event(event);
            self.do_tasks();
        }
        for _ in 0..EVENTS_A_TURN {
            let Some(message) = self.mail.take() else { break };
            self.on_message(message);
            self.do_tasks();
        }
        self.clips.play(&mut self.core);
        self.tell_news();
        self.keep_pace();
        self.viewers.fanout.flush(&mut self.core.net, &self.core.counters);
        self.send_files();
        if self.core.now() >= self.next_sweep {
            self.sweep();
        }
        while let Some((id, sock, farewell)) = self.viewers.fanout.next_leaving() {
            self.with(sock, |worker, conn| {
                debug_assert_eq!(conn.head.viewer, Some(id));
                worker.core.counters[conn.head.role].farewell(farewell);
                let (core, head) = (&mut worker.core, &mut conn.head);
                let viewers = &mut worker.viewers;
                match &mut conn.kind {
                    Kind::Player(player) => player.farewell(core, viewers, head, farewell),
                    Kind::Rtmp(peer) => {
                        let publishers = &mut worker.publishers;
                        peer.farewell(core, &mut rtmp::Tables { publishers, viewers }, head, farewell)
                    }
                    Kind::Link(link) => worker.upstreams.farewell(core, viewers, head, *link, farewell),
                    Kind::Http(_) | Kind::Push(_) | Kind::Leaving => Next::close(farewell.to_string()),
                }
            });
            self.do_tasks();
        }
    }

    /// Widens the windows when time runs short, and narrows them again.
    fn keep_pace(&mut self) {
        let now = self.core.now();
        if self.pace.is_due(now) {
            let floor = self.pace.look(now, self.core.net.cpu_time());
            self.viewers.fanout.set_floor(floor);
            self.core.shared.floors[self.core.index].store(floor, Ordering::Relaxed);
        }
    }

    fn tell_news(&mut self) {
        let now = self.core.now();
        for stream in self.core.news.drain(..) {
            self.viewers.fanout.news(stream, now);
        }
    }

    /// Does what handlers wanted done with other connections.
    fn do_tasks(&mut self) {
        while let Some(task) = self.core.tasks.pop() {
            match task {
                Task::Close(sock, reason) => self.with(sock, |_, _| Next::Close(reason)),
                Task::Opened(head, link) => self.add(head, Kind::Link(link)),
                Task::AskAgain(sock) => self.with(sock, |worker, conn| {
                    let Kind::Http(http) = &mut conn.kind else { return Next::Stay };
                    let mut tables =
                        connection::Tables { responder: &mut worker.responder, files: &mut worker.files };
                    http.ask_again(&mut worker.core, &mut tables, &mut conn.head)
                }),
            }
        }
    }

    fn on_event(&mut self, event: Event<E::Buf>) {
        match event {
            Event::Accepted { listener, sock } => self.on_accepted(listener, sock),
            Event::AcceptFailed { listener, error } => self.on_accept_failed(listener, error),
            Event::Connected { sock, result } => self.with(sock, |worker, conn| match conn.kind {
                Kind::Link(link) => {
                    worker.upstreams.connected(&mut worker.core, &mut conn.head, link, result)
                }
                _ => Next::close("it was not to be connected"),
            }),
            Event::Received { sock, data } => {
                let data = self.core.net.received(sock, &data);
                self.with(sock, |worker, conn| worker.on_received(conn, &data));
            }
            Event::Finished { sock, error } => {
                self.with(sock, |worker, conn| on_finished(worker, conn, error))
            }
            Event::Sent { sock, result } => {
                if let Some(result) = self.core.net.sent(sock, result) {
                    self.on_sent(sock, result);
                }
            }
            Event::Writable { sock } => self.on_writable(sock),
            Event::Opened { ticket, result } => self.files.opened(&mut self.core, ticket, result),
            Event::Loaded { ticket, result } => self.files.loaded(&mut self.core, ticket, result),
            Event::Closed { .. } | Event::Woken => {}
        }
    }

    fn on_message(&mut self, message: Message) {
        match message {
            Message::News(stream) => self.viewers.fanout.news(stream, self.core.now()),
            Message::Published { role, stream } => self.on_published(role, &stream),
            Message::Ended { role, stream, status } => self.on_ended(role, &stream, status),
            Message::Fetched { role, path, outcome } => {
                self.files.fetched(&mut self.core, role, &path, outcome);
            }
            Message::GiveUp { role, stream } => {
                // It may be too late: the other one may have been given it meanwhile, and be here itself.
                if self.core.role(role).directory.is_wanted(&stream) {
                    let reason = "another publisher has taken the stream over";
                    self.dismiss_publisher(stream.id, 409, reason);
                }
            }
            Message::GivenUp { role, stream } => self.on_given_up(role, &stream),
            Message::Viewers(query, reply) => {
                let conns = &self.conns;
                let is_forward = |sock| matches!(conns.get(sock), Some(Conn { kind: Kind::Link(_), .. }));
                let _ = reply.send(self.viewers.list(&self.core, &query, is_forward));
            }
            Message::Kick(sock, reply) => {
                let _ = reply.send(match self.conns.get(sock) {
                    Some(Conn { kind: Kind::Link(_), .. }) => Kick::Forward,
                    Some(conn) => self.viewers.kick(&mut self.core, &conn.head),
                    None => Kick::Gone,
                });
            }
            Message::KickPublisher(stream, reply) => {
                let _ = reply.send(self.dismiss_publisher(stream, 403, "an operator has ended it"));
            }
            // Nothing waits for a listing yet.
            Message::Listed => {
                self.core.tasks.extend(self.responder.take_listing().into_iter().map(Task::AskAgain));
            }
            Message::Shorten => self.shorten(),
            Message::Drain => self.drain(),
            Message::Stop => self.stop = true,
        }
    }

    /// A stream has come: those who wait for it watch.
    fn on_published(&mut self, role: usize, stream: &Arc<Stream>) {
        for sock in self.viewers.take_waiting(role, &stream.key) {
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

    /// A stream is over: its viewers, and those who have paused it, are told so.
    fn on_ended(&mut self, role: usize, stream: &Stream, status: u16) {
        self.viewers.fanout.stream_ended(stream.id, status, self.core.now());
        for sock in self.viewers.take_paused(role, &stream.key) {
            self.with(sock, |worker, conn| match &mut conn.kind {
                Kind::Rtmp(peer) => peer.paused_stream_ended(&mut worker.core, &mut conn.head),
                _ => Next::Stay,
            });
        }
    }

    /// A stream has been given up: those of this loop that wait for it claim it again.
    fn on_given_up(&mut self, role: usize, stream: &Stream) {
        for sock in self.publishers.take_claimants(role, &stream.key) {
            self.with(sock, |worker, conn| {
                let (core, head, publishers) = (&mut worker.core, &mut conn.head, &mut worker.publishers);
                match &mut conn.kind {
                    Kind::Push(push) => push.claim_again(core, publishers, head),
                    Kind::Rtmp(peer) => {
                        let viewers = &mut worker.viewers;
                        peer.claim_again(core, &mut rtmp::Tables { publishers, viewers }, head)
                    }
                    _ => Next::Stay,
                }
            });
        }
    }

    /// Takes a stream from its publisher, if that is one of this loop.
    fn dismiss_publisher(&mut self, stream: u64, status: u16, reason: &str) -> bool {
        let Some(sock) = self.publishers.writer_of(stream) else { return false };
        self.with(sock, |worker, conn| {
            let (core, head, publishers) = (&mut worker.core, &mut conn.head, &mut worker.publishers);
            match &mut conn.kind {
                Kind::Push(push) => push.dismiss(core, publishers, head, status, reason),
                Kind::Rtmp(peer) => {
                    let viewers = &mut worker.viewers;
                    peer.dismiss(core, &mut rtmp::Tables { publishers, viewers }, head, reason)
                }
                _ => Next::Stay,
            }
        });
        true
    }

    fn on_accepted(&mut self, listener: u32, sock: Sock) {
        let Listener { role, speaks, .. } = self.listeners[listener as usize];
        self.core.counters[role].accepted.add(1);
        let limits = RequestLimits::new(self.core.shared.config.limits.request_head);
        let kind = match speaks {
            Speaks::Rtmp => Kind::Rtmp(Box::new(Peer::new(&self.core.shared.config))),
            Speaks::Http(routes) => Kind::Http(Box::new(Connection::new(routes, limits))),
        };
        let mut head = ConnHead::new(sock, role);
        head.address = self.core.net.peer(sock).map(|peer| peer.ip().to_canonical());
        head.reserved = self.conns.open() + self.capacity.reserve >= self.capacity.connections;
        let admitted = self.core.admit(&mut head);
        self.add(head, kind);
        self.core.deadline(sock, self.core.request_time());
        if let Err(why) = admitted {
            self.turn_away(sock, why);
        } else if self.conns.open() > self.capacity.connections {
            self.make_way(sock);
        }
    }

    /// The loop is full: the idlest client goes, or the newcomer if there is none.
    fn make_way(&mut self, newcomer: Sock) {
        let idle = self.conns.find_idle(|conn| {
            conn.head.sock != newcomer && matches!(&conn.kind, Kind::Http(http) if http.is_idle())
        });
        if let Some(sock) = idle {
            return self.with(sock, |_, _| Next::close("its place was needed"));
        }
        self.turn_away(newcomer, Refused::Full);
    }

    /// Tells a client that it cannot be served: better than to let it wait.
    fn turn_away(&mut self, sock: Sock, why: Refused) {
        self.with(sock, |worker, conn| {
            worker.core.counters[conn.head.role].turned_away.add(1);
            worker.core.count_refusal(conn.head.role, why);
            if matches!(conn.kind, Kind::Rtmp(_)) {
                return Next::close(why.to_string());
            }
            let message = if why == Refused::Full { SERVER_FULL.to_owned() } else { why.to_string() };
            worker.core.say_last(&mut conn.head, error_page(why.status(), &message, false, false).into())
        });
    }

    fn on_accept_failed(&mut self, listener: u32, error: rustix::io::Errno) {
        let role = self.listeners[listener as usize].role;
        self.core.counters[role].accept_failures.add(1);
        let role = self.core.role(role).name;
        warn!(role, %error, "cannot accept for now; raise the descriptor limit if this stays");
        self.resting.push(listener);
    }

    /// Takes no new connections; clients that ask for nothing are let go.
    fn drain(&mut self) {
        self.core.net.stop_accept();
        let idle = |conn: &&Conn| matches!(&conn.kind, Kind::Http(http) if http.is_idle());
        for sock in self.conns.iter().filter(idle).map(|conn| conn.head.sock).collect::<Vec<_>>() {
            self.with(sock, |worker, conn| match &mut conn.kind {
                Kind::Http(http) => http.drain(&mut worker.core, &mut conn.head),
                _ => Next::Stay,
            });
        }
    }

    /// Lists a connection.
    fn add(&mut self, head: ConnHead, kind: Kind) {
        self.core.counters[head.role].connections.add(1);
        self.conns.add(Conn { head, kind });
    }

    /// Hands a connection to a handler and does what it decides.
    fn with(&mut self, sock: Sock, handler: impl FnOnce(&mut Self, &mut Conn) -> Next) {
        let Some(mut conn) = self.conns.take(sock) else { return };
        let mut next = handler(self, &mut conn);
        loop {
            next = match next {
                Next::Stay => match self.settle(&mut conn) {
                    Some(next) => next,
                    None => {
                        let held = conn.held();
                        if self.core.account(&mut conn.head, held) {
                            break self.conns.put_back(conn);
                        }
                        self.core.count_refusal(conn.head.role, Refused::Memory);
                        Next::close(Refused::Memory.to_string())
                    }
                },
                Next::Play(play) => self.play(&mut conn, *play),
                Next::Push(request, body) => self.push(&mut conn, &request, &body),
                Next::Close(reason) => break self.close(conn, &reason, false),
                Next::Refuse(reason) => break self.close(conn, &reason, true),
            };
        }
    }

    /// What follows by itself from how a connection stands now.
    fn settle(&mut self, conn: &mut Conn) -> Option<Next> {
        let head = &mut conn.head;
        if !head.out.is_empty() || head.viewer.is_some() {
            return None;
        }
        if head.out.is_closed() && !matches!(conn.kind, Kind::Leaving) {
            self.leave(conn, "it has had its last words");
            self.core.net.shutdown_write(conn.head.sock);
            self.core.deadline(conn.head.sock, LEAVE);
            return None;
        }
        let pending = match &mut conn.kind {
            Kind::Player(player) if player.seat == Seat::Pending => Some(player.play.clone()),
            Kind::Rtmp(peer) => peer.pending().cloned(),
            Kind::Link(link) => {
                self.upstreams.drained(&mut self.core, &mut self.viewers, head, *link);
                None
            }
            _ => None,
        };
        let since = self.core.now();
        pending.map(|play| Next::Play(Box::new(Play { since, ..play })))
    }

    /// Puts a connection on its stream, or lets it wait for one.
    fn play(&mut self, conn: &mut Conn, play: Play) -> Next {
        if matches!(conn.kind, Kind::Http(_)) {
            self.leave(conn, "it plays");
            conn.kind = Kind::Player(Box::new(Player::new(play.clone())));
        }
        let head = &mut conn.head;
        let seat = if head.out.is_empty() {
            let directory = &self.core.role(head.role).directory;
            let stream = directory.get(&play.key);
            let stream = stream.or_else(|| self.upstreams.pull(&mut self.core, head.role, &play.key));
            match stream.filter(|stream| !stream.has_ended()) {
                Some(stream) => {
                    let answer = match &mut conn.kind {
                        Kind::Player(player) => player.answer(),
                        Kind::Rtmp(peer) => peer.answer(),
                        _ => return Next::close("it does not play"),
                    };
                    self.viewers.watch(&mut self.core, head, &play, answer, &stream);
                    Seat::Watching
                }
                None => match self.viewers.wait(&mut self.core, head, &play) {
                    Ok(ticket) => Seat::Waiting(ticket),
                    Err(why) => {
                        self.core.count_refusal(head.role, why);
                        return match &mut conn.kind {
                            Kind::Player(player) => player.turn_away(&mut self.core, head, why),
                            Kind::Rtmp(peer) => peer.turn_away(&mut self.core, head, why),
                            _ => Next::close(why.to_string()),
                        };
                    }
                },
            }
        } else {
            // What was said before is under way, and the fan-out wants the socket for itself: `settle` goes on.
            self.core.deadline(head.sock, self.core.request_time());
            Seat::Pending
        };
        match &mut conn.kind {
            Kind::Player(player) => player.seat = seat,
            Kind::Rtmp(peer) => {
                peer.sit(play, seat);
                let (publishers, viewers) = (&mut self.publishers, &mut self.viewers);
                return peer.events(&mut self.core, &mut rtmp::Tables { publishers, viewers }, head);
            }
            _ => {}
        }
        Next::Stay
    }

    /// A client begins to push a stream.
    fn push(&mut self, conn: &mut Conn, request: &Request, body: &[u8]) -> Next {
        match Push::begin(&mut self.core, &conn.head, request) {
            Ok((push, answer)) => {
                self.leave(conn, "it pushes");
                conn.kind = Kind::Push(Box::new(push));
                match self.core.say(&mut conn.head, answer) {
                    Next::Stay => self.on_received(conn, body),
                    next => next,
                }
            }
            Err(last) => self.core.say_last(&mut conn.head, last),
        }
    }

    /// Takes a connection out of all tables; it is nothing any more.
    fn leave(&mut self, conn: &mut Conn, reason: &str) {
        let (core, head) = (&mut self.core, &mut conn.head);
        let (publishers, viewers) = (&mut self.publishers, &mut self.viewers);
        match std::mem::replace(&mut conn.kind, Kind::Leaving) {
            Kind::Http(mut http) => {
                let mut tables =
                    connection::Tables { responder: &mut self.responder, files: &mut self.files };
                http.closed(core, &mut tables, head);
            }
            Kind::Push(mut push) => publishers.give_up(core, head, &mut push.publication, reason),
            Kind::Player(player) => {
                viewers.leave(core, head);
                viewers.forget(head, &player.play.key, player.seat);
            }
            Kind::Rtmp(mut peer) => {
                peer.closed(core, &mut rtmp::Tables { publishers, viewers }, head, reason);
            }
            Kind::Link(link) => self.upstreams.closed(core, viewers, head, link, reason),
            Kind::Leaving => {}
        }
    }

    fn close(&mut self, mut conn: Conn, reason: &Reason, refused: bool) {
        let (sock, role) = (conn.head.sock, conn.head.role);
        let name = self.core.shared.roles[role].name;
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
        self.core.net.close(sock);
    }

    fn on_received(&mut self, conn: &mut Conn, data: &[u8]) -> Next {
        if conn.head.out.is_closed() {
            return Next::Stay; // it has had its last words; what follows means nothing
        }
        let (core, head) = (&mut self.core, &mut conn.head);
        let (publishers, viewers) = (&mut self.publishers, &mut self.viewers);
        match &mut conn.kind {
            Kind::Http(http) => {
                let mut tables =
                    connection::Tables { responder: &mut self.responder, files: &mut self.files };
                http.received(core, &mut tables, head, data)
            }
            Kind::Push(push) => push.received(core, publishers, head, data),
            Kind::Player(player) => player.received(core, viewers, head, data),
            Kind::Rtmp(peer) => peer.received(core, &mut rtmp::Tables { publishers, viewers }, head, data),
            Kind::Link(link) => self.upstreams.received(core, viewers, head, *link, data),
            Kind::Leaving => Next::Stay,
        }
    }

    fn on_sent(&mut self, sock: Sock, result: Result<u32, SendError>) {
        if let Some(id) = self.conns.get(sock).and_then(|conn| conn.head.viewer) {
            return self.viewers.fanout.sent(&mut self.core.net, id, result, &self.core.counters);
        }
        self.with(sock, |worker, conn| {
            let (core, head) = (&mut worker.core, &mut conn.head);
            match (&mut conn.kind, result) {
                (Kind::Http(http), result) if http.is_answering() => {
                    let mut tables =
                        connection::Tables { responder: &mut worker.responder, files: &mut worker.files };
                    return http.sent(core, &mut tables, head, result);
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

    fn on_writable(&mut self, sock: Sock) {
        if let Some(id) = self.conns.get(sock).and_then(|conn| conn.head.viewer) {
            return self.viewers.fanout.writable(&mut self.core.net, id, &self.core.counters);
        }
        self.with(sock, |worker, conn| {
            match &mut conn.kind {
                Kind::Http(http) if http.is_answering() => {
                    let mut tables =
                        connection::Tables { responder: &mut worker.responder, files: &mut worker.files };
                    http.writable(&mut worker.core, &mut tables, &conn.head);
                }
                _ => {
                    conn.head.out.writable();
                    worker.core.send_next(&mut conn.head);
                }
            }
            Next::Stay
        });
    }

    /// Sends slices of files to those who can take them, in turn.
    fn send_files(&mut self) {
        let mut bytes = 0;
        while bytes < FILE_BYTES_A_TURN {
            let Some(sock) = self.responder.next_turn() else { return };
            self.with(sock, |worker, conn| {
                if let Kind::Http(http) = &mut conn.kind {
                    bytes += u64::from(http.send_slice(&mut worker.core, &conn.head));
                }
                Next::Stay
            });
        }
    }

    fn sweep(&mut self) {
        let now = self.core.now();
        self.next_sweep = now + SWEEP;
        self.core.shared.beats[self.core.index].store(now, Ordering::Relaxed);
        for listener in std::mem::take(&mut self.resting) {
            self.core.net.resume_accept(listener);
        }
        for place in self.core.take_due() {
            let Some(sock) = self.conns.at(place) else { continue };
            self.with(sock, Self::on_deadline);
        }
        if now >= self.next_stall_sweep {
            self.next_stall_sweep = now + STALL_SWEEP;
            let queued =
                self.viewers.fanout.sweep(&mut self.core.net, now, self.core.shared.budget.is_tight());
            let own = &self.core.shared.budget.loops[self.core.index];
            own.kernel.store(queued, Ordering::Relaxed);
            own.greetings.store(self.viewers.fanout.greeting_bytes(), Ordering::Relaxed);
            self.core.lines.settle(now);
        }
        self.upstreams.sweep(&mut self.core);
        self.hand_over();
        self.do_tasks();
        if self.core.index == 0 {
            self.expire_streams(now);
            if self.core.shared.budget.adjust(self.core.shared.streams()).is_some() {
                self.core.shared.tell_all(|| Message::Shorten);
            }
        }
    }

    /// Memory is short: the streams that are written here keep less.
    fn shorten(&mut self) {
        for sock in self.publishers.writers() {
            self.with(sock, |worker, conn| {
                let publication = match &mut conn.kind {
                    Kind::Push(push) => &mut push.publication,
                    Kind::Rtmp(peer) => &mut peer.publication,
                    _ => return Next::Stay,
                };
                if let Some(writer) = &mut publication.writer {
                    writer.shorten();
                    worker.core.announce(writer);
                }
                Next::Stay
            });
        }
        self.upstreams.shorten(&mut self.core);
        if self.core.index == 0 {
            self.core.shared.roles.iter().for_each(|role| role.directory.shorten_parked());
        }
    }

    /// Hands over what was gathered for others: notes of viewers, lines of the access log.
    fn hand_over(&mut self) {
        self.files.sweep(&mut self.core);
        let lost = self.responder.flush_log();
        self.core.counters[0].files.lost_lines.add(lost);
    }

    fn on_deadline(&mut self, conn: &mut Conn) -> Next {
        let (core, head) = (&mut self.core, &mut conn.head);
        let (publishers, viewers) = (&mut self.publishers, &mut self.viewers);
        match &mut conn.kind {
            Kind::Leaving => Next::close("it was answered"),
            _ if head.out.is_closed() => Next::close("it does not take its answer"),
            Kind::Http(http) => {
                let mut tables =
                    connection::Tables { responder: &mut self.responder, files: &mut self.files };
                http.deadline(core, &mut tables, head)
            }
            Kind::Push(push) => push.deadline(core, publishers, head),
            Kind::Player(player) => player.deadline(core, viewers, head),
            Kind::Rtmp(peer) => peer.deadline(core, &mut rtmp::Tables { publishers, viewers }, head),
            Kind::Link(_) => Next::Stay,
        }
    }

    fn expire_streams(&mut self, now: Millis) {
        for (role, state) in self.core.shared.roles.iter().enumerate() {
            for stream in state.directory.expire(now) {
                info!(
                    role = state.name,
                    stream = stream.key.as_str(),
                    "stream ended: no publisher came back"
                );
                let ended = || Message::Ended { role, stream: Arc::clone(&stream), status: 404 };
                self.core.shared.tell_all(ended);
            }
        }
    }
}

/// The peer sends no more. What is finite is still answered, and a live stream or a wait ends.
fn on_finished<E: Engine>(worker: &mut Worker<E>, conn: &mut Conn, error: Option<rustix::io::Errno>) -> Next {
    match (&mut conn.kind, error) {
        (_, Some(error)) => Next::close(error.to_string()),
        (Kind::Leaving, None) => Next::close("the peer hung up"),
        (_, None) if conn.head.out.is_closed() => Next::Stay,
        (Kind::Http(http), None) => http.finished(&mut worker.files, &conn.head),
        (_, None) => Next::close("the peer hung up"),
    }
}
