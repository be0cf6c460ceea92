//! Messages to a loop, from other loops and threads.
//!
//! Posting takes no lock. A loop is woken at most once between two of its looks into the box.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};

use rustix::event::EventfdFlags;

/// Calls a loop that may be asleep.
pub trait Wake: Send + Sync {
    /// The loop will look into its mailbox soon.
    fn wake(&self);
}

/// Wakes a loop through an eventfd that its ring reads.
#[derive(Debug)]
pub struct EventFd(OwnedFd);

impl EventFd {
    /// A fresh eventfd.
    ///
    /// # Errors
    /// What `eventfd(2)` says.
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
        // The counter cannot overflow: the loop resets it at each wake.
        let _ = rustix::io::write(&self.0, &1u64.to_ne_bytes());
    }
}

/// The sending end: one for each who posts, cheap to clone.
pub struct Postbox<T> {
    queue: Sender<T>,
    called: Arc<AtomicBool>,
    wake: Arc<dyn Wake>,
}

impl<T> std::fmt::Debug for Postbox<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Postbox").finish_non_exhaustive()
    }
}

impl<T> Clone for Postbox<T> {
    fn clone(&self) -> Self {
        Self { queue: self.queue.clone(), called: Arc::clone(&self.called), wake: Arc::clone(&self.wake) }
    }
}

impl<T> Postbox<T> {
    /// Posts a message; it is dropped if the loop is gone.
    pub fn post(&self, message: T) {
        if self.queue.send(message).is_ok() && !self.called.swap(true, Ordering::AcqRel) {
            self.wake.wake();
        }
    }
}

/// The receiving end, held by the loop.
#[derive(Debug)]
pub struct Mailbox<T> {
    queue: Receiver<T>,
    called: Arc<AtomicBool>,
}

impl<T> Mailbox<T> {
    /// The next message. `None` also allows the posters to wake the loop again.
    pub fn take(&mut self) -> Option<T> {
        if let Ok(message) = self.queue.try_recv() {
            return Some(message);
        }
        // What is posted from here on wakes; what was posted before is found by one more look.
        self.called.store(false, Ordering::Release);
        self.queue.try_recv().ok()
    }
}

/// A mailbox for a loop that `wake` calls.
pub fn mailbox<T>(wake: Arc<dyn Wake>) -> (Postbox<T>, Mailbox<T>) {
    let (sender, receiver) = channel();
    let called = Arc::new(AtomicBool::new(false));
    (Postbox { queue: sender, called: Arc::clone(&called), wake }, Mailbox { queue: receiver, called })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::AtomicUsize;

    struct Count(AtomicUsize);
    impl Wake for Count {
        fn wake(&self) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    #[test]
    fn one_wake_for_many_messages_and_none_lost() {
        let wakes = Arc::new(Count(AtomicUsize::new(0)));
        let (post, mut mail) = mailbox(Arc::clone(&wakes) as Arc<dyn Wake>);
        for n in 0..10 {
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
                std::thread::spawn(move || (0..EACH).for_each(|n| post.post(n)))
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
}
