//! Fetches files from upstreams into the cache's folder: one fetch however many ask, so many at a time, client
//! addresses in turn, the folder limited in size.
//!
//! A file is written aside under a hidden name and renamed when it is whole, so that no client is served half of it. A
//! fetch that no client waits for any more is dropped from the queue; one that waits for an answer is given up; for a
//! body that is on its way see [`body`].
//!
//! What it deliberately does not do: serve a file while it is still coming, fetch parts of files.

mod body;
mod error;
mod fetcher;
mod index;
mod pending;
mod queue;
mod room;
mod upstream;

use std::cell::RefCell;
use std::net::IpAddr;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rustix::fs::{AtFlags, CWD};
use tracing::{debug, info, warn};

use crate::protocol::http::RelPath;
use crate::server::files::proxy::{Fetched, Order};
use crate::server::health::State;
use crate::server::shared::{Message, Shared};
use error::FetchError;
use fetcher::Fetcher;
use pending::{Askers, Pending};
use queue::Queue;
use room::Room;
use upstream::{Answer, Begun, Upstream};

/// Fetches at a time, and of them those for the clients of one address.
const FETCHES_MAX: usize = 128;
const CLIENT_MAX: usize = 64;
/// Bytes that are removed when the disk is full.
const FULL_FREES: u64 = 64 << 20;
/// How often it is looked whether an upstream is to be probed.
const TICK: Duration = Duration::from_millis(250);

/// Takes orders for all roles that have upstreams.
pub(super) fn start(shared: &Arc<Shared>) {
    for (role, state) in shared.roles.iter().enumerate() {
        if state.files.as_ref().is_some_and(|site| site.proxy.is_some()) {
            let fetcher = Rc::new(Fetcher::new(Arc::clone(shared), role));
            tokio_uring::spawn(Rc::clone(&fetcher).run());
            tokio_uring::spawn(fetcher.watch_upstreams());
        }
    }
}

impl Fetcher {
    fn new(shared: Arc<Shared>, role: usize) -> Self {
        let mut fetcher = Self {
            shared,
            role,
            upstreams: Vec::new(),
            index: RefCell::default(),
            pending: Pending::default(),
            queue: RefCell::new(Queue::new(FETCHES_MAX, CLIENT_MAX)),
            next_part: RefCell::default(),
            reserved: RefCell::default(),
            gone: RefCell::default(),
        };
        let proxy = fetcher.proxy();
        let upstream = |state: &Arc<_>| {
            Rc::new(Upstream::new(Arc::clone(state), Arc::clone(&fetcher.shared), proxy.connect))
        };
        fetcher.upstreams = proxy.upstreams.iter().map(upstream).collect();
        fetcher
    }

    async fn run(self: Rc<Self>) {
        let Some(mut orders) = self.proxy().take_orders() else { return };
        self.read_folder().await;
        while let Some(order) = orders.recv().await {
            match order {
                Order::Used(path) => self.index.borrow_mut().touch(path.as_str()),
                Order::Join { path, client } => {
                    let _ = self.enqueue(&path, &[client]);
                }
                Order::Fetch { path, at, clients, wanted } if !clients.is_empty() => {
                    let is_new = self.pending.add(&path, at, wanted);
                    if !self.enqueue(&path, &clients) && is_new {
                        self.tell(&path, Fetched::Failed);
                    }
                }
                Order::Fetch { .. } => {} // its clients have gone, and it is none's turn
            }
            self.start_fetches();
        }
    }

    /// A file waits for the turns of these clients, unless it is being fetched already; `false`: too many wait.
    fn enqueue(&self, path: &RelPath, clients: &[IpAddr]) -> bool {
        if !self.pending.is_queued(path) {
            return true;
        }
        let mut queue = self.queue.borrow_mut();
        let mut queued = false;
        for client in clients {
            queued |= queue.push(*client, path.clone(), |path| self.pending.is_due(path));
        }
        queued
    }

    /// Begins the fetches that may begin.
    fn start_fetches(self: &Rc<Self>) {
        loop {
            let next = self.queue.borrow_mut().next(|path| self.pending.is_due(path));
            let Some((client, path)) = next else { return };
            self.pending.start(&path);
            tokio_uring::spawn(Rc::clone(self).fetch(client, path));
        }
    }

    /// Learns what an earlier run left in the folder.
    async fn read_folder(&self) {
        let root = self.proxy().cache.clone();
        let found = tokio::task::spawn_blocking(move || {
            let mut found = Vec::new();
            walk(&root, Path::new(""), 0, &mut found);
            found
        });
        let mut found = found.await.unwrap_or_default();
        found.sort_unstable_by_key(|(_, _, changed)| *changed);
        let (files, bytes) = {
            let mut index = self.index.borrow_mut();
            found.iter().for_each(|(path, len, _)| index.add(path, *len, None));
            (index.len(), index.bytes())
        };
        info!(files, bytes, folder = %self.proxy().cache.display(), "fetched files from before are kept");
        let _ = self.make_room(0).await;
    }

    /// Fetches a file and tells those who wait for it.
    async fn fetch(self: Rc<Self>, client: IpAddr, path: RelPath) {
        let outcome = self.try_upstreams(&path).await;
        self.queue.borrow_mut().done(client);
        match outcome {
            Some(outcome) => self.tell(&path, outcome),
            None if self.pending.give_up(&path) => {
                if !self.enqueue(&path, &[client]) {
                    self.tell(&path, Fetched::Failed);
                }
            }
            None => debug!(path = path.as_str(), "a fetch was given up: no client waits for it"),
        }
        self.start_fetches();
    }

    /// Tells the loops that wait for a file what became of it.
    fn tell(&self, path: &RelPath, outcome: Fetched) {
        let posts = &self.shared.posts;
        for at in self.pending.end(path) {
            posts[at].post(Message::Fetched { role: self.role, path: path.clone(), outcome });
        }
    }

    /// The upstreams in the order in which they are asked: those that are down last, since all others may fail.
    fn in_turn(&self) -> Vec<Rc<Upstream>> {
        let is_down = |upstream: &&Rc<Upstream>| upstream.state.health.state() == State::Down;
        let (down, others): (Vec<_>, Vec<_>) = self.upstreams.iter().partition(is_down);
        others.into_iter().chain(down).cloned().collect()
    }

    /// Asks one upstream after the other; `None`: no client waits for the file any more.
    async fn try_upstreams(&self, path: &RelPath) -> Option<Fetched> {
        for upstream in self.in_turn() {
            let mut outcome = self.try_one(&upstream, path).await;
            if outcome.as_ref().is_err_and(FetchError::is_full) && self.free(FULL_FREES).await {
                outcome = self.try_one(&upstream, path).await;
            }
            match outcome {
                Ok(outcome) => return Some(outcome),
                Err(FetchError::Unwanted) => return None,
                Err(error) if error.is_ours() => {
                    warn!(path = path.as_str(), %error, "a file cannot be kept");
                    return Some(Fetched::NoSpace);
                }
                Err(error) => {
                    let upstream = &upstream.state.url;
                    debug!(%upstream, path = path.as_str(), %error, "a fetch failed");
                }
            }
        }
        Some(Fetched::Failed)
    }

    async fn try_one(&self, upstream: &Rc<Upstream>, path: &RelPath) -> Result<Fetched, FetchError> {
        let etag = self.index.borrow().etag(path.as_str());
        let askers = Askers { pending: &self.pending, path };
        let answer = tokio::select! {
            answer = upstream.ask(path, etag.as_deref()) => answer?,
            () = askers.gone() => return Err(FetchError::Unwanted),
        };
        match answer {
            Answer::File(begun) => {
                let part = self.part_of(path);
                let kept = self.keep((upstream, *begun), path, &part).await;
                if kept.is_err() {
                    let _ = tokio_uring::fs::remove_file(&part).await;
                }
                kept.map(|()| Fetched::There)
            }
            Answer::Unchanged => {
                let file = self.path(path.as_str());
                if rustix::fs::utimensat(CWD, file, &body::KEEP, AtFlags::empty()).is_err() {
                    self.index.borrow_mut().remove(path.as_str());
                    return Err(FetchError::Removed);
                }
                self.index.borrow_mut().touch(path.as_str());
                Ok(Fetched::There)
            }
            Answer::Missing => {
                self.remove(path.as_str()).await;
                Ok(Fetched::Missing)
            }
        }
    }

    /// A hidden name beside the file's own.
    fn part_of(&self, path: &RelPath) -> PathBuf {
        let mut next = self.next_part.borrow_mut();
        *next += 1;
        self.path(path.as_str()).with_file_name(format!(".part-{next}"))
    }

    /// Writes a file aside and renames it when it is whole.
    async fn keep(
        &self,
        (upstream, begun): (&Upstream, Begun),
        path: &RelPath,
        part: &Path,
    ) -> Result<(), FetchError> {
        let limit = self.proxy().file_max;
        let (announced, modified, etag) = (begun.announced(), begun.modified(), begun.etag());
        if announced.is_some_and(|len| len > limit) {
            return Err(FetchError::TooLarge { limit });
        }
        if let Some(folder) = part.parent().map(Path::to_owned) {
            let made = tokio::task::spawn_blocking(move || std::fs::create_dir_all(folder)).await;
            made.map_err(std::io::Error::other)??;
        }
        let mut room = Room::of(self, announced.unwrap_or(0)).await?;
        let file = tokio_uring::fs::File::create(part).await?;
        let askers = Askers { pending: &self.pending, path };
        let written = body::write_to(&file, (upstream, begun), limit, &mut room, askers).await;
        file.close().await?;
        let len = written?;
        if let Some(modified) = modified {
            let times = body::times(modified, etag.as_deref());
            rustix::fs::utimensat(CWD, part, &times, AtFlags::empty()).map_err(std::io::Error::from)?;
        }
        self.goes(path.as_str());
        tokio_uring::fs::rename(part, self.path(path.as_str())).await?;
        self.index.borrow_mut().add(path.as_str(), len, etag);
        Ok(())
    }

    /// Probes upstreams that are not up.
    async fn watch_upstreams(self: Rc<Self>) {
        loop {
            for upstream in &self.upstreams {
                tokio_uring::spawn(Rc::clone(upstream).probe());
            }
            tokio::time::sleep(TICK).await;
        }
    }
}

/// Lists the files below a folder, and removes what was never whole.
fn walk(root: &Path, below: &Path, depth: usize, found: &mut Vec<(String, u64, SystemTime)>) {
    const DEPTH_MAX: usize = 40;
    let Ok(entries) = std::fs::read_dir(root.join(below)) else { return };
    for entry in entries.flatten() {
        let (name, Ok(kind)) = (entry.file_name(), entry.file_type()) else { continue };
        let path = below.join(&name);
        if kind.is_dir() && depth < DEPTH_MAX {
            walk(root, &path, depth + 1, found);
        } else if kind.is_file() && name.to_string_lossy().starts_with(".part-") {
            let _ = std::fs::remove_file(root.join(&path));
        } else if let (true, Ok(meta), Some(text)) = (kind.is_file(), entry.metadata(), path.to_str()) {
            let changed = Duration::from_secs(u64::try_from(meta.ctime()).unwrap_or(0));
            found.push((text.to_owned(), meta.len(), SystemTime::UNIX_EPOCH + changed));
        }
    }
}
