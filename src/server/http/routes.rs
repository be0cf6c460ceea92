//! The table of routes of each listener.

use crate::access::{Action, Grant};
use crate::protocol::http::path::RelPath;
use crate::protocol::http::request::{Method, Request};

/// The folders of recordings: the only part of an origin's data that its listeners serve. No app may have such
/// a name.
pub(in crate::server) const RECORDINGS: [&str; 3] = ["hls", "mp4", "flv"];

/// What a request asks for. A new resource needs a line in [`Locked::wants`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::server) enum Resource<'a> {
    /// Whether the process is healthy and accepts work.
    Health,
    /// The list of streams.
    Streams,
    /// The list of recordings.
    Recordings,
    /// A live stream, by its name.
    Play(&'a str),
    /// A stream to publish, by its name.
    Push(&'a str),
    /// A browser's CORS preflight request.
    Preflight,
    /// A file of the role's folder, or an embedded page.
    File,
    /// An embedded page.
    Page,
    /// Not found.
    Missing,
}

/// What a request asks for, before it is known whether it may have it: [`Locked::open`] is the only way to it.
#[derive(Debug)]
pub(in crate::server) struct Locked<'a> {
    resource: Resource<'a>,
    path: &'a str,
}

/// What is to be authorised before a resource is given out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::server) enum Wants {
    /// Nothing: everyone may have it.
    Nothing,
    /// The list is cut down to the streams that the client may play.
    List,
    /// An action on a stream.
    Stream(Action, String),
}

impl<'a> Locked<'a> {
    /// What is to be authorised.
    pub(in crate::server) fn wants(&self) -> Wants {
        match self.resource {
            Resource::Health | Resource::Preflight | Resource::Page | Resource::Missing => Wants::Nothing,
            Resource::Streams | Resource::Recordings => Wants::List,
            Resource::Play(name) => Wants::Stream(Action::Play, name.to_owned()),
            Resource::Push(name) => Wants::Stream(Action::Publish, name.to_owned()),
            Resource::File => {
                let stream = RelPath::parse(self.path).ok().as_ref().and_then(stream_of);
                stream.map_or(Wants::Nothing, |stream| Wants::Stream(Action::Play, stream))
            }
        }
    }

    /// Whether it is a file, which a player asks for one after the other.
    pub(in crate::server) fn is_file(&self) -> bool {
        self.resource == Resource::File
    }

    /// The resource, if `ask` grants what it wants.
    ///
    /// # Errors
    /// The refusal of `ask`.
    pub(in crate::server) fn open<R>(
        self,
        ask: impl FnOnce(Action, &str) -> Result<Grant, R>,
    ) -> Result<(Resource<'a>, Grant), R> {
        match self.wants() {
            Wants::Nothing | Wants::List => Ok((self.resource, Grant::default())),
            Wants::Stream(action, stream) => Ok((self.resource, ask(action, &stream)?)),
        }
    }
}

/// The stream that a file of recordings belongs to, earlier takes included; `None` for other files.
pub(in crate::server) fn stream_of(path: &RelPath) -> Option<String> {
    let (kind, rest) = path.as_str().split_once('/')?;
    if !RECORDINGS.contains(&kind) {
        return None;
    }
    let folder = rest.rsplit_once('/').map_or("", |(folder, _)| folder);
    let folder = ["/output_merge", "/output_separate"]
        .iter()
        .find_map(|own| folder.strip_suffix(own))
        .unwrap_or(folder);
    let stream = folder.split('@').next().unwrap_or_default();
    Some(stream.to_owned())
}

/// Why a listener has no route for a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(in crate::server) enum Unroutable {
    /// The method is not known.
    #[error("The method is not known.")]
    Method,
    /// The method is known, but not allowed for this path.
    #[error("{} is not allowed here: {allowed} is.", method.name())]
    NotAllowed { method: Method, allowed: &'static str },
    /// The request has a body, and the resource takes none.
    #[error("This resource takes no body.")]
    Body,
}

impl Unroutable {
    pub(in crate::server) const fn status(self) -> u16 {
        match self {
            Self::Method => 501,
            Self::NotAllowed { .. } => 405,
            Self::Body => 413,
        }
    }
}

/// The routes of a listener.
#[derive(Debug)]
pub(in crate::server) struct Routes {
    /// Paths with a resource of their own.
    exact: &'static [(&'static str, Resource<'static>)],
    /// Whether streams may be pushed.
    pushes: bool,
    /// Whether `….flv` is a live stream.
    plays: bool,
    /// The resource under all other paths: [`Resource::File`], [`Resource::Page`] or [`Resource::Missing`].
    others: Resource<'static>,
    /// The text for a client that asks for a missing path.
    pub(in crate::server) hint: &'static str,
}

const HEALTH: (&str, Resource<'_>) = ("/healthz", Resource::Health);
const STREAMS: (&str, Resource<'_>) = ("/api/v1/streams", Resource::Streams);
const TAKES: (&str, Resource<'_>) = ("/api/v1/recordings", Resource::Recordings);
const LIVE_PLAYER: &str = "Nothing here. The live player is at /index.html.";

/// The origin's listener for streams.
pub(in crate::server) static STREAM_PORT: Routes = Routes {
    exact: &[HEALTH, STREAMS],
    pushes: true,
    plays: true,
    others: Resource::Page,
    hint: LIVE_PLAYER,
};
/// The origin's listener for pages and recordings.
pub(in crate::server) static WEB_PORT: Routes = Routes {
    exact: &[HEALTH, STREAMS, TAKES],
    pushes: true,
    plays: true,
    others: Resource::File,
    hint: LIVE_PLAYER,
};
/// The FLV gateway's listener.
pub(in crate::server) static FLV_GATEWAY: Routes = Routes {
    exact: &[HEALTH],
    pushes: false,
    plays: true,
    others: Resource::Missing,
    hint: "A gateway plays streams: ask for /app/name.flv.",
};
/// The file gateway's listener.
pub(in crate::server) static FILE_GATEWAY: Routes = Routes {
    exact: &[HEALTH, STREAMS, TAKES],
    pushes: false,
    plays: false,
    others: Resource::File,
    hint: LIVE_PLAYER,
};

impl Routes {
    /// The allowed methods, as the value of `Allow`.
    pub(in crate::server) const fn methods(&self) -> &'static str {
        if self.pushes { "GET, HEAD, POST, PUT, OPTIONS" } else { "GET, HEAD, OPTIONS" }
    }

    /// Finds what a request asks for.
    ///
    /// # Errors
    /// [`Unroutable`], with the status to answer.
    pub(in crate::server) fn find<'a>(&self, request: &'a Request) -> Result<Locked<'a>, Unroutable> {
        self.resource(request).map(|resource| Locked { resource, path: &request.path })
    }

    fn resource<'a>(&self, request: &'a Request) -> Result<Resource<'a>, Unroutable> {
        let path = request.path.as_str();
        if request.method == Method::Options {
            return Ok(Resource::Preflight);
        }
        // A WebSocket path with `.flv` is a play, one without is a push.
        let is_upgrade = request.headers.has_token("upgrade", "websocket");
        let is_push =
            matches!(request.method, Method::Post | Method::Put) || (is_upgrade && !path.ends_with(".flv"));
        if self.pushes && is_push {
            let name = path.trim_start_matches('/');
            return Ok(Resource::Push(name.strip_suffix(".flv").unwrap_or(name)));
        }
        match request.method {
            Method::Get | Method::Head => {}
            Method::Other => return Err(Unroutable::Method),
            method => return Err(Unroutable::NotAllowed { method, allowed: self.methods() }),
        }
        if request.has_body() {
            return Err(Unroutable::Body);
        }
        if let Some((_, resource)) = self.exact.iter().find(|(exact, _)| *exact == path) {
            return Ok(*resource);
        }
        let recorded = self.others == Resource::File && is_recording(path);
        match path.strip_suffix(".flv") {
            Some(name) if self.plays && !recorded => Ok(Resource::Play(name.trim_start_matches('/'))),
            _ => Ok(self.others),
        }
    }
}

/// Whether a path is below a folder of recordings.
fn is_recording(path: &str) -> bool {
    RelPath::parse(path).is_ok_and(|path| RECORDINGS.contains(&path.first()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::http::request::{RequestLimits, RequestReader};

    fn request(line: &str, fields: &str) -> Request {
        let text = format!("{line} HTTP/1.1\r\nHost: x\r\n{fields}\r\n");
        RequestReader::new(RequestLimits::new(4096)).push(text.as_bytes()).unwrap().unwrap()
    }

    #[test]
    fn each_listener_has_its_own_routes() {
        let found = |routes: &Routes, line: &str| {
            format!("{:?}", routes.resource(&request(line, "")).map_err(Unroutable::status))
        };
        for (line, stream, web, gateway, files) in [
            ("GET /healthz", "Ok(Health)", "Ok(Health)", "Ok(Health)", "Ok(Health)"),
            ("GET /api/v1/streams", "Ok(Streams)", "Ok(Streams)", "Ok(Missing)", "Ok(Streams)"),
            ("GET /api/v1/recordings", "Ok(Page)", "Ok(Recordings)", "Ok(Missing)", "Ok(Recordings)"),
            (
                "GET /live/a.flv",
                "Ok(Play(\"live/a\"))",
                "Ok(Play(\"live/a\"))",
                "Ok(Play(\"live/a\"))",
                "Ok(File)",
            ),
            (
                "HEAD /flv/live/a/index.flv",
                "Ok(Play(\"flv/live/a/index\"))",
                "Ok(File)",
                "Ok(Play(\"flv/live/a/index\"))",
                "Ok(File)",
            ),
            ("POST /live/a", "Ok(Push(\"live/a\"))", "Ok(Push(\"live/a\"))", "Err(405)", "Err(405)"),
            ("PUT /live/a.flv", "Ok(Push(\"live/a\"))", "Ok(Push(\"live/a\"))", "Err(405)", "Err(405)"),
            ("DELETE /live/a", "Err(405)", "Err(405)", "Err(405)", "Err(405)"),
            ("BREW /live/a", "Err(501)", "Err(501)", "Err(501)", "Err(501)"),
            ("OPTIONS /live/a", "Ok(Preflight)", "Ok(Preflight)", "Ok(Preflight)", "Ok(Preflight)"),
            ("GET /index.html", "Ok(Page)", "Ok(File)", "Ok(Missing)", "Ok(File)"),
        ] {
            let all =
                [&STREAM_PORT, &WEB_PORT, &FLV_GATEWAY, &FILE_GATEWAY].map(|routes| found(routes, line));
            assert_eq!(all, [stream, web, gateway, files], "{line}");
        }
    }

    #[test]
    fn a_websocket_plays_with_the_flv_suffix_and_pushes_without() {
        let upgrade = "Upgrade: websocket\r\nConnection: Upgrade\r\n";
        let found = |path: &str| {
            WEB_PORT
                .resource(&request(&format!("GET {path}"), upgrade))
                .is_ok_and(|found| found == Resource::Push("live/a"))
        };
        assert!(found("/live/a") && !found("/live/a.flv"));
    }

    /// Every way to a stream, on every listener, asks for the right to it; what asks for none is listed here.
    #[test]
    fn every_route_asks_for_the_right_to_its_stream() {
        let listeners = [&STREAM_PORT, &WEB_PORT, &FLV_GATEWAY, &FILE_GATEWAY];
        let wants = |line: &str, fields: &str| {
            listeners.map(|routes| routes.find(&request(line, fields)).ok().map(|locked| locked.wants()))
        };
        let stream = |action| Some(Wants::Stream(action, "live/a".to_owned()));
        let (play, publish, free) = (stream(Action::Play), stream(Action::Publish), Some(Wants::Nothing));
        let upgrade = "Upgrade: websocket\r\nConnection: Upgrade\r\n";
        for method in ["GET", "HEAD"] {
            for fields in ["", upgrade] {
                let found = wants(&format!("{method} /live/a.flv"), fields);
                assert_eq!(found[..3], [&play, &play, &play].map(Clone::clone), "{method} {fields}");
            }
        }
        for (line, fields) in [("POST /live/a", ""), ("PUT /live/a.flv", ""), ("GET /live/a", upgrade)] {
            assert_eq!(wants(line, fields)[..2], [publish.clone(), publish.clone()], "{line}");
        }
        for path in [
            "hls/live/a/index.m3u8",
            "hls/live/a/segment_1.ts",
            "hls//live/a//segment_1.ts",
            "hls/live/a@20261121T091545Z/index.m3u8",
            "mp4/live/a/output_merge/a_full.mp4",
            "mp4/live/a/output_separate/video_3.m4s",
            "mp4/live/a@20261121T091545Z/output_merge/init.mp4",
            "mp4/live/a/poster.jpg",
            "flv/live/a/index.flv",
            "flv/live/a@20261121T091545Z/index.flv",
            "h%6cs/live/a/index.m3u8",
            "~token/hls/live/a/index.m3u8",
        ] {
            let found = wants(&format!("GET /{path}"), "");
            assert_eq!([&found[1], &found[3]], [&play, &play], "{path}");
        }
        for path in ["hls/index.m3u8", "mp4/a_full.mp4", "flv/index.flv"] {
            let nameless = Some(Wants::Stream(Action::Play, String::new()));
            assert_eq!(wants(&format!("GET /{path}"), "")[3], nameless, "{path}");
        }
        for list in ["/api/v1/streams", "/api/v1/recordings"] {
            assert_eq!(wants(&format!("GET {list}"), "")[1], Some(Wants::List), "{list}");
        }
        for line in ["GET /healthz", "GET /index.html", "OPTIONS /live/a", "GET /", "GET /hls", "GET /hls/"] {
            assert_eq!(wants(line, ""), [&free; 4].map(Clone::clone), "{line}");
        }
        // Every resource of the tables is one of those above.
        for routes in listeners {
            for (path, _) in routes.exact {
                assert!(
                    ["/healthz", "/api/v1/streams", "/api/v1/recordings"].contains(path),
                    "{path} is not tried"
                );
            }
        }
    }

    #[test]
    fn only_a_push_may_have_a_body() {
        let with = |line: &str, fields: &str| STREAM_PORT.find(&request(line, fields)).map(|_| ());
        assert_eq!(with("GET /index.html", "Content-Length: 1\r\n"), Err(Unroutable::Body));
        assert_eq!(with("GET /index.html", "Content-Length: 0\r\n"), Ok(()));
        assert_eq!(with("POST /live/a", "Transfer-Encoding: chunked\r\n"), Ok(()));
    }
}
