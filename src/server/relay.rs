//! Relays, as configured: streams of the origin that are published to other servers as well, and streams that
//! are fetched from them.
//!
//! A forward is a viewer on a connection of our own making: behind the handshake it gets the same bytes as
//! others do, RTMP chunks or FLV in the chunks of a POST. A fetched stream is written like a publisher's. Both
//! connect again when they are lost, a forward for as long as its stream lives, a fetch for ever.

use std::sync::Arc;

use bytes::Bytes;
use tracing::{info, warn};

use super::conn::{Conn, Fate, Kind, Watching};
use super::fanout::ViewerId;
use super::play::{Play, Via};
use super::retry::{self, ANSWER_HEAD_MAX, Backoff};
use super::shared::{Message, Phase};
use super::viewer::{Farewell, Framing, Wish};
use super::worker::Worker;
use crate::config::Remote;
use crate::live::cursor::StartAt;
use crate::live::directory::Claim;
use crate::live::key::StreamKey;
use crate::live::stream::{Selection, Stream, StreamWriter};
use crate::media::encoding::RTMP_STREAM;
use crate::media::flv::{FlvItem, FlvReader};
use crate::media::tag::{TAG_BODY_MAX, Tag};
use crate::protocol::http::chunked::LAST_CHUNK;
use crate::protocol::http::client::{ResponseReader, State, get_request};
use crate::protocol::rtmp::client::{PlayEvent, PlaySession, PublishSession};
use crate::uring::{Engine, Millis, Sock};

/// A relay's place in the loop's table.
pub(super) type RelayId = u32;

/// Another server, which nobody may be in a hurry to hear of.
const RETRY: Backoff = Backoff { first: 500, longest: 5_000 };
/// How long another server may take to let us in.
const PATIENCE: Millis = 10_000;

/// The relays of a loop.
#[derive(Debug, Default)]
pub(super) struct Relays {
    relays: Vec<Option<Relay>>,
    begun: bool,
}

#[derive(Debug)]
struct Relay {
    role: usize,
    what: What,
    remote: Remote,
    link: Option<Link>,
    /// Failures in a row.
    failures: u32,
    next_try: Millis,
}

#[derive(Debug)]
enum What {
    /// With its place in the configuration, and the path on the other server.
    Forward {
        place: usize,
        stream: Arc<Stream>,
        path: String,
    },
    Fetch {
        place: usize,
        key: StreamKey,
        writer: Option<Box<StreamWriter>>,
    },
}

/// A connection to another server.
#[derive(Debug)]
struct Link {
    sock: Sock,
    speech: Speech,
    /// Its first words, until the connection stands.
    hello: Bytes,
    /// It lets us in.
    ready: bool,
    /// When bytes came last, or when it was opened.
    last: Millis,
}

#[derive(Debug)]
enum Speech {
    Publish(Box<PublishSession>),
    Play(Box<PlaySession>),
    Post(ResponseReader),
    Get(ResponseReader, FlvReader),
}

impl Relay {
    /// What is relayed and where, for the log.
    fn name(&self) -> (&str, &'static str) {
        match &self.what {
            What::Forward { stream, .. } => (stream.key.as_str(), "forward"),
            What::Fetch { key, .. } => (key.as_str(), "fetch"),
        }
    }

    /// The session with the other server, and its first words.
    fn speech(&self) -> (Speech, Bytes) {
        let response = ResponseReader::new(ANSWER_HEAD_MAX);
        match (&self.what, self.remote.rtmp) {
            (What::Forward { path, .. }, true) => {
                let (app, tc_url, name) = self.remote.rtmp_parts(path);
                let mut session = PublishSession::new(&app, &tc_url, &name);
                let hello = session.take_output().unwrap_or_default();
                (Speech::Publish(Box::new(session)), hello)
            }
            (What::Forward { path, .. }, false) => {
                let authority = &self.remote.authority;
                let head = format!(
                    "POST {path} HTTP/1.1\r\nHost: {authority}\r\nUser-Agent: uringcast\r\n\
                     Content-Type: video/x-flv\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n"
                );
                (Speech::Post(response), head.into())
            }
            (What::Fetch { .. }, true) => {
                let (app, tc_url, name) = self.remote.rtmp_parts(&self.remote.path);
                let mut session = PlaySession::new(&app, &tc_url, &name);
                let hello = session.take_output().unwrap_or_default();
                (Speech::Play(Box::new(session)), hello)
            }
            (What::Fetch { .. }, false) => {
                let headers = [("Accept", "*/*"), ("Connection", "close")];
                let request = get_request(&self.remote.authority, &self.remote.path, &headers);
                let flv = FlvReader::new(u32::try_from(TAG_BODY_MAX).expect("24 bits"));
                (Speech::Get(response, flv), request.into())
            }
        }
    }
}

impl Link {
    /// Takes bytes from the other server: the tags in them, and whether it goes on behind them.
    fn take(&mut self, data: &[u8]) -> (Vec<Tag>, Result<(), String>) {
        let mut tags = Vec::new();
        let result = match &mut self.speech {
            Speech::Publish(session) => {
                let result = session.input(data).map_err(|error| error.to_string());
                self.ready |= session.is_publishing();
                match session.stream_id() {
                    Some(id) if id != RTMP_STREAM => Err(format!("it publishes on message stream {id}")),
                    _ => result,
                }
            }
            Speech::Play(session) => {
                let mut result = session.input(data).map_err(|error| error.to_string());
                while let Some(event) = session.poll_event() {
                    match event {
                        PlayEvent::Begin => self.ready = true,
                        PlayEvent::Tag(tag) => tags.push(tag),
                        PlayEvent::End => result = result.and(Err("its stream has ended".to_owned())),
                    }
                }
                result
            }
            Speech::Post(response) => check(response, data, |_| ()),
            Speech::Get(response, flv) => {
                let mut result = check(response, data, |body| flv.push(body));
                loop {
                    match flv.next_item() {
                        Ok(Some(FlvItem::Tag(tag))) => tags.push(tag),
                        Ok(Some(FlvItem::Header(_))) => self.ready = true,
                        Ok(None) => break,
                        Err(error) => {
                            result = Err(error.to_string());
                            break;
                        }
                    }
                }
                result
            }
        };
        (tags, result)
    }

    fn take_output(&mut self) -> Option<Bytes> {
        match &mut self.speech {
            Speech::Publish(session) => session.take_output(),
            Speech::Play(session) => session.take_output(),
            Speech::Post(_) | Speech::Get(..) => None,
        }
    }
}

/// Reads an answer that has to be 200 and must not end.
fn check(response: &mut ResponseReader, data: &[u8], mut body: impl FnMut(&[u8])) -> Result<(), String> {
    let state = response.push(data, |head, bytes| {
        if head.status == 200 {
            body(bytes);
        }
    });
    let state = state.map_err(|error| error.to_string())?;
    match response.head().map(|head| head.status) {
        Some(200) | None if state != State::Finished => Ok(()),
        Some(200) | None => Err("its answer ended".to_owned()),
        Some(status) => Err(format!("it answers {status}")),
    }
}

impl<E: Engine> Worker<E> {
    fn relay(&mut self, id: RelayId) -> Option<&mut Relay> {
        self.relays.relays.get_mut(id as usize)?.as_mut()
    }

    fn add_relay(&mut self, role: usize, what: What, remote: Remote) {
        let (link, failures, next_try) = (None, 0, self.engine.now());
        let relay = Relay { role, what, remote, link, failures, next_try };
        let relays = &mut self.relays.relays;
        let place = relays.iter().position(Option::is_none).unwrap_or_else(|| {
            relays.push(None);
            relays.len() - 1
        });
        relays[place] = Some(relay);
        self.connect_relay(RelayId::try_from(place).expect("a handful of relays"));
    }

    /// Begins what the configuration wants of this loop from the start.
    fn begin_relays(&mut self) {
        self.relays.begun = true;
        let shared = Arc::clone(&self.shared);
        for (place, pull) in shared.config.pull.iter().enumerate().take(shared.pulls.len()) {
            if place % shared.posts.len() != self.index {
                continue;
            }
            match StreamKey::parse(&pull.stream) {
                Ok(key) => self.add_relay(0, What::Fetch { place, key, writer: None }, pull.from.clone()),
                Err(error) => warn!(stream = pull.stream, %error, "cannot pull a stream of that name"),
            }
        }
    }

    /// A stream is published: forwards it where the configuration says so.
    pub(super) fn forward(&mut self, role: usize, stream: &Arc<Stream>) {
        let shared = Arc::clone(&self.shared);
        // One loop of all, the same whenever it is published again.
        let name: usize = stream.key.as_str().bytes().map(usize::from).sum();
        if role != 0 || name % shared.posts.len() != self.index {
            return;
        }
        for (place, forward) in shared.config.forward.iter().enumerate().take(shared.forwards.len()) {
            let known = self.relays.relays.iter().flatten().any(|relay| match &relay.what {
                What::Forward { place: other, stream: own, .. } => *other == place && own.id == stream.id,
                What::Fetch { .. } => false,
            });
            if let Some(path) = forward.path_for(stream.key.as_str()).filter(|_| !known) {
                let what = What::Forward { place, stream: Arc::clone(stream), path };
                self.add_relay(role, what, forward.to.clone());
            }
        }
    }

    fn connect_relay(&mut self, id: RelayId) {
        let now = self.engine.now();
        let shared = Arc::clone(&self.shared);
        let relay = self.relay(id).expect("it connects while it is there");
        let (role, failures) = (relay.role, relay.failures as usize);
        let addresses = match relay.what {
            What::Forward { place, .. } => &shared.forwards[place],
            What::Fetch { place, .. } => &shared.pulls[place],
        };
        let Some(address) = retry::address(&addresses.load(), failures) else {
            return self.relay_lost(id, "its name has no address yet");
        };
        match self.engine.connect(address) {
            Ok(sock) => {
                let relay = self.relay(id).expect("as above");
                let (speech, hello) = relay.speech();
                relay.link = Some(Link { sock, speech, hello, ready: false, last: now });
                self.add(Conn::new(sock, role, Kind::Relay(id)));
            }
            Err(error) => self.relay_lost(id, &error.to_string()),
        }
    }

    pub(super) fn relay_connected(
        &mut self,
        conn: &mut Conn,
        id: RelayId,
        result: Result<(), rustix::io::Errno>,
    ) -> Fate {
        if let Err(error) = result {
            return Fate::Close(error.to_string());
        }
        let Some(relay) = self.relay(id) else { return Fate::Close("the relay is over".to_owned()) };
        let link = relay.link.as_mut().expect("it has just connected");
        // Nobody has to answer before the body of a POST comes.
        link.ready = matches!(link.speech, Speech::Post(_));
        let hello = std::mem::take(&mut link.hello);
        self.say(conn, hello)
    }

    pub(super) fn relay_received(&mut self, conn: &mut Conn, id: RelayId, data: &[u8]) -> Fate {
        let (now, sock) = (self.engine.now(), conn.sock);
        let linked = self.relay(id).and_then(|relay| relay.link.as_mut()).filter(|link| link.sock == sock);
        let Some(link) = linked else { return Fate::Keep }; // it has had our goodbye
        link.last = now;
        let (tags, result) = link.take(data);
        let output = link.take_output();
        if !tags.is_empty() {
            self.counters[conn.role].bytes_in.add(data.len() as u64);
            if let Err(reason) = self.fetched(id, &tags) {
                return Fate::Close(reason);
            }
        }
        if let Some(output) = output {
            match conn.kind {
                Kind::Viewer(viewer, _) => {
                    self.fanout.say(&mut self.engine, viewer, output, false, &self.counters);
                }
                _ => match self.say(conn, output) {
                    Fate::Keep => {}
                    fate => return fate,
                },
            }
        }
        match result {
            Err(reason) => Fate::Close(reason),
            Ok(()) => self.relay_on(conn),
        }
    }

    /// A forward that has been let in, and has said all, joins the viewers.
    pub(super) fn relay_on(&mut self, conn: &mut Conn) -> Fate {
        let Kind::Relay(id) = conn.kind else { return Fate::Keep };
        if !conn.out.is_empty() {
            return Fate::Keep;
        }
        let now = self.engine.now();
        let Some(relay) = self.relay(id) else { return Fate::Keep };
        let rtmp = relay.remote.rtmp;
        let (What::Forward { stream, .. }, Some(Link { ready: true, .. })) = (&relay.what, &relay.link)
        else {
            return Fate::Keep;
        };
        let stream = Arc::clone(stream);
        relay.failures = 0;
        info!(stream = stream.key.as_str(), to = %relay.remote, "forward begins");
        let (via, framing) = if rtmp { (Via::Rtmp, Framing::Rtmp) } else { (Via::Http, Framing::Chunked) };
        let (selection, start) = (Selection::All, StartAt::Newest);
        let wish = Wish { selection, start, framing, greeting: Bytes::new(), head_only: false, since: now };
        let policy = self.role(conn.role).policy;
        let viewer = self.fanout.join(self.index, &stream, (conn.role, policy), conn.sock, wish);
        self.counters[conn.role].viewers[framing.protocol() as usize].add(1);
        self.no_deadline(conn.sock);
        let key = stream.key.clone();
        let play =
            Play { key, selection, gop: true, after: None, via, since: now, patience: 0, head_only: false };
        conn.kind =
            Kind::Viewer(viewer, Box::new(Watching { play, frames: None, noise: 0, relay: Some(id) }));
        self.fanout.welcome(&mut self.engine, viewer, &self.counters);
        if stream.has_ended() {
            self.fanout.stream_ended(stream.id, 404, now);
        }
        Fate::Keep
    }

    /// The fan-out has let a forward go.
    pub(super) fn forward_let_go(
        &mut self,
        conn: &mut Conn,
        viewer: ViewerId,
        id: RelayId,
        farewell: Farewell,
    ) -> Fate {
        if !matches!(farewell, Farewell::StreamEnded | Farewell::NeverBegan(_)) {
            return Fate::Close(farewell.to_string());
        }
        self.viewer_left(conn.role, viewer);
        conn.kind = Kind::Relay(id);
        let Some(relay) = self.relays.relays[id as usize].take() else { return Fate::Keep };
        info!(stream = relay.name().0, to = %relay.remote, "forward ended");
        let goodbye = match relay.link.map(|link| link.speech) {
            Some(Speech::Publish(mut session)) => {
                session.unpublish();
                session.take_output().unwrap_or_default()
            }
            _ => [b"\r\n", LAST_CHUNK].concat().into(),
        };
        self.say_last(conn, goodbye)
    }

    /// Writes tags that another server has sent.
    fn fetched(&mut self, id: RelayId, tags: &[Tag]) -> Result<(), String> {
        let mut relay = self.relays.relays[id as usize].take().expect("it has just received");
        let result = self.write_fetched(&mut relay, tags);
        self.relays.relays[id as usize] = Some(relay);
        result
    }

    fn write_fetched(&mut self, relay: &mut Relay, tags: &[Tag]) -> Result<(), String> {
        let (now, role) = (self.engine.now(), relay.role);
        relay.failures = 0;
        let What::Fetch { key, writer, .. } = &mut relay.what else { return Ok(()) };
        if writer.is_none() {
            let directory = &self.role(role).directory;
            let mut fresh = directory.publish(key, &Claim::fixed(now)).map_err(|error| error.to_string())?;
            info!(stream = key.as_str(), from = %relay.remote, "fetch begins");
            fresh.begin_session();
            fresh.stream().began(now);
            self.counters[role].publishers.add(1);
            let stream = Arc::clone(fresh.stream());
            *writer = Some(fresh);
            self.shared.tell_all(|| Message::Published { role, stream: Arc::clone(&stream) });
        }
        let writer = writer.as_mut().expect("claimed above");
        writer.stream().heard(now);
        for tag in tags {
            writer.push(tag).map_err(|error| format!("no memory for it: {error}"))?;
        }
        self.announce(writer);
        Ok(())
    }

    /// A connection of a relay is closed; it may be one that has had our goodbye.
    pub(super) fn relay_closed(&mut self, id: RelayId, sock: Sock, reason: &str) {
        let linked = self.relay(id).and_then(|relay| relay.link.as_ref());
        if linked.is_some_and(|link| link.sock == sock) {
            self.relay_lost(id, reason);
        }
    }

    /// The connection of a relay is gone, or could not be made: tries again later.
    pub(super) fn relay_lost(&mut self, id: RelayId, reason: &str) {
        let now = self.engine.now();
        let Some(relay) = self.relay(id) else { return };
        relay.link = None;
        relay.next_try = now + RETRY.pause(relay.failures);
        relay.failures += 1;
        if relay.failures == 1 {
            let (stream, what) = relay.name();
            warn!(stream, what, remote = %relay.remote, reason, "relay lost");
        }
        let role = relay.role;
        let writer = match &mut relay.what {
            What::Fetch { writer, .. } => writer.take(),
            What::Forward { .. } => None,
        };
        self.counters[role].reconnects.add(1);
        if let Some(mut writer) = writer {
            self.counters[role].publishers.sub(1);
            self.announce(&mut writer);
            let role = self.role(role);
            role.directory.park(writer, now + role.gap);
        }
    }

    pub(super) fn sweep_relays(&mut self, now: Millis) {
        if !self.relays.begun {
            self.begin_relays();
        }
        let draining = self.shared.phase() == Phase::Draining;
        for place in 0..self.relays.relays.len() {
            let Some(relay) = &self.relays.relays[place] else { continue };
            let silence = self.role(relay.role).silence;
            let ended = matches!(&relay.what, What::Forward { stream, .. } if stream.has_ended());
            let is_fetch = matches!(relay.what, What::Fetch { .. });
            match &relay.link {
                None if ended => self.relays.relays[place] = None,
                None if now >= relay.next_try && !draining => {
                    self.connect_relay(RelayId::try_from(place).expect("a handful of relays"));
                }
                None => {}
                Some(link) => {
                    let patience = if link.ready && is_fetch { silence } else { PATIENCE };
                    let sock = link.sock;
                    if (is_fetch || !link.ready) && now.saturating_sub(link.last) >= patience {
                        self.with(sock, |_, _| Fate::Close("it is silent".to_owned()));
                    }
                }
            }
        }
    }
}
