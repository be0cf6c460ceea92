//! Connections that wait for something of a stream, by its name, in the order in which they came.
//!
//! Joining, leaving and finding those of one stream cost the logarithm of their number, whatever others wait for.

use std::collections::{BTreeMap, HashMap};

use crate::live::key::StreamKey;
use crate::uring::Sock;

/// The place of one that waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Ticket(u64);

/// Who waits, of all roles of a loop.
#[derive(Debug, Default)]
pub(super) struct Askers {
    by_stream: HashMap<(usize, StreamKey), BTreeMap<u64, Sock>>,
    next: u64,
}

impl Askers {
    /// A connection waits from here on.
    pub(super) fn add(&mut self, role: usize, key: &StreamKey, sock: Sock) -> Ticket {
        let ticket = self.next;
        self.next += 1;
        self.by_stream.entry((role, key.clone())).or_default().insert(ticket, sock);
        Ticket(ticket)
    }

    /// A connection does not wait any more; nothing happens if it was taken out already.
    pub(super) fn remove(&mut self, role: usize, key: &StreamKey, ticket: Ticket) {
        let place = (role, key.clone());
        let Some(waiting) = self.by_stream.get_mut(&place) else { return };
        waiting.remove(&ticket.0);
        if waiting.is_empty() {
            self.by_stream.remove(&place);
        }
    }

    /// The streams that anybody waits for, by role.
    pub(super) fn streams(&self) -> Vec<(usize, StreamKey)> {
        let mut streams: Vec<_> = self.by_stream.keys().cloned().collect();
        streams.sort_unstable();
        streams
    }

    /// Takes out all who wait for a stream, those first who came first.
    pub(super) fn take(&mut self, role: usize, key: &StreamKey) -> Vec<Sock> {
        self.by_stream.remove(&(role, key.clone())).map_or_else(Vec::new, |all| all.into_values().collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn those_of_one_stream_are_found_in_order_and_no_others() {
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
