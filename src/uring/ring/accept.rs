//! Listeners: incoming connections, and where their descriptors are kept.

use std::net::TcpListener;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

use io_uring::opcode;
use io_uring::types::{CancelBuilder, Fd};
use rustix::io::Errno;

use super::Uring;
use crate::uring::engine::Event;
use crate::uring::op::Op;
use crate::uring::sockets::{Listener, errno};

/// Accepts under way on a listener if each takes one connection only.
const SINGLE_ACCEPTS: u32 = 32;

impl Uring {
    /// Accepts on `socket` from now on; its connections carry `tag`.
    pub fn listen(&mut self, socket: TcpListener, tag: u32) {
        self.listeners.push(Listener { tag, socket: Some(socket), armed: 0, resting: false });
        self.accept(tag);
    }

    /// Submits the accepts that a listener lacks: one multishot accept, or several that take one connection
    /// each.
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
        // SAFETY: the kernel has just made this descriptor for us, and no other code has it.
        let fd = unsafe { OwnedFd::from_raw_fd(result) };
        let descriptor = self.places.put(&self.ring.submitter(), fd);
        let sock = self.add_sock(descriptor);
        self.events.push_back(Event::Accepted { listener, sock });
        self.receive_first(sock);
    }

    pub(super) fn accept_ended(&mut self, listener: u32, result: i32) {
        if result >= 0 {
            self.accepted(listener, result);
        }
        let state = self.listener(listener).expect("a listener stays in the table");
        state.armed -= 1;
        match errno(result) {
            // It was a single one, or the kernel ended it for its own reasons, or the peer had left already.
            None | Some(Errno::CONNABORTED | Errno::INTR | Errno::PROTO) => self.accept(listener),
            Some(Errno::CANCELED) => {}
            // Reported once: with single accepts others may fail with it.
            Some(error) if !std::mem::replace(&mut state.resting, true) => {
                self.events.push_back(Event::AcceptFailed { listener, error });
            }
            Some(_) => {}
        }
    }
}
