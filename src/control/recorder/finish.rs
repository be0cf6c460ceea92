//! What is left to do when a take is over: the replay playlists, the merged MP4, the FLV's index.
//!
//! The same work mends takes that a crash has left behind, so every step may be repeated, and one that was cut off
//! begins again.

use std::io;
use std::path::{Path, PathBuf};

use super::disk::{ASIDE, Disk};
use super::take::ABOUT;
use super::task::Kind;
use super::{hls, playlist};

/// Folders inside one another that are looked through for takes.
const DEPTH_MAX: u32 = 9;

/// Finishes the take of `kind` in `dir`; gives the files that are finished now.
pub(super) async fn finish<D: Disk>(
    disk: &D,
    kind: Kind,
    dir: &Path,
    sync: bool,
) -> io::Result<Vec<PathBuf>> {
    let files = match kind {
        Kind::Hls => {
            let index = dir.join(hls::INDEX);
            if playlist::finish(disk, &index, sync).await? { vec![index] } else { Vec::new() }
        }
        Kind::Flv | Kind::Fmp4 => Vec::new(),
    };
    Ok(files)
}

/// A folder that holds a take.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Found {
    pub(super) dir: PathBuf,
    /// Something in it is not finished.
    pub(super) unfinished: bool,
}

/// The takes under `root`, however deep their apps are.
pub(super) async fn takes<D: Disk>(disk: &D, root: &Path) -> io::Result<Vec<Found>> {
    let mut found = Vec::new();
    let mut folders = vec![(root.to_owned(), 0)];
    while let Some((dir, depth)) = folders.pop() {
        let entries = match disk.list(&dir).await {
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            listed => listed?,
        };
        if entries.iter().any(|entry| entry.name == ABOUT) {
            let unfinished = entries.iter().any(|entry| is_unfinished(&entry.name));
            found.push(Found { dir: dir.clone(), unfinished });
        }
        if depth < DEPTH_MAX {
            let below = entries.into_iter().filter(|entry| entry.is_dir);
            folders.extend(below.map(|entry| (dir.join(entry.name), depth + 1)));
        }
    }
    Ok(found)
}

fn is_unfinished(name: &str) -> bool {
    name.ends_with(playlist::JOURNAL) || name.ends_with(ASIDE)
}
