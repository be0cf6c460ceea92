//! Files that come from an upstream: what a loop asks the fetcher on the control thread, and what it is told.
//!
//! Fetched files lie in a folder of their own and are served from there like any other. How old one is follows
//! from when its inode changed last, so it holds across a restart: the fetcher touches what the upstream says is
//! still good.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::mpsc::{Receiver, Sender, channel};

use crate::config::{FileGateway, Upstream};
use crate::protocol::http::{FileKind, RelPath};
use crate::uring::Millis;
use crate::uring::files::Folder;

/// Orders that may wait for the fetcher.
const ORDERS_MAX: usize = 4096;
/// How long what is neither playlist nor segment is believed, in milliseconds.
const OTHER_LIFE: Millis = 10_000;

/// What a loop tells the fetcher.
#[derive(Debug)]
pub enum Order {
    /// A file is wanted, or wanted anew; the loop of that index is told.
    Fetch {
        /// Which.
        path: RelPath,
        /// The loop.
        at: usize,
    },
    /// A file was asked for: others go first.
    Used(RelPath),
}

/// What became of a fetch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fetched {
    /// The file is there, as new as can be.
    There,
    /// The upstream has no such file.
    Missing,
    /// No upstream could say.
    Failed,
}

/// A role's way to its upstreams.
#[derive(Debug)]
pub struct Proxy {
    /// In order of preference.
    pub upstreams: Vec<Upstream>,
    /// The folder of fetched files.
    pub cache: PathBuf,
    /// Bytes that it may hold.
    pub cache_size: u64,
    /// The largest file that is fetched, in bytes.
    pub file_max: u64,
    pub(in crate::server) folder: Arc<Folder>,
    playlist_life: Millis,
    stale: Millis,
    orders: Sender<Order>,
    /// For the fetcher, which takes it once.
    waiting: Mutex<Option<Receiver<Order>>>,
}

/// What may be done with a fetched file of some age.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::server) enum Age {
    /// Serve it.
    Fresh,
    /// Serve it and fetch it anew.
    Aging,
    /// Fetch it anew, and serve it only if that fails.
    Stale,
    /// Do not serve it.
    Dead,
}

impl Proxy {
    /// The upstreams of a file gateway; `None`: it has none.
    ///
    /// # Errors
    /// When the cache's folder can neither be opened nor made.
    pub(in crate::server) fn new(config: &FileGateway) -> std::io::Result<Option<Self>> {
        if config.upstream.is_empty() {
            return Ok(None);
        }
        std::fs::create_dir_all(&config.cache)?;
        let (orders, waiting) = channel(ORDERS_MAX);
        Ok(Some(Self {
            upstreams: config.upstream.clone(),
            cache: config.cache.clone(),
            cache_size: config.cache_size as u64,
            file_max: config.cache_file as u64,
            folder: Folder::open(&config.cache)?,
            playlist_life: crate::server::millis::millis(config.playlist_life),
            stale: crate::server::millis::millis(config.stale),
            orders,
            waiting: Mutex::new(Some(waiting)),
        }))
    }

    /// The orders, for the fetcher.
    pub fn take_orders(&self) -> Option<Receiver<Order>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// Gives an order; `false` if too many wait.
    #[must_use]
    pub(in crate::server) fn order(&self, order: Order) -> bool {
        self.orders.try_send(order).is_ok()
    }

    /// What may be done with a file of that age, in milliseconds.
    pub(in crate::server) fn age(&self, kind: FileKind, age: Millis) -> Age {
        let life = match kind {
            FileKind::Segment => return Age::Fresh,
            FileKind::Playlist => self.playlist_life,
            FileKind::Recording | FileKind::Page | FileKind::Other => OTHER_LIFE,
        };
        if age < life {
            Age::Fresh
        } else if age < life.saturating_mul(2) {
            Age::Aging
        } else if age < life.saturating_add(self.stale) {
            Age::Stale
        } else {
            Age::Dead
        }
    }
}
