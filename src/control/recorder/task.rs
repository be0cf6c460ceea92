//! What the three recording tasks have in common: each reads a stream's log with a cursor of its own, and each
//! fails, sheds and recovers by itself.

use std::cell::{Cell, RefCell};
use std::collections::{HashMap, HashSet};
use std::io;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use tracing::{info, warn};

use super::disk::Disk;
use super::source::Complaint;
use super::stats::Stats;
use super::tail::{News, Tail};
use super::take::{self, About, Begun, Carry, Numbers};
use crate::live::log::Start;
use crate::live::stream::{Selection, Stream};
use crate::live::timeline::StreamTime;
use crate::media::m3u8::Head;
use crate::media::segmenter::Lengths;
use crate::media::tag::TagRef;

/// How often a log is looked at that had nothing new.
const POLL: Duration = Duration::from_millis(250);
/// How long a task that failed waits before it tries again.
const RETRY: Duration = Duration::from_secs(2);
/// A write that takes longer is worth a line in the log.
const STALL: Duration = Duration::from_secs(5);

/// The three tasks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Kind {
    Flv,
    Hls,
    Fmp4,
}

impl Kind {
    pub(super) const EVERY: [Self; 3] = [Self::Flv, Self::Hls, Self::Fmp4];

    /// As `--record` names it.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Flv => "flv",
            Self::Hls => "hls",
            Self::Fmp4 => "fmp4",
        }
    }

    /// The folder under the data folder.
    pub(super) const fn folder(self) -> &'static str {
        match self {
            Self::Flv => "flv",
            Self::Hls => "hls",
            Self::Fmp4 => "mp4",
        }
    }
}

/// What a task works with.
#[derive(Clone, Debug)]
pub(super) struct Setting<D> {
    pub(super) disk: D,
    pub(super) about: About,
    pub(super) lengths: Lengths,
    /// A take that is longer is parted at a start; 0: none is.
    pub(super) take: StreamTime,
    /// The take that was parted from what comes, until that has its folder.
    pub(super) parted: Option<String>,
    /// Segments of a live playlist.
    pub(super) window: usize,
    /// Files are synced before they get their name.
    pub(super) sync: bool,
    pub(super) stats: Stats,
    pub(super) common: Rc<Common>,
}

/// What all tasks share.
#[derive(Debug, Default)]
pub(super) struct Common {
    /// Less room is left on the disk than must be.
    pub(super) full: Cell<bool>,
    /// The process ends: what there is must do.
    pub(super) stopping: Cell<bool>,
    /// Folders of takes that are being recorded, or are to be finished, and how often.
    active: RefCell<HashMap<PathBuf, u32>>,
    /// Folders of takes that are being finished or removed.
    claimed: RefCell<HashSet<PathBuf>>,
    /// Folders that new takes want, whose earlier takes are about to be moved away.
    wanted: RefCell<HashSet<PathBuf>>,
    /// Takes that were parted from what is still recorded, and are to be finished.
    left: RefCell<Vec<Left>>,
    /// Takes that were moved away before they were finished, by folder and id, and where they are now.
    moved: RefCell<HashMap<(PathBuf, String), PathBuf>>,
}

impl Common {
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
        self.claimed.borrow_mut().remove(dir);
    }

    /// Whether a take in this folder is being recorded or waits to be finished.
    pub(super) fn is_active(&self, dir: &Path) -> bool {
        self.actives(dir) > 0
    }

    fn actives(&self, dir: &Path) -> u32 {
        self.active.borrow().get(dir).copied().unwrap_or(0)
    }

    /// A take in this folder is being recorded, or waits to be finished, until the guard is dropped.
    pub(super) fn activate(self: &Rc<Self>, dir: &Path) -> Active {
        *self.active.borrow_mut().entry(dir.to_owned()).or_default() += 1;
        Active { common: Rc::clone(self), dir: dir.to_owned() }
    }

    /// Waits until nobody works in `dir`, and keeps it so until [`leave`](Self::leave).
    async fn want(&self, dir: &Path) {
        self.wanted.borrow_mut().insert(dir.to_owned());
        while self.claimed.borrow().contains(dir) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    fn leave(&self, dir: &Path) {
        self.wanted.borrow_mut().remove(dir);
    }

    /// The takes that were parted since it was asked for last.
    pub(super) fn take_left(&self) -> Vec<Left> {
        self.left.take()
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
        if let Some(count) = active.get_mut(&self.dir) {
            *count -= 1;
            if *count == 0 {
                active.remove(&self.dir);
            }
        }
    }
}

impl<D: Disk> Setting<D> {
    /// Makes the folder of the take and moves an earlier one away; gives what its playlists begin with.
    pub(super) async fn begin_take(&mut self, kind: Kind, dir: &Path, carry: &Carry) -> io::Result<Head> {
        self.common.want(dir).await;
        let begun = take::begin(&self.disk, dir, &self.about, carry).await;
        self.common.leave(dir);
        let Begun { first, moved } = begun?;
        let parted = self.parted.take();
        match moved {
            Some((id, dir)) if parted.as_ref() == Some(&id) => {
                self.common.left.borrow_mut().push(Left { kind, dir, id });
            }
            // The new take is active here itself; another one waits to be finished.
            Some((id, place)) if self.common.actives(dir) > 1 => {
                self.common.moved.borrow_mut().insert((dir.to_owned(), id), place);
            }
            _ => {}
        }
        let Numbers { sequence, discontinuities } = first;
        Ok(Head { target: self.target_seconds(), sequence, discontinuities })
    }

    /// What comes is another take, which [`begin_take`](Self::begin_take) is to make room for.
    pub(super) fn part(&mut self, about: About) {
        self.parted = Some(std::mem::replace(&mut self.about, about).id);
    }

    /// Whether a take has been parted from what comes, and that has no folder yet.
    pub(super) fn is_parted(&self) -> bool {
        self.parted.is_some()
    }

    /// `EXT-X-TARGETDURATION` of a take without segments.
    fn target_seconds(&self) -> u32 {
        u32::try_from((self.lengths.target + 500) / 1000).unwrap_or(u32::MAX).max(1)
    }

    /// Says what is not recorded, and why.
    pub(super) fn complain(&self, kind: Kind, error: &Complaint) {
        warn!(stream = self.about.stream, kind = kind.name(), %error, "something is not recorded");
    }
}

/// One recording of one stream. The first three take what comes and touch no disk; [`write`](Self::write) is
/// called often enough that little gathers.
pub(super) trait Task {
    const KIND: Kind;

    /// Tags from here on. `gap`: what was before is missing.
    fn begin(&mut self, start: &Start, gap: bool);
    /// The next tag and its time.
    fn tag(&mut self, tag: &TagRef<'_>, time: StreamTime);
    /// Nothing comes any more.
    fn end(&mut self);
    /// What was before is a take of its own: it is whole, and what comes begins another one. Goes on with
    /// [`begin`](Self::begin).
    fn part(&mut self, about: About);
    /// Puts on the disk what has gathered.
    async fn write(&mut self) -> io::Result<()>;
    /// Closes what is open after the last write; gives the folder in which something is left to finish.
    async fn close(&mut self) -> io::Result<Option<PathBuf>>;
    /// Something failed: what has gathered is given up. Goes on with [`begin`](Self::begin).
    async fn reset(&mut self);
}

/// Runs a task until its stream is over. Gives the take of which something is left to finish.
pub(super) async fn run<T: Task, D: Disk>(
    mut task: T,
    stream: Arc<Stream>,
    setting: Setting<D>,
) -> Option<Left> {
    let log = loop {
        if let Some(log) = stream.log(Selection::All) {
            break log;
        }
        tokio::time::sleep(POLL).await;
    };
    let mut runner =
        Runner { tail: Tail::new(log), failing: false, begun: false, began: None, parts: 0, setting };
    loop {
        // In this order: what came before the end is read.
        let over = stream.has_ended() || runner.setting.common.stopping.get();
        match runner.step(&mut task).await {
            Ok(true) => tokio::task::yield_now().await,
            Ok(false) if over => break,
            Ok(false) => tokio::time::sleep(POLL).await,
            Err(_) if over => break,
            Err(error) => runner.failed(&mut task, &error).await,
        }
    }
    runner.finish(&mut task).await
}

struct Runner<D> {
    tail: Tail,
    /// The last attempt failed, and the log says so.
    failing: bool,
    begun: bool,
    /// When the take began that is under way.
    began: Option<StreamTime>,
    /// How many takes were parted.
    parts: u32,
    setting: Setting<D>,
}

impl<D: Disk> Runner<D> {
    /// Takes the next piece of the log; `Ok(false)`: there is none.
    async fn step<T: Task>(&mut self, task: &mut T) -> io::Result<bool> {
        if self.setting.common.full.get() {
            return Err(io::Error::from(io::ErrorKind::StorageFull));
        }
        match self.tail.next() {
            News::Nothing => return Ok(false),
            News::Start { start, skipped } => {
                if skipped > 0 {
                    self.setting.stats.skipped(skipped);
                    if !self.failing {
                        let (stream, kind) = (&self.setting.about.stream, T::KIND.name());
                        warn!(stream, kind, bytes = skipped, "recording was too slow and skipped a part");
                    }
                }
                let is_long = |began: StreamTime| start.time - began >= self.setting.take;
                if self.setting.take > 0 && self.began.is_some_and(is_long) {
                    self.part(task).await?;
                    self.began = None;
                }
                task.begin(&start, self.begun);
                self.begun = true;
                let began = *self.began.get_or_insert(start.time);
                if self.setting.take > 0 {
                    self.tail.part_at(began.saturating_add(self.setting.take));
                }
            }
            News::Tags(piece) => {
                for tag in piece.tags() {
                    let time = self.tail.time_of(&tag);
                    task.tag(&tag, time);
                }
            }
        }
        self.write(task).await?;
        Ok(true)
    }

    /// Ends the take under way; what comes is another one.
    async fn part<T: Task>(&mut self, task: &mut T) -> io::Result<()> {
        task.end();
        self.write(task).await?;
        self.parts += 1;
        let About { id, .. } = &self.setting.about;
        let stem = id.split_once('-').map_or(id.as_str(), |(stem, _)| stem);
        let about =
            About { id: format!("{stem}-{}", self.parts), began: take::now(), ..self.setting.about.clone() };
        self.setting.about = about.clone();
        task.part(about);
        Ok(())
    }

    /// Writes, and says so if that takes long.
    async fn write<T: Task>(&mut self, task: &mut T) -> io::Result<()> {
        let (stream, kind) = (self.setting.about.stream.as_str(), T::KIND.name());
        let mut writing = std::pin::pin!(task.write());
        let result = tokio::select! {
            biased;
            result = &mut writing => result,
            () = tokio::time::sleep(STALL) => {
                warn!(stream, kind, "the disk does not take what is recorded; waiting for it");
                let _stalled = self.setting.stats.stalled();
                writing.await
            }
        };
        if result.is_ok() && self.failing {
            self.failing = false;
            info!(stream, kind, "recording goes on");
        }
        result
    }

    async fn failed<T: Task>(&mut self, task: &mut T, error: &io::Error) {
        self.setting.stats.failed();
        if !self.failing {
            self.failing = true;
            let (stream, kind) = (&self.setting.about.stream, T::KIND.name());
            warn!(stream, kind, %error, "recording fails; it goes on at a keyframe when it can");
        }
        task.reset().await;
        self.tail.give_up();
        tokio::time::sleep(RETRY).await;
    }

    async fn finish<T: Task>(&mut self, task: &mut T) -> Option<Left> {
        task.end();
        let (stream, kind) = (self.setting.about.stream.clone(), T::KIND.name());
        if let Err(error) = self.write(task).await {
            warn!(stream, kind, %error, "the end of a recording is lost");
            task.reset().await;
        }
        match task.close().await {
            Ok(dir) => dir.map(|dir| Left { kind: T::KIND, dir, id: self.setting.about.id.clone() }),
            Err(error) => {
                warn!(stream, kind, %error, "a recording is not closed; that is mended at the next start");
                None
            }
        }
    }
}
