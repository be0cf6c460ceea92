//! The engine: sockets on io_uring. It knows nothing of media.
//!
//! [`Engine`] is the seam: the program runs on [`ring::Uring`], the simulation on a seeded stand-in. The
//! engine owns every buffer and descriptor from the submission of an operation until its last completion;
//! its user holds only names ([`Sock`], [`Region`]) that go stale without harm.
//!
//! Rules that the implementations keep:
//! - a socket receives from its birth until it is closed; bytes arrive as [`Event::Received`];
//! - one send at a time per socket; it completes at once, perhaps short, perhaps with [`SendError::Full`],
//!   after which [`Engine::poll_writable`] says when to go on;
//! - after [`Engine::close`] a socket gives no event but [`Event::Closed`], which frees its name.

use std::net::SocketAddr;
use std::ops::Deref;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use rustix::io::Errno;

use crate::memory::Segment;

mod buffers;
pub mod mailbox;
pub mod probe;
pub mod ring;
pub mod send;
mod slab;
#[cfg(test)]
mod tests;

/// Milliseconds on the engine's monotonic clock.
pub type Millis = u64;

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
}

/// What to send.
#[derive(Clone, Debug)]
pub enum Payload {
    /// Bytes of its own.
    Bytes(Bytes),
    /// A stretch of a region, behind a header that may be empty.
    Region {
        /// What stands in front.
        head: FrameHead,
        /// The memory.
        region: Region,
        /// First byte within it.
        from: u32,
        /// How many.
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
    /// A listener cannot accept for now; it rests until [`Engine::resume_accept`].
    AcceptFailed {
        /// The tag that the listener was given.
        listener: u32,
        /// What the kernel said.
        error: Errno,
    },
    /// A connection that was asked for stands, or does not.
    Connected {
        /// The socket.
        sock: Sock,
        /// What the kernel said.
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
        /// What broke.
        error: Option<Errno>,
    },
    /// A send is done.
    Sent {
        /// The socket.
        sock: Sock,
        /// Bytes taken, header included, at least one.
        result: Result<u32, SendError>,
    },
    /// A full socket has room again (or broke: the next send will say so).
    Writable {
        /// The socket.
        sock: Sock,
    },
    /// The socket is gone and its name is free.
    Closed {
        /// The socket.
        sock: Sock,
    },
    /// Somebody else called for this loop.
    Woken,
}

/// A loop's sockets. See the module for the rules.
pub trait Engine {
    /// A received buffer.
    type Buf: Deref<Target = [u8]>;

    /// The engine's clock.
    fn now(&self) -> Millis;
    /// CPU time that the loop's thread has used so far.
    fn cpu_time(&self) -> Duration;
    /// Opens a connection; [`Event::Connected`] tells how it went.
    ///
    /// # Errors
    /// When no socket can be made.
    fn connect(&mut self, to: SocketAddr) -> Result<Sock, Errno>;
    /// Sends; there must be no other send under way on this socket.
    fn send(&mut self, sock: Sock, payload: Payload);
    /// Asks for [`Event::Writable`].
    fn poll_writable(&mut self, sock: Sock);
    /// Tells the peer that no more will come; it may still send.
    fn shutdown_write(&mut self, sock: Sock);
    /// Gives the socket up.
    fn close(&mut self, sock: Sock);
    /// The peer's address, while the socket is open.
    fn peer(&self, sock: Sock) -> Option<SocketAddr>;
    /// Makes a segment's memory known, so that it can be sent from.
    fn hold(&mut self, segment: &Arc<Segment>) -> Region;
    /// The region is not needed for new sends; it goes when the last send from it is done.
    fn release(&mut self, region: Region);
    /// Accepts again on a listener that rests.
    fn resume_accept(&mut self, listener: u32);
    /// Stops accepting on all listeners for good and closes them.
    fn stop_accept(&mut self);
    /// Submits what was asked for and waits for something to happen, or until `until`.
    fn wait(&mut self, until: Option<Millis>);
    /// What happened, one after the other.
    fn next_event(&mut self) -> Option<Event<Self::Buf>>;
}
