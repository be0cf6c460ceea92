//! All viewers of a run: arrive over the ramp, settle, are measured, are counted.

use std::time::{Duration, Instant};

use rustix::buffer::spare_capacity;
use rustix::event::epoll::{self, Event, EventData, EventFlags};
use rustix::fd::OwnedFd;
use rustix::io::Errno;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use rustix::time::Timespec;

use super::procfs::{Usage, usage};
use super::report::{SHARE_MIN, SLACK_SECONDS};
use super::viewer::{Fault, Viewer};
use super::{Options, Percentiles, Report, ServerCost, StressError};

/// Files this process has open beside its viewers, and some room.
const FILES_BESIDE: u64 = 32;
const EVENTS: usize = 1024;
const SCRATCH: usize = 1 << 20;
const TICK: Timespec = Timespec { tv_sec: 0, tv_nsec: 5_000_000 };
/// Connections begun per turn, so that accept queues do not overflow by our doing.
const CONNECTS_PER_TURN: usize = 128;
/// How long viewers may take, after the ramp, until media has come to all of them.
const SETTLE_MAX: Duration = Duration::from_secs(25);
/// Quiet time between the last arrival and the measurement: bursts of cached media are over.
const SETTLE: Duration = Duration::from_secs(1);

/// A run in progress.
pub(super) struct Crowd<'a> {
    options: &'a Options,
    request: String,
    poll: OwnedFd,
    events: Vec<Event>,
    scratch: Vec<u8>,
    began: Instant,
    viewers: Vec<Viewer>,
    refused: Vec<Fault>,
    waiting: usize,
    reads: u64,
    read_bytes: u64,
}

/// The state of things at one moment.
struct Reading {
    at: Instant,
    server: Option<Usage>,
    own: Option<Usage>,
}

impl<'a> Crowd<'a> {
    pub(super) fn new(options: &'a Options) -> Result<Self, StressError> {
        raise_file_limit(options.viewers)?;
        let poll = epoll::create(epoll::CreateFlags::CLOEXEC).map_err(os("epoll"))?;
        Ok(Self {
            options,
            request: options.target.request(),
            poll,
            events: Vec::with_capacity(EVENTS),
            scratch: vec![0; SCRATCH],
            began: Instant::now(),
            viewers: Vec::with_capacity(options.viewers),
            refused: Vec::new(),
            waiting: 0,
            reads: 0,
            read_bytes: 0,
        })
    }

    pub(super) fn run(mut self) -> Result<Report, StressError> {
        let before = self.reading();
        self.arrive()?;
        let start = self.reading();
        (self.reads, self.read_bytes) = (0, 0);
        for viewer in &mut self.viewers {
            viewer.bytes_at_start = viewer.bytes;
            viewer.media_at_start = viewer.sample().and_then(|(time, _)| time);
            viewer.stalls = 0;
        }
        while start.at.elapsed() < self.options.duration {
            self.turn()?;
        }
        let end = self.reading();
        let now = self.now();
        self.viewers.iter_mut().for_each(|viewer| viewer.close_books(now));
        Ok(self.report(&before, &start, &end))
    }

    /// Opens viewers evenly over the ramp, then waits until media has come to all that are left.
    fn arrive(&mut self) -> Result<(), StressError> {
        let total = self.options.viewers;
        let mut begun = 0;
        while begun < total {
            let due = self.due(total);
            for _ in 0..CONNECTS_PER_TURN.min(due.saturating_sub(begun)) {
                self.connect(begun)?;
                begun += 1;
            }
            self.turn()?;
        }
        let all_begun = Instant::now();
        while self.waiting > 0 && all_begun.elapsed() < SETTLE_MAX {
            self.turn()?;
        }
        let settled = Instant::now();
        while settled.elapsed() < SETTLE {
            self.turn()?;
        }
        Ok(())
    }

    /// Viewers that should have begun by now.
    fn due(&self, total: usize) -> usize {
        let (passed, ramp) = (self.began.elapsed().as_micros(), self.options.ramp.as_micros());
        if passed >= ramp {
            return total;
        }
        usize::try_from(total as u128 * passed / ramp).map_or(total, |due| due + 1).min(total)
    }

    fn connect(&mut self, number: usize) -> Result<(), StressError> {
        let sampled = number < self.options.sampled;
        match Viewer::connect(number, self.options.target.addr, sampled, self.now()) {
            Ok(viewer) => {
                let data = EventData::new_u64(self.viewers.len() as u64);
                epoll::add(&self.poll, &viewer, data, EventFlags::OUT).map_err(os("epoll_ctl"))?;
                self.viewers.push(viewer);
                self.waiting += 1;
            }
            Err(fault) => self.refused.push(fault),
        }
        Ok(())
    }

    /// Waits a little and serves what is ready.
    fn turn(&mut self) -> Result<(), StressError> {
        self.events.clear();
        match epoll::wait(&self.poll, spare_capacity(&mut self.events), Some(&TICK)) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(errno) => return Err(os("epoll_wait")(errno)),
        }
        let events = std::mem::take(&mut self.events);
        for event in &events {
            let Ok(index) = usize::try_from(event.data.u64()) else { continue };
            self.serve(index)?;
        }
        self.events = events;
        Ok(())
    }

    fn serve(&mut self, index: usize) -> Result<(), StressError> {
        let now = self.now();
        let viewer = &mut self.viewers[index];
        let had_media = viewer.first_byte.is_some();
        let result = if viewer.has_asked() {
            viewer.receive(&mut self.scratch, now)
        } else {
            let data = EventData::new_u64(index as u64);
            let asked = viewer.ask(self.request.as_bytes());
            epoll::modify(&self.poll, &*viewer, data, EventFlags::IN).map_err(os("epoll_ctl"))?;
            asked.map(|()| 0)
        };
        match result {
            Ok(len) => {
                self.reads += u64::from(len > 0);
                self.read_bytes += len as u64;
            }
            Err(fault) => {
                viewer.fault = Some(fault);
                epoll::delete(&self.poll, &*viewer).map_err(os("epoll_ctl"))?;
            }
        }
        if !had_media && (viewer.first_byte.is_some() || viewer.fault.is_some()) {
            self.waiting -= 1;
        }
        Ok(())
    }

    fn now(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_micros()).unwrap_or(u64::MAX)
    }

    fn reading(&self) -> Reading {
        let server = self.options.server_pid.and_then(|pid| usage(Some(pid)));
        Reading { at: Instant::now(), server, own: usage(None) }
    }

    fn report(&self, before: &Reading, start: &Reading, end: &Reading) -> Report {
        let seconds = end.at.duration_since(start.at).as_secs_f64();
        let got = |viewer: &Viewer| viewer.bytes - viewer.bytes_at_start;
        let reference = self.viewers.iter().filter(|v| v.is_sampled()).map(got).max().unwrap_or(0);
        let slack = reference as f64 / seconds.max(SLACK_SECONDS) * SLACK_SECONDS;
        let need = reference as f64 * SHARE_MIN - slack;
        let mut report = Report {
            viewers: self.options.viewers,
            seconds,
            reference_bytes: reference,
            slack_bytes: whole(slack),
            sampled: self.options.sampled,
            media_rate: self.media_rate(seconds),
            failed: self.refused.len(),
            bytes_per_read: self.read_bytes / self.reads.max(1),
            first_byte_ms: Percentiles::of(self.viewers.iter().filter_map(|viewer| viewer.first_byte)),
            first_keyframe_ms: Percentiles::of(
                self.viewers.iter().filter_map(|viewer| viewer.first_keyframe),
            ),
            ..Report::default()
        };
        let mut counted = 0;
        let mut worst = if self.refused.is_empty() { reference } else { 0 };
        self.refused.iter().for_each(|fault| *report.reasons.entry(fault.to_string()).or_default() += 1);
        for viewer in &self.viewers {
            report.connected += usize::from(viewer.first_byte.is_some());
            report.bytes += got(viewer);
            report.stalls += u64::from(viewer.stalls);
            report.sampled_tags += viewer.sample().map_or(0, |(_, tags)| tags);
            counted += got(viewer).min(reference);
            worst = worst.min(got(viewer));
            let reason = match viewer.fault {
                Some(fault) => fault.to_string(),
                None if viewer.first_byte.is_none() => "no media came".to_owned(),
                None => {
                    report.starved += usize::from((got(viewer) as f64) < need);
                    continue;
                }
            };
            report.failed += 1;
            *report.reasons.entry(reason).or_default() += 1;
        }
        let due = reference as f64 / if report.is_on_time() { 1.0 } else { report.media_rate };
        let percent = |bytes: u64, of: f64| if of > 0.0 { 100.0 * bytes as f64 / of } else { 0.0 };
        report.served_percent = percent(counted, due * self.options.viewers as f64);
        report.worst_percent = percent(worst, due);
        report.server = self.server_cost(before, start, end, report.bytes);
        if let (Some(start), Some(end)) = (start.own, end.own) {
            report.own_cpu_percent = 100.0 * (end.cpu_seconds - start.cpu_seconds) / seconds;
        }
        report
    }

    /// Media seconds per second, of the sampled viewer that advanced most.
    fn media_rate(&self, seconds: f64) -> f64 {
        let advanced = self.viewers.iter().filter_map(|viewer| {
            let (newest, _) = viewer.sample()?;
            Some(newest?.wrapping_sub(viewer.media_at_start?))
        });
        f64::from(advanced.max().unwrap_or(0)) / 1e3 / seconds
    }

    fn server_cost(
        &self,
        before: &Reading,
        start: &Reading,
        end: &Reading,
        bytes: u64,
    ) -> Option<ServerCost> {
        let (before, started, ended) = (before.server?, start.server?, end.server?);
        let cpu_seconds = ended.cpu_seconds - started.cpu_seconds;
        let growth = i64::try_from(ended.rss_bytes).ok()? - i64::try_from(before.rss_bytes).ok()?;
        Some(ServerCost {
            cpu_seconds,
            cpu_percent: 100.0 * cpu_seconds / end.at.duration_since(start.at).as_secs_f64(),
            cpu_seconds_per_gb: cpu_seconds / (bytes.max(1) as f64 / 1e9),
            rss_bytes: ended.rss_bytes,
            rss_bytes_per_viewer: growth / i64::try_from(self.viewers.len().max(1)).ok()?,
        })
    }
}

/// Lets this process open a file for every viewer, as far as the hard limit goes.
fn raise_file_limit(viewers: usize) -> Result<(), StressError> {
    let limits = getrlimit(Resource::Nofile);
    let hard = limits.maximum.unwrap_or(u64::MAX);
    if viewers as u64 + FILES_BESIDE > hard {
        return Err(StressError::FileLimit { viewers, limit: hard });
    }
    setrlimit(Resource::Nofile, Rlimit { current: limits.maximum, maximum: limits.maximum })
        .map_err(os("setrlimit"))
}

fn os(what: &'static str) -> impl Fn(Errno) -> StressError {
    move |errno| StressError::Os { what, source: errno.into() }
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a rounded count for a report")]
fn whole(value: f64) -> u64 {
    value.max(0.0) as u64
}
