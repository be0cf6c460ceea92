//! A connection that plays by HTTP or WebSocket: it waits, watches, and is told why it ends.

use bytes::Bytes;
use tracing::{debug, info};

use super::audience::{EXPIRED, KICKED, Seat, Viewers};
use super::play::{Play, Via};
use super::viewer::Farewell;
use crate::live::key::StreamKey;
use crate::protocol::http::error_page;
use crate::protocol::ws;
use crate::server::core::Core;
use crate::server::head::{ConnHead, Next};
use crate::server::limits::Refused;
use crate::server::log_limit::LineKind;
use crate::uring::{Engine, Millis};

/// The most bytes that a viewer may send although it should only read.
const NOISE_MAX: usize = 64 << 10;
/// The largest message of a WebSocket viewer, which sends only control frames and short texts.
const WS_MESSAGE_MAX: u64 = 64 << 10;

/// See the module.
#[derive(Debug)]
pub(in crate::server) struct Player {
    /// What it asked for.
    pub(in crate::server) play: Play,
    pub(in crate::server) seat: Seat,
    /// Reads its control frames.
    frames: Option<Box<ws::FrameReader>>,
    /// Bytes that it sent although it should only read.
    noise: usize,
}

impl Player {
    /// A connection that has asked and neither waits nor watches yet.
    pub(in crate::server) fn new(play: Play) -> Self {
        let is_websocket = matches!(play.via, Via::WebSocket { .. });
        let frames = is_websocket.then(|| Box::new(ws::FrameReader::new(WS_MESSAGE_MAX)));
        Self { play, seat: Seat::Pending, frames, noise: 0 }
    }

    /// What is sent before the first byte of the stream.
    pub(in crate::server) fn answer(&self) -> Bytes {
        match &self.play.via {
            Via::WebSocket { key, protocol } => ws::upgrade_response(key, protocol.as_deref()).into(),
            Via::Http | Via::Rtmp => Bytes::new(),
        }
    }

    /// Bytes from the client: ignored over HTTP, control frames over WebSocket.
    pub(in crate::server) fn received<E: Engine>(
        &mut self,
        core: &mut Core<E>,
        viewers: &mut Viewers,
        head: &ConnHead,
        data: &[u8],
    ) -> Next {
        let Self { frames, noise, .. } = self;
        let (Some(frames), Some(id)) = (frames, head.viewer) else {
            *noise += data.len();
            return too_noisy(*noise);
        };
        // Of several pings only the newest is answered (RFC 6455, 5.5.3), to save work.
        let (mut pong, mut close) = (None, None);
        let result = frames.push(data, &mut |event| match event {
            ws::Event::Ping(payload) => pong = Some(ws::pong_frame(payload)),
            ws::Event::Close { code, .. } => {
                close = Some(ws::close_frame(code.unwrap_or(ws::code::NORMAL), ""));
            }
            ws::Event::Data { bytes, .. } => *noise += bytes.len(),
            ws::Event::Pong(_) => {}
        });
        let next = too_noisy(*noise);
        for (answer, last) in [(pong, false), (close, true)] {
            if let Some(answer) = answer {
                viewers.fanout.say(&mut core.net, id, answer.into(), last, &core.counters);
            }
        }
        if let Err(error) = result {
            let bytes = ws::close_frame(error.close_code(), &error.to_string()).into();
            viewers.fanout.say(&mut core.net, id, bytes, true, &core.counters);
            debug!(peer = core.peer(head.sock), %error, "a viewer broke the WebSocket protocol");
        }
        next
    }

    /// Its deadline has passed: a viewer without a first byte gets the answer that there is no stream.
    pub(in crate::server) fn deadline<E: Engine>(
        &mut self,
        core: &mut Core<E>,
        viewers: &mut Viewers,
        head: &mut ConnHead,
    ) -> Next {
        let dismissed = head.viewer.and_then(|id| viewers.fanout.dismissed(id));
        match (self.seat, head.viewer) {
            (Seat::Pending, _) => Next::close("it did not read its answer in time"),
            (Seat::Watching, Some(_)) if dismissed.is_some() => {
                // It does not even take the rest of its tag.
                let why = dismissed.unwrap_or(Farewell::Kicked);
                core.counters[head.role].farewell(why);
                Next::close(why.to_string())
            }
            (Seat::Watching, Some(id)) if !viewers.fanout.is_waiting(id, core.now()) => {
                head.is_established();
                Next::Stay
            }
            _ => {
                let status = core.role(head.role).source.absence();
                self.refuse(core, viewers, head, status)
            }
        }
    }

    /// The end that its token tells has come.
    pub(in crate::server) fn expired<E: Engine>(
        &mut self,
        core: &mut Core<E>,
        viewers: &mut Viewers,
        head: &mut ConnHead,
    ) -> Next {
        if let Some(id) = head.viewer {
            viewers.expire(core, head, id);
            return Next::Stay;
        }
        viewers.forget(head, &self.play.key, self.seat);
        self.seat = Seat::Gone;
        core.say_last(head, error_page(403, EXPIRED, self.play.head_only, false).into())
    }

    /// Answers that a limit does not let it wait.
    pub(in crate::server) fn turn_away<E: Engine>(
        &mut self,
        core: &mut Core<E>,
        head: &mut ConnHead,
        why: Refused,
    ) -> Next {
        self.seat = Seat::Gone;
        let page = error_page(why.status(), &why.to_string(), self.play.head_only, false);
        core.say_last(head, page.into())
    }

    /// Answers that there is no such stream.
    fn refuse<E: Engine>(
        &mut self,
        core: &mut Core<E>,
        viewers: &mut Viewers,
        head: &mut ConnHead,
        status: u16,
    ) -> Next {
        viewers.leave(core, head);
        viewers.forget(head, &self.play.key, self.seat);
        self.seat = Seat::Gone;
        let key = &self.play.key;
        debug!(role = core.role(head.role).name, stream = key.as_str(), status, "refused a viewer");
        let message = no_such_stream(key, status);
        core.say_last(head, error_page(status, &message, self.play.head_only, false).into())
    }

    /// The fan-out has removed it: sends its protocol's goodbye, or lets it wait again.
    pub(in crate::server) fn farewell<E: Engine>(
        &mut self,
        core: &mut Core<E>,
        viewers: &mut Viewers,
        head: &mut ConnHead,
        farewell: Farewell,
    ) -> Next {
        let play = &self.play;
        match farewell {
            Farewell::NeverBegan(status) => {
                if play.time_left(core.now()) == 0 {
                    return self.refuse(core, viewers, head, status);
                }
                viewers.leave(core, head);
                self.seat = Seat::Pending;
                Next::Play(Box::new(self.play.clone()))
            }
            Farewell::StreamEnded | Farewell::Refused | Farewell::Kicked | Farewell::Expired => {
                let fresh = head.viewer.is_some_and(|id| viewers.fanout.is_fresh(id));
                let bytes = match farewell {
                    Farewell::StreamEnded => play.framing().goodbye(ws::code::NORMAL, "the stream has ended"),
                    Farewell::Kicked | Farewell::Expired if fresh && matches!(play.via, Via::Http) => {
                        let text = if farewell == Farewell::Expired { EXPIRED } else { KICKED };
                        error_page(403, text, play.head_only, false).into()
                    }
                    Farewell::Kicked | Farewell::Expired => {
                        play.framing().goodbye(ws::code::POLICY, &farewell.to_string())
                    }
                    _ => Bytes::new(),
                };
                viewers.leave(core, head);
                self.seat = Seat::Gone;
                core.say_goodbye(head, bytes)
            }
            Farewell::TooSlow | Farewell::Stalled | Farewell::Broken(_) => {
                cut(core, head, &self.play.key, farewell)
            }
        }
    }
}

/// Closes a viewer that cannot keep up, or whose connection is gone.
pub(in crate::server) fn cut<E: Engine>(
    core: &mut Core<E>,
    head: &ConnHead,
    key: &StreamKey,
    farewell: Farewell,
) -> Next {
    let reason = farewell.to_string();
    if !matches!(farewell, Farewell::Broken(_)) && core.may_log(LineKind::Viewer) {
        let (role, peer) = (core.role(head.role).name, core.peer(head.sock));
        info!(role, peer, stream = key.as_str(), reason, "cut a viewer");
    }
    Next::close(reason)
}

/// Ends a viewer that has sent too many bytes that it should not send.
fn too_noisy(bytes: usize) -> Next {
    if bytes > NOISE_MAX { Next::refuse("it sends data although it should only read") } else { Next::Stay }
}

/// The text for a client whose stream does not exist.
pub(in crate::server) fn no_such_stream(key: &StreamKey, status: u16) -> String {
    match status {
        404 => format!("No stream {key} is live. Publish it, or see /api/v1/streams for the live streams."),
        _ => format!("The stream {key} is not available: no upstream answers. Try again soon."),
    }
}

/// How long a request waits for its stream: as configured, or less if the client prefers (RFC 7240, 4.3).
pub(in crate::server) fn patience(wait: Millis, prefer: Option<&str>) -> Millis {
    let wished = prefer.and_then(|prefer| prefer.trim().strip_prefix("wait="));
    let wished = wished.and_then(|seconds| seconds.parse::<u32>().ok());
    wait.min(wished.map_or(Millis::MAX, |seconds| Millis::from(seconds) * 1000))
}
