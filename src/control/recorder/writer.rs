//! Writes the segments of a stream to the disk, with their playlists: the recording of one format.
//!
//! A segment is written as it was packaged. If that fails it is tried again, until so many wait that the oldest is
//! shed; the recorded playlist then has a discontinuity, the live one has none.

use std::io;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;

use tracing::{info, warn};

use super::common::{Left, Turn};
use super::disk::{Disk, Stored};
use super::layout::Kind;
use super::pending::{Order, Pending};
use super::playlist::{self, Carry, LivePlaylist};
use super::stats::Counted;
use super::take::{self, About, Numbers};
use super::task::{RETRY, Setting, watch_disk};
use crate::media::m3u8::Segment as Entry;
use crate::media::track::Tracks;
use crate::package::format::{Format, INDEX, SEPARATE};
use crate::package::segment::{File, Segment};
use crate::package::window::Rates;

/// How often a segment is tried again after the stream is over.
const LAST_ATTEMPTS: u32 = 5;
/// The master playlist is written again when the peak rate has grown by this part (an eighth).
const MASTER_SLACK: u64 = 8;

/// The recording of a stream in one format.
#[derive(Debug)]
pub(super) struct Writer<D: Disk> {
    format: Format,
    kind: Kind,
    setting: Setting<D>,
    dir: PathBuf,
    pending: Rc<Pending>,
    /// To write in the folder; held from the first segment on.
    turn: Option<Turn>,
    /// By lane; none before the take has its folder.
    lanes: Vec<Lane<D>>,
    rates: Rates,
    tracks: Tracks,
    /// The tracks and the peak rate in the master playlist as it was written last.
    master: Option<(Tracks, u64)>,
    /// The last attempt failed, and the log says so.
    failing: Option<Counted>,
    /// The number of the newest segment.
    newest: Option<u64>,
}

/// A playlist on the disk.
#[derive(Debug)]
struct Lane<D: Disk> {
    playlist: LivePlaylist<D>,
    /// The name of the init segment that was written last.
    init: Option<String>,
}

impl<D: Disk> Writer<D> {
    /// A recording in `dir` of what is put into `pending`.
    pub(super) fn new(format: Format, setting: Setting<D>, dir: PathBuf, pending: Rc<Pending>) -> Self {
        Self {
            format,
            kind: Kind::of(format),
            setting,
            dir,
            pending,
            turn: None,
            lanes: Vec::new(),
            rates: Rates::default(),
            tracks: Tracks::default(),
            master: None,
            failing: None,
            newest: None,
        }
    }

    /// Writes until nothing more comes. Returns the take that has to be finished. `is_over`: whether the stream is
    /// over then, so that the playlists end.
    pub(super) async fn run(mut self, is_over: impl Fn() -> bool) -> Option<Left> {
        while let Some(order) = self.pending.next().await {
            match order {
                Order::Segment { segment, gap } => self.keep(&segment, gap).await,
                Order::Part(about) => self.setting.part(about),
            }
        }
        if self.lanes.is_empty() {
            return None;
        }
        if let Err(error) = self.close(is_over()).await {
            let (stream, kind) = (&self.setting.about.stream, self.kind.name());
            warn!(stream, kind, %error, "a recording was not closed properly; finishing it repairs that");
        }
        Some(self.setting.left(self.kind, &self.dir))
    }

    /// Nothing more comes. `is_over`: the playlists say so.
    async fn close(&mut self, is_over: bool) -> io::Result<()> {
        if is_over {
            self.lanes.iter_mut().for_each(|lane| lane.playlist.end());
        }
        self.write_playlists().await?;
        if is_over {
            self.master = None; // the mean rate is known now
            self.write_master().await?;
        }
        if self.pending.ends_with_gap() {
            return Ok(()); // live clients have got more than the disk
        }
        let Left { id, .. } = self.setting.left(self.kind, &self.dir);
        take::set_whole(&self.setting.disk, &self.dir, &id).await
    }

    /// Writes a segment; tries again until it has to be shed.
    async fn keep(&mut self, segment: &Arc<Segment>, gap: bool) {
        assert!(
            self.newest < Some(segment.number),
            "numbers rise: {} after {:?}",
            segment.number,
            self.newest
        );
        self.newest = Some(segment.number);
        let mut attempts = 0;
        loop {
            let common = Rc::clone(&self.setting.common);
            let error = match self.write(segment, gap).await {
                Ok(is_named) => return self.succeeded(segment, is_named),
                Err(error) => error,
            };
            self.failed(&error);
            attempts += 1;
            tokio::select! {
                () = common.stopped() => {}
                () = tokio::time::sleep(RETRY) => {}
            }
            let gives_up = self.pending.is_closed() && attempts >= LAST_ATTEMPTS;
            if self.pending.is_full() || gives_up || common.is_stopping() {
                self.setting.stats.skipped(segment.len() + self.pending.restart());
                return;
            }
        }
    }

    fn succeeded(&mut self, segment: &Segment, is_named: bool) {
        segment.set_on_disk();
        self.setting.stats.finished_segment();
        if is_named && self.failing.take().is_some() {
            let (stream, kind) = (self.setting.about.stream.as_str(), self.kind.name());
            info!(stream, kind, "recording continues");
        }
    }

    fn failed(&mut self, error: &io::Error) {
        self.setting.stats.failed();
        if self.failing.is_none() {
            self.failing = Some(self.setting.stats.failing());
            let (stream, kind) = (&self.setting.about.stream, self.kind.name());
            warn!(stream, kind, %error, "recording failed; it continues at a keyframe when possible");
        }
    }

    /// Writes the files of a segment, and then names them in the playlists. Whatever of it was done before is done
    /// again, up to the playlists. Returns whether all playlists name it.
    async fn write(&mut self, segment: &Segment, gap: bool) -> io::Result<bool> {
        if self.setting.common.full.get() {
            return Err(io::Error::from(io::ErrorKind::StorageFull));
        }
        let (setting, kind) = (self.setting.clone(), self.kind);
        watch_disk(&setting, kind, self.write_files(segment)).await?;
        let named = watch_disk(&setting, kind, self.name(segment, gap)).await;
        if let Err(error) = &named {
            self.failed(error);
        }
        Ok(named.is_ok())
    }

    async fn write_files(&mut self, segment: &Segment) -> io::Result<()> {
        self.open_take(segment).await?;
        if self.failing.is_some() {
            self.make_folders().await?; // they may have been removed
        }
        assert_eq!(segment.pieces.len(), self.lanes.len(), "a piece for each lane");
        let (mut files, mut inits) = (Vec::new(), Vec::new());
        for (at, (lane, piece)) in self.format.lanes().iter().zip(&segment.pieces).enumerate() {
            let Some(piece) = piece else { continue };
            let folder = self.dir.join(lane.folder);
            let stored =
                |name: &str, file: &Arc<File>| Stored { path: folder.join(name), file: Arc::clone(file) };
            if let Some(init) = &piece.init
                && self.lanes[at].init.as_ref() != Some(&init.name)
            {
                files.push(stored(&init.name, &init.file));
                inits.push((at, init.name.clone()));
            }
            files.push(stored(&piece.name, &piece.file));
        }
        self.setting.disk.store(files, self.setting.sync).await?;
        for (at, name) in inits {
            self.lanes[at].init = Some(name);
        }
        self.setting.stats.wrote(segment.len());
        Ok(())
    }

    /// Names a segment in the playlists. One that cannot be written now is written with the next segment.
    async fn name(&mut self, segment: &Segment, gap: bool) -> io::Result<()> {
        for (lane, state) in self.lanes.iter_mut().enumerate() {
            let Some(entry) = segment.entry(lane) else { continue };
            let entry = Entry { discontinuity: entry.discontinuity || gap, ..entry };
            state.playlist.push(segment.head(), entry);
        }
        let result = self.write_playlists().await;
        self.rates.add(segment);
        self.tracks = segment.tracks.clone();
        result.and(self.write_master().await)
    }

    /// Makes the take's folder at its first segment, and another one if a take was split off.
    async fn open_take(&mut self, segment: &Segment) -> io::Result<()> {
        if !self.lanes.is_empty() && !self.setting.is_parted() {
            return Ok(());
        }
        if self.turn.is_none() {
            self.turn = Some(self.setting.common.writing.take(&self.dir).await);
        }
        let head = segment.head();
        let first = Numbers { sequence: head.sequence, discontinuities: head.discontinuities };
        self.setting.about = About { first, ..self.setting.about.clone() };
        if self.lanes.is_empty() {
            let first = self.setting.begin_take(self.kind, &self.dir, &Carry::default()).await?;
            self.make_folders().await?;
            let head = first.head(segment.target);
            let playlist = |path: PathBuf| {
                let playlist = LivePlaylist::new(path, head, self.setting.window);
                Lane { playlist, init: None }
            };
            let paths = self.format.lanes().iter().map(|lane| self.dir.join(lane.path(lane.index)));
            self.lanes = paths.map(playlist).collect();
            return Ok(());
        }
        self.write_playlists().await?;
        let mut carry = Carry::default();
        for (lane, state) in self.format.lanes().iter().zip(&self.lanes) {
            let folder = Path::new(lane.folder);
            state.playlist.carry(folder, &mut carry);
            carry.linked.extend(state.init.iter().map(|name| folder.join(name)));
        }
        if self.master.is_some() {
            carry.linked.insert(Path::new(SEPARATE).join(INDEX));
        }
        self.setting.begin_take(self.kind, &self.dir, &carry).await?;
        self.rates = Rates::default();
        self.lanes.iter_mut().for_each(|lane| lane.playlist.next_take());
        self.make_folders().await
    }

    async fn write_playlists(&mut self) -> io::Result<()> {
        let mut playlists: Vec<_> = self.lanes.iter_mut().map(|lane| &mut lane.playlist).collect();
        playlist::write(&self.setting.disk, &mut playlists).await
    }

    async fn make_folders(&self) -> io::Result<()> {
        for lane in self.format.lanes() {
            self.setting.disk.make_dir(&self.dir.join(lane.folder)).await?;
        }
        Ok(())
    }

    /// Writes the master playlist of separate tracks if the tracks have changed or the rate has grown.
    async fn write_master(&mut self) -> io::Result<()> {
        let peak = self.rates.peak();
        let is_same = |(tracks, written): &(Tracks, u64)| {
            *tracks == self.tracks && peak <= written.saturating_add(written / MASTER_SLACK)
        };
        if self.format != Format::Fmp4 || self.lanes.is_empty() || self.master.as_ref().is_some_and(is_same) {
            return Ok(());
        }
        let text = self.rates.master(&self.tracks).into_bytes();
        self.setting.disk.replace(&self.dir.join(SEPARATE).join(INDEX), text, false).await?;
        self.master = Some((self.tracks.clone(), peak));
        Ok(())
    }
}
