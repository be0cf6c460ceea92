//! `uringcast sign`: a token for one stream, and the URLs that carry it.

use std::fmt::Write;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use clap::{Args, ValueEnum};

use crate::access::load::{self, AccessError};
use crate::access::token::{Claims, sign};
use crate::config::{Action, Config, is_pattern, units};

/// What to sign.
#[derive(Debug, Args)]
pub(super) struct SignArgs {
    /// The stream, app/name; app/* for all streams of an app, "*" for all.
    #[arg(value_name = "STREAM", value_parser = stream)]
    stream: String,
    /// What the token allows.
    #[arg(long = "for", value_name = "ACTION")]
    action: Allowed,
    /// How long it is valid: who has joined by then stays.
    #[arg(long, value_name = "TIME", value_parser = units::parse_duration)]
    expires: Duration,
    /// Only for this client address.
    #[arg(long, value_name = "ADDR")]
    ip: Option<IpAddr>,
    /// End the connection after this time, counted from now.
    #[arg(long, value_name = "TIME", value_parser = units::parse_duration)]
    end: Option<Duration>,
    /// Who the token is for: of two publishers with tokens of one subject, the newer one takes over.
    #[arg(long, value_name = "NAME")]
    subject: Option<String>,
    /// The file with the secrets, the first one signs [default: auth.secret_file].
    #[arg(long, value_name = "FILE")]
    secret_file: Option<PathBuf>,
    /// The server's name in the URLs.
    #[arg(long, value_name = "HOST", default_value = "localhost")]
    host: String,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Allowed {
    Publish,
    Play,
}

fn stream(text: &str) -> Result<String, &'static str> {
    let good = text == "*" || is_pattern(text);
    if good { Ok(text.to_owned()) } else { Err("write \"app/name\", \"app/*\" or \"*\"") }
}

/// Why nothing can be signed.
#[derive(Debug, thiserror::Error)]
pub enum SignError {
    /// There is no secret.
    #[error("there is no secret to sign with: give --secret-file FILE, or set auth.secret_file")]
    NoSecret,
    /// The secrets cannot be read.
    #[error(transparent)]
    Access(#[from] AccessError),
}

impl SignArgs {
    /// The token on a line, then the URLs with it.
    pub(super) fn sign(&self, config: &Config) -> Result<String, SignError> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
        let action = match self.action {
            Allowed::Publish => Action::Publish,
            Allowed::Play => Action::Play,
        };
        let after = |time: Duration| now.saturating_add(time).as_secs();
        let claims = Claims {
            ip: self.ip,
            end: self.end.map(after),
            sub: self.subject.clone(),
            ..Claims::new(action, &self.stream, after(self.expires))
        };
        let keys = match &self.secret_file {
            Some(file) => load::secrets(file)?,
            None => load::signing_keys(&config.auth)?,
        };
        let token = sign(keys.first().ok_or(SignError::NoSecret)?, &claims);
        Ok(self.with_urls(config, action, &token))
    }

    fn with_urls(&self, config: &Config, action: Action, token: &str) -> String {
        let (host, stream) = (&self.host, &self.stream);
        let (rtmp, flv, web) =
            (config.origin.rtmp.port(), config.origin.flv.port(), config.origin.web.port());
        let mut text = format!("{token}\n");
        if stream.contains('*') {
            return text;
        }
        let _ = writeln!(text, "rtmp://{host}:{rtmp}/{stream}?token={token}");
        let _ = match action {
            Action::Publish => writeln!(text, "http://{host}:{flv}/{stream}?token={token}"),
            Action::Play => {
                let _ = writeln!(text, "http://{host}:{flv}/{stream}.flv?token={token}");
                writeln!(text, "http://{host}:{web}/~{token}/hls/{stream}/index.m3u8")
            }
        };
        text
    }
}
