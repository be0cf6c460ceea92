//! The rules between values, each of which was parsed by itself.

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use super::quantities::{KIB, MIB};
use super::units::format_size;
use super::{Config, Listen, Rate, Role, Rule, quota};

/// Longest time that tags may be gathered.
const FLUSH_MAX: Duration = Duration::from_secs(5);
/// Longest of all other durations: a larger value is a mistake.
const TIME_MAX: Duration = Duration::from_secs(24 * 3600);
/// A limit below this would end or refuse any stream with video: it is a mistake in the unit.
const RATE_MIN: Rate = Rate { bits: 100_000 };
/// Most event loops of a process: a stream's subscribers are bits of a word.
pub const LOOPS_MAX: usize = 64;

/// A key and the rule it breaks.
pub(super) type Broken = (&'static str, Rule);

impl Config {
    /// Checks the rules that hold for every role; reports the first broken one with its key.
    ///
    /// # Errors
    /// The key, with its table, and the [`Rule`].
    pub fn validate(&self) -> Result<(), (&'static str, Rule)> {
        at_most("loops", self.loops, LOOPS_MAX)?;
        tracing_subscriber::EnvFilter::try_new(&self.log)
            .map_err(|_| ("log", Rule::LogFilter { filter: self.log.clone() }))?;
        self.check_times()?;
        self.check_sizes()?;
        self.tls.check()?;
        self.auth.check()?;
        named("origin.data", &self.origin.data)?;
        named("file_gateway.root", &self.file_gateway.root)?;
        named("file_gateway.cache", &self.file_gateway.cache)?;
        if let Some(pattern) = self.recording.apps.keys().find(|pattern| !quota::is_pattern(pattern)) {
            return Err(("recording.apps", Rule::Pattern { pattern: pattern.clone() }));
        }
        match self.access_log.sample {
            0 => Err(("access_log.sample", Rule::TooSmall { is: "0".to_owned(), min: "1".to_owned() })),
            _ => Ok(()),
        }
    }

    /// Checks what the role needs: an upstream for a gateway, and a separate port for each listener.
    ///
    /// # Errors
    /// The key, with its table, and the [`Rule`].
    pub fn validate_role(&self, role: Role) -> Result<(), (&'static str, Rule)> {
        if role.has_flv_gateway() && self.flv_gateway.upstream.is_empty() {
            return Err(("flv_gateway.upstream", Rule::NoUpstream));
        }
        let listeners = self.listeners(role);
        for (at, (key, address, _)) in listeners.iter().enumerate() {
            let clash = |(_, earlier, v6_only): &&(_, _, bool)| {
                clash((*earlier, *v6_only), (*address, listeners[at].2))
            };
            let Some((other, _, _)) = listeners[..at].iter().find(clash) else { continue };
            return Err((key, Rule::SameAddress { address: address.to_string(), other }));
        }
        Ok(())
    }

    /// The addresses that a role listens on, each with its key and whether it leaves IPv4 to others; the admin address
    /// only if the user wrote it, since the default one may be dropped.
    fn listeners(&self, role: Role) -> Vec<(&'static str, SocketAddr, bool)> {
        let mut list: Vec<(&'static str, &Listen)> = Vec::new();
        if role.has_origin() {
            list.push(("origin.rtmp", &self.origin.rtmp));
            list.push(("origin.flv", &self.origin.flv));
            list.push(("origin.web", &self.origin.web));
        }
        if role.has_flv_gateway() {
            list.push(("flv_gateway.listen", &self.flv_gateway.listen));
        }
        if role.has_file_gateway() {
            list.push(("file_gateway.listen", &self.file_gateway.listen));
        }
        let each = |(key, listen): (&'static str, &Listen)| {
            listen.iter().map(|address| (key, *address, listen.is_v6_only(*address))).collect::<Vec<_>>()
        };
        let admin = self.admin.as_ref().filter(|_| self.admin_explicit).map(|listen| ("admin", listen));
        list.into_iter().chain(admin).flat_map(each).collect()
    }

    fn check_times(&self) -> Result<(), Broken> {
        let (origin, gateway) = (&self.origin, &self.flv_gateway);
        flush("origin.flush", origin.flush.every().unwrap_or_default())?;
        flush("flv_gateway.flush", gateway.flush.every().unwrap_or_default())?;
        flush("live.flush_max", self.live.flush_max)?;
        for (key, time) in [
            ("drain", self.drain),
            ("origin.wait", origin.wait),
            ("origin.gap", origin.gap),
            ("flv_gateway.linger", gateway.linger),
            ("flv_gateway.wait", gateway.wait),
            ("flv_gateway.gap", gateway.gap),
            ("flv_gateway.negative", gateway.negative),
            ("file_gateway.stale", self.file_gateway.stale),
            ("auth.hook_cache", self.auth.hook_cache),
        ] {
            bounded(key, time)?;
        }
        for (key, time) in [
            ("recording.segment", self.recording.segment),
            ("origin.silence", origin.silence),
            ("origin.stale", origin.stale),
            ("flv_gateway.silence", gateway.silence),
            ("flv_gateway.connect", gateway.connect),
            ("file_gateway.connect", self.file_gateway.connect),
            ("live.gop_time", self.live.gop_time),
            ("live.lag_time", self.live.lag_time),
            ("live.stall", self.live.stall),
            ("limits.request_time", self.limits.request_time),
            ("limits.keep_alive", self.limits.keep_alive),
            ("limits.send_time", self.limits.send_time),
            ("auth.hook_timeout", self.auth.hook_timeout),
            ("file_gateway.playlist_life", self.file_gateway.playlist_life),
        ] {
            bounded(key, time)?;
            if time < Duration::from_millis(100) {
                return Err((key, Rule::TooSmall { is: text(time), min: "100ms".to_owned() }));
            }
        }
        let (take, segment) = (self.recording.take, self.recording.segment);
        if !take.is_zero() && take < segment {
            let min = format!("recording.segment ({})", text(segment));
            return Err(("recording.take", Rule::TooSmall { is: text(take), min }));
        }
        Ok(())
    }

    fn check_sizes(&self) -> Result<(), Broken> {
        let (live, limits) = (&self.live, &self.limits);
        within("live.tag_max", live.tag_max, 64 * KIB, 16 * MIB)?;
        if live.gop_bytes < live.tag_max {
            let min = format!("live.tag_max ({}), and a whole tag must fit", format_size(live.tag_max));
            return Err(("live.gop_bytes", Rule::TooSmall { is: format_size(live.gop_bytes), min }));
        }
        within("live.gop_bytes", live.gop_bytes, MIB, 4096 * MIB)?;
        within("live.lag_bytes", live.lag_bytes, 64 * KIB, 4096 * MIB)?;
        if live.gop_frames == 0 {
            return Err(("live.gop_frames", Rule::TooSmall { is: "0".to_owned(), min: "1".to_owned() }));
        }
        let files = &self.file_gateway;
        within("file_gateway.cache_file", files.cache_file, MIB, usize::MAX)?;
        if files.cache_size < files.cache_file {
            let min = format!(
                "file_gateway.cache_file ({}), and a whole file must fit",
                format_size(files.cache_file)
            );
            return Err((
                "file_gateway.cache_size",
                Rule::TooSmall { is: format_size(files.cache_size), min },
            ));
        }
        within("recording.window", self.recording.window, 3, 1000)?;
        if limits.memory > 0 {
            within("limits.memory", limits.memory, 64 * MIB, usize::MAX)?;
        }
        for (key, rate) in [
            ("limits.publish_bitrate", limits.publish_bitrate),
            ("limits.egress", limits.egress),
            ("limits.egress_per_stream", limits.egress_per_stream),
        ] {
            if rate.bits > 0 && rate < RATE_MIN {
                let min = format!("{RATE_MIN}, and 0 is no limit");
                return Err((key, Rule::TooSmall { is: rate.to_string(), min }));
            }
        }
        within("limits.request_head", limits.request_head, KIB, MIB)?;
        within("limits.sndbuf", limits.sndbuf, 4 * KIB, 256 * MIB)?;
        within("limits.notsent_lowat", limits.notsent_lowat, KIB, 256 * MIB)
    }
}

/// Whether two addresses cannot both be listened on; each with whether it leaves IPv4 to others. Port 0 stands for a
/// free one each time.
fn clash((one, one_v6_only): (SocketAddr, bool), (other, other_v6_only): (SocketAddr, bool)) -> bool {
    let takes_all = |address: SocketAddr| address.ip().is_unspecified();
    let same_host = match (one, other) {
        (SocketAddr::V4(_), SocketAddr::V6(_)) => takes_all(other) && !other_v6_only,
        (SocketAddr::V6(_), SocketAddr::V4(_)) => takes_all(one) && !one_v6_only,
        _ => one.ip() == other.ip() || takes_all(one) || takes_all(other),
    };
    one.port() != 0 && one.port() == other.port() && same_host
}

fn text(time: Duration) -> String {
    humantime::format_duration(time).to_string()
}

fn flush(key: &'static str, time: Duration) -> Result<(), Broken> {
    if time <= FLUSH_MAX {
        return Ok(());
    }
    let max = format!("{}, and viewers would lag by as much", text(FLUSH_MAX));
    Err((key, Rule::TooLarge { is: text(time), max }))
}

fn bounded(key: &'static str, time: Duration) -> Result<(), Broken> {
    if time <= TIME_MAX {
        return Ok(());
    }
    Err((key, Rule::TooLarge { is: text(time), max: text(TIME_MAX) }))
}

fn within(key: &'static str, is: usize, min: usize, max: usize) -> Result<(), Broken> {
    if is < min {
        return Err((key, Rule::TooSmall { is: format_size(is), min: format_size(min) }));
    }
    if is > max {
        return Err((key, Rule::TooLarge { is: format_size(is), max: format_size(max) }));
    }
    Ok(())
}

fn at_most(key: &'static str, is: usize, max: usize) -> Result<(), Broken> {
    if is > max {
        return Err((key, Rule::TooLarge { is: is.to_string(), max: max.to_string() }));
    }
    Ok(())
}

fn named(key: &'static str, path: &Path) -> Result<(), Broken> {
    if path.as_os_str().is_empty() { Err((key, Rule::EmptyPath)) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Flush, Quota};

    fn broken(change: impl FnOnce(&mut Config)) -> Broken {
        let mut config = Config::default();
        change(&mut config);
        config.validate().unwrap_err()
    }

    #[test]
    fn defaults_pass_in_every_role() {
        for role in [Role::Origin, Role::FileGateway] {
            let config = Config::for_role(role);
            assert_eq!(config.validate(), Ok(()));
            assert_eq!(config.validate_role(role), Ok(()));
        }
    }

    #[test]
    fn each_rule_names_its_key() {
        assert_eq!(broken(|c| c.origin.flush = Flush::Every(Duration::from_secs(6))).0, "origin.flush");
        assert_eq!(
            broken(|c| c.flv_gateway.flush = Flush::Every(Duration::from_secs(6))).0,
            "flv_gateway.flush"
        );
        assert_eq!(broken(|c| c.live.gop_bytes = 8 * MIB).0, "live.gop_bytes");
        assert_eq!(broken(|c| c.live.tag_max = 17 * MIB).0, "live.tag_max");
        assert_eq!(broken(|c| c.live.gop_frames = 0).0, "live.gop_frames");
        assert_eq!(broken(|c| c.live.stall = Duration::ZERO).0, "live.stall");
        assert_eq!(broken(|c| c.drain = Duration::from_secs(86_401)).0, "drain");
        assert_eq!(broken(|c| c.limits.request_head = 100).0, "limits.request_head");
        assert_eq!(broken(|c| c.loops = 65).0, "loops");
        assert_eq!(broken(|c| c.recording.window = 2).0, "recording.window");
        assert_eq!(broken(|c| c.recording.segment = Duration::ZERO).0, "recording.segment");
        assert_eq!(broken(|c| c.recording.take = Duration::from_secs(3)).0, "recording.take");
        let unnamed = |c: &mut Config| c.recording.apps = [("live".to_owned(), Quota::default())].into();
        assert_eq!(broken(unnamed).0, "recording.apps");
        assert_eq!(broken(|c| c.limits.memory = 63 * MIB).0, "limits.memory");
        assert_eq!(broken(|c| c.limits.publish_bitrate = Rate { bits: 400 }).0, "limits.publish_bitrate");
        assert_eq!(broken(|c| c.limits.egress = Rate { bits: 10 }).0, "limits.egress");
        assert_eq!(broken(|c| c.flv_gateway.connect = Duration::ZERO).0, "flv_gateway.connect");
        assert_eq!(broken(|c| c.file_gateway.connect = Duration::ZERO).0, "file_gateway.connect");
        assert_eq!(broken(|c| c.flv_gateway.negative = Duration::MAX).0, "flv_gateway.negative");
        assert_eq!(broken(|c| c.log = "uringcast=loud".to_owned()).0, "log");
        assert_eq!(broken(|c| c.origin.data = "".into()).0, "origin.data");
    }

    #[test]
    fn addresses_clash_only_where_the_kernel_refuses_them() {
        let check = |rtmp: &str, flv: &str| {
            let mut config = Config::default();
            (config.origin.rtmp, config.origin.flv) = (rtmp.parse().unwrap(), flv.parse().unwrap());
            config.validate_role(Role::Origin).map_err(|(key, _)| key)
        };
        for (rtmp, flv) in [
            ("0.0.0.0:1,[::]:1", ":2"),
            ("[::]:1,127.0.0.1:1,10.0.0.1:1", ":2"),
            ("127.0.0.1:1,[::1]:1,127.0.0.2:1", "127.0.0.3:1"),
            ("0.0.0.0:1", "[::1]:1"),
            ("[::]:0,:0", "[::]:0,:0"),
        ] {
            assert_eq!(check(rtmp, flv), Ok(()), "{rtmp} {flv}");
        }
        for (rtmp, flv, key) in [
            (":1,127.0.0.1:1", ":2", "origin.rtmp"),
            ("[::1]:1,[::]:1", ":2", "origin.rtmp"),
            ("[::]:1", ":1", "origin.flv"),
            ("127.0.0.1:1", "[::]:2,[::]:1", "origin.flv"),
            ("[::]:1,:1", "127.0.0.1:1", "origin.flv"),
        ] {
            assert_eq!(check(rtmp, flv), Err(key), "{rtmp} {flv}");
        }
    }

    #[test]
    fn two_listeners_on_one_port_are_refused() {
        let mut config = Config::default();
        config.origin.flv = config.origin.rtmp.clone();
        let (key, rule) = config.validate_role(Role::Origin).unwrap_err();
        assert_eq!(key, "origin.flv");
        assert_eq!(rule, Rule::SameAddress { address: "0.0.0.0:1935".to_owned(), other: "origin.rtmp" });
        for listen in [&mut config.origin.rtmp, &mut config.origin.flv] {
            *listen = ":0".parse().unwrap();
        }
        assert_eq!(config.validate_role(Role::Origin), Ok(()));
        let gateway = config.validate_role(Role::FlvGateway).unwrap_err();
        assert_eq!(gateway, ("flv_gateway.upstream", Rule::NoUpstream));
    }
}
