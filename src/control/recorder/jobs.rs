//! Takes that are over, and what is done with them: one after the other is finished, and each finished file is told
//! to the hook.

use std::cell::Cell;
use std::io;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::Duration;

use tracing::{error, info, warn};

use super::common::{Active, Common, Left};
use super::disk::Disk;
use super::hook::{Finished, Told};
use super::layout::Kind;
use super::queue::{Items, Queue, Queued};
use super::{finish, take};

/// The most takes that wait to be finished. Further ones are looked for when half of these are done.
const JOBS_MAX: usize = 1000;
/// How long to wait for a take that another task works on.
const AGAIN: Duration = Duration::from_millis(200);
/// The pause after a finishing step that failed.
const RETRY: Duration = Duration::from_secs(30);
/// How often a finishing step is tried. In between the take cannot be removed; afterwards it can be, which may be what
/// its disk lacks, and what is left of it is tried again after a longer time.
pub(super) const ATTEMPTS: u32 = 20;
pub(super) const LATER: Duration = Duration::from_secs(3600);
/// How often to look, at the most, whether a stream that is recorded again has its first segment.
const RECORDED_AGAIN: Duration = Duration::from_millis(200);

/// What takes are finished with.
#[derive(Clone, Debug)]
pub(super) struct Terms {
    /// The folder of the recordings.
    pub(super) data: PathBuf,
    /// Files are synced before they get their name.
    pub(super) sync: bool,
    /// How long a stream waits for its publisher to come back.
    pub(super) gap: Duration,
}

/// The takes that wait to be finished.
#[derive(Debug)]
pub(super) struct Jobs<D> {
    disk: D,
    terms: Terms,
    common: Rc<Common>,
    queue: Queue<Job>,
    /// There were more takes to finish than may wait.
    overflowed: Cell<bool>,
    /// Takes that could not be finished are looked for again, after [`LATER`].
    later: Cell<bool>,
    /// Files to call the hook for; `None`: there is no hook.
    told: Option<Queue<Told>>,
    /// Held by each job under way.
    busy: Rc<()>,
}

/// A take to finish.
#[derive(Debug)]
pub(super) struct Job {
    kind: Kind,
    dir: PathBuf,
    id: String,
    attempts: u32,
    _active: Active,
    _busy: Rc<()>,
}

impl<D: Disk> Jobs<D> {
    /// None yet; [`work_off`](Self::work_off) does them.
    pub(super) fn new(
        disk: D,
        terms: Terms,
        common: Rc<Common>,
        told: Option<Queue<Told>>,
        busy: Rc<()>,
    ) -> (Rc<Self>, Items<Job>) {
        let (queue, items) = Queue::new("finish", JOBS_MAX);
        let (overflowed, later) = (Cell::new(false), Cell::new(false));
        (Rc::new(Self { disk, terms, common, queue, overflowed, later, told, busy }), items)
    }

    /// Queues a take to be finished, or leaves it as it is until the queue has capacity.
    pub(super) fn finish(&self, Left { kind, dir, id }: Left) {
        let (active, busy) = (self.common.activate(&dir), Rc::clone(&self.busy));
        if !self.queue.put(Job { kind, dir, id, attempts: 0, _active: active, _busy: busy }) {
            self.overflowed.set(true);
        }
    }

    /// Finishes takes that were moved away: split off from continuing recordings, or left by a crash.
    /// For ever.
    pub(super) async fn finish_parted(self: Rc<Self>) {
        loop {
            self.common.left_behind().await;
            for left in self.common.take_left() {
                match finish::is_unfinished(&self.disk, &left.dir).await {
                    Ok(false) => {}
                    // Finishing it tries again.
                    Ok(true) | Err(_) => self.finish(left),
                }
            }
        }
    }

    /// Finds takes that a crash has left unfinished, or that did not fit in the queue.
    pub(super) async fn mend(self: &Rc<Self>) {
        for kind in Kind::EVERY {
            let listing =
                finish::recovered(&self.disk, &self.terms.data.join(kind.folder()), &self.common).await;
            for finish::Unreadable { dir, error } in listing.unreadable {
                warn!(dir = %dir.display(), %error, "cannot look for unfinished recordings");
            }
            let is_left = |take: &finish::Found| take.unfinished && !self.common.is_active(&take.dir);
            for take in listing.takes.into_iter().filter(is_left) {
                info!(take = %take.dir.display(), "finishing a recording that was cut off");
                self.finish_cut_off(Left { kind, dir: take.dir, id: take.id });
            }
        }
    }

    /// Finishes a take that an earlier run of the program has left. If it is a stream's newest, its publisher may
    /// come back: live players are told the end after the time for which they would have waited for that, unless the
    /// stream is being recorded again. The first segment of the next take moves this one away.
    fn finish_cut_off(self: &Rc<Self>, left: Left) {
        let is_newest = !left.dir.file_name().is_some_and(|name| name.as_encoded_bytes().contains(&b'@'));
        if left.kind == Kind::Flv || !is_newest {
            return self.finish(left);
        }
        let (jobs, active) = (Rc::clone(self), self.common.activate(&left.dir));
        tokio_uring::spawn(async move {
            let common = &jobs.common;
            loop {
                common.wait(jobs.terms.gap.max(RECORDED_AGAIN)).await;
                let others = common.actives(&left.dir) > 1 && !common.has_moved(&left.dir, &left.id);
                if common.is_stopping() || !others {
                    break;
                }
            }
            if !common.is_stopping() {
                jobs.finish(left);
            }
            drop(active);
        });
    }

    /// Finishes one take after the other.
    pub(super) async fn work_off(self: Rc<Self>, mut queue: Items<Job>) {
        while let Some(queued) = queue.recv().await {
            self.work_on(queued).await;
            if self.queue.len() < JOBS_MAX / 2 && self.overflowed.take() {
                self.mend().await;
            }
        }
    }

    async fn work_on(self: &Rc<Self>, mut queued: Queued<Job>) {
        let job = &mut queued.item;
        match self.try_finish(job).await {
            Ok(files) => {
                for file in files {
                    self.finished(job.kind, &job.dir, &file).await;
                }
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => self.again(queued, AGAIN),
            Err(error) => {
                job.attempts += 1;
                if job.attempts >= ATTEMPTS || self.common.is_stopping() {
                    error!(take = %job.dir.display(), %error, "a recording cannot be finished");
                    self.mend_later();
                } else {
                    warn!(take = %job.dir.display(), %error, "a recording cannot be finished yet");
                    self.again(queued, RETRY);
                }
            }
        }
    }

    /// Finishes a take, wherever it is by now.
    async fn try_finish(&self, job: &mut Job) -> io::Result<Vec<PathBuf>> {
        let dir = job.dir.clone();
        if !self.common.claim(&dir) {
            return Err(io::Error::from(io::ErrorKind::Interrupted));
        }
        let result = match take::found(&self.disk, &job.dir).await {
            Ok(Some(about)) if about.id == job.id => {
                finish::finish(&self.disk, job.kind, &job.dir, self.terms.sync, &self.common).await
            }
            Ok(_) => match self.common.take_place(&job.dir, &job.id) {
                Some(place) => {
                    job._active = self.common.activate(&place);
                    job.dir = place;
                    Err(io::Error::from(io::ErrorKind::Interrupted))
                }
                None => Ok(Vec::new()), // removed: nothing is left to finish
            },
            Err(error) => Err(error),
        };
        self.common.release(&dir);
        result
    }

    /// Looks for unfinished takes again after [`LATER`].
    fn mend_later(self: &Rc<Self>) {
        if self.later.replace(true) {
            return;
        }
        let jobs = Rc::clone(self);
        tokio_uring::spawn(async move {
            jobs.common.wait(LATER).await;
            jobs.later.set(false);
            if !jobs.common.is_stopping() {
                jobs.mend().await;
            }
        });
    }

    fn again(self: &Rc<Self>, job: Queued<Job>, after: Duration) {
        let jobs = Rc::clone(self);
        tokio_uring::spawn(async move {
            tokio::time::sleep(after).await;
            jobs.queue.put_back(job);
        });
    }

    /// A file is finished: logs it and queues it for the hook.
    async fn finished(&self, kind: Kind, dir: &Path, file: &Path) {
        info!(kind = kind.name(), file = %file.display(), "recorded");
        let Some(told) = &self.told else { return };
        let Ok(Some(about)) = take::found(&self.disk, dir).await else { return };
        let entries = self.disk.list(file.parent().unwrap_or(dir)).await.unwrap_or_default();
        let size = entries.iter().find(|entry| file.ends_with(&entry.name)).map_or(0, |entry| entry.size);
        let url = file.strip_prefix(&self.terms.data).unwrap_or(file);
        let finished = Finished {
            event: "recorded",
            kind: kind.name(),
            stream: about.stream,
            began: about.began,
            file: std::path::absolute(file).unwrap_or_else(|_| file.to_owned()).display().to_string(),
            url: format!("/{}", url.display()),
            size,
        };
        told.put((finished, Rc::clone(&self.busy)));
    }
}
