//! Messages to a loop, from other loops and threads.
//!
//! A loop is woken at most once between two of its looks into the mailbox. The contents, and whether the loop
//! was woken, are one state under one lock: a message is either there when the loop looks, or its sender sees
//! that the loop has looked and wakes it. The lock is held for a push or a swap; a loop takes all messages at
//! once.
//!
//! A mailbox is bounded. Messages that only say "look again" ([`Mail::topic`]) are queued once for each topic,
//! and of the others at most [`CAPACITY`] are queued. A loop that lets that many wait hangs; messages dropped
//! after that are counted, and the loop is told that it missed some ([`Mailbox::missed`]).

use std::collections::{HashSet, VecDeque};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, Mutex, MutexGuard};

use rustix::event::EventfdFlags;

/// The most messages without a topic that may wait in a mailbox: a loop takes all of them at every turn.
pub const CAPACITY: usize = 65_536;

/// A message.
pub trait Mail: Send {
    /// What the message asks to be looked at, if it says nothing else: while one message of a topic waits,
    /// another adds nothing and is left out. There are as many topics as things to look at.
    fn topic(&self) -> Option<u64> {
        None
    }
}

/// Wakes a loop that may be asleep.
pub trait Wake: Send + Sync {
    /// Makes the loop look into its mailbox soon.
    fn wake(&self);
}

/// Wakes a loop through an eventfd that its ring reads.
#[derive(Debug)]
pub struct EventFd(OwnedFd);

impl EventFd {
    /// A new eventfd.
    ///
    /// # Errors
    /// The error of `eventfd(2)`.
    pub fn new() -> std::io::Result<Arc<Self>> {
        Ok(Arc::new(Self(rustix::event::eventfd(0, EventfdFlags::CLOEXEC)?)))
    }
}

impl AsFd for EventFd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl Wake for EventFd {
    fn wake(&self) {
        // The counter cannot overflow: the loop resets it at each wake-up.
        let _ = rustix::io::write(&self.0, &1u64.to_ne_bytes());
    }
}

/// What was posted to a loop and has not been taken.
#[derive(Debug)]
struct Waiting<T> {
    messages: VecDeque<T>,
    /// Topics of messages among them.
    topics: HashSet<u64>,
    /// The loop was woken and has not found the mailbox empty since.
    called: bool,
    /// Messages dropped for lack of capacity since the loop last asked.
    missed: u64,
    /// The loop is gone.
    closed: bool,
}

#[derive(Debug)]
struct Shared<T>(Mutex<Waiting<T>>);

impl<T> Shared<T> {
    fn lock(&self) -> MutexGuard<'_, Waiting<T>> {
        self.0.lock().expect("no thread panics while it holds this lock")
    }
}

/// What happened to a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Posted {
    /// The loop will get it.
    Taken,
    /// The loop will get another one of the same topic, posted before and not taken yet.
    Merged,
    /// The mailbox is full, or the loop has ended: the message is lost.
    Dropped,
}

/// The sending end: one for each sender, cheap to clone.
pub struct Postbox<T> {
    shared: Arc<Shared<T>>,
    wake: Arc<dyn Wake>,
}

impl<T> std::fmt::Debug for Postbox<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Postbox").finish_non_exhaustive()
    }
}

impl<T> Clone for Postbox<T> {
    fn clone(&self) -> Self {
        Self { shared: Arc::clone(&self.shared), wake: Arc::clone(&self.wake) }
    }
}

impl<T: Mail> Postbox<T> {
    /// Posts a message. Most callers can ignore the result: a loop that has ended needs no messages, and one
    /// that missed some is told so.
    pub fn post(&self, message: T) -> Posted {
        let topic = message.topic();
        let mut waiting = self.shared.lock();
        if topic.is_some_and(|topic| waiting.topics.contains(&topic)) {
            return Posted::Merged;
        }
        let fits = topic.is_some() || waiting.messages.len() - waiting.topics.len() < CAPACITY;
        if waiting.closed || !fits {
            waiting.missed += 1;
            // Dropping the message may take long.
            drop(waiting);
            return Posted::Dropped;
        }
        waiting.topics.extend(topic);
        waiting.messages.push_back(message);
        let asleep = !std::mem::replace(&mut waiting.called, true);
        drop(waiting);
        if asleep {
            self.wake.wake();
        }
        Posted::Taken
    }
}

/// The receiving end, held by the loop.
#[derive(Debug)]
pub struct Mailbox<T> {
    shared: Arc<Shared<T>>,
    /// Taken out of the mailbox and not handled yet.
    taken: VecDeque<T>,
}

impl<T: Mail> Mailbox<T> {
    /// The next message. `None` also allows the senders to wake the loop again.
    pub fn take(&mut self) -> Option<T> {
        if self.taken.is_empty() {
            let mut waiting = self.shared.lock();
            if waiting.messages.is_empty() {
                waiting.called = false;
                return None;
            }
            waiting.topics.clear();
            std::mem::swap(&mut waiting.messages, &mut self.taken);
        }
        self.taken.pop_front()
    }

    /// How many messages were dropped since the last call. If any were, the loop has to check for itself
    /// everything that they may have announced.
    pub fn missed(&mut self) -> u64 {
        std::mem::take(&mut self.shared.lock().missed)
    }
}

impl<T> Drop for Mailbox<T> {
    fn drop(&mut self) {
        let mut waiting = self.shared.lock();
        waiting.closed = true;
        waiting.topics.clear();
        let messages = std::mem::take(&mut waiting.messages);
        drop(waiting);
        drop(messages);
    }
}

/// Makes a mailbox for a loop that is woken by `wake`.
pub fn mailbox<T: Mail>(wake: Arc<dyn Wake>) -> (Postbox<T>, Mailbox<T>) {
    let waiting = Waiting {
        messages: VecDeque::new(),
        topics: HashSet::new(),
        called: false,
        missed: 0,
        closed: false,
    };
    let shared = Arc::new(Shared(Mutex::new(waiting)));
    (Postbox { shared: Arc::clone(&shared), wake }, Mailbox { shared, taken: VecDeque::new() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering};

    impl Mail for usize {}

    #[derive(Clone, Copy, Debug, PartialEq)]
    enum Word {
        Look(u64),
        Say(u64),
    }

    impl Mail for Word {
        fn topic(&self) -> Option<u64> {
            match self {
                Self::Look(topic) => Some(*topic),
                Self::Say(_) => None,
            }
        }
    }

    fn boxes<T: Mail>() -> (Postbox<T>, Mailbox<T>) {
        mailbox(Arc::new(Count(AtomicUsize::new(0))) as Arc<dyn Wake>)
    }

    struct Count(AtomicUsize);
    impl Wake for Count {
        fn wake(&self) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    #[test]
    fn messages_to_a_loop_that_has_ended_are_dropped() {
        let (post, mail) = boxes();
        post.post(Word::Look(1));
        post.post(Word::Look(2));
        drop(mail);
        for word in [Word::Say(1), Word::Look(1), Word::Look(3)] {
            assert_eq!(post.post(word), Posted::Dropped);
        }
    }

    #[test]
    fn one_wake_for_many_messages_and_none_lost() {
        let wakes = Arc::new(Count(AtomicUsize::new(0)));
        let (post, mut mail) = mailbox(Arc::clone(&wakes) as Arc<dyn Wake>);
        for n in 0..10usize {
            post.post(n);
        }
        assert_eq!(wakes.0.load(Ordering::Relaxed), 1);
        assert_eq!(std::iter::from_fn(|| mail.take()).collect::<Vec<_>>(), (0..10).collect::<Vec<_>>());
        post.post(10);
        assert_eq!(wakes.0.load(Ordering::Relaxed), 2);
        assert_eq!((mail.take(), mail.take()), (Some(10), None));
    }

    #[test]
    fn a_loop_that_sleeps_when_the_box_is_empty_misses_nothing() {
        struct Unpark(std::thread::Thread);
        impl Wake for Unpark {
            fn wake(&self) {
                self.0.unpark();
            }
        }
        const EACH: usize = 20_000;
        let (post, mut mail) = mailbox(Arc::new(Unpark(std::thread::current())) as Arc<dyn Wake>);
        let posters: Vec<_> = (0..2)
            .map(|_| {
                let post = post.clone();
                std::thread::spawn(move || (0..EACH).for_each(|n| assert_eq!(post.post(n), Posted::Taken)))
            })
            .collect();
        let mut got = 0;
        while got < 2 * EACH {
            match mail.take() {
                Some(_) => got += 1,
                None => std::thread::park(),
            }
        }
        posters.into_iter().for_each(|poster| poster.join().unwrap());
    }

    #[test]
    fn a_topic_is_queued_once_among_other_messages() {
        let (post, mut mail) = boxes();
        for round in 0..1000 {
            assert_eq!(post.post(Word::Look(7)), if round == 0 { Posted::Taken } else { Posted::Merged });
            post.post(Word::Look(8));
        }
        post.post(Word::Say(7));
        assert_eq!(post.post(Word::Look(7)), Posted::Merged);
        assert_eq!(mail.take(), Some(Word::Look(7)));
        // The loop may have looked before this one was posted, so it is queued anew.
        assert_eq!(post.post(Word::Look(7)), Posted::Taken);
        let rest: Vec<Word> = std::iter::from_fn(|| mail.take()).collect();
        assert_eq!(rest, [Word::Look(8), Word::Say(7), Word::Look(7)]);
        assert_eq!(mail.missed(), 0);
    }

    #[test]
    fn a_mailbox_that_is_never_emptied_stays_within_its_capacity() {
        let (post, mut mail) = boxes();
        (0..100).for_each(|topic| assert_eq!(post.post(Word::Look(topic)), Posted::Taken));
        for n in 0..CAPACITY as u64 {
            assert_eq!(post.post(Word::Say(n)), Posted::Taken);
        }
        assert_eq!(post.post(Word::Say(0)), Posted::Dropped);
        assert_eq!(post.post(Word::Say(0)), Posted::Dropped);
        assert_eq!(post.post(Word::Look(100)), Posted::Taken);
        assert_eq!(std::iter::from_fn(|| mail.take()).count(), CAPACITY + 101);
        assert_eq!((mail.missed(), mail.missed()), (2, 0));
        assert_eq!(post.post(Word::Say(1)), Posted::Taken);
        drop(mail);
        assert_eq!((post.post(Word::Say(1)), post.post(Word::Look(1))), (Posted::Dropped, Posted::Dropped));
    }

    #[test]
    fn a_message_posted_after_a_look_is_seen_by_the_next_one() {
        // Senders raise a value and say "look"; after its last wake-up the loop must have seen the last value.
        struct Unpark(std::thread::Thread);
        impl Wake for Unpark {
            fn wake(&self) {
                self.0.unpark();
            }
        }
        const LAST: u64 = 50_000;
        let (post, mut mail) = mailbox(Arc::new(Unpark(std::thread::current())) as Arc<dyn Wake>);
        let values: Arc<[std::sync::atomic::AtomicU64]> = (0..2).map(|_| 0.into()).collect();
        let posters: Vec<_> = (0..2usize)
            .map(|at| {
                let (post, values) = (post.clone(), Arc::clone(&values));
                std::thread::spawn(move || {
                    for value in 1..=LAST {
                        values[at].store(value, Ordering::Relaxed);
                        post.post(Word::Look(at as u64));
                    }
                })
            })
            .collect();
        let mut seen = [0; 2];
        while seen != [LAST; 2] {
            match mail.take() {
                Some(Word::Look(topic)) => {
                    let at = usize::try_from(topic).unwrap();
                    seen[at] = values[at].load(Ordering::Relaxed);
                }
                Some(other) => panic!("{other:?}"),
                None => std::thread::park_timeout(std::time::Duration::from_secs(20)),
            }
        }
        posters.into_iter().for_each(|poster| poster.join().unwrap());
    }
}
