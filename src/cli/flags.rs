//! The flags that set keys of the configuration, and the values given for them.

use std::path::PathBuf;

use clap::Args;

use crate::config::Config;
use crate::config::load::Setting;
use crate::config::units;
use crate::config::{Listen, LogFormat, Packaging, Place, Policy, Record, Role, Upstream};

#[derive(Debug, Args)]
pub(super) struct CommonFlags {
    /// Read this TOML file [default: /etc/uringcast/uringcast.toml if it exists].
    #[arg(long, global = true, value_name = "FILE")]
    pub(super) config: Option<PathBuf>,
    /// Event loops, one thread each [default: one a core].
    #[arg(long, global = true, value_name = "N", value_parser = checked(|text| text.parse::<u16>()))]
    loops: Option<String>,
    /// Answer metrics, probes and the API on these addresses; "off": nowhere [default: 127.0.0.1:9935].
    #[arg(long, global = true, value_name = "ADDR", value_parser = checked(units::parse_admin))]
    admin: Option<String>,
    /// Log filter: "warn", "info", "debug", "info,uringcast::server=debug" [default: info].
    #[arg(long, global = true, value_name = "FILTER")]
    log: Option<String>,
    /// Log format: text or json [default: text].
    #[arg(long, global = true, value_name = "FORMAT", value_parser = checked(str::parse::<LogFormat>))]
    log_format: Option<String>,
    /// Take TLS on all listeners with this certificate and its chain (PEM).
    #[arg(long, global = true, value_name = "FILE")]
    tls_cert: Option<String>,
    /// The private key of --tls-cert (PEM).
    #[arg(long, global = true, value_name = "FILE")]
    tls_key: Option<String>,
    /// Who may publish without a key: open, local (this machine) or deny [default: local].
    #[arg(long, global = true, value_name = "POLICY", value_parser = checked(str::parse::<Policy>))]
    auth_publish: Option<String>,
    /// Who may play without a key: open, local (this machine) or deny [default: open].
    #[arg(long, global = true, value_name = "POLICY", value_parser = checked(str::parse::<Policy>))]
    auth_play: Option<String>,
    /// Ask this service (http://…) about those who show no key and no token.
    #[arg(long, global = true, value_name = "URL", value_parser = checked(str::parse::<Upstream>))]
    auth_hook: Option<String>,
    /// The secrets of signed tokens, one a line, NAME:SECRET or SECRET; the first one signs.
    #[arg(long, global = true, value_name = "FILE")]
    auth_secret_file: Option<String>,
    /// Let viewers finish for this long after SIGTERM [default: 10s].
    #[arg(long, global = true, value_name = "TIME", value_parser = checked(units::parse_duration))]
    drain: Option<String>,
}

#[derive(Debug, Args)]
pub(super) struct OriginFlags {
    /// Listen here for RTMP; several addresses with commas [default: 0.0.0.0:1935].
    #[arg(long, value_name = "ADDR", value_parser = checked(str::parse::<Listen>))]
    rtmp: Option<String>,
    /// Listen here for HTTP-FLV and WS-FLV, push and play; several addresses with commas [default: 0.0.0.0:8501].
    #[arg(long, value_name = "ADDR", value_parser = checked(str::parse::<Listen>))]
    flv: Option<String>,
    /// Listen here for pages and files; several addresses with commas [default: 0.0.0.0:80].
    #[arg(long, value_name = "ADDR", value_parser = checked(str::parse::<Listen>))]
    web: Option<String>,
    /// Keep recordings under this folder [default: /var/lib/uringcast].
    #[arg(long, value_name = "DIR")]
    data: Option<String>,
    /// Record every stream: "none" or some of "flv,hls,fmp4" [default: none; all in the all-in-one and the demo].
    #[arg(long, value_name = "KINDS", value_parser = checked(str::parse::<Record>))]
    record: Option<String>,
    /// Package live streams for players: "recorded", "none" or some of "hls,fmp4" [default: recorded].
    #[arg(long, value_name = "FORMATS", value_parser = checked(str::parse::<Packaging>))]
    packaging: Option<String>,
    #[command(flatten)]
    viewers: ViewerFlags,
}

#[derive(Debug, Args)]
pub(super) struct FlvGatewayFlags {
    /// Listen here for viewers; several addresses with commas [default: 0.0.0.0:8080].
    #[arg(long, value_name = "ADDR", value_parser = checked(str::parse::<Listen>))]
    listen: Option<String>,
    /// Pull from here, http://host:port/prefix; repeat it to add upstreams to try next.
    #[arg(long, value_name = "URL", value_parser = checked(str::parse::<Upstream>))]
    upstream: Vec<String>,
    /// Keep a pull for this long after its last viewer has left [default: 10s].
    #[arg(long, value_name = "TIME", value_parser = checked(units::parse_duration))]
    linger: Option<String>,
    #[command(flatten)]
    viewers: ViewerFlags,
}

#[derive(Debug, Args)]
pub(super) struct ViewerFlags {
    /// Gather tags for this long before they are sent; "auto": for a picture's time when a loop has many viewers
    /// [default: auto].
    #[arg(long, value_name = "TIME", value_parser = checked(str::parse::<units::Flush>))]
    flush: Option<String>,
    /// Let a GET wait this long for a stream that is not live [default: 5s].
    #[arg(long, value_name = "TIME", value_parser = checked(units::parse_duration))]
    wait: Option<String>,
    /// Keep viewers for this long after the publisher has left [default: 10s].
    #[arg(long, value_name = "TIME", value_parser = checked(units::parse_duration))]
    gap: Option<String>,
}

#[derive(Debug, Args)]
pub(super) struct FileGatewayFlags {
    /// Listen here for HTTP clients; several addresses with commas [default: 0.0.0.0:8100].
    #[arg(long, value_name = "ADDR", value_parser = checked(str::parse::<Listen>))]
    listen: Option<String>,
    /// Serve this folder [default: /var/lib/uringcast].
    #[arg(long, value_name = "DIR")]
    root: Option<String>,
    /// Fetch missing files from here, http://host:port/prefix; repeat it to add upstreams to try next.
    #[arg(long, value_name = "URL", value_parser = checked(str::parse::<Upstream>))]
    upstream: Vec<String>,
    /// Keep fetched files in this folder [default: /var/cache/uringcast].
    #[arg(long, value_name = "DIR")]
    cache: Option<String>,
    /// Log requests to this file; "-" is standard output [default: off].
    #[arg(long, value_name = "FILE")]
    access_log: Option<String>,
}

/// A value parser that checks the text and keeps it: the layers hold text.
fn checked<T, E>(
    parse: fn(&str) -> Result<T, E>,
) -> impl Fn(&str) -> Result<String, E> + Clone + Send + Sync {
    move |text| parse(text).map(|_| text.to_owned())
}

/// The flags that were given, as settings.
#[derive(Default)]
pub(super) struct Given(pub(super) Vec<Setting>);

impl Given {
    fn add(&mut self, flag: &str, keys: &[&str], value: Option<&String>) {
        let Some(value) = value else { return };
        for key in keys {
            let place = Place::Flag(flag.to_owned());
            self.0.push(Setting { place, key: (*key).to_owned(), value: value.clone() });
        }
    }

    pub(super) fn common(&mut self, flags: &CommonFlags) {
        self.add("--loops", &["loops"], flags.loops.as_ref());
        self.add("--admin", &["admin"], flags.admin.as_ref());
        self.add("--log", &["log"], flags.log.as_ref());
        self.add("--log-format", &["log_format"], flags.log_format.as_ref());
        self.add("--drain", &["drain"], flags.drain.as_ref());
        self.add("--auth-publish", &["auth.publish"], flags.auth_publish.as_ref());
        self.add("--auth-play", &["auth.play"], flags.auth_play.as_ref());
        self.add("--auth-hook", &["auth.hook"], flags.auth_hook.as_ref());
        self.add("--auth-secret-file", &["auth.secret_file"], flags.auth_secret_file.as_ref());
        self.add("--tls-cert", &["tls.cert"], flags.tls_cert.as_ref());
        self.add("--tls-key", &["tls.key"], flags.tls_key.as_ref());
    }

    /// The demo makes a certificate for itself in its temporary folder.
    pub(super) fn demo_certificate(&mut self) {
        let (cert, key) = Config::demo_certificate();
        self.add("--tls", &["tls.cert"], Some(&cert.to_string_lossy().into_owned()));
        self.add("--tls", &["tls.key"], Some(&key.to_string_lossy().into_owned()));
    }

    /// The origin's flags; those about viewers also apply to a gateway in the same process.
    pub(super) fn origin(&mut self, flags: &OriginFlags, role: Role) {
        self.add("--rtmp", &["origin.rtmp"], flags.rtmp.as_ref());
        self.add("--flv", &["origin.flv"], flags.flv.as_ref());
        self.add("--web", &["origin.web"], flags.web.as_ref());
        self.add("--data", &["origin.data"], flags.data.as_ref());
        self.add("--record", &["origin.record"], flags.record.as_ref());
        self.add("--packaging", &["origin.packaging"], flags.packaging.as_ref());
        self.viewers(&flags.viewers, role);
    }

    pub(super) fn flv_gateway(&mut self, flags: &FlvGatewayFlags) {
        self.add("--listen", &["flv_gateway.listen"], flags.listen.as_ref());
        let upstream = (!flags.upstream.is_empty()).then(|| flags.upstream.join(","));
        self.add("--upstream", &["flv_gateway.upstream"], upstream.as_ref());
        self.add("--linger", &["flv_gateway.linger"], flags.linger.as_ref());
        self.viewers(&flags.viewers, Role::FlvGateway);
    }

    pub(super) fn file_gateway(&mut self, flags: &FileGatewayFlags) {
        self.add("--listen", &["file_gateway.listen"], flags.listen.as_ref());
        self.add("--root", &["file_gateway.root"], flags.root.as_ref());
        let upstream = (!flags.upstream.is_empty()).then(|| flags.upstream.join(","));
        self.add("--upstream", &["file_gateway.upstream"], upstream.as_ref());
        self.add("--cache", &["file_gateway.cache"], flags.cache.as_ref());
        self.add("--access-log", &["access_log.path"], flags.access_log.as_ref());
    }

    fn viewers(&mut self, flags: &ViewerFlags, role: Role) {
        for (name, value) in [("flush", &flags.flush), ("wait", &flags.wait), ("gap", &flags.gap)] {
            for (has, table) in [(role.has_origin(), "origin"), (role.has_flv_gateway(), "flv_gateway")] {
                if has {
                    self.add(&format!("--{name}"), &[&format!("{table}.{name}")], value.as_ref());
                }
            }
        }
    }
}
