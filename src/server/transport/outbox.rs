//! Bytes that wait to be sent on a connection that is not a viewer.

use std::collections::VecDeque;

use bytes::{Buf, Bytes};

/// The most bytes that may wait for a peer that does not read.
const OUTBOX_MAX: usize = 1 << 20;

/// Queued bytes in order, and whether the connection ends after them.
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
    /// Queues bytes; `false` if too many are waiting.
    #[must_use]
    pub(in crate::server) fn push(&mut self, bytes: Bytes) -> bool {
        if !bytes.is_empty() {
            self.bytes += bytes.len();
            self.queue.push_back(bytes);
        }
        self.bytes <= OUTBOX_MAX || self.queue.len() == 1
    }

    /// Nothing more will be queued: the connection ends after what waits.
    pub(in crate::server) fn close(&mut self) {
        self.last = true;
    }

    /// Whether the connection ends after what waits or was sent.
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

    /// The socket took `bytes` bytes.
    pub(in crate::server) fn sent(&mut self, bytes: usize) {
        self.busy = false;
        self.bytes -= bytes;
        let front = self.queue.front_mut().expect("what was sent is at the front");
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
