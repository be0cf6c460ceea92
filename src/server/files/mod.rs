//! Files over HTTP: one implementation behind the file gateway and the origin's web listener.
//!
//! | file | what lives there |
//! |---|---|
//! | `site` | what a role serves: its folder, and what of it |
//! | `library` | the recordings in that folder, for the pages |
//! | `entry` | one version of a file, with all that answers to it have in common |
//! | `cache` | the versions that a loop knows, and who waits for one |
//! | `answer` | from a request and an entry to a head and a stretch |
//! | `client` | a connection: its requests, one after the other |
//! | `lookup` | from a path to an entry, through the cache and the ring |
//! | `proxy` | files that come from an upstream |
//! | `counters`, `audience` | what is counted: answers, and who watches by playlists and segments |
//! | `log`, `writer` | the access log: lines, and the thread that writes them |
//! | `transfer` | answers on their way, a slice at a time and all in turn |
//!
//! What it deliberately does not do: list folders, follow links out of the folder, several ranges in one answer.

mod answer;
mod audience;
mod cache;
mod client;
pub mod counters;
mod entry;
mod library;
mod log;
mod lookup;
pub mod proxy;
mod site;
mod transfer;
pub mod writer;

use std::collections::{HashMap, VecDeque};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

pub use audience::{Attendance, Audience};
pub(super) use cache::FILES_MAX;
pub(super) use client::Client;
pub use site::{Site, list_recordings, refresh};

use super::shared::Shared;
use super::worker::Worker;
use crate::protocol::http::date::format_date;
use crate::uring::{Engine, Sock};

/// What a loop keeps for all its clients.
#[derive(Debug)]
pub(super) struct Files {
    cache: cache::Cache,
    /// Clients whose answer can go on.
    ready: VecDeque<Sock>,
    date: Date,
    log: Option<log::Log>,
    /// By role.
    notes: HashMap<usize, audience::Notes>,
    cold_reads: u64,
}

impl Files {
    /// A loop's part: it knows so many files at once.
    pub(super) fn new(shared: &Shared, files_max: usize) -> Self {
        let config = &shared.config.access_log;
        let log = shared.access_log.get().cloned();
        Self {
            cache: cache::Cache::new(files_max),
            ready: VecDeque::new(),
            date: Date::default(),
            log: log.map(|queue| log::Log::new(queue, config.format, config.sample)),
            notes: HashMap::new(),
            cold_reads: 0,
        }
    }

    /// Whether somebody can be sent to at once.
    pub(super) fn is_ready(&self) -> bool {
        !self.ready.is_empty()
    }
}

impl<E: Engine> Worker<E> {
    /// Hands over what was gathered: lines of the access log, notes of viewers, counts.
    pub(super) fn sweep_files(&mut self) {
        let now = self.engine.now();
        for (role, notes) in &mut self.files.notes {
            if let Some(site) = &self.shared.roles[*role].files {
                notes.hand_over(&site.audience, now);
            }
        }
        let cold = self.engine.cold_reads();
        let Some(role) = self.shared.roles.iter().position(|role| role.files.is_some()) else { return };
        let counters = &self.counters[role].files;
        counters.cold_reads.add(cold - std::mem::replace(&mut self.files.cold_reads, cold));
        if let Some(log) = &mut self.files.log {
            counters.lost_lines.add(log.flush());
        }
    }
}

/// The time of day as answers carry it, written once a second.
#[derive(Debug, Default)]
struct Date {
    second: u64,
    text: String,
}

impl Date {
    fn now(&mut self) -> &str {
        let second = self.second();
        if second != self.second || self.text.is_empty() {
            *self = Self { second, text: format_date(second) };
        }
        &self.text
    }

    /// Seconds since 1970.
    fn second(&self) -> u64 {
        SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO).as_secs()
    }
}
