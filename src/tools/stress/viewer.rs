//! One viewer: connects, asks, follows the chain as far as it has to, then only counts.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::fd::{AsFd, BorrowedFd};

use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags, recv, send};
use socket2::{Domain, Protocol, Socket, Type};

use super::chain::{Chain, ChainError};
use super::framing::{Chunked, Framing, FramingError, Ws};

const HEAD_MAX: usize = 16 << 10;
/// A viewer that gets nothing for longer has stalled once.
const STALL_US: u64 = 2_000_000;
/// As much as a player's socket grows to by itself: with less, bursts on loopback overflow the receive queue,
/// and what is measured is the kernel's retransmission timer.
const RECEIVE_BUFFER: usize = 1 << 20;
/// Viewers from one loopback address: below the number of ephemeral ports.
const PER_ADDRESS: usize = 20_000;

/// Why a viewer was not served to the end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Fault {
    #[error("connect: {0}")]
    Connect(Errno),
    #[error("receive: {0}")]
    Receive(Errno),
    #[error("answered with status {0}")]
    Status(u16),
    #[error("no HTTP answer")]
    NoAnswer,
    #[error("closed by the server")]
    Closed,
    #[error("{0}")]
    Framing(FramingError),
    #[error("broken chain: {0}")]
    Chain(ChainError),
}

/// What is needed only while a viewer's bytes are looked at.
#[derive(Debug)]
struct Look {
    head: Vec<u8>,
    framing: Option<Framing>,
    chain: Chain,
}

/// One viewer; all times in microseconds since the run began.
#[derive(Debug)]
pub(super) struct Viewer {
    socket: Socket,
    /// Place of its stream among the run's.
    pub(super) target: usize,
    sampled: bool,
    asked: bool,
    look: Option<Box<Look>>,
    began: u64,
    last: u64,
    /// Bytes behind the answer's head, framing included.
    pub(super) bytes: u64,
    pub(super) bytes_at_start: u64,
    pub(super) media_at_start: Option<u32>,
    pub(super) stalls: u32,
    /// From the start of connecting.
    pub(super) first_byte: Option<u64>,
    pub(super) first_keyframe: Option<u64>,
    pub(super) fault: Option<Fault>,
}

impl Viewer {
    /// Begins to connect.
    pub(super) fn connect(
        number: usize,
        target: usize,
        to: SocketAddr,
        sampled: bool,
        now: u64,
    ) -> Result<Self, Fault> {
        let failed =
            |error: std::io::Error| Fault::Connect(Errno::from_io_error(&error).unwrap_or(Errno::IO));
        let socket =
            Socket::new(Domain::for_address(to), Type::STREAM, Some(Protocol::TCP)).map_err(failed)?;
        socket.set_nonblocking(true).map_err(failed)?;
        socket.set_recv_buffer_size(RECEIVE_BUFFER).map_err(failed)?;
        if let (Some(last @ 1..), IpAddr::V4(ip)) = (u8::try_from(number / PER_ADDRESS).ok(), to.ip())
            && ip.is_loopback()
        {
            let from = SocketAddr::from((Ipv4Addr::new(127, 0, 1, last), 0));
            socket.bind(&from.into()).map_err(failed)?;
        }
        match socket.connect(&to.into()) {
            Err(error) if Errno::from_io_error(&error) != Some(Errno::INPROGRESS) => {
                return Err(failed(error));
            }
            _ => {}
        }
        let look = Box::new(Look { head: Vec::new(), framing: None, chain: Chain::new() });
        Ok(Self {
            socket,
            target,
            sampled,
            asked: false,
            look: Some(look),
            began: now,
            last: now,
            bytes: 0,
            bytes_at_start: 0,
            media_at_start: None,
            stalls: 0,
            first_byte: None,
            first_keyframe: None,
            fault: None,
        })
    }

    /// The request has been sent: from here on only input matters.
    pub(super) const fn has_asked(&self) -> bool {
        self.asked
    }

    /// The connection is there, or has failed: sends the request.
    pub(super) fn ask(&mut self, request: &[u8]) -> Result<(), Fault> {
        if let Ok(Some(error)) = self.socket.take_error() {
            return Err(Fault::Connect(Errno::from_io_error(&error).unwrap_or(Errno::IO)));
        }
        match send(&self.socket, request, SendFlags::NOSIGNAL | SendFlags::DONTWAIT) {
            Ok(sent) if sent == request.len() => self.asked = true,
            // A fresh socket that does not take a few hundred bytes is no connection.
            Ok(_) => return Err(Fault::Connect(Errno::AGAIN)),
            Err(errno) => return Err(Fault::Connect(errno)),
        }
        Ok(())
    }

    /// Receives once; gives the bytes taken. `scratch` is overwritten.
    pub(super) fn receive(&mut self, scratch: &mut [u8], now: u64) -> Result<usize, Fault> {
        let flags =
            if self.look.is_some() { RecvFlags::DONTWAIT } else { RecvFlags::DONTWAIT | RecvFlags::TRUNC };
        let len = match recv(&self.socket, &mut *scratch, flags) {
            Ok((_, 0)) => return Err(if self.bytes == 0 { Fault::NoAnswer } else { Fault::Closed }),
            Ok((_, len)) => len,
            Err(Errno::AGAIN | Errno::INTR) => return Ok(0),
            Err(errno) => return Err(Fault::Receive(errno)),
        };
        if now.saturating_sub(self.last) > STALL_US && self.first_byte.is_some() {
            self.stalls += 1;
        }
        self.last = now;
        if self.look.is_some() {
            self.follow(&scratch[..len], now)?;
        } else {
            self.bytes += len as u64;
        }
        Ok(len)
    }

    /// Looks at bytes: the answer's head, then the chain until it is known to be right.
    fn follow(&mut self, bytes: &[u8], now: u64) -> Result<(), Fault> {
        let Some(look) = self.look.as_mut() else { return Ok(()) };
        let body = match look.framing {
            Some(_) => bytes.to_vec(),
            None => match look.take_head(bytes)? {
                Some(body) => body,
                None => return Ok(()),
            },
        };
        if body.is_empty() {
            return Ok(());
        }
        self.bytes += body.len() as u64;
        self.first_byte.get_or_insert(now - self.began);
        look.follow(&body)?;
        if look.chain.keyframes() > 0 {
            self.first_keyframe.get_or_insert(now - self.began);
            if !self.sampled {
                self.look = None;
            }
        }
        Ok(())
    }

    /// Bytes of the measured time.
    pub(super) const fn measured(&self) -> u64 {
        self.bytes - self.bytes_at_start
    }

    /// Counts a stall that has not ended yet.
    pub(super) fn close_books(&mut self, now: u64) {
        if self.fault.is_none() && now.saturating_sub(self.last) > STALL_US {
            self.stalls += 1;
        }
    }

    /// The newest media time and the whole tags of a sampled viewer.
    pub(super) fn sample(&self) -> Option<(Option<u32>, u64)> {
        let look = self.look.as_ref().filter(|_| self.sampled)?;
        Some((look.chain.media_time(), look.chain.tags()))
    }

    /// When the stamped tags were sent that came since this was asked last.
    pub(super) fn take_stamps(&mut self) -> impl Iterator<Item = u64> {
        self.look.as_mut().map(|look| look.chain.take_stamps()).into_iter().flatten()
    }
}

impl AsFd for Viewer {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl Look {
    /// Collects the answer's head; gives what stands behind it once it is whole.
    fn take_head(&mut self, bytes: &[u8]) -> Result<Option<Vec<u8>>, Fault> {
        self.head.extend_from_slice(bytes);
        let Some(end) = self.head.windows(4).position(|part| part == b"\r\n\r\n") else {
            return if self.head.len() > HEAD_MAX { Err(Fault::NoAnswer) } else { Ok(None) };
        };
        let body = self.head.split_off(end + 4);
        let head = String::from_utf8_lossy(&std::mem::take(&mut self.head)).to_ascii_lowercase();
        let status = head.split(' ').nth(1).and_then(|text| text.parse().ok()).ok_or(Fault::NoAnswer)?;
        let chunked = head.lines().any(|line| {
            line.split_once(':')
                .is_some_and(|(name, value)| name == "transfer-encoding" && value.trim() == "chunked")
        });
        self.framing = Some(match status {
            200 if chunked => Framing::Chunked(Chunked::default()),
            200 => Framing::Bare,
            101 => Framing::Ws(Ws::default()),
            _ => return Err(Fault::Status(status)),
        });
        Ok(Some(body))
    }

    fn follow(&mut self, body: &[u8]) -> Result<(), Fault> {
        let Some(framing) = self.framing.as_mut() else { return Ok(()) };
        let mut judged = Ok(());
        let chain = &mut self.chain;
        let stripped = framing.strip(body, |data| {
            if judged.is_ok() {
                judged = chain.feed(data);
            }
        });
        judged.map_err(Fault::Chain)?;
        stripped.map_err(Fault::Framing)
    }
}
