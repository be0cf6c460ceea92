//! Publishers that send FLV: in the body of a POST, or in the messages of a WebSocket.
//!
//! The name is claimed when the FLV header has come, not before: what turns out to be something else (like the
//! second POST with which ffmpeg wants to mend the header of its first one) takes nobody's place.

use bytes::Bytes;

use super::super::conn::{Conn, Fate, Kind};
use super::super::shared::Phase;
use super::super::worker::Worker;
use super::{Claimed, Ingest, Publisher, Wish, publisher_of, tag_max};
use crate::live::directory::PublishError;
use crate::live::key::StreamKey;
use crate::protocol::http::error_page;
use crate::protocol::http::request::Request;
use crate::protocol::http::response::{CONTINUE, Head};
use crate::protocol::push::{FlvPush, PushError, PushEvent};
use crate::protocol::ws;
use crate::uring::Engine;

/// What may come in while the name is not free yet.
const HELD_MAX: usize = 16 << 20;

/// Why a push is over.
#[derive(Debug)]
enum Stop {
    /// It was sent to its end.
    Done,
    Wrong(PushError),
    Refused(String),
    /// Of our own doing.
    Failed(String),
}

impl Stop {
    fn last_words(&self, websocket: bool) -> Bytes {
        let (status, code, text) = match self {
            Self::Done if websocket => return close(ws::code::NORMAL, ""),
            Self::Done => {
                return Head::new(200).header("Content-Length", 0).cors().connection(false).encode().into();
            }
            Self::Wrong(error) => (error.status(), error.close_code(), error.to_string()),
            Self::Refused(reason) => (409, ws::code::POLICY, reason.clone()),
            Self::Failed(reason) => (503, ws::code::INTERNAL, reason.clone()),
        };
        if websocket { close(code, &text) } else { page(status, &text) }
    }
}

pub(super) fn close(code: u16, reason: &str) -> Bytes {
    ws::close_frame(code, reason).into()
}

pub(super) fn page(status: u16, text: &str) -> Bytes {
    error_page(status, text, false, false).into()
}

impl Publisher {
    fn push(&mut self) -> &mut FlvPush {
        let Ingest::Flv(push) = &mut self.ingest else { unreachable!("asked by kind") };
        push
    }
}

/// The reader of a pushed body, and what its peer is told before it sends that.
fn begin(request: &Request, tag_max: u32) -> Result<(FlvPush, Bytes), Bytes> {
    if let Some(key) = request.websocket_key().map_err(|error| Bytes::from(error.page()))? {
        return Ok((FlvPush::websocket(tag_max), ws::upgrade_response(&key, None).into()));
    }
    let push = FlvPush::http(request.body_length(), tag_max);
    let push = push.ok_or_else(|| page(411, "A push is a body of FLV, chunked or of a known length."))?;
    let go_on = if request.expects_continue() { CONTINUE } else { b"" };
    Ok((push, Bytes::from_static(go_on)))
}

impl<E: Engine> Worker<E> {
    /// A POST, or a WebSocket upgrade where nothing is played: a push begins.
    pub(in crate::server) fn answer_push(&mut self, conn: &mut Conn, request: &Request) -> Fate {
        let (push, greeting) = match begin(request, tag_max(&self.shared.config)) {
            Ok(begun) => begun,
            Err(page) => return self.say_last(conn, page),
        };
        let wish = match self.push_wish(conn, request) {
            Ok(wish) => wish,
            // A page's script learns nothing of an upgrade that is refused: it is told in a close frame.
            Err((status, reason)) if push.is_websocket() => {
                let code = if status == 503 { ws::code::TRY_AGAIN } else { ws::code::POLICY };
                return self.say_last(conn, [greeting, close(code, &reason)].concat().into());
            }
            Err((status, reason)) => return self.say_last(conn, page(status, &reason)),
        };
        let Kind::Request(reader) = &mut conn.kind else { unreachable!("asked by kind") };
        let body = reader.take_rest();
        conn.kind = Kind::Publisher(Box::new(Publisher::new(Ingest::Flv(Box::new(push)), Some(wish))));
        match self.say(conn, greeting) {
            Fate::Keep => self.publisher_received(conn, &body),
            fate => fate,
        }
    }

    /// What a request wants to publish, or the status and the text with which it is refused at once.
    fn push_wish(&self, conn: &Conn, request: &Request) -> Result<Wish, (u16, String)> {
        if self.shared.phase() == Phase::Draining {
            return Err((503, "This server is going down; push to another one.".to_owned()));
        }
        let path = request.path.trim_start_matches('/');
        let name = path.strip_suffix(".flv").unwrap_or(path);
        let key = StreamKey::parse(name).map_err(|error| {
            self.refused(conn.role, conn.sock, name, &error.to_string());
            (400, error.to_string())
        })?;
        let token = request.query("token").map(str::to_owned);
        let agent = request.header("user-agent").unwrap_or_default().to_owned();
        let wish = Wish { key, token, agent };
        let role = self.role(conn.role);
        if role.directory.is_taken(&wish.key, &wish.claim(self.engine.now())) {
            let reason = PublishError::Taken.to_string();
            self.refused(conn.role, conn.sock, wish.key.as_str(), &reason);
            return Err((409, reason));
        }
        Ok(wish)
    }

    pub(super) fn flv_received(&mut self, conn: &mut Conn, data: &[u8]) -> Fate {
        let pushed = publisher_of(conn).push().push(data).map_err(Stop::Wrong);
        self.flv_events(conn, pushed)
    }

    /// The name that it waited for has been given up.
    pub(super) fn flv_claims(&mut self, conn: &mut Conn) -> Fate {
        let claimed = self.flv_claim(conn);
        self.flv_events(conn, claimed)
    }

    /// Writes what has come; `so_far`: whether it can go on behind that.
    fn flv_events(&mut self, conn: &mut Conn, so_far: Result<(), Stop>) -> Fate {
        let result = self.take_events(conn).and(so_far);
        let (role, sock, publisher) = (conn.role, conn.sock, publisher_of(conn));
        if let Some(writer) = &mut publisher.writer {
            self.announce(writer);
        }
        let pongs = publisher.push().take_output().unwrap_or_default();
        let Err(stop) = result else { return self.say(conn, pongs) };
        let websocket = publisher.push().is_websocket();
        match &stop {
            Stop::Done => self.end_publish(role, publisher, "it was sent to its end"),
            Stop::Refused(reason) => self.end_publish(role, publisher, reason),
            Stop::Failed(reason) => self.end_publish(role, publisher, reason),
            Stop::Wrong(error) => {
                self.counters[role].bad_peers.add(1);
                let reason = error.to_string();
                let name = publisher.wish.as_ref().map_or("", |wish| wish.key.as_str());
                self.refused(role, sock, name, &reason);
                self.end_publish(role, publisher, &reason);
            }
        }
        self.say_last(conn, [pongs, stop.last_words(websocket)].concat().into())
    }

    fn take_events(&mut self, conn: &mut Conn) -> Result<(), Stop> {
        loop {
            let publisher = publisher_of(conn);
            if publisher.waits {
                return match publisher.push().held() {
                    ..=HELD_MAX => Ok(()),
                    _ => Err(Stop::Refused(PublishError::Taken.to_string())),
                };
            }
            match publisher.push().next_event().map_err(Stop::Wrong)? {
                None => return Ok(()),
                Some(PushEvent::Begin) => self.flv_claim(conn)?,
                Some(PushEvent::End) => return Err(Stop::Done),
                Some(PushEvent::Tag(tag)) => {
                    let writer = publisher.writer.as_mut().expect("tags come behind the beginning");
                    let failed = |error| Stop::Failed(format!("no memory for its stream: {error}"));
                    writer.push(&tag).map_err(failed)?;
                }
            }
        }
    }

    fn flv_claim(&mut self, conn: &mut Conn) -> Result<(), Stop> {
        match self.claim(conn) {
            Claimed::Granted | Claimed::Soon => Ok(()),
            Claimed::Refused(reason) => Err(Stop::Refused(reason)),
        }
    }
}
