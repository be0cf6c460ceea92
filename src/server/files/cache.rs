//! The versions that a loop knows, and who waits for one.
//!
//! Each is believed for a short time; then the next request looks again, and others for the same file wait with
//! it. So a file that grows or is replaced is seen soon, and however many ask, it is opened once. What is not
//! there is remembered as well. The places are limited, and the one that was not asked for since the last round goes
//! first; one that was not asked for within [`IDLE`] goes in any case, so that a deleted file does not keep its disk
//! space.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::net::IpAddr;
use std::rc::Rc;

use super::entry::{Coding, Entry};
use super::proxy::Interest;
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
/// How long a file is known without a request for it.
const IDLE: Millis = 5_000;
/// Places that one sweep looks at.
const SWEPT_MAX: usize = 256;
/// How long a client waits for the newer version of a file that is too old, before it is given the old one.
const STALE_WAIT: Millis = 250;

/// Which file is meant.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(in crate::server) struct Key {
    pub(in crate::server) role: usize,
    pub(in crate::server) path: RelPath,
    /// The file beside it that is compressed so.
    pub(in crate::server) coding: Option<Coding>,
}

/// A client that asks for a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::server) struct Asker {
    pub(in crate::server) sock: Sock,
    /// The address that it counts by.
    pub(in crate::server) address: IpAddr,
}

/// What is known of a file.
#[derive(Debug)]
pub(in crate::server) enum Known {
    /// This.
    Entry(Rc<Entry>),
    /// It is not there.
    Missing,
    /// It is being looked at, by this ticket; the client is told.
    Wait(u64),
    /// It must be looked at now, by this ticket; the client is told.
    Look(u64),
    /// Too many are being looked at, or it could not be opened just now.
    Busy,
    /// No upstream could say.
    Unreachable,
    /// There is one, and it cannot be kept here.
    NoSpace,
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
    /// It is not here, and cannot be kept here.
    NoSpace,
}

#[derive(Debug)]
struct Place {
    finding: Finding,
    fresh_until: Millis,
    /// Asked for since the last round.
    used: bool,
    asked_at: Millis,
    looked_at_by: Option<u64>,
    /// The newer version that its clients waited for last did not come in time.
    overdue: bool,
}

/// A look at a file that is under way.
#[derive(Debug)]
pub(in crate::server) struct Look {
    pub(in crate::server) key: Key,
    pub(in crate::server) stage: Stage,
    /// Open already: its bytes are being loaded, or it is old and a newer one is being fetched.
    pub(in crate::server) file: Option<Rc<OpenFile>>,
    /// Tells the fetcher that clients wait; the order is withdrawn with it.
    pub(in crate::server) interest: Option<Interest>,
    /// The addresses that the fetcher was told.
    pub(in crate::server) told: Vec<IpAddr>,
    /// The clients that wait, in the order in which they came.
    askers: BTreeMap<u64, (Asker, HalfClosed)>,
}

/// Whether a client has sent its FIN.
type HalfClosed = bool;

/// Where a file is being looked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::server) enum Stage {
    /// In the folder that is served.
    Root,
    /// Among the fetched files.
    Cache,
    /// At an upstream.
    Fetching,
    /// Among the fetched files, just now fetched or the old one after all.
    Fetched,
}

impl Look {
    fn new(key: Key) -> Self {
        let (told, askers) = (Vec::new(), BTreeMap::new());
        Self { key, stage: Stage::Root, file: None, interest: None, told, askers }
    }

    /// The addresses of the clients that wait, each once, at most `max`.
    pub(in crate::server) fn addresses(&self, max: usize) -> Vec<IpAddr> {
        let mut found = Vec::new();
        for (asker, _) in self.askers.values() {
            if found.len() == max {
                break;
            }
            if !found.contains(&asker.address) {
                found.push(asker.address);
            }
        }
        found
    }
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
    /// The look that a client waits for, and its place among those who do: a client waits for one.
    waits: HashMap<Sock, (u64, u64)>,
    next_wait: u64,
    /// Looks that wait for a newer version, and until when.
    stale: VecDeque<(Millis, u64)>,
    /// The embedded pages that were asked for.
    pub(in crate::server) pages: HashMap<String, Rc<Entry>>,
}

impl Cache {
    /// A cache of so many places.
    pub(in crate::server) fn new(max: usize) -> Self {
        Self {
            max,
            places: HashMap::new(),
            round: VecDeque::new(),
            looks: HashMap::new(),
            next_ticket: 0,
            waits: HashMap::new(),
            next_wait: 0,
            stale: VecDeque::new(),
            pages: HashMap::new(),
        }
    }

    /// What is known of a file. `asker` is told later if it has to wait.
    pub(in crate::server) fn get(&mut self, key: &Key, asker: Asker, now: Millis) -> Known {
        if let Some(place) = self.places.get_mut(key) {
            (place.used, place.asked_at) = (true, now);
            if let Some(ticket) = place.looked_at_by {
                self.wait(ticket, asker);
                return Known::Wait(ticket);
            }
            if now < place.fresh_until {
                return match &place.finding {
                    Finding::Entry(entry) => Known::Entry(Rc::clone(entry)),
                    Finding::Missing => Known::Missing,
                    Finding::Failed => Known::Busy,
                    Finding::Unreachable => Known::Unreachable,
                    Finding::NoSpace => Known::NoSpace,
                };
            }
        }
        if self.looks.len() >= OPENING_MAX {
            return Known::Busy;
        }
        let ticket = self.next_ticket;
        self.next_ticket += 1;
        self.looks.insert(ticket, Look::new(key.clone()));
        match self.places.get_mut(key) {
            Some(place) => place.looked_at_by = Some(ticket),
            None => {
                self.make_room();
                self.round.push_back(key.clone());
                let place = Place {
                    finding: Finding::Missing,
                    fresh_until: 0,
                    used: false,
                    asked_at: now,
                    looked_at_by: Some(ticket),
                    overdue: false,
                };
                self.places.insert(key.clone(), place);
            }
        }
        self.wait(ticket, asker);
        Known::Look(ticket)
    }

    /// A client waits for a look, and for no other any more.
    fn wait(&mut self, ticket: u64, asker: Asker) {
        if self.waits.get(&asker.sock).is_some_and(|(known, _)| *known == ticket) {
            return;
        }
        self.left(asker.sock);
        let place = self.next_wait;
        self.next_wait += 1;
        self.waits.insert(asker.sock, (ticket, place));
        self.look(ticket).askers.insert(place, (asker, false));
    }

    /// A client waits no more. A look at an upstream that nobody waits for any more is given up.
    pub(in crate::server) fn left(&mut self, sock: Sock) {
        let Some((ticket, place)) = self.waits.remove(&sock) else { return };
        let look = self.look(ticket);
        let known = look.askers.remove(&place);
        debug_assert!(known.is_some(), "who waits is known to the look");
        if look.stage == Stage::Fetching {
            self.give_up_unwanted(ticket);
        }
    }

    /// A client will send no more: it may have hung up. Whether it waits for an upstream.
    pub(in crate::server) fn half_closed(&mut self, sock: Sock) -> bool {
        let Some(&(ticket, place)) = self.waits.get(&sock) else { return false };
        let look = self.look(ticket);
        let (_, half_closed) = look.askers.get_mut(&place).expect("who waits is known to the look");
        *half_closed = true;
        look.stage == Stage::Fetching
    }

    /// A look has to go on at an upstream. Gives the clients that may have hung up: they do not wait for that.
    pub(in crate::server) fn goes_upstream(&mut self, ticket: u64) -> Vec<Sock> {
        let look = self.look(ticket);
        look.stage = Stage::Fetching;
        let mut hung_up = Vec::new();
        look.askers.retain(|_, (asker, half_closed)| {
            if *half_closed {
                hung_up.push(asker.sock);
            }
            !*half_closed
        });
        for sock in &hung_up {
            self.waits.remove(sock);
        }
        hung_up
    }

    /// Gives up a look at an upstream if nobody waits for it; `true` if that was so.
    pub(in crate::server) fn give_up_unwanted(&mut self, ticket: u64) -> bool {
        let look = self.look(ticket);
        assert_eq!(look.stage, Stage::Fetching, "nothing else is under way for this ticket");
        if !look.askers.is_empty() {
            return false;
        }
        let look = self.looks.remove(&ticket).expect("just seen");
        let place = self.places.get_mut(&look.key).expect("a place stays while it is looked at");
        place.looked_at_by = None;
        true
    }

    fn make_room(&mut self) {
        // Twice round at the most: after the first round none counts as used.
        for _ in 0..2 * self.max {
            if self.places.len() < self.max {
                return;
            }
            let Some(key) = self.round.pop_front() else { return };
            let place = self.places.get_mut(&key).expect("each place has its turn");
            if std::mem::take(&mut place.used) || place.looked_at_by.is_some() {
                self.round.push_back(key);
            } else {
                self.places.remove(&key);
            }
        }
    }

    /// Lets go of files that were not asked for within [`IDLE`]; looks at [`SWEPT_MAX`] of them.
    pub(in crate::server) fn sweep(&mut self, now: Millis) {
        for _ in 0..SWEPT_MAX.min(self.round.len()) {
            let Some(key) = self.round.pop_front() else { return };
            let place = self.places.get(&key).expect("each place has its turn");
            if place.looked_at_by.is_some() || now < place.asked_at + IDLE {
                self.round.push_back(key);
            } else {
                self.places.remove(&key);
            }
        }
    }

    /// Lets go of all files that are not being looked at: their space on the disk is needed. What is being sent
    /// stays open until then.
    pub(in crate::server) fn close_all(&mut self) {
        let places = &mut self.places;
        self.round.retain(|key| {
            let stays = places.get(key).is_some_and(|place| place.looked_at_by.is_some());
            if !stays {
                places.remove(key);
            }
            stays
        });
    }

    /// A look that is under way.
    pub(in crate::server) fn look(&mut self, ticket: u64) -> &mut Look {
        self.looks.get_mut(&ticket).expect("a ticket is answered once at each stage")
    }

    /// The look for a file at an upstream.
    pub(in crate::server) fn fetching(&self, role: usize, path: &RelPath) -> Option<u64> {
        let key = Key { role, path: path.clone(), coding: None };
        let ticket = self.places.get(&key)?.looked_at_by?;
        self.looks.get(&ticket).filter(|look| look.stage == Stage::Fetching).map(|_| ticket)
    }

    /// The version that was known before, if there is one.
    pub(in crate::server) fn known(&self, ticket: u64) -> Option<Rc<Entry>> {
        match &self.places.get(&self.looks.get(&ticket)?.key)?.finding {
            Finding::Entry(entry) => Some(Rc::clone(entry)),
            Finding::Missing | Finding::Failed | Finding::Unreachable | Finding::NoSpace => None,
        }
    }

    /// A look has an old version, and waits a short time for a newer one.
    pub(in crate::server) fn wait_for_newer(&mut self, ticket: u64, now: Millis) {
        self.stale.push_back((now + STALE_WAIT, ticket));
    }

    /// A look whose newer version has not come in time. Each is given once.
    pub(in crate::server) fn take_late(&mut self, now: Millis) -> Option<u64> {
        loop {
            let (_, ticket) = self.stale.front().copied().filter(|(until, _)| *until <= now)?;
            self.stale.pop_front();
            let waits = |look: &Look| look.stage == Stage::Fetching && look.file.is_some();
            if self.looks.get(&ticket).is_some_and(waits) {
                return Some(ticket);
            }
        }
    }

    /// Whether the newer version of a file did not come in time when it was waited for last.
    pub(in crate::server) fn is_overdue(&self, ticket: u64) -> bool {
        let look = self.looks.get(&ticket);
        look.and_then(|look| self.places.get(&look.key)).is_some_and(|place| place.overdue)
    }

    /// Notes whether the newer version of a file came in time.
    pub(in crate::server) fn set_overdue(&mut self, ticket: u64, overdue: bool) {
        let look = self.looks.get(&ticket);
        if let Some(place) = look.and_then(|look| self.places.get_mut(&look.key)) {
            place.overdue = overdue;
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
                Finding::Unreachable | Finding::NoSpace => UNREACHABLE_FRESH,
            };
        place.finding = finding;
        let ended = place.looked_at_by.take();
        assert_eq!(ended, Some(ticket), "a place is looked at by one ticket");
        let askers: Vec<Sock> = look.askers.into_values().map(|(asker, _)| asker.sock).collect();
        for sock in &askers {
            self.waits.remove(sock);
        }
        askers
    }
}

#[cfg(test)]
#[path = "cache_tests.rs"]
mod tests;
