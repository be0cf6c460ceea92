//! The network and the kernel's side of sockets: pipes with bounded buffers, latency, and a virtual clock.
//!
//! A connection has two ends. Bytes move from one end's out-buffer to the other's in-buffer in pieces of random
//! size after random delays, in order. Bytes of a region are read when they move, not when they are sent.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use rustix::io::Errno;

use super::rng::Rng;
use super::scenario::is_far;
use crate::memory::Segment;
use crate::uring::files::FILE_SEND_MAX;
use crate::uring::mailbox::Wake;
use crate::uring::{Event, Millis, Payload, Region, SendError, Sock};

/// An end of a connection.
pub(super) type EndId = usize;

/// The owner of an end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Owner {
    Loop(usize, Sock),
    Peer(usize),
    Nobody,
}

/// An event on the virtual clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Action {
    /// Bytes, or the end of the stream, move from this end to the other.
    Move(EndId),
    /// A loop's socket receives.
    Receive(EndId),
    /// A send of a loop completes.
    Send(EndId),
    /// A close of a loop completes.
    Close(EndId),
    /// A loop's connect succeeds or fails.
    Connect(EndId),
    /// A loop's file operation completes.
    File(usize),
    /// A connection arrives at a listener.
    Knock(EndId, u16),
    /// A scripted peer can read.
    Read(usize),
    /// A scripted peer's own timer.
    Timer(usize),
    /// Connections of pulls are broken.
    Fault,
}

/// How fast an end sends its bytes: a delay in milliseconds, and the most that moves at once.
#[derive(Clone, Copy, Debug)]
pub(super) struct Speed {
    pub(super) delay: (Millis, Millis),
    pub(super) piece: usize,
}

/// Bytes in an out-buffer.
#[derive(Debug)]
enum Chunk {
    Bytes(Bytes),
    Region(Arc<Segment>, usize, usize),
}

impl Chunk {
    fn len(&self) -> usize {
        match self {
            Self::Bytes(bytes) => bytes.len(),
            Self::Region(_, from, to) => to - from,
        }
    }

    /// Copies the first `len` bytes out, with their present content.
    fn take(&mut self, len: usize, into: &mut VecDeque<u8>) {
        match self {
            Self::Bytes(bytes) => into.extend(bytes.split_to(len).iter()),
            Self::Region(segment, from, _) => {
                into.extend(&segment.bytes()[*from..*from + len]);
                *from += len;
            }
        }
    }
}

/// An end of a connection.
#[derive(Debug)]
pub(super) struct End {
    pub(super) owner: Owner,
    pub(super) other: Option<EndId>,
    pub(super) port: u16,
    pub(super) speed: Speed,
    out: VecDeque<Chunk>,
    out_len: usize,
    out_cap: usize,
    inbox: VecDeque<u8>,
    in_cap: usize,
    moving: bool,
    receiving: bool,
    /// The loop does not want to receive for now.
    paused: bool,
    send: Option<Payload>,
    polling: bool,
    /// Nothing more is sent after what is in the out-buffer.
    shut: bool,
    shut_moved: bool,
    /// The other end will send no more.
    fin: bool,
    finished: bool,
    pub(super) reset: bool,
    pub(super) closed: bool,
    /// Completions that the loop has not taken.
    pending: VecDeque<Event<Vec<u8>>>,
    /// Bytes that the loop has taken from it.
    pub(super) delivered: u64,
}

/// The result of a scripted peer's read.
#[derive(Debug, Default)]
pub(super) struct Reading {
    pub(super) bytes: Vec<u8>,
    pub(super) finished: bool,
    pub(super) reset: bool,
    pub(super) more: bool,
}

#[derive(Debug)]
struct Listener {
    tag: u32,
    port: u16,
    open: bool,
    resting: bool,
    backlog: VecDeque<EndId>,
}

#[derive(Debug)]
struct RegionState {
    segment: Arc<Segment>,
    sends: u32,
    released: bool,
}

/// The kernel's side of one loop.
#[derive(Debug, Default)]
pub(super) struct LoopState {
    socks: Vec<(u32, Option<EndId>)>,
    free: Vec<u32>,
    listeners: Vec<Listener>,
    regions: Vec<Option<RegionState>>,
    /// Ends with completions to take.
    busy: Vec<EndId>,
    accepts: Vec<Event<Vec<u8>>>,
    /// Results of file operations that are not delivered yet, in the order of the requests.
    files: VecDeque<Event<Vec<u8>>>,
    pub(super) events: VecDeque<Event<Vec<u8>>>,
    pub(super) called: Arc<Call>,
}

/// A loop's wake.
#[derive(Debug, Default)]
pub(super) struct Call(AtomicBool);

impl Wake for Call {
    fn wake(&self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

impl LoopState {
    pub(super) fn has_work(&self) -> bool {
        !self.busy.is_empty()
            || !self.accepts.is_empty()
            || !self.events.is_empty()
            || self.called.0.load(Ordering::Relaxed)
    }

    pub(super) fn open_socks(&self) -> usize {
        self.socks.iter().filter(|(_, end)| end.is_some()).count()
    }

    pub(super) fn held_regions(&self) -> usize {
        self.regions.iter().flatten().count()
    }

    fn forget_if_done(&mut self, region: Region) {
        let slot = &mut self.regions[region.0 as usize];
        if slot.as_ref().is_some_and(|state| state.released && state.sends == 0) {
            *slot = None;
        }
    }
}

/// Everything outside the loops.
#[derive(Debug)]
pub(super) struct World {
    pub(super) now: Millis,
    pub(super) rng: Rng,
    pub(super) trace: bool,
    pub(super) loops: Vec<LoopState>,
    pub(super) ends: Vec<End>,
    agenda: BinaryHeap<Reverse<(Millis, u64, Action)>>,
    /// While true, accepts and connects may fail and connections break.
    pub(super) troubled: bool,
    /// The loops' threads use all of their cores.
    pub(super) busy: bool,
    pub(super) out_cap: usize,
    /// The line is slow from and to this loop and all later ones.
    pub(super) slow_from: usize,
}

impl World {
    pub(super) fn new(seed: u64, trace: bool) -> Self {
        Self {
            now: 1,
            rng: Rng::new(seed),
            trace,
            loops: Vec::new(),
            ends: Vec::new(),
            agenda: BinaryHeap::new(),
            troubled: false,
            busy: false,
            out_cap: 16 << 10,
            slow_from: usize::MAX,
        }
    }

    pub(super) fn log(&self, what: impl FnOnce() -> String) {
        if self.trace {
            eprintln!("{:>7} {}", self.now, what());
        }
    }

    pub(super) fn at(&mut self, at: Millis, action: Action) {
        let tie = self.rng.next();
        self.agenda.push(Reverse((at, tie, action)));
    }

    fn within(&mut self, from: Millis, to: Millis, action: Action) {
        let at = self.now + self.rng.range(from, to);
        self.at(at, action);
    }

    pub(super) fn next_action(&self) -> Option<Millis> {
        self.agenda.peek().map(|Reverse((at, ..))| *at)
    }

    /// The next action that is due now.
    pub(super) fn take_action(&mut self) -> Option<Action> {
        if self.next_action()? > self.now {
            return None;
        }
        self.agenda.pop().map(|Reverse((_, _, action))| action)
    }

    /// Executes actions of the network; returns those of the scripted peers.
    pub(super) fn act(&mut self, action: Action) -> Option<Action> {
        match action {
            Action::Move(end) => self.move_bytes(end),
            Action::Receive(end) => self.receive(end),
            Action::Send(end) => self.complete_send(end),
            Action::Close(end) => self.complete_close(end),
            Action::Connect(end) => self.complete_connect(end),
            Action::Knock(end, port) => self.knock(end, port),
            Action::File(at) => self.complete_file(at),
            Action::Fault => self.break_a_pull(),
            Action::Read(_) | Action::Timer(_) => return Some(action),
        }
        None
    }

    fn add_end(&mut self, owner: Owner, port: u16, speed: Speed, out_cap: usize, in_cap: usize) -> EndId {
        self.ends.push(End {
            owner,
            other: None,
            port,
            speed,
            out: VecDeque::new(),
            out_len: 0,
            out_cap,
            inbox: VecDeque::new(),
            in_cap,
            moving: false,
            receiving: false,
            paused: false,
            send: None,
            polling: false,
            shut: false,
            shut_moved: false,
            fin: false,
            finished: false,
            reset: false,
            closed: false,
            pending: VecDeque::new(),
            delivered: 0,
        });
        self.ends.len() - 1
    }

    // The scripted peers' side.

    /// A scripted peer connects; `from_server` is the speed of bytes to it, with an in-buffer of `in_cap`
    /// bytes.
    pub(super) fn dial(&mut self, peer: usize, port: u16, from_server: Speed, in_cap: usize) -> EndId {
        let delay = (0, self.rng.pick(&[1, 5, 30]));
        let piece = self.rng.pick(&[100, 3_000, 64 << 10]);
        let mine = self.add_end(Owner::Peer(peer), port, Speed { delay, piece }, usize::MAX, in_cap);
        let out_cap = self.out_cap;
        let theirs = self.add_end(Owner::Nobody, port, from_server, out_cap, 64 << 10);
        self.ends[mine].other = Some(theirs);
        self.ends[theirs].other = Some(mine);
        self.within(0, 20, Action::Knock(theirs, port));
        mine
    }

    pub(super) fn say(&mut self, end: EndId, bytes: Bytes) {
        let state = &mut self.ends[end];
        if state.closed || state.reset || bytes.is_empty() {
            return;
        }
        state.out_len += bytes.len();
        state.out.push_back(Chunk::Bytes(bytes));
        self.kick(end);
    }

    /// A scripted peer reads up to `max` bytes.
    pub(super) fn read(&mut self, end: EndId, max: usize) -> Reading {
        let state = &mut self.ends[end];
        let len = state.inbox.len().min(max);
        let bytes: Vec<u8> = state.inbox.drain(..len).collect();
        let empty = state.inbox.is_empty();
        let reading = Reading { bytes, finished: state.fin && empty, reset: state.reset, more: !empty };
        if let Some(other) = state.other {
            self.kick(other);
        }
        reading
    }

    /// A scripted peer will send no more.
    pub(super) fn finish(&mut self, end: EndId) {
        self.ends[end].shut = true;
        self.kick(end);
    }

    /// A scripted peer closes its connection: what it has sent still arrives.
    pub(super) fn hang_up(&mut self, end: EndId) {
        let unread = !self.ends[end].inbox.is_empty();
        self.ends[end].shut = true;
        self.ends[end].closed = true;
        self.ends[end].inbox.clear();
        self.kick(end);
        if unread {
            self.reset_other(end);
        }
    }

    /// A scripted peer's connection is reset: what it sent last may be lost.
    pub(super) fn tear(&mut self, end: EndId) {
        let state = &mut self.ends[end];
        state.closed = true;
        state.out.clear();
        state.out_len = 0;
        state.inbox.clear();
        self.reset_other(end);
    }

    // The network.

    fn kick(&mut self, end: EndId) {
        let state = &mut self.ends[end];
        let something = state.out_len > 0 || (state.shut && !state.shut_moved);
        if state.moving || !something || state.reset || state.owner == Owner::Nobody {
            return;
        }
        state.moving = true;
        let delay = state.speed.delay;
        self.within(delay.0, delay.1, Action::Move(end));
    }

    fn move_bytes(&mut self, end: EndId) {
        self.ends[end].moving = false;
        let Some(other) = self.ends[end].other else { return };
        if self.ends[end].reset {
            return;
        }
        if self.ends[other].closed && self.ends[end].out_len > 0 {
            self.reset_other(other);
            return;
        }
        let space = self.ends[other].in_cap.saturating_sub(self.ends[other].inbox.len());
        let piece = self.ends[end].speed.piece;
        let mut len = self.rng.size(1, piece).min(space).min(self.ends[end].out_len);
        let mut out = std::mem::take(&mut self.ends[end].out);
        self.ends[end].out_len -= len;
        while len > 0 {
            let chunk = out.front_mut().expect("the queue is as long as counted");
            let take = len.min(chunk.len());
            chunk.take(take, &mut self.ends[other].inbox);
            len -= take;
            if chunk.len() == 0 {
                out.pop_front();
            }
        }
        let state = &mut self.ends[end];
        state.out = out;
        if state.out_len == 0 && state.shut && !state.shut_moved {
            state.shut_moved = true;
            self.ends[other].fin = true;
        }
        self.tell_writable(end);
        self.arrived(other);
        if self.ends[other].inbox.len() < self.ends[other].in_cap {
            self.kick(end);
        }
    }

    /// There is something to read at this end.
    fn arrived(&mut self, end: EndId) {
        match self.ends[end].owner {
            Owner::Peer(peer) => self.at(self.now, Action::Read(peer)),
            Owner::Loop(..) => {
                if !self.ends[end].receiving {
                    self.ends[end].receiving = true;
                    self.within(0, 1, Action::Receive(end));
                }
            }
            Owner::Nobody => {}
        }
    }

    /// The end `dead` is gone: its other end is reset.
    fn reset_other(&mut self, dead: EndId) {
        let Some(end) = self.ends[dead].other else { return };
        let state = &mut self.ends[end];
        if state.reset {
            return;
        }
        state.reset = true;
        state.out.clear();
        state.out_len = 0;
        self.tell_writable(end);
        self.arrived(end);
    }

    fn break_a_pull(&mut self) {
        let pulls: Vec<EndId> = (0..self.ends.len())
            .filter(|end| self.ends[*end].other.is_some() && !self.ends[*end].closed)
            .filter(|end| matches!(self.ends[*end].owner, Owner::Loop(..)) && self.is_between_loops(*end))
            .collect();
        if pulls.is_empty() {
            return;
        }
        let end = self.rng.pick(&pulls);
        self.log(|| format!("the network breaks the connection of end {end}"));
        let other = self.ends[end].other.expect("filtered");
        self.reset_other(end);
        self.reset_other(other);
    }

    fn is_between_loops(&self, end: EndId) -> bool {
        let other = self.ends[end].other.map(|other| self.ends[other].owner);
        matches!(other, Some(Owner::Loop(..)))
    }

    // The loops' side.

    pub(super) fn add_loop(&mut self, listeners: &[(u32, u16)]) -> usize {
        let listener =
            |&(tag, port)| Listener { tag, port, open: true, resting: false, backlog: VecDeque::new() };
        self.loops
            .push(LoopState { listeners: listeners.iter().map(listener).collect(), ..LoopState::default() });
        self.loops.len() - 1
    }

    fn add_sock(&mut self, at: usize, end: EndId) -> Sock {
        let state = &mut self.loops[at];
        let index = state.free.pop().unwrap_or_else(|| {
            state.socks.push((0, None));
            u32::try_from(state.socks.len() - 1).expect("few")
        });
        let slot = &mut state.socks[index as usize];
        slot.1 = Some(end);
        let sock = Sock { index, generation: slot.0 };
        self.ends[end].owner = Owner::Loop(at, sock);
        sock
    }

    /// The end of a socket, if that name is still valid.
    pub(super) fn end_of(&self, at: usize, sock: Sock) -> Option<EndId> {
        let (generation, end) = self.loops[at].socks.get(sock.index as usize)?;
        if *generation == sock.generation { *end } else { None }
    }

    fn complete(&mut self, end: EndId, event: Event<Vec<u8>>) {
        let Owner::Loop(at, _) = self.ends[end].owner else { unreachable!("only loops get events") };
        self.ends[end].pending.push_back(event);
        self.loops[at].busy.push(end);
    }

    /// Moves some completions, at least one if there are any, into the loop's queue: those of one socket in
    /// order, those of different sockets in random order.
    pub(super) fn take_completions(&mut self, at: usize) {
        if self.loops[at].called.0.swap(false, Ordering::Relaxed) {
            self.loops[at].events.push_back(Event::Woken);
        }
        for event in std::mem::take(&mut self.loops[at].accepts) {
            self.loops[at].events.push_back(event);
        }
        while !self.loops[at].busy.is_empty() {
            let place = self.rng.size(0, self.loops[at].busy.len() - 1);
            let end = self.loops[at].busy.swap_remove(place);
            if let Some(event) = self.ends[end].pending.pop_front() {
                if let Event::Closed { sock } = event {
                    self.free_sock(at, sock);
                }
                self.loops[at].events.push_back(event);
            }
            if self.rng.chance(150) {
                break;
            }
        }
    }

    fn free_sock(&mut self, at: usize, sock: Sock) {
        let slot = &mut self.loops[at].socks[sock.index as usize];
        assert_eq!(slot.0, sock.generation, "a socket is closed once");
        *slot = (slot.0 + 1, None);
        self.loops[at].free.push(sock.index);
    }

    pub(super) fn set_receiving(&mut self, at: usize, sock: Sock, on: bool) {
        let end = self.open_end(at, sock);
        assert!(self.ends[end].paused == on, "only a change is told");
        self.ends[end].paused = !on;
        if on {
            self.arrived(end);
        }
    }

    fn receive(&mut self, end: EndId) {
        self.ends[end].receiving = false;
        let Owner::Loop(_, sock) = self.ends[end].owner else { return };
        if self.ends[end].closed || self.ends[end].finished || self.ends[end].paused {
            return;
        }
        // A reset may or may not discard what has arrived before it.
        let lost = self.ends[end].reset && self.rng.chance(500);
        if lost {
            self.ends[end].inbox.clear();
        }
        let available = self.ends[end].inbox.len();
        if available > 0 {
            let most = self.rng.pick(&[7, 1_500, 16 << 10]);
            let len = self.rng.size(1, most).min(available);
            let data: Vec<u8> = self.ends[end].inbox.drain(..len).collect();
            self.complete(end, Event::Received { sock, data });
            if let Some(other) = self.ends[end].other {
                self.kick(other);
            }
            self.arrived(end);
        } else if self.ends[end].reset || self.ends[end].fin {
            self.ends[end].finished = true;
            let error = self.ends[end].reset.then_some(Errno::CONNRESET);
            self.complete(end, Event::Finished { sock, error });
        }
    }

    fn tell_writable(&mut self, end: EndId) {
        let Owner::Loop(_, sock) = self.ends[end].owner else { return };
        let state = &mut self.ends[end];
        let has_space = state.reset || state.out_len <= state.out_cap / 2;
        if state.polling && has_space && !state.closed {
            state.polling = false;
            self.complete(end, Event::Writable { sock });
        }
    }

    pub(super) fn poll(&mut self, at: usize, sock: Sock) {
        let end = self.open_end(at, sock);
        assert!(!self.ends[end].polling, "one poll at a time");
        assert!(self.ends[end].send.is_none(), "no poll during a send");
        self.ends[end].polling = true;
        self.tell_writable(end);
    }

    fn open_end(&self, at: usize, sock: Sock) -> EndId {
        let end = self.end_of(at, sock).expect("an open socket is used");
        assert!(!self.ends[end].closed, "a closed socket is not used");
        end
    }

    pub(super) fn send(&mut self, at: usize, sock: Sock, payload: Payload) {
        let end = self.open_end(at, sock);
        assert!(self.ends[end].send.is_none(), "one send at a time");
        assert!(!self.ends[end].polling, "no send during a poll");
        assert!(!self.ends[end].shut, "no send after a shutdown");
        match &payload {
            Payload::Bytes(bytes) => assert!(!bytes.is_empty(), "an empty send"),
            Payload::File { len, .. } => assert!(*len > 0 && *len <= FILE_SEND_MAX, "a bounded send"),
            Payload::Region { region, from, len, .. } => {
                let state = self.loops[at].regions[region.0 as usize].as_mut().expect("the region is held");
                assert!(!state.released, "no send from a released region");
                assert!(*len > 0, "an empty send");
                let end = *from as usize + *len as usize;
                assert!(end <= state.segment.bytes().len(), "only published bytes are sent");
                state.sends += 1;
            }
        }
        self.ends[end].send = Some(payload);
        let delay = if self.rng.chance(900) { 0 } else { self.rng.range(0, 20) };
        self.within(0, delay, Action::Send(end));
    }

    fn complete_send(&mut self, end: EndId) {
        let Owner::Loop(at, sock) = self.ends[end].owner else { unreachable!("a loop's") };
        let Some(payload) = self.ends[end].send.take() else { return };
        let space = self.ends[end].out_cap - self.ends[end].out_len;
        let result = if self.ends[end].reset {
            Err(SendError::Broken(Errno::PIPE))
        } else if space == 0 || self.rng.chance(20) {
            Err(SendError::Full)
        } else {
            let most = if self.rng.chance(100) { self.rng.size(1, 2_000) } else { usize::MAX };
            Ok(self.accept_bytes(end, at, &payload, space.min(most)))
        };
        self.drop_send(at, &payload);
        if !self.ends[end].closed {
            self.complete(end, Event::Sent { sock, result });
        }
        self.kick(end);
    }

    fn accept_bytes(&mut self, end: EndId, at: usize, payload: &Payload, space: usize) -> u32 {
        let mut chunks = Vec::new();
        match payload {
            Payload::Bytes(bytes) => chunks.push(Chunk::Bytes(bytes.slice(..space.min(bytes.len())))),
            Payload::Region { head, region, from, len } => {
                let head = head.as_slice();
                let of_head = head.len().min(space);
                chunks.push(Chunk::Bytes(Bytes::copy_from_slice(&head[..of_head])));
                let of_log = (*len as usize).min(space - of_head);
                let from = *from as usize;
                let state = self.loops[at].regions[region.0 as usize].as_ref().expect("held");
                chunks.push(Chunk::Region(Arc::clone(&state.segment), from, from + of_log));
            }
            Payload::File { head, file, from, len } => {
                let of_head = head.len().min(space);
                chunks.push(Chunk::Bytes(head.slice(..of_head)));
                let mut bytes = vec![0; (*len as usize).min(space - of_head)];
                let read = file.read_at(*from, &mut bytes).expect("a file can be read");
                bytes.truncate(read);
                chunks.push(Chunk::Bytes(bytes.into()));
            }
        }
        let state = &mut self.ends[end];
        chunks.retain(|chunk| chunk.len() > 0);
        let taken: usize = chunks.iter().map(Chunk::len).sum();
        state.out_len += taken;
        state.out.extend(chunks);
        u32::try_from(taken).expect("bounded by the buffer")
    }

    /// A send is over: its region may be released.
    fn drop_send(&mut self, at: usize, payload: &Payload) {
        if let Payload::Region { region, .. } = payload {
            let state = self.loops[at].regions[region.0 as usize].as_mut().expect("held by the send");
            state.sends -= 1;
            self.loops[at].forget_if_done(*region);
        }
    }

    /// Delivers the result of a file operation to a loop after a while.
    pub(super) fn later(&mut self, at: usize, event: Event<Vec<u8>>) {
        self.loops[at].files.push_back(event);
        self.within(0, 20, Action::File(at));
    }

    /// Any of the results that are due is delivered first, as with threads.
    fn complete_file(&mut self, at: usize) {
        let last = self.loops[at].files.len() - 1;
        let place = self.rng.size(0, last);
        let event = self.loops[at].files.remove(place).expect("there is one for each action");
        self.loops[at].accepts.push(event);
    }

    pub(super) fn shutdown(&mut self, at: usize, sock: Sock) {
        let end = self.open_end(at, sock);
        self.ends[end].shut = true;
        self.kick(end);
    }

    pub(super) fn close(&mut self, at: usize, sock: Sock) {
        let end = self.open_end(at, sock);
        if self.rng.chance(500) {
            self.complete_send(end); // it was faster than the close
        }
        if let Some(payload) = self.ends[end].send.take() {
            self.drop_send(at, &payload);
        }
        let state = &mut self.ends[end];
        state.closed = true;
        state.polling = false;
        state.shut = true;
        state.pending.clear();
        let unread = !state.inbox.is_empty();
        state.inbox.clear();
        if unread {
            self.reset_other(end);
        }
        self.kick(end);
        self.within(0, 5, Action::Close(end));
    }

    fn complete_close(&mut self, end: EndId) {
        let Owner::Loop(_, sock) = self.ends[end].owner else { unreachable!("a loop's") };
        self.complete(end, Event::Closed { sock });
    }

    pub(super) fn hold(&mut self, at: usize, segment: &Arc<Segment>) -> Region {
        let state = &mut self.loops[at];
        let held = RegionState { segment: Arc::clone(segment), sends: 0, released: false };
        let free = state.regions.iter().position(Option::is_none).unwrap_or(state.regions.len());
        state.regions.resize_with(state.regions.len().max(free + 1), || None);
        state.regions[free] = Some(held);
        Region(u32::try_from(free).expect("few"))
    }

    pub(super) fn release(&mut self, at: usize, region: Region) {
        let state = self.loops[at].regions[region.0 as usize].as_mut().expect("the region is held");
        assert!(!std::mem::replace(&mut state.released, true), "a region is released once");
        self.loops[at].forget_if_done(region);
    }

    pub(super) fn connect(&mut self, at: usize, port: u16) -> Sock {
        let speed = self.speed_between_loops(at, port);
        let end = self.add_end(Owner::Nobody, port, speed, 64 << 10, 256 << 10);
        let sock = self.add_sock(at, end);
        let late = if self.troubled && self.rng.chance(100) { 3_000 } else { 20 };
        self.within(0, late, Action::Connect(end));
        sock
    }

    fn speed_between_loops(&mut self, at: usize, port: u16) -> Speed {
        if self.slow_from < usize::MAX && (at >= self.slow_from || is_far(port)) {
            return Speed { delay: (5, 40), piece: 4_000 };
        }
        Speed { delay: (0, self.rng.pick(&[0, 2, 20])), piece: 64 << 10 }
    }

    fn complete_connect(&mut self, end: EndId) {
        if self.ends[end].closed {
            return;
        }
        let Owner::Loop(at, sock) = self.ends[end].owner else { unreachable!("a loop's") };
        let port = self.ends[end].port;
        let listened = |state: &LoopState| state.listeners.iter().any(|l| l.port == port && l.open);
        if !self.loops.iter().any(listened) || (self.troubled && self.rng.chance(200)) {
            self.complete(end, Event::Connected { sock, result: Err(Errno::CONNREFUSED) });
            return;
        }
        let (speed, out_cap) = (self.speed_between_loops(at, port), self.out_cap.max(64 << 10));
        let other = self.add_end(Owner::Nobody, port, speed, out_cap, 64 << 10);
        self.ends[end].other = Some(other);
        self.ends[other].other = Some(end);
        self.complete(end, Event::Connected { sock, result: Ok(()) });
        self.knock(other, port);
    }

    fn knock(&mut self, end: EndId, port: u16) {
        let open: Vec<(usize, usize)> = (0..self.loops.len())
            .flat_map(|at| (0..self.loops[at].listeners.len()).map(move |place| (at, place)))
            .filter(|&(at, place)| {
                let listener = &self.loops[at].listeners[place];
                listener.port == port && listener.open
            })
            .collect();
        if open.is_empty() {
            self.reset_other(end);
            return;
        }
        let (at, place) = self.rng.pick(&open);
        self.loops[at].listeners[place].backlog.push_back(end);
        self.accept(at, place);
    }

    fn accept(&mut self, at: usize, place: usize) {
        while !self.loops[at].listeners[place].resting {
            let tag = self.loops[at].listeners[place].tag;
            let Some(end) = self.loops[at].listeners[place].backlog.pop_front() else { return };
            if self.troubled && self.rng.chance(100) {
                let listener = &mut self.loops[at].listeners[place];
                listener.resting = true;
                listener.backlog.push_front(end);
                self.loops[at].accepts.push(Event::AcceptFailed { listener: tag, error: Errno::MFILE });
                self.log(|| format!("loop {at} has no descriptor for listener {tag}"));
                return;
            }
            let sock = self.add_sock(at, end);
            self.loops[at].accepts.push(Event::Accepted { listener: tag, sock });
            self.arrived(end);
            self.kick(end);
            if let Some(other) = self.ends[end].other {
                self.kick(other);
            }
        }
    }

    pub(super) fn resume_accept(&mut self, at: usize, tag: u32) {
        let listeners = &mut self.loops[at].listeners;
        let Some(place) = listeners.iter().position(|listener| listener.tag == tag) else { return };
        assert!(listeners[place].resting || !listeners[place].open, "only a listener that rests is resumed");
        if listeners[place].open {
            listeners[place].resting = false;
            self.accept(at, place);
        }
    }

    pub(super) fn stop_accept(&mut self, at: usize) {
        for place in 0..self.loops[at].listeners.len() {
            let listener = &mut self.loops[at].listeners[place];
            listener.open = false;
            for end in std::mem::take(&mut listener.backlog) {
                self.reset_other(end);
            }
        }
    }
}
