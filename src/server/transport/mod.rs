//! Between a connection's session and its socket: the only module that knows how bytes travel.
//!
//! Sessions, viewers and files describe what a peer is to be sent as a [`Payload`] (their own bytes, a range of
//! a log after a head, a range of a file), and are notified of how many of its bytes were taken. Received bytes
//! are handed to them as the peer meant them.
//!
//! What a user of a transport may rely on, and what it has to guarantee:
//! - one send at a time per socket; it ends with [`Event::Sent`], perhaps short;
//! - a transport may take fewer bytes than it was offered, never more, and counts in bytes of the payload;
//! - the offered bytes stay unchanged and reachable until the send has ended: bytes are shared, log segments are
//!   held by the view whose viewer is reading them, files by their descriptor.
//!
//! Bytes travel plain, and the payload goes to the engine unchanged; or in TLS ([`secure`]). Beneath both, trusted
//! proxies may tell the client's address ([`proxied`]).

mod outbox;
mod proxied;
mod received;
mod secure;
#[cfg(test)]
mod tests;

use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use rustix::io::Errno;

use crate::memory::Segment;
use crate::protocol::proxy::ProxyError;
use crate::protocol::tls::error::TlsError;
use crate::protocol::tls::handshake::Handshake;
use crate::uring::files::{Folder, OpenFile};
use crate::uring::{Engine, Event, Millis, Payload, Region, Sock};

pub(super) use outbox::Outbox;
use proxied::Proxied;
pub(super) use received::Received;
use secure::Secures;

/// The connections of a loop as their sessions see them. Nothing else uses the engine directly.
#[derive(Debug)]
pub(super) struct Transports<E: Engine> {
    engine: Proxied<E>,
    secures: Secures<Received<E::Buf>>,
}

impl<E: Engine> Transports<E> {
    /// Wraps all sockets of `engine`.
    pub(super) fn new(engine: E) -> Self {
        Self { engine: Proxied::new(engine), secures: Secures::new() }
    }

    /// The engine itself, for tests that take the kernel's part.
    #[cfg(test)]
    pub(super) fn engine(&mut self) -> &mut E {
        &mut self.engine.engine
    }

    /// New connections may speak TLS with these certificates; `None`: they are plain.
    pub(super) fn accept_tls(&mut self, config: Option<Arc<rustls::ServerConfig>>) {
        self.secures.accept_with(config);
    }

    /// A socket was accepted whose first byte tells whether it speaks TLS.
    pub(super) fn accepted(&mut self, sock: Sock) {
        self.secures.accepted(sock);
    }

    /// A trusted peer was accepted: it may tell in a PROXY header for whom it has connected.
    pub(super) fn await_header(&mut self, sock: Sock) {
        self.engine.await_header(sock);
    }

    /// Whether a PROXY header has come; it may have named a client.
    pub(super) fn told(&self, sock: Sock) -> Option<Option<SocketAddr>> {
        self.engine.told(sock)
    }

    /// The client whose request a trusted proxy has forwarded; `None`: its own.
    pub(super) fn set_forwarded(&mut self, sock: Sock, client: Option<IpAddr>) {
        self.engine.set_forwarded(sock, client);
    }

    /// What was wrong with a connection's PROXY header.
    pub(super) fn header_fault(&self, sock: Sock) -> Option<ProxyError> {
        self.engine.fault(sock)
    }

    /// What was wrong with a connection's TLS.
    pub(super) fn tls_fault(&self, sock: Sock) -> Option<&TlsError> {
        self.secures.fault(sock)
    }

    /// Whether a connection travels in TLS.
    pub(super) fn is_secure(&self, sock: Sock) -> bool {
        self.secures.is_secure(sock)
    }

    /// Bytes that the transport itself holds for a connection.
    pub(super) fn held(&self, sock: Sock) -> usize {
        self.secures.held(sock)
    }

    /// Bytes that the transport has taken from a session and not given to the socket: a close would lose them.
    pub(super) fn unsent(&self, sock: Sock) -> usize {
        self.secures.unsent(sock)
    }

    /// How many TLS connections have failed since the last call.
    pub(super) fn take_tls_failures(&mut self) -> u64 {
        self.secures.take_failures()
    }

    /// Sends; no other send may be under way on this socket.
    #[inline]
    pub(super) fn send(&mut self, sock: Sock, payload: Payload) {
        if self.secures.is_plain(sock) {
            self.engine.send(sock, payload);
        } else {
            self.secures.send(&mut self.engine, sock, payload);
        }
    }

    /// As [`send`](Self::send), for a session's own bytes.
    pub(super) fn send_bytes(&mut self, sock: Sock, bytes: Bytes) {
        self.send(sock, Payload::Bytes(bytes));
    }

    /// Asks for [`Event::Writable`] once a full socket has capacity again.
    pub(super) fn poll_writable(&mut self, sock: Sock) {
        if self.secures.has(sock) {
            self.secures.poll_writable(&mut self.engine, sock);
        } else {
            self.engine.poll_writable(sock);
        }
    }

    /// Tells the peer that no more will come; it may still send.
    pub(super) fn shutdown_write(&mut self, sock: Sock) {
        if self.secures.is_plain(sock) {
            self.engine.shutdown_write(sock);
        } else {
            self.secures.finish(&mut self.engine, sock);
        }
    }

    /// Opens a connection; [`Event::Connected`] brings the result.
    ///
    /// # Errors
    /// When no socket can be made.
    pub(super) fn connect(&mut self, to: SocketAddr) -> Result<Sock, Errno> {
        self.engine.connect(to)
    }

    /// As [`connect`](Self::connect); the connection speaks TLS, and is there after its handshake.
    ///
    /// # Errors
    /// When no socket can be made.
    pub(super) fn connect_tls(&mut self, to: SocketAddr, handshake: Handshake) -> Result<Sock, Errno> {
        let sock = self.engine.connect(to)?;
        self.secures.connecting(sock, handshake);
        Ok(sock)
    }

    /// Closes the socket.
    pub(super) fn close(&mut self, sock: Sock) {
        self.secures.forget(sock);
        self.engine.close(sock);
    }

    /// The peer's address, while the socket is open; for a trusted proxy that of the client that it has named.
    pub(super) fn peer(&self, sock: Sock) -> Option<SocketAddr> {
        self.engine.peer(sock)
    }

    /// Bytes that the kernel holds for the peer; `None` if unknown.
    pub(super) fn queued(&self, sock: Sock) -> Option<u32> {
        self.engine.queued(sock)
    }

    /// Bounds what the kernel may hold for the peer, in bytes.
    pub(super) fn set_send_buffer(&mut self, sock: Sock, bytes: u32) {
        self.engine.set_send_buffer(sock, bytes);
    }

    /// Registers a segment's memory, so that it can be sent from.
    pub(super) fn hold(&mut self, segment: &Arc<Segment>) -> Region {
        let region = self.engine.hold(segment);
        self.secures.hold(region, segment);
        region
    }

    /// No new sends will use the region; it is released when the last send from it has ended.
    pub(super) fn release(&mut self, region: Region) {
        self.secures.release(region);
        self.engine.release(region);
    }

    /// Opens a regular file below a folder; [`Event::Opened`] brings the result.
    pub(super) fn open_file(&mut self, folder: &Arc<Folder>, path: &str, ticket: u64) {
        self.engine.open_file(folder, path, ticket);
    }

    /// Reads the first `len` bytes of a file; [`Event::Loaded`] brings them.
    pub(super) fn load_file(&mut self, file: &Rc<OpenFile>, len: u32, ticket: u64) {
        self.engine.load_file(file, 0, len, ticket);
    }

    /// The number of ranges of files that had to be read from a disk before they could be sent.
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

    /// Stops receiving from a socket, or starts again.
    pub(super) fn set_receiving(&mut self, sock: Sock, on: bool) {
        self.engine.set_receiving(sock, on);
    }

    /// Accepts again on a listener that rests.
    pub(super) fn resume_accept(&mut self, listener: u32) {
        self.engine.resume_accept(listener);
    }

    /// Stops accepting on all listeners for good and closes them.
    pub(super) fn stop_accept(&mut self) {
        self.engine.stop_accept();
    }

    /// Submits all queued operations and waits for an event, or until `until`.
    pub(super) fn wait(&mut self, until: Option<Millis>) {
        self.secures.turn(&mut self.engine);
        let until = if self.secures.is_ready() { Some(self.engine.now()) } else { until };
        self.engine.wait(until);
    }

    /// The next event, if there is one.
    pub(super) fn next_event(&mut self) -> Option<Event<Received<E::Buf>>> {
        loop {
            if let Some(event) = self.secures.next() {
                return Some(event);
            }
            let event = self.engine.next_event()?;
            let sock = match &event {
                Event::Received { sock, .. }
                | Event::Sent { sock, .. }
                | Event::Writable { sock }
                | Event::Connected { sock, .. }
                | Event::Finished { sock, .. } => *sock,
                Event::Loaded { ticket, result } => {
                    if self.secures.loaded(&mut self.engine, *ticket, result) {
                        continue;
                    }
                    return Some(event);
                }
                _ => return Some(event),
            };
            if !self.secures.has(sock) {
                return Some(event);
            }
            self.secures.take(&mut self.engine, sock, event);
        }
    }
}
