//! Where a gateway pulls from, and a URL's host and port.

use std::fmt;
use std::str::FromStr;

use super::UnitError;
use super::mask::masked;

/// The source of a gateway's streams: the origin or another gateway.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Upstream {
    /// In TLS.
    pub secure: bool,
    /// A name or an address; an IPv6 address without its brackets.
    pub host: String,
    /// The TCP port, 80 or 443 if the URL has none.
    pub port: u16,
    /// The prefix before `/{app}/{name}.flv`: empty, or for example `/edge`, without a trailing slash.
    pub prefix: String,
}

impl Upstream {
    /// The value of the `Host` header, without the port that the scheme stands for.
    pub fn authority(&self) -> String {
        let open = if self.host.contains(':') { format!("[{}]", self.host) } else { self.host.clone() };
        if self.port == default_port(self.secure) { open } else { format!("{open}:{}", self.port) }
    }
}

fn default_port(secure: bool) -> u16 {
    if secure { 443 } else { 80 }
}

impl fmt::Display for Upstream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "http{}://{}{}", if self.secure { "s" } else { "" }, self.authority(), self.prefix)
    }
}

impl FromStr for Upstream {
    type Err = UnitError;

    fn from_str(text: &str) -> Result<Self, UnitError> {
        let wrong = |why| UnitError::Upstream { text: masked(text), why };
        let (secure, rest) = match (text.strip_prefix("http://"), text.strip_prefix("https://")) {
            (Some(rest), _) => (false, rest),
            (_, Some(rest)) => (true, rest),
            _ => return Err(wrong("only http:// and https:// are spoken")),
        };
        let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
        if authority.contains('@') {
            return Err(wrong("user names and passwords are not sent"));
        }
        let (host, port) = split_authority(authority).ok_or_else(|| wrong("the host is malformed"))?;
        let port = match port {
            None => default_port(secure),
            Some(digits) => match digits.parse() {
                Ok(port) if port != 0 => port,
                _ => return Err(wrong("the port is not 1-65535")),
            },
        };
        if !path.bytes().all(|b| b.is_ascii_graphic() && b != b'?' && b != b'#') {
            return Err(wrong("the prefix contains a character that is not allowed"));
        }
        Ok(Self { secure, host: host.to_owned(), port, prefix: path.trim_end_matches('/').to_owned() })
    }
}

/// `host`, `host:port`, `[v6]` or `[v6]:port`; `None` for anything else.
pub(super) fn split_authority(authority: &str) -> Option<(&str, Option<&str>)> {
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

/// Parses a comma-separated list of URLs.
///
/// # Errors
/// [`UnitError::Upstream`].
pub(super) fn parse_upstreams(text: &str) -> Result<Vec<Upstream>, UnitError> {
    text.split(',').map(str::trim).filter(|url| !url.is_empty()).map(str::parse).collect()
}

/// Parses the URL of a service that is called; empty: none.
///
/// # Errors
/// [`UnitError::Upstream`].
pub(super) fn parse_service(text: &str) -> Result<Option<Upstream>, UnitError> {
    if text.is_empty() {
        return Ok(None);
    }
    text.parse().map(Some)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn upstreams_read_back_as_written() {
        for (text, host, port, prefix) in [
            ("http://origin", "origin", 80, ""),
            ("http://10.0.0.1:8501", "10.0.0.1", 8501, ""),
            ("http://a-b.example:9/edge/one", "a-b.example", 9, "/edge/one"),
            ("http://[::1]:8501", "::1", 8501, ""),
            ("https://edge.example", "edge.example", 443, ""),
            ("https://edge.example:80/x", "edge.example", 80, "/x"),
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
            "ftp://o",
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
}
