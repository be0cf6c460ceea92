//! Sockets and listeners as a ring knows them: where their descriptors are, and which operations are under way.

use std::net::{SocketAddr, TcpListener};
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};

use io_uring::types::{Fd, Fixed};
use io_uring::{Submitter, opcode, squeue};
use rustix::io::Errno;

use super::send::SEND_FLAGS;

/// Where accepted sockets are kept: in the process's descriptor table, and above a certain number in the ring's
/// own, where they do not count against the process's limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Descriptors {
    /// Sockets of this ring in the process's table.
    pub process: usize,
    /// Places in the ring's table; the kernel limits them by the process's limit as well.
    pub direct: u32,
}

impl Descriptors {
    /// All in the process's table.
    pub const PROCESS: Self = Self { process: usize::MAX, direct: 0 };

    /// The total number of sockets.
    pub const fn capacity(self) -> usize {
        self.process.saturating_add(self.direct as usize)
    }
}

#[derive(Debug)]
pub(super) struct Listener {
    pub(super) tag: u32,
    pub(super) socket: Option<TcpListener>,
    /// Accepts that are under way.
    pub(super) armed: u32,
    /// An accept failed: no new ones until [`resume_accept`](super::Engine::resume_accept).
    pub(super) resting: bool,
}

#[derive(Debug)]
pub(super) enum Descriptor {
    Process(OwnedFd),
    /// A place in the ring's table, and the peer's address, which cannot be queried for such a socket.
    Direct(u32, Option<SocketAddr>),
}

/// How far the two tables are used.
#[derive(Debug)]
pub(super) struct Places {
    /// Sockets in the process's table, and how many it may hold before the ring's table is used.
    in_process: usize,
    process_max: usize,
    /// Free places of the ring's table.
    direct_free: Vec<u32>,
}

impl Places {
    pub(super) fn new(descriptors: Descriptors) -> Self {
        let direct_free = (0..descriptors.direct).rev().collect();
        Self { in_process: 0, process_max: descriptors.process, direct_free }
    }

    /// Keeps a socket in the process's table, or moves it to the ring's.
    pub(super) fn put(&mut self, submitter: &Submitter<'_>, fd: OwnedFd) -> Descriptor {
        let direct = self.direct_free.last().copied().filter(|_| self.in_process >= self.process_max);
        let Some(slot) = direct else { return self.put_in_process(fd) };
        if submitter.register_files_update(slot, &[fd.as_raw_fd()]).is_err() {
            return self.put_in_process(fd);
        }
        self.direct_free.pop();
        Descriptor::Direct(slot, peer_of(&fd))
    }

    /// Keeps a socket in the process's table.
    pub(super) fn put_in_process(&mut self, fd: OwnedFd) -> Descriptor {
        self.in_process += 1;
        Descriptor::Process(fd)
    }

    /// The socket is closed, or about to be.
    pub(super) fn free(&mut self, descriptor: Descriptor) {
        match descriptor {
            Descriptor::Process(_) => self.in_process -= 1,
            Descriptor::Direct(slot, _) => self.direct_free.push(slot),
        }
    }
}

#[derive(Debug)]
pub(super) struct SockState {
    pub(super) descriptor: Descriptor,
    pub(super) inflight: u16,
    pub(super) closing: bool,
    pub(super) sending: bool,
    /// An operation receives.
    pub(super) receiving: bool,
    /// Its user does not want to receive for now.
    pub(super) paused: bool,
    /// Places of the operations that wait for the peer, which a close cancels.
    pub(super) waits: [Option<u32>; WAITS],
}

/// The most operations of a socket that wait for its peer at a time: one that receives or connects, and a poll.
pub(super) const WAITS: usize = 2;
/// The place of the one that receives or connects.
pub(super) const WAIT_RECEIVE: usize = 0;

/// A descriptor in the form that a queue entry takes.
#[derive(Clone, Copy)]
pub(super) enum Target {
    Process(Fd),
    Direct(Fixed),
}

impl Target {
    pub(super) fn with(
        self,
        process: impl FnOnce(Fd) -> squeue::Entry,
        direct: impl FnOnce(Fixed) -> squeue::Entry,
    ) -> squeue::Entry {
        match self {
            Self::Process(fd) => process(fd),
            Self::Direct(fixed) => direct(fixed),
        }
    }

    pub(super) fn send(self, base: *const u8, len: u32) -> squeue::Entry {
        self.with(
            |fd| opcode::Send::new(fd, base, len).flags(SEND_FLAGS).build(),
            |fd| opcode::Send::new(fd, base, len).flags(SEND_FLAGS).build(),
        )
    }
}

impl SockState {
    pub(super) fn new(descriptor: Descriptor) -> Self {
        Self {
            descriptor,
            inflight: 0,
            closing: false,
            sending: false,
            receiving: false,
            paused: false,
            waits: [None; WAITS],
        }
    }

    /// The peer's address.
    pub(super) fn peer(&self) -> Option<SocketAddr> {
        match &self.descriptor {
            Descriptor::Process(fd) => peer_of(fd),
            Descriptor::Direct(_, peer) => *peer,
        }
    }

    /// Its descriptor, if it is in the process's table.
    pub(super) fn of_process(&self) -> Option<&OwnedFd> {
        match &self.descriptor {
            Descriptor::Process(fd) => Some(fd),
            Descriptor::Direct(..) => None,
        }
    }

    pub(super) fn target(&self) -> Target {
        match &self.descriptor {
            Descriptor::Process(fd) => Target::Process(Fd(fd.as_raw_fd())),
            Descriptor::Direct(slot, _) => Target::Direct(Fixed(*slot)),
        }
    }
}

fn peer_of(fd: &OwnedFd) -> Option<SocketAddr> {
    SocketAddr::try_from(rustix::net::getpeername(fd).ok().flatten()?).ok()
}

pub(super) fn errno(result: i32) -> Option<Errno> {
    (result < 0).then(|| Errno::from_raw_os_error(-result))
}

/// Bytes in a socket's send queue (`SIOCOUTQ`).
pub(super) fn queued(socket: BorrowedFd<'_>) -> Option<u32> {
    let mut bytes: libc::c_int = 0;
    // SAFETY: the call writes one `int`, which lives until it returns.
    let result = unsafe { libc::ioctl(socket.as_raw_fd(), libc::TIOCOUTQ, &raw mut bytes) };
    u32::try_from(bytes).ok().filter(|_| result == 0)
}
