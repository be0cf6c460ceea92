//! Processes that end with the test, and the program itself.

use std::collections::HashMap;
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};

use rustix::process::{Pid, Resource, Rlimit};

use super::until;

const LOG_LINES_MAX: usize = 20_000;

/// A child process with its log; dropping it kills it and, in a failing test, prints the log.
pub(crate) struct Guard {
    name: String,
    child: Child,
    log: Arc<Mutex<Vec<String>>>,
}

impl Guard {
    pub(crate) fn spawn(name: &str, command: &mut Command) -> Self {
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("{name}: {error}"));
        let log = Arc::new(Mutex::new(Vec::new()));
        let (shared, stderr) = (Arc::clone(&log), child.stderr.take().unwrap());
        std::thread::spawn(move || {
            for line in BufReader::new(stderr).split(b'\n').map_while(Result::ok) {
                let mut log = shared.lock().unwrap();
                if log.len() < LOG_LINES_MAX {
                    log.push(String::from_utf8_lossy(&line).into_owned());
                }
            }
        });
        Self { name: name.to_owned(), child, log }
    }

    /// SIGKILL, as a crash would end it.
    pub(crate) fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// SIGTERM, as a supervisor ends it.
    pub(crate) fn terminate(&self) {
        self.signal("TERM");
    }

    pub(crate) fn signal(&self, name: &str) {
        let id = self.child.id().to_string();
        assert!(Command::new("kill").args(["-s", name, &id]).status().unwrap().success());
    }

    /// Gives the running process a limit.
    pub(crate) fn limit(&self, resource: Resource, bytes: u64) {
        let limit = Rlimit { current: Some(bytes), maximum: Some(bytes) };
        rustix::process::prlimit(Some(Pid::from_child(&self.child)), resource, limit).unwrap();
    }

    /// The files below a folder that the process has open, deleted ones as `/proc` names them.
    pub(crate) fn open_below(&self, folder: &Path) -> Vec<String> {
        let entries = std::fs::read_dir(format!("/proc/{}/fd", self.child.id())).unwrap();
        let targets = entries.flatten().filter_map(|entry| std::fs::read_link(entry.path()).ok());
        let below = targets.filter(|target| target.starts_with(folder));
        below.map(|target| target.to_string_lossy().into_owned()).collect()
    }

    /// Bytes of the process's address space.
    pub(crate) fn address_space(&self) -> u64 {
        self.status("VmSize:") << 10
    }

    /// A number of the process's status.
    pub(crate) fn status(&self, field: &str) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix(field)).unwrap();
        line.split_whitespace().next().unwrap().parse().unwrap()
    }

    /// It has ended, and its parent or its last threads have not noticed.
    pub(crate) fn is_zombie(&self) -> bool {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        status.lines().any(|line| line.starts_with("State:\tZ"))
    }

    pub(crate) fn is_running(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// Waits for the process to end by itself.
    pub(crate) fn wait(&mut self) -> bool {
        let name = format!("{} to end", self.name);
        until(&name, || self.child.try_wait().unwrap()).success()
    }

    pub(crate) fn log(&self) -> Vec<String> {
        self.log.lock().unwrap().clone()
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        self.kill();
        if std::thread::panicking() {
            let log = self.log();
            let from = log.len().saturating_sub(200);
            eprintln!("--- {} ({} lines)\n{}\n---", self.name, log.len(), log[from..].join("\n"));
        }
    }
}

/// The program in one of its roles.
pub(crate) struct Server {
    pub(crate) guard: Guard,
    addrs: HashMap<String, Vec<SocketAddr>>,
}

impl Server {
    /// Starts `uringcast ARGS` in `home` and waits for its ready line.
    pub(crate) fn start(home: &Path, args: &[&str]) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_uringcast"));
        command.args(args).current_dir(home);
        // What steers the simulation is no key of the configuration.
        std::env::vars_os()
            .map(|(name, _)| name)
            .filter(|name| name.as_encoded_bytes().starts_with(b"URINGCAST_"))
            .for_each(|name| {
                command.env_remove(name);
            });
        let mut guard = Guard::spawn(args[0], &mut command);
        let ready = until(&format!("{} to be ready", args[0]), || {
            let found = guard.log().into_iter().find(|line| line.starts_with("ready "));
            let running = guard.is_running();
            assert!(found.is_some() || running, "{args:?} ended before it was ready");
            found
        });
        let addrs = ready
            .split_whitespace()
            .filter_map(|word| word.split_once('='))
            .filter_map(|(name, value)| {
                let list = value.split(',').map(|address| address.parse().ok());
                Some((name.to_owned(), list.collect::<Option<_>>()?))
            })
            .collect();
        Self { guard, addrs }
    }

    /// An origin on free ports; a viewer waits 20 s for a publisher and a publisher's `gap` to pass.
    pub(crate) fn origin(home: &Path, gap: &str) -> Self {
        let any = "127.0.0.1:0";
        Self::origin_at(home, gap, [any; 4])
    }

    /// An origin at `[rtmp, flv, web, admin]`.
    pub(crate) fn origin_at(home: &Path, gap: &str, [rtmp, flv, web, admin]: [&str; 4]) -> Self {
        let args = ["origin", "--rtmp", rtmp, "--flv", flv, "--web", web, "--admin", admin];
        Self::start(home, &[&args[..], &["--wait", "20s", "--gap", gap]].concat())
    }

    /// An origin of one loop that takes so many connections.
    pub(crate) fn origin_for(home: &Path, connections: u32) -> Self {
        Self::origin_with(home, &format!("loops = 1\n[limits]\nconnections = {connections}\n"), &[])
    }

    /// An origin with a configuration, and with more arguments.
    pub(crate) fn origin_with(home: &Path, config: &str, more: &[&str]) -> Self {
        let file = home.join("origin.toml");
        std::fs::write(&file, config).unwrap();
        let any = "127.0.0.1:0";
        let args = ["--rtmp", any, "--flv", any, "--web", any, "--admin", any];
        Self::start(home, &[&["origin"], &args[..], &["--config", file.to_str().unwrap()], more].concat())
    }

    /// A gateway that pulls from `upstream`.
    pub(crate) fn gateway(home: &Path, gap: &str, upstream: SocketAddr) -> Self {
        Self::gateway_at(home, gap, upstream, "127.0.0.1:0")
    }

    pub(crate) fn gateway_at(home: &Path, gap: &str, upstream: SocketAddr, listen: &str) -> Self {
        let upstream = format!("http://{upstream}");
        let args = ["flv-gateway", "--listen", listen, "--upstream", &upstream, "--admin", "127.0.0.1:0"];
        Self::start(home, &[&args[..], &["--wait", "20s", "--gap", gap]].concat())
    }

    /// The address the ready line gives for `name`, the first one if there are several.
    pub(crate) fn addr(&self, name: &str) -> SocketAddr {
        self.addrs(name)[0]
    }

    pub(crate) fn addrs(&self, name: &str) -> &[SocketAddr] {
        self.addrs.get(name).unwrap_or_else(|| panic!("no {name}= in the ready line: {:?}", self.addrs))
    }

    /// Where `key` is published by RTMP.
    pub(crate) fn rtmp(&self, key: &str) -> String {
        format!("rtmp://{}/{key}", self.addr("rtmp"))
    }

    pub(crate) fn assert_up(&mut self) {
        assert!(self.guard.is_running(), "{} has died", self.guard.name);
        let panicked = self.guard.log().into_iter().find(|line| line.contains("panicked"));
        assert_eq!(panicked, None);
    }

    /// Waits for a log line that holds `part`.
    pub(crate) fn wait_log(&self, part: &str) {
        until(&format!("a log line with {part:?}"), || {
            self.guard.log().iter().any(|line| line.contains(part)).then_some(())
        });
    }
}
