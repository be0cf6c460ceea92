//! What every handler of a loop may use: the transports, the clock, the counters, the deadlines of connections,
//! and what all loops share. It holds no table of connections, streams or files.

use std::collections::{BTreeSet, HashMap};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use tracing::warn;

use super::authority::{Ungranted, unix_time};
use super::counters::RoleCounters;
use super::forwarded::{is_forwarded, told_address};
use super::head::{ConnHead, LinkId, Next, Reason};
use super::limits::{Kind, Refused};
use super::log_limit::{LineKind, LogLimits};
use super::roles::RoleState;
use super::shared::{Message, Phase, Shared, millis};
use super::transport::Transports;
use crate::access::hook::Question;
use crate::access::{Action, Asker, Grant, Verb};
use crate::live::stream::StreamWriter;
use crate::protocol::http::request::Request;
use crate::uring::{Engine, Millis, Sock};

/// How long a peer may take to read the final answer and to close the connection.
pub(super) const LEAVE: Millis = 2_000;
/// No deadline.
const NEVER: Millis = Millis::MAX;

/// What a handler wants done with another connection after it has returned.
#[derive(Debug)]
pub(super) enum Task {
    /// Close the connection.
    Close(Sock, Reason),
    /// Answer the request again: the file it waited for is there, or could not be had.
    AskAgain(Sock),
    /// Add a connection that the server has opened.
    Opened(ConnHead, LinkId),
}

/// See the module.
#[derive(Debug)]
pub(super) struct Core<E: Engine> {
    pub(super) net: Transports<E>,
    pub(super) index: usize,
    pub(super) shared: Arc<Shared>,
    pub(super) counters: Arc<[RoleCounters]>,
    /// Done by the loop as soon as the current handler has returned.
    pub(super) tasks: Vec<Task>,
    /// Streams with new data for this loop's viewers.
    pub(super) news: Vec<u64>,
    /// Limits of the log lines that peers can cause.
    pub(super) lines: LogLimits,
    deadlines: Vec<Millis>,
    /// The ends that came with grants, in order: the time, and the socket's index and generation.
    ends: BTreeSet<(Millis, u32, u32)>,
    /// The same by the socket.
    end_of: HashMap<(u32, u32), Millis>,
}

impl<E: Engine> Core<E> {
    pub(super) fn new(engine: E, index: usize, shared: Arc<Shared>) -> Self {
        Self {
            net: Transports::new(engine),
            index,
            counters: Arc::clone(&shared.counters[index]),
            lines: LogLimits::new(Arc::clone(&shared.log_suppressed)),
            shared,
            tasks: Vec::new(),
            news: Vec::new(),
            deadlines: Vec::new(),
            ends: BTreeSet::new(),
            end_of: HashMap::new(),
        }
    }

    pub(super) fn now(&self) -> Millis {
        self.net.now()
    }

    pub(super) fn role(&self, role: usize) -> &RoleState {
        &self.shared.roles[role]
    }

    /// Whether the process is draining: no new work is taken.
    pub(super) fn is_draining(&self) -> bool {
        self.shared.phase() == Phase::Draining
    }

    /// New connections get the certificates that were read last. Peers that broke TLS are counted.
    pub(super) fn take_certificates(&mut self) {
        self.net.accept_tls(self.shared.certificates.load_full());
        self.counters[0].bad_peers.add(self.net.take_tls_failures());
    }

    /// The peer's address, for the log.
    pub(super) fn peer(&self, sock: Sock) -> String {
        match self.net.peer(sock) {
            None => "unknown".to_owned(),
            Some(peer) if peer.port() == 0 => peer.ip().to_string(), // as a forwarded request tells it
            Some(peer) => SocketAddr::new(peer.ip().to_canonical(), peer.port()).to_string(),
        }
    }

    /// Milliseconds that a peer may take to send its request.
    pub(super) fn request_time(&self) -> Millis {
        millis(self.shared.config.limits.request_time)
    }

    /// Milliseconds that a client may stay connected without a request.
    pub(super) fn idle_time(&self) -> Millis {
        millis(self.shared.config.limits.keep_alive)
    }

    /// Milliseconds that the hook may take, and a moment more.
    pub(super) fn hook_time(&self) -> Millis {
        millis(self.shared.config.auth.hook_timeout) + LEAVE
    }

    /// Milliseconds that a client may go without taking any byte of its answer.
    pub(super) fn send_time(&self) -> Millis {
        millis(self.shared.config.limits.send_time)
    }

    /// Sets a connection's deadline to `after` milliseconds from now.
    pub(super) fn deadline(&mut self, sock: Sock, after: Millis) {
        let place = sock.index as usize;
        if self.deadlines.len() <= place {
            self.deadlines.resize(place + 1, NEVER);
        }
        self.deadlines[place] = self.now().saturating_add(after);
    }

    /// Removes a connection's deadline.
    pub(super) fn no_deadline(&mut self, sock: Sock) {
        if let Some(deadline) = self.deadlines.get_mut(sock.index as usize) {
            *deadline = NEVER;
        }
    }

    /// Lets a connection end at `end`, in seconds since 1970, instead of an end that was set before.
    pub(super) fn end_at(&mut self, sock: Sock, end: Option<u64>) {
        let Sock { index, generation } = sock;
        if let Some(before) = self.end_of.remove(&(index, generation)) {
            self.ends.remove(&(before, index, generation));
        }
        let Some(end) = end else { return };
        let left = end.saturating_sub(unix_time()).saturating_mul(1000);
        let at = self.now().saturating_add(left);
        self.ends.insert((at, index, generation));
        self.end_of.insert((index, generation), at);
    }

    /// Removes the ends that have come, and returns their connections.
    pub(super) fn take_ended(&mut self) -> Vec<Sock> {
        let later = self.ends.split_off(&(self.now() + 1, 0, 0));
        let ended = std::mem::replace(&mut self.ends, later);
        ended.into_iter().map(|(_, index, generation)| Sock { index, generation }).collect()
    }

    /// Removes the deadlines that have passed and returns their places in the socket table.
    pub(super) fn take_due(&mut self) -> Vec<u32> {
        let now = self.now();
        let mut due = Vec::new();
        for (place, deadline) in self.deadlines.iter_mut().enumerate() {
            if *deadline <= now {
                *deadline = NEVER;
                due.push(u32::try_from(place).expect("sockets have names of 32 bits"));
            }
        }
        due
    }

    /// Queues bytes for a connection that is not a viewer, and sends them if no send is under way.
    pub(super) fn say(&mut self, head: &mut ConnHead, bytes: Bytes) -> Next {
        debug_assert!(head.viewer.is_none(), "the fan-out owns the socket of a viewer");
        if !head.out.push(bytes) {
            return Next::refuse("it sends requests and does not read the answers");
        }
        self.send_next(head);
        Next::Stay
    }

    /// As [`say`](Self::say); the connection ends after these bytes.
    pub(super) fn say_last(&mut self, head: &mut ConnHead, bytes: Bytes) -> Next {
        head.out.close();
        self.deadline(head.sock, self.request_time());
        self.say(head, bytes)
    }

    /// As [`say_last`](Self::say_last), to a viewer whose stream is over: it may be slow, and has as long as a
    /// viewer may stall.
    pub(super) fn say_goodbye(&mut self, head: &mut ConnHead, bytes: Bytes) -> Next {
        let next = self.say_last(head, bytes);
        self.deadline(head.sock, self.role(head.role).policy.stall);
        next
    }

    /// Sends what waits in the outbox, unless a send is under way.
    pub(super) fn send_next(&mut self, head: &mut ConnHead) {
        if let Some(bytes) = head.out.next() {
            self.net.send_bytes(head.sock, bytes);
        }
    }

    /// Publishes what a writer holds and notifies the loops that have viewers of the stream.
    pub(super) fn announce(&mut self, writer: &mut StreamWriter) {
        if !writer.publish() {
            return;
        }
        let stream = writer.stream();
        for index in stream.subscribers() {
            if index == self.index {
                self.news.push(stream.id);
            } else {
                self.shared.posts[index].post(Message::News(stream.id));
            }
        }
    }

    /// Whether a log line that peers can cause may be written now.
    pub(super) fn may_log(&mut self, kind: LineKind) -> bool {
        let now = self.now();
        self.lines.allow(kind, now)
    }

    /// Asks whether a peer may do something with a stream. Every way to a stream asks, before a name is claimed or a
    /// pull begins. `lasting`: as in [`super::authority::Authority::authorise`]; `question`: for the hook.
    ///
    /// # Errors
    /// [`Ungranted`]; a refusal was counted and logged.
    pub(super) fn authorise(
        &mut self,
        head: &ConnHead,
        (action, stream): (Action, &str),
        asker: &Asker<'_>,
        lasting: bool,
        question: impl FnOnce() -> Question,
    ) -> Result<Grant, Ungranted> {
        let authority = &self.shared.authority;
        let answer = match authority.authorise((action, stream), asker, lasting) {
            Err(_) if authority.rules().has_hook() => {
                authority.ask(&question(), (action, asker), (self.index, head.sock), self.shared.now())
            }
            answer => answer.map_err(Ungranted::Denied),
        };
        if let Err(Ungranted::Denied(reason)) = &answer {
            self.count_refusal(head.role, Refused::Unauthorised);
            if self.may_log(LineKind::Access) {
                let (role, peer, action) = (self.role(head.role).name, self.peer(head.sock), Verb(action));
                warn!(role, peer, stream, %action, %reason, "no right to the stream");
            }
        }
        answer
    }

    /// Logs that a publisher was refused.
    pub(super) fn log_refusal(&mut self, head: &ConnHead, stream: &str, reason: &str) {
        if self.may_log(LineKind::Publisher) {
            let (role, peer) = (self.role(head.role).name, self.peer(head.sock));
            warn!(role, peer, stream, reason, "refused a publisher");
        }
    }

    /// Counts a refusal.
    pub(super) fn count_refusal(&self, role: usize, why: Refused) {
        self.counters[role].refused(why);
    }

    /// Counts a connection against the limit of its address.
    ///
    /// # Errors
    /// [`Refused`] when the address has reached its limit.
    pub(super) fn admit(&self, head: &mut ConnHead) -> Result<(), Refused> {
        head.pass = self.shared.address_limits.enter(Kind::Connection, head.address)?;
        Ok(())
    }

    /// The first bytes of a connection have come, after a PROXY header if there was one: the client's address is known.
    ///
    /// # Errors
    /// [`Refused`] when the client's address has reached its limit.
    pub(super) fn learn_client(&self, head: &mut ConnHead) -> Result<(), Refused> {
        if !std::mem::take(&mut head.awaits_header) {
            return Ok(());
        }
        let Some(client) = self.net.told(head.sock) else { return Ok(()) };
        let address = client.map(|client| client.ip());
        head.is_proxy = address.is_some_and(|address| self.shared.config.limits.is_trusted(address));
        self.move_to(head, address)
    }

    /// A request has come: if a trusted proxy has forwarded it, its client's address counts until the next one.
    ///
    /// # Errors
    /// [`Refused`] when the client's address has reached its limit.
    pub(super) fn learn_forwarded(&mut self, head: &mut ConnHead, request: &Request) -> Result<(), Refused> {
        if !head.is_proxy {
            return Ok(());
        }
        let limits = &self.shared.config.limits;
        let told = is_forwarded(request).then(|| told_address(limits, request));
        self.net.set_forwarded(head.sock, told.flatten());
        let address = told.unwrap_or_else(|| self.net.peer(head.sock).map(|peer| peer.ip().to_canonical()));
        if address == head.address { Ok(()) } else { self.move_to(head, address) }
    }

    /// Counts a connection for another address than before.
    fn move_to(&self, head: &mut ConnHead, address: Option<IpAddr>) -> Result<(), Refused> {
        (head.address, head.pass) = (address, None);
        self.admit(head)
    }

    /// Counts a connection among those of its address that wait for a stream.
    ///
    /// # Errors
    /// [`Refused`] when the address has reached its limit of waits.
    pub(super) fn admit_wait(&self, head: &mut ConnHead) -> Result<(), Refused> {
        if head.wait_pass.is_none() {
            head.wait_pass = self.shared.address_limits.enter(Kind::Wait, head.address)?;
        }
        Ok(())
    }

    /// Records what a connection holds now; `false` if that has grown although the budget is used up.
    #[must_use]
    pub(super) fn account(&self, head: &mut ConnHead, held: usize) -> bool {
        /// What every connection may hold even when the budget is used up.
        const SMALL: usize = 64 << 10;
        if held == head.held {
            return true;
        }
        let own = &self.shared.budget.loops[self.index].connections;
        let sum = own.load(Ordering::Relaxed) + held as u64 - head.held as u64;
        own.store(sum, Ordering::Relaxed);
        let grew = held > std::mem::replace(&mut head.held, held);
        !(grew && held > SMALL && self.shared.budget.is_spent())
    }
}
