//! What recordings there are, for the pages: `GET /api/v1/recordings`.
//!
//! Loops never look at the disk for it. The control thread walks the folder, at most every few seconds and only
//! after somebody has asked, and leaves the answer here.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant, UNIX_EPOCH};

use arc_swap::ArcSwap;
use bytes::Bytes;
use serde::Serialize;

use crate::server::http::routes::RECORDINGS;

/// The shortest time between two walks.
const REST: Duration = Duration::from_secs(3);
/// Takes that are listed.
const TAKES_MAX: usize = 2000;
/// Names that one walk looks at: segments are among them.
const NAMES_MAX: usize = 500_000;
/// How deep the folders of streams may be.
const DEPTH_MAX: usize = 16;
/// The folders of a take in `mp4`.
const MERGED: &str = "output_merge";
const SEPARATE: &str = "output_separate";

/// The recordings in a folder, as they were when it was last looked at.
#[derive(Debug)]
pub(in crate::server) struct Library {
    listing: ArcSwap<Bytes>,
    wanted: AtomicBool,
    walked: Mutex<Option<Instant>>,
}

impl Default for Library {
    fn default() -> Self {
        let empty = Bytes::from_static(br#"{"recordings":[],"complete":true}"#);
        Self {
            listing: ArcSwap::from_pointee(empty),
            wanted: AtomicBool::new(true),
            walked: Mutex::default(),
        }
    }
}

impl Library {
    /// The listing as JSON, at most a few seconds old if it was asked for in that time.
    pub(in crate::server) fn listing(&self) -> Bytes {
        self.wanted.store(true, Ordering::Relaxed);
        Bytes::clone(&self.listing.load())
    }

    /// Looks again if somebody wants to know and the last time is long enough ago. Blocks.
    pub(in crate::server) fn refresh(&self, root: &Path) {
        let mut walked = self.walked.lock().expect("nobody panics with it");
        let rested = walked.is_none_or(|at| at.elapsed() >= REST);
        if rested && self.wanted.swap(false, Ordering::Relaxed) {
            let listing = serde_json::to_vec(&walk(root)).expect("plain data");
            self.listing.store(Bytes::from(listing).into());
            *walked = Some(Instant::now());
        }
    }
}

#[derive(Debug, Serialize)]
struct Listing {
    recordings: Vec<Take>,
    /// Whether these are all.
    complete: bool,
}

/// What there is of one take.
#[derive(Debug, Default, PartialEq, Eq, Serialize)]
struct Take {
    /// The stream's name.
    key: String,
    /// When it began; the newest one has the stream's own name and nothing here.
    #[serde(skip_serializing_if = "Option::is_none")]
    take: Option<String>,
    /// When something of it was written last, in seconds since 1970.
    modified: u64,
    hls: bool,
    fmp4_merge: bool,
    fmp4_separate: bool,
    /// Bytes of the merged MP4.
    #[serde(skip_serializing_if = "Option::is_none")]
    mp4: Option<u64>,
    /// Bytes of the FLV file.
    #[serde(skip_serializing_if = "Option::is_none")]
    flv: Option<u64>,
}

fn walk(root: &Path) -> Listing {
    let mut walk = Walk { takes: BTreeMap::new(), names: 0, complete: true };
    for kind in RECORDINGS {
        walk.folder(kind, &root.join(kind), "", 0);
    }
    let mut recordings: Vec<Take> = walk.takes.into_values().collect();
    recordings.sort_by_key(|take| std::cmp::Reverse(take.modified));
    if recordings.len() > TAKES_MAX {
        recordings.truncate(TAKES_MAX);
        walk.complete = false;
    }
    Listing { recordings, complete: walk.complete }
}

struct Walk {
    /// By their paths below the folder of their kind.
    takes: BTreeMap<String, Take>,
    names: usize,
    complete: bool,
}

impl Walk {
    /// Looks into the folder of a stream or of a part of its name. What cannot be read is not listed.
    fn folder(&mut self, kind: &str, folder: &Path, path: &str, depth: usize) {
        let Ok(entries) = fs::read_dir(folder) else { return };
        for entry in entries.flatten() {
            self.names += 1;
            if self.names > NAMES_MAX {
                self.complete = false;
                return;
            }
            let Ok(name) = entry.file_name().into_string() else { continue };
            let is_folder = entry.file_type().is_ok_and(|kind| kind.is_dir());
            match (kind, name.as_str(), is_folder) {
                ("hls", "index.m3u8", false) => self.take(path, &entry.path(), |take, _| take.hls = true),
                ("flv", "index.flv", false) => {
                    self.take(path, &entry.path(), |take, bytes| take.flv = Some(bytes));
                }
                ("mp4", MERGED, true) => self.merged(path, &entry.path()),
                ("mp4", SEPARATE, true) => {
                    let playlist = entry.path().join("index.m3u8");
                    self.take(path, &playlist, |take, _| take.fmp4_separate = true);
                }
                (_, _, true) if depth < DEPTH_MAX => {
                    let path = if path.is_empty() { name } else { format!("{path}/{name}") };
                    self.folder(kind, &entry.path(), &path, depth + 1);
                }
                _ => {}
            }
        }
    }

    fn merged(&mut self, path: &str, folder: &Path) {
        self.take(path, &folder.join("index.m3u8"), |take, _| take.fmp4_merge = true);
        let (key, _) = split(path);
        let name = key.rsplit('/').next().expect("the last part");
        let file = folder.join(format!("{name}_full.mp4"));
        self.take(path, &file, |take, bytes| take.mp4 = Some(bytes));
    }

    /// Notes what a file says of a take, if it is there.
    fn take(&mut self, path: &str, file: &Path, note: impl FnOnce(&mut Take, u64)) {
        let Ok((bytes, modified)) = facts(file) else { return };
        let take = self.takes.entry(path.to_owned()).or_insert_with(|| {
            let (key, take) = split(path);
            Take { key: key.to_owned(), take: take.map(str::to_owned), ..Take::default() }
        });
        take.modified = take.modified.max(modified);
        note(take, bytes);
    }
}

/// A file's length and when it was written.
fn facts(file: &Path) -> io::Result<(u64, u64)> {
    let facts = fs::symlink_metadata(file)?;
    if !facts.is_file() {
        return Err(io::ErrorKind::NotFound.into());
    }
    let modified = facts.modified()?.duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
    Ok((facts.len(), modified.as_secs()))
}

/// `live/stream@20261121T091545Z` is an earlier take of `live/stream`.
fn split(path: &str) -> (&str, Option<&str>) {
    path.split_once('@').map_or((path, None), |(key, take)| (key, Some(take)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(root: &Path, name: &str, bytes: usize) {
        let path = root.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, vec![0; bytes]).unwrap();
    }

    #[test]
    fn takes_are_found_by_what_is_there_of_them() {
        let root = std::env::temp_dir().join(format!("uringcast-library-{}", std::process::id()));
        let _ = fs::remove_dir_all(&root);
        write(&root, "hls/live/a/index.m3u8", 1);
        write(&root, "hls/live/a/segment_0.ts", 1);
        write(&root, "hls/live/half/segment_0.ts", 1);
        write(&root, "flv/live/a/index.flv", 7);
        write(&root, "flv/live/a/b/index.flv", 8);
        write(&root, "flv/live/a@20261121T091545Z/index.flv", 9);
        write(&root, "mp4/live/a/output_merge/index.m3u8", 1);
        write(&root, "mp4/live/a/output_merge/a_full.mp4", 5);
        write(&root, "mp4/live/b/output_separate/index.m3u8", 1);
        write(&root, "elsewhere/live/c/index.flv", 1);
        std::os::unix::fs::symlink(&root, root.join("flv/loop")).unwrap();
        let mut found = walk(&root);
        found.recordings.iter_mut().for_each(|take| assert!(std::mem::take(&mut take.modified) > 0));
        found.recordings.sort_by(|a, b| (&a.key, &a.take).cmp(&(&b.key, &b.take)));
        let take = |key: &str| Take { key: key.to_owned(), ..Take::default() };
        let expected = [
            Take { hls: true, fmp4_merge: true, mp4: Some(5), flv: Some(7), ..take("live/a") },
            Take { take: Some("20261121T091545Z".to_owned()), flv: Some(9), ..take("live/a") },
            Take { flv: Some(8), ..take("live/a/b") },
            Take { fmp4_separate: true, ..take("live/b") },
        ];
        assert_eq!(found.recordings, expected);
        assert!(found.complete);
        fs::remove_dir_all(&root).unwrap();
    }

    #[test]
    fn it_looks_only_when_somebody_has_asked() {
        let library = Library::default();
        let nowhere = Path::new("/nonexistent");
        library.refresh(nowhere);
        let first = library.walked.lock().unwrap().unwrap();
        library.refresh(nowhere);
        assert_eq!(library.walked.lock().unwrap().unwrap(), first);
        assert_eq!(&library.listing()[..], br#"{"recordings":[],"complete":true}"#);
    }
}
