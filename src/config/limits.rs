//! Limits of the process and of each client address, and the defaults that are computed at run time.

use std::net::IpAddr;
use std::path::Path;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::quantities::{KIB, SECOND};
use super::units::{self, Network, Rate, SendPath, is_private};

/// The budget if neither `/proc/meminfo` nor a cgroup gives the amount of memory.
const MEMORY_UNKNOWN: u64 = 1 << 30;
/// The most folders above the process's own cgroup that are read.
const CGROUPS_MAX: usize = 64;

/// Limits of connections, memory and client addresses. Zero means "no limit" unless noted otherwise.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Limits {
    /// Connections of the process; 0 takes what the limit on open files allows.
    pub connections: usize,
    /// Of these, connections reserved for publishers and the admin listener. See [`Limits::reserved`].
    pub reserve: usize,
    /// Memory of streams, headers, queues and requests together, in bytes; 0: half of the available memory. See
    /// [`Limits::memory_budget`].
    #[serde(with = "units::size")]
    pub memory: usize,
    /// Streams in all.
    pub streams: usize,
    /// Viewers of one stream, in each role.
    pub viewers_per_stream: usize,
    /// The bit rate of all that the server sends, files included, from which it takes no further viewers, of live streams
    /// and of playlists.
    pub egress: Rate,
    /// The same of what is sent of one live stream, in each role.
    pub egress_per_stream: Rate,
    /// The bit rate that a publisher may send, averaged over some seconds.
    pub publish_bitrate: Rate,
    /// Connections of one address, not counting established viewers and publishers.
    pub connections_per_address: usize,
    /// Streams that one address publishes at a time.
    pub publishes_per_address: usize,
    /// Requests of one address that wait for a stream or a file at a time.
    pub waits_per_address: usize,
    /// Requests, handshakes and refused attempts of one address in a second.
    pub requests_per_address: usize,
    /// Networks of proxies whose forwarded client addresses are trusted; limits per address do not apply to the
    /// proxies.
    #[serde(with = "units::networks")]
    pub trusted: Vec<Network>,
    /// Bytes of an HTTP request's line and headers.
    #[serde(with = "units::size")]
    pub request_head: usize,
    /// How long a request's head or a handshake may take.
    #[serde(with = "units::duration")]
    pub request_time: Duration,
    /// How long a connection for files and pages may stay open without a request.
    #[serde(with = "units::duration")]
    pub keep_alive: Duration,
    /// How long a client may go without taking any byte of a file or page.
    #[serde(with = "units::duration")]
    pub send_time: Duration,
    /// The kernel's send buffer of a connection, in bytes.
    #[serde(with = "units::size")]
    pub sndbuf: usize,
    /// Unsent bytes below which a connection counts as writable (`TCP_NOTSENT_LOWAT`).
    #[serde(with = "units::size")]
    pub notsent_lowat: usize,
    /// How the bytes of streams are sent.
    pub send_path: SendPath,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 0,
            reserve: 64,
            memory: 0,
            streams: 20_000,
            viewers_per_stream: 0,
            egress: Rate::default(),
            egress_per_stream: Rate::default(),
            publish_bitrate: Rate::mbps(400),
            // A quarter of the ports that an address has: a network behind one shared address stays below
            // it, since viewers of live streams are not counted.
            connections_per_address: 16_384,
            publishes_per_address: 256,
            waits_per_address: 1_000,
            requests_per_address: 2_000,
            trusted: Vec::new(),
            request_head: 16 * KIB,
            request_time: SECOND * 10,
            keep_alive: SECOND * 75,
            send_time: SECOND * 60,
            sndbuf: 512 * KIB,
            notsent_lowat: 128 * KIB,
            send_path: SendPath::Auto,
        }
    }
}

impl Limits {
    /// Bytes that the process may use: as configured, or half of what the machine or its cgroup has now.
    ///
    /// Reads `/proc` and `/sys` if nothing is configured: to be called once, at the start.
    pub fn memory_budget(&self) -> u64 {
        if self.memory > 0 {
            return self.memory as u64;
        }
        let meminfo = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
        let own = std::fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
        let limits = cgroup_limits(Path::new("/sys/fs/cgroup"), &own);
        default_memory(&meminfo, &limits)
    }

    /// Connections reserved from viewers, of `capacity` in all: at most a quarter, so that a small server still
    /// has capacity for viewers.
    pub fn reserved(&self, capacity: usize) -> usize {
        self.reserve.min(capacity / 4)
    }

    /// Whether a client address that this peer forwards is trusted.
    pub fn is_trusted(&self, peer: IpAddr) -> bool {
        self.trusted.iter().any(|network| network.contains(peer))
    }

    /// Whether the limits per address do not apply: loopback, private and trusted addresses.
    pub fn is_exempt(&self, address: IpAddr) -> bool {
        is_private(address) || self.is_trusted(address)
    }
}

/// Half of the available memory: the smallest of `MemTotal` in `meminfo` (proc_meminfo(5)) and the limits of
/// the cgroup and its parents (`memory.max`: bytes, or "max" for none).
pub fn default_memory(meminfo: &str, cgroup: &[String]) -> u64 {
    let total = meminfo.lines().find_map(|line| {
        let kib = line.strip_prefix("MemTotal:")?.trim().strip_suffix("kB")?;
        kib.trim().parse::<u64>().ok()?.checked_mul(1024)
    });
    let limits = cgroup.iter().filter_map(|limit| limit.trim().parse::<u64>().ok());
    total.into_iter().chain(limits).min().map_or(MEMORY_UNKNOWN, |smallest| smallest / 2)
}

/// The texts of `memory.max` of the process's cgroup (version 2, the line "0::/path" of `/proc/self/cgroup`)
/// and of its parents: the smallest applies.
fn cgroup_limits(root: &Path, own: &str) -> Vec<String> {
    let Some(path) = own.lines().find_map(|line| line.strip_prefix("0::/")) else { return Vec::new() };
    // A process outside of its cgroup namespace gets a path with "..".
    let folder = if path.split('/').any(|part| part == "..") { root.to_owned() } else { root.join(path) };
    let folders = folder.ancestors().take_while(|folder| folder.starts_with(root)).take(CGROUPS_MAX);
    folders.filter_map(|folder| std::fs::read_to_string(folder.join("memory.max")).ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const MEMINFO: &str = "MemTotal:       16384256 kB\nMemFree:         1384256 kB\nSwapTotal:       0 kB\n";

    fn memory(limits: &[&str]) -> u64 {
        let limits: Vec<String> = limits.iter().map(|limit| (*limit).to_owned()).collect();
        default_memory(MEMINFO, &limits)
    }

    #[test]
    fn half_of_the_smallest_is_taken() {
        let machine = 16_384_256 * 1024;
        assert_eq!(memory(&[]), machine / 2);
        assert_eq!(memory(&["max\n", "max\n"]), machine / 2);
        assert_eq!(memory(&["536870912\n"]), 268_435_456);
        assert_eq!(memory(&["max\n", "1073741824\n", "2147483648\n"]), 536_870_912);
        assert_eq!(memory(&["9223372036854771712\n"]), machine / 2, "more than the machine has");
        assert_eq!(memory(&["nonsense", ""]), machine / 2);
        assert_eq!(default_memory("", &[]), MEMORY_UNKNOWN);
        assert_eq!(default_memory("MemTotal: x kB", &["4096".to_owned()]), 2048);
    }

    #[test]
    fn limits_of_all_cgroups_above_are_read() {
        let root = std::env::temp_dir().join(format!("uringcast-cgroup-{}", std::process::id()));
        std::fs::create_dir_all(root.join("system.slice/uringcast.service")).unwrap();
        std::fs::write(root.join("system.slice/memory.max"), "1000\n").unwrap();
        std::fs::write(root.join("system.slice/uringcast.service/memory.max"), "max\n").unwrap();
        let own = "1:name=systemd:/x\n0::/system.slice/uringcast.service\n";
        assert_eq!(cgroup_limits(&root, own), ["max\n", "1000\n"]);
        assert_eq!(cgroup_limits(&root, "0::/../../etc\n"), [""; 0], "nothing outside is read as a limit");
        assert_eq!(cgroup_limits(&root, "4:memory:/x\n"), [""; 0]);
        std::fs::remove_dir_all(&root).unwrap();
    }

    #[test]
    fn a_configured_budget_is_used() {
        let limits = Limits { memory: 1 << 28, ..Limits::default() };
        assert_eq!(limits.memory_budget(), 1 << 28);
        assert!(Limits::default().memory_budget() > 0);
    }

    #[test]
    fn the_reserve_leaves_capacity_for_viewers() {
        let limits = Limits::default();
        assert_eq!((limits.reserved(10_000), limits.reserved(100), limits.reserved(3)), (64, 25, 0));
    }

    #[test]
    fn local_and_trusted_addresses_are_exempt() {
        let limits = Limits { trusted: vec!["203.0.113.0/24".parse().unwrap()], ..Limits::default() };
        let ip = |text: &str| text.parse::<IpAddr>().unwrap();
        assert!(limits.is_exempt(ip("127.0.0.1")) && !limits.is_trusted(ip("127.0.0.1")));
        assert!(limits.is_exempt(ip("203.0.113.9")) && limits.is_trusted(ip("203.0.113.9")));
        assert!(!limits.is_exempt(ip("198.51.100.1")));
    }
}
