//! The HTTP API's answers.

use std::net::SocketAddr;

use serde::Serialize;

use crate::config::{Config, Record};
use crate::live::stream::Stream;
use crate::media::codec;
use crate::media::tag::TagKind;
use crate::media::track_facts::{self, TrackFacts};
use crate::server::counters::{Counter, FAREWELLS, RoleCounters};
use crate::server::listing::Listed;
use crate::server::recording::RecordingFacts;
use crate::server::roles::{RoleState, Source, UpstreamState};
use crate::server::shared::Shared;

/// The largest number of streams that are listed.
const STREAMS_MAX: usize = 10_000;

/// Members of [`Body`]: the streams without entries, their beginning, and what only those are told who see all.
const EMPTY: &str = "\"streams\":[]";
const ENTRIES: &str = "\"streams\":[";
const TOTAL: &str = "\"total\":";

#[derive(Serialize)]
struct Body {
    role: &'static str,
    version: &'static str,
    ports: Ports,
    packaging: Vec<&'static str>,
    /// The number of streams, listed or not. Members before this one are public.
    total: usize,
    streams: [(); 0],
    /// Totals of each role since the start of the process.
    roles: Vec<Sums>,
    upstreams: Vec<UpstreamEntry>,
    /// `None`: nothing is recorded here.
    #[serde(skip_serializing_if = "Option::is_none")]
    recording: Option<RecordingFacts>,
}

/// Counters of a role, summed over its loops.
#[derive(Serialize)]
struct Sums {
    name: &'static str,
    viewers: u64,
    sources: u64,
    connections: u64,
    bytes_in: u64,
    bytes_out: u64,
    skips: u64,
    cut: u64,
}

#[derive(Serialize)]
struct UpstreamEntry {
    url: String,
    up: bool,
}

#[derive(Serialize)]
struct Ports {
    rtmp: Option<u16>,
    flv: Option<u16>,
    gateway: Option<u16>,
    web: Option<u16>,
}

#[derive(Serialize)]
struct Entry {
    key: String,
    role: &'static str,
    live: bool,
    viewers: u32,
    video: Option<&'static str>,
    audio: Option<&'static str>,
    width: Option<u32>,
    height: Option<u32>,
    bitrate: u64,
    uptime_ms: u64,
    tracks: Vec<TrackEntry>,
}

/// One track of a stream.
#[derive(Serialize)]
struct TrackEntry {
    kind: &'static str,
    /// The publisher's number.
    id: u8,
    codec: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    width: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    height: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    language: Option<String>,
}

impl TrackEntry {
    fn new(track: TrackFacts) -> Self {
        Self {
            kind: if track.kind == TagKind::Video { "video" } else { "audio" },
            id: track.number,
            codec: track.codec,
            width: track.size.map(|(width, _)| width),
            height: track.size.map(|(_, height)| height),
            language: track.language,
        }
    }
}

/// The body of `GET /api/v1/streams`: all streams of an origin, or those that a gateway pulls if it runs alone.
/// Only the control thread calls this, since it takes long with thousands of streams. Others read
/// [`Shared::listing`].
pub fn streams_json(shared: &Shared) -> Listed {
    let main = shared.roles.iter().find(|role| matches!(role.source, Source::Publishers));
    let origin = main.is_some();
    let Some(main) = main.or(shared.roles.first()) else {
        return Listed::new(("{}", ""), Vec::new(), ("{}", ""));
    };
    let now = shared.now();
    let streams = main.directory.list();
    let entry = |(stream, live): &(std::sync::Arc<Stream>, bool)| {
        let entry = entry(stream, *live, main.name, now);
        (entry.key.clone(), serde_json::to_string(&entry).expect("plain data"))
    };
    let port = |listen: &[SocketAddr]| listen.first().map(SocketAddr::port);
    let addresses = &shared.addresses;
    let body = Body {
        role: main.name,
        version: env!("CARGO_PKG_VERSION"),
        ports: Ports {
            rtmp: port(&addresses.rtmp),
            flv: port(&addresses.flv),
            gateway: port(&addresses.gateway),
            web: port(&addresses.web).or(port(&addresses.files)),
        },
        packaging: if origin { packaging(&shared.config) } else { Vec::new() },
        total: streams.len(),
        streams: [],
        roles: shared.roles.iter().enumerate().map(|(index, role)| sums(shared, index, role.name)).collect(),
        upstreams: shared.roles.iter().flat_map(upstreams).collect(),
        recording: (origin && shared.config.origin.records()).then(|| shared.recording.facts()),
    };
    let all = serde_json::to_string(&body).expect("plain data");
    let (front, back) = all.split_once(EMPTY).expect("a member of the body");
    // Those who may not see all streams are not told totals either.
    let (public, _) = front.split_once(TOTAL).expect("a member of the body");
    Listed::new(
        (&format!("{front}{ENTRIES}"), &format!("]{back}")),
        streams.iter().take(STREAMS_MAX).map(entry).collect(),
        (&format!("{public}{ENTRIES}"), "],\"roles\":[],\"upstreams\":[],\"total\":{total}}"),
    )
}

/// The formats in which each live stream can be played, recorded or not.
fn packaging(config: &Config) -> Vec<&'static str> {
    let (hls, fmp4) = config.origin.packaging.of(Record::default());
    [("hls", hls), ("fmp4", fmp4)].into_iter().filter_map(|(name, is_on)| is_on.then_some(name)).collect()
}

fn sums(shared: &Shared, role: usize, name: &'static str) -> Sums {
    let sum = |pick: &dyn Fn(&RoleCounters) -> u64| -> u64 {
        shared.counters.iter().map(|counters| pick(&counters[role])).sum()
    };
    let all = |counters: &[Counter]| -> u64 { counters.iter().map(Counter::get).sum() };
    // A viewer that is disconnected because the stream is over has not been cut.
    let cut = |name: &str| ["too-slow", "stalled"].contains(&name);
    Sums {
        name,
        viewers: sum(&|own| all(&own.viewers)),
        sources: sum(&|own| own.publishers.get() + own.pulls.get()),
        connections: sum(&|own| own.connections.get()),
        bytes_in: sum(&|own| own.bytes_in.get()),
        bytes_out: sum(&|own| all(&own.bytes_out) + own.files.bytes.get()),
        skips: sum(&|own| own.skips.get()),
        cut: sum(&|own| {
            let named = FAREWELLS.iter().zip(&own.farewells).filter(|(name, _)| cut(name));
            named.map(|(_, counter)| counter.get()).sum()
        }),
    }
}

fn upstreams(role: &RoleState) -> Vec<UpstreamEntry> {
    let Source::Upstreams(upstreams) = &role.source else { return Vec::new() };
    let entry = |one: &UpstreamState| UpstreamEntry { url: one.url.to_string(), up: one.health.is_up() };
    upstreams.iter().map(entry).collect()
}

fn entry(stream: &Stream, live: bool, role: &'static str, now: u64) -> Entry {
    let facts = stream.facts();
    let headers = facts.headers.iter().map(|(kind, body)| (*kind, &body[..]));
    let tracks = track_facts::tracks(headers, facts.metadata.as_deref());
    // What the metadata tells, or else the first picture's sequence header.
    let first = tracks.first().and_then(|track| track.size);
    let size = facts.metadata.as_deref().and_then(|body| codec::facts(body).size).or(first);
    Entry {
        key: stream.key.to_string(),
        role,
        live,
        viewers: stream.viewers.load(std::sync::atomic::Ordering::Relaxed),
        video: facts.video.as_deref().and_then(|body| codec::name(TagKind::Video, body)),
        audio: facts.audio.as_deref().and_then(|body| codec::name(TagKind::Audio, body)),
        width: size.map(|(width, _)| width),
        height: size.map(|(_, height)| height),
        bitrate: stream.bitrate(now),
        uptime_ms: stream.uptime(now),
        tracks: tracks.into_iter().map(TrackEntry::new).collect(),
    }
}
