//! HTTP requests: what they ask for and what they get.

use bytes::Bytes;

use super::conn::{Conn, Fate, Kind};
use super::play::{Play, Via};
use super::shared::{Phase, Source};
use super::worker::Worker;
use super::{api, pages};
use crate::live::key::StreamKey;
use crate::live::stream::Selection;
use crate::protocol::http::request::{Method, Request};
use crate::protocol::http::response::{Head, preflight};
use crate::protocol::http::{BodyLength, error_page};
use crate::uring::{Engine, Millis};

/// What the resources here allow.
const METHODS: &str = "GET, HEAD, OPTIONS";
/// The same where streams may be pushed.
const METHODS_PUSH: &str = "GET, HEAD, POST, OPTIONS";
/// Pipelined requests that are answered at one go.
const PIPELINED_MAX: usize = 32;

impl<E: Engine> Worker<E> {
    pub(super) fn request_received(&mut self, conn: &mut Conn, data: &[u8]) -> Fate {
        if conn.out.last_words {
            return Fate::Keep; // answered; what follows means nothing
        }
        let mut data = data;
        for _ in 0..PIPELINED_MAX {
            let Kind::Request(reader) = &mut conn.kind else { return Fate::Keep };
            let request = match reader.push(std::mem::take(&mut data)) {
                Ok(Some(request)) => request,
                Ok(None) => return Fate::Keep,
                Err(error) => {
                    let (role, peer) = (self.role(conn.role).name, self.peer(conn.sock));
                    self.counters[conn.role].bad_peers.add(1);
                    tracing::warn!(role, peer, reason = %error, "refused a request");
                    return self.say_last(conn, error.page().into());
                }
            };
            let fate = self.answer(conn, &request);
            if fate != Fate::Keep || conn.out.last_words {
                return fate;
            }
        }
        Fate::Refuse("it pipelines too many requests".to_owned())
    }

    fn answer(&mut self, conn: &mut Conn, request: &Request) -> Fate {
        self.deadline(conn.sock, self.request_time());
        let is_origin = self.is_origin(conn.role);
        let methods = if is_origin { METHODS_PUSH } else { METHODS };
        if request.method == Method::Options {
            let asked = request.header("access-control-request-headers");
            let page = preflight(methods, asked, request.keep_alive());
            return self.reply(conn, request, page.into());
        }
        // A WebSocket without `.flv` is a push, with it a play.
        let is_upgrade = request.headers.has_token("upgrade", "websocket");
        if is_origin && (request.method == Method::Post || (is_upgrade && !request.path.ends_with(".flv"))) {
            return self.answer_push(conn, request);
        }
        if let Err(error) = request.allow(&[Method::Get, Method::Head], methods) {
            return self.say_last(conn, error.page().into());
        }
        if request.body_length() != BodyLength::None {
            return self.say_last(conn, error_page(413, "This resource takes no body.", false, false).into());
        }
        match (request.path.strip_suffix(".flv"), is_origin) {
            (Some(path), _) => self.answer_play(conn, request, path),
            (None, true) => {
                let page = self.page(request);
                self.reply(conn, request, page)
            }
            (None, false) => {
                let message = "A gateway plays streams: ask for /app/name.flv.";
                let page = self.missing(request, message);
                self.reply(conn, request, page)
            }
        }
    }

    fn is_origin(&self, role: usize) -> bool {
        matches!(self.role(role).source, Source::Publishers)
    }

    fn reply(&mut self, conn: &mut Conn, request: &Request, page: Bytes) -> Fate {
        if request.keep_alive() { self.say(conn, page) } else { self.say_last(conn, page) }
    }

    fn missing(&self, request: &Request, message: &str) -> Bytes {
        error_page(404, message, request.method == Method::Head, request.keep_alive()).into()
    }

    fn page(&self, request: &Request) -> Bytes {
        let (kind, body) = if request.path == "/api/v1/streams" {
            let body = self.shared.listing.fresh(self.shared.now());
            ("application/json", body.unwrap_or_else(|| api::streams_json(&self.shared).into()))
        } else if let Some((kind, body)) = pages::find(&request.path) {
            (kind, Bytes::from_static(body))
        } else {
            return self.missing(request, "Nothing here. The live player is at /index.html.");
        };
        let head = Head::new(200)
            .header("Content-Type", kind)
            .header("Content-Length", body.len())
            .header("Cache-Control", "no-cache")
            .header("Content-Security-Policy", pages::POLICY)
            .header("X-Content-Type-Options", "nosniff")
            .cors()
            .connection(request.keep_alive())
            .encode();
        if request.method == Method::Head { head.into() } else { [&head[..], &body[..]].concat().into() }
    }

    pub(super) fn answer_play(&mut self, conn: &mut Conn, request: &Request, path: &str) -> Fate {
        let key = match StreamKey::parse(path.trim_start_matches('/')) {
            Ok(key) => key,
            Err(error) => {
                return self.say_last(conn, error_page(400, &error.to_string(), false, false).into());
            }
        };
        let websocket = match request.websocket_key() {
            Ok(websocket) => websocket,
            Err(error) => return self.say_last(conn, error.page().into()),
        };
        let set = |name: &str| request.query(name).is_some_and(|value| value != "0" && value != "false");
        let selection = match (set("disableAudio"), set("disableVideo")) {
            (false, false) => Selection::All,
            (true, false) => Selection::Video,
            (false, true) => Selection::Audio,
            (true, true) => {
                let message = "Neither sound nor pictures: nothing is left to play.";
                return self.say_last(conn, error_page(400, message, false, false).into());
            }
        };
        let since = self.engine.now();
        let patience = self.patience(conn.role, request);
        let head_only = request.method == Method::Head;
        let via = websocket.map_or(Via::Http, Via::WebSocket);
        let (gop, after) = (!set("disableGop"), None);
        let play = Play { key, selection, gop, after, via, since, patience, head_only };
        if self.shared.phase() == Phase::Draining {
            let message = "This server is going down; ask another one.";
            return self.say_last(conn, error_page(503, message, false, false).into());
        }
        self.play(conn, play)
    }

    /// How long a request waits for its stream: as configured, or less if it prefers (RFC 7240, 4.3).
    fn patience(&self, role: usize, request: &Request) -> Millis {
        let wait = request.header("prefer").and_then(|prefer| prefer.trim().strip_prefix("wait="));
        let wished = wait.and_then(|seconds| seconds.parse::<u32>().ok()).map(|s| Millis::from(s) * 1000);
        self.role(role).wait.min(wished.unwrap_or(Millis::MAX))
    }
}
