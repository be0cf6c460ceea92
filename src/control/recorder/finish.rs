//! What is left to do when a take is over: the replay playlists, the merged MP4, the FLV's index.
//!
//! The same work repairs takes that a crash has left unfinished, so every step may be repeated, and one that
//! was interrupted starts again.

use std::collections::HashSet;
use std::io;
use std::path::{Path, PathBuf};

use super::common::Common;
use super::disk::{ASIDE, Disk, Entry};
use super::layout::{self, Kind, folders};
use super::merge;
use super::take::{self, ABOUT};
use super::{flv, playlist};

/// The greatest depth of folders that is searched for takes.
const DEPTH_MAX: u32 = 9;

/// Finishes the take of `kind` in `dir`; returns the files that are now finished.
///
/// # Errors
/// Those of the disk; `Interrupted` if another take needs the folder, `NotFound` if the take is gone.
pub(super) async fn finish<D: Disk>(
    disk: &D,
    kind: Kind,
    dir: &Path,
    sync: bool,
    common: &Common,
) -> io::Result<Vec<PathBuf>> {
    let about = take::found(disk, dir).await?.ok_or(io::ErrorKind::NotFound)?;
    let mut files = Vec::new();
    match kind {
        Kind::Hls => {
            let index = dir.join(layout::INDEX);
            if playlist::finish(disk, &index, sync).await? {
                files.push(index.clone());
            }
            playlist::close(disk, &index).await?;
        }
        Kind::Fmp4 => {
            // A viewer can replay the segments before the merge is done.
            for index in layout::indexes(kind, dir) {
                if playlist::finish(disk, &index, sync).await? {
                    files.push(index);
                }
            }
            let name = about.stream.rsplit('/').next().unwrap_or_default();
            files.extend(merge::merge(disk, dir, name, sync, &|| common.is_wanted(dir)).await?);
            for index in layout::indexes(kind, dir) {
                playlist::close(disk, &index).await?;
            }
        }
        Kind::Flv => files.extend(flv::finish(disk, dir, sync).await?),
    }
    let named = named(disk, kind, dir).await?;
    for folder in folders(dir) {
        sweep(disk, &folder, about.first.sequence, &named).await?;
    }
    Ok(files)
}

/// The segments that a take's playlists name.
async fn named<D: Disk>(disk: &D, kind: Kind, dir: &Path) -> io::Result<HashSet<String>> {
    let mut named = HashSet::new();
    for index in layout::indexes(kind, dir) {
        let playlist = playlist::load(disk, &index).await?.unwrap_or_default();
        named.extend(playlist.segments.into_iter().map(|segment| segment.uri));
    }
    Ok(named)
}

/// Removes files that were never finished, and segments before the `first` of this take that no playlist names;
/// they were kept for live players of the previous take.
async fn sweep<D: Disk>(disk: &D, dir: &Path, first: u64, named: &HashSet<String>) -> io::Result<()> {
    let is_segment = |name: &str| [".ts", ".m4s"].iter().any(|end| name.ends_with(end));
    let is_carried = |name: &str| is_segment(name) && take::number_of(name).is_some_and(|n| n < first);
    for entry in listed(disk, dir).await? {
        let stray = is_carried(&entry.name) && !named.contains(&entry.name);
        if !entry.is_dir && (stray || entry.name.ends_with(ASIDE)) {
            disk.remove(&dir.join(entry.name)).await?;
        }
    }
    Ok(())
}

/// The entries of a folder; none if there is no such folder.
pub(super) async fn listed<D: Disk>(disk: &D, dir: &Path) -> io::Result<Vec<Entry>> {
    match disk.list(dir).await {
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
            Ok(Vec::new())
        }
        listed => listed,
    }
}

/// A folder that holds a take.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Found {
    pub(super) dir: PathBuf,
    pub(super) id: String,
    /// A part of it is not finished.
    pub(super) unfinished: bool,
}

/// The takes under `root`, at any depth of app names.
pub(super) async fn takes<D: Disk>(disk: &D, root: &Path) -> io::Result<Vec<Found>> {
    let mut found = Vec::new();
    let mut waiting = vec![(root.to_owned(), 0)];
    while let Some((dir, depth)) = waiting.pop() {
        let entries = listed(disk, &dir).await?;
        if entries.iter().any(|entry| entry.name == ABOUT) {
            let about = take::found(disk, &dir).await?.unwrap_or_default();
            let mut unfinished = false;
            for folder in folders(&dir) {
                unfinished |= listed(disk, &folder)
                    .await?
                    .iter()
                    .any(|entry| !entry.is_dir && is_unfinished(&entry.name));
            }
            if about.next.is_none() {
                found.push(Found { dir: dir.clone(), id: about.id, unfinished });
            }
        }
        if depth < DEPTH_MAX {
            let below = entries.into_iter().filter(|entry| entry.is_dir && !entry.name.ends_with(ASIDE));
            waiting.extend(below.map(|entry| (dir.join(entry.name), depth + 1)));
        }
    }
    Ok(found)
}

fn is_unfinished(name: &str) -> bool {
    name.ends_with(playlist::JOURNAL) || name.ends_with(ASIDE)
}
