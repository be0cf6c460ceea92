//! Sockets: where their descriptors live, how they come, what they receive and how they go.

use std::net::{SocketAddr, TcpListener};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

use bytes::Bytes;
use io_uring::types::{CancelBuilder, Fd, Fixed};
use io_uring::{cqueue, opcode, squeue};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType};

use super::buffers::{self, RecvBuf};
use super::ring::{Op, Uring};
use super::send::SEND_FLAGS;
use super::{Event, SendError, Sock};

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

#[derive(Debug)]
pub(super) struct Listener {
    pub(super) tag: u32,
    pub(super) socket: Option<TcpListener>,
    /// Accepts that are under way.
    pub(super) armed: u32,
    /// An accept failed: no new ones until [`super::Engine::resume_accept`].
    resting: bool,
}

/// Accepts under way on a listener where each takes one connection only.
const SINGLE_ACCEPTS: u32 = 32;

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
    pub(super) waits: [Option<u32>; WAITS],
}

/// Operations of a socket that may wait for its peer at a time: one that brings bytes or the connection, and a
/// poll.
const WAITS: usize = 2;

impl Uring {
    /// Accepts on `socket` from now on; its connections carry `tag`.
    pub fn listen(&mut self, socket: TcpListener, tag: u32) {
        self.listeners.push(Listener { tag, socket: Some(socket), armed: 0, resting: false });
        self.accept(tag);
    }

    /// Arms what is missing of a listener's accepts: one that goes on, or several that take one connection each.
    pub(super) fn accept(&mut self, listener: u32) {
        let single = self.workarounds.single_accepts;
        let Some(state) = self.listener(listener).filter(|state| !state.resting) else { return };
        let Some(socket) = &state.socket else { return };
        let fd = Fd(socket.as_raw_fd());
        let missing = (if single { SINGLE_ACCEPTS } else { 1 }).saturating_sub(state.armed);
        state.armed += missing;
        let flags = libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK;
        for _ in 0..missing {
            self.submit(Op::Accept { listener }, |_| match single {
                true => {
                    opcode::Accept::new(fd, std::ptr::null_mut(), std::ptr::null_mut()).flags(flags).build()
                }
                false => opcode::AcceptMulti::new(fd).flags(flags).build(),
            });
        }
    }

    fn listener(&mut self, tag: u32) -> Option<&mut Listener> {
        self.listeners.iter_mut().find(|listener| listener.tag == tag)
    }

    pub(super) fn accept_again(&mut self, listener: u32) {
        if let Some(state) = self.listener(listener) {
            state.resting = false;
        }
        self.accept(listener);
    }

    pub(super) fn close_listeners(&mut self) {
        let sockets: Vec<_> =
            self.listeners.iter_mut().filter_map(|listener| listener.socket.take()).collect();
        for socket in sockets {
            let cancel = CancelBuilder::fd(Fd(socket.as_raw_fd())).all();
            self.submit(Op::Cancel, |_| opcode::AsyncCancel2::new(cancel).build());
            self.flush(); // before the descriptor is closed
        }
    }

    pub(super) fn accepted(&mut self, listener: u32, result: i32) {
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

    pub(super) fn accept_ended(&mut self, listener: u32, result: i32) {
        if result >= 0 {
            self.accepted(listener, result);
        }
        let state = self.listener(listener).expect("a listener stays in the table");
        state.armed -= 1;
        match errno(result) {
            // It was a single one, or the kernel ended it for reasons of its own, or the peer was gone already.
            None | Some(Errno::CONNABORTED | Errno::INTR | Errno::PROTO) => self.accept(listener),
            Some(Errno::CANCELED) => {}
            // Told once: with single accepts others may fail with it.
            Some(error) if !std::mem::replace(&mut state.resting, true) => {
                self.events.push_back(Event::AcceptFailed { listener, error });
            }
            Some(_) => {}
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

    pub(super) fn receive(&mut self, sock: Sock) {
        self.begin(sock, Op::Receive { sock }, |_, target| match target {
            Target::Process(fd) => opcode::RecvMulti::new(fd, buffers::GROUP).build(),
            Target::Direct(fixed) => opcode::RecvMulti::new(fixed, buffers::GROUP).build(),
        });
    }

    /// Bytes came and the receive goes on.
    pub(super) fn received(&mut self, sock: Sock, result: i32, flags: u32) {
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

    pub(super) fn receive_ended(&mut self, sock: Sock, result: i32, flags: u32) {
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
            (Some(Errno::NOBUFS), _) => self.starve(sock),
            (Some(Errno::INTR | Errno::AGAIN), _) => self.receive(sock),
            (Some(error), _) => self.events.push_back(Event::Finished { sock, error: Some(error) }),
        }
    }

    /// A receive ended for want of buffers: it starts again when those that were told of are used, with more of
    /// them if the same turn did not add some already.
    fn starve(&mut self, sock: Sock) {
        self.starvations += 1;
        if self.starved.is_empty() {
            self.received.grow();
        }
        self.starved.push(sock);
    }

    pub(super) fn connected(&mut self, sock: Sock, result: i32) {
        if self.done(sock) {
            let result = errno(result).map_or(Ok(()), Err);
            self.events.push_back(Event::Connected { sock, result });
            if result.is_ok() {
                self.receive(sock);
            }
        }
    }

    pub(super) fn sent(&mut self, sock: Sock, result: i32) {
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

    pub(super) fn connect_to(&mut self, to: SocketAddr) -> Result<Sock, Errno> {
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

    pub(super) fn bound_send_buffer(&mut self, sock: Sock, bytes: u32) {
        let Some(fd) = self.state(sock).and_then(|state| state.of_process()) else { return };
        // A socket whose peer is gone refuses nothing here either; the sizes are the kernel's to cut.
        let set = rustix::net::sockopt::set_socket_send_buffer_size(fd, bytes as usize);
        debug_assert!(set.is_ok(), "SO_SNDBUF on a socket: {set:?}");
    }

    pub(super) fn end_writes(&mut self, sock: Sock) {
        let Some(state) = self.state(sock) else { return };
        debug_assert!(!state.sending, "all is sent before the goodbye");
        if let Some(fd) = state.of_process() {
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

    pub(super) fn close_sock(&mut self, sock: Sock) {
        // Room is made before the operations are looked up: what completes meanwhile may be among them,
        // and the cancel below would name whatever has got its place since.
        self.make_room(WAITS);
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

    /// All operations of a closing socket have ended: close the descriptor.
    fn give_up(&mut self, sock: Sock) {
        match self.state(sock).expect("closing").descriptor {
            Descriptor::Process(_) => self.closed(sock),
            Descriptor::Direct(slot, _) => {
                self.submit(Op::Close { sock }, |_| opcode::Close::new(Fixed(slot)).build());
            }
        }
    }

    pub(super) fn closed(&mut self, sock: Sock) {
        let state = self.socks.remove(sock.index).expect("a socket is closed once");
        debug_assert_eq!(state.inflight, 0);
        match state.descriptor {
            Descriptor::Process(_) => self.in_process -= 1,
            Descriptor::Direct(slot, _) => self.direct_free.push(slot),
        }
        self.events.push_back(Event::Closed { sock });
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
    /// The peer's address.
    pub(super) fn peer(&self) -> Option<SocketAddr> {
        match &self.descriptor {
            Descriptor::Process(fd) => peer_of(fd),
            Descriptor::Direct(_, peer) => *peer,
        }
    }

    /// Its descriptor, if that stands in the process's table.
    pub(super) fn of_process(&self) -> Option<&OwnedFd> {
        match &self.descriptor {
            Descriptor::Process(fd) => Some(fd),
            Descriptor::Direct(..) => None,
        }
    }

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

pub(super) fn errno(result: i32) -> Option<Errno> {
    (result < 0).then(|| Errno::from_raw_os_error(-result))
}
