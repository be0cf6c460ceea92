//! The fMP4 task: segments with both tracks and with each alone, their init segments and playlists.

use std::io;
use std::path::{Path, PathBuf};

use super::common::Left;
use super::disk::Disk;
use super::layout::{INDEX, Kind, MERGE, Names, SEPARATE, index, names};
use super::playlist::{Carry, LivePlaylist};
use super::segment_file::SegmentFile;
use super::source::Source;
use super::take::About;
use super::task::{Setting, Task};
use crate::live::log::Start;
use crate::live::timeline::StreamTime;
use crate::media::m3u8::{Rendition, Segment, master};
use crate::media::mp4::fragment::{Fragmenter, Output, Piece};
use crate::media::mp4::{init, supported};
use crate::media::segmenter::Opening;
use crate::media::tag::TagRef;
use crate::media::track::Tracks;

/// Records one take of one stream.
#[derive(Debug)]
pub(super) struct Fmp4<D: Disk> {
    setting: Setting<D>,
    dir: PathBuf,
    source: Source,
    muxer: Fragmenter,
    lanes: Vec<Lane<D>>,
    tracks: Tracks,
    /// The number of the current segment.
    number: u64,
    /// The end of the current segment, which is written when it is closed.
    last: [Vec<u8>; 3],
}

/// One output.
#[derive(Debug)]
struct Lane<D: Disk> {
    output: Output,
    playlist: LivePlaylist<D>,
    /// The current init segment, and the number of all so far.
    init: Option<(Vec<u8>, String)>,
    inits: u32,
    file: Option<SegmentFile<D>>,
    discontinuity: bool,
    rate: Rate,
}

/// The bit rates of a rendition.
#[derive(Clone, Copy, Debug, Default)]
struct Rate {
    /// Bits per second of the largest segment.
    peak: u64,
    bytes: u64,
    millis: u64,
}

impl Rate {
    fn add(&mut self, bytes: u64, millis: u32) {
        self.peak = self.peak.max(bytes * 8000 / u64::from(millis).max(1));
        self.bytes += bytes;
        self.millis += u64::from(millis);
    }

    fn bandwidth(&self) -> (u64, u64) {
        (self.peak.max(1), (self.bytes * 8000 / self.millis.max(1)).max(1))
    }
}

impl<D: Disk> Fmp4<D> {
    /// A take that will be in `dir`.
    pub(super) fn new(setting: Setting<D>, dir: PathBuf) -> Self {
        let source = Source::new(setting.lengths, supported);
        let (muxer, tracks) = (Fragmenter::default(), Tracks::default());
        Self { setting, dir, source, muxer, lanes: Vec::new(), tracks, number: 0, last: Default::default() }
    }

    fn segment(&self, output: Output) -> (PathBuf, String) {
        let Names { folder, segment, .. } = names(output);
        let name = format!("{segment}_{}.m4s", self.number);
        (self.dir.join(folder).join(&name), name)
    }

    async fn begin_take(&mut self) -> io::Result<()> {
        let head = self.setting.begin_take(Kind::Fmp4, &self.dir, &Carry::default()).await?;
        self.number = head.sequence;
        let disk = &self.setting.disk;
        for folder in [MERGE, SEPARATE] {
            disk.make_dir(&self.dir.join(folder)).await?;
        }
        let mut lanes = Vec::with_capacity(Output::EVERY.len());
        for output in Output::EVERY {
            let path = self.dir.join(index(output));
            let playlist = LivePlaylist::new(disk.clone(), path, head, self.setting.window);
            let (init, file, rate) = (None, None, Rate::default());
            let discontinuity = head.sequence > 0;
            lanes.push(Lane { output, playlist, init, inits: 0, file, discontinuity, rate });
        }
        self.lanes = lanes;
        Ok(())
    }

    /// Creates the folder of the next take, with what live players still need of the previous one.
    async fn next_take(&mut self) -> io::Result<()> {
        self.write_master().await?;
        let mut carry = Carry::default();
        for lane in &mut self.lanes {
            lane.playlist.settle().await?;
            let folder = Path::new(names(lane.output).folder);
            lane.playlist.carry(folder, &mut carry);
            carry.linked.extend(lane.init.iter().map(|(_, name)| folder.join(name)));
        }
        carry.linked.insert(Path::new(SEPARATE).join(INDEX));
        self.setting.begin_take(Kind::Fmp4, &self.dir, &carry).await?;
        for lane in &mut self.lanes {
            lane.playlist.next_take();
            lane.rate = Rate::default();
        }
        Ok(())
    }

    async fn open(&mut self, opening: &Opening) -> io::Result<()> {
        let fresh = opening.fresh;
        if self.lanes.is_empty() {
            self.begin_take().await?;
        } else {
            self.lanes.iter_mut().for_each(|lane| lane.discontinuity |= fresh);
            if self.setting.is_parted() {
                self.next_take().await?;
            }
        }
        self.tracks = opening.tracks.clone();
        let mut lanes = std::mem::take(&mut self.lanes);
        let mut result = Ok(());
        for lane in &mut lanes {
            lane.file = None;
            let Some(tracks) = lane.output.pick(&self.tracks) else { continue };
            result = self.open_lane(lane, &tracks, fresh).await;
            if result.is_err() {
                break;
            }
        }
        self.lanes = lanes;
        result
    }

    async fn open_lane(&self, lane: &mut Lane<D>, tracks: &Tracks, fresh: bool) -> io::Result<()> {
        let disk = &self.setting.disk;
        let bytes = if fresh || lane.init.is_none() { Some(init(tracks)) } else { None };
        if let Some(bytes) = bytes.filter(|bytes| lane.init.as_ref().is_none_or(|(known, _)| known != bytes))
        {
            let Names { folder, init: prefix, .. } = names(lane.output);
            let count = lane.inits + 1;
            let name = if count == 1 { format!("{prefix}.mp4") } else { format!("{prefix}_{count}.mp4") };
            disk.replace(&self.dir.join(folder).join(&name), bytes.clone(), self.setting.sync).await?;
            lane.inits = count;
            lane.init = Some((bytes, name));
        }
        lane.file = Some(SegmentFile::new(disk, self.segment(lane.output).0));
        Ok(())
    }

    async fn append(&mut self, bytes: [Vec<u8>; 3]) -> io::Result<()> {
        for (lane, bytes) in self.lanes.iter_mut().zip(bytes) {
            let Some(file) = &mut lane.file else { continue };
            let more = bytes.len() as u64;
            if more > 0 {
                file.append(bytes).await?;
                self.setting.stats.wrote(more);
            }
        }
        Ok(())
    }

    /// Writes the last bytes of the current segment and gives it its name.
    async fn close_segment(&mut self, duration: u32, dependent: bool) -> io::Result<()> {
        let last = std::mem::take(&mut self.last);
        let uris = Output::EVERY.map(|output| self.segment(output).1);
        // The number is used even if this fails: a name must not be used twice.
        self.number += 1;
        let first = self.lanes.iter().all(|lane| lane.rate.millis == 0);
        for ((lane, uri), last) in self.lanes.iter_mut().zip(uris).zip(last) {
            let (Some(file), Some((_, map))) = (lane.file.take(), &lane.init) else { continue };
            let (map, more) = (Some(map.clone()), last.len() as u64);
            let len = file.len() + more;
            if len == 0 {
                continue; // the stream has no such track, and there is no file
            }
            file.finish(last, self.setting.sync).await?;
            self.setting.stats.wrote(more);
            lane.rate.add(len, duration);
            let discontinuity = std::mem::take(&mut lane.discontinuity);
            let dependent = dependent && lane.output != Output::Audio;
            let segment = Segment { uri, duration, discontinuity, map, dependent };
            lane.playlist.push(segment, self.source.target_seconds()).await?;
            self.setting.stats.finished_segment();
        }
        if first { self.write_master().await } else { Ok(()) }
    }

    async fn write_master(&self) -> io::Result<()> {
        let rendition = |output: Output, codecs: &str| {
            let lane = self.lanes.iter().find(|lane| lane.output == output)?;
            let (uri, bandwidth) = (names(output).index.to_owned(), lane.rate.bandwidth());
            Some(Rendition { uri, codecs: codecs.to_owned(), bandwidth })
        };
        let video = self.tracks.video.as_deref();
        let video = video
            .and_then(|video| Some((rendition(Output::Video, &video.codecs)?, video.width, video.height)));
        let audio = self.tracks.audio.as_deref();
        let audio = audio.and_then(|audio| rendition(Output::Audio, &audio.codecs));
        let video = video.as_ref().map(|(video, width, height)| (video, *width, *height));
        let text = master(video, audio.as_ref());
        self.setting.disk.replace(&self.dir.join(SEPARATE).join(INDEX), text.into_bytes(), false).await
    }
}

impl<D: Disk> Task for Fmp4<D> {
    const KIND: Kind = Kind::Fmp4;
    // Segments end at starts, at which the log is read anyway.
    const PACE: StreamTime = 2_000;

    fn begin(&mut self, start: &Start, gap: bool) {
        self.source.begin(start, gap, &mut self.muxer);
    }

    fn tag(&mut self, tag: &TagRef<'_>, time: StreamTime) {
        if let Some(error) = self.source.tag(tag, time, &mut self.muxer) {
            self.setting.complain(Kind::Fmp4, &error);
        }
    }

    fn end(&mut self) {
        self.source.end(&mut self.muxer);
    }

    fn part(&mut self, about: About) {
        self.setting.part(about);
    }

    async fn write(&mut self) -> io::Result<()> {
        while let Some(piece) = self.muxer.pieces.pop_front() {
            match piece {
                Piece::Open(opening) => self.open(&opening).await?,
                Piece::Bytes(bytes) => match self.muxer.pieces.front() {
                    Some(Piece::Close { .. }) => self.last = bytes,
                    _ => self.append(bytes).await?,
                },
                Piece::Close { duration, dependent } => self.close_segment(duration, dependent).await?,
            }
        }
        Ok(())
    }

    async fn settle(&mut self) -> io::Result<()> {
        Ok(()) // half a segment is of no use
    }

    async fn close(&mut self) -> io::Result<()> {
        for lane in &mut self.lanes {
            lane.playlist.end().await?;
        }
        if self.lanes.is_empty() { Ok(()) } else { self.write_master().await }
    }

    fn left(&self) -> Option<Left> {
        (!self.lanes.is_empty()).then(|| self.setting.left(Kind::Fmp4, &self.dir))
    }

    async fn reset(&mut self) {
        self.source.reset();
        self.muxer.reset();
        self.last = Default::default();
        for lane in &mut self.lanes {
            lane.discontinuity = true;
            if let Some(file) = lane.file.take() {
                let _ = file.discard().await;
            }
        }
        if !self.lanes.is_empty() {
            // The folders may have been removed.
            for folder in [MERGE, SEPARATE] {
                let _ = self.setting.disk.make_dir(&self.dir.join(folder)).await;
            }
        }
    }
}
