//! Settings that are valid but probably not intended: `check-config` reports them.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Duration;

use super::units::format_size;
use super::{Config, Hook, Policy, is_private};

/// Tags are gathered for longer than this only by mistake, or on purpose for a special reason.
const FLUSH_LONG: Duration = Duration::from_secs(1);
/// Encoders send keyframes every few seconds; a shorter time than this keeps none.
const GOP_SHORT: Duration = Duration::from_secs(2);

/// A setting that is valid but unusual: its key, and its consequence.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Warning {
    /// The key with its table; for the file itself `file`.
    pub key: &'static str,
    /// Its consequence.
    pub text: String,
}

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.key, self.text)
    }
}

fn warning(key: &'static str, text: impl Into<String>) -> Warning {
    Warning { key, text: text.into() }
}

impl Warning {
    /// A configuration file that every user of the machine may read: it may hold tokens and stream keys.
    pub fn of_file(path: &Path) -> Option<Self> {
        let mode = std::fs::metadata(path).ok()?.permissions().mode();
        let text = std::fs::read_to_string(path).ok()?;
        let line = |line: &str| !line.trim_start().starts_with('#');
        let secret = text.lines().filter(|text| line(text)).any(|line| {
            [
                "admin_token",
                "[[forward]]",
                "[[pull]]",
                "forward",
                "pull",
                "key =",
                "keys",
                "secrets",
                "upstream_key",
            ]
            .iter()
            .any(|word| line.trim_start().starts_with(word))
        });
        (mode & 0o004 != 0 && secret).then(|| {
            warning("file", "it holds a token or stream URLs, and every user of the machine may read it")
        })
    }
}

impl Config {
    /// The settings that are valid but probably not intended.
    pub fn warnings(&self) -> Vec<Warning> {
        let mut list = Vec::new();
        self.warn_of_access(&mut list);
        self.warn_of_times(&mut list);
        self.warn_of_limits(&mut list);
        self.warn_of_recording(&mut list);
        list
    }

    fn warn_of_access(&self, list: &mut Vec<Warning>) {
        let mut admin = self.admin.iter().flat_map(|listen| listen.iter());
        if let Some(address) = admin.find(|address| !address.ip().is_loopback())
            && self.admin_token.is_empty()
        {
            let text = format!(
                "{address} is not a loopback address: without admin_token operators have no access there"
            );
            list.push(warning("admin", text));
        }
        let public = |address: &SocketAddr| !is_private(address.ip());
        let mut origin = [&self.origin.rtmp, &self.origin.flv, &self.origin.web].into_iter();
        if self.auth.publish == Policy::Open
            && let Some(address) = origin.find_map(|listen| listen.iter().find(|address| public(address)))
        {
            let text =
                format!("{address} is not a private address: everyone who reaches it may publish there");
            list.push(warning("auth.publish", text));
        }
        if self.auth.origins.iter().any(|origin| origin == "*") && self.auth.publish != Policy::Deny {
            let text = "pages of all sites may publish as the browser's machine may";
            list.push(warning("auth.origins", text));
        }
        let any = |ip: &str| ip.parse().is_ok_and(|ip: IpAddr| self.limits.is_trusted(ip));
        if any("8.8.8.8") || any("2001:4860:4860::8888") {
            let text = "addresses of the internet are trusted: clients there may claim any address";
            list.push(warning("limits.trusted", text));
        }
    }

    fn warn_of_times(&self, list: &mut Vec<Warning>) {
        for (key, flush) in
            [("origin.flush", self.origin.flush), ("flv_gateway.flush", self.flv_gateway.flush)]
        {
            if flush.every().is_some_and(|time| time > FLUSH_LONG) {
                list.push(warning(key, "every viewer is this much later than the publisher"));
            }
        }
        if self.origin.silence < self.origin.stale {
            let text = "it is shorter than origin.stale, which then never takes effect";
            list.push(warning("origin.silence", text));
        }
        if self.live.gop_time < GOP_SHORT {
            let text = "hardly any encoder sends keyframes so often: viewers will wait for the next one";
            list.push(warning("live.gop_time", text));
        }
    }

    fn warn_of_limits(&self, list: &mut Vec<Warning>) {
        let (live, limits) = (&self.live, &self.limits);
        if live.lag_bytes > live.gop_bytes {
            let text = "it is more than live.gop_bytes, which bounds it: that much of a stream is not kept";
            list.push(warning("live.lag_bytes", text));
        }
        if limits.memory > 0 && limits.memory < 2 * live.gop_bytes {
            let one = format_size(live.gop_bytes);
            list.push(warning(
                "limits.memory",
                format!("not even two streams of live.gop_bytes ({one}) fit in it"),
            ));
        }
        if limits.connections > 0 && limits.reserved(limits.connections) < limits.reserve {
            let text = "it is more than a quarter of limits.connections, and a quarter is what is kept";
            list.push(warning("limits.reserve", text));
        }
        if std::thread::available_parallelism().is_ok_and(|cores| self.loops > cores.get()) {
            list.push(warning("loops", "there are more loops than cores: they take turns"));
        }
    }

    fn warn_of_recording(&self, list: &mut Vec<Warning>) {
        let (origin, recording) = (&self.origin, &self.recording);
        let recorded = origin.records();
        if !recorded && recording.hook != Hook::Nobody {
            list.push(warning(
                "recording.hook",
                "nothing is recorded (origin.record), so it is never called",
            ));
        }
        if recorded && recording.take.is_zero() {
            let text =
                "a stream that never ends is one recording that never ends: it is never merged or removed";
            list.push(warning("recording.take", text));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Flush, Listen};

    fn keys(change: impl FnOnce(&mut Config)) -> Vec<&'static str> {
        let mut config = Config::default();
        change(&mut config);
        assert_eq!(config.validate(), Ok(()));
        config.warnings().iter().map(|warning| warning.key).collect()
    }

    #[test]
    fn the_defaults_give_no_warning() {
        assert_eq!(Config::default().warnings(), []);
    }

    #[test]
    fn unusual_settings_give_a_warning() {
        let second = Duration::from_secs(1);
        assert_eq!(keys(|c| c.admin = "0.0.0.0:1".parse().ok()), ["admin"]);
        assert_eq!(keys(|c| c.limits.trusted = vec!["0.0.0.0/0".parse().unwrap()]), ["limits.trusted"]);
        assert_eq!(keys(|c| c.limits.trusted = vec!["::/0".parse().unwrap()]), ["limits.trusted"]);
        assert_eq!(keys(|c| c.auth.publish = Policy::Open), ["auth.publish"]);
        let private: Listen = "10.0.0.1:0,[::1]:0".parse().unwrap();
        let inside = |c: &mut Config| {
            c.auth.publish = Policy::Open;
            (c.origin.rtmp, c.origin.flv, c.origin.web) = (private.clone(), private.clone(), private.clone());
        };
        assert!(keys(inside).is_empty());
        assert_eq!(keys(|c| c.auth.origins = vec!["*".to_owned()]), ["auth.origins"]);
        assert_eq!(keys(|c| c.origin.flush = Flush::Every(second * 2)), ["origin.flush"]);
        assert_eq!(keys(|c| c.origin.silence = second), ["origin.silence"]);
        assert_eq!(keys(|c| c.live.gop_time = second), ["live.gop_time"]);
        assert_eq!(keys(|c| c.live.lag_bytes = 33 << 20), ["live.lag_bytes"]);
        assert_eq!(keys(|c| (c.limits.memory, c.live.gop_bytes) = (64 << 20, 33 << 20)), ["limits.memory"]);
        assert_eq!(keys(|c| c.limits.connections = 100), ["limits.reserve"]);
        assert_eq!(keys(|c| c.recording.hook = Hook::Command("x".to_owned())), ["recording.hook"]);
        let all = crate::config::Record { flv: true, hls: true, fmp4: true };
        assert_eq!(keys(|c| (c.origin.record, c.recording.take) = (all, Duration::ZERO)), ["recording.take"]);
    }
}
