//! What happens to a directory's streams, for subscribers that would otherwise have to poll.
//!
//! Events are queued under the directory's lock, in the order in which they happen. A queue has a limit: a
//! subscriber that does not take its events in time is told to list the streams again, and misses streams that
//! came and ended meanwhile.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, Weak};
use std::task::{Context, Poll, Waker};

use super::hold::Hold;
use super::stream::Stream;

/// The most events that wait for one subscriber. They keep streams and their logs in memory.
pub const EVENTS_MAX: usize = 256;

/// What happened.
#[derive(Clone, Debug)]
pub enum Event {
    /// The stream has a publisher: it is new, or continues after [`Parked`](Self::Parked). A new one's log is held
    /// from its first tag until all subscribers have handled the event.
    Came(Arc<Stream>, Option<Arc<Hold>>),
    /// Its publisher left. The stream ends unless another one comes.
    Parked(Arc<Stream>),
    /// It is over for good.
    Ended(Arc<Stream>),
    /// More happened than could be queued: list the streams again. Later events are newer than this one.
    Resync,
}

/// A subscriber's events. Dropping it ends the subscription.
#[derive(Debug)]
pub struct Events(Arc<Queue>);

#[derive(Debug, Default)]
struct Queue(Mutex<Queued>);

#[derive(Debug, Default)]
struct Queued {
    events: VecDeque<Event>,
    waker: Option<Waker>,
}

impl Queue {
    fn lock(&self) -> MutexGuard<'_, Queued> {
        self.0.lock().expect("no thread panics while it holds this lock")
    }

    fn put(&self, event: Event) {
        let mut queued = self.lock();
        let waits_for_listing = matches!(queued.events.back(), Some(Event::Resync));
        if waits_for_listing {
            return; // the listing will show it
        }
        if queued.events.len() == EVENTS_MAX {
            queued.events.clear();
            queued.events.push_back(Event::Resync);
        } else {
            queued.events.push_back(event);
        }
        let waker = queued.waker.take();
        drop(queued);
        waker.into_iter().for_each(Waker::wake);
    }
}

impl Events {
    /// The next event. `Pending`: there is none, and the context's waker is woken when one comes.
    pub fn poll_next(&mut self, context: &mut Context<'_>) -> Poll<Event> {
        let mut queued = self.0.lock();
        match queued.events.pop_front() {
            Some(event) => Poll::Ready(event),
            None => {
                queued.waker = Some(context.waker().clone());
                Poll::Pending
            }
        }
    }
}

/// A directory's subscribers.
#[derive(Debug, Default)]
pub(super) struct Subscribers(Vec<Weak<Queue>>);

impl Subscribers {
    pub(super) fn subscribe(&mut self) -> Events {
        let queue = Arc::<Queue>::default();
        self.0.retain(|queue| queue.strong_count() > 0);
        self.0.push(Arc::downgrade(&queue));
        Events(queue)
    }

    pub(super) fn tell(&self, event: &Event) {
        self.0.iter().filter_map(Weak::upgrade).for_each(|queue| queue.put(event.clone()));
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};
    use std::task::Wake;

    use super::super::directory::{Claim, Directory, Republish};
    use super::super::key::StreamKey;
    use super::super::log::tests::RETENTION;
    use super::*;
    use crate::memory::Arena;

    fn directory() -> Directory {
        Directory::new(Arena::new().unwrap(), RETENTION, Republish::Reject)
    }

    fn key(name: u32) -> StreamKey {
        StreamKey::parse(&format!("live/{name}")).unwrap()
    }

    fn next(events: &mut Events) -> Option<(&'static str, u64)> {
        match events.poll_next(&mut Context::from_waker(Waker::noop())) {
            Poll::Pending => None,
            Poll::Ready(Event::Came(stream, _)) => Some(("came", stream.id)),
            Poll::Ready(Event::Parked(stream)) => Some(("parked", stream.id)),
            Poll::Ready(Event::Ended(stream)) => Some(("ended", stream.id)),
            Poll::Ready(Event::Resync) => Some(("resync", 0)),
        }
    }

    #[test]
    fn each_subscriber_gets_the_events_in_order() {
        let directory = directory();
        let (mut one, mut other) = (directory.subscribe(), directory.subscribe());
        let writer = directory.publish(&key(1), &Claim::fixed(0)).unwrap();
        let id = writer.stream().id;
        directory.park(writer, 100);
        let writer = directory.publish(&key(1), &Claim::fixed(0)).unwrap();
        assert!(directory.publish(&key(1), &Claim::fixed(0)).is_err(), "a refusal is no event");
        directory.park(writer, 100);
        assert_eq!(directory.expire(100).len(), 1);
        let writer = directory.publish(&key(1), &Claim::fixed(0)).unwrap();
        let second = writer.stream().id;
        directory.end(writer);
        for events in [&mut one, &mut other] {
            let all: Vec<_> = std::iter::from_fn(|| next(events)).collect();
            let first = ["came", "parked", "came", "parked", "ended"].map(|what| (what, id));
            assert_eq!(all, [&first[..], &[("came", second), ("ended", second)]].concat());
        }
    }

    #[test]
    fn a_late_subscriber_is_told_to_list_and_then_gets_newer_events() {
        let directory = directory();
        let mut events = directory.subscribe();
        let most = u32::try_from(EVENTS_MAX).unwrap();
        let writers: Vec<_> =
            (0..=most).map(|n| directory.publish(&key(n), &Claim::fixed(0)).unwrap()).collect();
        assert_eq!(next(&mut events), Some(("resync", 0)));
        assert_eq!((next(&mut events), directory.list().len()), (None, EVENTS_MAX + 1));
        let last = directory.publish(&key(most + 1), &Claim::fixed(0)).unwrap();
        assert_eq!(next(&mut events), Some(("came", last.stream().id)));
        let ended = Arc::downgrade(writers[0].stream());
        writers.into_iter().chain([last]).for_each(|writer| drop(directory.end(writer)));
        assert_eq!(next(&mut events), Some(("resync", 0)));
        assert!(ended.upgrade().is_none(), "a queue that overflows keeps no stream");
    }

    #[test]
    fn a_subscriber_is_woken_once_and_is_forgotten_when_dropped() {
        struct Count(AtomicU64);
        impl Wake for Count {
            fn wake(self: Arc<Self>) {
                self.0.fetch_add(1, Ordering::Relaxed);
            }
        }
        let (directory, count) = (directory(), Arc::new(Count(AtomicU64::new(0))));
        let waker = Waker::from(Arc::clone(&count));
        drop(directory.subscribe());
        let mut events = directory.subscribe();
        assert!(events.poll_next(&mut Context::from_waker(&waker)).is_pending());
        let _writers = [1, 2].map(|n| directory.publish(&key(n), &Claim::fixed(0)).unwrap());
        assert_eq!(count.0.load(Ordering::Relaxed), 1);
    }
}
