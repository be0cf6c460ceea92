//! System calls: submitting the queue, waiting, and the end of a ring.

use std::io;
use std::time::Duration;

use io_uring::types::{SubmitArgs, Timespec};
use io_uring::{cqueue, opcode};
use rustix::io::Errno;

use super::Uring;
use crate::uring::buffers;
use crate::uring::op::NOBODY;
use crate::uring::setup::SUBMISSIONS;
use crate::uring::slab::Slab;

/// The pause after a refusal by a kernel that is short of resources and has no completions to collect.
const PAUSE: Duration = Duration::from_millis(1);
/// `IORING_ENTER_GETEVENTS`.
const GET_EVENTS: u32 = 1;
/// How often the drop of an engine looks for the completions of what it cancelled.
const DROP_ROUNDS: usize = 100;

impl Uring {
    /// Submits the queue to the kernel; if `wait` is given, waits at most that long for a completion. A kernel
    /// that is short of resources takes part of the queue, or nothing: the rest goes with the next call.
    pub(super) fn enter(&mut self, wait: Option<Duration>) {
        let Err(error) = self.call(wait) else { return };
        match Errno::from_io_error(&error) {
            // The time is up; a signal came.
            Some(Errno::TIME | Errno::INTR) => {}
            // No memory for requests, or too many completions wait to be taken.
            Some(errno @ (Errno::AGAIN | Errno::NOMEM | Errno::BUSY)) => self.make_way(errno),
            _ => panic!("io_uring_enter: {error}"),
        }
    }

    fn call(&mut self, wait: Option<Duration>) -> io::Result<usize> {
        #[cfg(test)]
        if let Some(errno) = self.refusals.injected.pop_front() {
            return Err(errno.into());
        }
        match wait {
            None => self.ring.submit(),
            Some(timeout) => {
                let timespec = Timespec::from(timeout);
                let args = SubmitArgs::new().timespec(&timespec);
                self.ring.submitter().submit_with_args(1, &args)
            }
        }
    }

    /// Takes what has completed, which gives memory back to the kernel, so that the next call can succeed.
    fn make_way(&mut self, errno: Errno) {
        self.refusals.add(errno);
        // A refused call has not run the work that completes operations: this call submits nothing and runs it.
        // SAFETY: no argument is passed, so there is nothing that the kernel could read.
        let _ = unsafe { self.ring.submitter().enter::<()>(0, 0, GET_EVENTS, None) };
        let waiting = self.completions.len();
        self.collect();
        if self.completions.len() == waiting {
            std::thread::sleep(PAUSE);
        }
    }

    /// Takes completions off the ring; [`reap`](Self::reap) handles them.
    pub(super) fn collect(&mut self) {
        let completed = self.ring.completion();
        self.completions.extend(completed.map(|entry| (entry.user_data(), entry.result(), entry.flags())));
    }

    /// Submits all that is in the queue.
    pub(super) fn flush(&mut self) {
        while !self.ring.submission().is_empty() {
            self.enter(None);
        }
    }

    /// Makes space for `entries` in the queue.
    pub(super) fn make_room(&mut self, entries: usize) {
        debug_assert!(entries <= SUBMISSIONS as usize);
        loop {
            let queue = self.ring.submission();
            if queue.capacity() - queue.len() >= entries {
                return;
            }
            drop(queue);
            self.enter(None);
            self.reap();
        }
    }

    /// Cancels an operation by its place: the kernel finds it at once, while cancelling all operations makes it
    /// search the whole list for each one.
    fn cancel(&mut self, place: u32) {
        let entry = opcode::AsyncCancel::new(u64::from(place)).build().user_data(NOBODY);
        loop {
            // SAFETY: the entry points to no memory.
            if unsafe { self.ring.submission().push(&entry) }.is_ok() {
                return;
            }
            self.enter(None);
            self.discard();
        }
    }

    /// Takes completions and drops what their operations owned.
    fn discard(&mut self) {
        self.collect();
        while let Some((place, _, flags)) = self.completions.pop_front() {
            if !cqueue::more(flags) && place != NOBODY {
                self.inflight.remove(u32::try_from(place).expect("a place in the table"));
            }
        }
    }
}

impl Drop for Uring {
    fn drop(&mut self) {
        self.events.clear();
        self.discard();
        let places: Vec<u32> = self.inflight.places().collect();
        places.into_iter().for_each(|place| self.cancel(place));
        for _ in 0..DROP_ROUNDS {
            self.discard();
            if self.inflight.len() == 0 {
                break;
            }
            self.enter(Some(Duration::from_millis(10)));
        }
        if self.inflight.len() > 0 || self.ring.submitter().unregister_buf_ring(buffers::GROUP).is_err() {
            // The kernel may still write to memory that we own: better leaked than reused.
            std::mem::forget(std::rc::Rc::clone(&self.received));
            std::mem::forget(std::mem::replace(&mut self.inflight, Slab::new()));
            self.regions.leak();
        }
    }
}
