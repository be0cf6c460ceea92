//! The recorder: what the streams of the origin leave behind, as FLV, HLS and MP4.
//!
//! It reads the logs like a viewer that may be late, on the control thread, and touches no loop. Each stream has up
//! to three tasks; each has its own cursor and fails by itself. What a take leaves to do at its end is the same
//! work that mends one after a crash ([`finish`]).

mod disk;
mod finish;
mod hls;
mod playlist;
mod stats;
mod tail;
mod take;
mod task;

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::sync::mpsc;
use tracing::{error, info, warn};

use super::Control;
use crate::config::{Config, Record};
use crate::live::stream::Stream;
use crate::media::segmenter::Lengths;
use crate::protocol::http::date::format_stamp;
use crate::server::shared::{RoleState, Shared, Source};
use disk::Uring;
use stats::Stats;
pub(super) use stats::describe;
use take::About;
use task::{Common, Kind, Setting, Task};

/// How often the directory is looked at for streams that are new.
const WATCH: Duration = Duration::from_millis(200);
/// After so many segments' time live players have read that a stream is over, and its playlist becomes the replay.
const LAST_WORD: u32 = 2;
/// How long a finishing step that failed waits.
const RETRY: Duration = Duration::from_secs(30);
/// How often a finishing step is tried.
const ATTEMPTS: u32 = 20;
/// How long the process waits for recordings when it ends.
const STOP: Duration = Duration::from_secs(10);

/// The recorder of an origin.
#[derive(Debug)]
pub(super) struct Recorder {
    shared: Arc<Shared>,
    common: Rc<Common>,
    jobs: mpsc::UnboundedSender<Job>,
    /// Held by each task and job that is under way.
    busy: Rc<()>,
}

/// A take whose end is to be finished.
#[derive(Debug)]
struct Job {
    kind: Kind,
    dir: PathBuf,
    attempts: u32,
    _busy: Rc<()>,
}

impl Recorder {
    /// Starts recording, if the process has an origin.
    pub(super) fn start(control: &Control) -> Option<Rc<Self>> {
        let shared = Arc::clone(&control.server.shared);
        origin(&shared)?;
        let (jobs, queue) = mpsc::unbounded_channel();
        let recorder = Rc::new(Self { shared, common: Rc::default(), jobs, busy: Rc::new(()) });
        tokio_uring::spawn(Rc::clone(&recorder).work(queue));
        tokio_uring::spawn(Rc::clone(&recorder).watch());
        Some(recorder)
    }

    /// Ends all recordings and waits until they are closed, but not for ever.
    pub(super) async fn stop(&self) {
        self.common.stopping.set(true);
        let closed = async {
            while Rc::strong_count(&self.busy) > 1 {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        if tokio::time::timeout(STOP, closed).await.is_err() {
            warn!("recordings are not finished; that is done at the next start");
        }
    }

    fn config(&self) -> &Config {
        &self.shared.config
    }

    fn root(&self, kind: Kind) -> PathBuf {
        self.config().origin.data.join(kind.folder())
    }

    /// Looks for new streams, for ever.
    async fn watch(self: Rc<Self>) {
        self.mend().await;
        let mut seen: HashMap<u64, bool> = HashMap::new();
        while !self.common.stopping.get() {
            let Some(role) = origin(&self.shared) else { return };
            for (stream, _) in role.directory.list() {
                if seen.insert(stream.id, true).is_none() {
                    self.record(&stream);
                }
            }
            seen.retain(|_, there| std::mem::replace(there, false));
            tokio::time::sleep(WATCH).await;
        }
    }

    /// Finds what a crash has left behind.
    async fn mend(&self) {
        for kind in Kind::EVERY {
            match finish::takes(&Uring, &self.root(kind)).await {
                Ok(takes) => {
                    for take in takes.into_iter().filter(|take| take.unfinished) {
                        info!(take = %take.dir.display(), "finishing a recording that was cut off");
                        self.finish(kind, take.dir);
                    }
                }
                Err(error) => warn!(kind = kind.name(), %error, "cannot look for unfinished recordings"),
            }
        }
    }

    fn finish(&self, kind: Kind, dir: PathBuf) {
        let _ = self.jobs.send(Job { kind, dir, attempts: 0, _busy: Rc::clone(&self.busy) });
    }

    /// Begins the tasks of a stream.
    fn record(self: &Rc<Self>, stream: &Arc<Stream>) {
        let key = stream.key.as_str();
        let app = key.rsplit_once('/').map_or("", |(app, _)| app);
        let Record { flv, hls, fmp4 } = self.config().origin.record_of(app);
        if !(flv || hls || fmp4) {
            return;
        }
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let about = About { stream: key.to_owned(), began: format_stamp(now.as_secs()) };
        let dir = |kind| self.root(kind).join(key);
        if hls {
            let setting = self.setting(Kind::Hls, about.clone());
            self.spawn(hls::Hls::new(setting.clone(), dir(Kind::Hls)), stream, setting);
        }
    }

    fn setting(&self, kind: Kind, about: About) -> Setting<Uring> {
        let own = &self.config().recording;
        let target = i64::try_from(own.segment.as_millis()).unwrap_or(i64::MAX);
        Setting {
            disk: Uring,
            about,
            lengths: Lengths { target, longest: target.saturating_mul(8) },
            window: own.window,
            sync: own.sync,
            stats: Stats::new(kind),
            common: Rc::clone(&self.common),
        }
    }

    fn spawn<T: Task + 'static>(self: &Rc<Self>, task: T, stream: &Arc<Stream>, setting: Setting<Uring>) {
        let (recorder, stream) = (Rc::clone(self), Arc::clone(stream));
        let busy = Rc::clone(&self.busy);
        tokio_uring::spawn(async move {
            setting.stats.began();
            let stats = setting.stats;
            let left = task::run(task, stream, setting).await;
            stats.ended();
            if let Some(dir) = left {
                recorder.last_word(T::KIND).await;
                recorder.finish(T::KIND, dir);
            }
            drop(busy);
        });
    }

    /// Gives live players the time to read that a stream is over, before its playlist is another.
    async fn last_word(&self, kind: Kind) {
        if kind == Kind::Flv {
            return;
        }
        let until = tokio::time::Instant::now() + self.config().recording.segment * LAST_WORD;
        while !self.common.stopping.get() && tokio::time::Instant::now() < until {
            tokio::time::sleep(WATCH).await;
        }
    }

    /// Finishes one take after the other.
    async fn work(self: Rc<Self>, mut queue: mpsc::UnboundedReceiver<Job>) {
        while let Some(mut job) = queue.recv().await {
            let sync = self.config().recording.sync;
            match finish::finish(&Uring, job.kind, &job.dir, sync).await {
                Ok(files) => files.iter().for_each(|file| self.finished(job.kind, file)),
                Err(error) => {
                    let moved = self.common.moved.borrow().get(&job.dir).cloned();
                    if let Some(moved) = moved.filter(|_| error.kind() == std::io::ErrorKind::NotFound) {
                        job.dir = moved;
                        let _ = self.jobs.send(job);
                        continue;
                    }
                    job.attempts += 1;
                    if job.attempts >= ATTEMPTS || self.common.stopping.get() {
                        error!(take = %job.dir.display(), %error, "a recording cannot be finished");
                        continue;
                    }
                    warn!(take = %job.dir.display(), %error, "a recording cannot be finished yet");
                    let jobs = self.jobs.clone();
                    tokio_uring::spawn(async move {
                        tokio::time::sleep(RETRY).await;
                        let _ = jobs.send(job);
                    });
                }
            }
        }
    }

    fn finished(&self, kind: Kind, file: &Path) {
        info!(kind = kind.name(), file = %file.display(), "recorded");
    }
}

/// The role whose streams are recorded.
fn origin(shared: &Shared) -> Option<&RoleState> {
    shared.roles.iter().find(|role| matches!(role.source, Source::Publishers))
}
