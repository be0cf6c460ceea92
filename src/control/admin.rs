//! The admin listener: metrics, health, the API and the status page. Loopback by default.

mod guard;
mod operator;

use std::rc::Rc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use tokio_uring::net::{TcpListener, TcpStream};
use tracing::warn;

use super::Control;
use crate::protocol::http::BodyLength;
use crate::protocol::http::request::{Method, Request, RequestLimits, RequestReader};
use crate::protocol::http::response::Head;
use crate::server::shared::{Phase, Shared};
use crate::server::{operator_page, streams_json};
use guard::{Denied, Guard};

const READ: usize = 8 << 10;
const HEAD_MAX: usize = 16 << 10;
/// Connections at a time.
const CONNECTIONS_MAX: usize = 64;
/// How long a peer may be silent.
const IDLE: Duration = Duration::from_secs(30);
/// A loop that has not swept for so long hangs.
const HANGING: u64 = 10_000;

/// What the status page may do here: only its own, and in nobody's frame, where clicks could be led to it.
const POLICY: &str = "default-src 'self'; img-src 'self' data:; object-src 'none'; base-uri 'none'; \
     form-action 'self'; frame-ancestors 'none'";

/// Accepts and answers, for ever.
pub(super) async fn serve(listener: std::net::TcpListener, control: Rc<Control>) {
    let token = control.server.shared.config.admin_token.clone();
    let guard = match listener.local_addr() {
        Ok(address) => Rc::new(Guard::new(token, address.ip())),
        Err(error) => return warn!(%error, "no admin listener"),
    };
    let listener = TcpListener::from_std(listener);
    let busy = Rc::new(());
    loop {
        match listener.accept().await {
            Ok((stream, _)) if Rc::strong_count(&busy) <= CONNECTIONS_MAX => {
                let (control, guard, busy) = (Rc::clone(&control), Rc::clone(&guard), Rc::clone(&busy));
                tokio_uring::spawn(async move {
                    let _busy = busy;
                    // A read under way cannot be taken back: shutting the socket down ends it.
                    talk(&stream, &control, &guard).await;
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
async fn talk(stream: &TcpStream, control: &Control, guard: &Guard) {
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
                Ok(Some(request)) => {
                    let bodiless = matches!(request.body_length(), BodyLength::None | BodyLength::Length(0));
                    let stays = request.keep_alive() && bodiless;
                    (answer(&request, control, guard).await.encode(&request, stays), stays)
                }
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

/// What is asked for.
enum Resource<'a> {
    /// What everybody may read.
    Open(Reply),
    /// The list of viewers.
    Viewers,
    Viewer(&'a str),
    Stream(&'a str),
}

async fn answer(request: &Request, control: &Control, guard: &Guard) -> Reply {
    let shared = &control.server.shared;
    let resource = find(request, control, guard);
    let (methods, allowed): (&[Method], _) = match resource {
        Resource::Open(_) | Resource::Viewers => (&[Method::Get, Method::Head], "GET, HEAD"),
        Resource::Viewer(_) | Resource::Stream(_) => (&[Method::Delete], "DELETE"),
    };
    if !methods.contains(&request.method) {
        return operator::said(405, &format!("Allowed here: {allowed}.")).field("Allow", allowed);
    }
    if !matches!(resource, Resource::Open(_))
        && let Err(denied) = guard.check(request)
    {
        let reply = operator::said(denied.status(), &denied.to_string());
        return if denied == Denied::Token { reply.field("WWW-Authenticate", "Bearer") } else { reply };
    }
    match resource {
        Resource::Open(reply) => reply,
        Resource::Viewers => operator::list(shared, request).await,
        Resource::Viewer(id) => operator::kick(shared, id).await,
        Resource::Stream(name) => operator::kick_publisher(shared, name).await,
    }
}

fn find<'a>(request: &'a Request, control: &Control, guard: &Guard) -> Resource<'a> {
    let shared = &control.server.shared;
    if let Some(id) = request.path.strip_prefix("/api/v1/viewers/") {
        return Resource::Viewer(id);
    }
    if let Some(name) = request.path.strip_prefix("/api/v1/streams/") {
        return Resource::Stream(name);
    }
    Resource::Open(match request.path.as_str() {
        "/metrics" => {
            let kind = "text/plain; version=0.0.4; charset=utf-8";
            Reply::new(200, kind, control.metrics.render(shared)).for_all()
        }
        "/livez" => match hanging_loop(shared) {
            None => Reply::new(200, TEXT, "ok\n").for_all(),
            Some(index) => Reply::new(503, TEXT, format!("loop {index} hangs\n")).for_all(),
        },
        "/readyz" => match shared.phase() {
            Phase::Ready => Reply::new(200, TEXT, "ready\n").for_all(),
            Phase::Starting => Reply::new(503, TEXT, "starting\n").for_all(),
            Phase::Draining => Reply::new(503, TEXT, "draining\n").for_all(),
        },
        "/api/v1/streams" => {
            let json = streams_json(shared, Some(guard.access.name()));
            Reply::new(200, "application/json", json).for_all()
        }
        "/api/v1/viewers" => return Resource::Viewers,
        path => match operator_page(path) {
            Some((kind, body)) => Reply::new(200, kind, body).field("Content-Security-Policy", POLICY),
            None => operator::said(
                404,
                "There are /status.html, /metrics, /livez, /readyz, /api/v1/streams and /api/v1/viewers.",
            ),
        },
    })
}

const TEXT: &str = "text/plain; charset=utf-8";

/// An answer before it is written.
struct Reply {
    status: u16,
    kind: &'static str,
    body: Bytes,
    field: Option<(&'static str, &'static str)>,
    /// Pages of any site may read it.
    for_all: bool,
}

impl Reply {
    fn new(status: u16, kind: &'static str, body: impl Into<Bytes>) -> Self {
        Self { status, kind, body: body.into(), field: None, for_all: false }
    }

    fn field(self, name: &'static str, value: &'static str) -> Self {
        Self { field: Some((name, value)), ..self }
    }

    fn for_all(self) -> Self {
        Self { for_all: true, ..self }
    }

    fn encode(self, request: &Request, stays: bool) -> Vec<u8> {
        let mut head = Head::new(self.status)
            .header("Cache-Control", "no-store")
            .header("X-Content-Type-Options", "nosniff");
        if self.status != 204 {
            head = head.header("Content-Type", self.kind).header("Content-Length", self.body.len());
        }
        if let Some((name, value)) = self.field {
            head = head.header(name, value);
        }
        if self.for_all {
            head = head.cors();
        }
        let mut page = head.connection(stays).encode();
        if request.method != Method::Head {
            page.extend_from_slice(&self.body);
        }
        page
    }
}

/// A loop that has not swept for long, if there is one.
pub(super) fn hanging_loop(shared: &Shared) -> Option<usize> {
    let now = shared.now();
    shared.beats.iter().position(|beat| now.saturating_sub(beat.load(Ordering::Relaxed)) > HANGING)
}
