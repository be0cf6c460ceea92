//! The admin listener: `/metrics`, `/livez`, `/readyz`, `/api/v1/streams`. Loopback by default.

use std::rc::Rc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio_uring::net::{TcpListener, TcpStream};
use tracing::warn;

use super::Control;
use crate::protocol::http::error_page;
use crate::protocol::http::request::{Method, Request, RequestLimits, RequestReader};
use crate::protocol::http::response::Head;
use crate::server::shared::{Phase, Shared};
use crate::server::streams_json;

const READ: usize = 8 << 10;
const HEAD_MAX: usize = 16 << 10;
/// Connections at a time.
const CONNECTIONS_MAX: usize = 64;
/// How long a peer may be silent.
const IDLE: Duration = Duration::from_secs(30);
/// A loop that has not swept for so long hangs.
const HANGING: u64 = 10_000;

const METHODS: &str = "GET, HEAD";

/// Accepts and answers, for ever.
pub(super) async fn serve(listener: std::net::TcpListener, control: Rc<Control>) {
    let listener = TcpListener::from_std(listener);
    let busy = Rc::new(());
    loop {
        match listener.accept().await {
            Ok((stream, _)) if Rc::strong_count(&busy) <= CONNECTIONS_MAX => {
                let (control, busy) = (Rc::clone(&control), Rc::clone(&busy));
                tokio_uring::spawn(async move {
                    let _busy = busy;
                    // A read under way cannot be taken back: shutting the socket down ends it.
                    talk(&stream, &control).await;
                    let _ = stream.shutdown(std::net::Shutdown::Both);
                });
            }
            Ok(_) => {}
            Err(error) => {
                warn!(%error, "the admin listener cannot accept");
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
        }
    }
}

/// Answers the requests of one connection.
async fn talk(stream: &TcpStream, control: &Control) {
    let mut reader = RequestReader::new(RequestLimits::new(HEAD_MAX));
    let mut buffer = vec![0; READ];
    loop {
        let (result, returned) = read(stream, buffer).await;
        let Ok(len @ 1..) = result else { return };
        buffer = returned;
        let mut bytes = &buffer[..len];
        loop {
            let (page, stays) = match reader.push(std::mem::take(&mut bytes)) {
                Ok(None) => break,
                Ok(Some(request)) => (answer(&request, control), request.keep_alive()),
                Err(error) => (error.page(), false),
            };
            if stream.write_all(page).await.0.is_err() || !stays {
                return;
            }
        }
    }
}

/// Reads, but not for ever.
async fn read(stream: &TcpStream, buffer: Vec<u8>) -> (std::io::Result<usize>, Vec<u8>) {
    let mut reading = std::pin::pin!(stream.read(buffer));
    tokio::select! {
        done = &mut reading => done,
        () = tokio::time::sleep(IDLE) => {
            let _ = stream.shutdown(std::net::Shutdown::Both);
            reading.await
        }
    }
}

fn answer(request: &Request, control: &Control) -> Vec<u8> {
    if let Err(error) = request.allow(&[Method::Get, Method::Head], METHODS) {
        return error.page();
    }
    let shared = &control.server.shared;
    match request.path.as_str() {
        "/metrics" => {
            let page = control.metrics.render(shared);
            reply(request, 200, "text/plain; version=0.0.4; charset=utf-8", &page)
        }
        "/livez" => match hanging_loop(shared) {
            None => reply(request, 200, TEXT, "ok\n"),
            Some(index) => reply(request, 503, TEXT, &format!("loop {index} hangs\n")),
        },
        "/readyz" => match shared.phase() {
            Phase::Ready => reply(request, 200, TEXT, "ready\n"),
            Phase::Starting => reply(request, 503, TEXT, "starting\n"),
            Phase::Draining => reply(request, 503, TEXT, "draining\n"),
        },
        "/api/v1/streams" => reply(request, 200, "application/json", &streams_json(shared)),
        _ => {
            let message = "There are /metrics, /livez, /readyz and /api/v1/streams.";
            error_page(404, message, request.method == Method::Head, request.keep_alive())
        }
    }
}

const TEXT: &str = "text/plain; charset=utf-8";

fn reply(request: &Request, status: u16, kind: &str, body: &str) -> Vec<u8> {
    let mut page = Head::new(status)
        .header("Content-Type", kind)
        .header("Content-Length", body.len())
        .header("Cache-Control", "no-store")
        .cors()
        .connection(request.keep_alive())
        .encode();
    if request.method != Method::Head {
        page.extend_from_slice(body.as_bytes());
    }
    page
}

/// A loop that has not swept for long, if there is one.
pub(super) fn hanging_loop(shared: &Shared) -> Option<usize> {
    let now = shared.now();
    shared.beats.iter().position(|beat| now.saturating_sub(beat.load(Ordering::Relaxed)) > HANGING)
}
