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
mod jobs;
#[cfg(test)]
mod jobs_tests;
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

use std::collections::HashSet;
use std::os::unix::fs::DirBuilderExt;
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tracing::{error, warn};

use crate::config::{Config, Hook, Role};
use crate::live::events::Event;
use crate::live::stream::Stream;
use crate::server::shared::{RoleState, Shared, Source};
use common::Common;
pub use data::check_data;
use disk::{Disk, Local};
use jobs::{Jobs, Terms};
use layout::Kind;
use queue::Queue;
use retention::Keeper;
pub(super) use stats::describe;

/// In segments: after this time live players have read that a stream is over, and its playlist becomes the
/// replay.
const LAST_WORD: u32 = 2;
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
    jobs: Rc<Jobs<Local>>,
    /// Held by each task and job under way.
    busy: Rc<()>,
    /// The data folder is the demo's own and is removed with it.
    temporary: bool,
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
        let told = match shared.config.recording.hook.clone() {
            Hook::Nobody => None,
            hook => {
                let (told, queue) = Queue::new("hook", hook::WAITING_MAX);
                let caller = Rc::new(hook::Caller::new(hook, shared.trust.get()));
                tokio_uring::spawn(caller.run(queue));
                Some(told)
            }
        };
        let (common, busy) = (Rc::<Common>::default(), Rc::new(()));
        let terms = Terms { data: own.data.clone(), sync: shared.config.recording.sync, gap: own.gap };
        let (jobs, queue) = Jobs::new(Local, terms, Rc::clone(&common), told, Rc::clone(&busy));
        let recorder = Rc::new(Self { shared, common, jobs: Rc::clone(&jobs), busy, temporary });
        tokio_uring::spawn(Rc::clone(&recorder).watch());
        if records {
            tokio_uring::spawn(Rc::clone(&jobs).work_off(queue));
            // It reads the whole archive: new recordings do not wait for it.
            tokio_uring::spawn({
                let jobs = Rc::clone(&jobs);
                async move { jobs.mend().await }
            });
            tokio_uring::spawn(jobs.finish_parted());
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
