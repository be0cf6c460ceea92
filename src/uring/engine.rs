//! The interface of an engine: what a loop may ask of its sockets, and the events that it gets.

use std::fmt;
use std::net::SocketAddr;
use std::ops::Deref;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use rustix::io::Errno;

use super::clock::Millis;
use super::files::{Folder, OpenFile};
use crate::memory::Segment;

/// The name of a socket: a place in the engine's table and a count of its uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Sock {
    /// The place: small, and reused after [`Event::Closed`].
    pub index: u32,
    /// Which use of the place this is.
    pub generation: u32,
}

/// The name of a memory segment that an engine may send from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Region(pub u32);

/// The longest header that may stand in front of a region's bytes.
pub const FRAME_HEAD_MAX: usize = 10;

/// A few bytes in front of a region's bytes, held by value.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FrameHead {
    bytes: [u8; FRAME_HEAD_MAX],
    len: u8,
}

impl FrameHead {
    /// Holds up to [`FRAME_HEAD_MAX`] bytes.
    pub fn new(head: &[u8]) -> Self {
        let mut bytes = [0; FRAME_HEAD_MAX];
        bytes[..head.len()].copy_from_slice(head);
        #[expect(clippy::cast_possible_truncation, reason = "bounded by the line above")]
        let len = head.len() as u8;
        Self { bytes, len }
    }

    /// The bytes.
    pub fn as_slice(&self) -> &[u8] {
        &self.bytes[..usize::from(self.len)]
    }

    /// Whether there is no header.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }
}

/// What to send.
#[derive(Clone, Debug)]
pub enum Payload {
    /// Bytes that no region holds.
    Bytes(Bytes),
    /// Part of a region, after a header that may be empty.
    Region {
        /// The header.
        head: FrameHead,
        /// The memory.
        region: Region,
        /// First byte within it.
        from: u32,
        /// Length in bytes.
        len: u32,
    },
    /// Part of a file, after bytes that may be empty. The part itself is not empty.
    File {
        /// The bytes before it.
        head: Bytes,
        /// The file.
        file: Rc<OpenFile>,
        /// First byte within it.
        from: u64,
        /// Length in bytes, at most [`FILE_SEND_MAX`](super::files::FILE_SEND_MAX).
        len: u32,
    },
}

/// Why a send took nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SendError {
    /// The socket's buffer is full.
    #[error("the socket is full")]
    Full,
    /// The connection is broken.
    #[error("send failed: {0}")]
    Broken(Errno),
}

/// What happened.
#[derive(Debug)]
pub enum Event<B> {
    /// A connection came in on a listener.
    Accepted {
        /// The tag that the listener was given.
        listener: u32,
        /// The new socket.
        sock: Sock,
    },
    /// A listener cannot accept for now; it pauses until [`Engine::resume_accept`].
    AcceptFailed {
        /// The tag that the listener was given.
        listener: u32,
        /// The kernel's error.
        error: Errno,
    },
    /// A connection that was requested is established, or failed.
    Connected {
        /// The socket.
        sock: Sock,
        /// The kernel's result.
        result: Result<(), Errno>,
    },
    /// Bytes from the peer.
    Received {
        /// The socket.
        sock: Sock,
        /// The bytes; dropping them gives the buffer back.
        data: B,
    },
    /// The peer will send no more (`None`), or the connection broke.
    Finished {
        /// The socket.
        sock: Sock,
        /// The error, if it broke.
        error: Option<Errno>,
    },
    /// A send is done.
    Sent {
        /// The socket.
        sock: Sock,
        /// Bytes taken, header included, at least one.
        result: Result<u32, SendError>,
    },
    /// A full socket can take bytes again (or broke: the next send reports it).
    Writable {
        /// The socket.
        sock: Sock,
    },
    /// The socket is closed and its name is free.
    Closed {
        /// The socket.
        sock: Sock,
    },
    /// A requested file is open, or cannot be opened.
    Opened {
        /// The ticket of the request.
        ticket: u64,
        /// The file, or the error; anything but a regular file counts as missing.
        result: Result<Rc<OpenFile>, Errno>,
    },
    /// A part of a file was read.
    Loaded {
        /// The ticket of the request.
        ticket: u64,
        /// The bytes, fewer than requested if the file is shorter.
        result: Result<Bytes, Errno>,
    },
    /// Another thread woke this loop.
    Woken,
}

impl<B> Event<B> {
    /// The same event, with the received bytes as another type.
    pub fn map<C>(self, data: impl FnOnce(B) -> C) -> Event<C> {
        match self {
            Self::Received { sock, data: bytes } => Event::Received { sock, data: data(bytes) },
            Self::Accepted { listener, sock } => Event::Accepted { listener, sock },
            Self::AcceptFailed { listener, error } => Event::AcceptFailed { listener, error },
            Self::Connected { sock, result } => Event::Connected { sock, result },
            Self::Finished { sock, error } => Event::Finished { sock, error },
            Self::Sent { sock, result } => Event::Sent { sock, result },
            Self::Writable { sock } => Event::Writable { sock },
            Self::Closed { sock } => Event::Closed { sock },
            Self::Opened { ticket, result } => Event::Opened { ticket, result },
            Self::Loaded { ticket, result } => Event::Loaded { ticket, result },
            Self::Woken => Event::Woken,
        }
    }
}

/// The buffers that a loop receives into.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ReceiveBuffers {
    /// How many there are: more after they ran out, up to a limit.
    pub count: u32,
    /// Receives that had to wait for a buffer.
    pub starvations: u64,
}

/// A loop's sockets.
///
/// Rules that the implementations keep:
/// - a socket receives from its creation until it is closed, except while that is turned off; bytes arrive as
///   [`Event::Received`];
/// - one send at a time per socket. It completes at once, perhaps short, perhaps with [`SendError::Full`],
///   after which [`Self::poll_writable`] says when to continue. Only a part of a file that is not in memory
///   completes later, once it was read; meanwhile nothing else is held up;
/// - after [`Self::close`] a socket gives no event but [`Event::Closed`], which frees its name.
pub trait Engine {
    /// A received buffer.
    type Buf: Deref<Target = [u8]> + fmt::Debug;

    /// The engine's clock.
    fn now(&self) -> Millis;
    /// CPU time that the loop's thread has used so far.
    fn cpu_time(&self) -> Duration;
    /// Opens a connection; [`Event::Connected`] gives the result.
    ///
    /// # Errors
    /// When no socket can be made.
    fn connect(&mut self, to: SocketAddr) -> Result<Sock, Errno>;
    /// Sends; no other send may be under way on this socket.
    fn send(&mut self, sock: Sock, payload: Payload);
    /// Requests [`Event::Writable`].
    fn poll_writable(&mut self, sock: Sock);
    /// Tells the peer that no more bytes will come; the peer may still send.
    fn shutdown_write(&mut self, sock: Sock);
    /// Closes the socket.
    fn close(&mut self, sock: Sock);
    /// The peer's address, while the socket is open.
    fn peer(&self, sock: Sock) -> Option<SocketAddr>;
    /// Registers a segment, so that its memory can be sent from.
    fn hold(&mut self, segment: &Arc<Segment>) -> Region;
    /// The region is not needed for new sends; it is freed when the last send from it is done.
    fn release(&mut self, region: Region);
    /// Opens a regular file below a folder; [`Event::Opened`] gives the result. `path` is relative and contains
    /// no zero byte; a path that leads out of the folder is refused.
    fn open_file(&mut self, folder: &Arc<Folder>, path: &str, ticket: u64);
    /// Reads `len` bytes of a file from `from` on; [`Event::Loaded`] brings them.
    fn load_file(&mut self, file: &Rc<OpenFile>, from: u64, len: u32, ticket: u64);
    /// Bytes that the kernel holds for the peer, unacknowledged or not sent yet; `None`: unknown.
    fn queued(&self, sock: Sock) -> Option<u32>;
    /// Limits what the kernel buffers for the peer (`SO_SNDBUF`: the kernel doubles `bytes` for its own
    /// bookkeeping and caps it at `net.core.wmem_max`) and turns the kernel's automatic sizing off. No effect
    /// on sockets in the ring's own table, which `setsockopt(2)` does not reach.
    fn set_send_buffer(&mut self, sock: Sock, bytes: u32);
    /// Stops receiving, or starts again: a peer that sends on is slowed down by its kernel. What has arrived already may
    /// still come, and the peer's end does not come meanwhile.
    fn set_receiving(&mut self, sock: Sock, on: bool);
    /// Parts of files that had to be read from a disk before they could be sent.
    fn cold_reads(&self) -> u64;
    /// The buffers that it receives into; the default is for engines without such buffers.
    fn receive_buffers(&self) -> ReceiveBuffers {
        ReceiveBuffers::default()
    }
    /// Accepts again on a listener that was paused.
    fn resume_accept(&mut self, listener: u32);
    /// Stops accepting on all listeners for good and closes them.
    fn stop_accept(&mut self);
    /// Submits what was requested and waits for an event, or until `until`.
    fn wait(&mut self, until: Option<Millis>);
    /// The next event.
    fn next_event(&mut self) -> Option<Event<Self::Buf>>;
}
