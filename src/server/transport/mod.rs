//! Between a connection's session and its socket: the one place that knows how bytes travel.
//!
//! Sessions, viewers and files say what a peer is to be sent as a [`Payload`] (bytes of their own, a stretch of a
//! log after a head, a stretch of a file), and are told how many bytes of that were taken. What comes in is
//! handed to them as their peer meant it.
//!
//! What a user of a transport may rely on, and what it owes:
//! - one send at a time per socket; it ends with [`Event::Sent`], perhaps short;
//! - a transport may take less than it was offered, never more, and counts in bytes of the payload;
//! - what was offered stays as it is, and stays reachable, until the send has ended, so that a transport that
//!   encodes can make it again after a short send: bytes are shared, log segments are held by the view whose
//!   viewer stands in them, files by their descriptor.
//!
//! Today all bytes travel plain, so the payload goes to the engine as it is.

mod outbox;

use std::borrow::Cow;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use rustix::io::Errno;

use crate::memory::Segment;
use crate::uring::files::{Folder, OpenFile};
use crate::uring::{Engine, Event, Millis, Payload, Region, SendError, Sock};

pub(super) use outbox::Outbox;

/// The connections of a loop as their sessions see them. Nothing else talks to the engine.
#[derive(Debug)]
pub(super) struct Transports<E> {
    engine: E,
}

impl<E: Engine> Transports<E> {
    /// All sockets of `engine`.
    pub(super) fn new(engine: E) -> Self {
        Self { engine }
    }

    /// The engine itself, for tests that stand in for the kernel.
    #[cfg(test)]
    pub(super) fn engine(&mut self) -> &mut E {
        &mut self.engine
    }

    /// Sends; there must be no other send under way on this socket.
    pub(super) fn send(&mut self, sock: Sock, payload: Payload) {
        self.engine.send(sock, payload);
    }

    /// As [`send`](Self::send), bytes of a session's own.
    pub(super) fn send_bytes(&mut self, sock: Sock, bytes: Bytes) {
        self.send(sock, Payload::Bytes(bytes));
    }

    /// A send of the engine has ended: what its session is told, in bytes of the payload. `None`: the transport
    /// has not yet sent what it has begun, and goes on by itself.
    pub(super) fn sent(
        &mut self,
        _sock: Sock,
        result: Result<u32, SendError>,
    ) -> Option<Result<u32, SendError>> {
        Some(result)
    }

    /// What a peer's bytes say.
    pub(super) fn received<'a>(&mut self, _sock: Sock, bytes: &'a [u8]) -> Cow<'a, [u8]> {
        Cow::Borrowed(bytes)
    }

    /// Asks for [`Event::Writable`] once a full socket has capacity again.
    pub(super) fn poll_writable(&mut self, sock: Sock) {
        self.engine.poll_writable(sock);
    }

    /// Tells the peer that no more will come; it may still send.
    pub(super) fn shutdown_write(&mut self, sock: Sock) {
        self.engine.shutdown_write(sock);
    }

    /// Opens a connection; [`Event::Connected`] tells how it went.
    ///
    /// # Errors
    /// When no socket can be made.
    pub(super) fn connect(&mut self, to: SocketAddr) -> Result<Sock, Errno> {
        self.engine.connect(to)
    }

    /// Gives the socket up.
    pub(super) fn close(&mut self, sock: Sock) {
        self.engine.close(sock);
    }

    /// The peer's address, while the socket is open.
    pub(super) fn peer(&self, sock: Sock) -> Option<SocketAddr> {
        self.engine.peer(sock)
    }

    /// Bytes that the kernel holds for the peer; `None`: unknown.
    pub(super) fn queued(&self, sock: Sock) -> Option<u32> {
        self.engine.queued(sock)
    }

    /// Bounds what the kernel may hold for the peer, in bytes.
    pub(super) fn set_send_buffer(&mut self, sock: Sock, bytes: u32) {
        self.engine.set_send_buffer(sock, bytes);
    }

    /// Makes a segment's memory known, so that it can be sent from.
    pub(super) fn hold(&mut self, segment: &Arc<Segment>) -> Region {
        self.engine.hold(segment)
    }

    /// The region is not needed for new sends; it goes when the last send from it has ended.
    pub(super) fn release(&mut self, region: Region) {
        self.engine.release(region);
    }

    /// Opens a regular file below a folder; [`Event::Opened`] tells how it went.
    pub(super) fn open_file(&mut self, folder: &Arc<Folder>, path: &str, ticket: u64) {
        self.engine.open_file(folder, path, ticket);
    }

    /// Reads the first `len` bytes of a file; [`Event::Loaded`] brings them.
    pub(super) fn load_file(&mut self, file: &Rc<OpenFile>, len: u32, ticket: u64) {
        self.engine.load_file(file, len, ticket);
    }

    /// Stretches of files that had to be read from a disk before they could be sent.
    pub(super) fn cold_reads(&self) -> u64 {
        self.engine.cold_reads()
    }

    /// The loop's clock.
    pub(super) fn now(&self) -> Millis {
        self.engine.now()
    }

    /// CPU time that the loop's thread has used so far.
    pub(super) fn cpu_time(&self) -> Duration {
        self.engine.cpu_time()
    }

    /// Accepts again on a listener that rests.
    pub(super) fn resume_accept(&mut self, listener: u32) {
        self.engine.resume_accept(listener);
    }

    /// Stops accepting on all listeners for good and closes them.
    pub(super) fn stop_accept(&mut self) {
        self.engine.stop_accept();
    }

    /// Submits what was asked for and waits for something to happen, or until `until`.
    pub(super) fn wait(&mut self, until: Option<Millis>) {
        self.engine.wait(until);
    }

    /// What happened, one after the other.
    pub(super) fn next_event(&mut self) -> Option<Event<E::Buf>> {
        self.engine.next_event()
    }
}
