//! Readers that wait for a log to grow, without a lock or an allocation per tag.
//!
//! A reader says with a [`Mark`] when it wants to be woken; the smallest of all marks stand in three atomics, which is
//! all that the writer looks at. No wake-up is lost: the reader stores its mark and then reads the head, the writer
//! stores the head and then reads the marks. These four are `SeqCst`, so in their single order either the writer's
//! read comes after the reader's store and finds the mark, or the reader's read comes after the writer's store and
//! finds the head. What the writer stores before the head (the newest time and the index) is visible to the thread
//! that reads that head.
//!
//! A mark is removed by the wake-up or with its [`Reached`](super::reached::Reached). Few readers wait: they
//! are tasks of the control thread. Viewers do not wait here; their loops notify them.

use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard};
use std::task::Waker;

use super::timeline::StreamTime;

/// When a reader wants to be woken: at whichever comes first, or at the end of the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mark {
    /// The head is at this offset or a later one.
    pub head: u64,
    /// The newest tag has this time or a later one.
    pub time: StreamTime,
    /// There is a start at this offset or a later one, and a tag after it; `u64::MAX`: starts do not matter.
    pub start: u64,
}

impl Mark {
    /// Anything after `head`.
    pub fn any(head: u64) -> Self {
        Self { head: head + 1, time: StreamTime::MAX, start: u64::MAX }
    }
}

/// More waiting readers than this at one log are a bug.
const WAITING_MAX: usize = 64;

/// The readers that wait at a log.
#[derive(Debug)]
pub(super) struct Waiters {
    /// The smallest of all marks; the largest value if no reader waits.
    head: AtomicU64,
    time: AtomicI64,
    start: AtomicU64,
    waiting: Mutex<Waiting>,
}

#[derive(Debug, Default)]
struct Waiting {
    next_id: u64,
    entries: Vec<Entry>,
    /// The log has ended: no reader waits.
    closed: bool,
}

#[derive(Debug)]
struct Entry {
    id: u64,
    mark: Mark,
    waker: Waker,
}

impl Default for Waiters {
    fn default() -> Self {
        Self {
            head: AtomicU64::new(u64::MAX),
            time: AtomicI64::new(StreamTime::MAX),
            start: AtomicU64::new(u64::MAX),
            waiting: Mutex::default(),
        }
    }
}

impl Waiters {
    /// The writer has moved the head to `head`, the newest time to `time` and, if one was marked, the newest
    /// start to `start`: wakes the readers that wait for that. Costs two or three loads if there are none.
    pub(super) fn moved(&self, head: u64, time: StreamTime, start: Option<u64>) {
        let is_due = head >= self.head.load(Ordering::SeqCst)
            || time >= self.time.load(Ordering::SeqCst)
            || start.is_some_and(|start| start >= self.start.load(Ordering::SeqCst));
        if is_due {
            self.wake(|mark| {
                head >= mark.head || time >= mark.time || start.is_some_and(|start| start >= mark.start)
            });
        }
    }

    /// The log has ended: wakes all readers.
    pub(super) fn close(&self) {
        self.lock().closed = true;
        self.wake(|_| true);
    }

    fn wake(&self, is_due: impl Fn(&Mark) -> bool) {
        let mut waiting = self.lock();
        let due: Vec<Entry> = waiting.entries.extract_if(.., |entry| is_due(&entry.mark)).collect();
        self.set_marks(&waiting);
        drop(waiting); // a waker may run foreign code
        due.into_iter().for_each(|entry| entry.waker.wake());
    }

    /// Enters a mark, or updates the waker of a known one; `None` if the log has ended.
    pub(super) fn enter(&self, id: Option<u64>, mark: Mark, waker: &Waker) -> Option<u64> {
        let mut waiting = self.lock();
        if waiting.closed {
            return None;
        }
        if let Some(entry) = waiting.entries.iter_mut().find(|entry| Some(entry.id) == id) {
            entry.waker.clone_from(waker);
            return id;
        }
        assert!(waiting.entries.len() < WAITING_MAX, "too many readers wait at one log");
        let id = id.unwrap_or(waiting.next_id);
        waiting.next_id = waiting.next_id.max(id + 1);
        waiting.entries.push(Entry { id, mark, waker: waker.clone() });
        self.set_marks(&waiting);
        Some(id)
    }

    pub(super) fn leave(&self, id: u64) {
        let mut waiting = self.lock();
        waiting.entries.retain(|entry| entry.id != id);
        self.set_marks(&waiting);
    }

    fn set_marks(&self, waiting: &Waiting) {
        let marks = || waiting.entries.iter().map(|entry| &entry.mark);
        self.head.store(marks().map(|mark| mark.head).min().unwrap_or(u64::MAX), Ordering::SeqCst);
        self.time.store(marks().map(|mark| mark.time).min().unwrap_or(StreamTime::MAX), Ordering::SeqCst);
        self.start.store(marks().map(|mark| mark.start).min().unwrap_or(u64::MAX), Ordering::SeqCst);
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().expect("no thread panics while it holds this lock")
    }
}

#[cfg(test)]
mod tests {
    use std::future::Future;
    use std::pin::Pin;
    use std::sync::Arc;
    use std::sync::atomic::AtomicBool;
    use std::task::{Context, Wake};
    use std::thread::Thread;
    use std::time::{Duration, Instant};

    use super::super::log::tests::{RETENTION, tag, writer};
    use super::super::log::{Headers, Log, LogWriter, Tracks};
    use super::super::reached::Reached;
    use super::*;

    /// Counts wake-ups.
    #[derive(Default)]
    struct Count(AtomicU64);

    impl Wake for Count {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn poll(reached: &mut Reached, count: &Arc<Count>) -> bool {
        let waker = Waker::from(Arc::clone(count));
        Pin::new(reached).poll(&mut Context::from_waker(&waker)).is_ready()
    }

    fn reached_at(log: &Arc<Log>, mark: Mark) -> Reached {
        Reached::new(Arc::clone(log), mark)
    }

    fn append(writer: &mut LogWriter, time: StreamTime, len: usize) {
        writer.append(&tag(0, len), time).unwrap();
        writer.publish();
    }

    fn start(writer: &mut LogWriter, time: StreamTime) {
        writer.mark_start(writer.head(), time, true, Arc::new(Headers::default()), Tracks::default());
    }

    #[test]
    fn a_reader_is_woken_once_by_bytes_time_or_a_start_and_not_for_each_tag() {
        let never = Mark { head: u64::MAX, time: StreamTime::MAX, start: u64::MAX };
        for (mark, wakes_at) in [
            (Mark { head: 10 * 115, ..never }, 9),
            (Mark { head: 10 * 115 + 1, ..never }, 10),
            (Mark { time: 200, ..never }, 5),
            (Mark { start: 1, ..never }, 7),
            (Mark { time: 200, head: 1, ..never }, 0),
        ] {
            let (mut writer, count) = (writer(RETENTION), Arc::<Count>::default());
            let mut reached = reached_at(writer.log(), mark);
            assert!(!poll(&mut reached, &count));
            for n in 0..20 {
                if n % 7 == 0 {
                    start(&mut writer, n * 40);
                }
                append(&mut writer, n * 40, 100);
                let woken = count.0.load(Ordering::Relaxed);
                assert_eq!(woken, u64::from(n >= wakes_at), "{mark:?} at tag {n}");
            }
            assert!(poll(&mut reached, &count));
        }
    }

    #[test]
    fn a_mark_is_removed_with_its_reader_and_others_stay() {
        let (mut writer, count) = (writer(RETENTION), Arc::<Count>::default());
        let log = Arc::clone(writer.log());
        let (mut near, mut far) = (reached_at(&log, Mark::any(0)), reached_at(&log, Mark::any(200)));
        assert!(!poll(&mut near, &count) && !poll(&mut far, &count));
        assert!(!poll(&mut far, &count), "polled again, it still waits");
        assert_eq!(log.waiters().lock().entries.len(), 2);
        drop(near);
        append(&mut writer, 0, 100);
        assert_eq!(count.0.load(Ordering::Relaxed), 0);
        append(&mut writer, 0, 100);
        assert_eq!(count.0.load(Ordering::Relaxed), 1);
        drop(far);
        let waiters = log.waiters();
        assert_eq!(waiters.head.load(Ordering::Relaxed), u64::MAX);
        assert!(waiters.lock().entries.is_empty());
    }

    #[test]
    fn a_mark_already_reached_and_an_ended_log_are_ready_at_once() {
        let (mut writer, count) = (writer(RETENTION), Arc::<Count>::default());
        append(&mut writer, 0, 100);
        let log = Arc::clone(writer.log());
        assert!(poll(&mut reached_at(&log, Mark::any(0)), &count));
        let mut reached = reached_at(&log, Mark::any(log.head()));
        assert!(!poll(&mut reached, &count));
        log.close();
        assert_eq!(count.0.load(Ordering::Relaxed), 1);
        assert!(poll(&mut reached, &count) && poll(&mut reached_at(&log, Mark::any(log.head())), &count));
    }

    struct Unpark(Thread, AtomicBool);

    impl Wake for Unpark {
        fn wake(self: Arc<Self>) {
            self.1.store(true, Ordering::Release);
            self.0.unpark();
        }
    }

    /// The writer continues only when the reader has seen what it wrote last, so each round is a race between
    /// the reader's mark and the writer's head, and a single lost wake-up fails the test.
    #[test]
    fn no_wake_up_is_lost() {
        const ROUNDS: u64 = 50_000;
        const LEN: u64 = 16; // of a tag of one byte
        let mut writer = writer(RETENTION);
        let log = Arc::clone(writer.log());
        let seen = Arc::new(AtomicU64::new(0));
        let reader = std::thread::spawn({
            let seen = Arc::clone(&seen);
            move || {
                let unpark = Arc::new(Unpark(std::thread::current(), AtomicBool::new(false)));
                let waker = Waker::from(Arc::clone(&unpark));
                for round in 1..=ROUNDS {
                    // The head may already be past this, or move just now.
                    let before = round * LEN;
                    let mut reached = reached_at(
                        &log,
                        match round % 3 {
                            0 => Mark::any(before),
                            1 => Mark { head: u64::MAX, time: round.cast_signed(), start: u64::MAX },
                            _ => Mark { head: u64::MAX, time: StreamTime::MAX, start: before },
                        },
                    );
                    let since = Instant::now();
                    while Pin::new(&mut reached).poll(&mut Context::from_waker(&waker)).is_pending() {
                        while !unpark.1.swap(false, Ordering::Acquire) {
                            assert!(since.elapsed() < Duration::from_secs(60), "round {round}: not woken");
                            std::thread::park_timeout(Duration::from_secs(1));
                        }
                    }
                    seen.store(round, Ordering::Release);
                }
            }
        });
        append(&mut writer, 0, 1);
        for round in 1..=ROUNDS {
            start(&mut writer, round.cast_signed());
            append(&mut writer, round.cast_signed(), 1);
            while seen.load(Ordering::Acquire) < round && !reader.is_finished() {
                std::hint::spin_loop();
            }
        }
        reader.join().unwrap();
    }
}
