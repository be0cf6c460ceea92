//! The viewers of one process: they arrive over the ramp, settle, are measured and counted.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use rustix::buffer::spare_capacity;
use rustix::event::epoll::{self, Event, EventData, EventFlags};
use rustix::fd::OwnedFd;
use rustix::io::Errno;
use rustix::time::Timespec;

use super::args::Options;
use super::error::{StressError, os};
use super::findings::{Findings, Sample};
use super::procfs::usage;
use super::report::{SHARE_MIN, SLACK_SECONDS};
use super::session::{Fault, Progress, Session};
use super::viewer::{State, Viewer};

const EVENTS: usize = 1024;
const SCRATCH: usize = 1 << 20;
const TICK: Timespec = Timespec { tv_sec: 0, tv_nsec: 5_000_000 };
/// The most connections begun per turn, so that we do not overflow accept queues.
const CONNECTS_PER_TURN: usize = 128;
/// How long it may take, after the ramp, until all viewers have media.
const SETTLE_MAX: Duration = Duration::from_secs(25);
/// The time between the last arrival and the measurement, in which bursts of cached media end.
const SETTLE: Duration = Duration::from_secs(1);
/// The interval between samples.
const SAMPLE: Duration = Duration::from_millis(250);

/// Observes a run, and decides when its measured time may begin.
pub(super) trait Observer {
    /// Takes the current state of the run.
    fn sample(&mut self, sample: Sample);
    /// All viewers have arrived: may the measured time begin? Called repeatedly until it returns `true`.
    fn may_measure(&mut self) -> bool;
}

/// A run in progress.
pub(super) struct Crowd<'a> {
    options: &'a Options,
    observer: &'a mut dyn Observer,
    poll: OwnedFd,
    events: Vec<Event>,
    scratch: Vec<u8>,
    began: Instant,
    /// When the sockets are checked next.
    next_look: Instant,
    sampled_at: Instant,
    measuring: bool,
    viewers: Vec<Viewer>,
    /// Viewers that asked to be called again, and when.
    wakes: BinaryHeap<Reverse<(u64, usize)>>,
    refused: Vec<Fault>,
    waiting: usize,
    lost: usize,
    /// Bytes since the run began, and since the measured time began.
    total_bytes: u64,
    reads: u64,
    read_bytes: u64,
    latency: Vec<u64>,
    answers: Vec<u64>,
}

impl<'a> Crowd<'a> {
    pub(super) fn new(options: &'a Options, observer: &'a mut dyn Observer) -> Result<Self, StressError> {
        let poll = epoll::create(epoll::CreateFlags::CLOEXEC).map_err(os("epoll"))?;
        Ok(Self {
            options,
            observer,
            poll,
            events: Vec::with_capacity(EVENTS),
            scratch: vec![0; SCRATCH],
            began: Instant::now(),
            next_look: Instant::now(),
            sampled_at: Instant::now(),
            measuring: false,
            viewers: Vec::with_capacity(options.viewers),
            wakes: BinaryHeap::new(),
            refused: Vec::new(),
            waiting: 0,
            lost: 0,
            total_bytes: 0,
            reads: 0,
            read_bytes: 0,
            latency: Vec::new(),
            answers: Vec::new(),
        })
    }

    pub(super) fn run(mut self) -> Result<Findings, StressError> {
        self.arrive()?;
        while !self.observer.may_measure() {
            self.turn()?;
        }
        (self.measuring, self.reads, self.read_bytes) = (true, 0, 0);
        self.viewers.iter_mut().for_each(Viewer::open_books);
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

    /// The number of viewers that should have begun by now.
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
        let to = &self.options.targets[target];
        let session = Session::new(to, sampled, self.options);
        match Viewer::connect(number, (target, to), (session, sampled), self.now()) {
            Ok(viewer) => {
                self.viewers.push(viewer);
                self.waiting += 1;
                self.watch_connect(self.viewers.len() - 1)
            }
            Err(fault) => {
                self.refused.push(fault);
                Ok(())
            }
        }
    }

    fn watch_connect(&self, index: usize) -> Result<(), StressError> {
        let data = EventData::new_u64(index as u64);
        epoll::add(&self.poll, &self.viewers[index], data, EventFlags::OUT).map_err(os("epoll_ctl"))
    }

    /// Waits a little and serves the ready sockets.
    fn turn(&mut self) -> Result<(), StressError> {
        self.wake()?;
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

    /// Sleeps until the next check. No socket wakes this thread: on loopback that would be the server's work.
    fn rest(&mut self) {
        let now = Instant::now();
        std::thread::sleep(self.next_look.saturating_duration_since(now));
        self.next_look = self.next_look.max(now) + self.options.read_every;
    }

    /// Serves the ready sockets, waiting for the first one; returns their number.
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
        let target = &self.options.targets[viewer.target];
        if viewer.state == State::Open {
            let had_media = viewer.first_byte.is_some();
            let result = viewer.receive(target, &mut self.scratch, now);
            self.waiting -= usize::from(!had_media && viewer.first_byte.is_some());
            return self.note(index, result);
        }
        let data = EventData::new_u64(index as u64);
        let result = viewer.speak(target, now).map(|progress| (0, progress));
        epoll::modify(&self.poll, &*viewer, data, EventFlags::IN).map_err(os("epoll_ctl"))?;
        self.note(index, result)
    }

    /// Calls the viewers whose time has come.
    fn wake(&mut self) -> Result<(), StressError> {
        let now = self.now();
        while let Some(&Reverse((_, index))) = self.wakes.peek().filter(|Reverse((at, _))| *at <= now) {
            self.wakes.pop();
            let viewer = &mut self.viewers[index];
            let target = &self.options.targets[viewer.target];
            let result = match viewer.state {
                State::Failed(_) | State::Connecting => continue,
                State::Open => viewer.speak(target, now),
                State::Away => match viewer.connect_again(target) {
                    Ok(()) => {
                        self.watch_connect(index)?;
                        continue;
                    }
                    Err(fault) => Err(fault),
                },
            };
            self.note(index, result.map(|progress| (0, progress)))?;
        }
        Ok(())
    }

    /// Records what a viewer got and its new state.
    fn note(&mut self, index: usize, result: Result<(usize, Progress), Fault>) -> Result<(), StressError> {
        let state = match result {
            Ok((len, progress)) => {
                self.count(index, len, &progress);
                if !progress.closes {
                    return Ok(());
                }
                State::Away
            }
            Err(fault) => {
                self.lost += 1;
                self.waiting -= usize::from(self.viewers[index].first_byte.is_none());
                State::Failed(fault)
            }
        };
        let viewer = &mut self.viewers[index];
        if matches!(viewer.state, State::Open | State::Connecting) {
            epoll::delete(&self.poll, &*viewer).map_err(os("epoll_ctl"))?;
        }
        viewer.state = state;
        Ok(())
    }

    fn count(&mut self, index: usize, len: usize, progress: &Progress) {
        self.reads += u64::from(len > 0);
        self.read_bytes += len as u64;
        self.total_bytes += len as u64;
        self.wakes.extend(progress.wake.map(|at| Reverse((at, index))));
        self.answers.extend(progress.answered.filter(|_| self.measuring));
        let mut stamps = self.viewers[index].take_stamps().peekable();
        // Media sent before the measured time is a burst of old media.
        if stamps.peek().is_some() {
            let arrived = micros_since_1970();
            let measuring = self.measuring;
            self.latency.extend(stamps.map(|sent| arrived.saturating_sub(sent)).filter(|_| measuring));
        }
    }

    fn now(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_micros()).unwrap_or(u64::MAX)
    }

    /// What each stream's viewers should have got: what was published in the measured time, according to a
    /// sampled viewer; without one, what the best viewer got. Nothing for streams that are played by requests.
    fn references(&mut self, seconds: f64) -> Vec<f64> {
        let mut references = vec![(0.0, None); self.options.targets.len()];
        for viewer in &mut self.viewers {
            let got = viewer.measured() as f64;
            let (best, published) = &mut references[viewer.target];
            *best = got.max(*best);
            if let Some(millis @ 1..) = viewer.advanced() {
                // A viewer that lags or catches up gets less or more, with the same ratio of bytes to time.
                published.get_or_insert(got * 1e3 / f64::from(millis) * seconds);
            }
        }
        let targets = self.options.targets.iter();
        references
            .into_iter()
            .zip(targets)
            .map(
                |((best, published), target)| {
                    if target.protocol.is_live() { published.unwrap_or(best) } else { 0.0 }
                },
            )
            .collect()
    }

    fn findings(&mut self, seconds: f64) -> Findings {
        let references = self.references(seconds);
        let media_rate = self.media_rate(seconds);
        let slack = |reference: f64| reference / seconds.max(SLACK_SECONDS) * SLACK_SECONDS;
        let reference = references.iter().copied().fold(0.0, f64::max);
        let mut found = Findings {
            viewers: self.options.viewers,
            seconds,
            live: self.options.targets.iter().any(|target| target.protocol.is_live()),
            reference_bytes: whole(reference),
            slack_bytes: whole(slack(reference)),
            sampled: self.options.sampled,
            media_rate,
            failed: self.refused.len(),
            reads: self.reads,
            read_bytes: self.read_bytes,
            first_byte: self.viewers.iter().filter_map(|viewer| viewer.first_byte).collect(),
            first_keyframe: self.viewers.iter().filter_map(|viewer| viewer.first_keyframe).collect(),
            latency: std::mem::take(&mut self.latency),
            answers: std::mem::take(&mut self.answers),
            worst_percent: if self.refused.is_empty() { 100.0 } else { 0.0 },
            owed: self.refused.len() as f64 * reference,
            ..Findings::default()
        };
        self.refused.iter().for_each(|fault| *found.reasons.entry(fault.to_string()).or_default() += 1);
        for viewer in &mut self.viewers {
            let (got, owed) = (viewer.measured(), references[viewer.target]);
            found.connected += usize::from(viewer.first_byte.is_some());
            found.bytes += got;
            found.served += (got as f64).min(owed);
            found.owed += owed;
            found.stalls += u64::from(viewer.stalls);
            found.sampled_tags += viewer.tags();
            let is_live = self.options.targets[viewer.target].protocol.is_live();
            if is_live {
                let share = if owed > 0.0 { 100.0 * got as f64 / owed } else { 0.0 };
                found.worst_percent = found.worst_percent.min(share);
            }
            let reason = match &viewer.state {
                State::Failed(fault) => fault.to_string(),
                _ if viewer.first_byte.is_none() => "no media came".to_owned(),
                _ => {
                    let is_short = (got as f64) < owed * SHARE_MIN - slack(owed);
                    found.starved += usize::from(if is_live { is_short } else { viewer.stalls > 0 });
                    continue;
                }
            };
            found.failed += 1;
            *found.reasons.entry(reason).or_default() += 1;
        }
        found
    }

    /// Media seconds per second, of the sampled viewer that advanced most.
    fn media_rate(&mut self, seconds: f64) -> f64 {
        let advanced = self.viewers.iter_mut().filter_map(Viewer::advanced).max();
        f64::from(advanced.unwrap_or(0)) / 1e3 / seconds
    }
}

fn micros_since_1970() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(now.as_micros()).unwrap_or(u64::MAX)
}

fn own_cpu() -> f64 {
    usage(None).map_or(0.0, |own| own.cpu_seconds)
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a rounded count for a report")]
fn whole(value: f64) -> u64 {
    value.max(0.0) as u64
}
