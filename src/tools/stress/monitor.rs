//! Shows a run in progress and records it: the progress bar, the points of the plots, the server's readings.

use std::time::Instant;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::args::StressArgs;
use super::findings::Sample;
use super::procfs::{Usage, usage};
use super::report::ServerCost;

/// One point of the run's plots.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Point {
    /// Seconds since the run began.
    pub(super) at: f64,
    pub(super) watching: usize,
    pub(super) failed: usize,
    /// Of all viewers.
    pub(super) megabits_per_second: f64,
    /// Of one core.
    pub(super) server_cpu_percent: Option<f64>,
}

/// The server at one moment.
#[derive(Clone, Copy, Debug)]
struct Reading {
    at: Instant,
    server: Option<Usage>,
}

/// Observes a run.
pub(super) struct Monitor {
    pid: Option<u32>,
    viewers: usize,
    bar: ProgressBar,
    before: Reading,
    start: Option<Reading>,
    end: Option<Reading>,
    last: (Sample, Reading),
    pub(super) course: Vec<Point>,
}

impl Monitor {
    pub(super) fn new(args: &StressArgs) -> Self {
        let target = if args.quiet { ProgressDrawTarget::hidden() } else { ProgressDrawTarget::stderr() };
        let bar = ProgressBar::with_draw_target(Some(args.viewers as u64), target);
        let style = ProgressStyle::with_template("{bar:24} {pos}/{len} viewers  {elapsed}  {msg}");
        bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
        let before = read(args.server_pid);
        Self {
            pid: args.server_pid,
            viewers: args.viewers,
            bar,
            before,
            start: None,
            end: None,
            last: (Sample::default(), before),
            course: Vec::new(),
        }
    }

    /// Takes the current state of the run.
    pub(super) fn sample(&mut self, sample: Sample) {
        let reading = read(self.pid);
        let (last, last_reading) = std::mem::replace(&mut self.last, (sample, reading));
        let seconds = (sample.at - last.at).max(1e-3);
        let point = Point {
            at: sample.at,
            watching: sample.watching,
            failed: sample.failed,
            megabits_per_second: sample.bytes.saturating_sub(last.bytes) as f64 * 8.0 / 1e6 / seconds,
            server_cpu_percent: cpu_percent(&last_reading, &reading),
        };
        self.course.push(point);
        self.bar.set_position(sample.watching as u64);
        let phase = if sample.measuring { "measuring" } else { "arriving" };
        let cpu =
            point.server_cpu_percent.map_or(String::new(), |cpu| format!(", server {cpu:.0} % of a core"));
        let failed = if sample.failed > 0 { format!(", {} failed", sample.failed) } else { String::new() };
        self.bar.set_message(format!("{phase}, {:.0} Mbit/s{cpu}{failed}", point.megabits_per_second));
    }

    /// The measured time begins.
    pub(super) fn measure(&mut self) {
        self.start = Some(read(self.pid));
    }

    /// The measured time has ended.
    pub(super) fn measured(&mut self) {
        self.end = Some(read(self.pid));
        self.bar.finish_and_clear();
    }

    /// What the measured time, in which viewers got `bytes`, cost the server.
    pub(super) fn cost(&self, bytes: u64) -> Option<ServerCost> {
        let (start, end) = (self.start?, self.end?);
        let (before, started, ended) = (self.before.server?, start.server?, end.server?);
        let cpu_seconds = ended.cpu_seconds - started.cpu_seconds;
        let per_viewer =
            |after: u64, before: u64| (after as f64 - before as f64) / self.viewers.max(1) as f64;
        Some(ServerCost {
            cpu_seconds,
            cpu_percent: cpu_percent(&start, &end)?,
            cpu_seconds_per_gb: cpu_seconds / (bytes.max(1) as f64 / 1e9),
            rss_bytes: ended.rss_bytes,
            rss_bytes_per_viewer: per_viewer(ended.rss_bytes, before.rss_bytes),
            own_bytes_per_viewer: per_viewer(
                ended.rss_bytes.saturating_sub(ended.shared_bytes),
                before.rss_bytes.saturating_sub(before.shared_bytes),
            ),
            tcp_memory_bytes: ended.tcp_bytes,
        })
    }
}

fn read(pid: Option<u32>) -> Reading {
    Reading { at: Instant::now(), server: pid.and_then(|pid| usage(Some(pid))) }
}

fn cpu_percent(from: &Reading, to: &Reading) -> Option<f64> {
    let used = to.server?.cpu_seconds - from.server?.cpu_seconds;
    Some(100.0 * used / to.at.duration_since(from.at).as_secs_f64().max(1e-3))
}
