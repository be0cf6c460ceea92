//! The arguments of a push.

use std::path::PathBuf;

use super::error::PushError;
use crate::tools::trust::TrustArgs;
use crate::tools::url::{with_port, without_tls};

/// Arguments of `uringcast push`.
#[derive(Clone, Debug, clap::Args)]
pub struct PushArgs {
    /// An .flv or .mp4 file; "-": FLV from standard input
    pub file: PathBuf,
    /// The destination: `rtmp://HOST/app/name`, `http://HOST:8501/app/name` or `ws://HOST:8501/app/name`, or the
    /// same with `rtmps`, `https` or `wss`
    pub url: String,
    /// Speed factor: 2 is twice real time, 0 as fast as the server takes it
    #[arg(long, default_value_t = 1.0, value_name = "FACTOR", value_parser = factor)]
    pub speed: f64,
    /// Start again at the end of the file, with timestamps that continue
    #[arg(long = "loop")]
    pub forever: bool,
    /// Exit when the connection is lost or cannot be made
    #[arg(long)]
    pub no_reconnect: bool,
    /// Whom to trust
    #[command(flatten)]
    pub trust: TrustArgs,
}

/// How a stream is pushed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scheme {
    /// RTMP.
    Rtmp,
    /// The body of a POST.
    Http,
    /// The messages of a WebSocket.
    Ws,
}

/// The destination of a push.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// The protocol.
    pub scheme: Scheme,
    /// In TLS.
    pub secure: bool,
    /// Host and port, for the resolver.
    pub address: String,
    /// Host and port as in the URL, for `Host` and `tcUrl`.
    pub authority: String,
    /// `/app/name` and the query.
    pub path: String,
}

impl Target {
    /// Parses a URL.
    ///
    /// # Errors
    /// [`PushError::Url`].
    pub fn parse(url: &str) -> Result<Self, PushError> {
        let wrong = |reason| PushError::Url { url: url.to_owned(), reason };
        let (scheme, rest) =
            url.split_once("://").ok_or(wrong("does not begin with rtmp(s)://, http(s):// or ws(s)://"))?;
        let (scheme, secure) = without_tls(scheme);
        let (scheme, port) = match scheme {
            "rtmp" => (Scheme::Rtmp, 1935),
            "http" => (Scheme::Http, 80),
            "ws" => (Scheme::Ws, 80),
            _ => return Err(wrong("does not begin with rtmp(s)://, http(s):// or ws(s)://")),
        };
        let (authority, path) = rest.split_at(rest.find('/').ok_or(wrong("names no stream: /app/name"))?);
        if authority.is_empty() || authority.contains('@') {
            return Err(wrong("has no host, or has a password before it"));
        }
        if path.split('?').next().unwrap_or_default().trim_matches('/').split('/').count() < 2 {
            return Err(wrong("names no stream: /app/name"));
        }
        let address = with_port(authority, port, secure);
        Ok(Self { scheme, secure, address, authority: authority.to_owned(), path: path.to_owned() })
    }

    /// App, `tcUrl` and name in the form of RTMP: the last part of the path is the name.
    pub fn rtmp(&self) -> (String, String, String) {
        let (path, query) = self.path.split_once('?').unwrap_or((&self.path, ""));
        let (app, name) = path.trim_matches('/').rsplit_once('/').unwrap_or_default();
        let name = if query.is_empty() { name.to_owned() } else { format!("{name}?{query}") };
        let scheme = if self.secure { "rtmps" } else { "rtmp" };
        (app.to_owned(), format!("{scheme}://{}/{app}", self.authority), name)
    }
}

/// The text is not a speed factor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a factor from 0.01 to 1000, or 0")]
struct BadFactor;

fn factor(text: &str) -> Result<f64, BadFactor> {
    match text.parse::<f64>() {
        Ok(value) if value == 0.0 || (0.01..=1000.0).contains(&value) => Ok(value),
        _ => Err(BadFactor),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_parsed() {
        let target = Target::parse("rtmp://h/a/b/c?token=x").unwrap();
        assert_eq!((target.scheme, target.address.as_str()), (Scheme::Rtmp, "h:1935"));
        assert_eq!(target.rtmp(), ("a/b".into(), "rtmp://h/a/b".into(), "c?token=x".into()));
        let target = Target::parse("ws://[::1]:8501/live/x").unwrap();
        assert_eq!((target.scheme, target.address.as_str()), (Scheme::Ws, "[::1]:8501"));
        assert_eq!(target.path, "/live/x");
        for wrong in
            ["h/live/x", "ftp://h/live/x", "rtmp://h", "http://h/live", "http:///live/x", "ws://a:b@h/l/x"]
        {
            assert_eq!(Target::parse(wrong).unwrap_err().exit_code(), 2, "{wrong}");
        }
    }

    #[test]
    fn factors() {
        assert_eq!((factor("0"), factor("2.5")), (Ok(0.0), Ok(2.5)));
        assert!(["-1", "NaN", "inf", "0.001", "x"].iter().all(|text| factor(text).is_err()));
    }
}
