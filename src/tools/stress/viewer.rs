//! One viewer: a socket, the protocol on it, and what it got.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::fd::{AsFd, BorrowedFd};

use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags, recv, send};
use socket2::{Domain, Protocol, Socket, Type};

use super::args::Target;
use super::session::{Appetite, Fault, Input, Progress, Session};
use super::wire::Wire;

/// A viewer that gets nothing for longer than this has stalled once.
const STALL_US: u64 = 2_000_000;
/// As much as a player's socket grows to automatically: with less, bursts on loopback overflow the receive
/// queue, and the run measures the kernel's retransmission timer.
const RECEIVE_BUFFER: usize = 1 << 20;
/// The most viewers from one loopback address. Linux tries ports of one parity first, 14,116 of them; when
/// these are in use, each connect searches all of them in vain.
const PER_ADDRESS: usize = 10_000;

/// One viewer; all times in microseconds since the run began.
#[derive(Debug)]
pub(super) struct Viewer {
    /// Its number in the run.
    number: usize,
    socket: Socket,
    wire: Wire,
    /// Index of its stream among those of the run.
    pub(super) target: usize,
    sampled: bool,
    pub(super) state: State,
    session: Session,
    began: u64,
    last: u64,
    /// Bytes after the heads of the responses, framing included.
    bytes: u64,
    bytes_at_start: u64,
    media_at_start: Option<u32>,
    pub(super) stalls: u32,
    /// From the start of connecting.
    pub(super) first_byte: Option<u64>,
    pub(super) first_keyframe: Option<u64>,
}

/// The state of a viewer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum State {
    Connecting,
    /// Its request is sent: from here on only input matters.
    Open,
    /// The server has closed the connection, as it may between two requests: the viewer connects again when the
    /// next one is due.
    Away,
    Failed(Fault),
}

impl Viewer {
    /// Starts to connect.
    pub(super) fn connect(
        number: usize,
        (place, target): (usize, &Target),
        (session, sampled): (Session, bool),
        now: u64,
    ) -> Result<Self, Fault> {
        Ok(Self {
            number,
            socket: connect(number, target.addr)?,
            wire: Wire::Plain,
            target: place,
            sampled,
            state: State::Connecting,
            session,
            began: now,
            last: now,
            bytes: 0,
            bytes_at_start: 0,
            media_at_start: None,
            stalls: 0,
            first_byte: None,
            first_keyframe: None,
        })
    }

    /// Connects again.
    pub(super) fn connect_again(&mut self, target: &Target) -> Result<(), Fault> {
        self.socket = connect(self.number, target.addr)?;
        self.state = State::Connecting;
        Ok(())
    }

    /// The connection is established or has failed, or the requested time has come: sends what must be sent.
    pub(super) fn speak(&mut self, target: &Target, now: u64) -> Result<Progress, Fault> {
        if let Ok(Some(error)) = self.socket.take_error() {
            return Err(Fault::Connect(Errno::from_io_error(&error).unwrap_or(Errno::IO)));
        }
        self.last = now;
        if std::mem::replace(&mut self.state, State::Open) == State::Connecting {
            let (wire, hello) = Wire::to(target)?;
            self.wire = wire;
            self.send(&hello)?;
        }
        if self.wire.is_open() { self.speak_up(target, now) } else { Ok(Progress::default()) }
    }

    fn speak_up(&mut self, target: &Target, now: u64) -> Result<Progress, Fault> {
        let mut progress = self.session.speak(target, now);
        let sealed = self.wire.seal(std::mem::take(&mut progress.output));
        self.send(&sealed)?;
        Ok(progress)
    }

    fn send(&self, bytes: &[u8]) -> Result<(), Fault> {
        if bytes.is_empty() {
            return Ok(());
        }
        match send(&self.socket, bytes, SendFlags::NOSIGNAL | SendFlags::DONTWAIT) {
            Ok(sent) if sent == bytes.len() => Ok(()),
            // A socket that does not take a few hundred bytes is not connected.
            Ok(_) => Err(Fault::Send(Errno::AGAIN)),
            Err(errno) => Err(Fault::Send(errno)),
        }
    }

    /// Receives once; returns the number of bytes and what they were. `scratch` is overwritten.
    pub(super) fn receive(
        &mut self,
        target: &Target,
        scratch: &mut [u8],
        now: u64,
    ) -> Result<(usize, Progress), Fault> {
        // Of a live stream that is not looked at, records need not be opened to be counted.
        let appetite = match self.session.appetite() {
            Appetite::Count(usize::MAX) if self.wire.is_open() => Appetite::Count(usize::MAX),
            appetite if self.wire.is_plain() => appetite,
            _ => Appetite::Bytes,
        };
        let (most, flags) = match appetite {
            Appetite::Bytes => (scratch.len(), RecvFlags::DONTWAIT),
            Appetite::Count(most) => (most.min(scratch.len()), RecvFlags::DONTWAIT | RecvFlags::TRUNC),
        };
        let len = match recv(&self.socket, &mut scratch[..most], flags) {
            Ok((_, 0)) if self.session.is_resting() => {
                return Ok((0, Progress { closes: true, ..Progress::default() }));
            }
            Ok((_, 0)) => return Err(if self.bytes == 0 { Fault::NoAnswer } else { Fault::Closed }),
            Ok((_, len)) => len,
            Err(Errno::AGAIN | Errno::INTR) => return Ok((0, Progress::default())),
            Err(errno) => return Err(Fault::Receive(errno)),
        };
        if now.saturating_sub(self.last) > STALL_US && self.first_byte.is_some() {
            self.stalls += 1;
        }
        self.last = now;
        let (mut plain, mut out) = (Vec::new(), Vec::new());
        let input = match appetite {
            Appetite::Bytes if self.wire.is_plain() => Input::Bytes(&scratch[..len]),
            Appetite::Bytes => {
                let begins = self.wire.take(&scratch[..len], &mut plain, &mut out)?;
                self.send(&out)?;
                if begins {
                    self.speak_up(target, now)?;
                }
                if plain.is_empty() {
                    return Ok((len, Progress::default()));
                }
                Input::Bytes(&plain)
            }
            Appetite::Count(_) => Input::Counted(len),
        };
        let mut progress = self.session.take(target, input, now)?;
        self.bytes += progress.bytes;
        self.stalls += u32::from(progress.ran_dry);
        if progress.bytes > 0 {
            self.first_byte.get_or_insert(now - self.began);
        }
        if progress.has_picture {
            self.first_keyframe.get_or_insert(now - self.began);
        }
        let sealed = self.wire.seal(std::mem::take(&mut progress.output));
        self.send(&sealed)?;
        Ok((len, progress))
    }

    /// The measured time begins.
    pub(super) fn open_books(&mut self) {
        self.bytes_at_start = self.bytes;
        self.media_at_start = self.media_time();
        self.stalls = 0;
    }

    /// The measured time has ended: counts a stall that has not ended yet.
    pub(super) fn close_books(&mut self, now: u64) {
        let waits = !matches!(self.state, State::Failed(_)) && !self.session.is_resting();
        let is_silent = waits && now.saturating_sub(self.last) > STALL_US;
        self.stalls += u32::from(is_silent || self.session.is_dry(now));
    }

    /// Bytes of the measured time.
    pub(super) const fn measured(&self) -> u64 {
        self.bytes - self.bytes_at_start
    }

    /// Milliseconds of media of the measured time, of a sampled live viewer.
    pub(super) fn advanced(&mut self) -> Option<u32> {
        Some(self.media_time()?.wrapping_sub(self.media_at_start?))
    }

    fn media_time(&mut self) -> Option<u32> {
        self.session.chain().filter(|_| self.sampled)?.media_time()
    }

    /// Complete tags that were checked, of a sampled live viewer.
    pub(super) fn tags(&mut self) -> u64 {
        self.session.chain().filter(|_| self.sampled).map_or(0, |chain| chain.tags())
    }

    /// When the stamped tags were sent that came since the last call.
    pub(super) fn take_stamps(&mut self) -> impl Iterator<Item = u64> {
        self.session.chain().map(|chain| chain.take_stamps()).into_iter().flatten()
    }
}

impl AsFd for Viewer {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

fn connect(number: usize, to: SocketAddr) -> Result<Socket, Fault> {
    let failed = |error: std::io::Error| Fault::Connect(Errno::from_io_error(&error).unwrap_or(Errno::IO));
    let socket = Socket::new(Domain::for_address(to), Type::STREAM, Some(Protocol::TCP)).map_err(failed)?;
    socket.set_nonblocking(true).map_err(failed)?;
    socket.set_recv_buffer_size(RECEIVE_BUFFER).map_err(failed)?;
    if let (Some(last @ 1..), IpAddr::V4(ip)) = (u8::try_from(number / PER_ADDRESS).ok(), to.ip())
        && ip.is_loopback()
    {
        let from = SocketAddr::from((Ipv4Addr::new(127, 0, 1, last), 0));
        socket.bind(&from.into()).map_err(failed)?;
    }
    match socket.connect(&to.into()) {
        Err(error) if Errno::from_io_error(&error) != Some(Errno::INPROGRESS) => Err(failed(error)),
        _ => Ok(socket),
    }
}
