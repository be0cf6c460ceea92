//! The admin listener: metrics, health, the API and the status page. Loopback by default.
//!
//! It stays on the side thread, so that it answers while a loop hangs. What is asked for, and whether it may be, is
//! decided by plain functions (`route`); here are only the sockets.

mod connections;
mod guard;
mod operator;
mod reply;
mod route;

use std::net::Shutdown;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio_uring::buf::BoundedBuf;
use tokio_uring::net::{TcpListener, TcpStream};
use tracing::warn;

use super::metrics::Metrics;
use crate::protocol::http::BodyLength;
use crate::protocol::http::request::{Request, RequestLimits, RequestReader};
use crate::server::shared::Shared;
use connections::{Connections, Entry};
use guard::Guard;
use reply::Reply;
use route::{Ask, route};

const READ: usize = 8 << 10;
const HEAD_MAX: usize = 16 << 10;
/// Bytes of one write: a peer has [`WRITE_TIME`] for each.
const WRITE: usize = 64 << 10;
const WRITE_TIME: Duration = Duration::from_secs(10);
/// How long a peer may take for its next request.
const REQUEST_TIME: Duration = Duration::from_secs(30);
/// A loop that has not swept for so long hangs.
const HANGING: u64 = 10_000;

/// What requests ask about.
struct Asked {
    shared: Arc<Shared>,
    metrics: Metrics,
}

/// Accepts and answers, for ever.
pub(super) async fn serve(listener: std::net::TcpListener, shared: Arc<Shared>, metrics: Metrics) {
    let config = &shared.config;
    let (token, hosts) = (config.admin_token.clone(), config.admin_hosts.clone());
    let guard = match listener.local_addr() {
        Ok(address) => Rc::new(Guard::new(token, hosts, address.ip())),
        Err(error) => return warn!(%error, "no admin listener"),
    };
    let listener = TcpListener::from_std(listener);
    let connections = Rc::new(Connections::default());
    let asked = Rc::new(Asked { shared, metrics });
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                let stream = Rc::new(stream);
                let (entry, idlest) = connections.add(Rc::clone(&stream), Instant::now());
                // Its task notices, and ends.
                idlest.inspect(|idlest| shut_down(idlest));
                let (asked, guard) = (Rc::clone(&asked), Rc::clone(&guard));
                tokio_uring::spawn(async move {
                    // A read under way cannot be taken back: shutting the socket down ends it.
                    talk(&stream, &asked, &guard, &entry).await;
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

/// Answers the requests of one connection.
async fn talk(stream: &TcpStream, asked: &Asked, guard: &Guard, entry: &Entry<TcpStream>) {
    let mut reader = RequestReader::new(RequestLimits::new(HEAD_MAX));
    let mut buffer = vec![0; READ];
    let mut until = Instant::now() + REQUEST_TIME;
    loop {
        let (result, returned) = before(stream, until, stream.read(buffer)).await;
        let Ok(len @ 1..) = result else { return };
        buffer = returned;
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
    }
}

/// Writes an answer; false where the peer takes too long or has gone.
async fn write(stream: &TcpStream, head: Vec<u8>, body: &Bytes) -> bool {
    let mut page = head;
    let mut rest = body.clone();
    loop {
        // Head and the beginning of the body leave together.
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

/// Waits for an operation, and shuts the socket down where it takes too long.
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

/// A loop that has not swept for long, if there is one.
pub(super) fn hanging_loop(shared: &Shared) -> Option<usize> {
    let now = shared.now();
    shared.beats.iter().position(|beat| now.saturating_sub(beat.load(Ordering::Relaxed)) > HANGING)
}
