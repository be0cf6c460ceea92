//! What the fetches of a role share.

use std::cell::RefCell;
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use super::index::Index;
use super::pending::Pending;
use super::queue::Queue;
use super::upstream::Upstream;
use crate::server::files::open_set::Identity;
use crate::server::files::proxy::Proxy;
use crate::server::shared::Shared;

/// See the module.
pub(super) struct Fetcher {
    pub(super) shared: Arc<Shared>,
    pub(super) role: usize,
    pub(super) upstreams: Vec<Rc<Upstream>>,
    pub(super) index: RefCell<Index>,
    pub(super) pending: Pending,
    pub(super) queue: RefCell<Queue>,
    pub(super) next_part: RefCell<u64>,
    /// Bytes that parts under way may take.
    pub(super) reserved: RefCell<u64>,
    /// Removed files that may still be open.
    pub(super) gone: RefCell<Vec<Gone>>,
}

/// A removed file that may still be open.
#[derive(Debug)]
pub(super) struct Gone {
    pub(super) identity: Identity,
    pub(super) len: u64,
    pub(super) at: Instant,
}

impl Fetcher {
    pub(super) fn proxy(&self) -> &Proxy {
        let site = self.shared.roles[self.role].files.as_ref();
        site.and_then(|site| site.proxy.as_ref()).expect("started for a role that has one")
    }

    pub(super) fn path(&self, path: &str) -> PathBuf {
        self.proxy().cache.join(path)
    }
}
