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

/// Files that a loop knows at once where descriptors are plenty; each may hold one.
pub(in crate::server) const FILES_MAX: usize = 2048;
/// Files that are being opened at once.
const OPENING_MAX: usize = 1024;
/// How long a playlist is believed to be as it was.
const PLAYLIST_FRESH: Millis = 100;
/// How long any other file is.
const FILE_FRESH: Millis = 1_000;
/// How long a file that was not there is believed not to be.
const MISSING_FRESH: Millis = 100;
/// How long a file is not asked for again that could not be opened although it may be there.
const FAILED_FRESH: Millis = 50;
/// How long upstreams that do not answer are left alone for the sake of a file.
const UNREACHABLE_FRESH: Millis = 500;

/// Which file is meant.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(in crate::server) struct Key {
    pub(in crate::server) role: usize,
    pub(in crate::server) path: RelPath,
    /// The file beside it that is compressed so.
    pub(in crate::server) coding: Option<Coding>,
}

/// What is known of a file.
#[derive(Debug)]
pub(in crate::server) enum Known {
    /// This.
    Entry(Rc<Entry>),
    /// It is not there.
    Missing,
    /// It is being looked at; who asked is told.
    Wait,
    /// It must be looked at now, by this ticket; who asked is told.
    Look(u64),
    /// Too many are being looked at, or it could not be opened just now.
    Busy,
    /// No upstream could say.
    Unreachable,
}

/// What a look found.
#[derive(Clone, Debug)]
pub(in crate::server) enum Finding {
    /// A version.
    Entry(Rc<Entry>),
    /// There is no such file.
    Missing,
    /// It could not be found out: too few descriptors, too little memory, a broken disk.
    Failed,
    /// It is not here, and no upstream could say.
    Unreachable,
}

#[derive(Debug)]
struct Place {
    finding: Finding,
    fresh_until: Millis,
    /// Asked for since the last round.
    used: bool,
    opening: Option<Vec<Sock>>,
}

/// A look at a file that is under way.
#[derive(Debug)]
pub(in crate::server) struct Look {
    pub(in crate::server) key: Key,
    pub(in crate::server) stage: Stage,
    /// Open already: its bytes are being loaded, or it is old and a newer one is being fetched.
    pub(in crate::server) file: Option<Rc<OpenFile>>,
}

/// Where a file is being looked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::server) enum Stage {
    /// In the folder that is served.
    Root,
    /// Among the fetched files.
    Cache,
    /// At an upstream.
    Fetching,
    /// Among the fetched files, just now fetched.
    Fetched,
}

/// What a loop knows of files.
#[derive(Debug)]
pub(in crate::server) struct Cache {
    max: usize,
    places: HashMap<Key, Place>,
    /// The places in the order in which they may go.
    round: VecDeque<Key>,
    looks: HashMap<u64, Look>,
    next_ticket: u64,
    /// The embedded pages that were asked for.
    pub(in crate::server) pages: HashMap<String, Rc<Entry>>,
}

impl Cache {
    /// A cache of so many places.
    pub(in crate::server) fn new(max: usize) -> Self {
        let (places, looks, pages) = (HashMap::new(), HashMap::new(), HashMap::new());
        Self { max, places, round: VecDeque::new(), looks, next_ticket: 0, pages }
    }

    /// What is known of a file. `asker` is told later if it has to wait.
    pub(in crate::server) fn get(&mut self, key: &Key, asker: Sock, now: Millis) -> Known {
        if let Some(place) = self.places.get_mut(key) {
            place.used = true;
            if let Some(waiting) = &mut place.opening {
                waiting.push(asker);
                return Known::Wait;
            }
            if now < place.fresh_until {
                return match &place.finding {
                    Finding::Entry(entry) => Known::Entry(Rc::clone(entry)),
                    Finding::Missing => Known::Missing,
                    Finding::Failed => Known::Busy,
                    Finding::Unreachable => Known::Unreachable,
                };
            }
        }
        if self.looks.len() >= OPENING_MAX {
            return Known::Busy;
        }
        let ticket = self.next_ticket;
        self.next_ticket += 1;
        self.looks.insert(ticket, Look { key: key.clone(), stage: Stage::Root, file: None });
        let waiting = Some(vec![asker]);
        match self.places.get_mut(key) {
            Some(place) => place.opening = waiting,
            None => {
                self.make_room();
                self.round.push_back(key.clone());
                let place =
                    Place { finding: Finding::Missing, fresh_until: 0, used: false, opening: waiting };
                self.places.insert(key.clone(), place);
            }
        }
        Known::Look(ticket)
    }

    fn make_room(&mut self) {
        // Twice round at the most: behind the first round nobody counts as used.
        for _ in 0..2 * self.max {
            if self.places.len() < self.max {
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
    pub(in crate::server) fn look(&mut self, ticket: u64) -> &mut Look {
        self.looks.get_mut(&ticket).expect("a ticket is answered once at each stage")
    }

    /// Those who look for a file at an upstream.
    pub(in crate::server) fn fetching(&self, role: usize, path: &RelPath) -> Option<u64> {
        let fetching = |(_, look): &(&u64, &Look)| {
            look.stage == Stage::Fetching && look.key.role == role && look.key.path == *path
        };
        self.looks.iter().find(fetching).map(|(ticket, _)| *ticket)
    }

    /// The version that was known before, if there is one.
    pub(in crate::server) fn known(&self, ticket: u64) -> Option<Rc<Entry>> {
        match &self.places.get(&self.looks.get(&ticket)?.key)?.finding {
            Finding::Entry(entry) => Some(Rc::clone(entry)),
            Finding::Missing | Finding::Failed | Finding::Unreachable => None,
        }
    }

    /// A look is over; gives those who waited for it.
    pub(in crate::server) fn found(&mut self, ticket: u64, finding: Finding, now: Millis) -> Vec<Sock> {
        let look = self.looks.remove(&ticket).expect("a ticket is answered once at each stage");
        let place = self.places.get_mut(&look.key).expect("a place stays while it is looked at");
        place.fresh_until = now
            + match &finding {
                Finding::Entry(entry) if entry.kind == FileKind::Playlist => PLAYLIST_FRESH,
                Finding::Entry(_) => FILE_FRESH,
                Finding::Missing => MISSING_FRESH,
                Finding::Failed => FAILED_FRESH,
                Finding::Unreachable => UNREACHABLE_FRESH,
            };
        place.finding = finding;
        place.opening.take().expect("it was being looked at")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(name: &str) -> Key {
        Key { role: 0, path: RelPath::parse(&format!("/{name}")).unwrap(), coding: None }
    }

    fn sock(index: u32) -> Sock {
        Sock { index, generation: 0 }
    }

    fn look(cache: &mut Cache, name: &str, now: Millis) -> u64 {
        match cache.get(&key(name), sock(0), now) {
            Known::Look(ticket) => ticket,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn one_looks_and_the_others_wait() {
        let mut cache = Cache::new(10);
        let ticket = look(&mut cache, "a", 0);
        assert!(matches!(cache.get(&key("a"), sock(1), 0), Known::Wait));
        assert!(matches!(cache.get(&key("a"), sock(2), 5), Known::Wait));
        assert_eq!(cache.found(ticket, Finding::Missing, 10), [sock(0), sock(1), sock(2)]);
        assert!(matches!(cache.get(&key("a"), sock(1), 10 + MISSING_FRESH - 1), Known::Missing));
        assert!(matches!(cache.get(&key("a"), sock(1), 10 + MISSING_FRESH), Known::Look(_)));
    }

    #[test]
    fn places_are_bounded_and_the_used_ones_stay() {
        let mut cache = Cache::new(10);
        for round in 0..100 {
            let now = round * 10;
            let ticket = look(&mut cache, &format!("other{round}"), now);
            cache.found(ticket, Finding::Missing, now);
            if let Known::Look(ticket) = cache.get(&key("dear"), sock(0), now) {
                assert!(round == 0 || round * 10 % MISSING_FRESH == 0, "forgotten in round {round}");
                cache.found(ticket, Finding::Missing, now);
            }
            assert!(cache.places.len() <= 10 && cache.round.len() == cache.places.len());
        }
        // Those that are being looked at have no room to give.
        for name in 0..20 {
            look(&mut cache, &format!("busy{name}"), 10_000);
        }
        assert!(matches!(cache.get(&key("busy0"), sock(1), 10_000), Known::Wait));
    }

    #[test]
    fn looks_are_bounded() {
        let mut cache = Cache::new(10);
        for name in 0..OPENING_MAX {
            look(&mut cache, &name.to_string(), 0);
        }
        assert!(matches!(cache.get(&key("more"), sock(0), 0), Known::Busy));
    }
}
