//! What a user can set, typed and validated once.
//!
//! Defaults live here only; the units are in the types. The layers are *defaults < TOML file < environment <
//! flags* ([`load`]); unknown keys are refused, and an error names the place, the key and the remedy. Nothing
//! here touches sockets, and a [`Config`] that was handed out has passed [`Config::validate`].

mod check;
mod error;
mod limits;
mod listener;
pub mod load;
mod quantities;
mod roles;
pub mod units;
mod warning;

use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

pub use check::LOOPS_MAX;
pub use error::{ConfigError, Place, Problem, Rule};
pub use limits::{Limits, default_memory};
pub use listener::ListenerOptions;
pub use roles::{FileGateway, FlvGateway, Origin, Republish};
pub use units::{
    AccessFormat, Hook, LogFormat, Network, Rate, Record, Remote, Secret, SendPath, Upstream, client_address,
    is_private, masked,
};
pub use warning::Warning;

use quantities::{LOOPBACK, MIB, SECOND};

/// The demo's temporary folder is named so, with the process's number at its end.
pub const DEMO_FOLDER: &str = "uringcast-demo-";

/// What one process does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Origin, FLV gateway and file gateway in one process.
    AllInOne,
    /// Takes publishers, serves viewers and files.
    Origin,
    /// Pulls from an upstream and fans out.
    FlvGateway,
    /// Serves recorded files and the pages.
    FileGateway,
    /// An origin on loopback that publishes `live/demo` to itself.
    Demo {
        /// Whether an FLV gateway runs beside it.
        gateway: bool,
    },
}

impl Role {
    /// Whether publishers are taken.
    pub fn has_origin(self) -> bool {
        matches!(self, Self::AllInOne | Self::Origin | Self::Demo { .. })
    }

    /// Whether streams are pulled from an upstream.
    pub fn has_flv_gateway(self) -> bool {
        matches!(self, Self::AllInOne | Self::FlvGateway | Self::Demo { gateway: true })
    }

    /// Whether the file gateway listens.
    pub fn has_file_gateway(self) -> bool {
        matches!(self, Self::AllInOne | Self::FileGateway)
    }
}

/// Everything that can be set.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Event loops, one thread each, at most [`LOOPS_MAX`]; 0 means one a core.
    pub loops: usize,
    /// Where `/metrics`, `/livez`, `/readyz` and the API answer; `None` (written "off"): nowhere.
    #[serde(with = "units::admin")]
    pub admin: Option<SocketAddr>,
    /// Whether `admin` was written by the user. If not, a role that finds the address taken goes without.
    #[serde(skip)]
    pub admin_explicit: bool,
    /// Names, besides addresses and `localhost`, that the admin listener may be asked by.
    #[serde(with = "units::names")]
    pub admin_hosts: Vec<String>,
    /// What operators show to see viewers and to end them; empty: every client of the admin listener may, if that
    /// is on a loopback address.
    pub admin_token: Secret,
    /// A filter as tracing's `EnvFilter` reads it.
    pub log: String,
    /// How log lines look.
    pub log_format: LogFormat,
    /// How long viewers may finish after SIGTERM.
    #[serde(with = "units::duration")]
    pub drain: Duration,
    /// The role that takes publishers.
    pub origin: Origin,
    /// The role that pulls and fans out.
    pub flv_gateway: FlvGateway,
    /// The role that serves files.
    pub file_gateway: FileGateway,
    /// The log of requests for files and pages, in every role.
    pub access_log: AccessLog,
    /// How streams are recorded.
    pub recording: Recording,
    /// Limits of live streams and their viewers, in every role.
    pub live: Live,
    /// Limits of memory, connections and client addresses, in every role.
    pub limits: Limits,
    /// Streams of the origin that are published to other servers as well.
    pub forward: Vec<Forward>,
    /// Streams that the origin fetches from other servers.
    pub pull: Vec<Pull>,
}

/// A stream, or all of an app, that is published to another server as well.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Forward {
    /// `app/name`, or `app/*` for all of an app.
    pub stream: String,
    /// Where to; `{app}` and `{name}` in the path stand for the stream's.
    pub to: Remote,
}

impl Forward {
    /// The path on the other server, if it takes that stream.
    pub fn path_for(&self, key: &str) -> Option<String> {
        let (app, name) = key.rsplit_once('/')?;
        let takes = match self.stream.strip_suffix("/*") {
            Some(pattern) => pattern == app,
            None => self.stream == key,
        };
        takes.then(|| self.to.path.replace("{app}", app).replace("{name}", name))
    }
}

/// A stream that is fetched from another server.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Pull {
    /// Its name here, `app/name`.
    pub stream: String,
    /// Where from.
    pub from: Remote,
}

/// The log of requests for files and pages.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AccessLog {
    /// The file, or `-` for standard output; `None` (written "off"): none.
    #[serde(with = "units::path_or_off")]
    pub path: Option<PathBuf>,
    /// How its lines look.
    pub format: AccessFormat,
    /// One request in so many is written.
    pub sample: u64,
    /// Peers whose `X-Real-IP` is believed.
    #[serde(with = "units::hosts")]
    pub proxies: Vec<IpAddr>,
}

/// How streams are recorded, and how long recordings are kept.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Recording {
    /// A segment ends at the first keyframe at or after this.
    #[serde(with = "units::duration")]
    pub segment: Duration,
    /// A take that is longer is ended at a keyframe, and another one begins; zero: a take lasts as long as its stream.
    #[serde(with = "units::duration")]
    pub take: Duration,
    /// Segments that live playlists name.
    pub window: usize,
    /// Whether a segment is on the disk itself, not only in the kernel's memory, before a playlist names it.
    pub sync: bool,
    /// Takes that ended longer ago are removed; zero keeps them.
    #[serde(with = "units::duration")]
    pub keep_time: Duration,
    /// The oldest takes are removed beyond so many bytes of recordings; 0: no limit.
    #[serde(with = "units::size")]
    pub keep_size: usize,
    /// The oldest takes are removed, and then nothing is recorded, while less is free on the disk.
    #[serde(with = "units::size")]
    pub min_free: usize,
    /// Told of each finished file: an `http://` URL that gets a POST, or a command; empty: none.
    pub hook: Hook,
}

/// Limits of live streams and their viewers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Live {
    /// Bytes kept of a stream for viewers to come.
    #[serde(with = "units::size")]
    pub gop_bytes: usize,
    /// Tags kept of a stream.
    pub gop_frames: usize,
    /// Time kept of a stream.
    #[serde(with = "units::duration")]
    pub gop_time: Duration,
    /// A viewer that lags by more, in bytes, goes on at a keyframe.
    #[serde(with = "units::size")]
    pub lag_bytes: usize,
    /// A viewer that lags by more, in time, goes on at a keyframe.
    #[serde(with = "units::duration")]
    pub lag_time: Duration,
    /// A viewer that takes nothing for so long is cut.
    #[serde(with = "units::duration")]
    pub stall: Duration,
    /// A loop that runs short of time gathers tags for up to so long, whatever `flush` says.
    #[serde(with = "units::duration")]
    pub flush_max: Duration,
    /// The largest tag a publisher may send, in bytes.
    #[serde(with = "units::size")]
    pub tag_max: usize,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            loops: 0,
            admin: Some((LOOPBACK, 9935).into()),
            admin_explicit: false,
            admin_hosts: Vec::new(),
            admin_token: Secret::default(),
            log: "info".to_owned(),
            log_format: LogFormat::Text,
            drain: SECOND * 10,
            origin: Origin::default(),
            flv_gateway: FlvGateway::default(),
            file_gateway: FileGateway::default(),
            access_log: AccessLog::default(),
            recording: Recording::default(),
            live: Live::default(),
            limits: Limits::default(),
            forward: Vec::new(),
            pull: Vec::new(),
        }
    }
}

impl Default for AccessLog {
    fn default() -> Self {
        let proxies = vec![LOOPBACK.into(), Ipv6Addr::LOCALHOST.into()];
        Self { path: None, format: AccessFormat::default(), sample: 1, proxies }
    }
}

impl Default for Recording {
    fn default() -> Self {
        Self {
            segment: SECOND * 4,
            take: Duration::from_secs(24 * 3600),
            window: 6,
            sync: true,
            keep_time: Duration::ZERO,
            keep_size: 0,
            min_free: 512 * MIB,
            hook: Hook::Nobody,
        }
    }
}

impl Default for Live {
    fn default() -> Self {
        Self {
            gop_bytes: 32 * MIB,
            gop_frames: 6000,
            gop_time: SECOND * 60,
            lag_bytes: 8 * MIB,
            lag_time: SECOND * 10,
            stall: SECOND * 20,
            flush_max: Duration::from_millis(500),
            tag_max: 16 * MIB,
        }
    }
}

impl Config {
    /// The defaults of a role: the demo binds loopback only, needs no privilege and records into a temporary folder;
    /// the all-in-one, whose file gateway is to have something to serve, records as well.
    pub fn for_role(role: Role) -> Self {
        let mut config = Self::default();
        if let Role::Demo { .. } | Role::AllInOne = role {
            config.origin.record = Record { flv: true, hls: true, fmp4: true };
        }
        if let Role::Demo { .. } = role {
            config.origin.rtmp = (LOOPBACK, 1935).into();
            config.origin.flv = (LOOPBACK, 8501).into();
            config.origin.web = (LOOPBACK, 8088).into();
            config.flv_gateway.listen = (LOOPBACK, 8080).into();
            let own = std::env::temp_dir().join(format!("{DEMO_FOLDER}{}", std::process::id()));
            config.origin.data = own.join("data");
        }
        config
    }
}
