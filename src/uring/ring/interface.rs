//! The engine's interface, implemented on the ring.

use std::net::SocketAddr;
use std::os::fd::AsFd;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use io_uring::opcode;
use rustix::io::Errno;

use super::Uring;
use crate::memory::Segment;
use crate::uring::buffers::RecvBuf;
use crate::uring::clock::{Millis, thread_cpu_time};
use crate::uring::engine::{Engine, Event, Payload, ReceiveBuffers, Region, Sock};
use crate::uring::files::{self, FileSend, Folder, OpenFile, Opening};
use crate::uring::op::Op;
use crate::uring::sockets::queued;

/// The most calls in a row to let the kernel do its pending work for us.
const TASK_ROUNDS: usize = 64;

impl Engine for Uring {
    type Buf = RecvBuf;

    fn now(&self) -> Millis {
        self.clock.now()
    }

    fn cpu_time(&self) -> Duration {
        thread_cpu_time()
    }

    fn connect(&mut self, to: SocketAddr) -> Result<Sock, Errno> {
        self.connect_to(to)
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
            Payload::Region { head, region, from, len } if head.is_empty() => {
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
        self.end_writes(sock);
    }

    fn close(&mut self, sock: Sock) {
        self.close_sock(sock);
    }

    fn peer(&self, sock: Sock) -> Option<SocketAddr> {
        self.socks.get(sock.index)?.peer()
    }

    fn hold(&mut self, segment: &Arc<Segment>) -> Region {
        self.regions.hold(&self.ring.submitter(), segment)
    }

    fn release(&mut self, region: Region) {
        self.regions.release(region);
    }

    fn open_file(&mut self, folder: &Arc<Folder>, path: &str, ticket: u64) {
        let opening = Opening::new(ticket, Arc::clone(folder), path);
        self.submit(Op::OpenFile(opening), |op| {
            let Op::OpenFile(opening) = op else { unreachable!("as made") };
            opening.entry()
        });
    }

    fn load_file(&mut self, file: &Rc<OpenFile>, from: u64, len: u32, ticket: u64) {
        let bytes = Vec::with_capacity(len as usize);
        self.submit(Op::LoadFile { ticket, _file: Rc::clone(file), bytes }, |op| {
            let Op::LoadFile { _file: file, bytes, .. } = op else { unreachable!("as made") };
            files::read_entry(file, from, bytes)
        });
    }

    fn queued(&self, sock: Sock) -> Option<u32> {
        queued(self.socks.get(sock.index)?.of_process()?.as_fd())
    }

    fn set_send_buffer(&mut self, sock: Sock, bytes: u32) {
        self.bound_send_buffer(sock, bytes);
    }

    fn cold_reads(&self) -> u64 {
        self.cold_reads
    }

    fn receive_buffers(&self) -> ReceiveBuffers {
        ReceiveBuffers { count: self.received.buffers().into(), starvations: self.starvations }
    }

    fn set_receiving(&mut self, sock: Sock, on: bool) {
        self.turn_receiving(sock, on);
    }

    fn resume_accept(&mut self, listener: u32) {
        self.accept_again(listener);
    }

    fn stop_accept(&mut self) {
        self.close_listeners();
    }

    fn wait(&mut self, until: Option<Millis>) {
        for sock in std::mem::take(&mut self.starved) {
            self.receive(sock);
        }
        while let Some(sock) = self.resuming.pop() {
            self.receive(sock);
        }
        self.regions.empty_slots(&self.ring.submitter());
        let now = self.now();
        if self.events.is_empty() && self.regions.stale.is_empty() {
            // Without a deadline: long enough to cost nothing, short enough to limit the damage of a lost
            // wake-up.
            let millis = until.map_or(10_000, |until| until.saturating_sub(now));
            self.enter(Some(Duration::from_millis(millis)));
        } else if std::mem::replace(&mut self.looked, now) == now {
            self.enter(None);
        } else {
            // Sends from the loop give events all the time: completions in the kernel must not wait for them to
            // stop.
            self.enter(Some(Duration::ZERO));
        }
        // The kernel handles a few of the pending receives and accepts at each call (twenty, since 6.13): with
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
