//! The admin listener: metrics, health, the API and the status page. Loopback by default.
//!
//! It runs on the side thread, so that it answers while a loop hangs. Plain functions (`route`) decide what a
//! request asks for and whether it is allowed; only the sockets are handled here.

mod connections;
mod guard;
mod operator;
mod reply;
mod route;

use std::net::{IpAddr, Shutdown, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio_uring::buf::BoundedBuf;
use tokio_uring::net::{TcpListener, TcpStream};
use tracing::{debug, warn};

use super::metrics::Metrics;
use crate::config::Listen;
use crate::protocol::http::BodyLength;
use crate::protocol::http::request::{Request, RequestLimits, RequestReader};
use crate::protocol::proxy::{Opening, opening};
use crate::server::listen::socket_for;
use crate::server::shared::Shared;
use connections::{Connections, Entry};
use guard::Guard;
use reply::Reply;
use route::{Ask, route};

/// Connections that wait to be accepted.
const BACKLOG: i32 = 128;
const READ: usize = 8 << 10;
const HEAD_MAX: usize = 16 << 10;
/// Bytes of one write; a peer has [`WRITE_TIME`] to take each.
const WRITE: usize = 64 << 10;
const WRITE_TIME: Duration = Duration::from_secs(10);
/// How long a peer may take to send its next request.
const REQUEST_TIME: Duration = Duration::from_secs(30);
/// A loop that has not swept for this many milliseconds hangs.
const HANGING: u64 = 10_000;

/// What requests are answered from.
struct Asked {
    shared: Arc<Shared>,
    metrics: Metrics,
}

/// Binds a socket for each address.
///
/// # Errors
/// That of the first address that cannot be bound.
pub(super) fn bind(listen: &Listen) -> Result<Vec<std::net::TcpListener>, (SocketAddr, std::io::Error)> {
    let bind = |address: SocketAddr| {
        let socket = socket_for(address, listen.is_v6_only(address))?;
        socket.bind(&address.into())?;
        socket.listen(BACKLOG)?;
        Ok(socket.into())
    };
    listen.iter().map(|address| bind(*address).map_err(|error| (*address, error))).collect()
}

/// Starts to answer on these sockets; they have their limit of connections in common.
pub(super) fn start(
    sockets: impl Iterator<Item = std::net::TcpListener>,
    shared: &Arc<Shared>,
    metrics: &Metrics,
) {
    let connections = Rc::new(Connections::default());
    let asked = Rc::new(Asked { shared: Arc::clone(shared), metrics: metrics.clone() });
    for listener in sockets {
        tokio_uring::spawn(serve(listener, Rc::clone(&asked), Rc::clone(&connections)));
    }
}

/// Accepts and answers connections, for ever.
async fn serve(listener: std::net::TcpListener, asked: Rc<Asked>, connections: Rc<Connections<TcpStream>>) {
    let config = &asked.shared.config;
    let (token, hosts) = (config.admin_token.clone(), config.admin_hosts.clone());
    let guard = match listener.local_addr() {
        Ok(address) => Rc::new(Guard::new(token, hosts, address.ip().to_canonical())),
        Err(error) => return warn!(%error, "no admin listener"),
    };
    let listener = TcpListener::from_std(listener);
    loop {
        match listener.accept().await {
            Ok((stream, peer)) => {
                let stream = Rc::new(stream);
                let (entry, idlest) = connections.add(Rc::clone(&stream), Instant::now());
                // Its task notices, and ends.
                idlest.inspect(|idlest| shut_down(idlest));
                let (asked, guard) = (Rc::clone(&asked), Rc::clone(&guard));
                tokio_uring::spawn(async move {
                    // A pending read cannot be cancelled: shutting the socket down ends it.
                    if let Some((guard, bytes)) = begin(&stream, &asked, guard, peer.ip()).await {
                        talk(&stream, &asked, &guard, &entry, bytes).await;
                    }
                    shut_down(&stream);
                });
            }
            Err(error) => {
                warn!(%error, "the admin listener cannot accept");
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
        }
    }
}

fn shut_down(stream: &TcpStream) {
    let _ = stream.shutdown(Shutdown::Both);
}

/// Takes the PROXY header off a connection of a trusted proxy; returns the rules for its client, and the bytes that were
/// received after the header. `None`: it has ended, or the header is malformed.
async fn begin(
    stream: &TcpStream,
    asked: &Asked,
    guard: Rc<Guard>,
    peer: IpAddr,
) -> Option<(Rc<Guard>, Vec<u8>)> {
    let mut bytes = Vec::new();
    if !asked.shared.config.limits.is_trusted(peer.to_canonical()) {
        return Some((guard, bytes));
    }
    let until = Instant::now() + REQUEST_TIME;
    loop {
        let (result, received) = before(stream, until, stream.read(vec![0; READ])).await;
        let Ok(len @ 1..) = result else { return None };
        bytes.extend_from_slice(&received[..len]);
        match opening(&bytes) {
            Ok(None) => {}
            Ok(Some(Opening::Other)) => return Some((guard, bytes)),
            Ok(Some(Opening::Header { len, client })) => {
                bytes.drain(..len);
                let guard = client.map_or(guard.clone(), |client| guard.of_client(client.ip()).into());
                return Some((guard, bytes));
            }
            Err(error) => {
                debug!(%peer, %error, "refused a connection to the admin listener");
                return None;
            }
        }
    }
}

/// Answers the requests of one connection, of which these bytes were received.
async fn talk(
    stream: &TcpStream,
    asked: &Asked,
    guard: &Guard,
    entry: &Entry<TcpStream>,
    mut buffer: Vec<u8>,
) {
    let mut reader = RequestReader::new(RequestLimits::new(HEAD_MAX));
    let mut until = Instant::now() + REQUEST_TIME;
    let mut len = buffer.len();
    loop {
        let mut bytes = &buffer[..len];
        loop {
            let (head, body, stays) = match reader.push(std::mem::take(&mut bytes)) {
                Ok(None) => break,
                Ok(Some(request)) => {
                    let bodiless = matches!(request.body_length(), BodyLength::None | BodyLength::Length(0));
                    let stays = request.keep_alive() && bodiless;
                    let (head, body) = answer(&request, asked, guard).await.encode(&request, stays);
                    (head, body, stays)
                }
                Err(error) => (error.page(), Bytes::new(), false),
            };
            if !write(stream, head, &body).await || !stays {
                return;
            }
            entry.touch(Instant::now());
            until = Instant::now() + REQUEST_TIME;
        }
        buffer.resize(READ, 0);
        let (result, returned) = before(stream, until, stream.read(buffer)).await;
        let Ok(received @ 1..) = result else { return };
        (buffer, len) = (returned, received);
    }
}

/// Writes an answer; `false` if the peer is gone or takes too long.
async fn write(stream: &TcpStream, head: Vec<u8>, body: &Bytes) -> bool {
    let mut page = head;
    let mut rest = body.clone();
    loop {
        // The head and the start of the body are sent together.
        page.extend_from_slice(&rest.split_to(rest.len().min(WRITE)));
        let until = Instant::now() + WRITE_TIME;
        if before(stream, until, stream.write_all(page.slice(..))).await.0.is_err() {
            return false;
        }
        if rest.is_empty() {
            return true;
        }
        page = Vec::with_capacity(WRITE);
    }
}

/// Waits for an operation, and shuts the socket down if it takes too long.
async fn before<T>(stream: &TcpStream, until: Instant, operation: impl Future<Output = T>) -> T {
    let mut operation = std::pin::pin!(operation);
    tokio::select! {
        done = &mut operation => done,
        () = tokio::time::sleep_until(until.into()) => {
            shut_down(stream);
            operation.await
        }
    }
}

async fn answer(request: &Request, asked: &Asked, guard: &Guard) -> Reply {
    let shared = &asked.shared;
    match route(request, guard) {
        Err(reply) => reply,
        Ok(Ask::Metrics) => route::metrics(asked.metrics.render(shared)),
        Ok(Ask::Streams) => route::streams(&super::listings::streams(shared), guard.access),
        Ok(Ask::Live) => route::live(hanging_loop(shared)),
        Ok(Ask::Ready) => route::ready(shared.phase(), shared.upstreams_are_down()),
        Ok(Ask::Health) => route::health(hanging_loop(shared), shared.phase()),
        Ok(Ask::Page(path)) => route::page(path),
        Ok(Ask::Viewers) => operator::list(shared, request).await,
        Ok(Ask::Viewer(id)) => operator::kick(shared, id).await,
        Ok(Ask::Stream(name)) => operator::kick_publisher(shared, name).await,
    }
}

/// A loop that has not swept for too long, if there is one.
pub(super) fn hanging_loop(shared: &Shared) -> Option<usize> {
    let now = shared.now();
    shared.beats.iter().position(|beat| now.saturating_sub(beat.load(Ordering::Relaxed)) > HANGING)
}
