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
//! | `transfer` | answers on their way, a slice at a time and all in turn |
//!
//! What it deliberately does not do: list folders, follow links out of the folder, several ranges in one answer.

mod answer;
mod cache;
mod client;
mod entry;
mod library;
mod lookup;
mod site;
mod transfer;

use std::collections::VecDeque;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

pub(super) use client::Client;
pub use site::{Site, refresh};

use crate::protocol::http::date::format_date;
use crate::uring::Sock;

/// What a loop keeps for all its clients.
#[derive(Debug, Default)]
pub(super) struct Files {
    cache: cache::Cache,
    /// Clients whose answer can go on.
    ready: VecDeque<Sock>,
    date: Date,
}

impl Files {
    /// Whether somebody can be sent to at once.
    pub(super) fn is_ready(&self) -> bool {
        !self.ready.is_empty()
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
        let second = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO).as_secs();
        if second != self.second || self.text.is_empty() {
            *self = Self { second, text: format_date(second) };
        }
        &self.text
    }
}
