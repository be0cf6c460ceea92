//! From a request to a viewer, and back when there is no stream.

use std::sync::Arc;

use bytes::Bytes;
use tracing::{debug, info};

use super::conn::{Conn, Fate, Kind, Watching};
use super::fanout::ViewerId;
use super::rtmp::rtmp_of;
use super::viewer::{Farewell, Framing, Wish};
use super::worker::Worker;
use crate::live::cursor::StartAt;
use crate::live::key::StreamKey;
use crate::live::stream::{Selection, Stream};
use crate::live::timeline::StreamTime;
use crate::protocol::http::error_page;
use crate::protocol::ws;
use crate::uring::{Engine, Millis, Sock};

/// Bytes of nonsense that a viewer may send.
const NOISE_MAX: usize = 64 << 10;
/// A WebSocket viewer has nothing to say but control frames and short texts.
const WS_MESSAGE_MAX: u64 = 64 << 10;

/// What viewers are told at the end, where their protocol has words for it.
pub(super) const STREAM_ENDED: &str = "The stream has ended.";
const KICKED: &str = "An operator has ended this.";

/// A request for a stream.
#[derive(Clone, Debug)]
pub(super) struct Play {
    pub(super) key: StreamKey,
    pub(super) selection: Selection,
    /// Whether it wants the newest group of pictures at once.
    pub(super) gop: bool,
    /// It has seen what was before this time.
    pub(super) after: Option<StreamTime>,
    /// What it speaks.
    pub(super) via: Via,
    /// When it asked.
    pub(super) since: Millis,
    /// How long it waits for the stream.
    pub(super) patience: Millis,
    /// It wants the head of the answer only.
    pub(super) head_only: bool,
}

/// What a viewer speaks.
#[derive(Clone, Debug)]
pub(super) enum Via {
    Http,
    /// With the key of its upgrade.
    WebSocket(String),
    Rtmp,
}

impl Play {
    fn framing(&self) -> Framing {
        match self.via {
            Via::Http => Framing::Plain,
            Via::WebSocket(_) => Framing::WebSocket,
            Via::Rtmp => Framing::Rtmp,
        }
    }

    fn start(&self) -> StartAt {
        match self.after {
            Some(time) => StartAt::After(time),
            None if self.gop => StartAt::Newest,
            None => StartAt::NotBefore(0),
        }
    }
}

impl<E: Engine> Worker<E> {
    /// Puts a connection on its stream, or lets it wait for one.
    pub(super) fn play(&mut self, conn: &mut Conn, play: Play) -> Fate {
        if !conn.out.is_empty() {
            // Answers to earlier requests are under way, and the fan-out wants the socket for itself:
            // [`play_on`](Self::play_on) goes on behind them.
            self.deadline(conn.sock, self.request_time());
            conn.kind = Kind::Waiting(Box::new(play));
            return Fate::Keep;
        }
        let stream =
            self.role(conn.role).directory.get(&play.key).or_else(|| self.pull(conn.role, &play.key));
        match stream.filter(|stream| !stream.has_ended()) {
            Some(stream) => self.watch(conn, play, &stream),
            None => self.wait_for(conn, play),
        }
        Fate::Keep
    }

    fn watch(&mut self, conn: &mut Conn, play: Play, stream: &Arc<Stream>) {
        let (role, sock) = (conn.role, conn.sock);
        let policy = self.role(role).policy;
        let greeting = match &play.via {
            Via::Http => Bytes::new(),
            Via::WebSocket(key) => ws::upgrade_response(key, None).into(),
            Via::Rtmp => rtmp_of(conn).greeting(),
        };
        let wish = Wish {
            selection: play.selection,
            start: play.start(),
            framing: play.framing(),
            greeting,
            head_only: play.head_only,
            since: play.since,
        };
        let protocol = play.framing().protocol();
        let id = self.fanout.join(self.index, stream, (role, policy), sock, wish);
        self.counters[role].viewers[protocol as usize].add(1);
        let is_websocket = matches!(play.via, Via::WebSocket(_));
        let frames = is_websocket.then(|| Box::new(ws::FrameReader::new(WS_MESSAGE_MAX)));
        self.deadline(sock, play_time_left(&play, self.engine.now()));
        conn.kind = Kind::Viewer(id, Box::new(Watching { play, frames, noise: 0, relay: None }));
        self.fanout.welcome(&mut self.engine, id, &self.counters);
        if stream.has_ended() {
            // It ended before this loop was listed: no message will come.
            self.fanout.stream_ended(stream.id, 404, self.engine.now());
        }
        debug!(role = self.role(role).name, stream = stream.key.as_str(), "viewer came");
    }

    fn wait_for(&mut self, conn: &mut Conn, play: Play) {
        self.deadline(conn.sock, play_time_left(&play, self.engine.now()));
        self.waiting.entry((conn.role, play.key.clone())).or_default().push(conn.sock);
        conn.kind = Kind::Waiting(Box::new(play));
    }

    /// A connection does not wait any more.
    pub(super) fn forget_waiting(&mut self, role: usize, key: &StreamKey, sock: Sock) {
        let place = (role, key.clone());
        if let Some(socks) = self.waiting.get_mut(&place) {
            socks.retain(|other| *other != sock);
            if socks.is_empty() {
                self.waiting.remove(&place);
            }
        }
    }

    /// A stream has come: those who wait for it watch.
    pub(super) fn on_published(&mut self, role: usize, stream: &Arc<Stream>) {
        let Some(socks) = self.waiting.remove(&(role, stream.key.clone())) else { return };
        for sock in socks {
            self.with(sock, |worker, conn| match &conn.kind {
                Kind::Waiting(play) => {
                    let play = play.as_ref().clone();
                    worker.play(conn, play)
                }
                _ => Fate::Keep,
            });
        }
    }

    /// All that was said before has been sent: a request that was waiting for that goes on.
    pub(super) fn play_on(&mut self, conn: &mut Conn) -> Fate {
        let Kind::Waiting(play) = &conn.kind else { return self.relay_on(conn) };
        let play = Play { since: self.engine.now(), ..play.as_ref().clone() };
        self.play(conn, play)
    }

    /// Answers a request for a stream that is not there.
    pub(super) fn refuse_play(&mut self, conn: &mut Conn, status: u16) -> Fate {
        let Kind::Waiting(play) = &conn.kind else { unreachable!("only those who wait are refused") };
        debug!(role = self.role(conn.role).name, stream = play.key.as_str(), status, "refused a viewer");
        let message = no_such_stream(&play.key, status);
        let last = match &mut conn.rtmp {
            Some(peer) => peer.refusal(&message),
            None => error_page(status, &message, play.head_only, false).into(),
        };
        self.say_last(conn, last)
    }

    /// The fan-out has let a viewer go: says goodbye as its protocol does, or lets it wait again.
    pub(super) fn farewell(&mut self, conn: &mut Conn, id: ViewerId, farewell: Farewell) -> Fate {
        let (role, sock) = (conn.role, conn.sock);
        let Kind::Viewer(_, watching) = &conn.kind else { unreachable!("asked by kind") };
        let play = watching.play.clone();
        self.counters[role].farewell(farewell);
        if let Some(relay) = watching.relay {
            return self.forward_let_go(conn, id, relay, farewell);
        }
        match farewell {
            Farewell::NeverBegan(status) => {
                conn.rtmp.iter_mut().for_each(|peer| peer.was_not_greeted());
                self.viewer_left(role, id);
                conn.kind = Kind::Waiting(Box::new(play.clone()));
                if play_time_left(&play, self.engine.now()) == 0 {
                    return self.refuse_play(conn, status);
                }
                self.play(conn, play)
            }
            Farewell::Refused if conn.rtmp.is_some() => {
                let (stream, choice) = self.fanout.watched(id);
                self.viewer_left(role, id);
                self.rtmp_let_go(conn, &stream, choice)
            }
            Farewell::StreamEnded | Farewell::Refused | Farewell::Kicked => {
                let bytes = match (&mut conn.rtmp, farewell) {
                    (Some(peer), Farewell::Kicked) => peer.goodbye(KICKED),
                    (Some(peer), _) => peer.goodbye(STREAM_ENDED),
                    (None, Farewell::StreamEnded) => {
                        play.framing().goodbye(ws::code::NORMAL, "the stream has ended")
                    }
                    (None, Farewell::Kicked) if self.fanout.is_fresh(id) && matches!(play.via, Via::Http) => {
                        error_page(403, KICKED, play.head_only, false).into()
                    }
                    (None, Farewell::Kicked) => {
                        play.framing().goodbye(ws::code::POLICY, &farewell.to_string())
                    }
                    (None, _) => Bytes::new(),
                };
                self.viewer_left(role, id);
                conn.kind = Kind::Waiting(Box::new(play));
                self.say_last(conn, bytes)
            }
            Farewell::TooSlow | Farewell::Stalled | Farewell::Broken(_) => {
                let (role, peer) = (self.role(role).name, self.peer(sock));
                let reason = farewell.to_string();
                if !matches!(farewell, Farewell::Broken(_)) {
                    info!(role, peer, stream = play.key.as_str(), reason, "cut a viewer");
                }
                Fate::Close(reason)
            }
        }
    }

    /// A viewer's patience is over: without a first byte it is told that there is no stream.
    pub(super) fn viewer_deadline(&mut self, conn: &mut Conn) -> Fate {
        let Kind::Viewer(id, watching) = &conn.kind else { unreachable!("asked by kind") };
        let (id, play) = (*id, watching.play.clone());
        if self.fanout.is_kicked(id) {
            // It does not even take the rest of its tag.
            self.counters[conn.role].farewell(Farewell::Kicked);
            return Fate::Close(Farewell::Kicked.to_string());
        }
        if !self.fanout.is_waiting(id) {
            return Fate::Keep;
        }
        self.viewer_left(conn.role, id);
        conn.kind = Kind::Waiting(Box::new(play));
        let status = self.role(conn.role).source.absence();
        self.refuse_play(conn, status)
    }

    /// Takes a viewer out of the fan-out.
    pub(super) fn viewer_left(&mut self, role: usize, id: ViewerId) {
        let viewer = self.fanout.leave(&mut self.engine, self.index, id);
        self.counters[role].viewers[viewer.framing.protocol() as usize].sub(1);
    }

    /// Bytes from a viewer: nothing that matters over HTTP, control frames over WebSocket.
    pub(super) fn viewer_received(&mut self, conn: &mut Conn, data: &[u8]) -> Fate {
        let Kind::Viewer(id, watching) = &mut conn.kind else { unreachable!("asked by kind") };
        let id = *id;
        if let Some(relay) = watching.relay {
            return self.relay_received(conn, relay, data);
        }
        let Watching { frames, noise, .. } = &mut **watching;
        let Some(frames) = frames else {
            *noise += data.len();
            return too_noisy(*noise);
        };
        // Of several pings the newest is answered (RFC 6455, 5.5.3): the others would only cost.
        let (mut pong, mut close) = (None, None);
        let result = frames.push(data, &mut |event| match event {
            ws::Event::Ping(payload) => pong = Some(ws::pong_frame(payload)),
            ws::Event::Close { code, .. } => {
                close = Some(ws::close_frame(code.unwrap_or(ws::code::NORMAL), ""));
            }
            ws::Event::Data { bytes, .. } => *noise += bytes.len(),
            ws::Event::Pong(_) => {}
        });
        let fate = too_noisy(*noise);
        for (answer, last) in [(pong, false), (close, true)] {
            if let Some(answer) = answer {
                self.fanout.say(&mut self.engine, id, answer.into(), last, &self.counters);
            }
        }
        if let Err(error) = result {
            let bytes = ws::close_frame(error.close_code(), &error.to_string()).into();
            self.fanout.say(&mut self.engine, id, bytes, true, &self.counters);
            debug!(peer = self.peer(conn.sock), %error, "a viewer broke the WebSocket protocol");
        }
        fate
    }
}

/// What becomes of a viewer that has sent so many bytes that mean nothing.
fn too_noisy(bytes: usize) -> Fate {
    if bytes > NOISE_MAX {
        Fate::Refuse("it sends data where it should only read".to_owned())
    } else {
        Fate::Keep
    }
}

/// How long a request may still wait for its stream.
fn play_time_left(play: &Play, now: Millis) -> Millis {
    (play.since + play.patience).saturating_sub(now)
}

fn no_such_stream(key: &StreamKey, status: u16) -> String {
    match status {
        404 => format!("No stream {key} is live. Publish it, or look at /api/v1/streams for what there is."),
        _ => format!("The stream {key} cannot be had: no upstream answers. Try again soon."),
    }
}
