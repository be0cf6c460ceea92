//! The arguments of a run.

use std::net::{SocketAddr, ToSocketAddrs};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use rustls::ClientConfig;
use rustls::pki_types::ServerName;

use super::error::StressError;
use crate::protocol::tls::trust::server_name;
use crate::tools::trust::TrustArgs;
use crate::tools::url::{host_of, with_port, without_tls};

/// Arguments of `uringcast stress`.
#[derive(Clone, Debug, clap::Args)]
pub struct StressArgs {
    /// What to play: `http://HOST:PORT/app/name.flv`, `ws://…`, `rtmp://…`, an HLS playlist (`….m3u8`) or any
    /// other file, or the same with `https`, `wss` or `rtmps`; several URLs share the viewers. `{}` in a URL is replaced by each number from 0 up to
    /// --streams
    #[arg(required = true)]
    pub urls: Vec<String>,
    /// How to play URLs that do not tell
    #[arg(long, value_name = "PROTOCOL")]
    pub protocol: Option<Protocol>,
    /// Number of viewers
    #[arg(long, short = 'n', value_name = "N")]
    pub viewers: usize,
    /// Number of streams that `{}` in a URL stands for
    #[arg(long, default_value_t = 1, value_name = "N")]
    pub streams: usize,
    /// Seconds over which the viewers arrive
    #[arg(long, default_value_t = 5.0, value_name = "SECS", value_parser = seconds)]
    pub ramp: f64,
    /// Seconds to measure once all viewers have arrived
    #[arg(long, default_value_t = 30.0, value_name = "SECS", value_parser = seconds)]
    pub duration: f64,
    /// Viewers of which every tag is checked
    #[arg(long, default_value_t = 20, value_name = "K")]
    pub sample_check: usize,
    /// Seconds from one file request of a viewer to its next; 0: as soon as it has the file
    #[arg(long, default_value_t = 0.0, value_name = "SECS", value_parser = seconds)]
    pub ask_every: f64,
    /// Milliseconds between two checks of the sockets; 0: as soon as bytes come, which makes a server on the
    /// same machine pay for waking this tool
    #[arg(long, default_value_t = 2, value_name = "MS")]
    pub read_every: u64,
    /// Processes that share the work; 0: as many as the limit on open files requires
    #[arg(long, default_value_t = 0, value_name = "N")]
    pub processes: usize,
    /// The server's process id, to measure its CPU and memory
    #[arg(long, value_name = "PID")]
    pub server_pid: Option<u32>,
    /// Print the report as one line of JSON
    #[arg(long)]
    pub json: bool,
    /// Also write the report with its plots to a file
    #[arg(long, value_name = "FILE")]
    pub html: Option<PathBuf>,
    /// Whom to trust
    #[command(flatten)]
    pub trust: TrustArgs,
    /// No progress bar
    #[arg(long)]
    pub quiet: bool,
    /// This is one of several processes of a run: its number
    #[arg(long, hide = true)]
    pub part: Option<usize>,
}

/// A run with all its options.
#[derive(Clone, Debug)]
pub struct Options {
    /// What is played; viewers are assigned in turn.
    pub targets: Vec<Target>,
    /// Viewers to hold.
    pub viewers: usize,
    /// The time over which they arrive.
    pub ramp: Duration,
    /// The time that is measured.
    pub duration: Duration,
    /// The interval between a viewer's requests for a file.
    pub ask_every: Duration,
    /// The interval between checks of the sockets.
    pub read_every: Duration,
    /// Viewers of which every tag is checked, the first ones to arrive; at least one.
    pub sampled: usize,
    /// Number of the first viewer; lower numbers belong to other processes.
    pub first: usize,
}

/// What is played: where to connect and what to request.
#[derive(Clone, Debug)]
pub struct Target {
    /// Where the server listens.
    pub addr: SocketAddr,
    /// `Host` header.
    pub host: String,
    /// Path and query.
    pub path: String,
    /// How it is played.
    pub protocol: Protocol,
    /// In TLS, as this client.
    pub(super) tls: Option<Tls>,
}

/// A client of TLS: its configuration, and the name that the server's certificate must be for.
pub(super) type Tls = (Arc<ClientConfig>, ServerName<'static>);

/// How something is played.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Protocol {
    /// Live, over HTTP
    HttpFlv,
    /// Live, over a WebSocket
    WsFlv,
    /// Live, over RTMP
    Rtmp,
    /// A playlist and its segments, as a player fetches them
    Hls,
    /// A file, again and again
    File,
}

impl Protocol {
    /// Whether the server sends when the publisher does; otherwise viewers request.
    pub const fn is_live(self) -> bool {
        matches!(self, Self::HttpFlv | Self::WsFlv | Self::Rtmp)
    }

    /// The protocol for a URL's path.
    fn of_path(path: &str) -> Self {
        let file = path.split('?').next().unwrap_or_default();
        match file.rsplit_once('.') {
            Some((_, "flv")) => Self::HttpFlv,
            Some((_, "m3u8")) => Self::Hls,
            _ => Self::File,
        }
    }
}

/// The most streams that a URL may stand for.
const STREAMS_MAX: usize = 100_000;

impl StressArgs {
    /// The run that these arguments describe, or part number `part` of `parts` of it; resolves the hosts of the
    /// URLs.
    ///
    /// # Errors
    /// [`StressError::Url`].
    pub fn options(&self, part: usize, parts: usize) -> Result<Options, StressError> {
        let from = self.viewers * part / parts;
        let viewers = self.viewers * (part + 1) / parts - from;
        Ok(Options {
            targets: self.targets()?,
            viewers,
            ramp: Duration::from_secs_f64(self.ramp),
            duration: Duration::from_secs_f64(self.duration),
            ask_every: Duration::from_secs_f64(self.ask_every),
            read_every: Duration::from_millis(self.read_every),
            sampled: self.sample_check.div_ceil(parts).clamp(1, viewers.max(1)),
            first: from,
        })
    }

    fn targets(&self) -> Result<Vec<Target>, StressError> {
        let mut targets = Vec::new();
        for url in &self.urls {
            let count = if url.contains("{}") { self.streams.min(STREAMS_MAX) } else { 1 };
            let mut first = Target::resolve(&url.replace("{}", "0"), &self.trust)?;
            first.protocol = self.protocol.unwrap_or(first.protocol);
            targets.extend((0..count).map(|number| {
                let path = first.path_of(url).replace("{}", &number.to_string());
                Target { path, ..first.clone() }
            }));
        }
        Ok(targets)
    }
}

impl Target {
    /// Parses a URL and resolves its host.
    ///
    /// # Errors
    /// [`StressError::Url`].
    pub fn resolve(url: &str, trust: &TrustArgs) -> Result<Self, StressError> {
        let wrong = |reason| StressError::Url { url: url.to_owned(), reason };
        let (scheme, rest) = url.split_once("://").ok_or(wrong("has no scheme"))?;
        let (host, path) = rest.split_at(rest.find('/').ok_or(wrong("has no path"))?);
        let (scheme, secure) = without_tls(scheme);
        let (protocol, port) = match scheme {
            "http" => (Protocol::of_path(path), 80),
            "ws" => (Protocol::WsFlv, 80),
            "rtmp" => (Protocol::Rtmp, 1935),
            _ => return Err(wrong("does not begin with http(s)://, ws(s):// or rtmp(s)://")),
        };
        let address = with_port(host, port, secure);
        let mut found = address.to_socket_addrs().map_err(|_| wrong("the host cannot be resolved"))?;
        let addr = found.next().ok_or(wrong("the host has no address"))?;
        let tls = match server_name(host_of(&address)).filter(|_| secure) {
            Some(name) => Some((trust.client()?, name)),
            None if secure => return Err(wrong("has a host that no certificate is for")),
            None => None,
        };
        Ok(Self { addr, host: host.to_owned(), path: path.to_owned(), protocol, tls })
    }

    /// The path of another URL on the same host.
    fn path_of(&self, url: &str) -> String {
        let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
        rest.find('/').map_or_else(String::new, |at| rest[at..].to_owned())
    }

    /// The request for `path` on this host.
    pub(super) fn request(&self, path: &str) -> String {
        let upgrade = if self.protocol == Protocol::WsFlv {
            "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
             Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
        } else {
            ""
        };
        let version = env!("CARGO_PKG_VERSION");
        format!(
            "GET {path} HTTP/1.1\r\nHost: {}\r\nUser-Agent: uringcast-stress/{version}\r\n{upgrade}\r\n",
            self.host
        )
    }
}

fn seconds(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(value) if (0.0..=86_400.0).contains(&value) => Ok(value),
        _ => Err("not a number of seconds from 0 to 86400".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn viewers_are_shared_by_streams_and_processes() {
        #[derive(clap::Parser)]
        struct Line {
            #[command(flatten)]
            stress: StressArgs,
        }
        let line = "x http://127.0.0.1:1/live/s{}.flv ws://127.0.0.1:2/live/t.flv --streams 3 -n 10";
        let args = <Line as clap::Parser>::parse_from(line.split(' ')).stress;
        let whole = args.options(0, 1).unwrap();
        let paths: Vec<&str> = whole.targets.iter().map(|target| target.path.as_str()).collect();
        assert_eq!(paths, ["/live/s0.flv", "/live/s1.flv", "/live/s2.flv", "/live/t.flv"]);
        let parts: Vec<_> = (0..3).map(|part| args.options(part, 3).unwrap()).collect();
        assert_eq!(parts.iter().map(|part| part.viewers).sum::<usize>(), 10);
        assert_eq!(parts.iter().map(|part| part.first).collect::<Vec<_>>(), [0, 3, 6]);
    }

    #[test]
    fn urls_are_parsed() {
        for (url, port, path, protocol) in [
            ("ws://127.0.0.1:8501/live/a.flv?x=1", 8501, "/live/a.flv?x=1", Protocol::WsFlv),
            ("http://127.0.0.1/live/a.flv?x=1", 80, "/live/a.flv?x=1", Protocol::HttpFlv),
            ("rtmp://127.0.0.1/live/a", 1935, "/live/a", Protocol::Rtmp),
            ("http://127.0.0.1:80/hls/live/a/index.m3u8", 80, "/hls/live/a/index.m3u8", Protocol::Hls),
            ("http://127.0.0.1/", 80, "/", Protocol::File),
        ] {
            let target = Target::resolve(url, &TrustArgs::default()).unwrap();
            assert_eq!((target.addr.port(), target.path.as_str(), target.protocol), (port, path, protocol));
        }
        for wrong in ["ftp://127.0.0.1/a/b", "http://127.0.0.1", "127.0.0.1/a"] {
            assert!(
                matches!(Target::resolve(wrong, &TrustArgs::default()), Err(StressError::Url { .. })),
                "{wrong}"
            );
        }
    }
}
