//! A stream on another server.

use std::fmt;
use std::str::FromStr;

use serde::{Serialize, Serializer};

use super::UnitError;
use super::mask::masked;
use super::upstream::split_authority;

/// A stream on another server, to forward to or to pull from.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Remote {
    /// RTMP, otherwise HTTP-FLV.
    pub rtmp: bool,
    /// In TLS.
    pub secure: bool,
    /// A name or an address; an IPv6 address without its brackets.
    pub host: String,
    /// The TCP port; 1935, 80, or 443 in TLS if the URL has none.
    pub port: u16,
    /// Host and port as written in the URL.
    pub authority: String,
    /// `/app/name`, with a query if there is one.
    pub path: String,
}

impl Remote {
    /// The app, `tcUrl` and stream name for RTMP, from a path: its last part is the stream name.
    pub fn rtmp_parts(&self, path: &str) -> (String, String, String) {
        let (path, query) = path.split_once('?').unwrap_or((path, ""));
        let (app, name) = path.trim_matches('/').rsplit_once('/').unwrap_or_default();
        let name = if query.is_empty() { name.to_owned() } else { format!("{name}?{query}") };
        (app.to_owned(), format!("{}://{}/{app}", self.scheme(), self.authority), name)
    }

    fn scheme(&self) -> &'static str {
        match (self.rtmp, self.secure) {
            (true, false) => "rtmp",
            (true, true) => "rtmps",
            (false, false) => "http",
            (false, true) => "https",
        }
    }
}

impl fmt::Display for Remote {
    /// For logs: without the stream key and the values of the query.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&masked(&format!("{}://{}{}", self.scheme(), self.authority, self.path)))
    }
}

impl fmt::Debug for Remote {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Remote {
    type Err = UnitError;

    fn from_str(text: &str) -> Result<Self, UnitError> {
        let wrong = |why| UnitError::Remote { text: masked(text), why };
        let (scheme, rest) = text.split_once("://").unwrap_or_default();
        let (rtmp, secure) = match scheme {
            "rtmp" => (true, false),
            "rtmps" => (true, true),
            "http" => (false, false),
            "https" => (false, true),
            _ => return Err(wrong("only rtmp://, rtmps://, http:// and https:// are spoken")),
        };
        let (authority, path) = rest.split_at(rest.find('/').ok_or_else(|| wrong("it names no stream"))?);
        if authority.contains('@') {
            return Err(wrong("user names and passwords are not sent"));
        }
        let (host, port) = split_authority(authority).ok_or_else(|| wrong("the host is malformed"))?;
        let port = match port {
            None if secure => 443,
            None if rtmp => 1935,
            None => 80,
            Some(digits) => digits.parse().map_err(|_| wrong("the port is not 1-65535"))?,
        };
        let name = path.split('?').next().unwrap_or_default();
        if name.trim_matches('/').split('/').filter(|part| !part.is_empty()).count() < 2 {
            return Err(wrong("it names no stream"));
        }
        if !path.bytes().all(|b| b.is_ascii_graphic() && b != b'#') {
            return Err(wrong("it contains a character that is not allowed"));
        }
        let (host, authority, path) = (host.to_owned(), authority.to_owned(), path.to_owned());
        Ok(Self { rtmp, secure, host, port, authority, path })
    }
}

impl Serialize for Remote {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(&format_args!("{}://{}{}", self.scheme(), self.authority, self.path))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn remotes() {
        let remote: Remote = "rtmp://h/a/b/{name}?token=x".parse().unwrap();
        assert_eq!(
            (remote.rtmp, remote.port, remote.to_string().as_str()),
            (true, 1935, "rtmp://h/a/b/{name}?token=***")
        );
        let parts = remote.rtmp_parts("/a/b/c?token=x");
        assert_eq!(parts, ("a/b".into(), "rtmp://h/a/b".into(), "c?token=x".into()));
        let remote: Remote = "http://[::1]:8501/live/x.flv".parse().unwrap();
        assert_eq!((remote.host.as_str(), remote.port, remote.path.as_str()), ("::1", 8501, "/live/x.flv"));
        let remote: Remote = "rtmps://h/live/x".parse().unwrap();
        assert_eq!((remote.secure, remote.port), (true, 443));
        assert_eq!(remote.rtmp_parts("/live/x").1, "rtmps://h/live");
        for text in
            ["rtmp://h", "rtmp://h/live", "ws://h/a/b", "rtmp://u:p@h/a/b", "rtmp:///a/b", "http://h:x/a/b"]
        {
            assert!(matches!(text.parse::<Remote>(), Err(UnitError::Remote { .. })), "{text}");
        }
    }

    #[test]
    fn keys_and_tokens_are_not_shown() {
        let remote: Remote = "rtmp://h/app/KEY?token=SECRET".parse().unwrap();
        let written = serde_json::to_string(&remote).unwrap();
        assert!(written.contains("/app/KEY?token=SECRET"), "the value itself is whole: {written}");
        let errors =
            ["ws://h/app/KEY?token=SECRET", "rtmp://USER:SECRET@h/app/KEY", "rtmp://h/app/KEY SECRET"];
        let errors = errors.map(|text| text.parse::<Remote>().unwrap_err().to_string());
        for text in errors.into_iter().chain([remote.to_string(), format!("{remote:?}")]) {
            assert!(!text.contains("KEY") && !text.contains("SECRET"), "{text}");
        }
    }
}
