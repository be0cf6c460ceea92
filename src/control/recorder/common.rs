//! What all recordings of a process know of one another: whose folder is whose, and what is left to finish.

use std::cell::{Cell, RefCell};
use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::rc::Rc;

use tokio::sync::Notify;

use super::layout::Kind;

/// What all tasks share.
#[derive(Debug, Default)]
pub(super) struct Common {
    /// Less room is left on the disk than must be.
    pub(super) full: Cell<bool>,
    /// The process ends: what there is must do.
    stopping: Cell<bool>,
    stopped: Notify,
    /// Folders of takes that are being recorded, or are to be finished, and how often.
    active: RefCell<HashMap<PathBuf, u32>>,
    /// Folders of takes that are being finished or removed.
    claimed: RefCell<HashSet<PathBuf>>,
    released: Notify,
    /// Folders that new takes want, whose earlier takes are about to be moved away.
    wanted: RefCell<HashSet<PathBuf>>,
    /// Takes that were parted from what is still recorded, and are to be finished.
    left: RefCell<Vec<Left>>,
    has_left: Notify,
    /// Takes that were moved away before they were finished, by folder and id, and where they are now.
    moved: RefCell<HashMap<(PathBuf, String), PathBuf>>,
}

impl Common {
    /// The process ends: tells all that wait for [`stopped`](Self::stopped).
    pub(super) fn stop(&self) {
        self.stopping.set(true);
        self.stopped.notify_waiters();
    }

    /// Whether the process ends.
    pub(super) fn is_stopping(&self) -> bool {
        self.stopping.get()
    }

    /// Waits until the process ends.
    pub(super) async fn stopped(&self) {
        // In this order: what is told from here on is heard.
        let told = self.stopped.notified();
        if !self.is_stopping() {
            told.await;
        }
    }

    /// Whether a new take wants this folder.
    pub(super) fn is_wanted(&self, dir: &Path) -> bool {
        self.wanted.borrow().contains(dir)
    }

    /// Nobody else works on the take in `dir` until [`release`](Self::release). `false`: somebody does, or wants
    /// the folder.
    pub(super) fn claim(&self, dir: &Path) -> bool {
        !self.is_wanted(dir) && self.claimed.borrow_mut().insert(dir.to_owned())
    }

    /// The take is free again.
    pub(super) fn release(&self, dir: &Path) {
        let was_claimed = self.claimed.borrow_mut().remove(dir);
        assert!(was_claimed, "only what was claimed is released");
        self.released.notify_waiters();
    }

    /// Whether a take in this folder is being recorded or waits to be finished.
    pub(super) fn is_active(&self, dir: &Path) -> bool {
        self.actives(dir) > 0
    }

    /// How many record into this folder, or wait to finish what is in it.
    pub(super) fn actives(&self, dir: &Path) -> u32 {
        self.active.borrow().get(dir).copied().unwrap_or(0)
    }

    /// A take in this folder is being recorded, or waits to be finished, until the guard is dropped.
    pub(super) fn activate(self: &Rc<Self>, dir: &Path) -> Active {
        *self.active.borrow_mut().entry(dir.to_owned()).or_default() += 1;
        Active { common: Rc::clone(self), dir: dir.to_owned() }
    }

    /// Waits until nobody works in `dir`, and keeps it so until [`leave`](Self::leave).
    pub(super) async fn want(&self, dir: &Path) {
        self.wanted.borrow_mut().insert(dir.to_owned());
        loop {
            let released = self.released.notified();
            if !self.claimed.borrow().contains(dir) {
                return;
            }
            released.await;
        }
    }

    /// Others may work in `dir` again.
    pub(super) fn leave(&self, dir: &Path) {
        self.wanted.borrow_mut().remove(dir);
    }

    /// A take was parted from what is still recorded.
    pub(super) fn leave_behind(&self, left: Left) {
        self.left.borrow_mut().push(left);
        self.has_left.notify_one();
    }

    /// The take of this id is not in `dir` any more, but in `place`.
    pub(super) fn remember(&self, dir: &Path, id: String, place: PathBuf) {
        self.moved.borrow_mut().insert((dir.to_owned(), id), place);
    }

    /// The takes that were parted since it was asked for last.
    pub(super) fn take_left(&self) -> Vec<Left> {
        self.left.take()
    }

    /// Waits until a take has been parted since this returned last.
    pub(super) async fn left_behind(&self) {
        self.has_left.notified().await;
    }

    /// Where the take is that was in `dir`; a take moves once, and is asked for once.
    pub(super) fn take_place(&self, dir: &Path, id: &str) -> Option<PathBuf> {
        self.moved.borrow_mut().remove(&(dir.to_owned(), id.to_owned()))
    }
}

/// A take that is over, and what is left to do with it is another's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Left {
    pub(super) kind: Kind,
    pub(super) dir: PathBuf,
    pub(super) id: String,
}

/// A take that must not be removed.
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
        }
    }
}
