//! What all loops of a process share: roles, their directories, and the way to each other.

use std::hash::{BuildHasher, RandomState};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use tokio::sync::oneshot;

use super::api;
use super::counters::RoleCounters;
use super::files::Site;
use super::files::proxy::Fetched;
use super::files::writer::LogQueue;
use super::listing::Listing;
use super::roster;
use super::view::Policy;
use crate::config::{self, Config, Role, Upstream};
use crate::live::cursor::LagLimits;
use crate::live::directory::{Directory, Republish};
use crate::live::log::Retention;
use crate::live::stream::Stream;
use crate::live::timeline::StreamTime;
use crate::memory::Arena;
use crate::protocol::http::RelPath;
use crate::uring::mailbox::Postbox;
use crate::uring::{Millis, Sock};

/// What loops tell each other.
#[derive(Debug)]
pub enum Message {
    /// The stream of that id has more.
    News(u64),
    /// Somebody publishes a stream that was not there.
    Published {
        /// The role it belongs to.
        role: usize,
        /// The stream.
        stream: Arc<Stream>,
    },
    /// A stream is over.
    Ended {
        /// The stream.
        stream: Arc<Stream>,
        /// The HTTP status for those who have had nothing of it.
        status: u16,
    },
    /// A file that was wanted from an upstream is there, or is not.
    Fetched {
        /// The role it was wanted for.
        role: usize,
        /// The file.
        path: RelPath,
        /// What became of it.
        outcome: Fetched,
    },
    /// A stream's publisher is to give it up, if it is still wanted: another one takes it over.
    GiveUp {
        /// The role it belongs to.
        role: usize,
        /// The stream.
        stream: Arc<Stream>,
    },
    /// A publisher has given its stream up: those who wait for that may claim it.
    GivenUp {
        /// The role it belongs to.
        role: usize,
        /// The stream.
        stream: Arc<Stream>,
    },
    /// An operator asks who watches.
    Viewers(roster::Query, oneshot::Sender<roster::Roll>),
    /// An operator wants a viewer gone.
    Kick(Sock, oneshot::Sender<roster::Kick>),
    /// An operator wants the publisher of the stream of that id gone; whether it was one of this loop.
    KickPublisher(u64, oneshot::Sender<bool>),
    /// A listing was made: requests that wait for one ask again.
    Listed,
    /// Accept nobody any more, and end when the last connection is gone.
    Drain,
    /// End now.
    Stop,
}

/// Where the streams of a role come from.
#[derive(Debug)]
pub enum Source {
    /// Publishers.
    Publishers,
    /// Upstreams that are pulled from, in order of preference.
    Upstreams(Vec<UpstreamState>),
    /// There are none: it serves files.
    Nowhere,
}

impl Source {
    /// The status for those who waited in vain: 404, but 502 where no upstream could say so.
    pub(super) fn absence(&self) -> u16 {
        match self {
            Self::Upstreams(upstreams) if !upstreams.iter().any(|one| one.up.load(Ordering::Relaxed)) => 502,
            _ => 404,
        }
    }
}

/// An upstream, and what is known of it.
#[derive(Debug)]
pub struct UpstreamState {
    /// As configured.
    pub url: Upstream,
    /// Its addresses, looked up by the control thread.
    pub addresses: ArcSwap<Vec<SocketAddr>>,
    /// Whether it could be reached and gave an answer when it was last asked.
    pub up: AtomicBool,
}

/// A role and its streams.
#[derive(Debug)]
pub struct RoleState {
    /// Its name, as in the command.
    pub name: &'static str,
    /// Its streams.
    pub directory: Directory,
    /// Where they come from.
    pub source: Source,
    /// The files that it serves.
    pub files: Option<Site>,
    pub(super) policy: Policy,
    /// How long a viewer waits for a stream that is not there.
    pub(super) wait: Millis,
    /// How long a stream outlives its publisher.
    pub(super) gap: Millis,
    /// How long a publisher or upstream may be silent.
    pub(super) silence: Millis,
    /// How long a pull outlives its last viewer.
    pub(super) linger: Millis,
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

/// The ports that the pages and the `ready` line name.
#[derive(Clone, Copy, Debug, Default)]
pub struct Addresses {
    /// RTMP ingest.
    pub rtmp: Option<SocketAddr>,
    /// HTTP-FLV and WS-FLV of the origin.
    pub flv: Option<SocketAddr>,
    /// The pages.
    pub web: Option<SocketAddr>,
    /// The FLV gateway.
    pub gateway: Option<SocketAddr>,
    /// The file gateway.
    pub files: Option<SocketAddr>,
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
    /// Per loop, per role.
    pub counters: Vec<Arc<[RoleCounters]>>,
    /// Per loop.
    pub posts: Vec<Postbox<Message>>,
    /// Where it listens.
    pub addresses: Addresses,
    /// Addresses of [`Config::forward`]'s servers, looked up by the control thread; empty without an origin.
    pub forwards: Vec<ArcSwap<Vec<SocketAddr>>>,
    /// The same of [`Config::pull`]'s.
    pub pulls: Vec<ArcSwap<Vec<SocketAddr>>>,
    /// When the process started; all clocks count from here.
    pub started: Instant,
    /// Tells this run of the program from others, in names that are given out.
    pub(super) run: u32,
    /// Per loop, when it swept last: a loop that stops beating hangs.
    pub beats: Vec<AtomicU64>,
    /// Per loop, the milliseconds that no window is shorter than at present.
    pub floors: Vec<AtomicU64>,
    /// Where the access log goes, if there is one.
    pub access_log: OnceLock<LogQueue>,
    /// The streams as `/api/v1/streams` has them; made by the control thread.
    pub listing: Listing,
    /// Log lines that were left out because peers caused too many of a kind.
    pub log_suppressed: Arc<AtomicU64>,
    pub(super) phase: AtomicU8,
}

impl Shared {
    /// Nothing has begun yet; there is one loop for each postbox.
    pub(super) fn new(
        config: Config,
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
            config,
            arena,
            roles,
            posts,
            addresses,
            started,
            run: u32::try_from(RandomState::new().hash_one(0) >> 32).expect("32 bits"),
            access_log: OnceLock::new(),
            listing: api::listing(),
            log_suppressed: Arc::default(),
            phase: AtomicU8::new(Phase::Starting as u8),
        }
    }

    /// Tells every loop.
    pub fn tell_all(&self, message: impl Fn() -> Message) {
        self.posts.iter().for_each(|post| post.post(message()));
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

    /// Milliseconds since the start, as the loops count them.
    pub fn now(&self) -> Millis {
        millis(self.started.elapsed())
    }
}

/// A duration as the loops count time.
pub(super) fn millis(duration: Duration) -> Millis {
    u64::try_from(duration.as_millis()).unwrap_or(Millis::MAX)
}

fn counters_of(role: &'static str) -> RoleCounters {
    RoleCounters::new(metrics::histogram!("uringcast_first_picture_seconds", "role" => role))
}

fn republish(origin: &config::Origin) -> Republish {
    match origin.republish {
        config::Republish::Reject => Republish::Reject,
        config::Republish::Replace => Republish::Replace,
        config::Republish::ReplaceIfStaleOrSameToken => {
            Republish::IfStaleOrSameToken { stale: millis(origin.stale) }
        }
    }
}

/// The roles that a configuration asks for, in this order: origin, FLV gateway, file gateway.
pub(super) fn roles(config: &Config, role: Role, arena: &Arc<Arena>) -> Vec<RoleState> {
    let live = &config.live;
    let stream_time = |duration| StreamTime::try_from(millis(duration)).unwrap_or(StreamTime::MAX);
    let retention = Retention {
        bytes: live.gop_bytes as u64,
        frames: live.gop_frames as u64,
        gop_time: stream_time(live.gop_time),
        history: stream_time(live.lag_time),
    };
    let lag = LagLimits { bytes: live.lag_bytes as u64, time: stream_time(live.lag_time) };
    let policy = |flush| Policy { flush: millis(flush), lag, stall: millis(live.stall) };
    let mut roles = Vec::new();
    if role.has_origin() {
        let own = &config.origin;
        roles.push(RoleState {
            name: "origin",
            directory: Directory::new(Arc::clone(arena), retention, republish(own)),
            source: Source::Publishers,
            files: Some(Site::of_origin(own.data.clone())),
            policy: policy(own.flush),
            wait: millis(own.wait),
            gap: millis(own.gap),
            silence: millis(own.silence),
            linger: 0,
        });
    }
    if role.has_flv_gateway() {
        let own = &config.flv_gateway;
        let upstreams = own.upstream.iter().map(|url| UpstreamState {
            url: url.clone(),
            addresses: ArcSwap::default(),
            up: AtomicBool::new(false),
        });
        roles.push(RoleState {
            name: "flv-gateway",
            directory: Directory::new(Arc::clone(arena), retention, Republish::Reject),
            source: Source::Upstreams(upstreams.collect()),
            files: None,
            policy: policy(own.flush),
            wait: millis(own.wait),
            gap: millis(own.gap),
            silence: millis(own.silence),
            linger: millis(own.linger),
        });
    }
    if role.has_file_gateway() {
        roles.push(RoleState {
            name: "file-gateway",
            directory: Directory::new(Arc::clone(arena), retention, Republish::Reject),
            source: Source::Nowhere,
            files: Some(Site::of_gateway(config.file_gateway.root.clone())),
            policy: policy(std::time::Duration::ZERO),
            wait: 0,
            gap: 0,
            silence: 0,
            linger: 0,
        });
    }
    roles
}
