//! A connection's life: how it is made, what it receives and sends, how it ends.

use std::net::SocketAddr;

use bytes::Bytes;
use io_uring::types::Fixed;
use io_uring::{cqueue, opcode, squeue};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType};

use super::Uring;
use crate::uring::buffers::{self, RecvBuf};
use crate::uring::engine::{Event, SendError, Sock};
use crate::uring::op::Op;
use crate::uring::sockets::{Descriptor, SockState, Target, WAIT_RECEIVE, WAITS, errno};

impl Uring {
    pub(super) fn add_sock(&mut self, descriptor: Descriptor) -> Sock {
        let (index, generation) = self.socks.insert(SockState::new(descriptor));
        Sock { index, generation }
    }

    /// Starts an operation on an open socket: counts it and gives the entry its descriptor.
    pub(super) fn begin(&mut self, sock: Sock, op: Op, build: impl FnOnce(&Op, Target) -> squeue::Entry) {
        let Some(state) = self.state(sock).filter(|state| !state.closing) else {
            if let Op::SendRegion { region, .. }
            | Op::SendMessage { region, .. }
            | Op::SendZeroCopy { region, .. } = op
            {
                self.regions.end_send(region);
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

    /// Counts an operation's end; `true` if the socket is still open, so that its user gets the event.
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

    /// Receives, unless it does already or is not wanted to.
    pub(super) fn receive(&mut self, sock: Sock) {
        let Some(state) = self.state(sock) else { return };
        if state.paused || state.closing || std::mem::replace(&mut state.receiving, true) {
            return;
        }
        self.begin(sock, Op::Receive { sock }, |_, target| match target {
            Target::Process(fd) => opcode::RecvMulti::new(fd, buffers::GROUP).build(),
            Target::Direct(fixed) => opcode::RecvMulti::new(fixed, buffers::GROUP).build(),
        });
    }

    /// Takes what a new connection has sent already. Most of those that are short have sent all of it, and then need no
    /// receive that waits for more and has to be cancelled.
    pub(super) fn receive_first(&mut self, sock: Sock) {
        let state = self.state(sock).expect("just accepted");
        state.receiving = true;
        // No length: the buffer that the kernel takes has its own.
        let (none, len) = (std::ptr::null_mut(), 0);
        self.begin(sock, Op::Receive { sock }, |_, target| {
            let entry = match target {
                Target::Process(fd) => opcode::Recv::new(fd, none, len),
                Target::Direct(fixed) => opcode::Recv::new(fixed, none, len),
            };
            let entry = entry.flags(libc::MSG_DONTWAIT).buf_group(buffers::GROUP).build();
            entry.flags(squeue::Flags::BUFFER_SELECT)
        });
    }

    /// Stops receiving, or starts again.
    pub(super) fn turn_receiving(&mut self, sock: Sock, on: bool) {
        // Space is made before the operation is looked up, as for a close.
        self.make_room(1);
        let Some(state) = self.state(sock).filter(|state| !state.closing) else { return };
        state.paused = !on;
        if on {
            self.receive(sock);
        } else if let Some(place) = state.waits[WAIT_RECEIVE].filter(|_| state.receiving) {
            self.submit(Op::Cancel, |_| opcode::AsyncCancel::new(u64::from(place)).build());
        }
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
        self.state(sock).expect("a socket stays until its last operation ended").receiving = false;
        if !self.done(sock) {
            return;
        }
        match (errno(result), data) {
            (None, Some(data)) if result > 0 => {
                self.events.push_back(Event::Received { sock, data });
                self.resuming.push(sock);
            }
            (None, _) => self.events.push_back(Event::Finished { sock, error: None }),
            (Some(Errno::NOBUFS), _) => self.starve(sock),
            // Cancelled: it was turned off, and perhaps on again.
            (Some(Errno::INTR | Errno::AGAIN | Errno::CANCELED), _) => self.receive(sock),
            (Some(error), _) => self.events.push_back(Event::Finished { sock, error: Some(error) }),
        }
    }

    /// A receive ended for lack of buffers: it starts again when the buffers already reported are returned,
    /// with more buffers unless some were added in this turn already.
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
        let descriptor = self.places.put_in_process(fd);
        let sock = self.add_sock(descriptor);
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
        // Succeeds even if the peer has left; the kernel caps the size.
        let set = rustix::net::sockopt::set_socket_send_buffer_size(fd, bytes as usize);
        debug_assert!(set.is_ok(), "SO_SNDBUF on a socket: {set:?}");
    }

    pub(super) fn end_writes(&mut self, sock: Sock) {
        let Some(state) = self.state(sock) else { return };
        debug_assert!(!state.sending, "all is sent before the goodbye");
        if let Some(fd) = state.of_process() {
            // By a direct system call: on the ring a shutdown always goes to a kernel thread, which costs more
            // than all the rest of a short connection. If the peer has left already, none is needed.
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
        // Space is made before the operations are looked up: what completes meanwhile may be among them, and
        // the cancel below would then name an operation that has reused the place.
        self.make_room(WAITS);
        let Some(state) = self.state(sock) else { return };
        if std::mem::replace(&mut state.closing, true) {
            return;
        }
        if state.inflight == 0 {
            self.give_up(sock);
            return;
        }
        // By name, not by descriptor: for a descriptor the kernel looks at every operation of the ring.
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
        self.places.free(state.descriptor);
        self.events.push_back(Event::Closed { sock });
    }
}
