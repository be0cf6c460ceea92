//! The viewers of one process: arrive over the ramp, settle, are measured, are counted.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use rustix::buffer::spare_capacity;
use rustix::event::epoll::{self, Event, EventData, EventFlags};
use rustix::fd::OwnedFd;
use rustix::io::Errno;
use rustix::time::Timespec;

use super::findings::{Findings, Sample};
use super::procfs::usage;
use super::report::{SHARE_MIN, SLACK_SECONDS};
use super::viewer::{Fault, Viewer};
use super::{Options, StressError};

const EVENTS: usize = 1024;
const SCRATCH: usize = 1 << 20;
const TICK: Timespec = Timespec { tv_sec: 0, tv_nsec: 5_000_000 };
/// Connections begun per turn, so that accept queues do not overflow by our doing.
const CONNECTS_PER_TURN: usize = 128;
/// How long viewers may take, after the ramp, until media has come to all of them.
const SETTLE_MAX: Duration = Duration::from_secs(25);
/// Quiet time between the last arrival and the measurement: bursts of cached media are over.
const SETTLE: Duration = Duration::from_secs(1);
/// The distance of samples.
const SAMPLE: Duration = Duration::from_millis(250);

/// Who watches a run, and says when its measured time may begin.
pub(super) trait Observer {
    /// The state of the run now.
    fn sample(&mut self, sample: Sample);
    /// All viewers are there: may the measured time begin? Asked again and again until it says so.
    fn may_measure(&mut self) -> bool;
}

/// A run in progress.
pub(super) struct Crowd<'a> {
    options: &'a Options,
    observer: &'a mut dyn Observer,
    requests: Vec<String>,
    poll: OwnedFd,
    events: Vec<Event>,
    scratch: Vec<u8>,
    began: Instant,
    /// When the sockets are looked at next.
    next_look: Instant,
    sampled_at: Instant,
    measuring: bool,
    viewers: Vec<Viewer>,
    refused: Vec<Fault>,
    waiting: usize,
    lost: usize,
    /// Bytes since the run began, and since the measured time began.
    total_bytes: u64,
    reads: u64,
    read_bytes: u64,
    latency: Vec<u64>,
}

impl<'a> Crowd<'a> {
    pub(super) fn new(options: &'a Options, observer: &'a mut dyn Observer) -> Result<Self, StressError> {
        let poll = epoll::create(epoll::CreateFlags::CLOEXEC).map_err(os("epoll"))?;
        Ok(Self {
            options,
            observer,
            requests: options.targets.iter().map(super::Target::request).collect(),
            poll,
            events: Vec::with_capacity(EVENTS),
            scratch: vec![0; SCRATCH],
            began: Instant::now(),
            next_look: Instant::now(),
            sampled_at: Instant::now(),
            measuring: false,
            viewers: Vec::with_capacity(options.viewers),
            refused: Vec::new(),
            waiting: 0,
            lost: 0,
            total_bytes: 0,
            reads: 0,
            read_bytes: 0,
            latency: Vec::new(),
        })
    }

    pub(super) fn run(mut self) -> Result<Findings, StressError> {
        self.arrive()?;
        while !self.observer.may_measure() {
            self.turn()?;
        }
        (self.measuring, self.reads, self.read_bytes) = (true, 0, 0);
        for viewer in &mut self.viewers {
            viewer.bytes_at_start = viewer.bytes;
            viewer.media_at_start = viewer.sample().and_then(|(time, _)| time);
            viewer.stalls = 0;
        }
        let (start, own) = (Instant::now(), own_cpu());
        while start.elapsed() < self.options.duration {
            self.turn()?;
        }
        let seconds = start.elapsed().as_secs_f64();
        let now = self.now();
        self.viewers.iter_mut().for_each(|viewer| viewer.close_books(now));
        let own_cpu_seconds = own_cpu() - own;
        Ok(Findings { own_cpu_seconds, ..self.findings(seconds) })
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
        let number = self.options.first + number;
        let target = number % self.options.targets.len();
        match Viewer::connect(number, target, self.options.targets[target].addr, sampled, self.now()) {
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
        if self.options.read_every.is_zero() {
            self.serve_ready(&TICK)?;
        } else {
            self.rest();
            for _ in 0..=self.viewers.len() / EVENTS {
                if self.serve_ready(&Timespec::default())? < EVENTS {
                    break;
                }
            }
        }
        if self.sampled_at.elapsed() >= SAMPLE {
            self.sampled_at = Instant::now();
            self.observer.sample(Sample {
                at: self.began.elapsed().as_secs_f64(),
                watching: self.viewers.len() - self.waiting - self.lost,
                failed: self.lost + self.refused.len(),
                bytes: self.total_bytes,
                measuring: self.measuring,
            });
        }
        Ok(())
    }

    /// Sleeps until the next look. Nobody has to wake a sleeper: on loopback that would be the server's work.
    fn rest(&mut self) {
        let now = Instant::now();
        std::thread::sleep(self.next_look.saturating_duration_since(now));
        self.next_look = self.next_look.max(now) + self.options.read_every;
    }

    /// Serves the sockets that are ready, waiting for the first one; gives how many they were.
    fn serve_ready(&mut self, wait: &Timespec) -> Result<usize, StressError> {
        self.events.clear();
        match epoll::wait(&self.poll, spare_capacity(&mut self.events), Some(wait)) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(errno) => return Err(os("epoll_wait")(errno)),
        }
        let events = std::mem::take(&mut self.events);
        for event in &events {
            let Ok(index) = usize::try_from(event.data.u64()) else { continue };
            self.serve(index)?;
        }
        self.events = events;
        Ok(self.events.len())
    }

    fn serve(&mut self, index: usize) -> Result<(), StressError> {
        let now = self.now();
        let viewer = &mut self.viewers[index];
        let had_media = viewer.first_byte.is_some();
        let result = if viewer.has_asked() {
            viewer.receive(&mut self.scratch, now)
        } else {
            let data = EventData::new_u64(index as u64);
            let asked = viewer.ask(self.requests[viewer.target].as_bytes());
            epoll::modify(&self.poll, &*viewer, data, EventFlags::IN).map_err(os("epoll_ctl"))?;
            asked.map(|()| 0)
        };
        let is_first_media = !had_media && viewer.first_byte.is_some();
        match result {
            Ok(len) => {
                self.reads += u64::from(len > 0);
                self.read_bytes += len as u64;
                self.total_bytes += len as u64;
                let mut stamps = viewer.take_stamps().peekable();
                // What came before is a burst of old media.
                if stamps.peek().is_some() {
                    let arrived = micros_since_1970();
                    let measuring = self.measuring;
                    let ages = stamps.map(|sent| arrived.saturating_sub(sent)).filter(|_| measuring);
                    self.latency.extend(ages);
                }
            }
            Err(fault) => {
                viewer.fault = Some(fault);
                self.lost += usize::from(had_media || is_first_media);
                epoll::delete(&self.poll, &*viewer).map_err(os("epoll_ctl"))?;
            }
        }
        if is_first_media || (!had_media && viewer.fault.is_some()) {
            self.waiting -= 1;
            self.lost += usize::from(!is_first_media);
        }
        Ok(())
    }

    fn now(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_micros()).unwrap_or(u64::MAX)
    }

    /// The most that any viewer of each stream got: what the others should have got.
    fn references(&self) -> Vec<u64> {
        let mut best = vec![0; self.options.targets.len()];
        for viewer in &self.viewers {
            best[viewer.target] = viewer.measured().max(best[viewer.target]);
        }
        best
    }

    fn findings(&self, seconds: f64) -> Findings {
        let references = self.references();
        let media_rate = self.media_rate(seconds);
        let is_on_time = super::report::is_on_time(media_rate, seconds);
        let slack = |reference: u64| reference as f64 / seconds.max(SLACK_SECONDS) * SLACK_SECONDS;
        let reference_bytes = references.iter().copied().max().unwrap_or(0);
        let mut found = Findings {
            viewers: self.options.viewers,
            seconds,
            reference_bytes,
            slack_bytes: whole(slack(reference_bytes)),
            sampled: self.options.sampled,
            media_rate,
            failed: self.refused.len(),
            reads: self.reads,
            read_bytes: self.read_bytes,
            first_byte: self.viewers.iter().filter_map(|viewer| viewer.first_byte).collect(),
            first_keyframe: self.viewers.iter().filter_map(|viewer| viewer.first_keyframe).collect(),
            latency: self.latency.clone(),
            worst_percent: if self.refused.is_empty() { 100.0 } else { 0.0 },
            owed: self.refused.len() as f64 * reference_bytes as f64,
            ..Findings::default()
        };
        self.refused.iter().for_each(|fault| *found.reasons.entry(fault.to_string()).or_default() += 1);
        for viewer in &self.viewers {
            let (got, reference) = (viewer.measured(), references[viewer.target]);
            // When even the best viewer fell behind real time, all are owed more than it got.
            let owed = reference as f64 / if is_on_time { 1.0 } else { media_rate };
            found.connected += usize::from(viewer.first_byte.is_some());
            found.bytes += got;
            found.served += got.min(reference);
            found.owed += owed;
            found.stalls += u64::from(viewer.stalls);
            found.sampled_tags += viewer.sample().map_or(0, |(_, tags)| tags);
            found.worst_percent =
                found.worst_percent.min(if owed > 0.0 { 100.0 * got as f64 / owed } else { 0.0 });
            let reason = match viewer.fault {
                Some(fault) => fault.to_string(),
                None if viewer.first_byte.is_none() => "no media came".to_owned(),
                None => {
                    let need = reference as f64 * SHARE_MIN - slack(reference);
                    found.starved += usize::from((got as f64) < need);
                    continue;
                }
            };
            found.failed += 1;
            *found.reasons.entry(reason).or_default() += 1;
        }
        found
    }

    /// Media seconds per second, of the sampled viewer that advanced most.
    fn media_rate(&self, seconds: f64) -> f64 {
        let advanced = self.viewers.iter().filter_map(|viewer| {
            let (newest, _) = viewer.sample()?;
            Some(newest?.wrapping_sub(viewer.media_at_start?))
        });
        f64::from(advanced.max().unwrap_or(0)) / 1e3 / seconds
    }
}

fn micros_since_1970() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(now.as_micros()).unwrap_or(u64::MAX)
}

fn own_cpu() -> f64 {
    usage(None).map_or(0.0, |own| own.cpu_seconds)
}

pub(super) fn os(what: &'static str) -> impl Fn(Errno) -> StressError {
    move |errno| StressError::Os { what, source: errno.into() }
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a rounded count for a report")]
fn whole(value: f64) -> u64 {
    value.max(0.0) as u64
}
