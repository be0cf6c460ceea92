//! What a request to the admin listener asks for, and whether it may: sans-IO.

use bytes::Bytes;

use super::guard::{Access, Denied, Guard};
use super::reply::{Reply, TEXT, said};
use crate::protocol::http::request::{Method, Request};
use crate::server::operator_page;
use crate::server::shared::Phase;

/// What the status page may do here: only its own, and in no frame of others, where clicks could be led to it.
const POLICY: &str = "default-src 'self'; img-src 'self' data:; object-src 'none'; base-uri 'none'; \
     form-action 'self'; frame-ancestors 'none'";
const JSON: &str = "application/json";
const PROMETHEUS: &str = "text/plain; version=0.0.4; charset=utf-8";

/// What is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ask<'a> {
    /// Everything that is counted.
    Metrics,
    /// The list of streams.
    Streams,
    /// Whether the loops live.
    Live,
    /// Whether connections are accepted.
    Ready,
    /// Both, for a balancer.
    Health,
    /// A page or what belongs to it.
    Page(&'a str),
    /// The list of viewers.
    Viewers,
    /// A viewer, by its id.
    Viewer(&'a str),
    /// A stream, by its name.
    Stream(&'a str),
}

impl<'a> Ask<'a> {
    fn of(path: &'a str) -> Self {
        if let Some(id) = path.strip_prefix("/api/v1/viewers/") {
            return Self::Viewer(id);
        }
        if let Some(name) = path.strip_prefix("/api/v1/streams/") {
            return Self::Stream(name);
        }
        match path {
            "/metrics" => Self::Metrics,
            "/livez" => Self::Live,
            "/readyz" => Self::Ready,
            "/healthz" => Self::Health,
            "/api/v1/streams" => Self::Streams,
            "/api/v1/viewers" => Self::Viewers,
            path => Self::Page(path),
        }
    }

    fn methods(self) -> (&'static [Method], &'static str) {
        match self {
            Self::Viewer(_) | Self::Stream(_) => (&[Method::Delete], "DELETE"),
            _ => (&[Method::Get, Method::Head], "GET, HEAD"),
        }
    }

    /// Whether it is for operators only.
    fn is_operators(self) -> bool {
        matches!(self, Self::Viewers | Self::Viewer(_) | Self::Stream(_))
    }
}

/// What a request asks for.
///
/// # Errors
/// The answer to one that may not have it, or asks in the wrong way.
pub(super) fn route<'a>(request: &'a Request, guard: &Guard) -> Result<Ask<'a>, Reply> {
    let ask = Ask::of(&request.path);
    guard.check_open(request).map_err(denied)?;
    let (methods, allowed) = ask.methods();
    if !methods.contains(&request.method) {
        return Err(said(405, &format!("Allowed here: {allowed}.")).field("Allow", allowed));
    }
    if ask.is_operators() {
        guard.check(request).map_err(denied)?;
    }
    Ok(ask)
}

fn denied(denied: Denied) -> Reply {
    let reply = said(denied.status(), &denied.to_string());
    if denied == Denied::Token { reply.field("WWW-Authenticate", "Bearer") } else { reply }
}

/// `/livez`: 503 where a loop hangs.
pub(super) fn live(hanging: Option<usize>) -> Reply {
    match hanging {
        None => Reply::new(200, TEXT, "ok\n"),
        Some(index) => Reply::new(503, TEXT, format!("loop {index} hangs\n")),
    }
}

/// `/readyz`: 503 where connections are not accepted, or no upstream of a gateway answers.
pub(super) fn ready(phase: Phase, upstreams_down: bool) -> Reply {
    match phase {
        Phase::Ready if upstreams_down => Reply::new(503, TEXT, "no upstream answers\n"),
        Phase::Ready => Reply::new(200, TEXT, "ready\n"),
        Phase::Starting => Reply::new(503, TEXT, "starting\n"),
        Phase::Draining => Reply::new(503, TEXT, "draining\n"),
    }
}

/// `/healthz`: 200 where the loops live and connections are accepted.
pub(super) fn health(hanging: Option<usize>, phase: Phase) -> Reply {
    let reply = live(hanging);
    if reply.status == 200 { ready(phase, false) } else { reply }
}

/// `/metrics`.
pub(super) fn metrics(text: String) -> Reply {
    Reply::new(200, PROMETHEUS, text)
}

/// `/api/v1/streams`: the listing, with what operators have to show here in front.
pub(super) fn streams(listing: &Bytes, access: Access) -> Reply {
    let members = listing.strip_prefix(b"{").unwrap_or_default();
    let front = format!("{{\"operator\":\"{}\"{}", access.name(), if members == b"}" { "" } else { "," });
    Reply::new(200, JSON, [front.as_bytes(), members].concat())
}

/// A page, or 404.
pub(super) fn page(path: &str) -> Reply {
    match operator_page(path) {
        Some((kind, body)) => Reply::new(200, kind, body).field("Content-Security-Policy", POLICY),
        None => said(
            404,
            "There are /status.html, /metrics, /livez, /readyz, /healthz, /api/v1/streams and /api/v1/viewers.",
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::http::request::{RequestLimits, RequestReader};

    fn guard() -> Guard {
        Guard::new("".parse().unwrap(), Vec::new(), "127.0.0.1".parse().unwrap())
    }

    fn request(line: &str, host: &str) -> Request {
        let mut reader = RequestReader::new(RequestLimits::new(4096));
        reader.push(format!("{line} HTTP/1.1\r\nHost: {host}\r\n\r\n").as_bytes()).unwrap().unwrap()
    }

    #[test]
    fn each_path_has_its_methods() {
        let status = |line: &str| {
            route(&request(line, "127.0.0.1"), &guard()).map_or_else(|reply| reply.status, |_| 200)
        };
        for (line, want) in [
            ("GET /metrics", 200),
            ("HEAD /healthz", 200),
            ("POST /metrics", 405),
            ("OPTIONS /api/v1/streams", 405),
            ("GET /api/v1/viewers", 200),
            ("DELETE /api/v1/viewers/x", 200),
            ("GET /api/v1/viewers/x", 405),
            ("DELETE /api/v1/streams/a/b", 200),
            ("DELETE /status.html", 405),
        ] {
            assert_eq!(status(line), want, "{line}");
        }
    }

    #[test]
    fn nothing_is_answered_under_a_name_of_others() {
        for path in [
            "/",
            "/status.html",
            "/metrics",
            "/livez",
            "/healthz",
            "/api/v1/streams",
            "/api/v1/viewers",
            "/none",
        ] {
            let refused = route(&request(&format!("GET {path}"), "evil.example:9935"), &guard()).unwrap_err();
            assert_eq!(refused.status, 403, "{path}");
        }
    }

    #[test]
    fn no_page_of_another_site_may_read_an_answer() {
        let ask = request("GET /metrics", "127.0.0.1");
        let listing = Bytes::from_static(b"{}");
        let replies = [
            metrics(String::new()),
            live(None),
            ready(Phase::Ready, false),
            streams(&listing, Access::Open),
            page("/status.html"),
        ];
        for reply in replies {
            let (head, _) = reply.encode(&ask, true);
            assert!(!String::from_utf8(head).unwrap().to_ascii_lowercase().contains("access-control"));
        }
    }

    #[test]
    fn health_is_503_while_draining_or_hung() {
        let status = |hanging, phase| health(hanging, phase).status;
        assert_eq!(status(None, Phase::Ready), 200);
        assert_eq!(status(Some(1), Phase::Ready), 503);
        assert_eq!((status(None, Phase::Draining), status(None, Phase::Starting)), (503, 503));
        assert_eq!(&health(Some(1), Phase::Draining).body[..], b"loop 1 hangs\n");
    }

    #[test]
    fn the_listing_says_what_operators_have_to_show() {
        let body =
            |listing: &'static str| streams(&Bytes::from_static(listing.as_bytes()), Access::Token).body;
        assert_eq!(&body("{\"role\":\"origin\"}")[..], br#"{"operator":"token","role":"origin"}"#);
        assert_eq!(&body("{}")[..], br#"{"operator":"token"}"#);
    }
}
