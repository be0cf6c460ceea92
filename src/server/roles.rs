//! The roles of a process, each with its streams, their source, and the files that it serves.

use std::net::SocketAddr;
use std::sync::Arc;

use arc_swap::ArcSwap;

use super::files::site::Site;
use super::health::Health;
use super::millis::millis;
use super::viewers::viewer::Policy;
use crate::config::{self, Config, Flush, Role, Upstream};
use crate::live::cursor::LagLimits;
use crate::live::directory::{Directory, Republish};
use crate::live::log::Retention;
use crate::live::timeline::StreamTime;
use crate::memory::Arena;
use crate::uring::Millis;

/// Where the streams of a role come from.
#[derive(Debug)]
pub enum Source {
    /// Publishers.
    Publishers,
    /// Upstreams that are pulled from, in order of preference.
    Upstreams(Vec<UpstreamState>),
    /// No streams: the role serves files.
    Nowhere,
}

impl Source {
    /// The status for viewers that waited in vain: 404, or 502 if no upstream could tell.
    pub(super) fn absence(&self) -> u16 {
        match self {
            Self::Upstreams(upstreams) if !upstreams.iter().any(|one| one.health.is_up()) => 502,
            _ => 404,
        }
    }
}

/// An upstream and its known state.
#[derive(Debug)]
pub struct UpstreamState {
    /// As configured.
    pub url: Upstream,
    /// Its addresses, resolved by the control thread.
    pub addresses: ArcSwap<Vec<SocketAddr>>,
    /// Whether it answers.
    pub health: Health,
}

impl UpstreamState {
    /// The address for a round of tries. A name may have addresses that do not answer, for example the IPv6 one
    /// of `localhost`, so rounds alternate.
    pub(super) fn address(&self, round: usize) -> Option<SocketAddr> {
        let addresses = self.addresses.load();
        addresses.get(round % addresses.len().max(1)).copied()
    }
}

/// A role and its streams.
#[derive(Debug)]
pub struct RoleState {
    /// Its name, as in the command line.
    pub name: &'static str,
    /// Its streams.
    pub directory: Directory,
    /// Where they come from.
    pub source: Source,
    /// The files that it serves.
    pub files: Option<Site>,
    pub(super) policy: Policy,
    /// How long a viewer waits for a missing stream.
    pub(super) wait: Millis,
    /// How long a stream outlives its publisher.
    pub(super) gap: Millis,
    /// How long a publisher or upstream may be silent.
    pub(super) silence: Millis,
    /// How long a pull outlives its last viewer.
    pub(super) linger: Millis,
    /// How long connecting to an upstream may take.
    pub(super) connect: Millis,
    /// How long the answer that no upstream has a stream is cached.
    pub(super) negative: Millis,
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

/// The roles of a configuration, in this order: origin, FLV gateway, file gateway.
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
    let policy = |flush: Flush| Policy { flush: flush.every().map(millis), lag, stall: millis(live.stall) };
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
            connect: 0,
            negative: 0,
        });
    }
    if role.has_flv_gateway() {
        let own = &config.flv_gateway;
        let upstreams = own.upstream.iter().map(|url| UpstreamState {
            url: url.clone(),
            addresses: ArcSwap::default(),
            health: Health::default(),
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
            connect: millis(own.connect),
            negative: millis(own.negative),
        });
    }
    if role.has_file_gateway() {
        let own = roles.iter().find_map(|role: &RoleState| role.files.as_ref());
        let gateway = Site::of_gateway(config.file_gateway.root.clone(), own);
        roles.push(RoleState {
            name: "file-gateway",
            directory: Directory::new(Arc::clone(arena), retention, Republish::Reject),
            source: Source::Nowhere,
            files: Some(gateway),
            policy: policy(Flush::Auto),
            wait: 0,
            gap: 0,
            silence: 0,
            linger: 0,
            connect: 0,
            negative: 0,
        });
    }
    roles
}
