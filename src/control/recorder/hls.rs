//! The HLS task: `segment_N.ts` and `index.m3u8`.

use std::collections::VecDeque;
use std::io;
use std::path::{Path, PathBuf};

use super::common::Left;
use super::disk::Disk;
use super::layout::{INDEX, Kind};
use super::playlist::{Carry, LivePlaylist};
use super::segment_file::SegmentFile;
use super::source::Source;
use super::take::About;
use super::task::{Setting, Task};
use crate::live::log::Start;
use crate::live::timeline::StreamTime;
use crate::media::m3u8::Segment;
use crate::media::remux::Sample;
use crate::media::segmenter::{Muxer, Opening};
use crate::media::tag::TagRef;
use crate::media::ts::{self, TsMuxer};

/// Bytes that are collected before they are written: most segments are smaller and are written at once.
const GATHER: usize = 1 << 20;

/// Records one take of one stream.
#[derive(Debug)]
pub(super) struct Hls<D: Disk> {
    setting: Setting<D>,
    dir: PathBuf,
    source: Source,
    muxer: TsSegments,
    playlist: Option<LivePlaylist<D>>,
    /// The number of the current segment.
    number: u64,
    file: Option<SegmentFile<D>>,
    /// The end of the current segment, which is written when it is closed.
    last: Vec<u8>,
    discontinuity: bool,
}

/// The transport stream muxer, with its output by segment.
#[derive(Debug, Default)]
struct TsSegments {
    ts: TsMuxer,
    pieces: VecDeque<Piece>,
    started: i64,
    /// Whether the segment's first picture is one to start with.
    first: Option<bool>,
}

/// An operation on a segment's file.
#[derive(Debug)]
enum Piece {
    /// It is opened.
    Open {
        fresh: bool,
    },
    Bytes(Vec<u8>),
    /// It is finished; its duration is in milliseconds.
    Close {
        duration: u32,
        /// It begins inside a group of pictures.
        dependent: bool,
    },
}

impl TsSegments {
    /// Queues what the muxer wrote, if it is at least `enough` bytes.
    fn gather(&mut self, enough: usize) {
        if self.ts.out.len() >= enough.max(1) {
            self.pieces.push_back(Piece::Bytes(std::mem::take(&mut self.ts.out)));
        }
    }
}

impl Muxer for TsSegments {
    fn open(&mut self, opening: &Opening) {
        (self.started, self.first) = (opening.start, None);
        self.pieces.push_back(Piece::Open { fresh: opening.fresh });
        self.ts.open(opening);
    }

    fn sample(&mut self, sample: &Sample<'_>) {
        if sample.video {
            self.first.get_or_insert(sample.key);
        }
        self.ts.sample(sample);
    }

    fn close(&mut self, end: i64) {
        self.ts.close(end);
        self.gather(1);
        let duration = u32::try_from(end - self.started).unwrap_or(0).max(1);
        self.pieces.push_back(Piece::Close { duration, dependent: self.first == Some(false) });
    }
}

impl<D: Disk> Hls<D> {
    /// A take that will be in `dir`.
    pub(super) fn new(setting: Setting<D>, dir: PathBuf) -> Self {
        let source = Source::new(setting.lengths, ts::supported);
        let muxer = TsSegments::default();
        Self {
            setting,
            dir,
            source,
            muxer,
            playlist: None,
            number: 0,
            file: None,
            last: Vec::new(),
            discontinuity: false,
        }
    }

    async fn open(&mut self, fresh: bool) -> io::Result<()> {
        match &mut self.playlist {
            None => {
                let head = self.setting.begin_take(Kind::Hls, &self.dir, &Carry::default()).await?;
                self.number = head.sequence;
                self.discontinuity = head.sequence > 0;
                let (disk, path) = (self.setting.disk.clone(), self.dir.join(INDEX));
                self.playlist = Some(LivePlaylist::new(disk, path, head, self.setting.window));
            }
            Some(playlist) => {
                self.discontinuity |= fresh;
                if self.setting.is_parted() {
                    playlist.settle().await?;
                    let mut carry = Carry::default();
                    playlist.carry(Path::new(""), &mut carry);
                    self.setting.begin_take(Kind::Hls, &self.dir, &carry).await?;
                    playlist.next_take();
                }
                self.setting.disk.make_dir(&self.dir).await?;
            }
        }
        self.file = Some(SegmentFile::new(&self.setting.disk, self.dir.join(name(self.number))));
        Ok(())
    }

    async fn append(&mut self, bytes: Vec<u8>) -> io::Result<()> {
        let Some(file) = &mut self.file else { return Ok(()) };
        let more = bytes.len() as u64;
        file.append(bytes).await?;
        self.setting.stats.wrote(more);
        Ok(())
    }

    async fn close(&mut self, duration: u32, dependent: bool) -> io::Result<()> {
        let last = std::mem::take(&mut self.last);
        let Some(file) = self.file.take() else { return Ok(()) };
        let more = last.len() as u64;
        file.finish(last, self.setting.sync).await?;
        self.setting.stats.wrote(more);
        let discontinuity = std::mem::take(&mut self.discontinuity);
        let segment = Segment { uri: name(self.number), duration, discontinuity, map: None, dependent };
        self.number += 1;
        self.setting.stats.finished_segment();
        match &mut self.playlist {
            Some(playlist) => playlist.push(segment, self.source.target_seconds()).await,
            None => Ok(()),
        }
    }
}

fn name(number: u64) -> String {
    format!("segment_{number}.ts")
}

impl<D: Disk> Task for Hls<D> {
    const KIND: Kind = Kind::Hls;
    // Segments end at starts, at which the log is read anyway.
    const PACE: StreamTime = 2_000;

    fn begin(&mut self, start: &Start, gap: bool) {
        self.source.begin(start, gap, &mut self.muxer);
    }

    fn tag(&mut self, tag: &TagRef<'_>, time: StreamTime) {
        if let Some(error) = self.source.tag(tag, time, &mut self.muxer) {
            self.setting.complain(Kind::Hls, &error);
        }
    }

    fn end(&mut self) {
        self.source.end(&mut self.muxer);
    }

    fn part(&mut self, about: About) {
        self.setting.part(about);
    }

    async fn write(&mut self) -> io::Result<()> {
        self.muxer.gather(GATHER);
        while let Some(piece) = self.muxer.pieces.pop_front() {
            match piece {
                Piece::Open { fresh } => self.open(fresh).await?,
                Piece::Bytes(bytes) => match self.muxer.pieces.front() {
                    Some(Piece::Close { .. }) => self.last = bytes,
                    _ => self.append(bytes).await?,
                },
                Piece::Close { duration, dependent } => self.close(duration, dependent).await?,
            }
        }
        Ok(())
    }

    async fn settle(&mut self) -> io::Result<()> {
        Ok(()) // half a segment is of no use
    }

    async fn close(&mut self) -> io::Result<()> {
        match &mut self.playlist {
            Some(playlist) => playlist.end().await,
            None => Ok(()),
        }
    }

    fn left(&self) -> Option<Left> {
        self.playlist.as_ref().map(|_| self.setting.left(Kind::Hls, &self.dir))
    }

    async fn reset(&mut self) {
        self.source.reset();
        self.muxer.pieces.clear();
        self.muxer.ts.out.clear();
        self.last.clear();
        if let Some(file) = self.file.take() {
            // If that fails too, the next attempt writes it again.
            let _ = file.discard().await;
        }
        self.discontinuity = true;
    }
}
