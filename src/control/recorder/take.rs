//! What is known of a take, in its folder.
//!
//! The newest take of `app/name` is in `{kind}/app/name`. When another begins, the previous one is renamed to
//! `{kind}/app/name@{when it began}` (`begin`): no stream name contains `@`, so the two never collide. Segment
//! numbers continue from take to take, even when the earlier takes were removed.

use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};

use super::disk::{ASIDE, Disk, Entry, listed, read_all};
use super::layout::{self, ABOUT, Kind, MERGE, SEPARATE};
use super::playlist;
use crate::media::m3u8::Head;
use crate::protocol::http::date::format_stamp;

const ABOUT_MAX: usize = 4096;
/// Clients and caches keep segments for so long ([`FileKind::Segment`](crate::protocol::http::FileKind)).
const CACHED: Duration = Duration::from_secs(86_400);
/// The most segments that may wait for the disk: a crash loses them.
pub(super) const WAITING_MAX: usize = 256;
/// How many seconds of a stream have one discontinuity at most, on average. Numbers of discontinuities must stay small:
/// hls.js does work for each below the first (1.5 s for 50 million, minutes for a number of seconds since 1970).
const DISCONTINUITY: u64 = 60;
/// Midnight of 1 January 2026, in seconds since 1970.
const YEAR_2026: u64 = 1_767_225_600;
/// The contents of [`ABOUT`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct About {
    /// The stream's name.
    pub(super) stream: String,
    /// As `20261121T091545Z`.
    pub(super) began: String,
    /// Unique among takes.
    pub(super) id: String,
    /// The first numbers of its playlists.
    pub(super) first: Numbers,
    /// The take was removed, and the next one starts with these.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) next: Option<Numbers>,
    /// All its segments are on the disk, and its playlists name them.
    #[serde(skip_serializing_if = "is_false")]
    pub(super) whole: bool,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it so")]
fn is_false(value: &bool) -> bool {
    !value
}

/// Numbers that only increase, over all takes: the files' names are cached, and players keep count.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Numbers {
    /// Of a segment.
    pub(super) sequence: u64,
    /// Discontinuities so far.
    pub(super) discontinuities: u64,
}

impl Numbers {
    /// The larger ones of both.
    pub(super) fn at_least(self, other: Self) -> Self {
        Self {
            sequence: self.sequence.max(other.sequence),
            discontinuities: self.discontinuities.max(other.discontinuities),
        }
    }

    /// Larger ones than any take has used until then, by the clock alone: a take has fewer segments than seconds.
    pub(super) fn by_clock(now: SystemTime) -> Self {
        let seconds = now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs();
        Self { sequence: seconds, discontinuities: seconds.saturating_sub(YEAR_2026) / DISCONTINUITY }
    }

    /// Those that are so many segments later.
    fn later_by(self, segments: u64) -> Self {
        Self {
            sequence: self.sequence.saturating_add(segments),
            discontinuities: self.discontinuities.saturating_add(segments.div_ceil(DISCONTINUITY)),
        }
    }

    /// The head of a playlist that begins with these, and a target duration in seconds.
    pub(super) fn head(self, target: u32) -> Head {
        let Self { sequence, discontinuities } = self;
        Head { target, sequence, discontinuities }
    }
}

/// The present time, in the format of [`About::began`].
pub(super) fn now() -> String {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    format_stamp(now.as_secs())
}

/// The numbers that a take in `dir` begins with if it begins now and nothing else is known of the stream's segments.
///
/// Live clients may have got segments that the disk did not get before a crash. Their names may be cached, so they are
/// left out. There were fewer than one a second since the newest segment on the disk was made, or as many as may wait for
/// the disk if the stream came faster than that.
pub(super) async fn next_numbers<D: Disk>(disk: &D, dir: &Path, now: SystemTime) -> io::Result<Numbers> {
    let numbers = written_numbers(disk, dir).await?;
    match found(disk, dir).await? {
        Some(About { next: None, whole: false, .. }) => {}
        _ => return Ok(numbers),
    }
    let mut newest = SystemTime::UNIX_EPOCH;
    for folder in layout::folders(dir) {
        let entries = listed(disk, &folder).await?;
        let segments = entries.iter().filter(|entry| !entry.is_dir && number_of(&entry.name).is_some());
        newest = segments.map(|entry| entry.modified).fold(newest, SystemTime::max);
    }
    let since = now.duration_since(newest).unwrap_or_default();
    let lost = since.as_secs() + WAITING_MAX as u64 + 1;
    Ok(if since < CACHED { numbers.later_by(lost) } else { numbers })
}

/// All segments of the take in `dir` are on the disk, and named, if it has that id.
pub(super) async fn set_whole<D: Disk>(disk: &D, dir: &Path, id: &str) -> io::Result<()> {
    match found(disk, dir).await? {
        Some(about) if about.id == id => {
            let about = serde_json::to_vec(&About { whole: true, ..about })?;
            disk.replace(&dir.join(ABOUT), about, false).await
        }
        _ => Ok(()),
    }
}

/// The numbers that follow those on the disk.
pub(super) async fn written_numbers<D: Disk>(disk: &D, dir: &Path) -> io::Result<Numbers> {
    match found(disk, dir).await? {
        Some(About { next: Some(next), .. }) => Ok(next),
        Some(own) => numbers_behind(disk, dir, own.first).await,
        None => Ok(found(disk, &fresh(dir)).await?.unwrap_or_default().first),
    }
}

/// A folder's path with `what` after an `@`, which no stream name contains.
pub(super) fn beside(dir: &Path, what: &str) -> PathBuf {
    let mut name = dir.as_os_str().to_owned();
    name.push("@");
    name.push(what);
    name.into()
}

/// The temporary name of a take's folder.
pub(super) fn fresh(dir: &Path) -> PathBuf {
    beside(dir, ASIDE)
}

/// The numbers that follow the segments of the take in `dir`, which began with `first`.
async fn numbers_behind<D: Disk>(disk: &D, dir: &Path, first: Numbers) -> io::Result<Numbers> {
    let mut numbers = first;
    for index in Kind::EVERY.into_iter().flat_map(|kind| layout::indexes(kind, dir)) {
        let Some(playlist) = playlist::load(disk, &index).await? else { continue };
        let head = playlist.next_head();
        // A number that failed is in no playlist, but it is used.
        let last = playlist.segments.last().and_then(|segment| number_of(&segment.uri));
        let behind = last.map_or(0, |last| last.saturating_add(1));
        numbers.sequence = numbers.sequence.max(head.sequence).max(behind);
        numbers.discontinuities = numbers.discontinuities.max(head.discontinuities);
    }
    Ok(numbers)
}

/// The number in `segment_7.ts`.
pub(super) fn number_of(uri: &str) -> Option<u64> {
    uri.rsplit_once('.')?.0.rsplit_once('_')?.1.parse().ok()
}

/// What is known of the take in `dir`; `None`: there is none.
pub(super) async fn found<D: Disk>(disk: &D, dir: &Path) -> io::Result<Option<About>> {
    let bytes = match read_all(disk, &dir.join(ABOUT), ABOUT_MAX).await {
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
            return Ok(None);
        }
        read => read?,
    };
    let mut about = serde_json::from_slice::<About>(&bytes).unwrap_or_default();
    // The value becomes part of a path, so it is checked.
    if about.began.len() != 16 || !about.began.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
        "unknown".clone_into(&mut about.began);
    }
    Ok(Some(about))
}

/// Removes a take, but not other streams' folders inside. The numbers of a stream's newest take are kept.
pub(super) async fn remove<D: Disk>(disk: &D, dir: &Path) -> io::Result<()> {
    let newest = !dir.file_name().is_some_and(|name| name.as_encoded_bytes().contains(&b'@'));
    let own = own_among_others(disk, dir).await?;
    if own.is_none() && !newest {
        return disk.remove_dir(dir).await;
    }
    if newest && let Some(about) = found(disk, dir).await? {
        // First what the numbers do not depend on: a full disk has no space for another file. If this is
        // interrupted, the folder is still a take, which can be removed again.
        let next = Some(next_numbers(disk, dir, SystemTime::now()).await?);
        remove_media(disk, dir).await?;
        disk.replace(&dir.join(ABOUT), serde_json::to_vec(&About { next, ..about })?, false).await?;
    }
    let names = match own {
        Some(own) => own,
        None => disk.list(dir).await?.into_iter().map(|entry| entry.name).collect(),
    };
    for name in names.into_iter().filter(|name| !(newest && name == ABOUT)) {
        let path = dir.join(&name);
        if [MERGE, SEPARATE].contains(&name.as_str()) {
            disk.remove_dir(&path).await?;
        } else {
            disk.remove(&path).await?;
        }
    }
    Ok(())
}

/// Removes the files of a take that are neither its playlists nor its description.
async fn remove_media<D: Disk>(disk: &D, dir: &Path) -> io::Result<()> {
    for folder in layout::folders(dir) {
        for entry in listed(disk, &folder).await? {
            let is_kept = entry.name == ABOUT || entry.name.contains(".m3u8");
            if !entry.is_dir && !is_kept {
                disk.remove(&folder.join(&entry.name)).await?;
            }
        }
    }
    Ok(())
}

/// The entries of a folder that belong to its take, [`ABOUT`] last; `None`: all of them.
pub(super) async fn own_among_others<D: Disk>(disk: &D, dir: &Path) -> io::Result<Option<Vec<String>>> {
    let entries = disk.list(dir).await?;
    if !entries.iter().any(is_others) {
        return Ok(None);
    }
    Ok(Some(names_of(entries.into_iter().filter(|entry| !is_others(entry)).collect())))
}

/// Whether an entry of a take's folder belongs to other streams.
pub(super) fn is_others(entry: &Entry) -> bool {
    entry.is_dir && ![MERGE, SEPARATE].contains(&entry.name.as_str())
}

/// The names of entries, [`ABOUT`] last.
pub(super) fn names_of(entries: Vec<Entry>) -> Vec<String> {
    let mut names: Vec<String> = entries.into_iter().map(|entry| entry.name).collect();
    names.sort_by_key(|name| name == ABOUT);
    names
}
