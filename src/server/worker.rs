//! One loop: takes events from the engine and messages from the other loops, hands them to their handlers,
//! flushes the fan-out, and checks deadlines.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use tracing::info;

use super::conn::{Conn, Kind};
use super::core::{Core, Task};
use super::dispatch::Dispatch;
use super::files::store::Files;
use super::head::Next;
use super::http::responder::Responder;
use super::http::web::Web;
use super::limits::Refused;
use super::publishers::clip::Clips;
use super::reception::{Capacity, Listener, Reception};
use super::shared::{Message, Shared, millis};
use super::transport::Received;
use super::viewers::listing::Kick;
use super::viewers::pace::Pace;
use crate::live::key::StreamKey;
use crate::uring::mailbox::Mailbox;
use crate::uring::{Engine, Event, Millis, Sock};

/// The most events that are handled before the fan-out runs.
const EVENTS_A_TURN: usize = 4096;
/// The most bytes of files that a loop sends before it does other work.
const FILE_BYTES_A_TURN: u64 = 4 << 20;
/// The interval of sweeps.
const SWEEP: Millis = 100;
/// The interval of checks for viewers whose sockets stay full: each check visits all viewers.
const STALL_SWEEP: Millis = 1_000;

/// One loop.
pub(super) struct Worker<E: Engine> {
    peers: Dispatch<E>,
    reception: Reception,
    clips: Clips,
    pace: Pace,
    mail: Mailbox<Message>,
    next_sweep: Millis,
    next_stall_sweep: Millis,
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
        let mut core = Core::new(engine, index, shared);
        core.take_certificates();
        let shared = &core.shared;
        let web = Web { responder: Responder::new(shared), files: Files::new(capacity.files) };
        Self {
            pace: Pace::new(millis(shared.config.live.flush_max)),
            peers: Dispatch::new(core, web),
            reception: Reception::new(listeners, capacity),
            clips: Clips::default(),
            mail,
            next_sweep: 0,
            next_stall_sweep: 0,
            stop: false,
        }
    }

    /// Sets how many viewers are served in one walk, for tests.
    #[cfg(test)]
    pub(super) fn serve_in_one_step(&mut self, slice: usize) {
        self.peers.streams.viewers = super::viewers::audience::Viewers::new(slice);
    }

    /// Publishes the demo's clip under `key`.
    pub(super) fn publish_clip(&mut self, role: usize, key: &StreamKey) {
        self.clips.publish(&mut self.peers.core, role, key);
    }

    /// Runs until it is stopped or has drained.
    pub(super) fn run(&mut self) {
        while !self.is_done() {
            self.turn();
        }
        // Other loops may drain for a long time: a loop that has ended must not count as hanging.
        let Core { shared, index, .. } = &self.peers.core;
        shared.beats[*index].store(Millis::MAX, Ordering::Relaxed);
        self.hand_over();
    }

    /// Whether it was stopped, or drains and no connection is left.
    pub(super) fn is_done(&self) -> bool {
        self.stop || (self.peers.conns.open() == 0 && self.peers.core.is_draining())
    }

    /// When there is something to do, even if no event comes before.
    pub(super) fn next_deadline(&self) -> Option<Millis> {
        let files = self.peers.web.responder.is_ready().then_some(0);
        let flush = self.peers.streams.viewers.fanout.next_flush();
        [Some(self.next_sweep), flush, self.clips.next(), files].into_iter().flatten().min()
    }

    /// Waits for something to do and does it.
    pub(super) fn turn(&mut self) {
        let until = self.next_deadline();
        self.peers.core.net.wait(until);
        for _ in 0..EVENTS_A_TURN {
            let Some(event) = self.peers.core.net.next_event() else { break };
            self.on_event(event);
            self.peers.do_tasks();
        }
        for _ in 0..EVENTS_A_TURN {
            let Some(message) = self.mail.take() else { break };
            self.on_message(message);
            self.peers.do_tasks();
        }
        self.clips.play(&mut self.peers.core);
        self.flush();
        self.send_files();
        if self.peers.core.now() >= self.next_sweep {
            self.sweep();
        }
        while let Some((sock, farewell)) = self.peers.streams.viewers.fanout.next_leaving() {
            self.peers.farewell(sock, farewell);
            self.peers.do_tasks();
        }
    }

    /// Serves the viewers that are due; the windows widen when CPU time runs short, and narrow again.
    fn flush(&mut self) {
        let Dispatch { core, streams, .. } = &mut self.peers;
        let (fanout, now) = (&mut streams.viewers.fanout, core.now());
        core.news.drain(..).for_each(|stream| fanout.news(stream, now));
        if self.pace.is_due(now) {
            let windows = self.pace.look(now, core.net.cpu_time());
            fanout.set_windows(windows);
            core.shared.floors[core.index].store(windows.floor, Ordering::Relaxed);
        }
        fanout.flush(&mut core.net, &core.counters);
    }

    /// Sends slices of files to clients that can take them, in turn.
    fn send_files(&mut self) {
        let mut bytes = 0;
        while bytes < FILE_BYTES_A_TURN {
            let Some(sock) = self.peers.web.responder.next_turn() else { return };
            bytes += self.peers.send_slice(sock);
        }
    }

    fn on_event(&mut self, event: Event<Received<E::Buf>>) {
        let peers = &mut self.peers;
        match event {
            Event::Accepted { listener, sock } => self.on_accepted(listener, sock),
            Event::AcceptFailed { listener, error } => {
                self.reception.failed(&mut peers.core, listener, error)
            }
            Event::Connected { sock, result } => {
                peers.with(sock, |peers, conn| peers.connected(conn, result))
            }
            Event::Received { sock, data } => peers.with(sock, |peers, conn| peers.received(conn, &data)),
            Event::Finished { sock, error } => peers.with(sock, |peers, conn| peers.finished(conn, error)),
            Event::Sent { sock, result } => peers.sent(sock, result),
            Event::Writable { sock } => peers.writable(sock),
            Event::Opened { ticket, result } => peers.web.files.opened(&mut peers.core, ticket, result),
            Event::Loaded { ticket, result } => peers.web.files.loaded(&mut peers.core, ticket, result),
            Event::Closed { .. } | Event::Woken => {}
        }
    }

    fn on_accepted(&mut self, listener: u32, sock: Sock) {
        let peers = &mut self.peers;
        let (conn, admitted) = self.reception.accept(&mut peers.core, &peers.conns, (listener, sock));
        peers.add(conn.head, conn.kind);
        let turn_away = |peers: &mut Dispatch<E>, why| {
            peers.with(sock, |peers, conn| Reception::turn_away(&mut peers.core, conn, why));
        };
        if let Err(why) = admitted {
            turn_away(peers, why);
        } else if self.reception.is_full(&peers.conns) {
            match Reception::makes_way(&mut peers.conns, sock) {
                Some(idle) => peers.with(idle, |_, _| Next::close("its place was needed")),
                None => turn_away(peers, Refused::Full),
            }
        }
    }

    fn on_message(&mut self, message: Message) {
        let peers = &mut self.peers;
        match message {
            Message::News(stream) => peers.core.news.push(stream),
            Message::Published { role, stream } => peers.stream_came(role, &stream),
            Message::Ended { role, stream, status } => peers.stream_ended(role, &stream, status),
            Message::Fetched { role, path, outcome } => {
                peers.web.files.fetched(&mut peers.core, role, &path, outcome);
            }
            Message::CloseFiles => peers.web.files.close_all(),
            Message::GiveUp { role, stream } => {
                // It may be too late: the other publisher may meanwhile have been given the stream, and be
                // on this loop.
                if peers.core.role(role).directory.is_wanted(&stream) {
                    let reason = "another publisher has taken the stream over";
                    peers.dismiss_publisher(stream.id, 409, reason);
                }
            }
            Message::GivenUp { role, stream } => peers.stream_given_up(role, &stream),
            Message::Viewers(query, reply) => {
                let conns = &peers.conns;
                let is_forward = |sock| matches!(conns.get(sock), Some(Conn { kind: Kind::Link(_), .. }));
                let _ = reply.send(peers.streams.viewers.list(&peers.core, &query, is_forward));
            }
            Message::Kick(sock, reply) => {
                let _ = reply.send(match peers.conns.get(sock) {
                    Some(Conn { kind: Kind::Link(_), .. }) => Kick::Forward,
                    Some(conn) => peers.streams.viewers.kick(&mut peers.core, &conn.head),
                    None => Kick::Gone,
                });
            }
            Message::KickPublisher(stream, reply) => {
                let _ = reply.send(peers.dismiss_publisher(stream, 403, "an operator has ended it"));
            }
            Message::Shorten => peers.shorten(),
            Message::Packaged(stream) => {
                let waiting = peers.web.files.take_packaged(&stream);
                peers.core.tasks.extend(waiting.into_iter().map(Task::AskAgain));
            }
            Message::Answered(sock) => peers.core.tasks.push(Task::AskAgain(sock)),
            Message::Listed => {
                let waiting = peers.web.responder.take_listing();
                peers.core.tasks.extend(waiting.into_iter().map(Task::AskAgain));
            }
            Message::Drain => {
                peers.core.net.stop_accept();
                peers.drain();
            }
            Message::Stop => self.stop = true,
        }
    }

    fn sweep(&mut self) {
        let peers = &mut self.peers;
        let now = peers.core.now();
        self.next_sweep = now + SWEEP;
        peers.core.take_certificates();
        peers.core.shared.beats[peers.core.index].store(now, Ordering::Relaxed);
        self.reception.resume(&mut peers.core);
        if self.mail.missed() > 0 {
            peers.look_again();
        }
        for place in peers.core.take_due() {
            let Some(sock) = peers.conns.at(place) else { continue };
            peers.with(sock, Dispatch::deadline);
        }
        for sock in peers.core.take_ended() {
            peers.core.end_at(sock, None);
            peers.with(sock, Dispatch::expired);
        }
        peers.upstreams.sweep(&mut peers.core);
        peers.do_tasks();
        if now >= self.next_stall_sweep {
            self.next_stall_sweep = now + STALL_SWEEP;
            self.sweep_viewers(now);
        }
        self.hand_over();
        self.peers.do_tasks();
        if self.peers.core.index == 0 {
            self.sweep_streams(now);
        }
    }

    /// Checks for viewers that take nothing, and measures what is held for all of them.
    fn sweep_viewers(&mut self, now: Millis) {
        let Dispatch { core, streams, .. } = &mut self.peers;
        let budget = &core.shared.budget;
        let queued = streams.viewers.fanout.sweep(&mut core.net, now, budget.is_tight());
        let held = &budget.loops[core.index];
        held.kernel.store(queued, Ordering::Relaxed);
        held.greetings.store(streams.viewers.fanout.greeting_bytes(), Ordering::Relaxed);
        core.lines.settle(now);
    }

    /// Ends the streams whose publisher has not come back, and keeps all streams within the budget.
    fn sweep_streams(&mut self, now: Millis) {
        let shared = &self.peers.core.shared;
        shared.egress.measure(now, || shared.sent_bytes());
        for (role, state) in shared.roles.iter().enumerate() {
            for stream in state.directory.expire(now) {
                info!(
                    role = state.name,
                    stream = stream.key.as_str(),
                    "stream ended: no publisher came back"
                );
                shared.tell_all(|| Message::Ended { role, stream: Arc::clone(&stream), status: 404 });
            }
        }
        if shared.budget.adjust(shared.streams()).is_some() {
            shared.roles.iter().for_each(|role| role.directory.shorten_parked());
            shared.tell_all(|| Message::Shorten);
        }
    }

    /// Hands over what was collected for others: notes of viewers, lines of the access log.
    fn hand_over(&mut self) {
        let Dispatch { core, web, .. } = &mut self.peers;
        web.files.sweep(core);
        core.counters[0].files.lost_lines.add(web.responder.flush_log());
    }
}
