//! Which streams are packaged, and when: those that are recorded always, others from the first request for them until
//! some time after the last.

use std::rc::Rc;
use std::sync::Arc;

use super::disk::Local;
use super::layout::Kind;
use super::live::{Live, Surroundings};
use super::packaged::{self, Work};
use super::stats::Stats;
use super::tail::Tail;
use super::take::{self, About};
use super::task::{self, Setting};
use super::{Recorder, flv, origin};
use crate::live::reached::Reached;
use crate::live::stream::{Selection, Stream};
use crate::live::waiters::Mark;
use crate::media::segmenter::Lengths;
use crate::package::format::Format;
use crate::package::shelf::{Shelf, Shown};
use crate::package::window::{LiveWindow, Pressure};
use crate::server::shared::{Message, Shared};

/// Packaging that a client has asked for ends so many milliseconds after the last request.
const LAPSE: u64 = 30_000;

/// What the packaging of all streams has to do with.
struct Outer {
    shared: Arc<Shared>,
}

impl Surroundings for Outer {
    fn pressure(&self) -> Pressure {
        let budget = &self.shared.budget;
        match (budget.is_tight(), budget.is_spent()) {
            (_, true) => Pressure::Spent,
            (true, false) => Pressure::Tight,
            (false, false) => Pressure::None,
        }
    }

    fn now(&self) -> u64 {
        self.shared.now()
    }

    fn told(&self, stream: &str) {
        let stream: Arc<str> = stream.into();
        self.shared.tell_all(|| Message::Packaged(Arc::clone(&stream)));
    }
}

impl Recorder {
    /// Starts the tasks of a stream.
    pub(super) fn record(self: &Rc<Self>, stream: &Arc<Stream>) {
        let key = stream.key.as_str();
        let app = key.rsplit_once('/').map_or("", |(app, _)| app);
        let record = self.config().origin.record_of(app);
        let shown = self.config().origin.packaging.of(record);
        let id = stream.epochs().next().map_or_else(String::new, |epoch| format!("{epoch:016x}"));
        let about = About { stream: key.to_owned(), began: take::now(), id, ..About::default() };
        if record.flv {
            let setting = self.setting(Kind::Flv, about.clone());
            let task = flv::Flv::new(setting.clone(), self.root(Kind::Flv).join(key));
            self.spawn(task, stream, setting);
        }
        self.package(stream, Format::Hls, about.clone(), (record.hls, shown.0));
        self.package(stream, Format::Fmp4, about, (record.fmp4, shown.1));
    }

    fn setting(&self, kind: Kind, about: About) -> Setting<Local> {
        let own = &self.config().recording;
        let target = i64::try_from(own.segment.as_millis()).unwrap_or(i64::MAX);
        Setting {
            disk: Local,
            about,
            lengths: Lengths { target, longest: target.saturating_mul(8) },
            take: i64::try_from(own.take.as_millis()).unwrap_or(i64::MAX),
            parted: None,
            moved: Vec::new(),
            window: own.window,
            waiting: self.config().live.gop_bytes as u64,
            sync: own.sync,
            stats: Stats::new(kind, Arc::clone(&self.shared.recording)),
            common: Rc::clone(&self.common),
        }
    }

    fn spawn(self: &Rc<Self>, mut task: flv::Flv<Local>, stream: &Arc<Stream>, setting: Setting<Local>) {
        let (recorder, stream) = (Rc::clone(self), Arc::clone(stream));
        // Made here, while the event of the stream's coming holds its log.
        let tail = Tail::of(&stream);
        let busy = Rc::clone(&self.busy);
        let active = self.common.activate(&self.root(Kind::Flv).join(stream.key.as_str()));
        tokio_uring::spawn(async move {
            let under_way = setting.stats.began();
            let left = task::run(&mut task, stream, tail, setting).await;
            drop(under_way);
            if let Some(left) = left {
                recorder.jobs.finish(left);
            }
            drop((active, busy));
        });
    }

    /// Where the loops find the live files of the origin's streams.
    fn shelf(&self) -> Option<&Arc<Shelf>> {
        origin(&self.shared)?.files.as_ref().map(|site| &site.live)
    }

    /// Packages a stream in one format: for its recording, for live clients, or for both.
    pub(super) fn package(
        self: &Rc<Self>,
        stream: &Arc<Stream>,
        format: Format,
        about: About,
        (recorded, shown): (bool, bool),
    ) {
        let shelf = self.shelf().filter(|_| shown);
        let shown = shelf.map(|shelf| shelf.show(stream.key.as_str()));
        let (recorder, stream) = (Rc::clone(self), Arc::clone(stream));
        if recorded {
            // Made here, while the event of the stream's coming holds its log.
            let tail = Tail::of(&stream);
            tokio_uring::spawn(recorder.record_packaged((stream, tail), format, about, shown));
        } else if let Some(shown) = shown {
            shown.place(format).offer();
            tokio_uring::spawn(recorder.package_on_demand(stream, format, about, shown));
        }
    }

    fn work(&self, stream: &Stream, format: Format, about: About, shown: Option<&Arc<Shown>>) -> Work<Local> {
        let kind = Kind::of(format);
        let (setting, memory) = (self.setting(kind, about), self.shared.budget.packages.clone());
        let window = LiveWindow::new(format, setting.window, memory.clone());
        let surroundings: Rc<dyn Surroundings> = Rc::new(Outer { shared: Arc::clone(&self.shared) });
        let name = stream.key.as_str().to_owned();
        let outer = Rc::clone(&surroundings);
        let live = shown.map(|shown| Live::new(name, Arc::clone(shown), window, format, outer));
        let dir = self.root(kind).join(stream.key.as_str());
        Work { format, setting, dir, recorded: false, live, memory, surroundings, lapse: None }
    }

    async fn record_packaged(
        self: Rc<Self>,
        (stream, tail): (Arc<Stream>, Tail),
        format: Format,
        about: About,
        shown: Option<Arc<Shown>>,
    ) {
        let (busy, kind) = (Rc::clone(&self.busy), Kind::of(format));
        let work = Work { recorded: true, ..self.work(&stream, format, about, shown.as_ref()) };
        let (active, under_way) = (self.common.activate(&work.dir), work.setting.stats.began());
        let (left, live) = packaged::run(work, Arc::clone(&stream), tail).await;
        drop(under_way);
        if let Some(live) = live {
            let (recorder, stream) = (Rc::clone(&self), Arc::clone(&stream));
            tokio_uring::spawn(async move { recorder.leave(&stream, live).await });
        }
        // A stream that goes on after a restart continues its playlists; if it does not, the next start ends them.
        let cut_off = self.common.is_stopping() && !stream.has_ended();
        if let Some(left) = left.filter(|_| !cut_off) {
            self.last_word(kind).await;
            self.jobs.finish(left);
        }
        drop((active, busy));
    }

    async fn package_on_demand(
        self: Rc<Self>,
        stream: Arc<Stream>,
        format: Format,
        about: About,
        shown: Arc<Shown>,
    ) {
        let place = shown.place(format);
        let mut last = None;
        while !stream.has_ended() && !self.common.is_stopping() {
            tokio::select! {
                () = self.common.stopped() => continue,
                () = ended(&stream) => continue,
                () = place.wanted() => {}
            }
            if self.shared.now() > place.asked() + LAPSE {
                continue; // it was answered before packaging ended last
            }
            let work = Work { lapse: Some(LAPSE), ..self.work(&stream, format, about.clone(), Some(&shown)) };
            let (_, live) = packaged::run(work, Arc::clone(&stream), Tail::of(&stream)).await;
            if stream.has_ended() {
                last = live;
            } else {
                live.into_iter().for_each(Live::leave);
            }
        }
        // From here on the next stream of that name is the one that is packaged on demand.
        place.retract();
        self.tell_waiting(&stream);
        match last {
            Some(live) => self.leave(&stream, live).await,
            None => self.withdraw(&stream),
        }
    }

    /// Removes a stream's live files when players have got what they need.
    async fn leave(&self, stream: &Stream, live: Live) {
        let last_word = self.config().recording.segment * super::LAST_WORD;
        self.common.wait(live.remains(last_word)).await;
        live.leave();
        self.withdraw(stream);
    }

    /// A stream has no live files any more.
    fn withdraw(&self, stream: &Stream) {
        if let Some(shelf) = self.shelf() {
            shelf.withdraw(stream.key.as_str());
        }
        self.tell_waiting(stream);
    }

    /// Clients that wait for live files ask again.
    fn tell_waiting(&self, stream: &Stream) {
        Outer { shared: Arc::clone(&self.shared) }.told(stream.key.as_str());
    }
}

/// Waits until a stream is over.
async fn ended(stream: &Stream) {
    let Some(log) = stream.log(Selection::All) else { return };
    let never = Mark { head: u64::MAX, time: i64::MAX, start: u64::MAX };
    Reached::new(log, never).await;
}
