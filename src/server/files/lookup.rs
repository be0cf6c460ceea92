//! From a path to an entry, through the cache and the ring.

use std::net::{IpAddr, Ipv4Addr};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use rustix::io::Errno;

use super::cache::{Asker, Finding, Key, Known, Stage};
use super::entry::{Coding, Entry, SMALL};
use super::proxy::{Age, Fetched, Interest, Order, Proxy, is_fetchable};
use super::site::Site;
use super::store::Files;
use crate::package::shelf::Found as Live;
use crate::protocol::http::request::Request;
use crate::protocol::http::{FileType, RelPath};
use crate::server::core::{Core, Task};
use crate::server::head::{ConnHead, Reason};
use crate::server::http::pages;
use crate::server::limits::{Refused, counted};
use crate::server::millis::millis;
use crate::server::shared::Shared;
use crate::uring::files::{Folder, OpenFile};
use crate::uring::{Engine, Sock};

/// Addresses of clients that the fetcher is told of one file: the file has its turn with the first of them.
const ADDRESSES_MAX: usize = 8;

/// Why a client that waits for an upstream is let go after its FIN.
pub(in crate::server) const HUNG_UP: &str = "the peer hung up while it waited for an upstream";

/// What a look for a file gave.
pub(in crate::server) enum Found {
    Entry(Rc<Entry>),
    Missing,
    /// The client is asked again ([`Task::AskAgain`]) when more is known.
    Later,
    /// Too many files are being opened.
    Busy,
    /// No upstream could say.
    Unreachable,
    /// There is one, and it cannot be kept here.
    NoSpace,
    /// There is one, and the client would be one viewer too many.
    Refused(Refused),
}

impl Files {
    /// Looks for the file that a request means: compressed if there is one and the client takes it.
    pub(in crate::server) fn find<E: Engine>(
        &mut self,
        core: &mut Core<E>,
        head: &ConnHead,
        path: &RelPath,
        request: &Request,
    ) -> Found {
        let address = head.address.map_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED), counted);
        let asker = Asker { sock: head.sock, address };
        let key = |path, coding| Key { role: head.role, path, coding };
        let plain = match self.find_one(core, &key(path.clone(), None), asker) {
            Found::Entry(plain) => plain,
            other => return other,
        };
        if !FileType::of(path.extension()).shrinks {
            return Found::Entry(plain);
        }
        for coding in Coding::EVERY.into_iter().filter(|coding| accepts(request, *coding)) {
            match self.find_one(core, &key(path.clone(), Some(coding)), asker) {
                // An old one beside a newer file is not what the file holds now.
                Found::Entry(entry) if entry.modified >= plain.modified => return Found::Entry(entry),
                Found::Entry(_) | Found::Missing => {}
                other => return other,
            }
        }
        Found::Entry(plain)
    }

    /// The live file with that path, if a stream is being packaged. `last`: the client does not wait.
    pub(in crate::server) fn find_live<E: Engine>(
        &mut self,
        core: &Core<E>,
        head: &ConnHead,
        path: &RelPath,
        last: bool,
    ) -> Option<Found> {
        let site = core.role(head.role).files.as_ref()?;
        match site.live.find(path.as_str(), core.now()) {
            Live::File(file) => {
                Some(Found::Entry(Rc::new(Entry::of_live(&file, FileType::of(path.extension())))))
            }
            Live::Soon if !last => {
                self.wait_for_packaged(head.sock, path.as_str());
                Some(Found::Later)
            }
            Live::Soon | Live::Nothing => None,
        }
    }

    fn find_one<E: Engine>(&mut self, core: &mut Core<E>, key: &Key, asker: Asker) -> Found {
        let known = self.cache.get(key, asker, core.now());
        let counters = &core.counters[key.role].files;
        match known {
            Known::Entry(_) | Known::Missing => counters.hits.add(1),
            _ => counters.misses.add(1),
        }
        match known {
            Known::Entry(entry) => Found::Entry(entry),
            Known::Missing => Found::Missing,
            Known::Wait(ticket) => {
                self.join(core, ticket, asker);
                Found::Later
            }
            Known::Busy => Found::Busy,
            Known::Unreachable => Found::Unreachable,
            Known::NoSpace => Found::NoSpace,
            Known::Look(ticket) => {
                let folder = core.role(key.role).files.as_ref().and_then(Site::folder);
                if self.open_below(core, ticket, folder) {
                    return Found::Later;
                }
                // There is no folder, so there are no files.
                let alone = self.cache.found(ticket, Finding::Missing, core.now());
                debug_assert_eq!(alone, [asker.sock], "nobody can have come in between");
                Found::Missing
            }
        }
    }

    /// A client waits for a file that is being fetched; the fetcher is told the addresses of the first few.
    fn join<E: Engine>(&mut self, core: &Core<E>, ticket: u64, asker: Asker) {
        let look = self.cache.look(ticket);
        let known = look.told.len() >= ADDRESSES_MAX || look.told.contains(&asker.address);
        if look.interest.is_none() || known {
            return;
        }
        let order = Order::Join { path: look.key.path.clone(), client: asker.address };
        if self.proxy_of(&core.shared, ticket).is_some_and(|proxy| proxy.order(order)) {
            self.cache.look(ticket).told.push(asker.address);
        }
    }

    /// A client is gone, or asks for something else: it waits no more.
    pub(in crate::server) fn client_left(&mut self, sock: Sock) {
        self.cache.left(sock);
        self.packaged_left(sock);
    }

    /// A client has sent its FIN. Whether it waits for an upstream: it may have hung up, so that wait ends.
    #[must_use]
    pub(in crate::server) fn client_half_closed(&mut self, sock: Sock) -> bool {
        self.cache.half_closed(sock)
    }

    /// Opens the file that a look is for below a folder, if there is one.
    fn open_below<E: Engine>(
        &mut self,
        core: &mut Core<E>,
        ticket: u64,
        folder: Option<Arc<Folder>>,
    ) -> bool {
        let Some(folder) = folder else { return false };
        let key = &self.cache.look(ticket).key;
        let compressed = key.coding.map(|coding| key.path.with_suffix(coding.suffix()));
        let path = compressed.as_ref().unwrap_or(&key.path);
        core.net.open_file(&folder, path.as_str(), ticket);
        true
    }

    /// An embedded page.
    pub(in crate::server) fn find_page(&mut self, path: &str) -> Option<Rc<Entry>> {
        if let Some(entry) = self.cache.pages.get(path) {
            return Some(Rc::clone(entry));
        }
        let (media_type, body) = pages::find(path)?;
        let entry = Rc::new(Entry::of_page(media_type, body));
        self.cache.pages.insert(path.to_owned(), Rc::clone(&entry));
        Some(entry)
    }

    pub(in crate::server) fn opened<E: Engine>(
        &mut self,
        core: &mut Core<E>,
        ticket: u64,
        result: Result<Rc<OpenFile>, Errno>,
    ) {
        let shared = Arc::clone(&core.shared);
        let stage = self.cache.look(ticket).stage;
        if let (Ok(file), Stage::Cache | Stage::Fetched) = (&result, stage)
            && let Some(proxy) = self.proxy_of(&shared, ticket)
        {
            file.accompany(proxy.open.add(file.identity));
        }
        match result {
            Ok(file) if stage == Stage::Cache => self.examine_fetched(core, ticket, file),
            Ok(file) => self.examine(core, ticket, file),
            Err(error) if is_absence(error) => match (stage, self.proxy_of(&shared, ticket)) {
                (Stage::Root, Some(proxy)) => {
                    let folder = Arc::clone(&proxy.folder);
                    self.cache.look(ticket).stage = Stage::Cache;
                    self.open_below(core, ticket, Some(folder));
                }
                (Stage::Cache, Some(_)) => self.fetch(core, ticket),
                _ => self.found(core, ticket, Finding::Missing),
            },
            Err(error) => {
                tracing::debug!(path = ?self.cache.look(ticket).key.path, %error, "cannot open a file");
                let known = self.cache.known(ticket);
                self.found(core, ticket, known.map_or(Finding::Failed, Finding::Entry));
            }
        }
    }

    /// A file was opened: it may be the one that was known before, or is loaded if it is small.
    fn examine<E: Engine>(&mut self, core: &mut Core<E>, ticket: u64, file: Rc<OpenFile>) {
        let known = self.cache.known(ticket);
        if let Some(entry) = known.filter(|entry| entry.is_still(&file)) {
            self.found(core, ticket, Finding::Entry(entry));
        } else if (1..=SMALL).contains(&file.len) {
            let len = u32::try_from(file.len).expect("small");
            core.net.load_file(&file, len, ticket);
            self.cache.look(ticket).file = Some(file);
        } else {
            self.adopt(core, ticket, file, None);
        }
    }

    /// The upstreams that a look may go on to: for files that are neither compressed ones nor embedded pages.
    fn proxy_of<'a>(&mut self, shared: &'a Shared, ticket: u64) -> Option<&'a Proxy> {
        let key = &self.cache.look(ticket).key;
        let proxy = shared.roles[key.role].files.as_ref()?.proxy.as_ref()?;
        let is_page = || pages::find(&format!("/{}", key.path.as_str())).is_some();
        (key.coding.is_none() && is_fetchable(&key.path) && !is_page()).then_some(proxy)
    }

    /// There is a fetched file: it may be too old.
    fn examine_fetched<E: Engine>(&mut self, core: &mut Core<E>, ticket: u64, file: Rc<OpenFile>) {
        let path = self.cache.look(ticket).key.path.clone();
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
        let age = millis(now.saturating_sub(file.inode_changed.since_epoch()));
        let (at, shared) = (core.index, Arc::clone(&core.shared));
        let Some(proxy) = self.proxy_of(&shared, ticket) else { return self.examine(core, ticket, file) };
        let order = |path, clients| Order::Fetch { path, at, clients, wanted: None };
        let clients = self.cache.look(ticket).addresses(ADDRESSES_MAX);
        // Whether the fetcher hears of it matters little where the file is served: the next look tells it again.
        match proxy.age(FileType::of(path.extension()).kind, age) {
            Age::Fresh => {
                self.cache.set_overdue(ticket, false);
                let _ = proxy.order(Order::Used(path));
            }
            Age::Stale if !self.cache.is_overdue(ticket) => {
                return self.fetch_newer(core, ticket, file, proxy.order(order(path, clients)));
            }
            Age::Aging | Age::Stale => {
                let _ = proxy.order(order(path, clients));
            }
            Age::Dead => return self.fetch(core, ticket),
        }
        self.examine(core, ticket, file);
    }

    /// A newer version is being fetched, if `ordered`: it is waited for a moment.
    fn fetch_newer<E: Engine>(&mut self, core: &mut Core<E>, ticket: u64, old: Rc<OpenFile>, ordered: bool) {
        if !ordered {
            return self.examine(core, ticket, old);
        }
        self.cache.look(ticket).file = Some(old);
        if !self.go_upstream(core, ticket) {
            self.cache.wait_for_newer(ticket, core.now());
        }
    }

    /// Has a file fetched for the clients that wait for it.
    fn fetch<E: Engine>(&mut self, core: &mut Core<E>, ticket: u64) {
        if self.go_upstream(core, ticket) {
            return;
        }
        let at = core.index;
        let (interest, wanted) = Interest::new();
        let look = self.cache.look(ticket);
        let clients = look.addresses(ADDRESSES_MAX);
        (look.interest, look.told) = (Some(interest), clients.clone());
        let order = Order::Fetch { path: look.key.path.clone(), at, clients, wanted: Some(wanted) };
        if !self.proxy_of(&core.shared, ticket).is_some_and(|proxy| proxy.order(order)) {
            self.not_fetched(core, ticket, Finding::Unreachable);
        }
    }

    /// A look goes on at an upstream: clients that may have hung up do not wait for that. `true`: none waits, and the
    /// look is over.
    fn go_upstream<E: Engine>(&mut self, core: &mut Core<E>, ticket: u64) -> bool {
        for sock in self.cache.goes_upstream(ticket) {
            core.tasks.push(Task::Close(sock, Reason::from(HUNG_UP)));
        }
        self.cache.give_up_unwanted(ticket)
    }

    /// Gives out old versions whose newer ones have not come in time.
    pub(super) fn serve_late<E: Engine>(&mut self, core: &mut Core<E>) {
        while let Some(ticket) = self.cache.take_late(core.now()) {
            self.not_fetched(core, ticket, Finding::Unreachable);
        }
    }

    pub(in crate::server) fn fetched<E: Engine>(
        &mut self,
        core: &mut Core<E>,
        role: usize,
        path: &RelPath,
        outcome: Fetched,
    ) {
        let shared = Arc::clone(&core.shared);
        let Some(ticket) = self.cache.fetching(role, path) else { return };
        match outcome {
            Fetched::There => {
                let look = self.cache.look(ticket);
                (look.stage, look.file, look.interest) = (Stage::Fetched, None, None);
                self.cache.set_overdue(ticket, false);
                let folder = self.proxy_of(&shared, ticket).map(|proxy| Arc::clone(&proxy.folder));
                let opening = self.open_below(core, ticket, folder);
                debug_assert!(opening, "a fetch has a folder for it");
            }
            Fetched::Missing => self.found(core, ticket, Finding::Missing),
            Fetched::Failed => self.not_fetched(core, ticket, Finding::Unreachable),
            Fetched::NoSpace => self.not_fetched(core, ticket, Finding::NoSpace),
        }
    }

    /// A fetch has failed or takes long: what is there is served.
    fn not_fetched<E: Engine>(&mut self, core: &mut Core<E>, ticket: u64, otherwise: Finding) {
        let look = self.cache.look(ticket);
        look.stage = Stage::Fetched;
        match look.file.take() {
            Some(old) => {
                self.cache.set_overdue(ticket, true);
                self.examine(core, ticket, old);
            }
            None => self.found(core, ticket, otherwise),
        }
    }

    pub(in crate::server) fn loaded<E: Engine>(
        &mut self,
        core: &mut Core<E>,
        ticket: u64,
        result: Result<Bytes, Errno>,
    ) {
        let file = self.cache.look(ticket).file.take().expect("what is loaded is open");
        self.adopt(core, ticket, file, result.ok());
    }

    fn adopt<E: Engine>(&mut self, core: &mut Core<E>, ticket: u64, file: Rc<OpenFile>, body: Option<Bytes>) {
        let Key { path, coding, .. } = &self.cache.look(ticket).key;
        let kind = FileType::of(path.extension());
        let entry = Entry::of_file(file, body, kind, *coding);
        self.found(core, ticket, Finding::Entry(Rc::new(entry)));
    }

    fn found<E: Engine>(&mut self, core: &mut Core<E>, ticket: u64, finding: Finding) {
        let now = core.now();
        core.tasks.extend(self.cache.found(ticket, finding, now).into_iter().map(Task::AskAgain));
    }
}

/// Whether an open failed because there is no such file, or none that is ours to give.
fn is_absence(error: Errno) -> bool {
    let absent = [Errno::NOENT, Errno::NOTDIR, Errno::ISDIR, Errno::NXIO, Errno::NAMETOOLONG];
    let forbidden = [Errno::XDEV, Errno::LOOP, Errno::ACCESS, Errno::PERM];
    absent.contains(&error) || forbidden.contains(&error)
}

/// Whether a client takes a coding (RFC 9110, 12.5.3): it is named, and not with a weight of nothing.
fn accepts(request: &Request, coding: Coding) -> bool {
    request.headers.values("accept-encoding").flat_map(|value| value.split(|byte| *byte == b',')).any(
        |item| {
            let mut parts = item.split(|byte| *byte == b';').map(<[u8]>::trim_ascii);
            let named = parts.next().is_some_and(|name| name.eq_ignore_ascii_case(coding.token().as_bytes()));
            let refused = parts.any(|weight| {
                let weight = weight.strip_prefix(b"q=").or_else(|| weight.strip_prefix(b"Q="));
                weight.is_some_and(|weight| weight.iter().all(|byte| matches!(byte, b'0' | b'.')))
            });
            named && !refused
        },
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::http::request::{RequestLimits, RequestReader};

    #[test]
    fn codings_that_are_taken() {
        let taken = |value: &str| {
            let text = format!("GET / HTTP/1.1\r\nHost: x\r\nAccept-Encoding: {value}\r\n\r\n");
            let request =
                RequestReader::new(RequestLimits::new(4096)).push(text.as_bytes()).unwrap().unwrap();
            Coding::EVERY.map(|coding| accepts(&request, coding))
        };
        assert_eq!(taken("gzip, deflate, br"), [true, true]);
        assert_eq!(taken("GZIP;q=0.5"), [false, true]);
        assert_eq!(taken("br;q=0, gzip;q=0.000"), [false, false]);
        assert_eq!(taken("br;q=0.001,identity"), [true, false]);
        assert_eq!(taken("bro, x-gzip"), [false, false]);
    }
}
