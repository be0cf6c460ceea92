//! Who watches by playlists and segments: there is no connection to count, so those count who asked for
//! something of a stream within the last three target durations.
//!
//! A viewer is an address and a user agent. Each loop notes them and hands its notes over at its sweeps, a viewer
//! once in a while, so that however many ask, little is shared. Only where `limits.egress` bounds new viewers does
//! every loop look at what all know, for each playlist.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::net::IpAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::protocol::http::{FileKind, RelPath};
use crate::uring::Millis;

/// A viewer is noted again after so long.
const NOTE_AGAIN: Millis = 1_000;
/// Viewers of all streams that are remembered.
const VIEWERS_MAX: usize = 1 << 20;
/// What a loop remembers of its own notes.
const NOTES_MAX: usize = 1 << 16;
/// How long a viewer counts where no playlist has told the target duration.
const WINDOW: Millis = 15_000;
/// Target durations without a request after which a viewer has gone.
const TARGETS: Millis = 3;
/// The longest window.
const WINDOW_MAX: Millis = 120_000;

/// The viewers of a role's streams.
#[derive(Debug, Default)]
pub struct Audience {
    hasher: RandomState,
    streams: Mutex<Streams>,
}

#[derive(Debug, Default)]
struct Streams {
    streams: HashMap<String, StreamViewers>,
    viewers: usize,
    sessions: u64,
}

#[derive(Debug)]
struct StreamViewers {
    window: Millis,
    /// When each was seen last.
    seen: HashMap<u64, Millis>,
}

/// What a scrape is told.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Attendance {
    /// Viewers now, by stream; most first.
    pub streams: Vec<(String, usize)>,
    /// Viewers that have come since the start.
    pub sessions: u64,
}

/// One viewer of one stream, noted by a loop.
#[derive(Debug)]
struct Note {
    stream: String,
    viewer: u64,
    /// The target duration, if a playlist told it.
    target: Option<Millis>,
}

/// A loop's notes.
#[derive(Debug, Default)]
pub(in crate::server) struct Notes {
    fresh: Vec<Note>,
    /// When a viewer of a stream was noted last.
    noted: HashMap<(u64, u64), Millis>,
}

impl Notes {
    /// Somebody asked for a file of a stream.
    pub(in crate::server) fn note(
        &mut self,
        audience: &Audience,
        path: &RelPath,
        kind: FileKind,
        (peer, agent): (Option<IpAddr>, Option<&str>),
        target: Option<u32>,
        now: Millis,
    ) {
        let Some(stream) = stream_of(path, kind) else { return };
        let viewer = audience.hasher.hash_one((peer, agent));
        let key = (audience.hasher.hash_one(stream), viewer);
        if self.noted.get(&key).is_some_and(|noted| now < noted + NOTE_AGAIN) && target.is_none() {
            return;
        }
        if self.noted.len() >= NOTES_MAX {
            self.noted.clear(); // some are noted twice: no harm
        }
        self.noted.insert(key, now);
        let target = target.map(|seconds| Millis::from(seconds) * 1000);
        self.fresh.push(Note { stream: stream.to_owned(), viewer, target });
    }

    /// Whether a viewer may have a playlist: it may if it plays already; another one if `admit` says so, and it plays from
    /// then on. All loops are told at once, since its next request may come to another one.
    pub(in crate::server) fn may_play(
        &self,
        audience: &Audience,
        path: &RelPath,
        viewer: (Option<IpAddr>, Option<&str>),
        now: Millis,
        admit: impl FnOnce() -> bool,
    ) -> bool {
        let Some(stream) = stream_of(path, FileKind::Playlist) else { return true };
        let viewer = audience.hasher.hash_one(viewer);
        if self.noted.contains_key(&(audience.hasher.hash_one(stream), viewer)) {
            return true;
        }
        let mut streams = audience.streams();
        if streams.has(stream, viewer, now) {
            return true;
        }
        let admitted = admit();
        if admitted {
            streams.see(Note { stream: stream.to_owned(), viewer, target: None }, now);
        }
        admitted
    }

    /// Hands the notes over; they stay if somebody else is at it just now.
    pub(in crate::server) fn hand_over(&mut self, audience: &Audience, now: Millis) {
        if self.fresh.is_empty() {
            return;
        }
        let Ok(mut streams) = audience.streams.try_lock() else { return };
        for note in self.fresh.drain(..) {
            streams.see(note, now);
        }
        self.noted.retain(|_, noted| now < *noted + NOTE_AGAIN);
    }
}

impl Streams {
    /// Whether a viewer watches a stream now.
    fn has(&self, stream: &str, viewer: u64, now: Millis) -> bool {
        let Some(stream) = self.streams.get(stream) else { return false };
        stream.seen.get(&viewer).is_some_and(|seen| now <= *seen + stream.window)
    }

    /// Forgets those who watch no more.
    fn forget(&mut self, now: Millis) {
        for stream in self.streams.values_mut() {
            let window = stream.window;
            stream.seen.retain(|_, seen| now <= *seen + window);
        }
        self.streams.retain(|_, stream| !stream.seen.is_empty());
        self.viewers = self.streams.values().map(|stream| stream.seen.len()).sum();
    }

    fn see(&mut self, note: Note, now: Millis) {
        if self.viewers >= VIEWERS_MAX {
            return;
        }
        let fresh = || StreamViewers { window: WINDOW, seen: HashMap::new() };
        let stream = self.streams.entry(note.stream).or_insert_with(fresh);
        if let Some(target) = note.target {
            stream.window = (target * TARGETS).clamp(1_000, WINDOW_MAX);
        }
        let before = stream.seen.insert(note.viewer, now);
        self.viewers += usize::from(before.is_none());
        if before.is_none_or(|before| now > before + stream.window) {
            self.sessions += 1;
        }
    }
}

impl Audience {
    fn streams(&self) -> MutexGuard<'_, Streams> {
        self.streams.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Forgets those who watch no more: their places in the table are for others.
    pub fn forget(&self, now: Millis) {
        self.streams().forget(now);
    }

    /// Who watches now; forgets those who do not any more.
    pub fn count(&self, now: Millis) -> Attendance {
        let mut streams = self.streams();
        streams.forget(now);
        let mut list: Vec<_> =
            streams.streams.iter().map(|(name, stream)| (name.clone(), stream.seen.len())).collect();
        list.sort_unstable_by(|(name, viewers), (other, others)| others.cmp(viewers).then(name.cmp(other)));
        Attendance { streams: list, sessions: streams.sessions }
    }
}

/// The stream that a playlist or segment belongs to: `live/a` of `hls/live/a/index.m3u8` and of
/// `mp4/live/a/output_merge/segment_1.m4s`.
fn stream_of(path: &RelPath, kind: FileKind) -> Option<&str> {
    if !matches!(kind, FileKind::Playlist | FileKind::Segment) {
        return None;
    }
    let (root, rest) = path.as_str().split_once('/')?;
    let (folder, _) = rest.rsplit_once('/')?;
    match root {
        "hls" => Some(folder),
        "mp4" => folder.rsplit_once('/').map(|(stream, _)| stream),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(text: &str) -> RelPath {
        RelPath::parse(text).unwrap()
    }

    #[test]
    fn streams_by_their_files() {
        let segment = |text| stream_of(&path(text), FileKind::Segment).map(str::to_owned);
        assert_eq!(segment("/hls/live/a/segment_1.ts").as_deref(), Some("live/a"));
        assert_eq!(segment("/mp4/x/live/a/output_merge/segment_1.m4s").as_deref(), Some("x/live/a"));
        assert_eq!(segment("/flv/live/a/x.ts"), None);
        assert_eq!(segment("/hls/x.ts"), None);
        assert_eq!(stream_of(&path("/hls/live/a/x.html"), FileKind::Page), None);
    }

    #[test]
    fn viewers_count_for_three_target_durations() {
        let audience = Audience::default();
        let mut notes = Notes::default();
        let mut watch = |name: &str, agent: &str, target, now| {
            let viewer = (Some("10.0.0.1".parse().unwrap()), Some(agent));
            notes.note(&audience, &path(name), FileKind::Playlist, viewer, target, now);
            notes.hand_over(&audience, now);
        };
        watch("/hls/live/a/index.m3u8", "one", Some(4), 0);
        watch("/hls/live/a/index.m3u8", "two", Some(4), 5_000);
        watch("/hls/live/a/index.m3u8", "two", None, 9_000);
        watch("/hls/live/b/index.m3u8", "two", None, 9_000);
        let both = vec![("live/a".to_owned(), 2), ("live/b".to_owned(), 1)];
        assert_eq!(audience.count(12_000), Attendance { streams: both, sessions: 3 });
        assert_eq!(audience.count(12_001).streams[0], ("live/a".to_owned(), 1));
        assert_eq!(audience.count(60_000).streams, []);
        watch("/hls/live/a/index.m3u8", "one", None, 60_000);
        assert_eq!(audience.count(60_000).sessions, 4);
    }

    #[test]
    fn new_viewers_may_be_refused_and_those_who_play_go_on() {
        let audience = Audience::default();
        let (mut one, other) = (Notes::default(), Notes::default());
        let may_play = |notes: &Notes, name: &str, agent: &str, now, admit: bool| {
            notes.may_play(&audience, &path(name), (None, Some(agent)), now, || admit)
        };
        let a = "/hls/live/a/index.m3u8";
        assert!(!may_play(&one, a, "x", 0, false));
        assert!(may_play(&one, a, "x", 0, true));
        assert!(may_play(&other, a, "x", WINDOW, false), "another loop knows of it at once");
        assert!(
            !may_play(&other, a, "y", 0, false) && !may_play(&other, "/hls/live/b/index.m3u8", "x", 0, false)
        );
        assert!(!may_play(&other, a, "x", WINDOW + 1, false), "it has gone");
        assert!(may_play(&other, "/videos/index.m3u8", "x", 0, false), "it is of no stream");
        let viewer = (None, Some("x"));
        one.note(&audience, &path("/hls/live/a/segment_1.ts"), FileKind::Segment, viewer, None, WINDOW + 1);
        assert!(may_play(&one, a, "x", WINDOW + 1, false), "it has asked for a segment");
        one.hand_over(&audience, WINDOW + 1);
        assert!(may_play(&other, a, "x", WINDOW + 2, false));
        audience.forget(3 * WINDOW);
        assert_eq!(audience.streams().viewers, 0);
    }
}
