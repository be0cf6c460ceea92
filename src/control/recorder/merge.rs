//! Merges the segments of a take into one MP4. The heads of all segments are read, then their media data is
//! copied after the tables: nothing is decoded, and at most one piece is in memory.

use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use tracing::{info, warn};

use super::disk::{Disk, aside, read_all};
use super::layout::{self, MERGE};
use super::playlist;
use crate::media::mp4::fragment::Output;
use crate::media::mp4::merge::Merger;
use crate::media::mp4::{HEADER_MAX, read_header};

/// Bytes copied at a time.
const PIECE: u64 = 1 << 20;
/// The largest init segment or head of a fragment that is read.
const HEAD_MAX: u64 = 16 << 20;
/// The interval of log lines about the progress of a long merge.
const PROGRESS: Duration = Duration::from_secs(10);

/// A range of media data in a segment.
#[derive(Clone, Copy, Debug)]
struct Stretch {
    /// The segment's index in the playlist.
    segment: usize,
    at: u64,
    len: u64,
}

/// Writes `{name}_full.mp4` of the take in `dir`. `Ok(None)`: there is nothing to merge.
///
/// # Errors
/// Those of the disk; `Interrupted` as soon as `interrupted` says so.
pub(super) async fn merge<D: Disk>(
    disk: &D,
    dir: &Path,
    name: &str,
    sync: bool,
    interrupted: &dyn Fn() -> bool,
) -> io::Result<Option<PathBuf>> {
    let index = dir.join(layout::index(Output::Merge));
    let Some(playlist) = playlist::load(disk, &index).await? else { return Ok(None) };
    let folder = dir.join(MERGE);
    let mut merger = Merger::default();
    let mut stretches = Vec::new();
    let (mut map, mut is_described) = (None, true);
    let go_on = || if interrupted() { Err(io::Error::from(io::ErrorKind::Interrupted)) } else { Ok(()) };
    for (place, segment) in playlist.segments.iter().enumerate() {
        go_on()?;
        if segment.map != map {
            map.clone_from(&segment.map);
            let path = folder.join(map.as_deref().unwrap_or_default());
            is_described = describe(disk, &path, &mut merger).await?;
        }
        if !is_described {
            continue;
        }
        let path = folder.join(&segment.uri);
        if let Err(error) = scan(disk, &path, place, &mut merger, &mut stretches).await {
            warn!(segment = %path.display(), %error, "a segment cannot be merged and is left out");
        }
    }
    if merger.is_empty() {
        return Ok(None);
    }
    let full = folder.join(format!("{name}_full.mp4"));
    let total = merger.payload();
    let head = merger.finish();
    let writing = async {
        let out = disk.create(&aside(&full)).await?;
        let mut at = head.len() as u64;
        disk.write(&out, 0, head, false).await.0?;
        let mut progress = Progress { file: &full, total, told: Instant::now() };
        let mut open: Option<(usize, D::File)> = None;
        let begin = at;
        for stretch in stretches {
            go_on()?;
            let file = match open.take().filter(|(segment, _)| *segment == stretch.segment) {
                Some((_, file)) => file,
                None => disk.open(&folder.join(&playlist.segments[stretch.segment].uri)).await?,
            };
            copy(disk, &file, stretch, &out, at).await?;
            at += stretch.len;
            open = Some((stretch.segment, file));
            progress.tell(at - begin);
        }
        if sync {
            disk.sync(&out).await?;
        }
        drop(out);
        disk.rename(&aside(&full), &full).await
    };
    if let Err(error) = writing.await {
        // The partial file takes space that is needed, perhaps all of it.
        let _ = disk.remove(&aside(&full)).await;
        return Err(error);
    }
    Ok(Some(full))
}

/// Reads an init segment. `false`: it is of no use, and trying again would not help.
async fn describe<D: Disk>(disk: &D, path: &Path, merger: &mut Merger) -> io::Result<bool> {
    let read = read_all(disk, path, usize::try_from(HEAD_MAX).unwrap_or(usize::MAX)).await;
    let error = match read.map(|init| merger.init(&init).map_err(invalid)) {
        Ok(Ok(())) => return Ok(true),
        Ok(Err(error)) => error,
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::FileTooLarge) => error,
        Err(error) => return Err(error),
    };
    warn!(init = %path.display(), %error, "the segments of an init segment cannot be merged and are left out");
    Ok(false)
}

/// Reads the heads in a segment.
async fn scan<D: Disk>(
    disk: &D,
    path: &Path,
    segment: usize,
    merger: &mut Merger,
    stretches: &mut Vec<Stretch>,
) -> io::Result<()> {
    let file = disk.open(path).await?;
    let mut at = 0;
    let mut moof = Vec::new();
    loop {
        let bytes = disk.read(&file, at, HEADER_MAX).await?;
        if bytes.is_empty() {
            return Ok(());
        }
        let header = read_header(&bytes).map_err(invalid)?;
        match &header.kind {
            b"moof" if header.size <= HEAD_MAX => {
                moof = disk.read(&file, at, usize::try_from(header.size).unwrap_or(0)).await?;
            }
            b"mdat" => {
                let len = header.size - header.header;
                merger.fragment(&moof, len).map_err(invalid)?;
                stretches.push(Stretch { segment, at: at + header.header, len });
            }
            _ => {}
        }
        at += header.size;
    }
}

async fn copy<D: Disk>(
    disk: &D,
    from: &D::File,
    stretch: Stretch,
    to: &D::File,
    mut at: u64,
) -> io::Result<()> {
    let mut done = 0;
    while done < stretch.len {
        let len = usize::try_from(PIECE.min(stretch.len - done)).unwrap_or(usize::MAX);
        let bytes = disk.read(from, stretch.at + done, len).await?;
        if bytes.is_empty() {
            return Err(io::Error::from(io::ErrorKind::UnexpectedEof));
        }
        let len = bytes.len() as u64;
        disk.write(to, at, bytes, false).await.0?;
        done += len;
        at += len;
    }
    Ok(())
}

fn invalid(error: impl std::error::Error + Send + Sync + 'static) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}

/// The progress of a merge.
struct Progress<'a> {
    file: &'a Path,
    total: u64,
    told: Instant,
}

impl Progress<'_> {
    fn tell(&mut self, done: u64) {
        if self.told.elapsed() >= PROGRESS {
            self.told = Instant::now();
            let percent = done * 100 / self.total.max(1);
            info!(file = %self.file.display(), percent, bytes = self.total, "merging");
        }
    }
}
