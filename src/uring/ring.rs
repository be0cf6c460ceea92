//! The engine on a real ring: one per loop, used by its thread alone.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use io_uring::types::Fd;
use io_uring::{IoUring, cqueue, opcode, squeue};
use rustix::io::Errno;

use super::buffers::{BufferRing, RecvBuf};
use super::enter::{NOBODY, Refusals};
use super::files::{self, FileSend, Folder, OpenFile, Opening, Scratch};
use super::kernels::{Version, Workarounds};
use super::mailbox::EventFd;
use super::regions::RegionState;
use super::send::{self, Chooser, Message, SendPath};
use super::setup::{RingError, SUBMISSIONS, builder};
use super::slab::Slab;
use super::sockets::{Descriptors, Listener, SockState};
use super::{Engine, Event, Millis, Payload, ReceiveBuffers, Region, Sock};
use crate::memory::Segment;

/// Slots for registered memory.
const REGISTERED_MAX: u32 = 4096;
/// Calls in a row for what the kernel has to do for us.
const TASK_ROUNDS: usize = 64;

/// The engine on a real ring.
pub struct Uring {
    pub(super) ring: IoUring,
    started: Instant,
    pub(super) inflight: Slab<Op>,
    pub(super) socks: Slab<SockState>,
    pub(super) listeners: Vec<Listener>,
    pub(super) regions: Slab<RegionState>,
    /// Free slots of the ring's table of registered memory.
    pub(super) fixed_free: Vec<u16>,
    /// Slots whose memory is not needed any more, with what keeps it until they are emptied.
    pub(super) stale: VecDeque<(u16, Arc<Segment>)>,
    pub(super) received: Rc<BufferRing>,
    /// Sockets whose receive ended for want of buffers.
    pub(super) starved: Vec<Sock>,
    /// How often that happened.
    pub(super) starvations: u64,
    pub(super) events: VecDeque<Event<RecvBuf>>,
    /// Completions that were taken off the ring, in its order, and whether somebody is handling them.
    pub(super) completions: VecDeque<(u64, i32, u32)>,
    reaping: bool,
    eventfd: Arc<EventFd>,
    pub(super) chooser: Chooser,
    /// Sockets that live in the process's table, and how many may before the ring's is used.
    pub(super) in_process: usize,
    pub(super) process_max: usize,
    /// Free places of the ring's table of descriptors.
    pub(super) direct_free: Vec<u32>,
    pub(super) scratch: Rc<Scratch>,
    pub(super) cold_reads: u64,
    /// When completions were asked for while there were events.
    looked: Millis,
    pub(super) refusals: Refusals,
    /// What this kernel needs done differently.
    pub(super) workarounds: Workarounds,
}

/// An operation under way, with all memory it uses: it stays here until the last completion.
#[derive(Debug)]
pub(super) enum Op {
    Accept {
        listener: u32,
    },
    Receive {
        sock: Sock,
    },
    Connect {
        sock: Sock,
        _address: Box<socket2::SockAddr>,
    },
    Send {
        sock: Sock,
        _bytes: Bytes,
    },
    SendRegion {
        sock: Sock,
        region: Region,
    },
    SendMessage {
        sock: Sock,
        region: Region,
        message: Box<Message>,
    },
    /// `taken`: the first completion has come; the memory is the kernel's until the second one.
    SendZeroCopy {
        sock: Sock,
        region: Region,
        taken: bool,
    },
    Poll {
        sock: Sock,
    },
    Shutdown {
        sock: Sock,
    },
    Cancel,
    Close {
        sock: Sock,
    },
    ReadWake {
        _value: Box<[u8; 8]>,
    },
    OpenFile(Opening),
    LoadFile {
        ticket: u64,
        _file: Rc<OpenFile>,
        bytes: Vec<u8>,
    },
    /// Reads a cold stretch before it is sent.
    ReadAhead {
        sock: Sock,
        send: Box<FileSend>,
        _scratch: Rc<Scratch>,
    },
    /// Reads a stretch for a socket that `sendfile(2)` cannot name.
    CopyFile {
        sock: Sock,
        send: Box<FileSend>,
        bytes: Vec<u8>,
    },
}

impl Op {
    /// The socket whose peer it waits for, and which of its waits it is.
    pub(super) fn wait(&self) -> Option<(Sock, usize)> {
        match self {
            Self::Receive { sock } | Self::Connect { sock, .. } => Some((*sock, 0)),
            Self::Poll { sock } => Some((*sock, 1)),
            _ => None,
        }
    }
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
    /// A ring for the calling thread, which alone may use it. `eventfd` calls it from elsewhere, which gives
    /// [`Event::Woken`]; its clock counts from `started`, the same for all loops of a process.
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
        let received = BufferRing::register(&ring)?;
        files::bound_workers(&ring);
        let fixed = ring.submitter().register_buffers_sparse(REGISTERED_MAX).is_ok();
        if descriptors.direct > 0 {
            ring.submitter().register_files_sparse(descriptors.direct)?;
        }
        let mut engine = Self {
            ring,
            started,
            inflight: Slab::new(),
            socks: Slab::new(),
            listeners: Vec::new(),
            regions: Slab::new(),
            #[expect(clippy::cast_possible_truncation, reason = "REGISTERED_MAX is small")]
            fixed_free: if fixed { (0..REGISTERED_MAX as u16).rev().collect() } else { Vec::new() },
            stale: VecDeque::new(),
            received,
            starved: Vec::new(),
            starvations: 0,
            events: VecDeque::new(),
            completions: VecDeque::new(),
            reaping: false,
            eventfd,
            chooser: Chooser::new(path),
            in_process: 0,
            process_max: descriptors.process,
            direct_free: (0..descriptors.direct).rev().collect(),
            scratch: Scratch::new().map_err(RingError::Buffers)?,
            cold_reads: 0,
            looked: 0,
            refusals: Refusals::default(),
            workarounds: Workarounds::of(Version::running()),
        };
        engine.read_wake();
        Ok(engine)
    }

    /// Open sockets.
    pub fn sockets(&self) -> usize {
        self.socks.len()
    }

    /// Puts an operation and what it owns into the table and its entry into the queue.
    pub(super) fn submit(&mut self, op: Op, build: impl FnOnce(&Op) -> squeue::Entry) -> u32 {
        let (place, _) = self.inflight.insert(op);
        let entry = build(self.inflight.get(place).expect("just put in")).user_data(u64::from(place));
        loop {
            // SAFETY: all memory that the entry points to belongs to the operation in `inflight` (or to a
            // region that counts it, or to the receive pool) and stays until its last completion was taken
            // in `complete`; a cancelled operation completes too.
            if unsafe { self.ring.submission().push(&entry) }.is_ok() {
                return place;
            }
            self.enter(None);
            self.reap();
        }
    }

    /// Handles what has completed. Handling may fill the submission queue and end up in here again: that only
    /// makes room, or bytes that came later would be told of before those that came first.
    pub(super) fn reap(&mut self) {
        self.collect();
        if std::mem::replace(&mut self.reaping, true) {
            return;
        }
        while let Some((place, result, flags)) = self.completions.pop_front() {
            if place != NOBODY {
                self.complete(u32::try_from(place).expect("a place in the table"), result, flags);
            }
        }
        self.reaping = false;
    }

    fn complete(&mut self, place: u32, result: i32, flags: u32) {
        if cqueue::more(flags) {
            match self.inflight.get_mut(place) {
                Some(&mut Op::Accept { listener }) => self.accepted(listener, result),
                Some(&mut Op::Receive { sock }) => self.received(sock, result, flags),
                Some(Op::SendZeroCopy { sock, taken, .. }) => {
                    *taken = true;
                    let sock = *sock;
                    self.sent(sock, result);
                }
                other => unreachable!("{other:?} completes once"),
            }
            return;
        }
        let op = self.inflight.remove(place).expect("each operation ends once");
        if let Some((sock, wait)) = op.wait() {
            self.state(sock).expect("a socket stays until its last operation ended").waits[wait] = None;
        }
        match op {
            Op::Accept { listener } => self.accept_ended(listener, result),
            Op::Receive { sock } => self.receive_ended(sock, result, flags),
            Op::Connect { sock, .. } => self.connected(sock, result),
            Op::Send { sock, .. } => self.sent(sock, result),
            Op::SendRegion { sock, region } | Op::SendMessage { sock, region, .. } => {
                self.region_done(region);
                self.sent(sock, result);
            }
            Op::SendZeroCopy { sock, region, taken } => {
                self.region_done(region);
                if taken {
                    self.chooser.report(send::was_zero_copy(result));
                } else {
                    self.sent(sock, result);
                }
            }
            Op::Poll { sock } => {
                if self.done(sock) {
                    self.events.push_back(Event::Writable { sock });
                }
            }
            Op::Shutdown { sock } => {
                self.done(sock);
            }
            Op::Cancel => {}
            Op::Close { sock } => self.closed(sock),
            Op::ReadWake { .. } => {
                self.events.push_back(Event::Woken);
                self.read_wake();
            }
            Op::OpenFile(opening) => {
                let result = files::opened(result);
                self.events.push_back(Event::Opened { ticket: opening.ticket, result });
            }
            Op::LoadFile { ticket, bytes, .. } => {
                let result = files::filled(bytes, result).map(Bytes::from);
                self.events.push_back(Event::Loaded { ticket, result });
            }
            Op::ReadAhead { sock, send, .. } => self.read_ahead_done(sock, send, result),
            Op::CopyFile { sock, send, bytes } => self.send_copy(sock, &send, bytes, result),
        }
    }

    fn read_wake(&mut self) {
        let fd = Fd(self.eventfd.as_fd().as_raw_fd());
        self.submit(Op::ReadWake { _value: Box::new([0; 8]) }, |op| {
            let Op::ReadWake { _value: value } = op else { unreachable!("as made") };
            opcode::Read::new(fd, value.as_ptr().cast_mut(), 8).build()
        });
    }
}

impl Engine for Uring {
    type Buf = RecvBuf;

    fn now(&self) -> Millis {
        u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    fn cpu_time(&self) -> Duration {
        let used = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
        Duration::try_from(used).unwrap_or_default()
    }

    fn connect(&mut self, to: SocketAddr) -> Result<Sock, Errno> {
        self.connect_to(to)
    }

    fn send(&mut self, sock: Sock, payload: Payload) {
        let Some(state) = self.state(sock).filter(|state| !state.closing) else { return };
        assert!(!state.sending, "one send at a time per socket");
        state.sending = true;
        match payload {
            Payload::Bytes(bytes) => self.send_bytes(sock, bytes),
            Payload::File { head, file, from, len } => {
                self.send_file(sock, FileSend { head, file, from, len, read: 0 });
            }
            Payload::Region { head, region, from, len } if head.as_slice().is_empty() => {
                self.send_region(sock, region, from, len);
            }
            Payload::Region { head, region, from, len } => self.send_message(sock, head, region, from, len),
        }
    }

    fn poll_writable(&mut self, sock: Sock) {
        let events = libc::POLLOUT as u32;
        self.begin(sock, Op::Poll { sock }, |_, target| {
            target.with(
                |fd| opcode::PollAdd::new(fd, events).build(),
                |fd| opcode::PollAdd::new(fd, events).build(),
            )
        });
    }

    fn shutdown_write(&mut self, sock: Sock) {
        self.end_writes(sock);
    }

    fn close(&mut self, sock: Sock) {
        self.close_sock(sock);
    }

    fn peer(&self, sock: Sock) -> Option<SocketAddr> {
        self.socks.get(sock.index)?.peer()
    }

    fn hold(&mut self, segment: &Arc<Segment>) -> Region {
        self.hold_region(segment)
    }

    fn release(&mut self, region: Region) {
        self.release_region(region);
    }

    fn open_file(&mut self, folder: &Arc<Folder>, path: &str, ticket: u64) {
        let opening = Opening::new(ticket, Arc::clone(folder), path);
        self.submit(Op::OpenFile(opening), |op| {
            let Op::OpenFile(opening) = op else { unreachable!("as made") };
            opening.entry()
        });
    }

    fn load_file(&mut self, file: &Rc<OpenFile>, len: u32, ticket: u64) {
        let bytes = Vec::with_capacity(len as usize);
        self.submit(Op::LoadFile { ticket, _file: Rc::clone(file), bytes }, |op| {
            let Op::LoadFile { _file: file, bytes, .. } = op else { unreachable!("as made") };
            files::read_entry(file, 0, bytes)
        });
    }

    fn queued(&self, sock: Sock) -> Option<u32> {
        files::queued(self.socks.get(sock.index)?.of_process()?.as_fd())
    }

    fn set_send_buffer(&mut self, sock: Sock, bytes: u32) {
        self.bound_send_buffer(sock, bytes);
    }

    fn cold_reads(&self) -> u64 {
        self.cold_reads
    }

    fn receive_buffers(&self) -> ReceiveBuffers {
        ReceiveBuffers { count: self.received.buffers().into(), starvations: self.starvations }
    }

    fn resume_accept(&mut self, listener: u32) {
        self.accept_again(listener);
    }

    fn stop_accept(&mut self) {
        self.close_listeners();
    }

    fn wait(&mut self, until: Option<Millis>) {
        for sock in std::mem::take(&mut self.starved) {
            self.receive(sock);
        }
        self.empty_slots();
        let now = self.now();
        if self.events.is_empty() && self.stale.is_empty() {
            // Without a deadline: long enough not to matter, short enough to bear a lost wake.
            let millis = until.map_or(10_000, |until| until.saturating_sub(now));
            self.enter(Some(Duration::from_millis(millis)));
        } else if std::mem::replace(&mut self.looked, now) == now {
            self.enter(None);
        } else {
            // Sends from the loop give events all the time: what the kernel has must not wait for their end.
            self.enter(Some(Duration::ZERO));
        }
        // The kernel does a few of the receives and accepts that are due at each call (twenty, since 6.13): with
        // hundreds of sends between two calls the rest would pile up for seconds.
        for _ in 0..TASK_ROUNDS {
            if !self.ring.submission().taskrun() {
                break;
            }
            self.enter(Some(Duration::ZERO));
        }
        self.reap();
    }

    fn next_event(&mut self) -> Option<Event<RecvBuf>> {
        self.events.pop_front()
    }
}
