//! Bytes that wait to be sent on a connection that is no viewer.

use std::collections::VecDeque;

use bytes::{Buf, Bytes};

/// The most that may wait for a peer that does not read, in bytes.
const OUTBOX_MAX: usize = 1 << 20;

/// Bytes that wait, in order, and whether the connection ends after them.
#[derive(Debug, Default)]
pub(in crate::server) struct Outbox {
    queue: VecDeque<Bytes>,
    bytes: usize,
    /// A send or a poll is under way.
    busy: bool,
    /// The connection ends once all is sent.
    last: bool,
}

impl Outbox {
    /// Queues bytes; `false` if the peer has let too much pile up.
    #[must_use]
    pub(in crate::server) fn push(&mut self, bytes: Bytes) -> bool {
        if !bytes.is_empty() {
            self.bytes += bytes.len();
            self.queue.push_back(bytes);
        }
        self.bytes <= OUTBOX_MAX || self.queue.len() == 1
    }

    /// Nothing more is to be said after what waits: the connection ends.
    pub(in crate::server) fn close(&mut self) {
        self.last = true;
    }

    /// Whether the peer has been told its last words, or they wait to be sent.
    pub(in crate::server) fn is_closed(&self) -> bool {
        self.last
    }

    /// What to send now, if nothing is under way.
    pub(in crate::server) fn next(&mut self) -> Option<Bytes> {
        if self.busy {
            return None;
        }
        let bytes = self.queue.front()?.clone();
        self.busy = true;
        Some(bytes)
    }

    /// The socket took so many bytes.
    pub(in crate::server) fn sent(&mut self, bytes: usize) {
        self.busy = false;
        self.bytes -= bytes;
        let front = self.queue.front_mut().expect("what was sent stands in front");
        front.advance(bytes);
        if front.is_empty() {
            self.queue.pop_front();
        }
    }

    /// The socket has capacity again.
    pub(in crate::server) fn writable(&mut self) {
        self.busy = false;
    }

    /// Whether all is sent.
    pub(in crate::server) fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    /// Bytes that wait.
    pub(in crate::server) fn bytes(&self) -> usize {
        self.bytes
    }
}
