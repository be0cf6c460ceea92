//! Completions: each ends an operation, or is one of several results of it.

use bytes::Bytes;
use io_uring::cqueue;

use super::Uring;
use crate::uring::engine::Event;
use crate::uring::files;
use crate::uring::op::{NOBODY, Op};
use crate::uring::send;

impl Uring {
    /// Handles what has completed. Handling may fill the submission queue and call this again: the inner call
    /// only makes space in the queue, or newer bytes would be reported before older ones.
    pub(super) fn reap(&mut self) {
        self.collect();
        if std::mem::replace(&mut self.reaping, true) {
            return;
        }
        while let Some((place, result, flags)) = self.completions.pop_front() {
            if place != NOBODY {
                self.complete(u32::try_from(place).expect("a place in the table"), result, flags);
            }
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
                self.regions.end_send(region);
                self.sent(sock, result);
            }
            Op::SendZeroCopy { sock, region, taken } => {
                self.regions.end_send(region);
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
}
