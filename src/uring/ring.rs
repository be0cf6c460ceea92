//! The engine on a real ring: one per loop, used by its thread alone.
//!
//! This file has what the engine owns and how an operation gets to the kernel; each file in `ring/` has one
//! concern.

use std::collections::VecDeque;
use std::os::fd::{AsFd, AsRawFd};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use io_uring::types::Fd;
use io_uring::{IoUring, opcode, squeue};
use rustix::io::Errno;

use super::buffers::{BufferRing, RecvBuf};
use super::clock::{Clock, Millis};
use super::engine::{Event, Sock};
use super::files::Scratch;
use super::kernels::{Version, Workarounds};
use super::mailbox::EventFd;
use super::op::Op;
use super::refusals::Refusals;
use super::regions::Regions;
use super::send::{Chooser, SendPath};
use super::setup::{RingError, SUBMISSIONS, builder};
use super::slab::Slab;
use super::sockets::{Descriptors, Listener, Places, SockState};

mod accept;
mod completion;
mod connection;
mod enter;
mod file_send;
mod interface;
mod region_send;
#[cfg(test)]
mod shortage_tests;
#[cfg(test)]
mod tests;

/// Kernel threads that may block on a disk for a loop.
pub(super) const WORKERS_MAX: u32 = 8;

/// The engine on a real ring.
pub struct Uring {
    ring: IoUring,
    clock: Clock,
    inflight: Slab<Op>,
    socks: Slab<SockState>,
    listeners: Vec<Listener>,
    regions: Regions,
    received: Rc<BufferRing>,
    /// Sockets whose receive ended with bytes: it goes on before the next wait, unless they are closed until then.
    resuming: Vec<Sock>,
    /// Sockets whose receive ended for lack of buffers.
    starved: Vec<Sock>,
    /// How often that happened.
    starvations: u64,
    events: VecDeque<Event<RecvBuf>>,
    /// Completions that were taken off the ring, in its order, and whether they are being handled.
    completions: VecDeque<(u64, i32, u32)>,
    reaping: bool,
    eventfd: Arc<EventFd>,
    chooser: Chooser,
    places: Places,
    scratch: Rc<Scratch>,
    cold_reads: u64,
    /// When completions were last collected while events were pending.
    looked: Millis,
    refusals: Refusals,
    /// What this kernel needs done differently.
    workarounds: Workarounds,
}

impl std::fmt::Debug for Uring {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Uring")
            .field("sockets", &self.socks.len())
            .field("inflight", &self.inflight.len())
            .finish_non_exhaustive()
    }
}

impl Uring {
    /// A ring for the calling thread, which alone may use it. Other threads wake it through `eventfd`, which
    /// gives [`Event::Woken`]; its clock counts from `started`, the same for all loops of a process.
    ///
    /// # Errors
    /// [`RingError`], which says what to do.
    pub fn new(
        descriptors: Descriptors,
        path: SendPath,
        eventfd: Arc<EventFd>,
        started: Instant,
    ) -> Result<Self, RingError> {
        let ring = builder().build(SUBMISSIONS)?;
        let received = BufferRing::new().map_err(RingError::Buffers)?;
        received.register(&ring)?;
        if !received.grow() {
            return Err(RingError::Buffers(Errno::NOMEM.into()));
        }
        bound_workers(&ring);
        let regions = Regions::new(&ring.submitter());
        if descriptors.direct > 0 {
            ring.submitter().register_files_sparse(descriptors.direct)?;
        }
        let mut engine = Self {
            ring,
            clock: Clock::since(started),
            inflight: Slab::new(),
            socks: Slab::new(),
            listeners: Vec::new(),
            regions,
            received,
            resuming: Vec::new(),
            starved: Vec::new(),
            starvations: 0,
            events: VecDeque::new(),
            completions: VecDeque::new(),
            reaping: false,
            eventfd,
            chooser: Chooser::new(path),
            places: Places::new(descriptors),
            scratch: Scratch::new().map_err(RingError::Buffers)?,
            cold_reads: 0,
            looked: 0,
            refusals: Refusals::default(),
            workarounds: Workarounds::of(Version::running()),
        };
        engine.read_wake();
        Ok(engine)
    }

    /// The number of open sockets.
    pub fn sockets(&self) -> usize {
        self.socks.len()
    }

    /// Puts an operation and what it owns into the table, and its entry into the queue.
    fn submit(&mut self, op: Op, build: impl FnOnce(&Op) -> squeue::Entry) -> u32 {
        let (place, _) = self.inflight.insert(op);
        let entry = build(self.inflight.get(place).expect("just put in")).user_data(u64::from(place));
        loop {
            // SAFETY: all memory that the entry points to belongs to the operation in `inflight` (or to a
            // region that counts it, or to the receive pool) and stays until its last completion was taken in
            // `complete`; a cancelled operation completes too.
            if unsafe { self.ring.submission().push(&entry) }.is_ok() {
                return place;
            }
            self.enter(None);
            self.reap();
        }
    }

    fn state(&mut self, sock: Sock) -> Option<&mut SockState> {
        self.socks.get_exact(sock.index, sock.generation)
    }

    fn read_wake(&mut self) {
        let fd = Fd(self.eventfd.as_fd().as_raw_fd());
        self.submit(Op::ReadWake { _value: Box::new([0; 8]) }, |op| {
            let Op::ReadWake { _value: value } = op else { unreachable!("as made") };
            opcode::Read::new(fd, value.as_ptr().cast_mut(), 8).build()
        });
    }
}

/// Limits the kernel threads that serve opens, and cold reads on filesystems without asynchronous reads.
fn bound_workers(ring: &IoUring) {
    // On failure the kernel's own limit applies, a few for each core.
    let _ = ring.submitter().register_iowq_max_workers(&mut [WORKERS_MAX, 0]);
}
