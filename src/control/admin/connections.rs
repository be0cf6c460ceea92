//! The connections of the admin listener: limited in number; a new one replaces the one that has been idle
//! longest.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Instant;

/// The most connections at a time.
pub(super) const CONNECTIONS_MAX: usize = 64;

/// The open connections. `T` closes one when it is dropped from this table.
#[derive(Debug)]
pub(super) struct Connections<T> {
    table: RefCell<Vec<Slot<T>>>,
    next: RefCell<u64>,
}

#[derive(Debug)]
struct Slot<T> {
    name: u64,
    /// When it was accepted or got its last whole answer. Single bytes sent or read now and then do not count
    /// as activity.
    since: Instant,
    socket: Rc<T>,
}

impl<T> Default for Connections<T> {
    fn default() -> Self {
        Self { table: RefCell::default(), next: RefCell::default() }
    }
}

impl<T> Connections<T> {
    /// Adds a connection. If the limit is reached, the one that has been idle longest leaves the table and has
    /// to be shut down.
    pub(super) fn add(self: &Rc<Self>, socket: Rc<T>, now: Instant) -> (Entry<T>, Option<Rc<T>>) {
        let mut table = self.table.borrow_mut();
        let idlest = (table.len() >= CONNECTIONS_MAX)
            .then(|| table.iter().enumerate().min_by_key(|(_, slot)| slot.since).map(|(at, _)| at))
            .flatten();
        let left = idlest.map(|at| table.swap_remove(at).socket);
        let mut next = self.next.borrow_mut();
        *next += 1;
        table.push(Slot { name: *next, since: now, socket });
        debug_assert!(table.len() <= CONNECTIONS_MAX);
        (Entry { table: Rc::clone(self), name: *next }, left)
    }
}

/// A connection's entry in the table, removed on drop.
#[derive(Debug)]
pub(super) struct Entry<T> {
    table: Rc<Connections<T>>,
    name: u64,
}

impl<T> Entry<T> {
    /// A whole answer has been sent.
    pub(super) fn touch(&self, now: Instant) {
        let mut table = self.table.table.borrow_mut();
        if let Some(slot) = table.iter_mut().find(|slot| slot.name == self.name) {
            slot.since = now;
        }
    }
}

impl<T> Drop for Entry<T> {
    fn drop(&mut self) {
        self.table.table.borrow_mut().retain(|slot| slot.name != self.name);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn the_longest_idle_connection_is_replaced_when_full() {
        let (connections, start) = (Rc::new(Connections::default()), Instant::now());
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut entries: Vec<Entry<usize>> = Vec::new();
        for number in 0..CONNECTIONS_MAX {
            let (entry, left) = connections.add(Rc::new(number), at(1));
            assert_eq!(left, None);
            entries.push(entry);
        }
        entries
            .iter()
            .enumerate()
            .filter(|(number, _)| *number != 7)
            .for_each(|(_, entry)| entry.touch(at(2)));
        let (newest, left) = connections.add(Rc::new(100), at(3));
        assert_eq!(left.as_deref(), Some(&7));
        // The entry of the one that left does not remove another's.
        entries[7].touch(at(9));
        drop(entries.remove(7));
        drop(newest);
        assert_eq!(connections.add(Rc::new(101), at(3)).1, None);
    }

    #[test]
    fn many_new_connections_do_not_displace_one_that_is_answered() {
        let (connections, start) = (Rc::new(Connections::default()), Instant::now());
        let (busy, _) = connections.add(Rc::new(0), start);
        let mut flood = Vec::new();
        for number in 1..10 * CONNECTIONS_MAX {
            let now = start + Duration::from_millis(number as u64);
            busy.touch(now);
            let (entry, left) = connections.add(Rc::new(number), now);
            assert_ne!(left.as_deref(), Some(&0));
            flood.push(entry);
        }
    }
}
