//! Files that come from an upstream: what a loop asks the fetcher on the control thread, and what it is told.
//!
//! Fetched files lie in a folder of their own and are served from there like any other. How old one is follows
//! from when its inode changed last, so it holds across a restart: the fetcher touches what the upstream says is
//! still good.

use std::convert::Infallible;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::mpsc::{Receiver, Sender, channel};
use tokio::sync::oneshot;

use super::open_set::OpenSet;
use crate::config::{FileGateway, Upstream};
use crate::protocol::http::{FileKind, RelPath};
use crate::server::health::Health;
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
        /// The addresses that the clients count by.
        clients: Vec<IpAddr>,
        /// Ends when no client of the loop waits any more; `None`: none waits, and it is fetched all the same.
        wanted: Option<Wanted>,
    },
    /// A client of another address waits for a file that is wanted already.
    Join {
        /// Which.
        path: RelPath,
        /// The address that it counts by.
        client: IpAddr,
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
    /// There is one, and it cannot be kept here: it is too large, or the folder has no space.
    NoSpace,
}

/// The loop's half of a wish: a loop holds it as long as one of its clients waits, and the order goes with it.
#[derive(Debug)]
pub(in crate::server) struct Interest {
    _held: oneshot::Sender<Infallible>,
}

/// The fetcher's half of a wish: it is closed when no client of the loop waits any more.
pub type Wanted = oneshot::Receiver<Infallible>;

impl Interest {
    /// Both halves of a wish.
    pub(in crate::server) fn new() -> (Self, Wanted) {
        let (held, wanted) = oneshot::channel();
        (Self { _held: held }, wanted)
    }
}

/// An upstream, and what is known of it.
#[derive(Debug)]
pub struct FileUpstream {
    /// As configured.
    pub url: Upstream,
    /// Whether it answers.
    pub health: Health,
}

/// A role's way to its upstreams.
#[derive(Debug)]
pub struct Proxy {
    /// In order of preference.
    pub upstreams: Vec<Arc<FileUpstream>>,
    /// How long a connection to one may take.
    pub connect: Duration,
    /// The folder of fetched files.
    pub cache: PathBuf,
    /// Bytes that it may hold.
    pub cache_size: u64,
    /// The largest file that is fetched, in bytes.
    pub file_max: u64,
    pub(in crate::server) folder: Arc<Folder>,
    /// The fetched files that loops have open.
    pub open: Arc<OpenSet>,
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
    /// Fetch it anew, and serve it if that fails or takes longer than a moment.
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
        let upstreams = config
            .upstream
            .iter()
            .map(|url| Arc::new(FileUpstream { url: url.clone(), health: Health::default() }));
        Ok(Some(Self {
            upstreams: upstreams.collect(),
            connect: config.connect,
            cache: config.cache.clone(),
            cache_size: config.cache_size as u64,
            file_max: config.cache_file as u64,
            folder: Folder::open(&config.cache)?,
            open: Arc::default(),
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

/// Whether a path may be fetched from an upstream. Live streams and lists have no end or are not files: the path of
/// a stream is `….flv`, except below the folder of FLV recordings.
pub(in crate::server) fn is_fetchable(path: &RelPath) -> bool {
    let is_live = path.extension().eq_ignore_ascii_case("flv") && path.first() != "flv";
    !is_live && path.first() != "api" && !path.is_challenge()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn live_streams_and_lists_are_not_fetched() {
        let fetched = |path| is_fetchable(&RelPath::parse(path).unwrap());
        for path in ["/hls/live/a/index.m3u8", "/flv/live/a/index.flv", "/mp4/a/b.mp4", "/a.txt", "/apis/x"] {
            assert!(fetched(path), "{path}");
        }
        for path in [
            "/live/a.flv",
            "/a.FLV",
            "/hls/a.flv",
            "/api/v1/viewers",
            "/api",
            "/flv.flv",
            "/.well-known/acme-challenge/x",
        ] {
            assert!(!fetched(path), "{path}");
        }
    }

    #[test]
    fn a_wish_ends_with_the_loops_half() {
        let (interest, mut wanted) = Interest::new();
        assert_eq!(wanted.try_recv(), Err(oneshot::error::TryRecvError::Empty));
        drop(interest);
        assert_eq!(wanted.try_recv(), Err(oneshot::error::TryRecvError::Closed));
    }
}
