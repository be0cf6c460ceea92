//! A viewer on a thread of its own: reads, checks, remembers.

use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use super::client::{Flavor, Response};
use super::flv::{Brief, Chain};
use super::{SOON, until};

#[derive(Default)]
struct Seen {
    tags: Vec<Brief>,
    bytes: Vec<u8>,
    /// `Ok`: the server ended the body at a tag's end.
    end: Option<Result<(), String>>,
}

/// A running viewer; dropping it closes its connection.
pub(crate) struct Watch {
    name: String,
    socket: TcpStream,
    seen: Arc<Mutex<Seen>>,
}

impl Watch {
    /// Connects, waits for the answer's head and begins to read.
    pub(crate) fn start(addr: SocketAddr, path: &str, flavor: Flavor) -> Self {
        Self::try_start(addr, path, flavor).unwrap_or_else(|error| panic!("{path} {flavor:?}: {error}"))
    }

    pub(crate) fn try_start(addr: SocketAddr, path: &str, flavor: Flavor) -> Result<Self, String> {
        let answer = Response::play(addr, path, flavor)?;
        let expected = if flavor == Flavor::Ws { 101 } else { 200 };
        if answer.status != expected {
            return Err(format!("status {}", answer.status));
        }
        let socket = answer.socket.try_clone().map_err(|error| error.to_string())?;
        let seen = Arc::new(Mutex::new(Seen::default()));
        let shared = Arc::clone(&seen);
        std::thread::Builder::new()
            .stack_size(256 << 10)
            .spawn(move || {
                let end = follow(answer, &shared);
                shared.lock().unwrap().end = Some(end);
            })
            .map_err(|error| error.to_string())?;
        Ok(Self { name: format!("{flavor:?} {addr}{path}"), socket, seen })
    }

    /// Starts on another thread, for a viewer that comes before its publisher.
    pub(crate) fn early(
        addr: SocketAddr,
        path: &'static str,
        flavor: Flavor,
    ) -> std::thread::JoinHandle<Result<Self, String>> {
        std::thread::spawn(move || Self::try_start(addr, path, flavor))
    }

    pub(crate) fn tags(&self) -> Vec<Brief> {
        self.seen.lock().unwrap().tags.clone()
    }

    pub(crate) fn bytes(&self) -> Vec<u8> {
        self.seen.lock().unwrap().bytes.clone()
    }

    pub(crate) fn count(&self) -> usize {
        self.seen.lock().unwrap().tags.len()
    }

    /// Waits until `found` likes the tags; the viewer must stay connected and its chain right till then.
    pub(crate) fn wait(&self, what: &str, found: impl Fn(&[Brief]) -> bool) {
        until(&format!("{}: {what}", self.name), || {
            let seen = self.seen.lock().unwrap();
            if found(&seen.tags) {
                return Some(());
            }
            assert!(seen.end.is_none(), "{}: waiting for {what}: ended with {:?}", self.name, seen.end);
            None
        });
    }

    /// Waits for pictures, a keyframe among them, that come after the first `mark` tags.
    pub(crate) fn wait_pictures_after(&self, mark: usize) {
        self.wait("new pictures", |tags| {
            let fresh = tags.get(mark..).unwrap_or_default();
            fresh.iter().any(|tag| tag.key) && fresh.iter().filter(|tag| tag.is_picture()).count() > 10
        });
    }

    /// Still connected, and every byte so far right.
    pub(crate) fn assert_well(&self) {
        let seen = self.seen.lock().unwrap();
        assert!(seen.end.is_none(), "{}: ended with {:?}", self.name, seen.end);
        assert!(!seen.tags.is_empty(), "{}: nothing came", self.name);
    }

    /// Waits for the server to end the stream, properly.
    pub(crate) fn wait_end(&self) {
        let start = Instant::now();
        let end = until(&format!("{}: the end", self.name), || self.seen.lock().unwrap().end.clone());
        assert_eq!(end, Ok(()), "{} after {:?} (bound {SOON:?})", self.name, start.elapsed());
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        let _ = self.socket.shutdown(Shutdown::Both);
        if std::thread::panicking() {
            // The panic may have come from whoever held the lock.
            let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
            eprintln!(
                "{}: {} tags, end {:?}, last {:?}",
                self.name,
                seen.tags.len(),
                seen.end,
                seen.tags.last()
            );
        }
    }
}

fn follow(mut answer: Response, shared: &Mutex<Seen>) -> Result<(), String> {
    let mut chain = Chain::default();
    let mut body = Vec::new();
    loop {
        body.clear();
        let more = answer.read(&mut body)?;
        let mut seen = shared.lock().unwrap();
        chain.feed(&body, &mut seen.tags)?;
        seen.bytes.extend_from_slice(&body);
        if !more {
            return match chain.rest() {
                0 => Ok(()),
                rest => Err(format!("ended {rest} bytes into a tag")),
            };
        }
    }
}
