//! What a loop keeps for all its HTTP clients: the queue of file transfers, the date, the access log.

use std::collections::VecDeque;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::access_log::{Log, Record};
use crate::protocol::http::date::format_date;
use crate::server::shared::Shared;
use crate::uring::Sock;

/// See the module.
#[derive(Debug)]
pub(in crate::server) struct Responder {
    /// Clients whose file transfer can continue.
    ready: VecDeque<Sock>,
    /// Clients that wait for a list to be made.
    listing: Vec<Sock>,
    pub(super) date: Date,
    pub(super) log: Option<Log>,
}

impl Responder {
    /// The responder of a loop.
    pub(in crate::server) fn new(shared: &Shared) -> Self {
        let config = &shared.config.access_log;
        let queue = shared.access_log.get().cloned();
        let log = queue.map(|queue| Log::new(queue, config.format, config.sample));
        Self { ready: VecDeque::new(), listing: Vec::new(), date: Date::default(), log }
    }

    /// Whether a client waits for the next slice of its file.
    pub(in crate::server) fn is_ready(&self) -> bool {
        !self.ready.is_empty()
    }

    /// Queues a client for the next slice of its file.
    pub(super) fn wait_for_turn(&mut self, client: Sock) {
        self.ready.push_back(client);
    }

    /// The next client in the queue.
    pub(in crate::server) fn next_turn(&mut self) -> Option<Sock> {
        self.ready.pop_front()
    }

    /// Adds a client that waits for a list from the control thread.
    pub(super) fn wait_for_listing(&mut self, client: Sock) {
        self.listing.push(client);
    }

    /// Takes the clients that wait for a list, once it was made.
    pub(in crate::server) fn take_listing(&mut self) -> Vec<Sock> {
        std::mem::take(&mut self.listing)
    }

    /// Whether the next request is to be logged.
    pub(super) fn wants_record(&mut self) -> bool {
        self.log.as_mut().is_some_and(Log::wants)
    }

    /// Writes a line; returns the number of lines that were lost.
    pub(super) fn write(&mut self, record: &Record, outcome: super::access_log::Outcome) -> u64 {
        let Some(log) = &mut self.log else { return 0 };
        log.write(record, outcome, self.date.second());
        if log.is_full() { log.flush() } else { 0 }
    }

    /// Hands over the buffered lines; returns the number of those that were lost.
    pub(in crate::server) fn flush_log(&mut self) -> u64 {
        self.log.as_mut().map_or(0, Log::flush)
    }
}

/// The `Date` field's value, formatted once a second.
#[derive(Debug, Default)]
pub(super) struct Date {
    second: u64,
    text: String,
}

impl Date {
    pub(super) fn now(&mut self) -> &str {
        let second = self.second();
        if second != self.second || self.text.is_empty() {
            *self = Self { second, text: format_date(second) };
        }
        &self.text
    }

    /// Seconds since 1970.
    pub(super) fn second(&self) -> u64 {
        SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO).as_secs()
    }
}
