//! Where the loops find the live files of streams: without a lock, while the control thread puts new ones there.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use arc_swap::{ArcSwap, ArcSwapOption};
use tokio::sync::Notify;

use super::format::Format;
use super::segment::File;
use super::window::Snapshot;

/// The live files of one role's streams.
#[derive(Debug, Default)]
pub struct Shelf {
    streams: ArcSwap<HashMap<String, Arc<Shown>>>,
}

/// The live files of a stream.
#[derive(Debug, Default)]
pub struct Shown {
    /// How often it was shown and not withdrawn: streams of one name may follow each other closely.
    holders: AtomicU32,
    formats: [Place; Format::EVERY.len()],
}

/// The live files of a stream in one format.
#[derive(Debug, Default)]
pub struct Place {
    snapshot: ArcSwapOption<Snapshot>,
    /// Streams of that name which are packaged when a client asks: none or one, or another one follows at once.
    on_demand: AtomicU32,
    /// When a client asked last, in the caller's milliseconds.
    asked: AtomicU64,
    wanted: Notify,
}

/// What is known of a path.
#[derive(Clone, Debug)]
pub enum Found {
    /// This file.
    File(Arc<File>),
    /// The stream is being packaged for the first client that asks: its files come soon.
    Soon,
    /// No live file has that path.
    Nothing,
}

impl Shelf {
    /// The live file with that path, such as `hls/live/a/index.m3u8`; `now` is in milliseconds.
    pub fn find(&self, path: &str, now: u64) -> Found {
        let Some((format, stream, name)) = Format::parse(path) else { return Found::Nothing };
        let streams = self.streams.load();
        let Some(shown) = streams.get(stream) else { return Found::Nothing };
        shown.place(format).find(name, now)
    }

    /// A stream is live: its place, which is made if there is none, and is there until as many calls of
    /// [`withdraw`](Self::withdraw). Both are for one thread.
    pub fn show(&self, stream: &str) -> Arc<Shown> {
        if let Some(shown) = self.streams.load().get(stream) {
            shown.holders.fetch_add(1, Ordering::Relaxed);
            return Arc::clone(shown);
        }
        let fresh = Arc::new(Shown { holders: AtomicU32::new(1), ..Shown::default() });
        self.streams.rcu(|streams| {
            let mut streams = HashMap::clone(streams);
            streams.insert(stream.to_owned(), Arc::clone(&fresh));
            streams
        });
        fresh
    }

    /// A stream that was shown has no live files any more.
    pub fn withdraw(&self, stream: &str) {
        let holders =
            self.streams.load().get(stream).map(|shown| shown.holders.fetch_sub(1, Ordering::Relaxed));
        assert!(holders.is_some_and(|holders| holders > 0), "what is withdrawn was shown");
        if holders == Some(1) {
            self.streams.rcu(|streams| {
                let mut streams = HashMap::clone(streams);
                streams.remove(stream);
                streams
            });
        }
    }
}

impl Shown {
    /// The stream's files in a format.
    pub fn place(&self, format: Format) -> &Place {
        &self.formats[format as usize]
    }
}

impl Place {
    fn find(&self, name: &str, now: u64) -> Found {
        let on_demand = self.is_on_demand();
        if on_demand {
            self.asked.store(now, Ordering::Relaxed);
        }
        let snapshot = self.snapshot.load();
        // Playlists of a stream that is over give way to those of the next one with its name.
        let is_past = |files: &Snapshot| on_demand && files.has_ended() && name.ends_with(".m3u8");
        match &*snapshot {
            Some(files) if !is_past(files) => files.find(name).cloned().map_or(Found::Nothing, Found::File),
            _ if on_demand => {
                self.wanted.notify_one();
                Found::Soon
            }
            _ => Found::Nothing,
        }
    }

    fn is_on_demand(&self) -> bool {
        self.on_demand.load(Ordering::Relaxed) > 0
    }

    /// Puts other files in the place of those that were there.
    pub fn put(&self, snapshot: &Arc<Snapshot>) {
        self.snapshot.store(Some(Arc::clone(snapshot)));
    }

    /// Removes these files, unless others have taken their place.
    pub fn remove(&self, snapshot: &Arc<Snapshot>) {
        if self.snapshot.load().as_ref().is_some_and(|known| Arc::ptr_eq(known, snapshot)) {
            self.snapshot.store(None);
        }
    }

    /// What is there now.
    pub fn snapshot(&self) -> Option<Arc<Snapshot>> {
        self.snapshot.load_full()
    }

    /// A stream is packaged when a client asks for it, until [`retract`](Self::retract).
    pub fn offer(&self) {
        self.on_demand.fetch_add(1, Ordering::Relaxed);
    }

    /// A stream that was offered is over.
    pub fn retract(&self) {
        let before = self.on_demand.fetch_sub(1, Ordering::Relaxed);
        assert!(before > 0, "only what was offered is retracted");
    }

    /// When a client asked last.
    pub fn asked(&self) -> u64 {
        self.asked.load(Ordering::Relaxed)
    }

    /// Waits for a client that asks for what is not there.
    pub async fn wanted(&self) {
        self.wanted.notified().await;
    }
}
