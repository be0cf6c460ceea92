//! What is left to do when a take is over: the replay playlists, the merged MP4, the FLV's index.
//!
//! The same work repairs takes that a crash has left unfinished, so every step may be repeated, and one that
//! was interrupted starts again.

use std::collections::{BTreeSet, HashSet};
use std::io;
use std::path::{Path, PathBuf};

use tracing::warn;

use super::common::Common;
use super::disk::{ASIDE, Disk, listed};
use super::layout::{self, ABOUT, Kind, folders};
use super::merge;
use super::take;
use super::{begin, flv, playlist};

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
        // A viewer can replay the segments before the merge is done.
        Kind::Hls | Kind::Fmp4 => {
            for index in layout::indexes(kind, dir) {
                if playlist::finish(disk, &index, sync).await? {
                    files.push(index);
                }
            }
        }
        Kind::Flv => files.extend(flv::finish(disk, dir, sync).await?),
    }
    if kind == Kind::Fmp4 {
        let name = about.stream.rsplit('/').next().unwrap_or_default();
        files.extend(merge::merge(disk, dir, name, sync, &|| common.is_wanted(dir)).await?);
    }
    let named = named(disk, kind, dir).await?;
    for folder in folders(dir) {
        sweep(disk, &folder, about.first.sequence, &named).await?;
    }
    // Last, since they say that something is left to do; and last of all the one from which the MP4 is merged, so that
    // what repeats this merges the same.
    for index in layout::indexes(kind, dir).iter().rev() {
        playlist::close(disk, index).await?;
    }
    Ok(files)
}

/// The segments that a take's playlists name.
async fn named<D: Disk>(disk: &D, kind: Kind, dir: &Path) -> io::Result<HashSet<String>> {
    let mut named = HashSet::new();
    for index in layout::indexes(kind, dir) {
        let playlist = playlist::read(disk, &index).await?.unwrap_or_default();
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

/// A folder that holds a take.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Found {
    pub(super) dir: PathBuf,
    pub(super) id: String,
    pub(super) stream: String,
    /// A part of it is not finished.
    pub(super) unfinished: bool,
}

/// A folder that cannot be read.
#[derive(Debug)]
pub(super) struct Unreadable {
    pub(super) dir: PathBuf,
    pub(super) error: io::Error,
}

/// All takes under a folder, as far as it can be read.
#[derive(Debug, Default)]
pub(super) struct Listing {
    pub(super) takes: Vec<Found>,
    pub(super) unreadable: Vec<Unreadable>,
    /// Folders in which a take began and a crash interrupted that.
    pub(super) interrupted: BTreeSet<PathBuf>,
}

/// The takes under `root`, at any depth of app names. A folder that cannot be read hides no other one.
pub(super) async fn takes<D: Disk>(disk: &D, root: &Path) -> Listing {
    let mut listing = Listing::default();
    let mut waiting = vec![(root.to_owned(), 0)];
    while let Some((dir, depth)) = waiting.pop() {
        let entries = match listed(disk, &dir).await {
            Ok(entries) => entries,
            Err(error) => {
                listing.unreadable.push(Unreadable { dir, error });
                continue;
            }
        };
        let is_described = entries.iter().any(|entry| entry.name == ABOUT);
        listing.interrupted.extend(begin::left_by_crash(&dir, is_described));
        if is_described && !is_aside(&dir) {
            match take_in(disk, root, &dir).await {
                Ok(take) => listing.takes.extend(take),
                Err(error) => listing.unreadable.push(Unreadable { dir: dir.clone(), error }),
            }
        }
        if depth < DEPTH_MAX && !is_aside(&dir) {
            let below = entries.into_iter().filter(|entry| entry.is_dir);
            waiting.extend(below.map(|entry| (dir.join(entry.name), depth + 1)));
        }
    }
    listing
}

/// Whether a folder has a temporary name.
fn is_aside(dir: &Path) -> bool {
    dir.file_name().is_some_and(|name| name.as_encoded_bytes().ends_with(ASIDE.as_bytes()))
}

/// All takes under `root`, after what a crash has interrupted between two takes was completed.
pub(super) async fn recovered<D: Disk>(disk: &D, root: &Path, common: &Common) -> Listing {
    let listing = takes(disk, root).await;
    let mut has_changed = false;
    for dir in &listing.interrupted {
        // A stream that is recorded again does it itself.
        if common.is_active(dir) || !common.claim(dir) {
            continue;
        }
        if let Err(error) = begin::recover(disk, dir).await {
            warn!(dir = %dir.display(), %error, "cannot complete what a crash has interrupted");
        }
        has_changed = true;
        common.release(dir);
    }
    if has_changed { takes(disk, root).await } else { listing }
}

/// The take in `dir`; `None`: it was removed, and only its numbers are left.
async fn take_in<D: Disk>(disk: &D, root: &Path, dir: &Path) -> io::Result<Option<Found>> {
    let about = take::found(disk, dir).await?.unwrap_or_default();
    if about.next.is_some() {
        return Ok(None);
    }
    let unfinished = is_unfinished(disk, dir).await?;
    // A take whose description cannot be read is known by its folder.
    let stream = if about.stream.is_empty() { stream_of(root, dir) } else { about.stream };
    Ok(Some(Found { dir: dir.to_owned(), id: about.id, stream, unfinished }))
}

/// The stream of a take's folder.
fn stream_of(root: &Path, dir: &Path) -> String {
    let path = dir.strip_prefix(root).unwrap_or(dir).to_string_lossy();
    path.split_once('@').map_or(&*path, |(stream, _)| stream).to_owned()
}

/// Whether a part of the take in `dir` is not finished.
pub(super) async fn is_unfinished<D: Disk>(disk: &D, dir: &Path) -> io::Result<bool> {
    let marks = |name: &str| name.ends_with(playlist::JOURNAL) || name.ends_with(ASIDE);
    for folder in folders(dir) {
        if listed(disk, &folder).await?.iter().any(|entry| !entry.is_dir && marks(&entry.name)) {
            return Ok(true);
        }
    }
    Ok(false)
}
