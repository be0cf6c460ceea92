//! Whose file is fetched next: client addresses have their turns one after the other, so that one that asks for
//! thousands of files does not keep the others waiting.

use std::collections::{HashMap, VecDeque};
use std::net::IpAddr;

use crate::protocol::http::RelPath;

/// Files that may wait, counted once for each address that waits for one.
const WAITING_MAX: usize = 1 << 16;
/// Files that may wait for one address.
const CLIENT_WAITING_MAX: usize = 1 << 13;
/// With so many it is looked which of them are still wanted.
const PRUNE: usize = 1 << 12;

/// See the module.
#[derive(Debug)]
pub(super) struct Queue {
    clients: HashMap<IpAddr, Client>,
    /// The addresses with files that wait, in the order of their turns.
    round: VecDeque<IpAddr>,
    waiting: usize,
    prune_at: usize,
    running: usize,
    max: usize,
    client_max: usize,
}

#[derive(Debug, Default)]
struct Client {
    files: VecDeque<RelPath>,
    running: usize,
}

impl Queue {
    /// For `max` fetches at a time, `client_max` of them for one address.
    pub(super) fn new(max: usize, client_max: usize) -> Self {
        Self {
            clients: HashMap::new(),
            round: VecDeque::new(),
            waiting: 0,
            prune_at: PRUNE,
            running: 0,
            max,
            client_max,
        }
    }

    /// A client waits for a file; `false` if there are too many. `is_due`: whether a file is still wanted.
    #[must_use]
    pub(super) fn push(
        &mut self,
        client: IpAddr,
        path: RelPath,
        is_due: impl FnMut(&RelPath) -> bool,
    ) -> bool {
        if self.waiting >= self.prune_at {
            self.prune(is_due);
        }
        if self.waiting >= WAITING_MAX {
            return false;
        }
        let state = self.clients.entry(client).or_default();
        if state.files.len() >= CLIENT_WAITING_MAX {
            return false;
        }
        if state.files.is_empty() {
            self.round.push_back(client);
        }
        state.files.push_back(path);
        self.waiting += 1;
        true
    }

    fn prune(&mut self, mut is_due: impl FnMut(&RelPath) -> bool) {
        self.clients.values_mut().for_each(|client| client.files.retain(&mut is_due));
        self.round.retain(|client| !self.clients[client].files.is_empty());
        self.clients.retain(|_, client| !client.files.is_empty() || client.running > 0);
        self.waiting = self.clients.values().map(|client| client.files.len()).sum();
        self.prune_at = (2 * self.waiting).clamp(PRUNE, WAITING_MAX);
    }

    /// Takes the next file that is to be fetched, and the address whose turn it is, if a fetch may begin. What is not
    /// due any more is dropped. [`done`](Self::done) is owed for each.
    pub(super) fn next(&mut self, mut is_due: impl FnMut(&RelPath) -> bool) -> Option<(IpAddr, RelPath)> {
        for _ in 0..self.round.len() {
            if self.running >= self.max {
                return None;
            }
            let address = self.round.pop_front()?;
            let client = self.clients.get_mut(&address).expect("each turn is a client's");
            if client.running >= self.client_max {
                self.round.push_back(address);
                continue;
            }
            let mut next = None;
            while next.is_none() {
                let Some(path) = client.files.pop_front() else { break };
                self.waiting -= 1;
                next = Some(path).filter(&mut is_due);
            }
            client.running += usize::from(next.is_some());
            if !client.files.is_empty() {
                self.round.push_back(address);
            } else if client.running == 0 {
                self.clients.remove(&address);
            }
            if let Some(path) = next {
                self.running += 1;
                return Some((address, path));
            }
        }
        None
    }

    /// A fetch has ended.
    pub(super) fn done(&mut self, address: IpAddr) {
        let client = self.clients.get_mut(&address).expect("it was its turn");
        client.running = client.running.checked_sub(1).expect("each fetch ends once");
        self.running -= 1;
        if client.running == 0 && client.files.is_empty() {
            self.clients.remove(&address);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(last: u8) -> IpAddr {
        [10, 0, 0, last].into()
    }

    fn path(name: &str) -> RelPath {
        RelPath::parse(&format!("/{name}")).unwrap()
    }

    fn push(queue: &mut Queue, client: u8, name: &str) {
        assert!(queue.push(address(client), path(name), |_| true));
    }

    fn next(queue: &mut Queue) -> Option<(u8, String)> {
        queue.next(|path| !path.as_str().starts_with("gone")).map(|(client, path)| match client {
            IpAddr::V4(client) => (client.octets()[3], path.as_str().to_owned()),
            IpAddr::V6(_) => unreachable!("the tests have none"),
        })
    }

    fn is_empty(queue: &Queue) -> bool {
        queue.clients.is_empty() && queue.round.is_empty() && queue.waiting == 0 && queue.running == 0
    }

    #[test]
    fn addresses_have_their_turns() {
        let mut queue = Queue::new(10, 10);
        for name in ["a", "gone1", "gone2", "b", "c"] {
            push(&mut queue, 1, name);
        }
        push(&mut queue, 2, "d");
        push(&mut queue, 3, "gone3");
        push(&mut queue, 4, "e");
        let order: Vec<_> = std::iter::from_fn(|| next(&mut queue)).collect();
        let expected = [(1, "a"), (2, "d"), (4, "e"), (1, "b"), (1, "c")];
        assert_eq!(order, expected.map(|(client, name)| (client, name.to_owned())));
        order.iter().for_each(|(client, _)| queue.done(address(*client)));
        assert!(is_empty(&queue));
    }

    #[test]
    fn one_address_cannot_take_all_slots() {
        let mut queue = Queue::new(3, 2);
        ["a", "b", "c", "d"].iter().for_each(|name| push(&mut queue, 1, name));
        assert!(next(&mut queue).is_some() && next(&mut queue).is_some() && next(&mut queue).is_none());
        push(&mut queue, 2, "x");
        push(&mut queue, 2, "y");
        assert_eq!(next(&mut queue), Some((2, "x".to_owned())));
        assert_eq!(next(&mut queue), None, "all slots are taken");
        queue.done(address(1));
        assert!(next(&mut queue).is_some() && next(&mut queue).is_none());
    }

    #[test]
    fn what_waits_is_bounded_and_what_is_not_due_goes() {
        let mut queue = Queue::new(0, 0);
        for name in 0..PRUNE {
            push(&mut queue, 1, &name.to_string());
        }
        assert!(queue.push(address(2), path("x"), |_| false));
        assert_eq!((queue.waiting, queue.round.len(), queue.clients.len()), (1, 1, 1));
        for name in 0..CLIENT_WAITING_MAX {
            push(&mut queue, 3, &name.to_string());
        }
        assert!(!queue.push(address(3), path("x"), |_| true), "it has enough");
        for name in queue.waiting..WAITING_MAX {
            push(&mut queue, 10 + u8::try_from(name % 100).unwrap(), &name.to_string());
        }
        assert!(!queue.push(address(4), path("x"), |_| true), "all have enough");
    }
}
