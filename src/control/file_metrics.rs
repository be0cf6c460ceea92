//! The metrics of files and pages, and of those who watch by playlists and segments.

use std::fmt::Write;

use metrics::{counter, describe_counter, describe_gauge, gauge};

use super::sums::{Pick, float};
use crate::protocol::http::FileKind;
use crate::server::files::counters::STATUSES;
use crate::server::files::proxy::Proxy;
use crate::server::shared::Shared;

/// Streams that have a series of their own: those with the most viewers.
const STREAMS_MAX: usize = 1000;
const STREAM_VIEWERS: &str = "uringcast_hls_stream_viewers";

pub(super) fn describe() {
    describe_counter!("uringcast_http_answers_total", "Answers of the listeners for files, by status");
    describe_counter!("uringcast_files_total", "Answers with a file or a page, by kind");
    describe_counter!("uringcast_file_bytes_total", "Bytes of files and pages sent, by kind");
    describe_counter!(
        "uringcast_http_sent_bytes_total",
        "Bytes sent on the listeners for files, heads included"
    );
    describe_counter!("uringcast_file_cache_hits_total", "Looks for a file that needed no open");
    describe_counter!(
        "uringcast_file_cache_misses_total",
        "Looks for a file that opened it, or waited for that"
    );
    describe_counter!(
        "uringcast_file_cold_reads_total",
        "Stretches that were read from a disk before they were sent"
    );
    describe_counter!(
        "uringcast_access_log_lost_total",
        "Lines of the access log that its writer could not keep up with"
    );
    describe_gauge!(
        "uringcast_hls_viewers",
        "Who asked for a playlist or segment within three target durations"
    );
    describe_gauge!("uringcast_hls_streams", "Streams that somebody watches by playlists and segments");
    describe_counter!("uringcast_hls_sessions_total", "Viewers by playlists and segments that have come");
}

/// Sums up what the loops counted for a role.
pub(super) fn collect(role: &'static str, sum: &dyn Fn(Pick<'_>) -> u64) {
    for (place, status) in STATUSES.iter().map(ToString::to_string).chain(["other".to_owned()]).enumerate() {
        counter!("uringcast_http_answers_total", "role" => role, "code" => status)
            .absolute(sum(&|counters| &counters.files.answers[place]));
    }
    for kind in FileKind::EVERY {
        counter!("uringcast_files_total", "role" => role, "kind" => kind.name())
            .absolute(sum(&|counters| &counters.files.kinds[kind as usize]));
        counter!("uringcast_file_bytes_total", "role" => role, "kind" => kind.name())
            .absolute(sum(&|counters| &counters.files.kind_bytes[kind as usize]));
    }
    let totals: [(&'static str, Pick<'_>); 5] = [
        ("uringcast_http_sent_bytes_total", &|counters| &counters.files.bytes),
        ("uringcast_file_cache_hits_total", &|counters| &counters.files.hits),
        ("uringcast_file_cache_misses_total", &|counters| &counters.files.misses),
        ("uringcast_file_cold_reads_total", &|counters| &counters.files.cold_reads),
        ("uringcast_access_log_lost_total", &|counters| &counters.files.lost_lines),
    ];
    for (metric, pick) in totals {
        counter!(metric, "role" => role).absolute(sum(pick));
    }
}

/// Whether the upstreams answer that files are fetched from: one that was not asked yet is not up.
pub(super) fn collect_upstreams(role: &'static str, proxy: &Proxy) {
    for upstream in &proxy.upstreams {
        let up = f64::from(u8::from(upstream.health.is_up()));
        gauge!("uringcast_upstream_up", "role" => role, "upstream" => upstream.url.to_string()).set(up);
    }
}

/// Counts who watches, and writes a series for each stream. They are written here, and not kept by the
/// recorder, so that a stream that nobody watches any more is gone from the page.
pub(super) fn collect_streams(shared: &Shared) -> String {
    let mut lines = String::new();
    for role in &shared.roles {
        let Some(site) = &role.files else { continue };
        let attendance = site.audience.count(shared.now());
        let viewers: usize = attendance.streams.iter().map(|(_, viewers)| viewers).sum();
        gauge!("uringcast_hls_viewers", "role" => role.name).set(float(viewers as u64));
        gauge!("uringcast_hls_streams", "role" => role.name).set(float(attendance.streams.len() as u64));
        counter!("uringcast_hls_sessions_total", "role" => role.name).absolute(attendance.sessions);
        for (stream, viewers) in attendance.streams.iter().take(STREAMS_MAX) {
            let stream = stream.replace('\\', "\\\\").replace('"', "\\\"");
            let _ =
                writeln!(lines, "{STREAM_VIEWERS}{{role=\"{}\",stream=\"{stream}\"}} {viewers}", role.name);
        }
    }
    if lines.is_empty() {
        return lines;
    }
    let help = "Viewers of a stream by playlists and segments";
    format!("\n# HELP {STREAM_VIEWERS} {help}\n# TYPE {STREAM_VIEWERS} gauge\n{lines}")
}
