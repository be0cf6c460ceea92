//! The report of a run.

use std::collections::BTreeMap;
use std::fmt;

use hdrhistogram::Histogram;
use serde::Serialize;

use super::findings::Findings;

/// The share of the published bytes that a live viewer must get.
pub(super) const SHARE_MIN: f64 = 0.99;
/// How much a viewer may lag at the end, in seconds of media: it includes the server's flush interval.
pub(super) const SLACK_SECONDS: f64 = 0.5;

/// The result of one run.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Report {
    /// Viewers requested.
    pub viewers: usize,
    /// Viewers that got media at all.
    pub connected: usize,
    /// Viewers that failed at any time and for any reason, without the `starved` ones.
    pub failed: usize,
    /// The reasons, and how often each occurred.
    pub reasons: BTreeMap<String, usize>,
    /// Live viewers that stayed but got less than 99 % of what was published, and HLS viewers that ran dry.
    pub starved: usize,
    /// Stalls of all viewers: of more than 2 s, and of any length for HLS viewers.
    pub stalls: u64,
    /// A live stream was played.
    pub live: bool,
    /// Length of the measured time.
    pub seconds: f64,
    /// Bytes that all viewers got in the measured time.
    pub bytes: u64,
    /// These bytes as a share of what was published for live viewers, in percent.
    pub served_percent: f64,
    /// The worst viewer's share, in percent.
    pub worst_percent: f64,
    /// What was published for one live viewer.
    pub reference_bytes: u64,
    /// How far a viewer may lag at the end without counting as starved: half a second of the stream.
    pub slack_bytes: u64,
    /// Viewers of which every tag was checked.
    pub sampled: usize,
    /// Tags of the sampled viewers.
    pub sampled_tags: u64,
    /// Media time that sampled viewers got per second; 1 if they keep up with the publisher.
    pub media_rate: f64,
    /// Milliseconds from connecting to the first byte of the body.
    pub first_byte_ms: Percentiles,
    /// Milliseconds from connecting to the end of the first keyframe, segment or file.
    pub first_keyframe_ms: Percentiles,
    /// Milliseconds from the publisher's stamp to the arrival, of sampled viewers; zeros without stamps.
    pub latency_ms: Percentiles,
    /// Requests of HLS and file viewers, if there are any.
    pub requests: Option<Requests>,
    /// The cost for the server, if its process is known.
    pub server: Option<ServerCost>,
    /// This tool's own share of a core, in percent.
    pub own_cpu_percent: f64,
    /// Mean bytes of a receive call: how often the tool reads affects what the server pays.
    pub bytes_per_read: u64,
}

/// Requests and responses in the measured time.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct Requests {
    /// Complete responses.
    pub count: usize,
    /// Complete responses per second.
    pub per_second: f64,
    /// Milliseconds from a request to the end of its response.
    pub ms: Percentiles,
}

/// A distribution in three numbers.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct Percentiles {
    /// Half are at or below.
    pub p50: f64,
    /// 99 in 100 are at or below.
    pub p99: f64,
    /// All are at or below.
    pub max: f64,
}

/// The cost of the run for the server's process.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct ServerCost {
    /// User and system time in the measured time.
    pub cpu_seconds: f64,
    /// The same as a share of one core, in percent.
    pub cpu_percent: f64,
    /// CPU seconds per 10^9 bytes that viewers got.
    pub cpu_seconds_per_gb: f64,
    /// Resident memory at the end.
    pub rss_bytes: u64,
    /// Its growth since before the first viewer, per viewer.
    pub rss_bytes_per_viewer: f64,
    /// The same without shared memory, which contains the streams' logs.
    pub own_bytes_per_viewer: f64,
    /// Kernel memory of all TCP sockets of the machine at the end, including this tool's own.
    pub tcp_memory_bytes: u64,
}

impl Report {
    /// Whether every viewer arrived, stayed, and got what it should.
    pub fn passed(&self) -> bool {
        let is_on_time = self.reference_bytes > 0 && is_on_time(self.media_rate, self.seconds);
        self.viewers > 0
            && self.connected == self.viewers
            && self.failed == 0
            && self.starved == 0
            && (is_on_time || !self.live)
            && (self.requests.is_some() || self.live)
    }

    pub(super) fn new(found: &Findings, server: Option<ServerCost>) -> Self {
        let percentiles = |values: &[u64]| Percentiles::of(values.iter().copied());
        Self {
            viewers: found.viewers,
            connected: found.connected,
            failed: found.failed,
            reasons: found.reasons.clone(),
            starved: found.starved,
            stalls: found.stalls,
            live: found.live,
            seconds: found.seconds,
            bytes: found.bytes,
            served_percent: if found.owed > 0.0 { 100.0 * found.served / found.owed } else { 0.0 },
            worst_percent: found.worst_percent,
            reference_bytes: found.reference_bytes,
            slack_bytes: found.slack_bytes,
            sampled: found.sampled,
            sampled_tags: found.sampled_tags,
            media_rate: found.media_rate,
            first_byte_ms: percentiles(&found.first_byte),
            first_keyframe_ms: percentiles(&found.first_keyframe),
            latency_ms: percentiles(&found.latency),
            requests: (!found.answers.is_empty()).then(|| Requests {
                count: found.answers.len(),
                per_second: found.answers.len() as f64 / found.seconds.max(1e-3),
                ms: percentiles(&found.answers),
            }),
            server,
            own_cpu_percent: 100.0 * found.own_cpu_seconds / found.seconds.max(1e-3),
            bytes_per_read: found.read_bytes / found.reads.max(1),
        }
    }
}

/// Whether the best sampled viewer kept up with the publisher.
pub(super) fn is_on_time(media_rate: f64, seconds: f64) -> bool {
    media_rate * seconds + SLACK_SECONDS >= SHARE_MIN * seconds
}

impl Percentiles {
    /// Converts microseconds to milliseconds.
    pub(super) fn of(values_us: impl Iterator<Item = u64>) -> Self {
        const HIGHEST_US: u64 = 600_000_000;
        let Ok(mut histogram) = Histogram::<u64>::new_with_bounds(1, HIGHEST_US, 3) else {
            return Self::default();
        };
        values_us.for_each(|value| histogram.saturating_record(value.clamp(1, HIGHEST_US)));
        let at = |quantile| histogram.value_at_quantile(quantile) as f64 / 1e3;
        Self { p50: at(0.5), p99: at(0.99), max: histogram.max() as f64 / 1e3 }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let verdict = if self.passed() { "served" } else { "NOT SERVED" };
        writeln!(f, "{verdict}: {} of {} viewers, {} failed", self.connected, self.viewers, self.failed)?;
        for (reason, count) in &self.reasons {
            writeln!(f, "  {count:>6} × {reason}")?;
        }
        writeln!(f, "bytes            {:.3} GB in {:.1} s", self.bytes as f64 / 1e9, self.seconds)?;
        if self.live {
            writeln!(
                f,
                "live             {:.2} % served, worst viewer {:.2} %, media rate {:.3}, {} tags of {} viewers checked",
                self.served_percent, self.worst_percent, self.media_rate, self.sampled_tags, self.sampled
            )?;
        }
        writeln!(f, "short            {} starved, {} stalls", self.starved, self.stalls)?;
        let line = |name: &str, p: &Percentiles| {
            format!("{name} p50 {:.1} p99 {:.1} max {:.1} ms", p.p50, p.p99, p.max)
        };
        writeln!(f, "{}", line("first byte      ", &self.first_byte_ms))?;
        writeln!(f, "{}", line("first keyframe  ", &self.first_keyframe_ms))?;
        if let Some(requests) = &self.requests {
            let name = format!("requests         {:.0} a second,", requests.per_second);
            writeln!(f, "{}", line(&name, &requests.ms))?;
        }
        if self.latency_ms.max > 0.0 {
            writeln!(f, "{}", line("latency         ", &self.latency_ms))?;
        }
        if let Some(server) = &self.server {
            writeln!(
                f,
                "server           {:.3} CPU-s per GB, {:.1} % of a core, {:.1} MB resident, {:.0} bytes a viewer",
                server.cpu_seconds_per_gb,
                server.cpu_percent,
                server.rss_bytes as f64 / 1e6,
                server.own_bytes_per_viewer
            )?;
        }
        writeln!(
            f,
            "this tool        {:.1} % of a core, {} bytes a read",
            self.own_cpu_percent, self.bytes_per_read
        )
    }
}
