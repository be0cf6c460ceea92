//! The recorder: packages the streams of the origin as HLS and fMP4, and writes them, and FLV, to the disk.
//!
//! It reads the logs like a viewer that may lag, on the control thread, and does not affect the loops. Each
//! stream has up to three tasks, each with its own cursor and its own failures. HLS and fMP4 are packaged once
//! (`packaged`), for live clients (`live`) and for the disk (`writer`). The work at the end of a take
//! is the same that repairs one after a crash ([`finish`]).

mod begin;
mod common;
#[cfg(test)]
mod corpus;
#[cfg(test)]
mod crash_tests;
mod data;
mod disk;
mod finish;
mod flv;
mod hook;
mod layout;
mod live;
#[cfg(test)]
mod live_tests;
#[cfg(test)]
mod long_tests;
mod merge;
#[cfg(test)]
mod names_tests;
#[cfg(test)]
mod pace_tests;
mod packaged;
mod pending;
mod playlist;
mod queue;
mod retention;
#[cfg(test)]
mod sim;
mod space;
mod stats;
mod streams;
mod tail;
mod take;
mod task;
#[cfg(test)]
mod tests;
mod writer;

use std::cell::Cell;
use std::collections::HashSet;
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tracing::{error, info, warn};

use crate::config::{Config, Hook, Role};
use crate::live::events::Event;
use crate::live::stream::Stream;
use crate::server::shared::{RoleState, Shared, Source};
use common::{Active, Common, Left};
pub use data::check_data;
use disk::{Disk, Local};
use hook::{Finished, Told};
use layout::Kind;
use queue::{Items, Queue, Queued};
use retention::Keeper;
pub(super) use stats::describe;

/// The most takes that wait to be finished. Further ones are looked for when half of these are done.
const JOBS_MAX: usize = 1000;
/// How long to wait for a take that another task works on.
const AGAIN: Duration = Duration::from_millis(200);
/// In segments: after this time live players have read that a stream is over, and its playlist becomes the
/// replay.
const LAST_WORD: u32 = 2;
/// The pause after a finishing step that failed.
const RETRY: Duration = Duration::from_secs(30);
/// How often a finishing step is tried. In between the take cannot be removed; afterwards it can be, which may be what
/// its disk lacks, and what is left of it is tried again after a longer time.
const ATTEMPTS: u32 = 20;
const LATER: Duration = Duration::from_secs(3600);
/// How often the free space of the disk is checked; every few times also which takes have to be removed.
const KEEP: Duration = Duration::from_secs(2);
const THOROUGH: u32 = 30;
/// How long the process waits for recordings at its end.
const STOP: Duration = Duration::from_secs(4);

/// The recorder of an origin.
#[derive(Debug)]
pub(super) struct Recorder {
    shared: Arc<Shared>,
    common: Rc<Common>,
    /// Takes to finish.
    jobs: Queue<Job>,
    /// There were more takes to finish than may wait.
    overflowed: Cell<bool>,
    /// Takes that could not be finished are looked for again, after [`LATER`].
    later: Cell<bool>,
    /// Files to call the hook for; `None`: there is no hook.
    told: Option<Queue<Told>>,
    /// Held by each task and job under way.
    busy: Rc<()>,
    /// The data folder is the demo's own and is removed with it.
    temporary: bool,
}

/// A take to finish.
#[derive(Debug)]
struct Job {
    kind: Kind,
    dir: PathBuf,
    id: String,
    attempts: u32,
    _active: Active,
    _busy: Rc<()>,
}

impl Recorder {
    /// Starts recording, if the process has an origin that records anything.
    pub(super) fn start(shared: Arc<Shared>, role: Role) -> Option<Rc<Self>> {
        origin(&shared)?;
        let own = &shared.config.origin;
        let records = own.records();
        if !records && !own.packaging.is_any() {
            return None;
        }
        let temporary = shared.config.is_temporary(role);
        if temporary
            && records
            && let Err(error) = std::fs::DirBuilder::new().mode(0o700).create(&own.data)
        {
            warn!(data = %own.data.display(), %error, "no temporary folder: the demo is not recorded");
            return None;
        }
        let (jobs, queue) = Queue::new("finish", JOBS_MAX);
        let told = match shared.config.recording.hook.clone() {
            Hook::Nobody => None,
            hook => {
                let (told, queue) = Queue::new("hook", hook::WAITING_MAX);
                let caller = Rc::new(hook::Caller::new(hook, shared.trust.get()));
                tokio_uring::spawn(caller.run(queue));
                Some(told)
            }
        };
        let busy = Rc::new(());
        let recorder = Rc::new(Self {
            shared,
            common: Rc::default(),
            jobs,
            overflowed: Cell::new(false),
            later: Cell::new(false),
            told,
            busy,
            temporary,
        });
        tokio_uring::spawn(Rc::clone(&recorder).watch());
        if records {
            tokio_uring::spawn(Rc::clone(&recorder).work_off(queue));
            // It reads the whole archive: new recordings do not wait for it.
            tokio_uring::spawn({
                let recorder = Rc::clone(&recorder);
                async move { recorder.mend().await }
            });
            tokio_uring::spawn(Rc::clone(&recorder).finish_parted());
            tokio_uring::spawn(Rc::clone(&recorder).keep());
        }
        Some(recorder)
    }

    /// Ends all recordings and waits, up to a limit, until they are closed.
    pub(super) async fn stop(&self) {
        self.common.stop();
        let closed = async {
            while Rc::strong_count(&self.busy) > 1 {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        let in_time = tokio::time::timeout(STOP, closed).await.is_ok();
        if self.temporary {
            // Afterwards: what is being written would make its folder again.
            let _ = Local.remove_dir(&self.config().origin.data).await;
        } else if !in_time {
            warn!("recordings are not finished; the next start finishes them");
        }
    }

    fn config(&self) -> &Config {
        &self.shared.config
    }

    fn root(&self, kind: Kind) -> PathBuf {
        self.config().origin.data.join(kind.folder())
    }

    /// Records each stream that is published, for ever.
    async fn watch(self: Rc<Self>) {
        let Some(role) = origin(&self.shared) else { return };
        let mut events = role.directory.subscribe();
        // Streams that are recorded, or were until now.
        let mut seen = HashSet::new();
        let mut event = Event::Resync; // for streams published before this point
        loop {
            match event {
                Event::Came(stream, _held) => self.record_once(&mut seen, &stream),
                Event::Parked(_) => {}
                Event::Ended(stream) => {
                    seen.remove(&stream.id);
                }
                Event::Resync => {
                    let listed = role.directory.list();
                    listed.iter().for_each(|(stream, _)| self.record_once(&mut seen, stream));
                    let ids: HashSet<u64> = listed.iter().map(|(stream, _)| stream.id).collect();
                    seen.retain(|id| ids.contains(id));
                }
            }
            event = tokio::select! {
                biased;
                () = self.common.stopped() => return,
                event = std::future::poll_fn(|context| events.poll_next(context)) => event,
            };
        }
    }

    fn record_once(self: &Rc<Self>, seen: &mut HashSet<u64>, stream: &Arc<Stream>) {
        if seen.insert(stream.id) {
            self.record(stream);
        }
    }

    /// Finishes takes that were moved away: split off from continuing recordings, or left by a crash.
    /// For ever.
    async fn finish_parted(self: Rc<Self>) {
        loop {
            self.common.left_behind().await;
            for left in self.common.take_left() {
                match finish::is_unfinished(&Local, &left.dir).await {
                    Ok(false) => {}
                    // Finishing it tries again.
                    Ok(true) | Err(_) => self.finish(left),
                }
            }
        }
    }

    /// Finds takes that a crash has left unfinished, or that did not fit in the queue.
    async fn mend(self: &Rc<Self>) {
        for kind in Kind::EVERY {
            let listing = finish::recovered(&Local, &self.root(kind), &self.common).await;
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

    /// Queues a take to be finished, or leaves it as it is until the queue has capacity.
    fn finish(&self, Left { kind, dir, id }: Left) {
        let (active, busy) = (self.common.activate(&dir), Rc::clone(&self.busy));
        if !self.jobs.put(Job { kind, dir, id, attempts: 0, _active: active, _busy: busy }) {
            self.overflowed.set(true);
        }
    }

    /// Gives live players the time to read that a stream is over before its playlist changes.
    async fn last_word(&self, kind: Kind) {
        if kind == Kind::Flv {
            return;
        }
        tokio::select! {
            () = self.common.stopped() => {}
            () = tokio::time::sleep(self.config().recording.segment * LAST_WORD) => {}
        }
    }

    /// Finishes one take after the other.
    async fn work_off(self: Rc<Self>, mut queue: Items<Job>) {
        while let Some(queued) = queue.recv().await {
            self.work_on(queued).await;
            if self.jobs.len() < JOBS_MAX / 2 && self.overflowed.take() {
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
        let result = match take::found(&Local, &job.dir).await {
            Ok(Some(about)) if about.id == job.id => {
                let sync = self.config().recording.sync;
                finish::finish(&Local, job.kind, &job.dir, sync, &self.common).await
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
        let recorder = Rc::clone(self);
        tokio_uring::spawn(async move {
            recorder.common.wait(LATER).await;
            recorder.later.set(false);
            if !recorder.common.is_stopping() {
                recorder.mend().await;
            }
        });
    }

    fn again(self: &Rc<Self>, job: Queued<Job>, after: Duration) {
        let recorder = Rc::clone(self);
        tokio_uring::spawn(async move {
            tokio::time::sleep(after).await;
            recorder.jobs.put_back(job);
        });
    }

    /// A file is finished: logs it and queues it for the hook.
    async fn finished(&self, kind: Kind, dir: &Path, file: &Path) {
        info!(kind = kind.name(), file = %file.display(), "recorded");
        let Some(told) = &self.told else { return };
        let Ok(Some(about)) = take::found(&Local, dir).await else { return };
        let entries = Local.list(file.parent().unwrap_or(dir)).await.unwrap_or_default();
        let size = entries.iter().find(|entry| file.ends_with(&entry.name)).map_or(0, |entry| entry.size);
        let url = file.strip_prefix(&self.config().origin.data).unwrap_or(file);
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

    /// Removes takes by the retention rules, for ever.
    async fn keep(self: Rc<Self>) {
        let mut keeper = Keeper::new(self.config().recording.clone());
        let data = &self.config().origin.data;
        let mut failing = false;
        for round in 0u32.. {
            let thorough = round.is_multiple_of(THOROUGH);
            let swept = async {
                if thorough {
                    Local.make_dir(data).await?;
                }
                keeper.round(&Local, data, thorough, SystemTime::now(), &self.common).await
            };
            let swept = swept.await;
            stats::disk_full(&self.shared.recording, self.common.full.get());
            match swept {
                Ok(()) => failing = false,
                Err(error) if !failing => {
                    failing = true;
                    error!(data = %data.display(), %error, "cannot check recordings for removal");
                }
                Err(_) => {}
            }
            tokio::time::sleep(KEEP).await;
        }
    }
}

/// The role whose streams are recorded.
fn origin(shared: &Shared) -> Option<&RoleState> {
    shared.roles.iter().find(|role| matches!(role.source, Source::Publishers))
}
