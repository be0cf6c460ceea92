//! Connections that wait for a stream by its name, in the order in which they came.
//!
//! Adding a connection, removing it and finding all that wait for one stream take time logarithmic in their
//! number, however many wait for other streams.

use std::collections::{BTreeMap, HashMap};

use crate::live::key::StreamKey;
use crate::uring::Sock;

/// The place of one waiting connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Ticket(u64);

/// The waiting connections of a loop, for all its roles.
#[derive(Debug, Default)]
pub(super) struct Askers {
    by_stream: HashMap<(usize, StreamKey), BTreeMap<u64, Sock>>,
    next: u64,
}

impl Askers {
    /// The connection starts to wait.
    pub(super) fn add(&mut self, role: usize, key: &StreamKey, sock: Sock) -> Ticket {
        let ticket = self.next;
        self.next += 1;
        self.by_stream.entry((role, key.clone())).or_default().insert(ticket, sock);
        Ticket(ticket)
    }

    /// The connection stops waiting; does nothing if it was taken out already.
    pub(super) fn remove(&mut self, role: usize, key: &StreamKey, ticket: Ticket) {
        let place = (role, key.clone());
        let Some(waiting) = self.by_stream.get_mut(&place) else { return };
        waiting.remove(&ticket.0);
        if waiting.is_empty() {
            self.by_stream.remove(&place);
        }
    }

    /// The streams that at least one connection waits for, with their roles.
    pub(super) fn streams(&self) -> Vec<(usize, StreamKey)> {
        let mut streams: Vec<_> = self.by_stream.keys().cloned().collect();
        streams.sort_unstable();
        streams
    }

    /// Takes out all connections that wait for a stream, in the order in which they came.
    pub(super) fn take(&mut self, role: usize, key: &StreamKey) -> Vec<Sock> {
        self.by_stream.remove(&(role, key.clone())).map_or_else(Vec::new, |all| all.into_values().collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_waiting_for_one_stream_are_taken_in_order() {
        let key = |name| StreamKey::parse(name).unwrap();
        let sock = |index| Sock { index, generation: 0 };
        let mut askers = Askers::default();
        let first = askers.add(0, &key("live/a"), sock(9));
        askers.add(0, &key("live/a"), sock(1));
        askers.add(1, &key("live/a"), sock(2));
        let gone = askers.add(0, &key("live/b"), sock(3));
        askers.remove(0, &key("live/b"), gone);
        assert_eq!(askers.take(0, &key("live/b")), []);
        assert_eq!(askers.take(0, &key("live/a")), [sock(9), sock(1)]);
        askers.remove(0, &key("live/a"), first);
        assert_eq!(askers.take(1, &key("live/a")), [sock(2)]);
        assert!(askers.by_stream.is_empty());
    }
}
