//! Fetches files from upstreams into the cache's folder: one fetch however many ask, so many at a time, the folder
//! bounded.
//!
//! A file is written aside under a hidden name and renamed when it is whole, so that nobody is served half of it.
//! What it deliberately does not do: serve a file while it is still coming, fetch parts of files.

mod index;
mod request;

use std::cell::RefCell;
use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rustix::fs::{AtFlags, CWD};
use tokio::sync::Semaphore;
use tracing::{debug, info, warn};

use crate::protocol::http::RelPath;
use crate::server::files::proxy::{Fetched, Order, Proxy};
use crate::server::shared::{Message, Shared};
use index::Index;
use request::{Answer, Upstream};

/// Fetches at a time.
const FETCHES_MAX: usize = 64;

/// What the fetches of a role share.
struct Fetcher {
    shared: Arc<Shared>,
    role: usize,
    index: RefCell<Index>,
    /// The loops that wait for a file that is being fetched.
    waiting: RefCell<HashMap<RelPath, Vec<usize>>>,
    slots: Semaphore,
    next_part: RefCell<u64>,
}

/// Takes orders for all roles that have upstreams.
pub(super) fn start(shared: &Arc<Shared>) {
    for (role, state) in shared.roles.iter().enumerate() {
        if state.files.as_ref().is_some_and(|site| site.proxy.is_some()) {
            tokio_uring::spawn(run(Arc::clone(shared), role));
        }
    }
}

async fn run(shared: Arc<Shared>, role: usize) {
    let fetcher = Rc::new(Fetcher {
        shared,
        role,
        index: RefCell::default(),
        waiting: RefCell::default(),
        slots: Semaphore::new(FETCHES_MAX),
        next_part: RefCell::default(),
    });
    let Some(mut orders) = fetcher.proxy().take_orders() else { return };
    fetcher.read_folder().await;
    while let Some(order) = orders.recv().await {
        match order {
            Order::Used(path) => fetcher.index.borrow_mut().touch(path.as_str()),
            Order::Fetch { path, at } => match fetcher.waiting.borrow_mut().entry(path) {
                Entry::Occupied(mut waiting) => waiting.get_mut().push(at),
                Entry::Vacant(place) => {
                    let path = place.key().clone();
                    place.insert(vec![at]);
                    tokio_uring::spawn(Rc::clone(&fetcher).fetch(path));
                }
            },
        }
    }
}

impl Fetcher {
    fn proxy(&self) -> &Proxy {
        let site = self.shared.roles[self.role].files.as_ref();
        site.and_then(|site| site.proxy.as_ref()).expect("started for a role that has one")
    }

    fn path(&self, path: &str) -> PathBuf {
        self.proxy().cache.join(path)
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
        self.make_room(0).await;
    }

    /// Fetches a file and tells those who wait for it.
    async fn fetch(self: Rc<Self>, path: RelPath) {
        let slot = self.slots.acquire().await;
        let outcome = self.try_upstreams(&path).await;
        drop(slot);
        let loops = self.waiting.borrow_mut().remove(&path).unwrap_or_default();
        let posts = &self.shared.posts;
        let mut told = vec![false; posts.len()];
        for at in loops {
            if !std::mem::replace(&mut told[at], true) {
                posts[at].post(Message::Fetched { role: self.role, path: path.clone(), outcome });
            }
        }
    }

    async fn try_upstreams(&self, path: &RelPath) -> Fetched {
        for upstream in &self.proxy().upstreams {
            match self.try_one(&Upstream::new(upstream), path).await {
                Ok(outcome) => return outcome,
                Err(error) => debug!(%upstream, path = path.as_str(), error, "a fetch failed"),
            }
        }
        Fetched::Failed
    }

    async fn try_one(&self, upstream: &Upstream<'_>, path: &RelPath) -> Result<Fetched, String> {
        let etag = self.index.borrow().etag(path.as_str());
        match upstream.ask(path, etag.as_deref()).await? {
            Answer::File(body) => {
                let part = self.part_of(path);
                let kept = self.keep(*body, path, &part).await;
                if kept.is_err() {
                    let _ = tokio_uring::fs::remove_file(&part).await;
                }
                kept.map(|()| Fetched::There)
            }
            Answer::Unchanged => {
                let file = self.path(path.as_str());
                if rustix::fs::utimensat(CWD, file, &request::KEEP, AtFlags::empty()).is_err() {
                    self.index.borrow_mut().remove(path.as_str());
                    return Err("somebody removed the file; it is fetched whole the next time".to_owned());
                }
                self.index.borrow_mut().touch(path.as_str());
                Ok(Fetched::There)
            }
            Answer::Missing => {
                if self.index.borrow_mut().remove(path.as_str()) {
                    let _ = tokio_uring::fs::remove_file(self.path(path.as_str())).await;
                }
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
    async fn keep(&self, mut body: request::Body, path: &RelPath, part: &Path) -> Result<(), String> {
        let limit = self.proxy().file_max;
        if body.announced.is_some_and(|len| len > limit) {
            return Err(format!("the file is larger than {limit} bytes"));
        }
        if let Some(folder) = part.parent().map(Path::to_owned) {
            let made = tokio::task::spawn_blocking(move || std::fs::create_dir_all(folder)).await;
            made.map_err(|error| error.to_string())?.map_err(|error| error.to_string())?;
        }
        self.make_room(body.announced.unwrap_or(0)).await;
        let file = tokio_uring::fs::File::create(part).await.map_err(|error| error.to_string())?;
        let written = body.write_to(&file, limit).await;
        file.close().await.map_err(|error| error.to_string())?;
        let len = written?;
        if let Some(modified) = body.modified {
            let times = request::times(modified, body.etag.as_deref());
            rustix::fs::utimensat(CWD, part, &times, AtFlags::empty()).map_err(|error| error.to_string())?;
        }
        tokio_uring::fs::rename(part, self.path(path.as_str())).await.map_err(|error| error.to_string())?;
        self.index.borrow_mut().add(path.as_str(), len, body.etag.take());
        self.make_room(0).await;
        Ok(())
    }

    /// Removes the files that were not asked for the longest until the folder and `more` bytes are in bounds.
    async fn make_room(&self, more: u64) {
        let bound = self.proxy().cache_size.saturating_sub(more);
        loop {
            let Some(path) = self.index.borrow_mut().take_oldest_above(bound) else { return };
            if let Err(error) = tokio_uring::fs::remove_file(self.path(&path)).await {
                warn!(path, %error, "cannot remove a fetched file");
            }
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
