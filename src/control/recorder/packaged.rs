//! Packages a stream in one format: reads its log, puts what is finished where live clients find it, and gives it to
//! the writer if it is recorded. It never waits for the disk longer than its stream is ahead of the clock.

use std::io;
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::time::Instant;

use super::common::{Left, Turn};
use super::disk::Disk;
use super::layout::Kind;
use super::live::{Live, Surroundings};
use super::pending::Pending;
use super::tail::Tail;
use super::take::{self, About, Numbers};
use super::task::{self, Setting, Task};
use super::writer::Writer;
use crate::live::log::Start;
use crate::live::stream::{Selection, Stream};
use crate::live::timeline::StreamTime;
use crate::media::m3u8::Head;
use crate::media::tag::TagRef;
use crate::package::format::Format;
use crate::package::memory::Memory;
use crate::package::packager::Packager;
use crate::package::window::Pressure;

/// How long the disk may take to tell the numbers of the stream's earlier takes.
const NUMBERS: Duration = Duration::from_secs(2);
/// How long packaging waits for the disk to take a segment of a stream that is over.
const PATIENCE: Duration = Duration::from_secs(10);

/// What is done with a stream in one format.
pub(super) struct Work<D: Disk> {
    pub(super) format: Format,
    pub(super) setting: Setting<D>,
    /// The folder of the recording.
    pub(super) dir: PathBuf,
    /// It is recorded.
    pub(super) recorded: bool,
    /// Where live clients find it; `None`: nowhere.
    pub(super) live: Option<Live>,
    pub(super) memory: Memory,
    pub(super) surroundings: Rc<dyn Surroundings>,
    /// The milliseconds without a request after which packaging ends; `None`: it goes on.
    pub(super) lapse: Option<u64>,
}

/// Packages a stream from `tail` on until it is over. Returns the take that has to be finished, and the live files.
pub(super) async fn run<D: Disk>(
    work: Work<D>,
    stream: Arc<Stream>,
    tail: Tail,
) -> (Option<Left>, Option<Live>) {
    let Work { format, setting, dir, recorded, live, memory, surroundings, lapse } = work;
    let pending = Rc::new(Pending::new(setting.waiting));
    let writer = recorded.then(|| Writer::new(format, setting.clone(), dir.clone(), Rc::clone(&pending)));
    let mut task = Packaged {
        packager: Packager::new(format, setting.lengths, memory),
        pending: recorded.then(|| Rc::clone(&pending)),
        stream: Arc::clone(&stream),
        began: None,
        newest: 0,
        setting: setting.clone(),
        dir,
        live,
        surroundings,
        turn: None,
        given_up: false,
        lapse,
    };
    let own = Arc::clone(&stream);
    let packaging = async {
        task::run(&mut task, own, tail, setting).await;
        if let Some(live) = task.live.as_mut().filter(|_| stream.has_ended()) {
            live.end(SystemTime::now());
        }
        task.turn = None; // the next take need not wait for the disk
        pending.close();
    };
    let writing = async {
        match writer {
            Some(writer) => writer.run(|| stream.has_ended()).await,
            None => None,
        }
    };
    let ((), left) = tokio::join!(packaging, writing);
    (left, task.live)
}

/// See the module.
struct Packaged<D: Disk> {
    setting: Setting<D>,
    dir: PathBuf,
    packager: Packager,
    /// The segments that the writer takes; `None`: nothing is recorded.
    pending: Option<Rc<Pending>>,
    live: Option<Live>,
    surroundings: Rc<dyn Surroundings>,
    stream: Arc<Stream>,
    /// When packaging began, and how long after its first tag was published, in milliseconds.
    began: Option<(Instant, StreamTime)>,
    /// The time of the newest tag that was read.
    newest: StreamTime,
    /// To number segments; held from the first one on.
    turn: Option<Turn>,
    /// The disk has taken nothing for a long time since the stream was over.
    given_up: bool,
    /// See [`Work`].
    lapse: Option<u64>,
}

impl<D: Disk> Packaged<D> {
    /// Finds the first number: after those of earlier takes, which are packaged to their end first.
    async fn number(&mut self) {
        self.turn = Some(self.setting.common.numbering.take(&self.dir).await);
        let first = match self.setting.common.numbers(&self.dir) {
            Some(known) => known,
            None => self.first_numbers().await,
        };
        self.packager.number_from(first.sequence, first.discontinuities);
    }

    /// The first numbers in this process: from the disk, or by the clock if it does not tell.
    async fn first_numbers(&self) -> Numbers {
        let now = SystemTime::now();
        if self.pending.is_some() {
            let asked = take::next_numbers(&self.setting.disk, &self.dir, now);
            if let Ok(Ok(on_disk)) = tokio::time::timeout(NUMBERS, asked).await {
                return on_disk;
            }
        }
        Numbers::by_clock(now)
    }

    /// Waits for the disk to take a segment, as long as no live client waits for the next one: while the stream is
    /// ahead of the clock, and a short time when it is over and there is more of it.
    async fn wait_for_disk(&mut self) {
        let Some(pending) = self.pending.clone() else { return };
        while pending.is_full() {
            let has_ended = self.stream.has_ended();
            let more = self.newest.saturating_add(Self::PACE) < self.head_time();
            let patience = if has_ended && more { PATIENCE } else { self.lead() };
            if patience.is_zero() || has_ended && self.given_up {
                return;
            }
            tokio::select! {
                () = self.setting.common.stopped() => return,
                () = pending.taken() => self.given_up = false,
                () = tokio::time::sleep(patience) => {
                    self.given_up = has_ended;
                    return;
                }
            }
        }
    }

    /// The time of the newest tag in the log.
    fn head_time(&self) -> StreamTime {
        self.stream.log(Selection::All).map_or(0, |log| log.head_time())
    }

    /// How far the stream is ahead of the clock.
    fn lead(&self) -> Duration {
        let Some((began, late)) = self.began else { return Duration::ZERO };
        let packaged = Duration::from_millis(self.packager.packaged());
        let clock = began.elapsed() + Duration::from_millis(late.unsigned_abs());
        packaged.saturating_sub(clock)
    }
}

impl<D: Disk> Task for Packaged<D> {
    // Segments end at starts, at which the log is read anyway.
    const PACE: StreamTime = 2_000;
    const PATIENCE: Duration = Duration::from_secs(4);

    fn kind(&self) -> Kind {
        Kind::of(self.packager.format())
    }

    fn needs_disk(&self) -> bool {
        false
    }

    fn is_done(&self) -> bool {
        matches!((self.lapse, &self.live), (Some(after), Some(live)) if live.has_lapsed(after))
    }

    fn begin(&mut self, start: &Start, gap: bool) {
        let late = self.head_time().saturating_sub(start.time);
        self.began.get_or_insert_with(|| (Instant::now(), late));
        self.packager.begin(start, gap);
    }

    fn tag(&mut self, tag: &TagRef<'_>, time: StreamTime) {
        self.newest = self.newest.max(time);
        if let Some(error) = self.packager.tag(tag, time) {
            self.setting.complain(self.kind(), &error);
        }
    }

    fn end(&mut self) {
        self.packager.end();
    }

    fn part(&mut self, about: About) {
        if let Some(pending) = &self.pending {
            pending.part(about);
        }
    }

    async fn write(&mut self) -> io::Result<()> {
        self.packager.count();
        while self.packager.has_segment() {
            if !self.packager.is_numbered() {
                self.number().await;
            }
            let now = SystemTime::now();
            let Some(segment) = self.packager.take(now).map(Arc::new) else { break };
            if let Some(next) = self.packager.next() {
                let Head { sequence, discontinuities, .. } = next;
                self.setting.common.set_numbers(&self.dir, Numbers { sequence, discontinuities });
            }
            if let Some(live) = &mut self.live {
                live.push(Arc::clone(&segment), now);
            }
            let Some(pending) = &self.pending else { continue };
            pending.set_short(self.surroundings.pressure() > Pressure::None);
            let pending = Rc::clone(pending);
            self.wait_for_disk().await;
            let shed = pending.put(segment);
            if shed > 0 {
                self.setting.stats.skipped(shed);
            }
        }
        Ok(())
    }

    fn is_behind(&self) -> bool {
        false // half a segment is not written
    }

    async fn settle(&mut self) -> io::Result<()> {
        Ok(()) // half a segment is of no use
    }

    async fn close(&mut self) -> io::Result<()> {
        Ok(())
    }

    fn left(&self) -> Option<Left> {
        None // the writer knows
    }

    async fn reset(&mut self) {
        // Nothing that it does can fail.
    }
}
