//! One loop: takes events from the engine and messages from the others, hands them to the handlers of the
//! connections, flushes the fan-out, and looks after time.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use tracing::{debug, info, warn};

use super::clip::Clip;
use super::conn::{Conn, Fate, Kind};
use super::counters::RoleCounters;
use super::fanout::{Fanout, SLICE, ViewerId};
use super::files::{Client, Files};
use super::pace::Pace;
use super::publish::Publisher;
use super::pull::Pulls;
use super::relay::Relays;
use super::rtmp::RtmpPeer;
use super::shared::{Message, Phase, RoleState, Shared, millis};
use super::viewer::Farewell;
use crate::live::key::StreamKey;
use crate::live::stream::{Stream, StreamWriter};
use crate::protocol::http::error_page;
use crate::protocol::http::request::{RequestLimits, RequestReader};
use crate::uring::mailbox::Mailbox;
use crate::uring::{Engine, Event, Millis, Payload, SendError, Sock};

/// What a listener is for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Door {
    /// The role.
    pub(super) role: usize,
    /// What is spoken there.
    pub(super) speaks: Speaks,
}

/// What is spoken at a listener.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Speaks {
    /// RTMP.
    Rtmp,
    /// HTTP: streams.
    Http,
    /// HTTP: pages and files.
    Files,
}

/// What a loop may hold.
#[derive(Clone, Copy, Debug)]
pub(super) struct Room {
    /// Connections; further ones are told that it is full.
    pub(super) connections: usize,
    /// Open files that it keeps for the next who asks.
    pub(super) files: usize,
}

/// Events handled before the fan-out has its turn.
const EVENTS_A_TURN: usize = 4096;
/// The distance of sweeps.
const SWEEP: Millis = 100;
/// The distance of looks for viewers whose sockets stay full: each looks at all viewers.
const STALL_SWEEP: Millis = 1_000;
/// How long a peer may take to read our last words and hang up.
pub(super) const LEAVE: Millis = 2_000;
/// No deadline.
const NEVER: Millis = Millis::MAX;

/// One loop.
pub(super) struct Worker<E: Engine> {
    pub(super) engine: E,
    pub(super) index: usize,
    pub(super) shared: Arc<Shared>,
    pub(super) counters: Arc<[RoleCounters]>,
    pub(super) fanout: Fanout,
    pace: Pace,
    pub(super) pulls: Pulls,
    pub(super) relays: Relays,
    pub(super) files: Files,
    /// Connections that wait for a stream, by role and key.
    pub(super) waiting: HashMap<(usize, StreamKey), Vec<Sock>>,
    /// RTMP viewers that have paused.
    pub(super) paused: Vec<Sock>,
    /// Publishers that wait for another one to give its stream up.
    pub(super) claimants: Vec<Sock>,
    pub(super) clips: Vec<Clip>,
    doors: Vec<Door>,
    mail: Mailbox<Message>,
    pub(super) conns: Vec<Option<Conn>>,
    deadlines: Vec<Millis>,
    open: usize,
    resting: Vec<u32>,
    next_sweep: Millis,
    next_stall_sweep: Millis,
    room: Room,
    stop: bool,
}

impl<E: Engine> Worker<E> {
    pub(super) fn new(
        engine: E,
        index: usize,
        shared: Arc<Shared>,
        doors: Vec<Door>,
        mail: Mailbox<Message>,
        room: Room,
    ) -> Self {
        let counters = Arc::clone(&shared.counters[index]);
        let files = Files::new(&shared, room.files);
        let pace = Pace::new(millis(shared.config.live.flush_max));
        Self {
            engine,
            index,
            shared,
            counters,
            fanout: Fanout::new(SLICE),
            pace,
            pulls: Pulls::default(),
            relays: Relays::default(),
            files,
            waiting: HashMap::new(),
            paused: Vec::new(),
            claimants: Vec::new(),
            clips: Vec::new(),
            doors,
            mail,
            conns: Vec::new(),
            deadlines: Vec::new(),
            open: 0,
            resting: Vec::new(),
            next_sweep: 0,
            next_stall_sweep: 0,
            room,
            stop: false,
        }
    }

    /// Runs until it is told to stop, or has drained.
    pub(super) fn run(&mut self) {
        while !self.is_done() {
            self.turn();
        }
        // Others may drain for long yet: a loop that has ended does not hang.
        self.shared.beats[self.index].store(Millis::MAX, Ordering::Relaxed);
        self.sweep_files();
    }

    /// Whether it was told to stop, or to drain and nobody is left.
    pub(super) fn is_done(&self) -> bool {
        self.stop || (self.open == 0 && self.shared.phase() == Phase::Draining)
    }

    /// When there is something to do, whatever comes in before.
    pub(super) fn next_deadline(&self) -> Option<Millis> {
        let files = self.files.is_ready().then_some(0);
        let deadlines = [Some(self.next_sweep), self.fanout.next_flush(), self.next_clip(), files];
        deadlines.into_iter().flatten().min()
    }

    /// Waits for something to do and does it.
    pub(super) fn turn(&mut self) {
        let until = self.next_deadline();
        self.engine.wait(until);
        for _ in 0..EVENTS_A_TURN {
            let Some(event) = self.engine.next_event() else { break };
            self.on_event(event);
        }
        for _ in 0..EVENTS_A_TURN {
            let Some(message) = self.mail.take() else { break };
            self.on_message(message);
        }
        self.play_clips();
        self.keep_pace();
        self.fanout.flush(&mut self.engine, &self.counters);
        self.send_files();
        if self.engine.now() >= self.next_sweep {
            self.sweep();
        }
        while let Some((id, sock, farewell)) = self.fanout.next_leaving() {
            self.let_viewer_go(id, sock, farewell);
        }
    }

    /// Widens the windows when time runs short, and narrows them again.
    fn keep_pace(&mut self) {
        let now = self.engine.now();
        if self.pace.is_due(now) {
            let floor = self.pace.look(now, self.engine.cpu_time());
            self.fanout.set_floor(floor);
            self.shared.floors[self.index].store(floor, Ordering::Relaxed);
        }
    }

    pub(super) fn role(&self, role: usize) -> &RoleState {
        &self.shared.roles[role]
    }

    fn on_event(&mut self, event: Event<E::Buf>) {
        match event {
            Event::Accepted { listener, sock } => self.on_accepted(listener, sock),
            Event::AcceptFailed { listener, error } => self.on_accept_failed(listener, error),
            Event::Connected { sock, result } => {
                self.with(sock, |worker, conn| worker.on_connected(conn, result))
            }
            Event::Received { sock, data } => self.with(sock, |worker, conn| worker.on_received(conn, &data)),
            Event::Finished { sock, error } => {
                self.with(sock, |worker, conn| worker.on_finished(conn, error))
            }
            Event::Sent { sock, result } => self.on_sent(sock, result),
            Event::Writable { sock } => self.on_writable(sock),
            Event::Opened { ticket, result } => self.on_opened(ticket, result),
            Event::Loaded { ticket, result } => self.on_loaded(ticket, result),
            Event::Closed { .. } | Event::Woken => {}
        }
    }

    fn on_message(&mut self, message: Message) {
        match message {
            Message::News(stream) => self.fanout.news(stream, self.engine.now()),
            Message::Published { role, stream } => {
                self.on_published(role, &stream);
                self.forward(role, &stream);
            }
            Message::Ended { stream, status } => {
                self.fanout.stream_ended(stream.id, status, self.engine.now());
                self.paused_stream_ended(&stream.key);
            }
            Message::Fetched { role, path, outcome } => self.on_fetched(role, &path, outcome),
            Message::GiveUp { role, stream } => self.on_give_up(role, &stream),
            Message::GivenUp { role, stream } => self.on_given_up(role, &stream),
            Message::Viewers(query, reply) => {
                let _ = reply.send(self.roll(&query));
            }
            Message::Kick(sock, reply) => {
                let _ = reply.send(self.on_kick(sock));
            }
            Message::KickPublisher(stream, reply) => {
                let _ = reply.send(self.on_kick_publisher(stream));
            }
            // Nothing waits for a listing yet.
            Message::Listed => {}
            Message::Drain => self.drain(),
            Message::Stop => self.stop = true,
        }
    }

    fn on_accepted(&mut self, listener: u32, sock: Sock) {
        let Door { role, speaks } = self.doors[listener as usize];
        self.counters[role].accepted.add(1);
        let limits = RequestLimits::new(self.shared.config.limits.request_head);
        let kind = match speaks {
            Speaks::Rtmp => Kind::Publisher(Box::new(Publisher::rtmp())),
            Speaks::Http => Kind::Request(Box::new(RequestReader::new(limits))),
            Speaks::Files => Kind::Client(Box::new(Client::new(limits))),
        };
        let mut conn = Conn::new(sock, role, kind);
        if speaks == Speaks::Rtmp {
            conn.rtmp = Some(Box::new(RtmpPeer::new(&self.shared.config)));
        }
        self.add(conn);
        self.deadline(sock, self.request_time());
        if self.open > self.room.connections {
            self.counters[role].turned_away.add(1);
            self.with(sock, |worker, conn| worker.turn_away(conn, speaks));
        }
    }

    /// Takes nobody any more; those who ask for nothing are let go.
    fn drain(&mut self) {
        self.engine.stop_accept();
        let clients = self.conns.iter().flatten().filter(|conn| matches!(conn.kind, Kind::Client(_)));
        for sock in clients.map(|conn| conn.sock).collect::<Vec<_>>() {
            self.with(sock, Self::client_drain);
        }
    }

    /// Tells a peer that there is no room for it: better than to let it wait.
    fn turn_away(&mut self, conn: &mut Conn, speaks: Speaks) -> Fate {
        if speaks == Speaks::Rtmp {
            return Fate::Close("no room for more connections".to_owned());
        }
        let page =
            error_page(503, "This server is full; ask another one, or this one again soon.", false, false);
        self.say_last(conn, page.into())
    }

    /// Milliseconds that a peer may take to say what it wants.
    pub(super) fn request_time(&self) -> Millis {
        millis(self.shared.config.limits.request_time)
    }

    fn on_accept_failed(&mut self, listener: u32, error: rustix::io::Errno) {
        let role = self.doors[listener as usize].role;
        self.counters[role].accept_failures.add(1);
        warn!(role = self.role(role).name, %error, "cannot accept for now; raise the descriptor limit if this stays");
        self.resting.push(listener);
    }

    /// Takes a connection into the table.
    pub(super) fn add(&mut self, conn: Conn) {
        let place = conn.sock.index as usize;
        if self.conns.len() <= place {
            self.conns.resize_with(place + 1, || None);
            self.deadlines.resize(place + 1, NEVER);
        }
        debug_assert!(self.conns[place].is_none(), "a place is free before it is used again");
        self.counters[conn.role].connections.add(1);
        self.conns[place] = Some(conn);
        self.open += 1;
    }

    /// Sets a connection's deadline, from now.
    pub(super) fn deadline(&mut self, sock: Sock, after: Millis) {
        self.deadlines[sock.index as usize] = self.engine.now().saturating_add(after);
    }

    /// Takes a connection's deadline away.
    pub(super) fn no_deadline(&mut self, sock: Sock) {
        self.deadlines[sock.index as usize] = NEVER;
    }

    /// Hands a connection to a handler and does what it decides.
    pub(super) fn with(&mut self, sock: Sock, handler: impl FnOnce(&mut Self, &mut Conn) -> Fate) {
        let place = sock.index as usize;
        let Some(mut conn) = self.conns.get_mut(place).and_then(Option::take) else { return };
        if conn.sock != sock {
            self.conns[place] = Some(conn);
            return;
        }
        let fate = handler(self, &mut conn);
        if fate == Fate::Keep {
            self.conns[place] = Some(conn);
            return;
        }
        self.close(conn, fate);
    }

    fn close(&mut self, conn: Conn, fate: Fate) {
        let (sock, role) = (conn.sock, conn.role);
        self.log_close(&conn, &fate);
        self.counters[role].connections.sub(1);
        self.open -= 1;
        self.no_deadline(sock);
        match conn.kind {
            Kind::Publisher(publisher) => {
                self.claimants.retain(|other| *other != sock);
                self.paused.retain(|other| *other != sock);
                self.unpublish(role, *publisher);
            }
            Kind::Waiting(play) => self.forget_waiting(role, &play.key, sock),
            Kind::Viewer(id, watching) => {
                self.viewer_left(role, id);
                watching.relay.into_iter().for_each(|relay| self.relay_lost(relay, &fate.to_string()));
            }
            Kind::Relay(id) => self.relay_closed(id, sock, &fate.to_string()),
            Kind::Pull(id) => self.pull_closed(id),
            Kind::Client(mut client) => self.client_closed(role, &mut client),
            Kind::Request(_) | Kind::Leaving => {}
        }
        self.engine.close(sock);
    }

    fn log_close(&self, conn: &Conn, fate: &Fate) {
        let role = self.role(conn.role).name;
        match (fate, &conn.kind) {
            (Fate::Keep, _) => {}
            (Fate::Refuse(reason), _) => {
                self.counters[conn.role].bad_peers.add(1);
                warn!(
                    role,
                    peer = self.peer(conn.sock),
                    reason,
                    "closed a connection that broke its protocol"
                );
            }
            (Fate::Close(reason), Kind::Publisher(publisher)) if publisher.key().is_some() => {
                let key = publisher.key().map(StreamKey::as_str);
                info!(role, peer = self.peer(conn.sock), stream = key, reason, "publisher went");
            }
            (Fate::Close(reason), _) => {
                debug!(role, peer = self.peer(conn.sock), reason, "connection closed")
            }
        }
    }

    /// The peer's address, for the log.
    pub(super) fn peer(&self, sock: Sock) -> String {
        self.engine.peer(sock).map_or_else(|| "unknown".to_owned(), |peer| peer.to_string())
    }

    fn on_connected(&mut self, conn: &mut Conn, result: Result<(), rustix::io::Errno>) -> Fate {
        match conn.kind {
            Kind::Pull(id) => self.pull_connected(conn, id, result),
            Kind::Relay(id) => self.relay_connected(conn, id, result),
            _ => unreachable!("only pulls and relays connect"),
        }
    }

    fn on_received(&mut self, conn: &mut Conn, data: &[u8]) -> Fate {
        match &mut conn.kind {
            Kind::Publisher(_) => self.publisher_received(conn, data),
            Kind::Request(_) => self.request_received(conn, data),
            Kind::Client(_) => self.client_received(conn, data),
            Kind::Viewer(..) | Kind::Waiting(_) if conn.rtmp.is_some() => self.rtmp_received(conn, data),
            Kind::Viewer(..) => self.viewer_received(conn, data),
            Kind::Pull(id) => self.pull_received(*id, data),
            Kind::Relay(id) => {
                let id = *id;
                self.relay_received(conn, id, data)
            }
            Kind::Waiting(_) | Kind::Leaving => Fate::Keep,
        }
    }

    fn on_finished(&mut self, conn: &mut Conn, error: Option<rustix::io::Errno>) -> Fate {
        match (&conn.kind, error) {
            (Kind::Pull(id), _) => self.pull_finished(*id, error),
            (Kind::Client(_), None) => return self.client_finished(conn),
            _ => {}
        }
        Fate::Close(error.map_or_else(|| "the peer hung up".to_owned(), |error| error.to_string()))
    }

    fn on_sent(&mut self, sock: Sock, result: Result<u32, SendError>) {
        if let Some(Conn { kind: Kind::Viewer(id, _), .. }) = self.conn(sock) {
            let id = *id;
            self.fanout.sent(&mut self.engine, id, result, &self.counters);
            return;
        }
        self.with(sock, |worker, conn| match result {
            result if conn.is_answered() => worker.client_sent(conn, result),
            Ok(bytes) => {
                conn.out.sent(bytes as usize);
                worker.send_next(conn)
            }
            Err(SendError::Full) => {
                worker.engine.poll_writable(sock);
                Fate::Keep
            }
            Err(SendError::Broken(error)) => Fate::Close(error.to_string()),
        });
    }

    fn on_writable(&mut self, sock: Sock) {
        if let Some(Conn { kind: Kind::Viewer(id, _), .. }) = self.conn(sock) {
            let id = *id;
            self.fanout.writable(&mut self.engine, id, &self.counters);
            return;
        }
        self.with(sock, |worker, conn| {
            if conn.is_answered() {
                return worker.client_writable(conn);
            }
            conn.out.writable();
            worker.send_next(conn)
        });
    }

    pub(super) fn conn(&self, sock: Sock) -> Option<&Conn> {
        self.conns.get(sock.index as usize)?.as_ref().filter(|conn| conn.sock == sock)
    }

    /// Queues bytes for a connection that is no viewer, and sends if nothing is under way.
    pub(super) fn say(&mut self, conn: &mut Conn, bytes: Bytes) -> Fate {
        if !conn.out.push(bytes) {
            return Fate::Refuse("it asks and does not read the answers".to_owned());
        }
        self.send_next(conn)
    }

    /// As [`say`](Self::say), and the connection ends behind it.
    pub(super) fn say_last(&mut self, conn: &mut Conn, bytes: Bytes) -> Fate {
        conn.out.last_words = true;
        self.deadline(conn.sock, self.request_time());
        self.say(conn, bytes)
    }

    fn send_next(&mut self, conn: &mut Conn) -> Fate {
        if let Some(bytes) = conn.out.next() {
            self.engine.send(conn.sock, Payload::Bytes(bytes));
        } else if conn.out.is_empty() && !conn.out.last_words {
            return self.play_on(conn);
        } else if conn.out.is_empty() && !matches!(conn.kind, Kind::Leaving) {
            let left = std::mem::replace(&mut conn.kind, Kind::Leaving);
            if let Kind::Publisher(publisher) = left {
                self.unpublish(conn.role, *publisher);
            }
            self.engine.shutdown_write(conn.sock);
            self.deadline(conn.sock, LEAVE);
        }
        Fate::Keep
    }

    fn let_viewer_go(&mut self, id: ViewerId, sock: Sock, farewell: Farewell) {
        self.with(sock, |worker, conn| {
            debug_assert!(matches!(conn.kind, Kind::Viewer(current, _) if current == id));
            worker.farewell(conn, id, farewell)
        });
    }

    fn sweep(&mut self) {
        let now = self.engine.now();
        self.next_sweep = now + SWEEP;
        self.shared.beats[self.index].store(now, Ordering::Relaxed);
        for listener in std::mem::take(&mut self.resting) {
            self.engine.resume_accept(listener);
        }
        for place in 0..self.deadlines.len() {
            if self.deadlines[place] <= now {
                self.deadlines[place] = NEVER;
                let Some(sock) = self.conns[place].as_ref().map(|conn| conn.sock) else { continue };
                self.with(sock, Self::on_deadline);
            }
        }
        if now >= self.next_stall_sweep {
            self.next_stall_sweep = now + STALL_SWEEP;
            self.fanout.sweep(now);
        }
        self.sweep_pulls(now);
        self.sweep_relays(now);
        self.sweep_files();
        if self.index == 0 {
            self.expire_streams(now);
        }
    }

    fn on_deadline(&mut self, conn: &mut Conn) -> Fate {
        if matches!(conn.kind, Kind::Request(_) | Kind::Waiting(_)) && !conn.out.is_empty() {
            return Fate::Close("it did not read its answer in time".to_owned());
        }
        match &conn.kind {
            Kind::Leaving => Fate::Close("answered".to_owned()),
            _ if conn.out.last_words => Fate::Close("it does not take its answer".to_owned()),
            Kind::Publisher(_) => self.publisher_deadline(conn),
            Kind::Waiting(play) => {
                let (role, key) = (conn.role, play.key.clone());
                self.forget_waiting(role, &key, conn.sock);
                let status = self.role(role).source.absence();
                self.refuse_play(conn, status)
            }
            Kind::Request(reader) if reader.is_empty() => Fate::Close("no request came in time".to_owned()),
            Kind::Request(_) => Fate::Refuse("its request did not end in time".to_owned()),
            Kind::Viewer(..) => self.viewer_deadline(conn),
            Kind::Client(_) => self.client_deadline(conn),
            Kind::Pull(_) | Kind::Relay(_) => Fate::Keep,
        }
    }

    fn expire_streams(&mut self, now: Millis) {
        for role in &self.shared.roles {
            for stream in role.directory.expire(now) {
                info!(role = role.name, stream = stream.key.as_str(), "stream ended: no publisher came back");
                self.shared.tell_all(|| Message::Ended { stream: Arc::clone(&stream), status: 404 });
            }
        }
    }

    /// Publishes what a writer holds and tells the loops that have viewers there.
    pub(super) fn announce(&mut self, writer: &mut StreamWriter) {
        if writer.publish() {
            self.tell_news(writer.stream());
        }
    }

    fn tell_news(&mut self, stream: &Stream) {
        for index in stream.subscribers() {
            if index == self.index {
                self.fanout.news(stream.id, self.engine.now());
            } else {
                self.shared.posts[index].post(Message::News(stream.id));
            }
        }
    }
}
