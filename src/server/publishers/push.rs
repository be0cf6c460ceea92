//! Publishers that send FLV: in the body of a POST or PUT, or in the messages of a WebSocket.
//!
//! The name is claimed when the FLV header has been received, not before: a request that turns out to be
//! something else does not take a name from another publisher. ffmpeg, for example, sends a second POST to
//! correct the header of its first one.

use bytes::Bytes;

use super::claim::{Claimed, Publication, Publishers, Wish, tag_max};
use crate::access::Grant;
use crate::live::key::StreamKey;
use crate::protocol::http::error_page;
use crate::protocol::http::request::Request;
use crate::protocol::http::response::{CONTINUE, Head};
use crate::protocol::push::{FlvPush, PushError, PushEvent};
use crate::protocol::ws;
use crate::server::core::Core;
use crate::server::head::{ConnHead, Next};
use crate::server::limits::Refused;
use crate::uring::Engine;

/// The most bytes that are held while the name is not free yet.
const HELD_MAX: usize = 16 << 20;

/// A connection that pushes, or is about to.
#[derive(Debug)]
pub(in crate::server) struct Push {
    flv: FlvPush,
    pub(in crate::server) publication: Publication,
}

/// Why a push is over.
#[derive(Debug)]
enum Stop {
    /// The push was complete.
    Done,
    Wrong(PushError),
    Refused(Refused),
    /// A failure of the server.
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
            Self::Refused(why) => (why.status(), ws::code::POLICY, why.to_string()),
            Self::Failed(reason) => (503, ws::code::INTERNAL, reason.clone()),
        };
        if websocket { close(code, &text) } else { page(status, &text) }
    }

    /// The reason as the log states it.
    fn reason(&self) -> String {
        match self {
            Self::Done => "the push is complete".to_owned(),
            Self::Wrong(error) => error.to_string(),
            Self::Refused(why) => why.to_string(),
            Self::Failed(reason) => reason.clone(),
        }
    }
}

fn close(code: u16, reason: &str) -> Bytes {
    ws::close_frame(code, reason).into()
}

fn page(status: u16, text: &str) -> Bytes {
    error_page(status, text, false, false).into()
}

/// The reader of a pushed body, and the bytes that the peer is sent before it starts.
fn transport(request: &Request, tag_max: u32) -> Result<(FlvPush, Bytes), Bytes> {
    if let Some(key) = request.websocket_key().map_err(|error| Bytes::from(error.page()))? {
        let protocol = request.header("sec-websocket-protocol").and_then(ws::first_protocol);
        let answer = ws::upgrade_response(&key, protocol);
        return Ok((FlvPush::websocket(tag_max), answer.into()));
    }
    let push = FlvPush::http(request.body_length(), tag_max);
    let push =
        push.ok_or_else(|| page(411, "A push needs a body of FLV, chunked or with a known length."))?;
    let go_on = if request.expects_continue() { CONTINUE } else { b"" };
    Ok((push, Bytes::from_static(go_on)))
}

impl Push {
    /// Starts the push of a request: the push and the first bytes for its peer, or the final answer.
    pub(in crate::server) fn begin<E: Engine>(
        core: &mut Core<E>,
        head: &ConnHead,
        request: &Request,
        grant: Grant,
    ) -> Result<(Self, Bytes), Bytes> {
        let (flv, answer) = transport(request, tag_max(&core.shared.config))?;
        match wish(core, head, request, grant) {
            Ok(wish) => Ok((Self { flv, publication: Publication::of(wish) }, answer)),
            // A script cannot see why an upgrade is refused, so the reason is sent in a close frame.
            Err((status, reason)) if flv.is_websocket() => {
                let code = if status == 503 { ws::code::TRY_AGAIN } else { ws::code::POLICY };
                Err([answer, close(code, &reason)].concat().into())
            }
            Err((status, reason)) => Err(page(status, &reason)),
        }
    }

    /// Bytes that were received and are not yet in a log.
    pub(in crate::server) fn held(&self) -> usize {
        self.flv.held()
    }

    /// Bytes from the peer.
    pub(in crate::server) fn received<E: Engine>(
        &mut self,
        core: &mut Core<E>,
        publishers: &mut Publishers,
        head: &mut ConnHead,
        data: &[u8],
    ) -> Next {
        core.counters[head.role].bytes_in.add(data.len() as u64);
        let heard = self.publication.heard(core, head, data.len());
        let pushed = self.flv.push(data).map_err(Stop::Wrong).and(heard.map_err(Stop::Refused));
        self.events(core, publishers, head, pushed)
    }

    /// The name that it waited for has been given up.
    pub(in crate::server) fn claim_again<E: Engine>(
        &mut self,
        core: &mut Core<E>,
        publishers: &mut Publishers,
        head: &mut ConnHead,
    ) -> Next {
        let claimed = self.claim(core, publishers, head);
        self.events(core, publishers, head, claimed)
    }

    /// Writes the tags that were received; `so_far`: whether more can follow.
    fn events<E: Engine>(
        &mut self,
        core: &mut Core<E>,
        publishers: &mut Publishers,
        head: &mut ConnHead,
        so_far: Result<(), Stop>,
    ) -> Next {
        let result = self.take_events(core, publishers, head).and(so_far);
        if let Some(writer) = &mut self.publication.writer {
            core.announce(writer);
            self.publication.pace(core, head);
        }
        let pongs = self.flv.take_output().unwrap_or_default();
        let Err(stop) = result else { return core.say(head, pongs) };
        let reason = stop.reason();
        if matches!(stop, Stop::Refused(Refused::Bitrate)) {
            core.count_refusal(head.role, Refused::Bitrate);
        }
        if matches!(stop, Stop::Wrong(_)) {
            core.counters[head.role].bad_peers.add(1);
            let name = self.publication.wish.as_ref().map_or("", |wish| wish.key.as_str());
            core.log_refusal(head, name, &reason);
        }
        publishers.give_up(core, head, &mut self.publication, &reason);
        core.say_last(head, [pongs, stop.last_words(self.flv.is_websocket())].concat().into())
    }

    fn take_events<E: Engine>(
        &mut self,
        core: &mut Core<E>,
        publishers: &mut Publishers,
        head: &ConnHead,
    ) -> Result<(), Stop> {
        loop {
            if self.publication.waits() {
                return match self.flv.held() {
                    ..=HELD_MAX => Ok(()),
                    _ => Err(Stop::Refused(Refused::Taken)),
                };
            }
            match self.flv.next_event().map_err(Stop::Wrong)? {
                None => return Ok(()),
                Some(PushEvent::Begin) => self.claim(core, publishers, head)?,
                Some(PushEvent::End) => return Err(Stop::Done),
                Some(PushEvent::Tag(tag)) => {
                    let writer = self.publication.writer.as_mut().expect("tags come after the FLV header");
                    writer.push(&tag).map_err(|error| Stop::Failed(error.to_string()))?;
                }
            }
        }
    }

    fn claim<E: Engine>(
        &mut self,
        core: &mut Core<E>,
        publishers: &mut Publishers,
        head: &ConnHead,
    ) -> Result<(), Stop> {
        match publishers.claim(core, head, &mut self.publication) {
            Claimed::Granted | Claimed::Soon => Ok(()),
            Claimed::Refused(why) => Err(Stop::Refused(why)),
        }
    }

    /// Its deadline has passed.
    pub(in crate::server) fn deadline<E: Engine>(
        &mut self,
        core: &mut Core<E>,
        publishers: &mut Publishers,
        head: &mut ConnHead,
    ) -> Next {
        if self.publication.writer.is_some() {
            return publishers.deadline(core, head, &mut self.publication).err().unwrap_or(Next::Stay);
        }
        const REASON: &str = "it did not publish in time";
        core.log_refusal(head, "", REASON);
        core.counters[head.role].bad_peers.add(1);
        self.dismiss(core, publishers, head, 409, REASON)
    }

    /// Ends it, through no fault of its bytes: gives the stream up and tells the peer why.
    pub(in crate::server) fn dismiss<E: Engine>(
        &mut self,
        core: &mut Core<E>,
        publishers: &mut Publishers,
        head: &mut ConnHead,
        status: u16,
        reason: &str,
    ) -> Next {
        publishers.give_up(core, head, &mut self.publication, reason);
        let words =
            if self.flv.is_websocket() { close(ws::code::POLICY, reason) } else { page(status, reason) };
        core.say_last(head, words)
    }
}

/// What a request asks to publish, or the status and the text of an immediate refusal.
fn wish<E: Engine>(
    core: &mut Core<E>,
    head: &ConnHead,
    request: &Request,
    grant: Grant,
) -> Result<Wish, (u16, String)> {
    if core.is_draining() {
        return Err((503, "This server is shutting down; push to another one.".to_owned()));
    }
    let path = request.path.trim_start_matches('/');
    let name = path.strip_suffix(".flv").unwrap_or(path);
    let key = StreamKey::parse(name).map_err(|error| {
        core.log_refusal(head, name, &error.to_string());
        (400, error.to_string())
    })?;
    let agent = request.header("user-agent").unwrap_or_default().to_owned();
    let wish = Wish { key, token: grant.identity, agent };
    if core.role(head.role).directory.is_taken(&wish.key, &wish.claim(core.now())) {
        core.count_refusal(head.role, Refused::Taken);
        core.log_refusal(head, wish.key.as_str(), &Refused::Taken.to_string());
        return Err((Refused::Taken.status(), Refused::Taken.to_string()));
    }
    Ok(wish)
}
