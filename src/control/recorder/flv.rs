//! The FLV task: `index.flv`, the tags as received.
//!
//! The file grows while the stream is live and can be played at any time; its front is overwritten at the end.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tracing::warn;

use super::common::Left;
use super::disk::Disk;
use super::layout::Kind;
use super::playlist::{Carry, JOURNAL};
use super::take::About;
use super::task::{Setting, Task};
use crate::live::log::{Start, wire_time};
use crate::live::timeline::StreamTime;
use crate::media::flv_index::{FRONT, FlvIndex};
use crate::media::tag::{Class, TAG_HEADER, TAG_TRAILER, TagKind, TagRef};

/// The recording's name.
pub(super) const FILE: &str = "index.flv";
/// Bytes that are collected before they are written.
const GATHER: usize = 256 << 10;
/// How long tags wait to be written: in milliseconds of the stream's time, and by the clock.
const WAIT: StreamTime = 1_000;
const PATIENCE: Duration = Duration::from_secs(1);

/// Records one take of one stream.
#[derive(Debug)]
pub(super) struct Flv<D: Disk> {
    setting: Setting<D>,
    dir: PathBuf,
    index: FlvIndex,
    /// The folder holds this recording's take.
    begun: bool,
    file: Option<D::File>,
    /// The length written, up to the end of a whole tag.
    len: u64,
    buffer: Vec<u8>,
    /// The stream time at which the file's time is zero.
    origin: Option<StreamTime>,
    newest: StreamTime,
    written: StreamTime,
    synced: StreamTime,
    /// The last attempt failed: the file may be longer than `len`.
    torn: bool,
    /// The file of a take that was split off, and its front, which is still to be written.
    parted: Option<(D::File, Vec<u8>)>,
}

impl<D: Disk> Flv<D> {
    /// A take that will be in `dir`.
    pub(super) fn new(setting: Setting<D>, dir: PathBuf) -> Self {
        Self {
            setting,
            dir,
            index: FlvIndex::default(),
            begun: false,
            file: None,
            len: FRONT,
            buffer: Vec::new(),
            origin: None,
            newest: 0,
            written: 0,
            synced: 0,
            torn: false,
            parted: None,
        }
    }

    fn path(&self) -> PathBuf {
        self.dir.join(FILE)
    }

    fn append(&mut self, tag: &TagRef<'_>, time: StreamTime) {
        let origin = *self.origin.get_or_insert(time);
        let time = (time - origin).max(0);
        let at = self.len + self.buffer.len() as u64;
        self.index.tag(tag.kind, tag.class(), time.cast_unsigned(), at);
        let tag = TagRef { timestamp: wire_time(time), ..*tag };
        tag.write_to(&mut self.buffer);
        let end = self.len + self.buffer.len() as u64;
        assert_eq!(end - at, tag.encoded_len() as u64, "the buffer holds whole tags");
    }

    async fn flush(&mut self) -> io::Result<()> {
        if self.buffer.is_empty() {
            return Ok(());
        }
        if self.file.is_none() {
            self.file = Some(self.create().await?);
        }
        if self.torn {
            self.setting.disk.truncate(&self.path(), self.len).await?;
            self.torn = false;
        }
        let file = self.file.as_ref().expect("created above");
        let more = self.buffer.len() as u64;
        let sync = self.setting.sync && self.newest - self.synced >= self.setting.lengths.target;
        let bytes = std::mem::take(&mut self.buffer);
        let (result, mut buffer) = self.setting.disk.write(file, self.len, bytes, sync).await;
        result?;
        assert_eq!(buffer.len() as u64, more, "the buffer comes back as it was");
        assert!(self.index.end() < self.len + more, "keyframes are in what is written");
        buffer.clear();
        self.buffer = buffer;
        self.len += more;
        self.written = self.newest;
        self.setting.stats.wrote(more);
        if sync {
            self.synced = self.newest;
        }
        Ok(())
    }

    /// Writes the front of a file that is over.
    async fn seal(&self, file: &D::File, front: Vec<u8>) -> io::Result<()> {
        self.setting.disk.write(file, 0, front, self.setting.sync).await.0?;
        self.setting.stats.finished_segment();
        Ok(())
    }

    /// Creates the file with its preliminary front. The journal is empty: while it exists the file is not
    /// finished.
    async fn create(&mut self) -> io::Result<D::File> {
        self.setting.begin_take(Kind::Flv, &self.dir, &Carry::default()).await?;
        self.begun = true;
        self.setting.disk.replace(&journal(&self.dir), Vec::new(), false).await?;
        let file = self.setting.disk.create(&self.path()).await?;
        self.setting.disk.write(&file, 0, self.index.front(None), false).await.0?;
        Ok(file)
    }
}

fn journal(dir: &Path) -> PathBuf {
    dir.join(format!("{FILE}{JOURNAL}"))
}

impl<D: Disk> Task for Flv<D> {
    const PACE: StreamTime = WAIT;
    const PATIENCE: Duration = PATIENCE;

    fn kind(&self) -> Kind {
        Kind::Flv
    }

    fn needs_disk(&self) -> bool {
        true
    }

    fn begin(&mut self, start: &Start, _gap: bool) {
        for (kind, body) in start.headers.bodies() {
            if kind == TagKind::Script {
                self.index.metadata(body);
            } else {
                self.append(&TagRef { kind, timestamp: 0, body }, start.time);
            }
        }
    }

    fn tag(&mut self, tag: &TagRef<'_>, time: StreamTime) {
        self.newest = self.newest.max(time);
        if tag.class() == Class::Metadata {
            self.index.metadata(tag.body);
        } else {
            self.append(tag, time);
        }
    }

    fn end(&mut self) {
        self.written = StreamTime::MIN / 2;
    }

    fn part(&mut self, about: About) {
        self.setting.part(about);
        assert!(self.torn || self.buffer.is_empty(), "a take that ends is written");
        let front = self.index.front(Some(self.len));
        self.parted = self.file.take().filter(|_| !self.torn).map(|file| (file, front));
        (self.index, self.len, self.origin, self.torn) = (FlvIndex::default(), FRONT, None, false);
    }

    async fn write(&mut self) -> io::Result<()> {
        if let Some((file, front)) = self.parted.take() {
            self.seal(&file, front).await?;
        }
        if self.buffer.len() < GATHER && self.newest - self.written < WAIT {
            return Ok(());
        }
        self.flush().await
    }

    fn is_behind(&self) -> bool {
        !self.buffer.is_empty()
    }

    async fn settle(&mut self) -> io::Result<()> {
        self.flush().await
    }

    async fn close(&mut self) -> io::Result<()> {
        match &self.file {
            Some(file) if !self.torn => self.seal(file, self.index.front(Some(self.len))).await,
            _ => Ok(()),
        }
    }

    fn left(&self) -> Option<Left> {
        self.begun.then(|| self.setting.left(Kind::Flv, &self.dir))
    }

    async fn reset(&mut self) {
        self.buffer.clear();
        self.index.truncate(self.len);
        assert!(self.index.end() < self.len, "no keyframe is where nothing is");
        if self.file.is_some() {
            self.torn = self.setting.disk.truncate(&self.path(), self.len).await.is_err();
        }
    }
}

/// Bytes of a tag that are needed to classify it.
const LOOK: usize = TAG_HEADER + 16;
/// Bytes read at a time.
const WINDOW: usize = 1 << 20;

/// Finishes the file in `dir` if needed: truncates it after the last whole tag and writes its front. `None`:
/// there is nothing to finish.
pub(super) async fn finish<D: Disk>(disk: &D, dir: &Path, sync: bool) -> io::Result<Option<PathBuf>> {
    let path = dir.join(FILE);
    let listed = disk.list(dir).await?;
    let named = |name: &Path| listed.iter().find(|entry| dir.join(&entry.name) == name);
    if named(&journal(dir)).is_none() {
        return Ok(None);
    }
    let Some(entry) = named(&path) else {
        disk.remove(&journal(dir)).await?;
        return Ok(None);
    };
    let file = disk.open(&path).await?;
    let front = usize::try_from(FRONT).unwrap_or(usize::MAX);
    let found = disk.read(&file, 0, front).await?;
    if !FlvIndex::is_finished(&found, entry.size) {
        let (index, len) = scan(disk, &file, &found, entry.size).await?;
        if len == FRONT {
            warn!(file = %path.display(), "a recording has no whole tag");
        }
        disk.truncate(&path, len).await?;
        disk.write(&file, 0, index.front(Some(len)), sync).await.0?;
    }
    disk.remove(&journal(dir)).await?;
    Ok(Some(path))
}

/// Reads the tags; returns the end of the last whole one.
async fn scan<D: Disk>(disk: &D, file: &D::File, front: &[u8], size: u64) -> io::Result<(FlvIndex, u64)> {
    let mut index = FlvIndex::default();
    if let Some(body) = front.get(13 + TAG_HEADER..front.len().saturating_sub(TAG_TRAILER)) {
        index.metadata(body);
    }
    let (mut at, mut time) = (FRONT, 0i64);
    let mut window = (0, Vec::new());
    loop {
        let inside =
            |(from, bytes): &(u64, Vec<u8>)| at >= *from && at + LOOK as u64 <= from + bytes.len() as u64;
        if !inside(&window) {
            window = (at, disk.read(file, at, WINDOW).await?);
        }
        let from = usize::try_from(at - window.0).unwrap_or(usize::MAX);
        let bytes = window.1.get(from..).unwrap_or_default();
        let Some(&[kind, s2, s1, s0, t2, t1, t0, t3, ..]) = bytes.first_chunk::<TAG_HEADER>() else { break };
        let Some(kind) = TagKind::from_type(kind) else { break };
        let len = u32::from_be_bytes([0, s2, s1, s0]) as usize;
        let end = at + (TAG_HEADER + len + TAG_TRAILER) as u64;
        if end > size {
            break;
        }
        let body = &bytes[TAG_HEADER..bytes.len().min(LOOK).min(TAG_HEADER + len)];
        let step = u32::from_be_bytes([t3, t2, t1, t0]).wrapping_sub(wire_time(time)).cast_signed();
        time += i64::from(step);
        let class = TagRef { kind, timestamp: 0, body }.class();
        index.tag(kind, class, time.max(0).cast_unsigned(), at);
        at = end;
    }
    Ok((index, at))
}
