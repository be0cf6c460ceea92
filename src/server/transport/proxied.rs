//! Beneath TLS: takes the PROXY header off connections of trusted proxies, and remembers the client that it names.
//!
//! A trusted peer need not send a header, so that a proxy may forward HTTP and this machine's own programs may
//! connect directly. Whatever begins otherwise goes on unchanged.

use std::collections::HashMap;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use rustix::io::Errno;

use super::received::Received;
use crate::memory::Segment;
use crate::protocol::proxy::{Opening, ProxyError, opening};
use crate::uring::files::{Folder, OpenFile};
use crate::uring::{Engine, Event, Millis, Payload, ReceiveBuffers, Region, Sock};

/// What is known of a connection of a trusted peer.
#[derive(Debug)]
enum Stage {
    /// These bytes have come.
    Awaiting(Vec<u8>),
    /// The header named this client, or none.
    Told(Option<SocketAddr>),
    /// It was malformed: nothing more is taken.
    Failed(ProxyError),
}

/// An engine without the headers; see the module.
pub(super) struct Proxied<E> {
    pub(super) engine: E,
    /// The connections that await a header or had one.
    places: HashMap<Sock, Stage>,
    /// The clients whose requests were forwarded.
    forwarded: HashMap<Sock, IpAddr>,
}

impl<E> fmt::Debug for Proxied<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Proxied").field("places", &self.places).finish_non_exhaustive()
    }
}

impl<E: Engine> Proxied<E> {
    pub(super) fn new(engine: E) -> Self {
        Self { engine, places: HashMap::new(), forwarded: HashMap::new() }
    }

    /// A trusted peer has connected: what it sends first may be a header.
    pub(super) fn await_header(&mut self, sock: Sock) {
        self.places.insert(sock, Stage::Awaiting(Vec::new()));
    }

    /// Whether a header has come; it may have named a client.
    pub(super) fn told(&self, sock: Sock) -> Option<Option<SocketAddr>> {
        match self.places.get(&sock) {
            Some(Stage::Told(client)) => Some(*client),
            _ => None,
        }
    }

    /// The client whose request was forwarded; `None`: the peer's own.
    pub(super) fn set_forwarded(&mut self, sock: Sock, client: Option<IpAddr>) {
        match client {
            Some(client) => self.forwarded.insert(sock, client),
            None => self.forwarded.remove(&sock),
        };
    }

    /// What was wrong with a connection's header.
    pub(super) fn fault(&self, sock: Sock) -> Option<ProxyError> {
        match self.places.get(&sock) {
            Some(Stage::Failed(error)) => Some(*error),
            _ => None,
        }
    }

    /// Received bytes; returns those of the client, or the end after a malformed header.
    fn received(&mut self, sock: Sock, data: E::Buf) -> Option<Event<Received<E::Buf>>> {
        let kept = match self.places.get_mut(&sock) {
            Some(Stage::Awaiting(kept)) => kept,
            Some(Stage::Failed(_)) => return None,
            Some(Stage::Told(_)) | None => {
                return Some(Event::Received { sock, data: Received::Whole(data) });
            }
        };
        let is_first = kept.is_empty();
        if !is_first {
            kept.extend_from_slice(&data);
        }
        let input = if is_first { &*data } else { &**kept };
        match opening(input) {
            Ok(None) if is_first => *kept = input.to_vec(),
            Ok(None) => {}
            Ok(Some(Opening::Other)) => {
                let kept = std::mem::take(kept);
                self.places.remove(&sock);
                let data = if is_first { Received::Whole(data) } else { Received::Kept(kept) };
                return Some(Event::Received { sock, data });
            }
            Ok(Some(Opening::Header { len, client })) => {
                let rest = input[len..].to_vec();
                self.places.insert(sock, Stage::Told(client));
                return (!rest.is_empty()).then_some(Event::Received { sock, data: Received::Kept(rest) });
            }
            Err(error) => {
                self.places.insert(sock, Stage::Failed(error));
                return Some(Event::Finished { sock, error: Some(Errno::PROTO) });
            }
        }
        None
    }
}

/// All but received bytes and the peer's address is the engine's.
impl<E: Engine> Engine for Proxied<E> {
    type Buf = Received<E::Buf>;

    fn peer(&self, sock: Sock) -> Option<SocketAddr> {
        let forwarded = self.forwarded.get(&sock).map(|client| SocketAddr::from((*client, 0)));
        forwarded.or_else(|| self.told(sock)?).or_else(|| self.engine.peer(sock))
    }

    fn close(&mut self, sock: Sock) {
        self.places.remove(&sock);
        self.forwarded.remove(&sock);
        self.engine.close(sock);
    }

    #[inline]
    fn next_event(&mut self) -> Option<Event<Self::Buf>> {
        loop {
            match self.engine.next_event()? {
                Event::Received { sock, data } if !self.places.is_empty() => {
                    if let Some(event) = self.received(sock, data) {
                        return Some(event);
                    }
                }
                event => return Some(event.map(Received::Whole)),
            }
        }
    }

    fn now(&self) -> Millis {
        self.engine.now()
    }
    fn cpu_time(&self) -> Duration {
        self.engine.cpu_time()
    }
    fn connect(&mut self, to: SocketAddr) -> Result<Sock, Errno> {
        self.engine.connect(to)
    }
    #[inline]
    fn send(&mut self, sock: Sock, payload: Payload) {
        self.engine.send(sock, payload);
    }
    fn poll_writable(&mut self, sock: Sock) {
        self.engine.poll_writable(sock);
    }
    fn shutdown_write(&mut self, sock: Sock) {
        self.engine.shutdown_write(sock);
    }
    fn hold(&mut self, segment: &Arc<Segment>) -> Region {
        self.engine.hold(segment)
    }
    fn release(&mut self, region: Region) {
        self.engine.release(region);
    }
    fn open_file(&mut self, folder: &Arc<Folder>, path: &str, ticket: u64) {
        self.engine.open_file(folder, path, ticket);
    }
    fn load_file(&mut self, file: &Rc<OpenFile>, from: u64, len: u32, ticket: u64) {
        self.engine.load_file(file, from, len, ticket);
    }
    fn queued(&self, sock: Sock) -> Option<u32> {
        self.engine.queued(sock)
    }
    fn set_send_buffer(&mut self, sock: Sock, bytes: u32) {
        self.engine.set_send_buffer(sock, bytes);
    }
    fn set_receiving(&mut self, sock: Sock, on: bool) {
        self.engine.set_receiving(sock, on);
    }
    fn cold_reads(&self) -> u64 {
        self.engine.cold_reads()
    }
    fn receive_buffers(&self) -> ReceiveBuffers {
        self.engine.receive_buffers()
    }
    fn resume_accept(&mut self, listener: u32) {
        self.engine.resume_accept(listener);
    }
    fn stop_accept(&mut self) {
        self.engine.stop_accept();
    }
    fn wait(&mut self, until: Option<Millis>) {
        self.engine.wait(until);
    }
}
