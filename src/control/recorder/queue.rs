//! A queue with a limit. Items count until they are dropped: while they wait, while they are worked on, and
//! while they wait to be tried again.

use std::cell::Cell;
use std::rc::Rc;
use std::time::{Duration, Instant};

use metrics::counter;
use tokio::sync::mpsc;
use tracing::error;

/// The shortest time between two log lines about one queue that is full.
const LOG_EVERY: Duration = Duration::from_secs(10);

/// The sending end of a queue.
#[derive(Debug)]
pub(super) struct Queue<T> {
    items: mpsc::UnboundedSender<Queued<T>>,
    name: &'static str,
    limit: usize,
    /// Each item holds a clone, so that the count is the number of items.
    taken: Rc<()>,
    /// Items refused since the last log line about it, and when that was written.
    unlogged: Cell<u64>,
    logged: Cell<Option<Instant>>,
}

/// An item, and its share of the limit.
#[derive(Debug)]
pub(super) struct Queued<T> {
    pub(super) item: T,
    _place: Rc<()>,
}

/// The receiving end of a queue.
pub(super) type Items<T> = mpsc::UnboundedReceiver<Queued<T>>;

impl<T> Queue<T> {
    /// An empty queue; `name` is used in metrics.
    pub(super) fn new(name: &'static str, limit: usize) -> (Self, Items<T>) {
        let (items, taken_out) = mpsc::unbounded_channel();
        let (unlogged, logged) = (Cell::new(0), Cell::new(None));
        (Self { items, name, limit, taken: Rc::default(), unlogged, logged }, taken_out)
    }

    /// The number of items, waiting or being worked on.
    pub(super) fn len(&self) -> usize {
        Rc::strong_count(&self.taken) - 1
    }

    /// Adds an item. `false`: the queue is full, which is counted and logged.
    pub(super) fn put(&self, item: T) -> bool {
        if self.len() >= self.limit {
            self.refuse();
            return false;
        }
        self.put_back(Queued { item, _place: Rc::clone(&self.taken) });
        true
    }

    /// Adds an item again that still counts.
    pub(super) fn put_back(&self, queued: Queued<T>) {
        // It fails when the receiver is gone: the process is stopping.
        let _ = self.items.send(queued);
    }

    fn refuse(&self) {
        counter!("uringcast_recording_refused_total", "queue" => self.name).increment(1);
        let refused = self.unlogged.get() + 1;
        self.unlogged.set(refused);
        if self.logged.get().is_none_or(|logged| logged.elapsed() >= LOG_EVERY) {
            error!(queue = self.name, limit = self.limit, refused, "a queue of the recorder is full");
            self.unlogged.set(0);
            self.logged.set(Some(Instant::now()));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_item_counts_until_it_is_dropped() {
        let (queue, mut items) = Queue::new("test", 2);
        assert!(queue.put('a') && queue.put('b') && !queue.put('c'));
        let first = items.try_recv().unwrap();
        assert_eq!((first.item, queue.len()), ('a', 2), "an item being worked on still counts");
        assert!(!queue.put('d'));
        queue.put_back(first);
        drop(items.try_recv().unwrap());
        assert!(queue.put('e') && !queue.put('f'));
        let left: String = std::iter::from_fn(|| items.try_recv().ok().map(|queued| queued.item)).collect();
        assert_eq!((left.as_str(), queue.len()), ("ae", 0));
    }
}
