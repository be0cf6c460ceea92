//! Prometheus metrics: at each scrape the loops' counters are summed into the handles and rendered.

use std::sync::atomic::Ordering;

use metrics::{counter, describe_counter, describe_gauge, describe_histogram, gauge};
use metrics_exporter_prometheus::{BuildError, Matcher, PrometheusBuilder, PrometheusHandle};

use super::file_metrics;
use super::sums::{Pick, float};
use crate::server::Protocol;
use crate::server::budget::Held;
use crate::server::counters::FAREWELLS;
use crate::server::limits::Refused;
use crate::server::shared::{RoleState, Shared, Source};

/// Bounds of the histogram of a viewer's first picture, in seconds.
const FIRST_PICTURE: &[f64] = &[0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0];

/// The metrics of a process.
#[derive(Clone)]
pub struct Metrics(PrometheusHandle);

impl std::fmt::Debug for Metrics {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Metrics").finish_non_exhaustive()
    }
}

impl Metrics {
    /// Installs the metrics recorder; to be called before any handle of a metric is made.
    ///
    /// # Errors
    /// When there is a recorder already.
    pub fn install() -> Result<Self, BuildError> {
        let handle = PrometheusBuilder::new()
            .set_buckets_for_metric(
                Matcher::Full("uringcast_first_picture_seconds".to_owned()),
                FIRST_PICTURE,
            )?
            .install_recorder()?;
        describe();
        Ok(Self(handle))
    }

    /// The page of a scrape.
    pub fn render(&self, shared: &Shared) -> String {
        collect(shared);
        let streams = file_metrics::collect_streams(shared);
        self.0.run_upkeep();
        self.0.render() + &streams
    }
}

fn describe() {
    describe_gauge!("uringcast_build_info", "Always 1; the version is in the label");
    describe_gauge!("uringcast_viewers", "Viewers online now, by role and protocol");
    describe_gauge!("uringcast_publishers", "Publishers online now");
    describe_gauge!("uringcast_pulls", "Streams that are pulled from an upstream now");
    describe_gauge!("uringcast_streams", "Streams now, by role");
    describe_gauge!(
        "uringcast_upstream_up",
        "Whether an upstream answered the last request; 0 before the first one"
    );
    describe_gauge!("uringcast_log_memory_bytes", "Memory of all stream logs");
    describe_gauge!(
        "uringcast_flush_floor_seconds",
        "The minimum window of a loop that is short of CPU time"
    );
    describe_gauge!("uringcast_uptime_seconds", "Seconds since the start");
    describe_counter!("uringcast_received_bytes_total", "Bytes from publishers and upstreams");
    describe_counter!("uringcast_sent_bytes_total", "Bytes to viewers");
    describe_counter!("uringcast_sends_total", "Sends to viewers; with the bytes, the mean batch");
    describe_counter!("uringcast_flushes_total", "Walks over a stream's viewers");
    describe_counter!("uringcast_accepted_total", "Connections accepted");
    describe_counter!("uringcast_accept_failures_total", "Accepts that the kernel refused");
    describe_counter!("uringcast_turned_away_total", "Connections turned away: the server was full");
    describe_counter!("uringcast_refused_total", "Refusals by reason: limits and taken names");
    describe_gauge!("uringcast_memory_budget_bytes", "Memory that the process may use (limits.memory)");
    describe_gauge!("uringcast_memory_used_bytes", "Memory used of that, by purpose");
    describe_counter!("uringcast_skips_total", "Skips of viewers that lagged");
    describe_counter!("uringcast_skipped_bytes_total", "Bytes that viewers missed by skips");
    describe_counter!("uringcast_viewers_left_total", "Viewers disconnected by the server, by reason");
    describe_counter!("uringcast_bad_peers_total", "Connections whose peer broke its protocol");
    describe_counter!("uringcast_pull_failures_total", "Pulls from an upstream that failed");
    describe_counter!(
        "uringcast_log_lines_suppressed_total",
        "Log lines left out: peers caused too many of a kind"
    );
    describe_gauge!("uringcast_connections", "Connections now");
    file_metrics::describe();
    describe_histogram!("uringcast_first_picture_seconds", "From a viewer's request to its first picture");
    super::recorder::describe();
}

fn collect(shared: &Shared) {
    gauge!("uringcast_build_info", "version" => env!("CARGO_PKG_VERSION")).set(1.0);
    gauge!("uringcast_uptime_seconds").set(shared.started.elapsed().as_secs_f64());
    gauge!("uringcast_log_memory_bytes").set(float(shared.arena.mapped()));
    collect_memory(shared);
    counter!("uringcast_log_lines_suppressed_total").absolute(shared.log_suppressed.load(Ordering::Relaxed));
    for (place, floor) in shared.floors.iter().enumerate() {
        let seconds = float(floor.load(Ordering::Relaxed)) / 1000.0;
        gauge!("uringcast_flush_floor_seconds", "loop" => place.to_string()).set(seconds);
    }
    for (place, role) in shared.roles.iter().enumerate() {
        let sum = |pick: Pick<'_>| {
            shared.counters.iter().fold(0u64, |sum, counters| sum.wrapping_add(pick(&counters[place]).get()))
        };
        collect_role(role, &sum);
    }
}

fn collect_memory(shared: &Shared) {
    let budget = &shared.budget;
    gauge!("uringcast_memory_budget_bytes").set(float(budget.limit));
    let sum = |pick: fn(&Held) -> &std::sync::atomic::AtomicU64| -> u64 {
        budget.loops.iter().map(|held| pick(held).load(Ordering::Relaxed)).sum()
    };
    for (what, bytes) in [
        ("logs", shared.arena.mapped()),
        ("packages", budget.packages.bytes()),
        ("connections", sum(|held| &held.connections)),
        ("greetings", sum(|held| &held.greetings)),
        ("sockets", sum(|held| &held.kernel)),
    ] {
        gauge!("uringcast_memory_used_bytes", "for" => what).set(float(bytes));
    }
}

fn collect_role(role: &RoleState, sum: &dyn Fn(Pick<'_>) -> u64) {
    let name = role.name;
    for protocol in Protocol::EVERY {
        let place = protocol as usize;
        gauge!("uringcast_viewers", "role" => name, "protocol" => protocol.name())
            .set(float(sum(&|counters| &counters.viewers[place])));
        counter!("uringcast_sent_bytes_total", "role" => name, "protocol" => protocol.name())
            .absolute(sum(&|counters| &counters.bytes_out[place]));
    }
    match &role.source {
        Source::Publishers => {
            let publishers = sum(&|counters| &counters.publishers);
            gauge!("uringcast_publishers", "role" => name).set(float(publishers));
            counter!("uringcast_relay_failures_total", "role" => name)
                .absolute(sum(&|counters| &counters.reconnects));
        }
        Source::Nowhere => {}
        Source::Upstreams(upstreams) => {
            gauge!("uringcast_pulls", "role" => name).set(float(sum(&|counters| &counters.pulls)));
            counter!("uringcast_pull_failures_total", "role" => name)
                .absolute(sum(&|counters| &counters.reconnects));
            for upstream in upstreams {
                let up = f64::from(u8::from(upstream.health.is_up()));
                let url = upstream.url.to_string();
                gauge!("uringcast_upstream_up", "role" => name, "upstream" => url).set(up);
            }
        }
    }
    if let Some(site) = &role.files {
        file_metrics::collect(name, sum);
        site.proxy.iter().for_each(|proxy| file_metrics::collect_upstreams(name, proxy));
    }
    gauge!("uringcast_connections", "role" => name).set(float(sum(&|counters| &counters.connections)));
    gauge!("uringcast_streams", "role" => name).set(float(role.directory.len() as u64));
    for why in Refused::EVERY {
        counter!("uringcast_refused_total", "role" => name, "reason" => why.name())
            .absolute(sum(&|counters| &counters.refused[why as usize]));
    }
    for (place, reason) in FAREWELLS.into_iter().enumerate() {
        counter!("uringcast_viewers_left_total", "role" => name, "reason" => reason)
            .absolute(sum(&|counters| &counters.farewells[place]));
    }
    let totals: [(&'static str, Pick<'_>); 9] = [
        ("uringcast_received_bytes_total", &|counters| &counters.bytes_in),
        ("uringcast_sends_total", &|counters| &counters.sends),
        ("uringcast_flushes_total", &|counters| &counters.flushes),
        ("uringcast_accepted_total", &|counters| &counters.accepted),
        ("uringcast_accept_failures_total", &|counters| &counters.accept_failures),
        ("uringcast_turned_away_total", &|counters| &counters.turned_away),
        ("uringcast_skips_total", &|counters| &counters.skips),
        ("uringcast_skipped_bytes_total", &|counters| &counters.skipped_bytes),
        ("uringcast_bad_peers_total", &|counters| &counters.bad_peers),
    ];
    for (metric, pick) in totals {
        counter!(metric, "role" => name).absolute(sum(pick));
    }
}
