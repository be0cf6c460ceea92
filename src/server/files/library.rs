//! What recordings there are, for the pages: `GET /api/v1/recordings`.
//!
//! Loops never look at the disk for it. The control thread walks the folder, at most every few seconds and only
//! while it is asked for, and leaves the answer here. The first walk may take long: an answer
//! before its end says that it is not complete.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::Path;
use std::time::{Duration, UNIX_EPOCH};

use bytes::Bytes;
use serde::Serialize;

use crate::access::Streams;
use crate::server::http::routes::RECORDINGS;
use crate::server::listing::{Listed, Listing};
use crate::uring::Millis;

/// The shortest time between two walks, and how old an answer may be.
const REST: Millis = 3_000;
const LIFE: Millis = 6_000;
/// How an answer ends that names all, and one that does not.
const COMPLETE: &str = "],\"complete\":true}";
const INCOMPLETE: &str = "],\"complete\":false}";
/// How it begins.
const FRONT: &str = "{\"recordings\":[";
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
    pub(in crate::server) listing: Listing,
}

impl Default for Library {
    fn default() -> Self {
        Self { listing: Listing::new(REST, LIFE) }
    }
}

impl Library {
    /// What is known at once: the recordings, or as many as are known, which the answer says.
    pub(in crate::server) fn at_once(&self, now: Millis, streams: &Streams) -> Bytes {
        match self.listing.fresh(now) {
            Some(list) => list.of(streams),
            None => incomplete(self.listing.newest().map(|list| list.of(streams))),
        }
    }

    /// Looks again. Blocks.
    pub(in crate::server) fn refresh(&self, root: &Path, now: Millis) {
        let Recordings { recordings, complete } = walk(root);
        let entry = |take: Take| (take.key.clone(), serde_json::to_string(&take).expect("plain data"));
        let ends = (FRONT, if complete { COMPLETE } else { INCOMPLETE });
        self.listing.store(now, Listed::new(ends, recordings.into_iter().map(entry).collect(), ends));
    }
}

/// An old answer, or none, as one that does not name all.
fn incomplete(old: Option<Bytes>) -> Bytes {
    let Some(old) = old else { return Bytes::from([FRONT, INCOMPLETE].concat()) };
    match old.strip_suffix(COMPLETE.as_bytes()) {
        Some(front) => [front, INCOMPLETE.as_bytes()].concat().into(),
        None => old,
    }
}

#[derive(Debug)]
struct Recordings {
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

fn walk(root: &Path) -> Recordings {
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
    Recordings { recordings, complete: walk.complete }
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
    fn an_answer_before_the_first_walk_is_not_complete() {
        let library = Library::default();
        assert_eq!(&library.at_once(0, &Streams::All)[..], br#"{"recordings":[],"complete":false}"#);
        library.refresh(Path::new("/nonexistent"), 10);
        assert_eq!(&library.at_once(20, &Streams::All)[..], br#"{"recordings":[],"complete":true}"#);
        assert!(library.listing.fresh(10 + LIFE + 1).is_none(), "it waits for the next walk");
        assert_eq!(
            &library.at_once(10 + LIFE + 1, &Streams::All)[..],
            br#"{"recordings":[],"complete":false}"#
        );
    }

    #[test]
    fn an_old_answer_says_that_it_is_not_complete() {
        let some = Bytes::from_static(br#"{"recordings":[{"key":"a/b"}],"complete":true}"#);
        assert_eq!(&incomplete(Some(some))[..], br#"{"recordings":[{"key":"a/b"}],"complete":false}"#);
        let partial = Bytes::from_static(br#"{"recordings":[],"complete":false}"#);
        assert_eq!(incomplete(Some(partial.clone())), partial);
    }
}
