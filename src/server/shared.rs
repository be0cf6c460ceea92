//! What all loops of a process share, and the messages between them.

use std::hash::{BuildHasher, RandomState};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Instant;

use arc_swap::{ArcSwap, ArcSwapOption};
use tokio::sync::oneshot;

use super::authority::{Authority, unix_time};
use super::budget::Budget;
use super::counters::{Counter, RoleCounters};
use super::egress::Egress;
use super::files::proxy::Fetched;
use super::health::{Health, State};
use super::http::access_writer::LogQueue;
use super::http::routes::stream_of;
use super::limits::AddressLimits;
use super::listing::Listing;
use super::recording::RecordingState;
pub use super::roles::{RoleState, Source};
use super::viewers::listing::{Kick, Query, ViewerList};
use crate::access::local::is_loopback;
use crate::config::{Config, Upstream};
use crate::live::stream::Stream;
use crate::memory::Arena;
use crate::protocol::http::RelPath;
use crate::uring::mailbox::{Mail, Postbox};
use crate::uring::{Millis, Sock};

pub(super) use super::millis::millis;

/// The shortest time between two listings of streams, and the highest age of one that is given out.
const LISTING_REST: Millis = 250;
const LISTING_LIFE: Millis = 1_000;

/// Messages between loops.
#[derive(Debug)]
pub enum Message {
    /// The stream with that id has new data.
    News(u64),
    /// A new stream is published.
    Published {
        /// The role it belongs to.
        role: usize,
        /// The stream.
        stream: Arc<Stream>,
    },
    /// A stream is over.
    Ended {
        /// The role it belonged to.
        role: usize,
        /// The stream.
        stream: Arc<Stream>,
        /// The HTTP status for clients that have received nothing of it.
        status: u16,
    },
    /// A file that was requested from an upstream is there, or could not be had.
    Fetched {
        /// The role that requested it.
        role: usize,
        /// The file.
        path: RelPath,
        /// The result.
        outcome: Fetched,
    },
    /// The disk has too little space for fetched files: those that are not being sent are to be closed.
    CloseFiles,
    /// A stream's publisher is to give it up, if it is still wanted: another one takes it over.
    GiveUp {
        /// The role it belongs to.
        role: usize,
        /// The stream.
        stream: Arc<Stream>,
    },
    /// A publisher has given its stream up: publishers that wait for it may claim it.
    GivenUp {
        /// The role it belongs to.
        role: usize,
        /// The stream.
        stream: Arc<Stream>,
    },
    /// An operator asks for the viewers.
    Viewers(Query, oneshot::Sender<ViewerList>),
    /// An operator wants a viewer disconnected.
    Kick(Sock, oneshot::Sender<Kick>),
    /// An operator wants the publisher of the stream with that id ended; the answer is whether it was one of
    /// this loop's.
    KickPublisher(u64, oneshot::Sender<bool>),
    /// Memory is short: streams are to keep less.
    Shorten,
    /// A stream's first live files are there, or none will come: requests that wait for them are answered.
    Packaged(Arc<str>),
    /// The hook has answered what this connection waits for.
    Answered(Sock),
    /// A listing was made: requests that wait for one are answered.
    Listed,
    /// Accept no more connections, and end when the last one is gone.
    Drain,
    /// End now.
    Stop,
}

impl Mail for Message {
    fn topic(&self) -> Option<u64> {
        match self {
            Self::News(stream) => Some(*stream),
            _ => None,
        }
    }
}

/// Whether the process takes new connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Phase {
    /// Not yet.
    Starting = 0,
    /// Yes.
    Ready = 1,
    /// Not any more.
    Draining = 2,
}

/// Why a process is not healthy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Ailment {
    /// It has not started yet.
    #[error("starting")]
    Starting,
    /// It takes no new work.
    #[error("draining")]
    Draining,
    /// A loop has not swept for too long.
    #[error("loop {0} hangs")]
    Hangs(usize),
}

/// A loop that has not swept for this many milliseconds hangs.
const HANGING: Millis = 10_000;

/// Where the roles listen, as the pages and the `ready` line name it; the first address of each is the main one.
#[derive(Clone, Debug, Default)]
pub struct Addresses {
    /// RTMP ingest.
    pub rtmp: Vec<SocketAddr>,
    /// HTTP-FLV and WS-FLV of the origin.
    pub flv: Vec<SocketAddr>,
    /// The pages.
    pub web: Vec<SocketAddr>,
    /// The FLV gateway.
    pub gateway: Vec<SocketAddr>,
    /// The file gateway.
    pub files: Vec<SocketAddr>,
}

/// What all loops share.
#[derive(Debug)]
pub struct Shared {
    /// As loaded at the start.
    pub config: Config,
    /// The memory of all logs.
    pub arena: Arc<Arena>,
    /// The roles of this process.
    pub roles: Vec<RoleState>,
    /// By loop, then by role.
    pub counters: Vec<Arc<[RoleCounters]>>,
    /// By loop.
    pub posts: Vec<Postbox<Message>>,
    /// Where it listens.
    pub addresses: Addresses,
    /// Addresses of the servers in [`Config::forward`], resolved by the control thread; empty without an
    /// origin.
    pub forwards: Vec<ArcSwap<Vec<SocketAddr>>>,
    /// The same for [`Config::pull`].
    pub pulls: Vec<ArcSwap<Vec<SocketAddr>>>,
    /// When the process started; all clocks count from here.
    pub started: Instant,
    /// Distinguishes this run of the program from others in the viewer names that are given out.
    pub(super) run: u32,
    /// By loop: when it swept last. A loop that stops sweeping hangs.
    pub beats: Vec<AtomicU64>,
    /// By loop: the present minimum of all windows, in milliseconds.
    pub floors: Vec<AtomicU64>,
    /// Where the access log goes, if there is one.
    pub access_log: OnceLock<LogQueue>,
    /// The body of `/api/v1/streams`; made by the control thread.
    pub listing: Listing,
    /// How recording is doing.
    pub recording: Arc<RecordingState>,
    /// Log lines that were left out because peers caused too many of a kind.
    pub log_suppressed: Arc<AtomicU64>,
    /// The memory budget of the process.
    pub budget: Budget,
    /// For connections to other servers in TLS; not set: there is no such server.
    pub trust: OnceLock<Arc<rustls::ClientConfig>>,
    /// For new connections; `None`: they are plain.
    pub certificates: ArcSwapOption<rustls::ServerConfig>,
    /// Who may publish and play.
    pub authority: Authority,
    pub(super) egress: Egress,
    pub(super) address_limits: Arc<AddressLimits>,
    pub(super) phase: AtomicU8,
}

impl Shared {
    /// The state before the start; there is one loop for each postbox.
    pub(super) fn new(
        (config, authority): (Config, Authority),
        arena: Arc<Arena>,
        roles: Vec<RoleState>,
        posts: Vec<Postbox<Message>>,
        addresses: Addresses,
        started: Instant,
    ) -> Self {
        let counters = posts.iter().map(|_| roles.iter().map(|role| counters_of(role.name)).collect());
        let origin = roles.first().is_some_and(|role| matches!(role.source, Source::Publishers));
        let unknown =
            |count: usize| (0..if origin { count } else { 0 }).map(|_| ArcSwap::default()).collect();
        Self {
            forwards: unknown(config.forward.len()),
            pulls: unknown(config.pull.len()),
            counters: counters.collect(),
            beats: posts.iter().map(|_| AtomicU64::new(0)).collect(),
            floors: posts.iter().map(|_| AtomicU64::new(0)).collect(),
            addresses,
            started,
            trust: OnceLock::new(),
            run: u32::try_from(RandomState::new().hash_one(0) >> 32).expect("32 bits"),
            access_log: OnceLock::new(),
            listing: Listing::new(LISTING_REST, LISTING_LIFE),
            recording: Arc::default(),
            log_suppressed: Arc::default(),
            budget: Budget::new(config.limits.memory_budget(), Arc::clone(&arena), posts.len()),
            certificates: ArcSwapOption::empty(),
            authority,
            egress: Egress::default(),
            address_limits: AddressLimits::new(&config.limits),
            config,
            arena,
            roles,
            posts,
            phase: AtomicU8::new(Phase::Starting as u8),
        }
    }

    /// Sends a message to every loop.
    pub fn tell_all(&self, message: impl Fn() -> Message) {
        for post in &self.posts {
            post.post(message());
        }
    }

    /// The number of streams of all roles.
    pub fn streams(&self) -> usize {
        self.roles.iter().map(|role| role.directory.len()).sum()
    }

    /// Bytes that were sent to viewers and clients of files, by all roles.
    pub(super) fn sent_bytes(&self) -> u64 {
        let of =
            |own: &RoleCounters| own.bytes_out.iter().map(Counter::get).sum::<u64>() + own.files.bytes.get();
        self.counters.iter().flat_map(|roles| roles.iter()).map(of).sum()
    }

    /// Whether new connections are taken.
    pub fn phase(&self) -> Phase {
        match self.phase.load(Ordering::Acquire) {
            0 => Phase::Starting,
            1 => Phase::Ready,
            _ => Phase::Draining,
        }
    }

    /// Moves on to another phase.
    pub fn enter(&self, phase: Phase) {
        self.phase.store(phase as u8, Ordering::Release);
    }

    /// Whether a role exists whose upstreams are all known to be down.
    pub fn upstreams_are_down(&self) -> bool {
        let down = |health: &Health| health.state() == State::Down;
        self.roles.iter().any(|role| {
            match (&role.source, role.files.as_ref().and_then(|site| site.proxy.as_ref())) {
                (Source::Upstreams(all), _) => all.iter().all(|upstream| down(&upstream.health)),
                (_, Some(proxy)) => proxy.upstreams.iter().all(|upstream| down(&upstream.health)),
                (Source::Publishers | Source::Nowhere, None) => false,
            }
        })
    }

    /// A loop that has not swept for too long, if there is one.
    pub fn hanging_loop(&self) -> Option<usize> {
        let now = self.now();
        self.beats.iter().position(|beat| now.saturating_sub(beat.load(Ordering::Relaxed)) > HANGING)
    }

    /// Why the process is not healthy, if it is not.
    pub fn ailment(&self) -> Option<Ailment> {
        match (self.phase(), self.hanging_loop()) {
            (_, Some(index)) => Some(Ailment::Hangs(index)),
            (Phase::Starting, None) => Some(Ailment::Starting),
            (Phase::Draining, None) => Some(Ailment::Draining),
            (Phase::Ready, None) => None,
        }
    }

    /// What a gateway shows to play a stream of an upstream, as the value of `Authorization`: its own credential, never
    /// a viewer's.
    pub(super) fn credential(&self, upstream: &Upstream, stream: &str) -> Option<String> {
        let own = self.addresses.flv.iter().chain(&self.addresses.web);
        let is_loopback = upstream.host.parse().is_ok_and(is_loopback);
        let is_own =
            is_loopback && own.into_iter().any(|address: &SocketAddr| address.port() == upstream.port);
        let token = self.authority.rules().for_upstream(stream, is_own, unix_time())?;
        Some(format!("Bearer {token}"))
    }

    /// The same for a file; `None` for files that belong to no stream.
    pub fn credential_for_file(&self, upstream: &Upstream, path: &RelPath) -> Option<String> {
        self.credential(upstream, &stream_of(path)?)
    }

    /// Milliseconds since the start, as the loops count them.
    pub fn now(&self) -> Millis {
        millis(self.started.elapsed())
    }
}

fn counters_of(role: &'static str) -> RoleCounters {
    RoleCounters::new(metrics::histogram!("uringcast_first_picture_seconds", "role" => role))
}
