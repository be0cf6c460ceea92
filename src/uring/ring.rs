//! The engine on a real ring: one per loop, used by its thread alone.

use std::collections::VecDeque;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use io_uring::types::{CancelBuilder, Fd, Fixed, SubmitArgs, Timespec};
use io_uring::{Builder, IoUring, cqueue, opcode, squeue};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType};

use super::buffers::{self, BufferRing, RecvBuf};
use super::files::{self, FileSend, Folder, OpenFile, Opening, Scratch};
use super::mailbox::EventFd;
use super::send::{self, Chooser, Message, SEND_FLAGS, SendPath};
use super::slab::Slab;
use super::{Engine, Event, Millis, Payload, Region, SendError, Sock};
use crate::memory::Segment;

/// Entries of the submission queue: larger batches cost more, not less.
const SUBMISSIONS: u32 = 512;
/// Entries of the completion queue; the kernel keeps what does not fit.
const COMPLETIONS: u32 = 8192;
/// Slots for registered memory.
const REGISTERED_MAX: u32 = 4096;
/// Calls in a row for what the kernel has to do for us.
const TASK_ROUNDS: usize = 64;
/// How often the drop of an engine looks for the completions of what it cancelled.
const DROP_ROUNDS: usize = 100;

/// The ring's set-up, the same for the probe and for the loops.
pub(super) fn builder() -> Builder<squeue::Entry, cqueue::Entry> {
    let mut builder = IoUring::builder();
    builder
        .setup_single_issuer()
        .setup_defer_taskrun()
        .setup_taskrun_flag()
        .setup_submit_all()
        .setup_cqsize(COMPLETIONS);
    builder
}

/// Where accepted sockets live: in the process's descriptor table, and beyond a number of them in the ring's
/// own, where they do not count against the process's limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Descriptors {
    /// Sockets of this ring in the process's table.
    pub process: usize,
    /// Places in the ring's table; the kernel bounds it by the process's limit as well.
    pub direct: u32,
}

impl Descriptors {
    /// All in the process's table.
    pub const PROCESS: Self = Self { process: usize::MAX, direct: 0 };

    /// How many sockets that makes.
    pub const fn capacity(self) -> usize {
        self.process.saturating_add(self.direct as usize)
    }
}

/// The engine on a real ring.
pub struct Uring {
    ring: IoUring,
    started: Instant,
    inflight: Slab<Op>,
    socks: Slab<SockState>,
    listeners: Vec<Listener>,
    pub(super) regions: Slab<RegionState>,
    /// Free slots of the ring's table of registered memory.
    fixed_free: Vec<u16>,
    received: Rc<BufferRing>,
    /// Sockets whose receive ended for want of buffers.
    starved: Vec<Sock>,
    pub(super) events: VecDeque<Event<RecvBuf>>,
    /// Completions that were taken off the ring, in its order, and whether somebody is handling them.
    completions: VecDeque<(u64, i32, u32)>,
    reaping: bool,
    eventfd: Arc<EventFd>,
    pub(super) chooser: Chooser,
    /// Sockets that live in the process's table, and how many may before the ring's is used.
    in_process: usize,
    process_max: usize,
    /// Free places of the ring's table of descriptors.
    direct_free: Vec<u32>,
    pub(super) scratch: Rc<Scratch>,
    pub(super) cold_reads: u64,
    /// When completions were asked for while there were events.
    looked: Millis,
}

#[derive(Debug)]
struct Listener {
    tag: u32,
    socket: Option<TcpListener>,
}

#[derive(Debug)]
enum Descriptor {
    Process(OwnedFd),
    /// A place in the ring's table, and the peer, for which there is nobody to ask any more.
    Direct(u32, Option<SocketAddr>),
}

#[derive(Debug)]
pub(super) struct SockState {
    descriptor: Descriptor,
    inflight: u16,
    pub(super) closing: bool,
    pub(super) sending: bool,
    /// Places of the operations that wait for the peer, which a close cancels.
    waits: [Option<u32>; WAITS],
}

#[derive(Debug)]
pub(super) struct RegionState {
    pub(super) segment: Arc<Segment>,
    pub(super) fixed: Option<u16>,
    pub(super) inflight: u32,
    released: bool,
}

/// An operation under way, with all memory it uses: it stays here until the last completion.
#[derive(Debug)]
pub(super) enum Op {
    Accept {
        listener: u32,
    },
    Receive {
        sock: Sock,
    },
    Connect {
        sock: Sock,
        _address: Box<socket2::SockAddr>,
    },
    Send {
        sock: Sock,
        _bytes: Bytes,
    },
    SendRegion {
        sock: Sock,
        region: Region,
    },
    SendMessage {
        sock: Sock,
        region: Region,
        message: Box<Message>,
    },
    /// `taken`: the first completion has come; the memory is the kernel's until the second one.
    SendZeroCopy {
        sock: Sock,
        region: Region,
        taken: bool,
    },
    Poll {
        sock: Sock,
    },
    Shutdown {
        sock: Sock,
    },
    Cancel,
    Close {
        sock: Sock,
    },
    ReadWake {
        _value: Box<[u8; 8]>,
    },
    OpenFile(Opening),
    LoadFile {
        ticket: u64,
        _file: Rc<OpenFile>,
        bytes: Vec<u8>,
    },
    /// Reads a cold stretch before it is sent.
    ReadAhead {
        sock: Sock,
        send: Box<FileSend>,
        _scratch: Rc<Scratch>,
    },
    /// Reads a stretch for a socket that `sendfile(2)` cannot name.
    CopyFile {
        sock: Sock,
        send: Box<FileSend>,
        bytes: Vec<u8>,
    },
}

/// Operations of a socket that may wait for its peer at a time: one that brings bytes or the connection, and a
/// poll.
const WAITS: usize = 2;

impl Op {
    /// The socket whose peer it waits for, and which of its waits it is.
    fn wait(&self) -> Option<(Sock, usize)> {
        match self {
            Self::Receive { sock } | Self::Connect { sock, .. } => Some((*sock, 0)),
            Self::Poll { sock } => Some((*sock, 1)),
            _ => None,
        }
    }
}

impl std::fmt::Debug for Uring {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Uring")
            .field("sockets", &self.socks.len())
            .field("inflight", &self.inflight.len())
            .finish_non_exhaustive()
    }
}

impl Uring {
    /// A ring for the calling thread, which alone may use it. `eventfd` calls it from elsewhere, which gives
    /// [`Event::Woken`]; its clock counts from `started`, the same for all loops of a process.
    ///
    /// # Errors
    /// What the kernel says; [`super::probe::probe`] says it better.
    pub fn new(
        descriptors: Descriptors,
        path: SendPath,
        eventfd: Arc<EventFd>,
        started: Instant,
    ) -> io::Result<Self> {
        let ring = builder().build(SUBMISSIONS)?;
        let received = BufferRing::register(&ring)?;
        files::bound_workers(&ring);
        let fixed = ring.submitter().register_buffers_sparse(REGISTERED_MAX).is_ok();
        if descriptors.direct > 0 {
            ring.submitter().register_files_sparse(descriptors.direct)?;
        }
        let mut engine = Self {
            ring,
            started,
            inflight: Slab::new(),
            socks: Slab::new(),
            listeners: Vec::new(),
            regions: Slab::new(),
            #[expect(clippy::cast_possible_truncation, reason = "REGISTERED_MAX is small")]
            fixed_free: if fixed { (0..REGISTERED_MAX as u16).rev().collect() } else { Vec::new() },
            received,
            starved: Vec::new(),
            events: VecDeque::new(),
            completions: VecDeque::new(),
            reaping: false,
            eventfd,
            chooser: Chooser::new(path),
            in_process: 0,
            process_max: descriptors.process,
            direct_free: (0..descriptors.direct).rev().collect(),
            scratch: Scratch::new()?,
            cold_reads: 0,
            looked: 0,
        };
        engine.read_wake();
        Ok(engine)
    }

    /// Accepts on `socket` from now on; its connections carry `tag`.
    pub fn listen(&mut self, socket: TcpListener, tag: u32) {
        self.listeners.push(Listener { tag, socket: Some(socket) });
        self.resume_accept(tag);
    }

    /// Open sockets.
    pub fn sockets(&self) -> usize {
        self.socks.len()
    }

    /// Puts an operation and what it owns into the table and its entry into the queue.
    fn submit(&mut self, op: Op, build: impl FnOnce(&Op) -> squeue::Entry) -> u32 {
        let (place, _) = self.inflight.insert(op);
        let entry = build(self.inflight.get(place).expect("just put in")).user_data(u64::from(place));
        loop {
            // SAFETY: all memory that the entry points to belongs to the operation in `inflight` (or to a
            // region that counts it, or to the receive pool) and stays until its last completion was taken
            // in `complete`; a cancelled operation completes too.
            if unsafe { self.ring.submission().push(&entry) }.is_ok() {
                return place;
            }
            self.enter(None);
            self.reap();
        }
    }

    /// Hands the queue to the kernel; waits for a completion if `wait` says until when.
    fn enter(&mut self, wait: Option<Duration>) {
        let result = match wait {
            None => self.ring.submit(),
            Some(timeout) => {
                let timespec = Timespec::from(timeout);
                let args = SubmitArgs::new().timespec(&timespec);
                self.ring.submitter().submit_with_args(1, &args)
            }
        };
        match result {
            Ok(_) => {}
            // Timed out; interrupted; completions must be taken first.
            Err(error) if matches!(error.raw_os_error(), Some(libc::ETIME | libc::EINTR | libc::EBUSY)) => {}
            Err(error) => panic!("io_uring_enter: {error}"),
        }
    }

    /// Handles what has completed. Handling may fill the submission queue and end up in here again: that only
    /// makes room, or bytes that came later would be told of before those that came first.
    fn reap(&mut self) {
        self.completions
            .extend(self.ring.completion().map(|entry| (entry.user_data(), entry.result(), entry.flags())));
        if std::mem::replace(&mut self.reaping, true) {
            return;
        }
        while let Some((place, result, flags)) = self.completions.pop_front() {
            self.complete(u32::try_from(place).expect("a place in the table"), result, flags);
        }
        self.reaping = false;
    }

    fn complete(&mut self, place: u32, result: i32, flags: u32) {
        if cqueue::more(flags) {
            match self.inflight.get_mut(place) {
                Some(&mut Op::Accept { listener }) => self.accepted(listener, result),
                Some(&mut Op::Receive { sock }) => self.received(sock, result, flags),
                Some(Op::SendZeroCopy { sock, taken, .. }) => {
                    *taken = true;
                    let sock = *sock;
                    self.sent(sock, result);
                }
                other => unreachable!("{other:?} completes once"),
            }
            return;
        }
        let op = self.inflight.remove(place).expect("each operation ends once");
        if let Some((sock, wait)) = op.wait() {
            self.state(sock).expect("a socket stays until its last operation ended").waits[wait] = None;
        }
        match op {
            Op::Accept { listener } => self.accept_ended(listener, result),
            Op::Receive { sock } => self.receive_ended(sock, result, flags),
            Op::Connect { sock, .. } => self.connected(sock, result),
            Op::Send { sock, .. } => self.sent(sock, result),
            Op::SendRegion { sock, region } | Op::SendMessage { sock, region, .. } => {
                self.region_done(region);
                self.sent(sock, result);
            }
            Op::SendZeroCopy { sock, region, taken } => {
                self.region_done(region);
                if taken {
                    self.chooser.report(send::was_zero_copy(result));
                } else {
                    self.sent(sock, result);
                }
            }
            Op::Poll { sock } => {
                if self.done(sock) {
                    self.events.push_back(Event::Writable { sock });
                }
            }
            Op::Shutdown { sock } => {
                self.done(sock);
            }
            Op::Cancel => {}
            Op::Close { sock } => self.closed(sock),
            Op::ReadWake { .. } => {
                self.events.push_back(Event::Woken);
                self.read_wake();
            }
            Op::OpenFile(opening) => {
                let result = files::opened(result);
                self.events.push_back(Event::Opened { ticket: opening.ticket, result });
            }
            Op::LoadFile { ticket, bytes, .. } => {
                let result = files::filled(bytes, result).map(Bytes::from);
                self.events.push_back(Event::Loaded { ticket, result });
            }
            Op::ReadAhead { sock, send, .. } => self.read_ahead_done(sock, send, result),
            Op::CopyFile { sock, send, bytes } => self.send_copy(sock, &send, bytes, result),
        }
    }

    fn accepted(&mut self, listener: u32, result: i32) {
        if result < 0 {
            return;
        }
        // SAFETY: the kernel has just made this descriptor for us and gave it to nobody else.
        let fd = unsafe { OwnedFd::from_raw_fd(result) };
        let descriptor = self.place(fd);
        let sock = self.add_sock(descriptor);
        self.events.push_back(Event::Accepted { listener, sock });
        self.receive(sock);
    }

    /// Leaves a socket in the process's table, or moves it to the ring's.
    fn place(&mut self, fd: OwnedFd) -> Descriptor {
        let direct = self.direct_free.last().copied().filter(|_| self.in_process >= self.process_max);
        let Some(slot) = direct else { return Descriptor::Process(fd) };
        if self.ring.submitter().register_files_update(slot, &[fd.as_raw_fd()]).is_err() {
            return Descriptor::Process(fd);
        }
        self.direct_free.pop();
        Descriptor::Direct(slot, peer_of(&fd))
    }

    fn accept_ended(&mut self, listener: u32, result: i32) {
        if result >= 0 {
            self.accepted(listener, result);
        }
        match errno(result) {
            // The kernel ended the multishot for reasons of its own, or the peer was gone already.
            None | Some(Errno::CONNABORTED | Errno::INTR | Errno::PROTO) => self.resume_accept(listener),
            Some(Errno::CANCELED) => {}
            Some(error) => self.events.push_back(Event::AcceptFailed { listener, error }),
        }
    }

    fn add_sock(&mut self, descriptor: Descriptor) -> Sock {
        self.in_process += usize::from(matches!(descriptor, Descriptor::Process(_)));
        let state =
            SockState { descriptor, inflight: 0, closing: false, sending: false, waits: [None; WAITS] };
        let (index, generation) = self.socks.insert(state);
        Sock { index, generation }
    }

    pub(super) fn state(&mut self, sock: Sock) -> Option<&mut SockState> {
        self.socks.get_exact(sock.index, sock.generation)
    }

    /// Starts an operation on an open socket: counts it and gives the entry its descriptor.
    pub(super) fn begin(&mut self, sock: Sock, op: Op, build: impl FnOnce(&Op, Target) -> squeue::Entry) {
        let Some(state) = self.state(sock).filter(|state| !state.closing) else {
            if let Op::SendRegion { region, .. }
            | Op::SendMessage { region, .. }
            | Op::SendZeroCopy { region, .. } = op
            {
                self.region_done(region);
            }
            return;
        };
        state.inflight += 1;
        let target = state.target();
        let wait = op.wait();
        let place = self.submit(op, |op| build(op, target));
        if let Some((_, wait)) = wait {
            self.state(sock).expect("it has an operation under way").waits[wait] = Some(place);
        }
    }

    /// Counts an operation's end; `true` if the socket's user wants to hear of it.
    pub(super) fn done(&mut self, sock: Sock) -> bool {
        let state = self.state(sock).expect("a socket stays until its last operation ended");
        state.inflight -= 1;
        if !state.closing {
            return true;
        }
        if state.inflight == 0 {
            self.give_up(sock);
        }
        false
    }

    fn receive(&mut self, sock: Sock) {
        self.begin(sock, Op::Receive { sock }, |_, target| match target {
            Target::Process(fd) => opcode::RecvMulti::new(fd, buffers::GROUP).build(),
            Target::Direct(fixed) => opcode::RecvMulti::new(fixed, buffers::GROUP).build(),
        });
    }

    /// Bytes came and the receive goes on.
    fn received(&mut self, sock: Sock, result: i32, flags: u32) {
        let data = self.buffer(result, flags);
        let open = self.state(sock).is_some_and(|state| !state.closing);
        if let (Some(data), true) = (data, open) {
            self.events.push_back(Event::Received { sock, data });
        }
    }

    fn buffer(&self, result: i32, flags: u32) -> Option<RecvBuf> {
        let id = cqueue::buffer_select(flags)?;
        Some(self.received.take(id, usize::try_from(result).unwrap_or(0)))
    }

    fn receive_ended(&mut self, sock: Sock, result: i32, flags: u32) {
        let data = self.buffer(result, flags);
        if !self.done(sock) {
            return;
        }
        match (errno(result), data) {
            (None, Some(data)) if result > 0 => {
                self.events.push_back(Event::Received { sock, data });
                self.receive(sock);
            }
            (None, _) => self.events.push_back(Event::Finished { sock, error: None }),
            (Some(Errno::NOBUFS), _) => self.starved.push(sock),
            (Some(Errno::INTR | Errno::AGAIN), _) => self.receive(sock),
            (Some(error), _) => self.events.push_back(Event::Finished { sock, error: Some(error) }),
        }
    }

    fn connected(&mut self, sock: Sock, result: i32) {
        if self.done(sock) {
            let result = errno(result).map_or(Ok(()), Err);
            self.events.push_back(Event::Connected { sock, result });
            if result.is_ok() {
                self.receive(sock);
            }
        }
    }

    fn sent(&mut self, sock: Sock, result: i32) {
        if !self.done(sock) {
            return;
        }
        let result = match (u32::try_from(result), errno(result)) {
            (Ok(0), _) | (_, Some(Errno::AGAIN)) => Err(SendError::Full),
            (Ok(taken), _) => Ok(taken),
            (_, error) => Err(SendError::Broken(error.unwrap_or(Errno::IO))),
        };
        self.tell_sent(sock, result);
    }

    pub(super) fn tell_sent(&mut self, sock: Sock, result: Result<u32, SendError>) {
        self.state(sock).expect("open").sending = false;
        self.events.push_back(Event::Sent { sock, result });
    }

    pub(super) fn send_bytes(&mut self, sock: Sock, bytes: Bytes) {
        let (base, len) = (bytes.as_ptr(), u32::try_from(bytes.len()).unwrap_or(u32::MAX));
        self.begin(sock, Op::Send { sock, _bytes: bytes }, |_, target| target.send(base, len));
    }

    /// All operations of a closing socket have ended: close the descriptor.
    fn give_up(&mut self, sock: Sock) {
        match self.state(sock).expect("closing").descriptor {
            Descriptor::Process(_) => self.closed(sock),
            Descriptor::Direct(slot, _) => {
                self.submit(Op::Close { sock }, |_| opcode::Close::new(Fixed(slot)).build());
            }
        }
    }

    fn closed(&mut self, sock: Sock) {
        let state = self.socks.remove(sock.index).expect("a socket is closed once");
        debug_assert_eq!(state.inflight, 0);
        match state.descriptor {
            Descriptor::Process(_) => self.in_process -= 1,
            Descriptor::Direct(slot, _) => self.direct_free.push(slot),
        }
        self.events.push_back(Event::Closed { sock });
    }

    pub(super) fn region_done(&mut self, region: Region) {
        let state = self.regions.get_mut(region.0).expect("a region stays while sends use it");
        state.inflight -= 1;
        if state.inflight == 0 && state.released {
            self.forget_region(region);
        }
    }

    fn forget_region(&mut self, region: Region) {
        let state = self.regions.remove(region.0).expect("a region is forgotten once");
        if let Some(slot) = state.fixed {
            let empty = libc::iovec { iov_base: std::ptr::null_mut(), iov_len: 0 };
            // SAFETY: an empty vector takes the memory out of the slot; no operation uses it any more.
            let updated =
                unsafe { self.ring.submitter().register_buffers_update(u32::from(slot), &[empty], None) };
            if updated.is_ok() {
                self.fixed_free.push(slot);
            }
        }
    }

    /// Registers a segment's memory in a free slot.
    fn register(&mut self, slot: u16, segment: &Segment) -> bool {
        let base = segment.base().as_ptr().cast();
        let vector = libc::iovec { iov_base: base, iov_len: segment.capacity() };
        // SAFETY: the region that is being made keeps the segment, and with it the mapping, until the slot
        // is emptied in `forget_region`, or until the ring is gone.
        let registered =
            unsafe { self.ring.submitter().register_buffers_update(u32::from(slot), &[vector], None) };
        if registered.is_err() {
            self.fixed_free.clear(); // no more memory may be locked: plain sends from here on
        }
        registered.is_ok()
    }

    fn read_wake(&mut self) {
        let fd = Fd(self.eventfd.as_fd().as_raw_fd());
        self.submit(Op::ReadWake { _value: Box::new([0; 8]) }, |op| {
            let Op::ReadWake { _value: value } = op else { unreachable!("as made") };
            opcode::Read::new(fd, value.as_ptr().cast_mut(), 8).build()
        });
    }
}

/// A descriptor as an entry takes it.
#[derive(Clone, Copy)]
pub(super) enum Target {
    Process(Fd),
    Direct(Fixed),
}

impl Target {
    pub(super) fn with(
        self,
        process: impl FnOnce(Fd) -> squeue::Entry,
        direct: impl FnOnce(Fixed) -> squeue::Entry,
    ) -> squeue::Entry {
        match self {
            Self::Process(fd) => process(fd),
            Self::Direct(fixed) => direct(fixed),
        }
    }

    pub(super) fn send(self, base: *const u8, len: u32) -> squeue::Entry {
        self.with(
            |fd| opcode::Send::new(fd, base, len).flags(SEND_FLAGS).build(),
            |fd| opcode::Send::new(fd, base, len).flags(SEND_FLAGS).build(),
        )
    }
}

impl SockState {
    pub(super) fn target(&self) -> Target {
        match &self.descriptor {
            Descriptor::Process(fd) => Target::Process(Fd(fd.as_raw_fd())),
            Descriptor::Direct(slot, _) => Target::Direct(Fixed(*slot)),
        }
    }
}

fn peer_of(fd: &OwnedFd) -> Option<SocketAddr> {
    SocketAddr::try_from(rustix::net::getpeername(fd).ok().flatten()?).ok()
}

fn errno(result: i32) -> Option<Errno> {
    (result < 0).then(|| Errno::from_raw_os_error(-result))
}

impl Engine for Uring {
    type Buf = RecvBuf;

    fn now(&self) -> Millis {
        u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    fn cpu_time(&self) -> Duration {
        let used = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
        Duration::try_from(used).unwrap_or_default()
    }

    fn connect(&mut self, to: SocketAddr) -> Result<Sock, Errno> {
        let family = if to.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let fd = rustix::net::socket_with(family, SocketType::STREAM, flags, None)?;
        rustix::net::sockopt::set_tcp_nodelay(&fd, true)?;
        let sock = self.add_sock(Descriptor::Process(fd));
        let op = Op::Connect { sock, _address: Box::new(to.into()) };
        self.begin(sock, op, |op, target| {
            let Op::Connect { _address: address, .. } = op else { unreachable!("as made") };
            let (pointer, len) = (address.as_ptr().cast(), address.len());
            target.with(
                |fd| opcode::Connect::new(fd, pointer, len).build(),
                |fd| opcode::Connect::new(fd, pointer, len).build(),
            )
        });
        Ok(sock)
    }

    fn send(&mut self, sock: Sock, payload: Payload) {
        let Some(state) = self.state(sock).filter(|state| !state.closing) else { return };
        assert!(!state.sending, "one send at a time per socket");
        state.sending = true;
        match payload {
            Payload::Bytes(bytes) => self.send_bytes(sock, bytes),
            Payload::File { head, file, from, len } => {
                self.send_file(sock, FileSend { head, file, from, len, read: 0 });
            }
            Payload::Region { head, region, from, len } if head.as_slice().is_empty() => {
                self.send_region(sock, region, from, len);
            }
            Payload::Region { head, region, from, len } => self.send_message(sock, head, region, from, len),
        }
    }

    fn poll_writable(&mut self, sock: Sock) {
        let events = libc::POLLOUT as u32;
        self.begin(sock, Op::Poll { sock }, |_, target| {
            target.with(
                |fd| opcode::PollAdd::new(fd, events).build(),
                |fd| opcode::PollAdd::new(fd, events).build(),
            )
        });
    }

    fn shutdown_write(&mut self, sock: Sock) {
        let Some(state) = self.state(sock) else { return };
        debug_assert!(!state.sending, "all is sent before the goodbye");
        if let Descriptor::Process(fd) = &state.descriptor {
            // By a call of our own: on the ring a shutdown always goes to a thread of the kernel's, which costs more
            // than all the rest of a short connection. A peer that is gone already needs none.
            let _ = rustix::net::shutdown(fd, rustix::net::Shutdown::Write);
            return;
        }
        self.begin(sock, Op::Shutdown { sock }, |_, target| {
            target.with(
                |fd| opcode::Shutdown::new(fd, libc::SHUT_WR).build(),
                |fd| opcode::Shutdown::new(fd, libc::SHUT_WR).build(),
            )
        });
    }

    fn close(&mut self, sock: Sock) {
        let room = {
            let queue = self.ring.submission();
            queue.capacity() - queue.len()
        };
        if room < WAITS {
            // Room is made before the operations are looked up: what completes meanwhile may be among them,
            // and the cancel below would name whatever has got its place since.
            self.enter(None);
            self.reap();
        }
        let Some(state) = self.state(sock) else { return };
        if std::mem::replace(&mut state.closing, true) {
            return;
        }
        if state.inflight == 0 {
            self.give_up(sock);
            return;
        }
        // By name, not by descriptor: for the latter the kernel looks at every operation of the ring.
        for place in state.waits.into_iter().flatten() {
            self.submit(Op::Cancel, |_| opcode::AsyncCancel::new(u64::from(place)).build());
        }
    }

    fn peer(&self, sock: Sock) -> Option<SocketAddr> {
        match &self.socks.get(sock.index)?.descriptor {
            Descriptor::Process(fd) => peer_of(fd),
            Descriptor::Direct(_, peer) => *peer,
        }
    }

    fn hold(&mut self, segment: &Arc<Segment>) -> Region {
        let fixed = self.fixed_free.pop().filter(|slot| self.register(*slot, segment));
        let segment = Arc::clone(segment);
        let (place, _) = self.regions.insert(RegionState { segment, fixed, inflight: 0, released: false });
        Region(place)
    }

    fn release(&mut self, region: Region) {
        let state = self.regions.get_mut(region.0).expect("a region is released once");
        state.released = true;
        if state.inflight == 0 {
            self.forget_region(region);
        }
    }

    fn open_file(&mut self, folder: &Arc<Folder>, path: &str, ticket: u64) {
        let opening = Opening::new(ticket, Arc::clone(folder), path);
        self.submit(Op::OpenFile(opening), |op| {
            let Op::OpenFile(opening) = op else { unreachable!("as made") };
            opening.entry()
        });
    }

    fn load_file(&mut self, file: &Rc<OpenFile>, len: u32, ticket: u64) {
        let bytes = Vec::with_capacity(len as usize);
        self.submit(Op::LoadFile { ticket, _file: Rc::clone(file), bytes }, |op| {
            let Op::LoadFile { _file: file, bytes, .. } = op else { unreachable!("as made") };
            files::read_entry(file, 0, bytes)
        });
    }

    fn queued(&self, sock: Sock) -> Option<u32> {
        match &self.socks.get(sock.index)?.descriptor {
            Descriptor::Process(fd) => files::queued(fd.as_fd()),
            Descriptor::Direct(..) => None,
        }
    }

    fn cold_reads(&self) -> u64 {
        self.cold_reads
    }

    fn resume_accept(&mut self, listener: u32) {
        let found = self.listeners.iter().find(|candidate| candidate.tag == listener);
        let Some(socket) = found.and_then(|found| found.socket.as_ref()) else { return };
        let fd = Fd(socket.as_raw_fd());
        self.submit(Op::Accept { listener }, |_| {
            opcode::AcceptMulti::new(fd).flags(libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK).build()
        });
    }

    fn stop_accept(&mut self) {
        let sockets: Vec<_> =
            self.listeners.iter_mut().filter_map(|listener| listener.socket.take()).collect();
        for socket in sockets {
            let cancel = CancelBuilder::fd(Fd(socket.as_raw_fd())).all();
            self.submit(Op::Cancel, |_| opcode::AsyncCancel2::new(cancel).build());
            self.enter(None); // before the descriptor is closed
        }
    }

    fn wait(&mut self, until: Option<Millis>) {
        for sock in std::mem::take(&mut self.starved) {
            self.receive(sock);
        }
        let now = self.now();
        if self.events.is_empty() {
            // Without a deadline: long enough not to matter, short enough to bear a lost wake.
            let millis = until.map_or(10_000, |until| until.saturating_sub(now));
            self.enter(Some(Duration::from_millis(millis)));
        } else if std::mem::replace(&mut self.looked, now) == now {
            self.enter(None);
        } else {
            // Sends from the loop give events all the time: what the kernel has must not wait for their end.
            self.enter(Some(Duration::ZERO));
        }
        // The kernel does a few of the receives and accepts that are due at each call (twenty, since 6.13): with
        // hundreds of sends between two calls the rest would pile up for seconds.
        for _ in 0..TASK_ROUNDS {
            if !self.ring.submission().taskrun() {
                break;
            }
            self.enter(Some(Duration::ZERO));
        }
        self.reap();
    }

    fn next_event(&mut self) -> Option<Event<RecvBuf>> {
        self.events.pop_front()
    }
}

impl Drop for Uring {
    fn drop(&mut self) {
        self.events.clear();
        self.submit(Op::Cancel, |_| opcode::AsyncCancel2::new(CancelBuilder::any()).build());
        for _ in 0..DROP_ROUNDS {
            if self.inflight.len() == 0 {
                break;
            }
            self.enter(Some(Duration::from_millis(10)));
            let completions: Vec<_> =
                self.ring.completion().map(|entry| (entry.user_data(), entry.flags())).collect();
            for (place, flags) in completions {
                if !cqueue::more(flags) {
                    self.inflight.remove(u32::try_from(place).unwrap_or(u32::MAX));
                }
            }
        }
        if self.inflight.len() > 0 || self.ring.submitter().unregister_buf_ring(buffers::GROUP).is_err() {
            // The kernel may still write to what we own: better lost than reused.
            std::mem::forget(Rc::clone(&self.received));
            std::mem::forget(std::mem::replace(&mut self.inflight, Slab::new()));
            std::mem::forget(std::mem::replace(&mut self.regions, Slab::new()));
        }
    }
}
