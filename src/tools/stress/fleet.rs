//! The processes of a run: one, or as many as the limit on open files requires.
//!
//! A child prints its samples and results on standard output, one JSON value per line. It prints `arrived` when
//! its viewers have arrived, and begins to measure when it reads `go`, so that all processes measure the same
//! time.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use serde::{Deserialize, Serialize};

use super::args::StressArgs;
use super::crowd::{Crowd, Observer};
use super::error::{StressError, os};
use super::findings::{Findings, Sample};
use super::monitor::Monitor;

/// Files that a process has open in addition to its viewers, with a reserve.
const FILES_BESIDE: u64 = 32;
/// The most processes.
const PROCESSES_MAX: usize = 64;

/// A line printed by a child.
#[derive(Serialize, Deserialize)]
enum Line {
    Sample(Sample),
    Arrived,
    Found(Box<Findings>),
}

/// How many processes a run needs.
///
/// # Errors
/// [`StressError::FileLimit`].
pub(super) fn processes(args: &StressArgs) -> Result<usize, StressError> {
    let limit = raise_file_limit()?;
    let each = usize::try_from(limit.saturating_sub(FILES_BESIDE)).unwrap_or(usize::MAX).max(1);
    let needed = args.viewers.div_ceil(each).max(1);
    match args.processes {
        _ if needed > PROCESSES_MAX => Err(StressError::FileLimit { viewers: args.viewers, limit }),
        0 => Ok(needed),
        asked if asked >= needed => Ok(asked.min(PROCESSES_MAX)),
        _ => Err(StressError::FileLimit { viewers: args.viewers, limit }),
    }
}

/// Lets this process, and those that it starts, open as many files as the hard limit allows.
fn raise_file_limit() -> Result<u64, StressError> {
    let limits = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: limits.maximum, maximum: limits.maximum })
        .map_err(os("setrlimit"))?;
    Ok(limits.maximum.unwrap_or(u64::MAX))
}

/// Runs all viewers in this process.
pub(super) fn run_alone(args: &StressArgs, monitor: &mut Monitor) -> Result<Findings, StressError> {
    struct Alone<'a>(&'a mut Monitor, bool);
    impl Observer for Alone<'_> {
        fn sample(&mut self, sample: Sample) {
            self.0.sample(sample);
        }
        fn may_measure(&mut self) -> bool {
            if !std::mem::replace(&mut self.1, true) {
                self.0.measure();
            }
            true
        }
    }
    let options = args.options(0, 1)?;
    let found = Crowd::new(&options, &mut Alone(monitor, false))?.run()?;
    monitor.measured();
    Ok(found)
}

/// Runs a part of the viewers for another process.
pub(super) fn run_part(args: &StressArgs, part: usize, parts: usize) -> Result<Findings, StressError> {
    struct ChildObserver {
        arrived: bool,
        go: Arc<AtomicBool>,
    }
    impl Observer for ChildObserver {
        fn sample(&mut self, sample: Sample) {
            say(&Line::Sample(sample));
        }
        fn may_measure(&mut self) -> bool {
            if !std::mem::replace(&mut self.arrived, true) {
                say(&Line::Arrived);
            }
            self.go.load(Ordering::Acquire)
        }
    }
    let options = args.options(part, parts)?;
    let go = Arc::new(AtomicBool::new(false));
    let heard = Arc::clone(&go);
    std::thread::spawn(move || {
        let mut line = String::new();
        match std::io::stdin().read_line(&mut line) {
            Ok(len) if len > 0 => heard.store(true, Ordering::Release),
            _ => std::process::exit(1), // the parent process has ended
        }
    });
    let found = Crowd::new(&options, &mut ChildObserver { arrived: false, go })?.run()?;
    say(&Line::Found(Box::new(found.clone())));
    Ok(found)
}

fn say(line: &Line) {
    let Ok(text) = serde_json::to_string(line) else { return };
    if writeln!(std::io::stdout(), "{text}").is_err() {
        std::process::exit(1); // the parent process has ended
    }
}

/// Runs the viewers in several processes.
pub(super) fn run_together(
    args: &StressArgs,
    parts: usize,
    monitor: &mut Monitor,
) -> Result<Findings, StressError> {
    let (sender, lines) = channel();
    let mut fleet = Fleet { children: Vec::new(), stdins: Vec::new() };
    for part in 0..parts {
        fleet.start(args, part, parts, &sender)?;
    }
    drop(sender);
    fleet.watch(&lines, monitor)
}

struct Fleet {
    children: Vec<Child>,
    stdins: Vec<ChildStdin>,
}

impl Fleet {
    fn start(
        &mut self,
        args: &StressArgs,
        part: usize,
        parts: usize,
        lines: &Sender<(usize, Line)>,
    ) -> Result<(), StressError> {
        let io = |source| StressError::Os { what: "start another process", source };
        let mut command = Command::new(std::env::current_exe().map_err(io)?);
        // The first argument may be the name of a subcommand.
        command.args(std::env::args_os().skip(1).take_while(|argument| argument == "stress"));
        command.args(&args.urls).arg("--quiet");
        for (flag, value) in [
            ("--viewers", args.viewers.to_string()),
            ("--streams", args.streams.to_string()),
            ("--ramp", args.ramp.to_string()),
            ("--duration", args.duration.to_string()),
            ("--sample-check", args.sample_check.to_string()),
            ("--ask-every", args.ask_every.to_string()),
            ("--read-every", args.read_every.to_string()),
            ("--processes", parts.to_string()),
            ("--part", part.to_string()),
        ] {
            command.args([flag, &value]);
        }
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().map_err(io)?;
        let (stdin, stdout) = (child.stdin.take(), child.stdout.take());
        self.stdins.extend(stdin);
        self.children.push(child);
        let lines = lines.clone();
        std::thread::spawn(move || {
            for line in BufReader::new(stdout.expect("piped")).lines().map_while(Result::ok) {
                let Ok(line) = serde_json::from_str(&line) else { continue };
                if lines.send((part, line)).is_err() {
                    return;
                }
            }
        });
        Ok(())
    }

    fn watch(
        mut self,
        lines: &Receiver<(usize, Line)>,
        monitor: &mut Monitor,
    ) -> Result<Findings, StressError> {
        let parts = self.children.len();
        let mut samples = vec![Sample::default(); parts];
        let (mut arrived, mut found) = (0, Vec::new());
        let mut printed = Instant::now();
        while found.len() < parts {
            let Ok((part, line)) = lines.recv() else { return Err(StressError::PartDied) };
            match line {
                Line::Sample(sample) => samples[part] = sample,
                Line::Arrived => {
                    arrived += 1;
                    if arrived == parts {
                        monitor.measure();
                        for stdin in &mut self.stdins {
                            let gone = |_| StressError::PartDied;
                            stdin.write_all(b"go\n").and_then(|()| stdin.flush()).map_err(gone)?;
                        }
                    }
                }
                Line::Found(findings) => {
                    if found.is_empty() {
                        monitor.measured();
                    }
                    found.push(*findings);
                }
            }
            if printed.elapsed() >= Duration::from_millis(200) {
                printed = Instant::now();
                monitor.sample(Sample::sum(&samples));
            }
        }
        let mut all = found.into_iter();
        let mut sum = all.next().ok_or(StressError::PartDied)?;
        all.for_each(|findings| sum.merge(findings));
        Ok(sum)
    }
}

impl Drop for Fleet {
    fn drop(&mut self) {
        for child in &mut self.children {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}
