//! The versions that a loop knows, and who waits for one.
//!
//! Each is believed for a short time; then the next request looks again, and others for the same file wait with
//! it. So a file that grows or is replaced is seen soon, and however many ask, it is opened once. What is not
//! there is remembered as well. The places are bounded; one that was not asked for since the last round goes
//! first.

use std::collections::{HashMap, VecDeque};
use std::rc::Rc;

use super::entry::{Coding, Entry};
use crate::protocol::http::{FileKind, RelPath};
use crate::uring::files::OpenFile;
use crate::uring::{Millis, Sock};

/// Files that a loop knows at once; each may hold a descriptor.
pub(in crate::server) const FILES_MAX: usize = 2048;
/// Files that are being opened at once.
const OPENING_MAX: usize = 1024;
/// How long a playlist is believed to be as it was.
const PLAYLIST_FRESH: Millis = 100;
/// How long any other file is.
const FILE_FRESH: Millis = 1_000;
/// How long a file that was not there is believed not to be.
const MISSING_FRESH: Millis = 100;

/// Which file is meant.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Key {
    pub(super) role: usize,
    pub(super) path: RelPath,
    /// The file beside it that is compressed so.
    pub(super) coding: Option<Coding>,
}

/// What is known of a file.
#[derive(Debug)]
pub(super) enum Known {
    /// This.
    Entry(Rc<Entry>),
    /// It is not there.
    Missing,
    /// It is being looked at; who asked is told.
    Wait,
    /// It must be looked at now, by this ticket; who asked is told.
    Look(u64),
    /// Too many are being looked at.
    Busy,
}

#[derive(Debug)]
struct Place {
    entry: Option<Rc<Entry>>,
    fresh_until: Millis,
    /// Asked for since the last round.
    used: bool,
    opening: Option<Vec<Sock>>,
}

/// A look at a file that is under way.
#[derive(Debug)]
pub(super) struct Look {
    pub(super) key: Key,
    /// Open already; its bytes are being loaded.
    pub(super) file: Option<Rc<OpenFile>>,
}

/// What a loop knows of files.
#[derive(Debug, Default)]
pub(super) struct Cache {
    places: HashMap<Key, Place>,
    /// The places in the order in which they may go.
    round: VecDeque<Key>,
    looks: HashMap<u64, Look>,
    next_ticket: u64,
    /// The embedded pages that were asked for.
    pub(super) pages: HashMap<String, Rc<Entry>>,
}

impl Cache {
    /// What is known of a file. `asker` is told later if it has to wait.
    pub(super) fn get(&mut self, key: &Key, asker: Sock, now: Millis) -> Known {
        if let Some(place) = self.places.get_mut(key) {
            place.used = true;
            if let Some(waiting) = &mut place.opening {
                waiting.push(asker);
                return Known::Wait;
            }
            if now < place.fresh_until {
                return place.entry.clone().map_or(Known::Missing, Known::Entry);
            }
        }
        if self.looks.len() >= OPENING_MAX {
            return Known::Busy;
        }
        let ticket = self.next_ticket;
        self.next_ticket += 1;
        self.looks.insert(ticket, Look { key: key.clone(), file: None });
        let waiting = Some(vec![asker]);
        match self.places.get_mut(key) {
            Some(place) => place.opening = waiting,
            None => {
                self.make_room();
                self.round.push_back(key.clone());
                let place = Place { entry: None, fresh_until: 0, used: false, opening: waiting };
                self.places.insert(key.clone(), place);
            }
        }
        Known::Look(ticket)
    }

    fn make_room(&mut self) {
        // Twice round at the most: behind the first round nobody counts as used.
        for _ in 0..2 * FILES_MAX {
            if self.places.len() < FILES_MAX {
                return;
            }
            let Some(key) = self.round.pop_front() else { return };
            let place = self.places.get_mut(&key).expect("each place has its turn");
            if std::mem::take(&mut place.used) || place.opening.is_some() {
                self.round.push_back(key);
            } else {
                self.places.remove(&key);
            }
        }
    }

    /// A look that is under way.
    pub(super) fn look(&mut self, ticket: u64) -> &mut Look {
        self.looks.get_mut(&ticket).expect("a ticket is answered once at each stage")
    }

    /// The version that was known before, if the file that was found is the same.
    pub(super) fn unchanged(&self, ticket: u64, file: &OpenFile) -> Option<Rc<Entry>> {
        let place = self.places.get(&self.looks.get(&ticket)?.key)?;
        place.entry.clone().filter(|entry| entry.is_still(file))
    }

    /// A look is over; gives those who waited for it.
    pub(super) fn found(&mut self, ticket: u64, entry: Option<Rc<Entry>>, now: Millis) -> Vec<Sock> {
        let look = self.looks.remove(&ticket).expect("a ticket is answered once at each stage");
        let place = self.places.get_mut(&look.key).expect("a place stays while it is looked at");
        place.fresh_until = now
            + match &entry {
                Some(entry) if entry.kind == FileKind::Playlist => PLAYLIST_FRESH,
                Some(_) => FILE_FRESH,
                None => MISSING_FRESH,
            };
        place.entry = entry;
        place.opening.take().expect("it was being looked at")
    }
}
