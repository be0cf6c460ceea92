//! The configuration: what a user can set, typed and validated once.
//!
//! Defaults live here only; the units are in the types. The layers are *defaults < TOML file < environment <
//! flags* ([`load`]); unknown keys are refused, and an error names the place, the key and the remedy. This
//! module uses no sockets, and every [`Config`] that it returns has passed [`Config::validate`].

mod auth;
mod check;
mod error;
mod limits;
mod listener;
pub mod load;
mod quantities;
mod quota;
mod roles;
mod tls;
pub mod units;
mod warning;

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

pub use auth::{Action, Auth, KeyRule};
pub use check::LOOPS_MAX;
pub use error::{ConfigError, Place, Problem, Rule};
pub use limits::{Limits, default_memory};
pub use listener::ListenerOptions;
pub use quota::{Quota, is_pattern};
pub use roles::{FileGateway, FlvGateway, Origin, Republish};
pub use tls::{Certificate, Tls};
pub use units::{
    AccessFormat, Flush, Hook, Listen, LogFormat, Network, Packaging, Policy, Rate, Record, Remote, Secret,
    SendPath, Upstream, client_address, is_private, masked,
};
pub use warning::Warning;

use quantities::{LOOPBACK, MIB, SECOND};

/// The prefix of the demo's temporary folder; the process id follows.
pub const DEMO_FOLDER: &str = "uringcast-demo-";

/// The role of a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Origin, FLV gateway and file gateway in one process.
    AllInOne,
    /// Accepts publishers, serves viewers and files.
    Origin,
    /// Pulls from an upstream and fans out.
    FlvGateway,
    /// Serves recorded files and the pages.
    FileGateway,
    /// An origin on loopback that publishes `live/demo` to itself.
    Demo {
        /// Whether an FLV gateway runs in the same process.
        gateway: bool,
    },
}

impl Role {
    /// Whether publishers are accepted.
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

/// All settings.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Event loops, one thread each, at most [`LOOPS_MAX`]; 0 means one a core.
    pub loops: usize,
    /// Where `/metrics`, `/livez`, `/readyz` and the API answer; `None` (written "off"): nowhere.
    #[serde(with = "units::admin")]
    pub admin: Option<Listen>,
    /// Whether `admin` was written by the user. If not, a role that finds the address taken runs without the
    /// listener.
    #[serde(skip)]
    pub admin_explicit: bool,
    /// Host names, besides addresses and `localhost`, under which the admin listener answers.
    #[serde(with = "units::names")]
    pub admin_hosts: Vec<String>,
    /// The token that operators present to list viewers and to end them; empty: every client of the admin
    /// listener may, if that is on a loopback address.
    pub admin_token: Secret,
    /// A filter in the syntax of tracing's `EnvFilter`.
    pub log: String,
    /// The format of log lines.
    pub log_format: LogFormat,
    /// How long viewers may finish after SIGTERM.
    #[serde(with = "units::duration")]
    pub drain: Duration,
    /// The role that accepts publishers.
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
    /// Certificates, in every role.
    pub tls: Tls,
    /// Who may publish and play, in every role.
    pub auth: Auth,
    /// Streams of the origin that are also published to other servers.
    pub forward: Vec<Forward>,
    /// Streams that the origin fetches from other servers.
    pub pull: Vec<Pull>,
}

/// A stream, or all streams of an app, that is also published to another server.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Forward {
    /// `app/name`, or `app/*` for all of an app.
    pub stream: String,
    /// The target; `{app}` and `{name}` in the path are replaced by those of the stream.
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
    /// The source.
    pub from: Remote,
}

/// The log of requests for files and pages.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AccessLog {
    /// The file, or `-` for standard output; `None` (written "off"): none.
    #[serde(with = "units::path_or_off")]
    pub path: Option<PathBuf>,
    /// The format of its lines.
    pub format: AccessFormat,
    /// One request in this many is written.
    pub sample: u64,
    /// Peers whose `X-Real-IP` is trusted.
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
    /// A longer take ends at a keyframe, and another one begins; zero: a take lasts as long as its stream.
    #[serde(with = "units::duration")]
    pub take: Duration,
    /// Segments that live playlists name.
    pub window: usize,
    /// Whether a segment is synced to the disk before a playlist names it.
    pub sync: bool,
    /// Takes that ended longer ago are removed; zero keeps them.
    #[serde(with = "units::duration")]
    pub keep_time: Duration,
    /// The oldest takes are removed if all recordings exceed this many bytes; 0: no limit.
    #[serde(with = "units::size")]
    pub keep_size: usize,
    /// While less than this is free on the disk, the oldest takes are removed, and then nothing is recorded.
    #[serde(with = "units::size")]
    pub min_free: usize,
    /// The same for the number of files that the disk still has space for; 0: not checked.
    pub min_free_files: u64,
    /// What is kept of some streams instead, by `app/name` or `app/*`.
    pub apps: BTreeMap<String, Quota>,
    /// Called for each finished file: an `http://` URL that gets a POST, or a command; empty: none.
    pub hook: Hook,
}

/// Limits of live streams and their viewers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Live {
    /// Bytes of a stream that are kept for new viewers.
    #[serde(with = "units::size")]
    pub gop_bytes: usize,
    /// Tags kept of a stream.
    pub gop_frames: usize,
    /// Time kept of a stream.
    #[serde(with = "units::duration")]
    pub gop_time: Duration,
    /// A viewer that lags by more than this, in bytes, continues at a keyframe.
    #[serde(with = "units::size")]
    pub lag_bytes: usize,
    /// A viewer that lags by more than this, in time, continues at a keyframe.
    #[serde(with = "units::duration")]
    pub lag_time: Duration,
    /// A viewer that takes nothing for this long is disconnected.
    #[serde(with = "units::duration")]
    pub stall: Duration,
    /// A loop that is short of CPU time gathers tags for up to this long, regardless of `flush`.
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
            admin: Some(SocketAddr::from((LOOPBACK, 9935)).into()),
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
            tls: Tls::default(),
            auth: Auth::default(),
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
            min_free_files: 1000,
            apps: BTreeMap::new(),
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
    /// The defaults of a role: the demo binds loopback only, needs no privilege and records into a temporary
    /// folder; the all-in-one records as well, so that its file gateway has something to serve.
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

    /// The certificate that the demo makes for itself, beside its recordings, and its key.
    pub fn demo_certificate() -> (PathBuf, PathBuf) {
        let data = Self::for_role(Role::Demo { gateway: false }).origin.data;
        (data.with_file_name("cert.pem"), data.with_file_name("key.pem"))
    }

    /// Whether recordings go to the demo's own folder, which is removed with it.
    pub fn is_temporary(&self, role: Role) -> bool {
        matches!(role, Role::Demo { .. }) && self.origin.data == Self::for_role(role).origin.data
    }
}

impl Recording {
    /// The pattern in `apps` that a stream belongs to, and its quota: its own name before that of its app.
    pub fn quota_of(&self, stream: &str) -> Option<(&str, &Quota)> {
        quota::of(&self.apps, stream)
    }
}
