//! The values a user writes: addresses, sizes, durations, upstream URLs, the set of recordings.
//!
//! Each has one parser from text that the file, the environment and the flags share, and an error that says
//! what to write instead. Nothing here resolves names or opens anything.

mod network;
mod rate;

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use serde::de::{self, Deserializer, Visitor};
use serde::{Deserialize, Serialize, Serializer};

pub use network::{Network, client_address, is_private};
pub use rate::Rate;

/// What is wrong with a value, and how to write it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UnitError {
    /// Not an address to listen on.
    #[error("{text:?} is not an address: write \"0.0.0.0:8080\", \"[::]:8080\" or \":8080\"")]
    Address {
        /// What was written.
        text: String,
    },
    /// Not a number of bytes.
    #[error("{text:?} is not a size: write a number of bytes or \"512KiB\", \"32MiB\", \"1GiB\"")]
    Size {
        /// What was written.
        text: String,
    },
    /// Not a duration.
    #[error("{text:?} is not a duration: write \"350ms\", \"10s\" or \"1m 30s\"")]
    Duration {
        /// What was written.
        text: String,
    },
    /// Not the URL of an upstream.
    #[error("{text:?} is not an upstream ({why}): write \"http://host[:port][/prefix]\"")]
    Upstream {
        /// What was written.
        text: String,
        /// The part that is wrong.
        why: &'static str,
    },
    /// Not the URL of a stream on another server.
    #[error(
        "{text:?} is not the URL of a stream ({why}): write \"rtmp://host/app/name\" or \"http://host:8501/app/name.flv\""
    )]
    Remote {
        /// What was written.
        text: String,
        /// The part that is wrong.
        why: &'static str,
    },
    /// Not a kind of recording.
    #[error("{text:?} cannot be recorded: write \"none\" or some of \"flv,hls,fmp4\"")]
    Record {
        /// What was written.
        text: String,
    },
    /// Not a form of the access log.
    #[error("{text:?} is not a form of the access log: write \"combined\" or \"json\"")]
    AccessFormat {
        /// What was written.
        text: String,
    },
    /// Not the address of a host.
    #[error("{text:?} is not a list of addresses: write \"127.0.0.1,::1\"")]
    Hosts {
        /// What was written.
        text: String,
    },
    /// Not bits per second.
    #[error("{text:?} is not a rate: write bits a second or \"64kbps\", \"100Mbps\", \"1Gbps\"")]
    Rate {
        /// What was written.
        text: String,
    },
    /// Not a network.
    #[error("{text:?} is not a network ({why}): write \"10.0.0.0/8\", \"2001:db8::/32\" or an address")]
    Network {
        /// What was written.
        text: String,
        /// The part that is wrong.
        why: &'static str,
    },
    /// Not fit to be a secret; it is not repeated.
    #[error("what is written is no token: write at least 16 letters, digits and signs, not digits alone")]
    Secret,
    /// Not a log format.
    #[error("{text:?} is not a log format: write \"text\" or \"json\"")]
    LogFormat {
        /// What was written.
        text: String,
    },
}

/// Parses an address to listen on; a missing host means every IPv4 address.
///
/// # Errors
/// [`UnitError::Address`]: names are not looked up, so `localhost:80` is refused.
pub fn parse_listen(text: &str) -> Result<SocketAddr, UnitError> {
    let wrong = || UnitError::Address { text: text.to_owned() };
    match text.strip_prefix(':') {
        Some(port) => {
            let port = port.parse().map_err(|_| wrong())?;
            Ok(SocketAddr::from((Ipv4Addr::UNSPECIFIED, port)))
        }
        None => text.parse().map_err(|_| wrong()),
    }
}

/// Parses the admin address: as [`parse_listen`], or `off`.
///
/// # Errors
/// [`UnitError::Address`].
pub fn parse_admin(text: &str) -> Result<Option<SocketAddr>, UnitError> {
    if text == "off" { Ok(None) } else { parse_listen(text).map(Some) }
}

/// Parses a number of bytes: plain digits, or digits and a unit (`KiB` is 1024 bytes, `kB` is 1000).
///
/// # Errors
/// [`UnitError::Size`], also where the product does not fit.
pub fn parse_size(text: &str) -> Result<usize, UnitError> {
    let wrong = || UnitError::Size { text: text.to_owned() };
    let trimmed = text.trim();
    let split = trimmed.find(|c: char| !c.is_ascii_digit()).unwrap_or(trimmed.len());
    let (digits, unit) = trimmed.split_at(split);
    let factor: usize = match unit.trim_start().to_ascii_lowercase().as_str() {
        "" | "b" => 1,
        "kb" => 1000,
        "kib" => 1 << 10,
        "mb" => 1_000_000,
        "mib" => 1 << 20,
        "gb" => 1_000_000_000,
        "gib" => 1 << 30,
        _ => return Err(wrong()),
    };
    digits.parse::<usize>().ok().and_then(|n| n.checked_mul(factor)).ok_or_else(wrong)
}

/// Parses a duration as humantime writes it.
///
/// # Errors
/// [`UnitError::Duration`]: a unit is needed, except for a bare `0`.
pub fn parse_duration(text: &str) -> Result<Duration, UnitError> {
    humantime::parse_duration(text).map_err(|_| UnitError::Duration { text: text.to_owned() })
}

/// Writes a size the way [`parse_size`] reads it, in the largest binary unit without a remainder.
pub fn format_size(bytes: usize) -> String {
    for (shift, unit) in [(30, "GiB"), (20, "MiB"), (10, "KiB")] {
        if bytes != 0 && bytes.trailing_zeros() >= shift {
            return format!("{}{unit}", bytes >> shift);
        }
    }
    bytes.to_string()
}

/// Where a gateway pulls from: the origin or another gateway, over plain HTTP.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Upstream {
    /// A name or an address; an IPv6 address without its brackets.
    pub host: String,
    /// The TCP port, 80 where the URL has none.
    pub port: u16,
    /// What stands in front of `/{app}/{name}.flv`: empty, or `/edge` without a slash at its end.
    pub prefix: String,
}

impl Upstream {
    /// The value of the `Host` header: the port is left out where it is 80.
    pub fn authority(&self) -> String {
        let open = if self.host.contains(':') { format!("[{}]", self.host) } else { self.host.clone() };
        if self.port == 80 { open } else { format!("{open}:{}", self.port) }
    }
}

impl fmt::Display for Upstream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "http://{}{}", self.authority(), self.prefix)
    }
}

impl FromStr for Upstream {
    type Err = UnitError;

    fn from_str(text: &str) -> Result<Self, UnitError> {
        let wrong = |why| UnitError::Upstream { text: text.to_owned(), why };
        let rest = text.strip_prefix("http://").ok_or_else(|| wrong("only http:// is spoken"))?;
        let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
        if authority.contains('@') {
            return Err(wrong("user names and passwords are not sent"));
        }
        let (host, port) = split_authority(authority).ok_or_else(|| wrong("the host is malformed"))?;
        let port = match port {
            None => 80,
            Some(digits) => match digits.parse() {
                Ok(port) if port != 0 => port,
                _ => return Err(wrong("the port is not 1-65535")),
            },
        };
        if !path.bytes().all(|b| b.is_ascii_graphic() && b != b'?' && b != b'#') {
            return Err(wrong("the prefix holds a character that must not be there"));
        }
        Ok(Self { host: host.to_owned(), port, prefix: path.trim_end_matches('/').to_owned() })
    }
}

/// A stream on another server, to forward to or to pull from.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Remote {
    /// RTMP, otherwise HTTP-FLV.
    pub rtmp: bool,
    /// A name or an address; an IPv6 address without its brackets.
    pub host: String,
    /// The TCP port, 1935 or 80 where the URL has none.
    pub port: u16,
    /// Host and port as they stand in the URL.
    pub authority: String,
    /// `/app/name`, with a query if there is one.
    pub path: String,
}

impl Remote {
    /// App, `tcUrl` and name, as RTMP wants them, of a path: its last part is the name.
    pub fn rtmp_parts(&self, path: &str) -> (String, String, String) {
        let (path, query) = path.split_once('?').unwrap_or((path, ""));
        let (app, name) = path.trim_matches('/').rsplit_once('/').unwrap_or_default();
        let name = if query.is_empty() { name.to_owned() } else { format!("{name}?{query}") };
        (app.to_owned(), format!("rtmp://{}/{app}", self.authority), name)
    }
}

impl fmt::Display for Remote {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.rtmp { "rtmp" } else { "http" };
        // A query may hold a token, which is for nobody's eyes.
        let path = self.path.split('?').next().unwrap_or_default();
        write!(f, "{scheme}://{}{path}", self.authority)
    }
}

impl FromStr for Remote {
    type Err = UnitError;

    fn from_str(text: &str) -> Result<Self, UnitError> {
        let wrong = |why| UnitError::Remote { text: text.to_owned(), why };
        let (rtmp, rest) = match (text.strip_prefix("rtmp://"), text.strip_prefix("http://")) {
            (Some(rest), _) => (true, rest),
            (_, Some(rest)) => (false, rest),
            _ => return Err(wrong("only rtmp:// and http:// are spoken")),
        };
        let (authority, path) = rest.split_at(rest.find('/').ok_or_else(|| wrong("it names no stream"))?);
        if authority.contains('@') {
            return Err(wrong("user names and passwords are not sent"));
        }
        let (host, port) = split_authority(authority).ok_or_else(|| wrong("the host is malformed"))?;
        let port = match port {
            None if rtmp => 1935,
            None => 80,
            Some(digits) => digits.parse().map_err(|_| wrong("the port is not 1-65535"))?,
        };
        let name = path.split('?').next().unwrap_or_default();
        if name.trim_matches('/').split('/').filter(|part| !part.is_empty()).count() < 2 {
            return Err(wrong("it names no stream"));
        }
        if !path.bytes().all(|b| b.is_ascii_graphic() && b != b'#') {
            return Err(wrong("it holds a character that must not be there"));
        }
        let (host, authority, path) = (host.to_owned(), authority.to_owned(), path.to_owned());
        Ok(Self { rtmp, host, port, authority, path })
    }
}

/// `host`, `host:port`, `[v6]` or `[v6]:port`; `None` for anything else.
fn split_authority(authority: &str) -> Option<(&str, Option<&str>)> {
    if let Some(rest) = authority.strip_prefix('[') {
        let (host, tail) = rest.split_once(']')?;
        host.parse::<std::net::Ipv6Addr>().ok()?;
        return match tail {
            "" => Some((host, None)),
            _ => tail.strip_prefix(':').map(|port| (host, Some(port))),
        };
    }
    let (host, port) = match authority.split_once(':') {
        Some((host, port)) => (host, Some(port)),
        None => (authority, None),
    };
    let named = !host.is_empty() && host.len() <= 253;
    let clean = host.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_'));
    (named && clean).then_some((host, port))
}

/// Which recordings an origin makes of every stream.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Record {
    /// The stream as it came, as one FLV file.
    pub flv: bool,
    /// TS segments and a playlist.
    pub hls: bool,
    /// Fragmented MP4, merged when the stream ends.
    pub fmp4: bool,
}

impl Record {
    /// Whether anything is recorded.
    pub fn is_any(self) -> bool {
        self.flv || self.hls || self.fmp4
    }
}

impl FromStr for Record {
    type Err = UnitError;

    fn from_str(text: &str) -> Result<Self, UnitError> {
        let mut set = Self::default();
        if text.trim() == "none" {
            return Ok(set);
        }
        for word in text.split(',') {
            match word.trim() {
                "flv" => set.flv = true,
                "hls" => set.hls = true,
                "fmp4" => set.fmp4 = true,
                _ => return Err(UnitError::Record { text: text.to_owned() }),
            }
        }
        Ok(set)
    }
}

impl fmt::Display for Record {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let words = [(self.flv, "flv"), (self.hls, "hls"), (self.fmp4, "fmp4")];
        let given: Vec<&str> = words.iter().filter(|(on, _)| *on).map(|(_, word)| *word).collect();
        f.write_str(if given.is_empty() { "none".to_owned() } else { given.join(",") }.as_str())
    }
}

/// How the bytes of streams leave.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SendPath {
    /// Chosen by size and by what the kernel reports.
    #[default]
    Auto,
    /// Copied into the socket's buffer.
    Copy,
    /// The same, from registered memory.
    Fixed,
    /// From registered memory, without a copy where the path allows.
    ZeroCopy,
    /// By reference to the pages of the log.
    Pages,
}

/// Who is told of finished files.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Hook {
    /// Nobody.
    #[default]
    Nobody,
    /// A server gets a POST.
    Http(Upstream),
    /// A command, as a shell reads it.
    Command(String),
}

impl FromStr for Hook {
    type Err = UnitError;

    fn from_str(text: &str) -> Result<Self, UnitError> {
        let text = text.trim();
        if text.is_empty() {
            return Ok(Self::Nobody);
        }
        // A URL of another scheme is a slip, no command.
        if text.contains("://") && !text.contains(char::is_whitespace) {
            return text.parse().map(Self::Http);
        }
        Ok(Self::Command(text.to_owned()))
    }
}

impl fmt::Display for Hook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Nobody => Ok(()),
            Self::Http(url) => url.fmt(f),
            Self::Command(command) => f.write_str(command),
        }
    }
}

/// How log lines look on stderr.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LogFormat {
    /// For people and journald.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

impl FromStr for LogFormat {
    type Err = UnitError;

    fn from_str(text: &str) -> Result<Self, UnitError> {
        match text {
            "text" => Ok(Self::Text),
            "json" => Ok(Self::Json),
            _ => Err(UnitError::LogFormat { text: text.to_owned() }),
        }
    }
}

impl fmt::Display for LogFormat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Text => "text",
            Self::Json => "json",
        })
    }
}

/// How lines of the access log look.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum AccessFormat {
    /// As nginx and Apache write it, which every tool reads.
    #[default]
    Combined,
    /// One JSON object a line.
    Json,
}

impl FromStr for AccessFormat {
    type Err = UnitError;

    fn from_str(text: &str) -> Result<Self, UnitError> {
        match text {
            "combined" => Ok(Self::Combined),
            "json" => Ok(Self::Json),
            _ => Err(UnitError::AccessFormat { text: text.to_owned() }),
        }
    }
}

impl fmt::Display for AccessFormat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Combined => "combined",
            Self::Json => "json",
        })
    }
}

/// A token that whoever shows it is believed for; empty: there is none. Never in logs, nor in errors.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Secret(String);

/// The shortest one, in bytes.
const SECRET_MIN: usize = 16;

impl Secret {
    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether `shown` is it. How long that takes says nothing of where they differ.
    pub fn is(&self, shown: &str) -> bool {
        let differ = self.0.bytes().zip(shown.bytes()).fold(0, |sum, (one, other)| sum | (one ^ other));
        !self.is_empty() && self.0.len() == shown.len() && std::hint::black_box(differ) == 0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.is_empty() { "none" } else { "…" })
    }
}

impl FromStr for Secret {
    type Err = UnitError;

    fn from_str(text: &str) -> Result<Self, UnitError> {
        // Digits alone were a number on their way here, and what was in front of them is lost.
        let digits = text.bytes().all(|byte| byte.is_ascii_digit());
        let good = text.len() >= SECRET_MIN && text.bytes().all(|byte| byte.is_ascii_graphic()) && !digits;
        if good || text.is_empty() { Ok(Self(text.to_owned())) } else { Err(UnitError::Secret) }
    }
}

impl Serialize for Secret {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for Secret {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Written("a token in quotes", str::parse))
    }
}

/// Reads text, a bare number or a list of text (joined by commas) and hands it to one of the parsers.
struct Written<T>(&'static str, fn(&str) -> Result<T, UnitError>);

impl<'de, T> Visitor<'de> for Written<T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<T, E> {
        (self.1)(text).map_err(E::custom)
    }

    fn visit_u64<E: de::Error>(self, number: u64) -> Result<T, E> {
        self.visit_str(&number.to_string())
    }

    fn visit_i64<E: de::Error>(self, number: i64) -> Result<T, E> {
        self.visit_str(&number.to_string())
    }

    fn visit_seq<A: de::SeqAccess<'de>>(self, mut list: A) -> Result<T, A::Error> {
        let mut words: Vec<String> = Vec::new();
        while let Some(word) = list.next_element()? {
            words.push(word);
        }
        self.visit_str(&words.join(","))
    }
}

/// A pair of serde functions for fields of foreign types.
macro_rules! written {
    ($(#[$doc:meta])* $name:ident, $type:ty, $expect:literal, $parse:expr, $write:expr) => {
        $(#[$doc])*
        pub(super) mod $name {
            use super::*;

            pub(in crate::config) fn serialize<S: Serializer>(value: &$type, s: S) -> Result<S::Ok, S::Error> {
                let write: fn(&$type) -> String = $write;
                s.serialize_str(&write(value))
            }

            pub(in crate::config) fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<$type, D::Error> {
                d.deserialize_any(Written($expect, $parse))
            }
        }
    };
}

written!(listen, SocketAddr, "an address as \"0.0.0.0:8080\"", parse_listen, ToString::to_string);
written!(size, usize, "a size as \"32MiB\"", parse_size, |bytes| format_size(*bytes));
written!(duration, Duration, "a duration as \"10s\"", parse_duration, |time| {
    humantime::format_duration(*time).to_string()
});
written!(admin, Option<SocketAddr>, "an address or \"off\"", parse_admin, |admin| {
    admin.map_or_else(|| "off".to_owned(), |address| address.to_string())
});
written!(upstreams, Vec<Upstream>, "a list of URLs", parse_upstreams, |list| {
    list.iter().map(ToString::to_string).collect::<Vec<_>>().join(",")
});

written!(path_or_off, Option<PathBuf>, "a path or \"off\"", parse_path_or_off, |path| {
    path.as_ref().map_or_else(|| "off".to_owned(), |path| path.display().to_string())
});
written!(hosts, Vec<IpAddr>, "a list of addresses", parse_hosts, |list| {
    list.iter().map(ToString::to_string).collect::<Vec<_>>().join(",")
});

written!(networks, Vec<Network>, "a list of networks as \"10.0.0.0/8\"", parse_networks, |list| {
    list.iter().map(ToString::to_string).collect::<Vec<_>>().join(",")
});

fn parse_networks(text: &str) -> Result<Vec<Network>, UnitError> {
    text.split(',').map(str::trim).filter(|network| !network.is_empty()).map(str::parse).collect()
}

/// Parses a path, or `off`.
///
/// # Errors
/// None: any other text is a path.
pub fn parse_path_or_off(text: &str) -> Result<Option<PathBuf>, UnitError> {
    Ok((text != "off").then(|| text.into()))
}

fn parse_hosts(text: &str) -> Result<Vec<IpAddr>, UnitError> {
    let hosts = text.split(',').map(str::trim).filter(|host| !host.is_empty()).map(str::parse);
    hosts.collect::<Result<_, _>>().map_err(|_| UnitError::Hosts { text: text.to_owned() })
}

fn parse_upstreams(text: &str) -> Result<Vec<Upstream>, UnitError> {
    text.split(',').map(str::trim).filter(|url| !url.is_empty()).map(str::parse).collect()
}

macro_rules! by_text {
    ($type:ty, $expect:literal) => {
        impl Serialize for $type {
            fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
                s.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $type {
            fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
                d.deserialize_any(Written($expect, str::parse))
            }
        }
    };
}

by_text!(Rate, "a rate as \"100Mbps\"");
by_text!(Record, "\"none\" or some of \"flv,hls,fmp4\"");
impl Serialize for Remote {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        let scheme = if self.rtmp { "rtmp" } else { "http" };
        s.collect_str(&format_args!("{scheme}://{}{}", self.authority, self.path))
    }
}

impl<'de> Deserialize<'de> for Remote {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        d.deserialize_any(Written("a URL as \"rtmp://host/app/name\"", str::parse))
    }
}

by_text!(Hook, "an http:// URL or a command");
by_text!(LogFormat, "\"text\" or \"json\"");
by_text!(AccessFormat, "\"combined\" or \"json\"");

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses() {
        for (text, want) in
            [(":8080", "0.0.0.0:8080"), ("127.0.0.1:1", "127.0.0.1:1"), ("[::]:80", "[::]:80")]
        {
            assert_eq!(parse_listen(text).unwrap().to_string(), want);
        }
        for text in ["", ":", "8080", "localhost:80", ":65536", "1.2.3.4", ":-1"] {
            assert_eq!(parse_listen(text), Err(UnitError::Address { text: text.to_owned() }));
        }
        assert_eq!(parse_admin("off"), Ok(None));
    }

    #[test]
    fn sizes_read_back_as_written() {
        for (text, want) in [("0", 0), ("32MiB", 32 << 20), ("16 KiB", 16384), ("1kb", 1000), ("7B", 7)] {
            assert_eq!(parse_size(text), Ok(want));
            assert_eq!(parse_size(&format_size(want)), Ok(want));
        }
        for text in ["", "MiB", "-1", "1.5MiB", "32M", "99999999999999999999", "99999999999GiB"] {
            assert_eq!(parse_size(text), Err(UnitError::Size { text: text.to_owned() }));
        }
    }

    #[test]
    fn upstreams_read_back_as_written() {
        for (text, host, port, prefix) in [
            ("http://origin", "origin", 80, ""),
            ("http://10.0.0.1:8501", "10.0.0.1", 8501, ""),
            ("http://a-b.example:9/edge/one", "a-b.example", 9, "/edge/one"),
            ("http://[::1]:8501", "::1", 8501, ""),
        ] {
            let upstream: Upstream = text.parse().unwrap();
            assert_eq!(
                (upstream.host.as_str(), upstream.port, upstream.prefix.as_str()),
                (host, port, prefix)
            );
            assert_eq!(upstream.to_string(), text);
        }
        assert_eq!("http://o/edge/".parse::<Upstream>().unwrap().prefix, "/edge");
        for text in [
            "origin:8501",
            "https://o",
            "http://",
            "http://:80",
            "http://o:0",
            "http://o:x",
            "http://u:p@o",
            "http://o/a b",
            "http://o/?a",
            "http://[::1",
            "http://[::1]x",
            "http://a\r\nb",
        ] {
            assert!(matches!(text.parse::<Upstream>(), Err(UnitError::Upstream { .. })), "{text}");
        }
    }

    #[test]
    fn remotes() {
        let remote: Remote = "rtmp://h/a/b/{name}?token=x".parse().unwrap();
        assert_eq!(
            (remote.rtmp, remote.port, remote.to_string().as_str()),
            (true, 1935, "rtmp://h/a/b/{name}")
        );
        let parts = remote.rtmp_parts("/a/b/c?token=x");
        assert_eq!(parts, ("a/b".into(), "rtmp://h/a/b".into(), "c?token=x".into()));
        let remote: Remote = "http://[::1]:8501/live/x.flv".parse().unwrap();
        assert_eq!((remote.host.as_str(), remote.port, remote.path.as_str()), ("::1", 8501, "/live/x.flv"));
        for text in
            ["rtmp://h", "rtmp://h/live", "ws://h/a/b", "rtmp://u:p@h/a/b", "rtmp:///a/b", "http://h:x/a/b"]
        {
            assert!(matches!(text.parse::<Remote>(), Err(UnitError::Remote { .. })), "{text}");
        }
    }

    #[test]
    fn secrets_are_compared_and_never_told() {
        let secret: Secret = "correct-horse-battery".parse().unwrap();
        assert!(secret.is("correct-horse-battery"));
        for wrong in ["", "correct-horse-batterz", "correct-horse", "correct-horse-battery-"] {
            assert!(!secret.is(wrong), "{wrong}");
        }
        assert!(!Secret::default().is(""), "none is not an empty one");
        assert_eq!(format!("{secret:?} {:?}", Secret::default()), "… none");
        for text in ["short", "0123456789012345678", "has a blank in its middle", "fünfzehn-zeichen-und-mehr"]
        {
            let error = text.parse::<Secret>().unwrap_err().to_string();
            assert!(!error.contains(text), "{error}");
        }
    }

    #[test]
    fn hooks() {
        for text in ["", "http://127.0.0.1:9000/hook", "/usr/bin/notify --file http://x"] {
            assert_eq!(text.parse::<Hook>().unwrap().to_string(), text);
        }
        assert!(matches!("/bin/true".parse(), Ok(Hook::Command(_))));
        assert!("https://x/".parse::<Hook>().is_err());
    }

    #[test]
    fn recordings() {
        for text in ["none", "flv", "flv,hls", "flv,hls,fmp4"] {
            assert_eq!(text.parse::<Record>().unwrap().to_string(), text);
        }
        for text in ["", "mp4", "flv,none", "flv,"] {
            assert!(text.parse::<Record>().is_err(), "{text}");
        }
    }
}
