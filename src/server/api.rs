//! The HTTP API's answers.

use serde::Serialize;

use super::shared::{Shared, Source};
use crate::live::stream::Stream;
use crate::media::codec;
use crate::media::tag::TagKind;

#[derive(Serialize)]
struct Listing {
    role: &'static str,
    version: &'static str,
    ports: Ports,
    streams: Vec<Entry>,
}

#[derive(Serialize)]
struct Ports {
    rtmp: Option<u16>,
    flv: Option<u16>,
    gateway: Option<u16>,
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
}

/// `GET /api/v1/streams`: all streams of an origin; on a gateway alone, those it pulls.
pub fn streams_json(shared: &Shared) -> String {
    let main = shared.roles.iter().find(|role| matches!(role.source, Source::Publishers));
    let Some(main) = main.or(shared.roles.first()) else { return "{}".to_owned() };
    let now = shared.now();
    let streams = main.directory.list();
    let entry = |(stream, live): &(std::sync::Arc<Stream>, bool)| entry(stream, *live, main.name, now);
    let port = |address: Option<std::net::SocketAddr>| address.map(|address| address.port());
    let listing = Listing {
        role: main.name,
        version: env!("CARGO_PKG_VERSION"),
        ports: Ports {
            rtmp: port(shared.addresses.rtmp),
            flv: port(shared.addresses.flv),
            gateway: port(shared.addresses.gateway),
        },
        streams: streams.iter().map(entry).collect(),
    };
    serde_json::to_string(&listing).expect("plain data")
}

fn entry(stream: &Stream, live: bool, role: &'static str, now: u64) -> Entry {
    let facts = stream.facts();
    let size = facts.metadata.as_deref().and_then(|body| codec::facts(body).size);
    Entry {
        key: stream.key.to_string(),
        role,
        live,
        viewers: stream.viewers.load(std::sync::atomic::Ordering::Relaxed),
        video: facts.video.as_deref().and_then(|body| codec::name(TagKind::Video, body)),
        audio: facts.audio.as_deref().and_then(|body| codec::name(TagKind::Audio, body)),
        width: size.map(|(width, _)| width),
        height: size.map(|(_, height)| height),
        bitrate: stream.bitrate.load(std::sync::atomic::Ordering::Relaxed),
        uptime_ms: stream.uptime(now),
    }
}
