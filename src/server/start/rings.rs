//! The threads of loops, which create their rings before any of them starts to work.

use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;
use std::time::Duration;

use super::error::StartError;
use crate::uring::setup::RingError;

/// The kernel may still count locked memory of a process that has just ended: a ring that fails for lack of it
/// is tried this many times,
const RING_TRIES: u32 = 20;
/// with this pause between tries.
const RING_PAUSE: Duration = Duration::from_millis(50);

/// Threads of loops: each creates its own ring, and waits until all have one.
pub(super) struct Waiting {
    loops: usize,
    threads: Vec<JoinHandle<()>>,
    /// Lets a loop begin; dropping it ends the loop.
    go: Vec<Sender<()>>,
    report: Sender<Result<(), RingError>>,
    reports: Receiver<Result<(), RingError>>,
}

impl Waiting {
    pub(super) fn new(loops: usize) -> Self {
        let (report, reports) = channel();
        Self { loops, threads: Vec::new(), go: Vec::new(), report, reports }
    }

    /// Starts a loop's thread: it creates the ring, which no other thread may use, and runs when all loops have
    /// theirs.
    pub(super) fn spawn<R>(
        &mut self,
        index: usize,
        make: impl Fn() -> Result<R, RingError> + Send + 'static,
        run: impl FnOnce(R) + Send + 'static,
    ) -> Result<(), StartError> {
        let (go, begin) = channel();
        let report = self.report.clone();
        let thread = std::thread::Builder::new().name(format!("loop-{index}"));
        let spawned = thread.spawn(move || {
            let ring = make_ring(make);
            let (ring, made) = match ring {
                Ok(ring) => (Some(ring), Ok(())),
                Err(error) => (None, Err(error)),
            };
            let told = report.send(made);
            drop(report);
            if let (Some(ring), Ok(()), Ok(())) = (ring, told, begin.recv()) {
                run(ring);
            }
        });
        self.threads.push(spawned.map_err(|error| StartError::Threads { loops: self.loops, error })?);
        self.go.push(go);
        Ok(())
    }

    /// Lets the loops run if all have their rings; otherwise they end.
    pub(super) fn for_all(self) -> Result<Vec<JoinHandle<()>>, StartError> {
        let Self { loops, threads, go, report, reports } = self;
        drop(report);
        let made = reports.iter().collect::<Result<Vec<()>, RingError>>();
        match made {
            Ok(made) => assert_eq!(made.len(), loops, "a loop panicked before it began"),
            Err(error) => {
                drop(go);
                threads.into_iter().for_each(|thread| drop(thread.join()));
                return Err(error.of_rings(loops as u64).into());
            }
        }
        for go in go {
            go.send(()).expect("its loop waits for it");
        }
        Ok(threads)
    }
}

/// Creates a ring; tries several times while locked memory is short.
fn make_ring<R>(make: impl Fn() -> Result<R, RingError>) -> Result<R, RingError> {
    for _ in 1..RING_TRIES {
        match make() {
            Err(RingError::LockedMemory { .. }) => std::thread::sleep(RING_PAUSE),
            other => return other,
        }
    }
    make()
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::sync::Arc;

    use super::*;
    use crate::uring::limits::Lockable;

    fn short() -> RingError {
        RingError::LockedMemory { rings: 1, limit: Lockable(Some(64 << 10)) }
    }

    #[test]
    fn no_loop_runs_unless_all_have_their_rings() {
        let ran = Arc::new(std::sync::atomic::AtomicUsize::new(0));
        let spawn = |waiting: &mut Waiting, index: usize, bad: bool| {
            let ran = Arc::clone(&ran);
            let make = move || if bad && index == 2 { Err(short()) } else { Ok(index) };
            waiting.spawn(index, make, move |made| {
                assert_eq!(made, index);
                ran.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            })
        };
        let mut waiting = Waiting::new(4);
        (0..4).for_each(|index| spawn(&mut waiting, index, true).unwrap());
        let error = waiting.for_all().unwrap_err();
        assert!(matches!(error, StartError::Ring(RingError::LockedMemory { rings: 4, .. })), "{error}");
        assert_eq!((error.exit_code(), ran.load(std::sync::atomic::Ordering::Relaxed)), (75, 0));

        let mut waiting = Waiting::new(4);
        (0..4).for_each(|index| spawn(&mut waiting, index, false).unwrap());
        waiting.for_all().unwrap().into_iter().for_each(|thread| thread.join().unwrap());
        assert_eq!(ran.load(std::sync::atomic::Ordering::Relaxed), 4);
    }

    #[test]
    fn a_ring_is_tried_again_while_locked_memory_is_short() {
        let tries = std::cell::Cell::new(0);
        let made = make_ring(|| {
            tries.set(tries.get() + 1);
            if tries.get() < 3 { Err(short()) } else { Ok(()) }
        });
        assert!(made.is_ok() && tries.get() == 3);
        tries.set(0);
        let forbidden = || RingError::Forbidden(io::Error::from(io::ErrorKind::PermissionDenied));
        let refused = make_ring(|| {
            tries.set(tries.get() + 1);
            Err::<(), _>(forbidden())
        });
        assert!(refused.is_err() && tries.get() == 1);
        assert_eq!(StartError::Ring(forbidden()).exit_code(), 69);
    }
}
