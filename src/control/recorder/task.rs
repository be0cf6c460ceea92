//! What recording and packaging tasks have in common: each reads a stream's log with its own cursor, and fails,
//! skips and recovers independently.

use std::io;
use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use tracing::{info, warn};

use super::begin::{self, Moved};
use super::common::{Common, Left};
use super::disk::Disk;
use super::layout::Kind;
use super::playlist::Carry;
use super::stats::{Counted, Stats};
use super::tail::{News, Tail};
use super::take::{self, About, Numbers};
use crate::live::log::Start;
use crate::live::stream::Stream;
use crate::live::timeline::StreamTime;
use crate::media::segmenter::Lengths;
use crate::media::tag::TagRef;
use crate::package::source::Complaint;

/// A reader is woken for this many bytes, however short their time.
const BATCH: u64 = 512 << 10;
/// The shortest pause between two reads of the log.
const REST: Duration = Duration::from_millis(200);
/// How long a task waits after a failure before it tries again.
pub(super) const RETRY: Duration = Duration::from_secs(2);
/// A write that takes longer than this is logged.
const STALL: Duration = Duration::from_secs(5);

/// What a task works with.
#[derive(Clone, Debug)]
pub(super) struct Setting<D> {
    pub(super) disk: D,
    pub(super) about: About,
    pub(super) lengths: Lengths,
    /// A take that is longer is split at a start; 0: takes are not split.
    pub(super) take: StreamTime,
    /// The take that was split off, until the next one has its folder.
    pub(super) parted: Option<String>,
    /// Earlier takes that were moved away while an attempt to begin the next one failed.
    pub(super) moved: Vec<Moved>,
    /// Segments of a live playlist.
    pub(super) window: usize,
    /// Bytes of segments that may wait for the disk, if memory is not short.
    pub(super) waiting: u64,
    /// Files are synced before they get their name.
    pub(super) sync: bool,
    pub(super) stats: Stats,
    pub(super) common: Rc<Common>,
}

impl<D: Disk> Setting<D> {
    /// Creates the folder of the take and moves an earlier one away; returns the first numbers of its
    /// playlists.
    pub(super) async fn begin_take(&mut self, kind: Kind, dir: &Path, carry: &Carry) -> io::Result<Numbers> {
        // A task of the stream's last take may still wait for the disk here.
        let turn = self.common.beginning.take(dir).await;
        self.common.want(dir).await;
        let begun = begin::begin(&self.disk, dir, &self.about, carry, &mut self.moved).await;
        self.common.leave(dir);
        drop(turn);
        let first = begun?;
        let parted = self.parted.take();
        for Moved { id, place } in self.moved.drain(..) {
            assert_ne!(id, self.about.id, "a take does not make way for itself");
            // The new take is itself counted here; another count is an earlier take that waits to be finished.
            if parted.as_ref() != Some(&id) && self.common.actives(dir) > 1 {
                self.common.remember(dir, id, place);
            } else {
                // Split off, or left by a crash and perhaps not looked at yet.
                self.common.leave_behind(Left { kind, dir: place, id });
            }
        }
        Ok(first)
    }

    /// Begins another take; [`begin_take`](Self::begin_take) creates its folder.
    pub(super) fn part(&mut self, about: About) {
        assert!(self.about.id != about.id && self.about.stream == about.stream, "{about:?} follows");
        let before = std::mem::replace(&mut self.about, about).id;
        // If one was split off already, that is the one that has a folder.
        self.parted.get_or_insert(before);
    }

    /// Whether a take has been split off and the next one has no folder yet.
    pub(super) fn is_parted(&self) -> bool {
        self.parted.is_some()
    }

    /// The take in `dir`, for the task that finishes it.
    pub(super) fn left(&self, kind: Kind, dir: &Path) -> Left {
        let id = self.parted.as_ref().unwrap_or(&self.about.id).clone();
        Left { kind, dir: dir.to_owned(), id }
    }

    /// Logs what is neither recorded nor packaged, and why.
    pub(super) fn complain(&self, kind: Kind, error: &Complaint) {
        warn!(stream = self.about.stream, kind = kind.name(), %error, "a part of the stream is not packaged");
    }
}

/// One recording of one stream. The first three methods take what comes and do not touch the disk;
/// [`write`](Self::write) is called often enough that little data collects.
pub(super) trait Task {
    /// The kind, for logs.
    fn kind(&self) -> Kind;
    /// Whether nothing is read while the disk is full.
    fn needs_disk(&self) -> bool;
    /// Whether the task ends before its stream does.
    fn is_done(&self) -> bool {
        false
    }
    /// The most stream time that is read at once, in milliseconds.
    const PACE: StreamTime;
    /// How long what was published waits, whatever the stream's time does, until it is read and
    /// [settled](Self::settle).
    const PATIENCE: Duration;

    /// Tags follow from `start`. `gap`: data before it is missing.
    fn begin(&mut self, start: &Start, gap: bool);
    /// The next tag and its time.
    fn tag(&mut self, tag: &TagRef<'_>, time: StreamTime);
    /// The stream is over.
    fn end(&mut self);
    /// Ends the current take, which is complete, and begins another one. Continues with [`begin`](Self::begin).
    fn part(&mut self, about: About);
    /// Writes the collected data to the disk, if there is enough of it.
    async fn write(&mut self) -> io::Result<()>;
    /// Whether there is collected data that [`settle`](Self::settle) would write.
    fn is_behind(&self) -> bool;
    /// Time has passed: writes to the disk what is of use without the next data.
    async fn settle(&mut self) -> io::Result<()>;
    /// Closes what is open after the last write.
    async fn close(&mut self) -> io::Result<()>;
    /// The take that then has to be finished.
    fn left(&self) -> Option<Left>;
    /// A failure: drops the collected data. Continues with [`begin`](Self::begin).
    async fn reset(&mut self);
}

/// Runs a task until its stream is over. Returns the take that has to be finished.
pub(super) async fn run<T: Task, D: Disk>(
    task: &mut T,
    stream: Arc<Stream>,
    tail: Tail,
    setting: Setting<D>,
) -> Option<Left> {
    let mut runner = Runner {
        tail,
        read: Instant::now(),
        clean: Instant::now(),
        idle: true,
        failing: None,
        begun: false,
        began: None,
        parts: 0,
        setting,
    };
    loop {
        // In this order: data from before the end is read.
        let over = stream.has_ended() || runner.setting.common.is_stopping() || task.is_done();
        match runner.step(task).await {
            Ok(true) => runner.give_way().await,
            Ok(false) if over => break,
            Ok(false) => {
                if let Err(error) = runner.wait(task).await {
                    runner.failed(task, &error).await;
                }
            }
            Err(_) if over => break,
            Err(error) => runner.failed(task, &error).await,
        }
    }
    runner.finish(task).await
}

/// Failed attempts to write.
struct Failure {
    /// What had been written before the first one.
    written: u64,
    _counted: Counted,
}

struct Runner<D> {
    tail: Tail,
    /// When the log was read last.
    read: Instant,
    /// When all that had been published was read and settled, as far as is known.
    clean: Instant,
    /// The stream pauses and everything is settled: there is nothing to do until more comes.
    idle: bool,
    /// An attempt failed and nothing was written since; the log says so.
    failing: Option<Failure>,
    begun: bool,
    /// When the current take began.
    began: Option<StreamTime>,
    /// How many takes were split off.
    parts: u32,
    setting: Setting<D>,
}

impl<D: Disk> Runner<D> {
    /// Waits until there is enough to read, or the stream or the process ends. If less than that comes in
    /// [`PATIENCE`](Task::PATIENCE), the task settles it; if nothing comes, it waits for the next byte without a timer.
    async fn wait<T: Task>(&mut self, task: &mut T) -> io::Result<()> {
        let common = Rc::clone(&self.setting.common);
        let reached = if self.idle { self.tail.more() } else { self.tail.enough(BATCH, T::PACE) };
        tokio::select! {
            biased;
            () = common.stopped() => return Ok(()),
            () = reached => {}
            () = tokio::time::sleep_until(self.clean + T::PATIENCE), if !self.idle => {
                return self.settle(task).await;
            }
        }
        if std::mem::take(&mut self.idle) {
            self.clean = Instant::now();
        }
        tokio::select! {
            () = common.stopped() => {}
            () = tokio::time::sleep_until(self.read + REST) => {}
        }
        Ok(())
    }

    /// Lets others run if there is more to read.
    async fn give_way(&self) {
        if self.tail.is_behind() {
            tokio::task::yield_now().await;
        }
    }

    async fn settle<T: Task>(&mut self, task: &mut T) -> io::Result<()> {
        let mut came = false;
        while self.step(task).await? {
            came = true;
            self.give_way().await;
        }
        let kind = task.kind();
        watch_disk(&self.setting, kind, task.settle()).await?;
        self.clean = Instant::now();
        self.idle = !came;
        Ok(())
    }

    /// Takes the next piece of the log; `Ok(false)`: there is none.
    async fn step<T: Task>(&mut self, task: &mut T) -> io::Result<bool> {
        if task.needs_disk() && self.setting.common.full.get() {
            return Err(io::Error::from(io::ErrorKind::StorageFull));
        }
        match self.tail.next() {
            News::Nothing => return Ok(false),
            News::Start { start, skipped } => {
                if skipped > 0 {
                    self.setting.stats.skipped(skipped);
                    if self.failing.is_none() {
                        let (stream, kind) = (&self.setting.about.stream, task.kind().name());
                        warn!(stream, kind, bytes = skipped, "recording was too slow and skipped a part");
                    }
                }
                let is_long = |began: StreamTime| start.time - began >= self.setting.take;
                if self.setting.take > 0 && self.began.is_some_and(is_long) {
                    self.part(task, start.time).await?;
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
        (self.read, self.idle) = (Instant::now(), false);
        self.write(task).await?;
        if !task.is_behind() {
            self.clean = self.read;
        }
        Ok(true)
    }

    /// Ends the current take and begins another one, at a stream time.
    async fn part<T: Task>(&mut self, task: &mut T, at: StreamTime) -> io::Result<()> {
        task.end();
        self.write(task).await?;
        self.parts += 1;
        let About { id, .. } = &self.setting.about;
        let stem = id.split_once('-').map_or(id.as_str(), |(stem, _)| stem);
        let began = self.setting.common.stamp(stem, at, take::now());
        let about = About { id: format!("{stem}-{}", self.parts), began, ..self.setting.about.clone() };
        self.setting.about = about.clone();
        task.part(about);
        Ok(())
    }

    /// Writes, and logs if that takes long.
    async fn write<T: Task>(&mut self, task: &mut T) -> io::Result<()> {
        let kind = task.kind();
        let result = watch_disk(&self.setting, kind, task.write()).await;
        // A write that only collects data says nothing about the disk.
        let written = self.setting.stats.written();
        if result.is_ok() && self.failing.as_ref().is_some_and(|failure| written > failure.written) {
            self.failing = None;
            let (stream, kind) = (self.setting.about.stream.as_str(), task.kind().name());
            info!(stream, kind, "recording continues");
        }
        result
    }

    async fn failed<T: Task>(&mut self, task: &mut T, error: &io::Error) {
        self.setting.stats.failed();
        if self.failing.is_none() {
            let (written, _counted) = (self.setting.stats.written(), self.setting.stats.failing());
            self.failing = Some(Failure { written, _counted });
            let (stream, kind) = (&self.setting.about.stream, task.kind().name());
            warn!(stream, kind, %error, "recording failed; it continues at a keyframe when possible");
        }
        task.reset().await;
        self.tail.give_up();
        tokio::time::sleep(RETRY).await;
    }

    async fn finish<T: Task>(&mut self, task: &mut T) -> Option<Left> {
        task.end();
        let (stream, kind) = (self.setting.about.stream.clone(), task.kind().name());
        if let Err(error) = self.write(task).await {
            warn!(stream, kind, %error, "the end of a recording is lost");
            task.reset().await;
        }
        if let Err(error) = task.close().await {
            warn!(stream, kind, %error, "a recording was not closed properly; finishing it repairs that");
        }
        task.left()
    }
}

/// Waits for the disk, and logs if that takes long.
pub(super) async fn watch_disk<D: Disk>(
    setting: &Setting<D>,
    kind: Kind,
    writing: impl Future<Output = io::Result<()>>,
) -> io::Result<()> {
    let mut writing = std::pin::pin!(writing);
    tokio::select! {
        biased;
        result = &mut writing => result,
        () = tokio::time::sleep(STALL) => {
            let (stream, kind) = (setting.about.stream.as_str(), kind.name());
            warn!(stream, kind, "the disk is too slow for the recording; waiting for it");
            let _stalled = setting.stats.stalled();
            writing.await
        }
    }
}
