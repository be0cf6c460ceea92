//! The state that all recordings of a process share: which take is recorded or worked on where, and what is
//! left to finish.

use std::cell::{Cell, RefCell};
use std::collections::{HashMap, HashSet, VecDeque};
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::Duration;

use tokio::sync::Notify;

use super::layout::Kind;
use super::take::Numbers;
use crate::live::timeline::StreamTime;

/// The most streams whose numbers are remembered.
const NUMBERS_MAX: usize = 1 << 16;

/// The most places at which takes were split off that are remembered.
const STAMPS_MAX: usize = 1024;

/// What all tasks share.
#[derive(Debug, Default)]
pub(super) struct Common {
    /// The free space on the disk is below its minimum.
    pub(super) full: Cell<bool>,
    /// The process is stopping: recordings end with what they have.
    stopping: Cell<bool>,
    stopped: Notify,
    /// How many times a folder stopped being used by a recording or an unfinished take.
    finished: Cell<u64>,
    /// Folders of takes that are being recorded or wait to be finished, with the number of uses.
    active: RefCell<HashMap<PathBuf, u32>>,
    /// Folders of takes that are being finished or removed.
    claimed: RefCell<HashSet<PathBuf>>,
    released: Notify,
    /// Folders that new takes need, whose earlier takes are about to be moved away.
    wanted: RefCell<HashSet<PathBuf>>,
    /// Takes that were split off from a recording that continues, and are to be finished.
    left: RefCell<Vec<Left>>,
    has_left: Notify,
    /// The numbers that follow those which this process has used, by a take's folder.
    numbers: RefCell<HashMap<PathBuf, Numbers>>,
    /// Turns to number segments, by the folder of their takes.
    pub(super) numbering: Turns,
    /// Turns to write in a take's folder.
    pub(super) writing: Turns,
    /// Turns to begin a take in a folder.
    pub(super) beginning: Turns,
    /// When takes began that were split off: by the stream's id and the stream's time. The newest is the last.
    stamps: RefCell<VecDeque<(String, StreamTime, String)>>,
    /// Takes that were moved away before they were finished, by folder and id, with their present place.
    moved: RefCell<HashMap<(PathBuf, String), PathBuf>>,
}

impl Common {
    /// The process is stopping: wakes all tasks that wait for [`stopped`](Self::stopped).
    pub(super) fn stop(&self) {
        self.stopping.set(true);
        self.stopped.notify_waiters();
    }

    /// Whether the process is stopping.
    pub(super) fn is_stopping(&self) -> bool {
        self.stopping.get()
    }

    /// Waits until the process is stopping.
    pub(super) async fn stopped(&self) {
        // In this order: no notification is missed from here on.
        let told = self.stopped.notified();
        if !self.is_stopping() {
            told.await;
        }
    }

    /// Waits for so long, unless the process is stopping.
    pub(super) async fn wait(&self, time: Duration) {
        tokio::select! {
            () = self.stopped() => {}
            () = tokio::time::sleep(time) => {}
        }
    }

    /// Whether a new take needs this folder.
    pub(super) fn is_wanted(&self, dir: &Path) -> bool {
        self.wanted.borrow().contains(dir)
    }

    /// Claims the take in `dir` for one task until [`release`](Self::release). `false`: another task has
    /// claimed it, or a new take needs the folder.
    pub(super) fn claim(&self, dir: &Path) -> bool {
        !self.is_wanted(dir) && self.claimed.borrow_mut().insert(dir.to_owned())
    }

    /// Releases the claim of a take.
    pub(super) fn release(&self, dir: &Path) {
        let was_claimed = self.claimed.borrow_mut().remove(dir);
        assert!(was_claimed, "only what was claimed is released");
        self.released.notify_waiters();
    }

    /// Whether a take in this folder is being recorded or waits to be finished.
    pub(super) fn is_active(&self, dir: &Path) -> bool {
        self.actives(dir) > 0
    }

    /// How many recordings and unfinished takes use this folder.
    pub(super) fn actives(&self, dir: &Path) -> u32 {
        self.active.borrow().get(dir).copied().unwrap_or(0)
    }

    /// A number that changes when a take has been finished.
    pub(super) fn finished(&self) -> u64 {
        self.finished.get()
    }

    /// Marks the take in this folder as recorded or to be finished, until the guard is dropped.
    pub(super) fn activate(self: &Rc<Self>, dir: &Path) -> Active {
        *self.active.borrow_mut().entry(dir.to_owned()).or_default() += 1;
        Active { common: Rc::clone(self), dir: dir.to_owned() }
    }

    /// Waits until no task works in `dir`, and reserves it until [`leave`](Self::leave).
    pub(super) async fn want(&self, dir: &Path) {
        let is_new = self.wanted.borrow_mut().insert(dir.to_owned());
        assert!(is_new, "one take at a time begins in a folder");
        loop {
            let released = self.released.notified();
            if !self.claimed.borrow().contains(dir) {
                return;
            }
            released.await;
        }
    }

    /// Ends the reservation of `dir`.
    pub(super) fn leave(&self, dir: &Path) {
        let was_wanted = self.wanted.borrow_mut().remove(dir);
        assert!(was_wanted, "only what was reserved is left");
        assert!(!self.claimed.borrow().contains(dir), "no task works in a reserved folder");
    }

    /// Adds a take that was split off from a recording that continues.
    pub(super) fn leave_behind(&self, left: Left) {
        self.left.borrow_mut().push(left);
        self.has_left.notify_one();
    }

    /// Records that the take with this id was moved from `dir` to `place`.
    pub(super) fn remember(&self, dir: &Path, id: String, place: PathBuf) {
        assert_ne!(dir, place, "it was moved");
        self.moved.borrow_mut().insert((dir.to_owned(), id), place);
    }

    /// The numbers that follow those which this process has used for takes in `dir`.
    pub(super) fn numbers(&self, dir: &Path) -> Option<Numbers> {
        self.numbers.borrow().get(dir).copied()
    }

    /// Sets the numbers that follow those which were used for takes in `dir`.
    pub(super) fn set_numbers(&self, dir: &Path, next: Numbers) {
        let mut numbers = self.numbers.borrow_mut();
        if let Some(known) = numbers.get_mut(dir) {
            let rises = known.sequence <= next.sequence && known.discontinuities <= next.discontinuities;
            assert!(rises, "numbers only rise: {known:?} {next:?}");
            *known = next;
            return;
        }
        if numbers.len() >= NUMBERS_MAX {
            numbers.clear(); // they are on the disk, or the clock gives larger ones
        }
        numbers.insert(dir.to_owned(), next);
    }

    /// When the take of `stream` began that was split off at the stream's time `at`: the same for all its kinds,
    /// which come to that place one after the other. `now` is the present time.
    pub(super) fn stamp(&self, stream: &str, at: StreamTime, now: String) -> String {
        let mut stamps = self.stamps.borrow_mut();
        if let Some((.., stamp)) = stamps.iter().find(|(id, time, _)| id == stream && *time == at) {
            return stamp.clone();
        }
        if stamps.len() >= STAMPS_MAX {
            stamps.pop_front();
        }
        stamps.push_back((stream.to_owned(), at, now.clone()));
        now
    }

    /// The takes that were split off since the last call.
    pub(super) fn take_left(&self) -> Vec<Left> {
        self.left.take()
    }

    /// Waits until a take has been split off since this returned last.
    pub(super) async fn left_behind(&self) {
        self.has_left.notified().await;
    }

    /// Whether the take with this id was moved from `dir`.
    pub(super) fn has_moved(&self, dir: &Path, id: &str) -> bool {
        self.moved.borrow().contains_key(&(dir.to_owned(), id.to_owned()))
    }

    /// Where the take is that was in `dir`; a take moves once, and its place is asked for once.
    pub(super) fn take_place(&self, dir: &Path, id: &str) -> Option<PathBuf> {
        self.moved.borrow_mut().remove(&(dir.to_owned(), id.to_owned()))
    }
}

/// A take that is over and still has to be finished.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Left {
    pub(super) kind: Kind,
    pub(super) dir: PathBuf,
    pub(super) id: String,
}

/// One after the other does something in a folder: what belongs to an earlier take of a stream may still go on when
/// the next one begins.
#[derive(Clone, Debug, Default)]
pub(super) struct Turns(Rc<(RefCell<HashSet<PathBuf>>, Notify)>);

impl Turns {
    /// Waits until no other task has the turn in `dir`.
    pub(super) async fn take(&self, dir: &Path) -> Turn {
        let (taken, given) = &*self.0;
        loop {
            let next = given.notified();
            if taken.borrow_mut().insert(dir.to_owned()) {
                return Turn { turns: self.clone(), dir: dir.to_owned() };
            }
            next.await;
        }
    }
}

/// Its holder is the only one in its folder.
#[derive(Debug)]
pub(super) struct Turn {
    turns: Turns,
    dir: PathBuf,
}

impl Drop for Turn {
    fn drop(&mut self) {
        let (taken, given) = &*self.turns.0;
        let was_taken = taken.borrow_mut().remove(&self.dir);
        assert!(was_taken, "a turn is given back once");
        given.notify_waiters();
    }
}

/// Keeps a take from being removed.
#[derive(Debug)]
pub(super) struct Active {
    common: Rc<Common>,
    dir: PathBuf,
}

impl Drop for Active {
    fn drop(&mut self) {
        let mut active = self.common.active.borrow_mut();
        let count = active.get_mut(&self.dir).expect("a guard is counted");
        *count -= 1;
        if *count == 0 {
            active.remove(&self.dir);
            self.common.finished.set(self.common.finished.get() + 1);
        }
    }
}
