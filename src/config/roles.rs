//! Settings of the three roles, with their defaults.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::quantities::{ANY, MIB, SECOND};
use super::units::{self, Flush, Listen, Packaging, Record, Upstream};

/// What happens when a stream name is published that already has a publisher.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Republish {
    /// The new publisher is refused.
    Reject,
    /// The new publisher takes the name over.
    Replace,
    /// The new publisher takes the name over if the old one is silent, or if both have the same token.
    #[default]
    ReplaceIfStaleOrSameToken,
}

/// Settings of the origin.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Origin {
    /// RTMP publishers and viewers.
    pub rtmp: Listen,
    /// HTTP-FLV and WS-FLV, push and play.
    pub flv: Listen,
    /// Pages and files.
    pub web: Listen,
    /// The folder of the recordings.
    pub data: PathBuf,
    /// What is recorded of every stream.
    pub record: Record,
    /// What is recorded of the streams of an app instead, by the app's name.
    pub record_apps: BTreeMap<String, Record>,
    /// What is packaged in memory for live players of the web port and of the file gateway in this process.
    pub packaging: Packaging,
    /// How long tags may be gathered before they are sent.
    pub flush: Flush,
    /// How long a GET for a stream that is not live waits for its publisher.
    #[serde(with = "units::duration")]
    pub wait: Duration,
    /// How long viewers stay after the publisher has left.
    #[serde(with = "units::duration")]
    pub gap: Duration,
    /// A publisher that sends no media for this long is disconnected.
    #[serde(with = "units::duration")]
    pub silence: Duration,
    /// What happens when a name is published twice.
    pub republish: Republish,
    /// A publisher that has sent nothing for this long is stale.
    #[serde(with = "units::duration")]
    pub stale: Duration,
}

/// Settings of the FLV gateway.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FlvGateway {
    /// HTTP-FLV and WS-FLV viewers.
    pub listen: Listen,
    /// Where streams are pulled from, in order of preference.
    #[serde(with = "units::upstreams")]
    pub upstream: Vec<Upstream>,
    /// How long a pull is kept after its last viewer has left.
    #[serde(with = "units::duration")]
    pub linger: Duration,
    /// How long tags may be gathered before they are sent.
    pub flush: Flush,
    /// How long a GET waits for the first tag from upstream.
    #[serde(with = "units::duration")]
    pub wait: Duration,
    /// How long viewers stay while no upstream has the stream.
    #[serde(with = "units::duration")]
    pub gap: Duration,
    /// An upstream that sends nothing for this long is dropped, and the stream is pulled again.
    #[serde(with = "units::duration")]
    pub silence: Duration,
    /// An upstream that does not accept a connection within this time is skipped for the next one.
    #[serde(with = "units::duration")]
    pub connect: Duration,
    /// How long it is remembered that no upstream has a stream (a 404); zero: not at all.
    #[serde(with = "units::duration")]
    pub negative: Duration,
}

/// Settings of the file gateway.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FileGateway {
    /// HTTP clients.
    pub listen: Listen,
    /// The folder that is served; nothing outside it is.
    pub root: PathBuf,
    /// Where missing files are fetched from, in order of preference; empty: nowhere.
    #[serde(with = "units::upstreams")]
    pub upstream: Vec<Upstream>,
    /// An upstream that does not accept a connection within this time is skipped for the next one.
    #[serde(with = "units::duration")]
    pub connect: Duration,
    /// The folder that fetched files are kept in.
    pub cache: PathBuf,
    /// The most bytes that the folder may hold.
    #[serde(with = "units::size")]
    pub cache_size: usize,
    /// The largest file that is fetched, in bytes.
    #[serde(with = "units::size")]
    pub cache_file: usize,
    /// How long a fetched playlist is fresh; after the same time again it is fetched again while the old one is
    /// served.
    #[serde(with = "units::duration")]
    pub playlist_life: Duration,
    /// How long old files are served while no upstream answers, or a newer version is not there yet.
    #[serde(with = "units::duration")]
    pub stale: Duration,
}

impl Default for Origin {
    fn default() -> Self {
        Self {
            rtmp: (ANY, 1935).into(),
            flv: (ANY, 8501).into(),
            web: (ANY, 80).into(),
            data: "/var/lib/uringcast".into(),
            record: Record::default(),
            record_apps: BTreeMap::new(),
            packaging: Packaging::default(),
            flush: Flush::Auto,
            wait: SECOND * 5,
            gap: SECOND * 10,
            silence: SECOND * 15,
            republish: Republish::default(),
            stale: SECOND * 3,
        }
    }
}

impl Default for FlvGateway {
    fn default() -> Self {
        Self {
            listen: (ANY, 8080).into(),
            upstream: Vec::new(),
            linger: SECOND * 10,
            flush: Flush::Auto,
            wait: SECOND * 5,
            gap: SECOND * 10,
            silence: SECOND * 15,
            connect: SECOND,
            negative: SECOND,
        }
    }
}

impl Default for FileGateway {
    fn default() -> Self {
        Self {
            listen: (ANY, 8100).into(),
            root: "/var/lib/uringcast".into(),
            upstream: Vec::new(),
            connect: SECOND,
            cache: "/var/cache/uringcast".into(),
            cache_size: 10 * 1024 * MIB,
            cache_file: 1024 * MIB,
            playlist_life: SECOND,
            stale: SECOND * 60,
        }
    }
}

impl Origin {
    /// The URL of its HTTP-FLV listener as seen from this machine.
    pub fn beside(&self) -> Upstream {
        let address = self.flv[self.flv.nearest()];
        let host = match address.ip() {
            IpAddr::V4(ip) if ip.is_unspecified() => "127.0.0.1".to_owned(),
            IpAddr::V6(ip) if ip.is_unspecified() => "::1".to_owned(),
            ip => ip.to_string(),
        };
        Upstream { secure: false, host, port: address.port(), prefix: String::new() }
    }

    /// With a certificate, pages are at the ports of http and https by default.
    pub(super) fn secure_web(&mut self) {
        self.web = "0.0.0.0:80,0.0.0.0:443".parse().expect("two addresses");
    }

    /// Whether any stream is recorded.
    pub fn records(&self) -> bool {
        self.record.is_any() || self.record_apps.values().any(|record| record.is_any())
    }

    /// What is recorded of the streams of `app`.
    pub fn record_of(&self, app: &str) -> Record {
        self.record_apps.get(app).copied().unwrap_or(self.record)
    }
}
