//! A client of a file gateway: it pipelines requests, reads at any speed, and compares every byte of every
//! answer with the file.

use std::sync::OnceLock;

use super::net::{Action, EndId, Speed, World};
use super::rng::Rng;
use super::tls::Tls;
use crate::uring::Millis;

/// The folder that the simulated file gateway serves: this package's own.
pub(super) const ROOT: &str = env!("CARGO_MANIFEST_DIR");
/// A file that is kept in memory, two that are sent in slices, one that does not exist, and a listing that is
/// never made, since the simulation has no control thread.
const PATHS: [&str; 5] =
    ["src/lib.rs", "web/demo/clip.flv", "web/vendor/mpegts.js", "none.ts", "api/v1/streams"];
const LISTING: usize = PATHS.len() - 1;

/// The contents of [`PATHS`].
fn contents(path: usize) -> Option<&'static [u8]> {
    static FILES: OnceLock<Vec<Option<Vec<u8>>>> = OnceLock::new();
    let read = || PATHS.iter().map(|path| std::fs::read(format!("{ROOT}/{path}")).ok()).collect();
    FILES.get_or_init(read)[path].as_deref()
}

/// One request.
#[derive(Clone, Copy, Debug)]
struct Asked {
    path: usize,
    head_only: bool,
    /// First and last byte.
    range: Option<(usize, usize)>,
}

impl Asked {
    fn any(rng: &mut Rng) -> Self {
        let first = rng.size(0, 1_000);
        let range = rng.chance(300).then(|| (first, first + rng.size(0, 300_000)));
        Self { path: rng.size(0, LISTING - 1), head_only: rng.chance(150), range }
    }

    fn text(&self, last: bool) -> String {
        let method = if self.head_only { "HEAD" } else { "GET" };
        let range = self.range.map(|(first, last)| format!("Range: bytes={first}-{last}\r\n"));
        let close = if last { "Connection: close\r\n" } else { "" };
        format!(
            "{method} /{} HTTP/1.1\r\nHost: x\r\n{}{close}\r\n",
            PATHS[self.path],
            range.unwrap_or_default()
        )
    }

    /// Checks the answer at the front of `bytes` and returns its length; `None`: it is not complete.
    fn check(&self, bytes: &[u8]) -> Option<usize> {
        let end = bytes.windows(4).position(|part| part == b"\r\n\r\n")? + 4;
        let head = std::str::from_utf8(&bytes[..end]).expect("a head is text");
        let length = head.lines().find_map(|line| line.strip_prefix("Content-Length: ")).expect("a length");
        let length: usize = length.parse().expect("a number");
        let body = if self.head_only { 0 } else { length };
        let Some(file) = contents(self.path) else {
            let status = if self.path == LISTING { "HTTP/1.1 503 " } else { "HTTP/1.1 404 " };
            assert!(head.starts_with(status), "{head}");
            return (bytes.len() >= end + body).then_some(end + body);
        };
        let (first, last) =
            self.range.map_or((0, file.len() - 1), |(first, last)| (first, last.min(file.len() - 1)));
        let status = if self.range.is_some() { "HTTP/1.1 206 " } else { "HTTP/1.1 200 " };
        assert!(head.starts_with(status) && length == last + 1 - first, "{self:?}: {head}");
        let come = &bytes[end..(end + body).min(bytes.len())];
        assert!(*come == file[first..first + come.len()], "{self:?}: the bytes differ from the file's");
        (come.len() == body).then_some(end + body)
    }
}

/// A client.
#[derive(Debug)]
pub(super) struct Client {
    peer: usize,
    port: u16,
    asked: Vec<Asked>,
    /// The most that it reads at a time, and how long it pauses after that.
    reads: (usize, Millis),
    /// It closes the connection in the middle of an answer.
    leaves: bool,
    /// `None`: it speaks plainly.
    tls: Option<Box<Tls>>,
    end: Option<EndId>,
    came: Vec<u8>,
    answered: usize,
    pub(super) done: bool,
}

impl Client {
    pub(super) fn new(peer: usize, port: u16, rng: &mut Rng) -> Self {
        let mut asked: Vec<_> = (0..rng.size(1, 6)).map(|_| Asked::any(rng)).collect();
        if peer.is_multiple_of(4) {
            asked[0].path = LISTING;
        }
        let reads = rng.pick(&[(usize::MAX, 0), (usize::MAX, 0), (20_000, 5), (5_000, 20), (2_000, 100)]);
        let leaves = rng.chance(150);
        let tls = rng.chance(300).then(|| Box::new(Tls::new()));
        Self { peer, port, asked, reads, leaves, tls, end: None, came: Vec::new(), answered: 0, done: false }
    }

    pub(super) fn on_timer(&mut self, world: &mut World) {
        if self.end.is_some() {
            self.read(world);
            return;
        }
        let piece = world.rng.pick(&[1_000, 20_000, 64 << 10]);
        let end = world.dial(self.peer, self.port, Speed { delay: (0, 5), piece }, 64 << 10);
        self.end = Some(end);
        let last = self.asked.len() - 1;
        let text: String = self.asked.iter().enumerate().map(|(at, asked)| asked.text(at == last)).collect();
        world.say(end, self.tls.as_mut().map_or(text.clone().into(), |tls| tls.seal(text.as_bytes())));
    }

    pub(super) fn on_read(&mut self, world: &mut World) {
        if self.reads.1 == 0 {
            self.read(world);
        } else {
            world.at(world.now + self.reads.1, Action::Timer(self.peer));
        }
    }

    fn read(&mut self, world: &mut World) {
        let Some(end) = self.end.filter(|_| !self.done) else { return };
        let mut reading = world.read(end, self.reads.0);
        if let Some(tls) = &mut self.tls {
            world.say(end, tls.open(&mut reading.bytes));
        }
        self.came.extend(reading.bytes);
        while let Some(len) = self.asked.get(self.answered).and_then(|asked| asked.check(&self.came)) {
            self.came.drain(..len);
            self.answered += 1;
        }
        let whole = self.answered == self.asked.len();
        if reading.reset || reading.finished {
            assert!(reading.reset || whole, "answered {} of {:?}", self.answered, self.asked);
            world.hang_up(end);
            self.done = true;
        } else if self.leaves && self.came.len() > 10_000 {
            world.tear(end);
            self.done = true;
        } else if reading.more {
            world.at(world.now + self.reads.1, Action::Timer(self.peer));
        }
    }
}
