//! The live files of a stream in one format, as the loops find them.

use std::fmt;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use crate::package::format::Format;
use crate::package::segment::Segment;
use crate::package::shelf::{Place, Shown};
use crate::package::window::{LiveWindow, Pressure, Snapshot};

/// What packaging asks of the process around it, and tells it.
pub(super) trait Surroundings {
    fn pressure(&self) -> Pressure;
    /// The loops' clock, in milliseconds.
    fn now(&self) -> u64;
    /// Clients that wait for this stream ask again.
    fn told(&self, stream: &str);
}

/// See the module.
pub(super) struct Live {
    stream: String,
    format: Format,
    shown: Arc<Shown>,
    window: LiveWindow,
    /// The files that were put there last.
    snapshot: Option<Arc<Snapshot>>,
    surroundings: Rc<dyn Surroundings>,
}

impl fmt::Debug for Live {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Live")
            .field("stream", &self.stream)
            .field("format", &self.format)
            .finish_non_exhaustive()
    }
}

impl Live {
    /// Nothing is there before the first segment.
    pub(super) fn new(
        stream: String,
        shown: Arc<Shown>,
        window: LiveWindow,
        format: Format,
        surroundings: Rc<dyn Surroundings>,
    ) -> Self {
        Self { stream, format, shown, window, snapshot: None, surroundings }
    }

    fn place(&self) -> &Place {
        self.shown.place(self.format)
    }

    /// Whether no client has asked for so many milliseconds.
    pub(super) fn has_lapsed(&self, after: u64) -> bool {
        self.surroundings.now() > self.place().asked().saturating_add(after)
    }

    /// A segment is finished.
    pub(super) fn push(&mut self, segment: Arc<Segment>, now: SystemTime) {
        self.window.push(segment, self.surroundings.pressure());
        let is_first = self.snapshot.is_none();
        self.put(now);
        if is_first {
            self.surroundings.told(&self.stream);
        }
    }

    /// The stream is over: the playlists say so.
    pub(super) fn end(&mut self, now: SystemTime) {
        self.window.end();
        if self.snapshot.is_some() {
            self.put(now);
        }
    }

    fn put(&mut self, now: SystemTime) {
        let snapshot = Arc::new(self.window.snapshot(now));
        self.place().put(&snapshot);
        self.snapshot = Some(snapshot);
    }

    /// How long its files are still needed: those on the disk only until players have read that the stream is over
    /// (`last_word`), others until they are played.
    pub(super) fn remains(&self, last_word: Duration) -> Duration {
        let played = Duration::from_millis(self.window.length()).max(last_word);
        if self.window.is_on_disk() { last_word } else { played }
    }

    /// Removes the files, unless those of a later take are there.
    pub(super) fn leave(self) {
        if let Some(snapshot) = &self.snapshot {
            self.place().remove(snapshot);
        }
    }
}
