//! The baseline for fan-out: the same bytes to N connections at the stream's pace, by plain nonblocking sends
//! from one thread.
//!
//! No protocol beyond one fixed response head, no checks, no lag policy: a viewer that cannot keep up is only
//! sent to again later. The cost of a real server is compared with this, in the same run on the same machine.

use std::io::ErrorKind;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use clap::Parser;
use rustix::buffer::spare_capacity;
use rustix::event::epoll::{self, EventData, EventFlags};
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags, recv, send};
use rustix::time::Timespec;
use socket2::{Domain, Protocol, Socket, Type};

const HEAD: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Type: video/x-flv\r\nConnection: close\r\n\r\n";
const SNDBUF: usize = 512 << 10;
const LISTENER: u64 = u64::MAX;
/// Viewers served between two checks of the clock and of new connections.
const PASS_SLICE: usize = 512;

/// Sends one FLV file in a loop, in real time, to every client that connects.
#[derive(Parser)]
struct Args {
    /// The file; repeated at the pace of its timestamps
    file: PathBuf,
    /// Where to listen
    #[arg(long, default_value = "127.0.0.1:0")]
    listen: SocketAddr,
    /// Time between two sends to one viewer; 0: a send for every tag
    #[arg(long, default_value = "0ms", value_parser = humantime::parse_duration)]
    flush: Duration,
}

/// The file as a sequence of bytes that is repeated, and when each tag of it is due.
struct Clip {
    header: Vec<u8>,
    /// All tags of one round, with the file's times.
    body: Vec<u8>,
    /// The bytes of the even and of the odd rounds with their own times: written once per round, so that time
    /// continues to rise.
    rounds: [Vec<u8>; 2],
    /// Rounds written so far.
    written: u64,
    /// Due time in ms and end offset in `body`, ascending.
    due: Vec<(u32, usize)>,
    length_ms: u32,
}

struct Viewer {
    socket: TcpStream,
    /// Bytes of the response head and of the FLV headers that have been sent.
    head_sent: usize,
    /// Position in the endless repetition of the body.
    at: u64,
    asked: bool,
}

fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    let mut clip = Clip::read(&std::fs::read(&args.file)?)?;
    let listener = listen(args.listen)?;
    eprintln!("ready role=raw-sender listen={}", listener.local_addr()?);
    serve(&mut clip, &listener, args.flush)
}

fn listen(addr: SocketAddr) -> anyhow::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(addr), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    socket.set_send_buffer_size(SNDBUF)?;
    socket.set_tcp_nodelay(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&addr.into())?;
    socket.listen(4096)?;
    Ok(socket.into())
}

fn serve(clip: &mut Clip, listener: &TcpListener, flush: Duration) -> anyhow::Result<()> {
    let poll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
    epoll::add(&poll, listener, EventData::new_u64(LISTENER), EventFlags::IN)?;
    let mut viewers: Vec<Option<Viewer>> = Vec::new();
    let mut events = Vec::with_capacity(1024);
    let prelude = [HEAD, &clip.header].concat();
    let began = Instant::now();
    let (mut next_pass, mut tick) = (began, 0u32);
    let mut scratch = [0; 4096];
    loop {
        let now = Instant::now();
        if now >= next_pass {
            let head = clip.head_at(now - began)?;
            for viewer in &mut viewers {
                if viewer
                    .as_mut()
                    .is_some_and(|one| one.asked && one.send_up_to(clip, &prelude, head).is_err())
                {
                    *viewer = None;
                }
            }
            (next_pass, tick) = clip.next_pass(began, Instant::now(), flush, tick);
        }
        let wait = next_pass.saturating_duration_since(Instant::now());
        let wait = Timespec { tv_sec: 0, tv_nsec: i64::from(wait.subsec_nanos()) };
        events.clear();
        match epoll::wait(&poll, spare_capacity(&mut events), Some(&wait)) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(errno) => return Err(errno.into()),
        }
        for event in &events {
            if event.data.u64() == LISTENER {
                accept(listener, &poll, &mut viewers)?;
                continue;
            }
            let index = usize::try_from(event.data.u64())?;
            let Some(viewer) = viewers[index].as_mut() else { continue };
            match recv(&viewer.socket, &mut scratch, RecvFlags::DONTWAIT) {
                Ok((_, 0)) | Err(Errno::CONNRESET | Errno::PIPE) => viewers[index] = None,
                Ok(_) if !viewer.asked => {
                    viewer.asked = true;
                    let head = clip.head_at(began.elapsed())?;
                    viewer.at = clip.keyframe_before(head);
                    if viewer.send_up_to(clip, &prelude, head).is_err() {
                        viewers[index] = None;
                    }
                }
                Ok(_) | Err(_) => {}
            }
        }
    }
}

fn accept(
    listener: &TcpListener,
    poll: &rustix::fd::OwnedFd,
    viewers: &mut Vec<Option<Viewer>>,
) -> anyhow::Result<()> {
    for _ in 0..PASS_SLICE {
        let socket = match listener.accept() {
            Ok((socket, _)) => socket,
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
            Err(error) => return Err(error.into()),
        };
        socket.set_nonblocking(true)?;
        epoll::add(poll, &socket, EventData::new_u64(viewers.len() as u64), EventFlags::IN)?;
        viewers.push(Some(Viewer { socket, head_sent: 0, at: 0, asked: false }));
    }
    Ok(())
}

impl Viewer {
    /// Sends the bytes between this viewer's position and `head`, as many as the socket takes.
    fn send_up_to(&mut self, clip: &Clip, prelude: &[u8], head: u64) -> Result<(), Errno> {
        let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
        if self.head_sent < prelude.len() {
            let more = if self.at < head { flags | SendFlags::MORE } else { flags };
            match send(&self.socket, &prelude[self.head_sent..], more) {
                Ok(sent) => self.head_sent += sent,
                Err(Errno::AGAIN) => return Ok(()),
                Err(errno) => return Err(errno),
            }
        }
        while self.at < head && self.head_sent == prelude.len() {
            match send(&self.socket, clip.range(self.at, head), flags) {
                Ok(sent) => self.at += sent as u64,
                Err(Errno::AGAIN) => return Ok(()),
                Err(errno) => return Err(errno),
            }
        }
        Ok(())
    }
}

impl Clip {
    fn read(file: &[u8]) -> anyhow::Result<Self> {
        anyhow::ensure!(file.starts_with(b"FLV\x01") && file.len() > 13, "not an FLV file");
        let mut clip = Self {
            header: file[..13].to_vec(),
            body: Vec::new(),
            rounds: [Vec::new(), Vec::new()],
            written: 0,
            due: Vec::new(),
            length_ms: 0,
        };
        let mut at = 13;
        while let Some(&[kind, l0, l1, l2, t0, t1, t2, t3, ..]) = file.get(at..at + 11) {
            let len = u32::from_be_bytes([0, l0, l1, l2]) as usize + 15;
            let time = u32::from_be_bytes([t3, t0, t1, t2]);
            let Some(tag) = file.get(at..at + len) else { break };
            // Sequence headers are sent once at the start; the rest is repeated.
            if kind == 18 || tag[12] == 0 {
                clip.header.extend_from_slice(tag);
            } else {
                clip.body.extend_from_slice(tag);
                clip.due.push((time, clip.body.len()));
            }
            at += len;
        }
        clip.due.sort_unstable_by_key(|&(_, end)| end);
        let mut newest = 0;
        for (time, _) in &mut clip.due {
            newest = newest.max(*time);
            *time = newest;
        }
        anyhow::ensure!(newest > 0, "no tags with times");
        clip.length_ms = newest + 40;
        Ok(clip)
    }

    /// Writes the times of `round` into its bytes.
    fn write_round(&mut self, round: u64) -> anyhow::Result<()> {
        let add = u32::try_from(round * u64::from(self.length_ms))?;
        let bytes = &mut self.rounds[usize::from(round % 2 == 1)];
        bytes.clone_from(&self.body);
        let mut start = 0;
        for &(_, end) in &self.due {
            let tag = &mut bytes[start..end];
            let time = u32::from_be_bytes([tag[7], tag[4], tag[5], tag[6]]) + add;
            let [t3, t0, t1, t2] = time.to_be_bytes();
            tag[4..8].copy_from_slice(&[t0, t1, t2, t3]);
            start = end;
        }
        self.written = round + 1;
        Ok(())
    }

    /// Bytes of the endless repetition that are due after `passed`.
    fn head_at(&mut self, passed: Duration) -> anyhow::Result<u64> {
        let length = u128::from(self.length_ms);
        let (rounds, rest) = (u64::try_from(passed.as_millis() / length)?, passed.as_millis() % length);
        while self.written <= rounds {
            self.write_round(self.written)?;
        }
        let count = self.due.partition_point(|&(time, _)| u128::from(time) <= rest);
        let inside = if count == 0 { 0 } else { self.due[count - 1].1 };
        Ok(rounds * self.body.len() as u64 + inside as u64)
    }

    /// The start of the round of `head`: every round begins with a keyframe.
    fn keyframe_before(&self, head: u64) -> u64 {
        let len = self.body.len() as u64;
        let round = head / len * len;
        let inside = usize::try_from(head - round).unwrap_or(0);
        let mut start = 0;
        let mut found = 0;
        for &(_, end) in self.due.iter().take_while(|&&(_, end)| end <= inside) {
            if self.body[start] == 9 && self.body[start + 11] >> 4 == 1 {
                found = start;
            }
            start = end;
        }
        round + found as u64
    }

    /// The bytes from `at` to `head`, as far as they are contiguous.
    fn range(&self, at: u64, head: u64) -> &[u8] {
        let len = self.body.len() as u64;
        let start = usize::try_from(at % len).unwrap_or(0);
        let want = usize::try_from(head - at).unwrap_or(usize::MAX);
        let bytes = &self.rounds[usize::from(at / len % 2 == 1)];
        &bytes[start..start.saturating_add(want).min(bytes.len())]
    }

    /// When to send next: the next multiple of the flush interval, or the next tag's due time.
    fn next_pass(&self, began: Instant, now: Instant, flush: Duration, tick: u32) -> (Instant, u32) {
        if flush.is_zero() {
            let passed = (now - began).as_millis();
            let length = u128::from(self.length_ms);
            let (rounds, rest) = (passed / length, passed % length);
            let next = self.due.partition_point(|&(time, _)| u128::from(time) <= rest);
            let due = self.due.get(next).map_or(length, |&(time, _)| u128::from(time));
            let due = u64::try_from(rounds * length + due).unwrap_or(u64::MAX);
            return (began + Duration::from_millis(due), tick);
        }
        let mut tick = tick + 1;
        while began + flush * tick <= now {
            tick += 1;
        }
        (began + flush * tick, tick)
    }
}
