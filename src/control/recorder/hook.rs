//! Calls the hook for each finished file: a POST or a command, tried again for a while when it fails. The files of a
//! stream come in their order; a call that fails keeps no other stream waiting.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::collections::hash_map::{Entry, HashMap};
use std::ffi::{OsStr, OsString};
use std::io;
use std::process::Stdio;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use hyper::StatusCode;
use rustls::ClientConfig;
use serde::Serialize;
use tokio::io::AsyncWriteExt;
use tokio::process::Command;
use tokio::sync::Semaphore;
use tracing::{error, warn};

use super::queue::{Items, Queued};
use crate::config::{Hook, Upstream};
use crate::control::client::{Client, ClientError};

/// How long an attempt may take.
const ATTEMPT: Duration = Duration::from_secs(10);
/// Waits between attempts: each is twice the one before, from the first to the longest.
const FIRST_WAIT: Duration = Duration::from_secs(1);
const LONGEST_WAIT: Duration = Duration::from_secs(60);
/// Attempts for one file: about a quarter of an hour.
const ATTEMPTS: u32 = 20;
/// Calls at a time.
const CALLS_MAX: usize = 16;
/// The most files that wait for the hook; for further ones it is not called.
pub(super) const WAITING_MAX: usize = 1000;

/// A finished file.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Finished {
    /// Always `recorded`.
    pub(super) event: &'static str,
    /// `flv`, `hls` or `fmp4`.
    pub(super) kind: &'static str,
    pub(super) stream: String,
    /// When its take began.
    pub(super) began: String,
    /// Its path on this machine.
    pub(super) file: String,
    /// Its path in a URL.
    pub(super) url: String,
    /// In bytes.
    pub(super) size: u64,
}

/// Why a call of the hook has failed.
#[derive(Debug, thiserror::Error)]
enum HookError {
    #[error("{0}")]
    Io(#[from] io::Error),
    #[error(transparent)]
    Client(#[from] ClientError),
    #[error("the answer's status is {0}")]
    Status(StatusCode),
    #[error("the command ended with {0}")]
    Command(std::process::ExitStatus),
    #[error("it took longer than {ATTEMPT:?}")]
    TooLong,
}

/// A finished file to call the hook for, and a handle that counts the work under way.
pub(super) type Told = (Finished, Rc<()>);

/// Calls the hook for files.
pub(super) struct Caller {
    hook: Hook,
    client: Client,
    calls: Semaphore,
    /// The files of each stream that the hook is being called for, the first of them now.
    streams: RefCell<HashMap<String, VecDeque<Queued<Told>>>>,
}

impl Caller {
    /// `trusted`: the servers to which it speaks TLS.
    pub(super) fn new(hook: Hook, trusted: Option<&Arc<ClientConfig>>) -> Self {
        let (client, calls) = (Client::new(trusted, ATTEMPT), Semaphore::new(CALLS_MAX));
        Self { hook, client, calls, streams: RefCell::default() }
    }

    /// Calls the hook for what comes, for ever.
    pub(super) async fn run(self: Rc<Self>, mut queue: Items<Told>) {
        while let Some(told) = queue.recv().await {
            match self.streams.borrow_mut().entry(told.item.0.stream.clone()) {
                Entry::Occupied(mut waiting) => waiting.get_mut().push_back(told),
                Entry::Vacant(stream) => {
                    let name = stream.key().clone();
                    stream.insert([told].into());
                    tokio_uring::spawn(Rc::clone(&self).tell_stream(name));
                }
            }
        }
    }

    /// Calls the hook for the files of a stream, until none waits.
    async fn tell_stream(self: Rc<Self>, stream: String) {
        loop {
            let next = self.streams.borrow()[&stream].front().map(|told| told.item.0.clone());
            let Some(file) = next else { break };
            self.tell(&file).await;
            self.streams.borrow_mut().get_mut(&stream).expect("until none waits").pop_front();
        }
        self.streams.borrow_mut().remove(&stream);
    }

    async fn tell(&self, finished: &Finished) {
        let Ok(json) = serde_json::to_string(finished) else { return };
        let mut wait = FIRST_WAIT;
        for attempt in 1..=ATTEMPTS {
            let Err(error) = self.attempt(finished, &json).await else { return };
            let file = &finished.file;
            if attempt == ATTEMPTS {
                error!(file, %error, "the hook failed and is not tried again for this file");
                return;
            }
            warn!(file, %error, again_in = ?wait, "the hook failed");
            tokio::time::sleep(wait).await;
            wait = (wait * 2).min(LONGEST_WAIT);
        }
    }

    async fn attempt(&self, finished: &Finished, json: &str) -> Result<(), HookError> {
        let _call = self.calls.acquire().await;
        let attempted = async {
            match &self.hook {
                Hook::Nobody => Ok(()),
                Hook::Http(url) => self.call(url, json).await,
                Hook::Command(command) => run(command, finished, json, std::env::vars_os()).await,
            }
        };
        tokio::time::timeout(ATTEMPT, attempted).await.unwrap_or(Err(HookError::TooLong))
    }

    async fn call(&self, url: &Upstream, json: &str) -> Result<(), HookError> {
        let status = self.client.post(url, json.to_owned()).await?.status();
        if status.is_success() { Ok(()) } else { Err(HookError::Status(status)) }
    }
}

/// Whether a variable of the environment is for this process alone: its configuration, which contains secrets,
/// and what the service manager passes to it (systemd.exec(5), sd_notify(3), sd_listen_fds(3),
/// sd_watchdog_enabled(3)).
fn is_private(name: &OsStr) -> bool {
    let name = name.as_encoded_bytes();
    let is_ours = |prefix: &str| name.starts_with(prefix.as_bytes());
    matches!(name, b"CREDENTIALS_DIRECTORY" | b"NOTIFY_SOCKET")
        || ["URINGCAST_", "WATCHDOG_", "LISTEN_"].into_iter().any(is_ours)
}

/// Runs a command with the JSON on its standard input and the variables of `environment` that are not private.
async fn run(
    command: &str,
    finished: &Finished,
    json: &str,
    environment: impl Iterator<Item = (OsString, OsString)>,
) -> Result<(), HookError> {
    let mut child = Command::new("/bin/sh")
        .args(["-c", command])
        .env_clear()
        .envs(environment.filter(|(name, _)| !is_private(name)))
        .env("URINGCAST_FILE", &finished.file)
        .env("URINGCAST_STREAM", &finished.stream)
        .env("URINGCAST_KIND", finished.kind)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .kill_on_drop(true)
        .spawn()?;
    if let Some(mut input) = child.stdin.take() {
        // The command need not read it.
        let _ = input.write_all(json.as_bytes()).await;
    }
    let status = child.wait().await?;
    if status.success() { Ok(()) } else { Err(HookError::Command(status)) }
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead, BufReader, Read, Write};
    use std::net::TcpListener;

    use super::*;

    fn finished() -> Finished {
        Finished {
            event: "recorded",
            kind: "flv",
            stream: "live/x".into(),
            began: "20261121T091545Z".into(),
            file: "/data/flv/live/x/index.flv".into(),
            url: "/flv/live/x/index.flv".into(),
            size: 7,
        }
    }

    fn runtime() -> tokio::runtime::Runtime {
        tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
    }

    /// Answers each connection with the next status; returns the bodies.
    fn server(statuses: &'static [u16]) -> (Hook, std::thread::JoinHandle<Vec<String>>) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let hook = format!("http://{}/told", listener.local_addr().unwrap()).parse().unwrap();
        let answering = std::thread::spawn(move || {
            let mut bodies = Vec::new();
            for status in statuses {
                let (mut peer, _) = listener.accept().unwrap();
                let mut reader = BufReader::new(peer.try_clone().unwrap());
                let mut length = 0;
                loop {
                    let mut line = String::new();
                    reader.read_line(&mut line).unwrap();
                    if let Some(value) = line.strip_prefix("Content-Length: ") {
                        length = value.trim().parse().unwrap();
                    }
                    if line == "\r\n" {
                        break;
                    }
                }
                let mut body = vec![0; length];
                reader.read_exact(&mut body).unwrap();
                bodies.push(String::from_utf8(body).unwrap());
                write!(peer, "HTTP/1.1 {status} x\r\nContent-Length: 0\r\n\r\n").unwrap();
            }
            bodies
        });
        (hook, answering)
    }

    #[test]
    fn a_call_that_fails_is_tried_again() {
        let (hook, server) = server(&[500, 204]);
        runtime().block_on(async { Caller::new(hook, None).tell(&finished()).await });
        let bodies = server.join().unwrap();
        assert_eq!(bodies[0], bodies[1]);
        let value: serde_json::Value = serde_json::from_str(&bodies[0]).unwrap();
        assert_eq!((&value["event"], &value["size"]), (&"recorded".into(), &7.into()));
    }

    #[test]
    fn a_command_gets_it_on_its_standard_input() {
        let file = std::env::temp_dir().join(format!("uringcast-hook-{}", std::process::id()));
        let command = format!("cat > {0} && test $URINGCAST_KIND = flv", file.display());
        runtime().block_on(async { Caller::new(command.parse().unwrap(), None).tell(&finished()).await });
        let text = std::fs::read_to_string(&file).unwrap();
        std::fs::remove_file(&file).unwrap();
        assert!(text.contains("\"url\":\"/flv/live/x/index.flv\""));
        assert!(runtime().block_on(run("exit 3", &finished(), "", std::env::vars_os())).is_err());
    }

    #[test]
    fn a_command_inherits_no_secret_and_nothing_meant_for_this_process() {
        let file = std::env::temp_dir().join(format!("uringcast-hook-env-{}", std::process::id()));
        let command = format!("env > {}", file.display());
        let environment = [
            ("PATH", "/usr/bin:/bin"),
            ("OWN_SETTING", "kept"),
            ("URINGCAST_ADMIN_TOKEN", "secret"),
            ("URINGCAST_ORIGIN__PUBLISH_TOKEN", "secret"),
            ("CREDENTIALS_DIRECTORY", "/run/secret"),
            ("NOTIFY_SOCKET", "/run/secret"),
            ("WATCHDOG_USEC", "secret"),
            ("WATCHDOG_PID", "secret"),
            ("LISTEN_FDS", "secret"),
            ("LISTEN_FDNAMES", "secret"),
        ];
        let environment = environment.map(|(name, value)| (name.into(), value.into())).into_iter();
        runtime().block_on(run(&command, &finished(), "", environment)).unwrap();
        let text = std::fs::read_to_string(&file).unwrap();
        std::fs::remove_file(&file).unwrap();
        let lines: Vec<&str> = text.lines().collect();
        for kept in ["OWN_SETTING=kept", "URINGCAST_KIND=flv", "URINGCAST_STREAM=live/x"] {
            assert!(lines.contains(&kept), "{kept} is missing in {text}");
        }
        assert!(!text.contains("secret") && !text.contains("WATCHDOG") && !text.contains("LISTEN"), "{text}");
    }
}
