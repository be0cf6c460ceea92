//! Configured relays: streams of the origin that are also published to other servers, and streams that are
//! fetched from other servers.
//!
//! A forward is a viewer on a connection that the server has opened: after the handshake it gets the same bytes
//! as other viewers, as RTMP chunks or as FLV in the chunks of a POST. A fetched stream is written like a
//! publisher's. Both connect again when the connection is lost, a forward for as long as its stream lives, a
//! fetch for ever.

use std::sync::Arc;

use bytes::Bytes;
use tracing::{info, warn};

use super::link::{HANDSHAKE, Link, LinkError, LinkEvent, Speech, Stage, Timeouts, connect};
use crate::config::Remote;
use crate::live::cursor::StartAt;
use crate::live::directory::Claim;
use crate::live::key::StreamKey;
use crate::live::stream::{Selection, Stream, StreamWriter};
use crate::media::tag::Tag;
use crate::server::core::{Core, Task};
use crate::server::head::{ConnHead, LinkId, Next};
use crate::server::health::Backoff;
use crate::server::shared::Message;
use crate::server::viewers::audience::Viewers;
use crate::server::viewers::viewer::{Farewell, Framing, Wish};
use crate::uring::{Engine, Millis, Sock};

/// No viewer waits: another server is tried less often than an upstream.
const RETRY: Backoff = Backoff { first: 500, longest: 5_000 };

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
    /// With its index in the configuration, and the path on the other server.
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

impl Relay {
    /// What is relayed, as the log names it.
    fn name(&self) -> (&str, &'static str) {
        match &self.what {
            What::Forward { stream, .. } => (stream.key.as_str(), "forward"),
            What::Fetch { key, .. } => (key.as_str(), "fetch"),
        }
    }

    /// The protocol, and the first bytes for the other server.
    fn speech(&self) -> (Speech, Bytes) {
        match &self.what {
            What::Forward { path, .. } => Speech::publish(&self.remote, path),
            What::Fetch { .. } => Speech::play(&self.remote),
        }
    }

    fn timeouts(&self, silence: Millis) -> Timeouts {
        let silence = matches!(self.what, What::Fetch { .. }).then_some(silence);
        Timeouts { connect: HANDSHAKE, answer: HANDSHAKE, silence }
    }
}

impl Relays {
    fn get(&mut self, id: u32) -> Option<&mut Relay> {
        self.relays.get_mut(id as usize)?.as_mut()
    }

    fn add<E: Engine>(&mut self, core: &mut Core<E>, role: usize, what: What, remote: Remote) {
        let relay = Relay { role, what, remote, link: None, failures: 0, next_try: core.now() };
        let place = self.relays.iter().position(Option::is_none).unwrap_or_else(|| {
            self.relays.push(None);
            self.relays.len() - 1
        });
        self.relays[place] = Some(relay);
        self.connect(core, u32::try_from(place).expect("one for each stream at the most"));
    }

    /// Starts the relays that the configuration assigns to this loop.
    fn begin<E: Engine>(&mut self, core: &mut Core<E>) {
        self.begun = true;
        let shared = Arc::clone(&core.shared);
        for (place, pull) in shared.config.pull.iter().enumerate().take(shared.pulls.len()) {
            if place % shared.posts.len() != core.index {
                continue;
            }
            match StreamKey::parse(&pull.stream) {
                Ok(key) => self.add(core, 0, What::Fetch { place, key, writer: None }, pull.from.clone()),
                Err(error) => warn!(stream = pull.stream, %error, "cannot pull a stream of that name"),
            }
        }
    }

    /// A stream is published: forwards it if the configuration says so.
    pub(super) fn forward<E: Engine>(&mut self, core: &mut Core<E>, role: usize, stream: &Arc<Stream>) {
        let shared = Arc::clone(&core.shared);
        // One of all loops, the same one whenever the stream is published again.
        let name: usize = stream.key.as_str().bytes().map(usize::from).sum();
        if role != 0 || name % shared.posts.len() != core.index {
            return;
        }
        for (place, forward) in shared.config.forward.iter().enumerate().take(shared.forwards.len()) {
            let known = self.relays.iter().flatten().any(|relay| match &relay.what {
                What::Forward { place: other, stream: own, .. } => *other == place && own.id == stream.id,
                What::Fetch { .. } => false,
            });
            if let Some(path) = forward.path_for(stream.key.as_str()).filter(|_| !known) {
                let what = What::Forward { place, stream: Arc::clone(stream), path };
                self.add(core, role, what, forward.to.clone());
            }
        }
    }

    fn connect<E: Engine>(&mut self, core: &mut Core<E>, id: u32) {
        let now = core.now();
        let shared = Arc::clone(&core.shared);
        let Some(relay) = self.get(id) else { return };
        let addresses = match relay.what {
            What::Forward { place, .. } => &shared.forwards[place],
            What::Fetch { place, .. } => &shared.pulls[place],
        };
        let addresses = addresses.load();
        let Some(address) = addresses.get(relay.failures as usize % addresses.len().max(1)) else {
            return self.lost(core, id, &LinkError::NoAddress.to_string());
        };
        let (to, host) = ((*address, relay.remote.secure), relay.remote.host.clone());
        match connect(core, to, &host) {
            Ok(sock) => {
                relay.link = Some(Link::new(sock, relay.speech(), now));
                core.tasks.push(Task::Opened(ConnHead::new(sock, relay.role), LinkId::Relay(id)));
            }
            Err(error) => self.lost(core, id, &error.to_string()),
        }
    }

    /// The link of a relay that is connecting or connected.
    pub(super) fn link(&mut self, id: u32) -> Option<&mut Link> {
        self.get(id)?.link.as_mut()
    }

    /// Bytes from the other server.
    pub(super) fn received<E: Engine>(
        &mut self,
        core: &mut Core<E>,
        viewers: &mut Viewers,
        head: &mut ConnHead,
        id: u32,
        data: &[u8],
    ) -> Next {
        let (now, sock) = (core.now(), head.sock);
        let Some(relay) = self.get(id) else { return Next::Stay };
        let Some(link) = relay.link.as_mut().filter(|link| link.sock == sock) else {
            return Next::Stay; // its goodbye is being sent
        };
        let mut tags = Vec::new();
        let result = link.take(now, data, |event| {
            if let LinkEvent::Tag(tag) = event {
                tags.push(tag.clone());
            }
            Ok(())
        });
        let output = link.take_output();
        if !tags.is_empty() {
            core.counters[head.role].bytes_in.add(data.len() as u64);
            if let Err(error) = relay.write(core, &tags) {
                return Next::close(error.to_string());
            }
        }
        let said = output.map_or(Next::Stay, |output| viewers.say(core, head, output));
        match result {
            Err(error) => Next::close(error.to_string()),
            Ok(()) if !said.is_stay() => said,
            Ok(()) => {
                self.join(core, viewers, head, id);
                Next::Stay
            }
        }
    }

    /// A forward that was accepted, and has sent everything queued, joins the viewers.
    pub(super) fn join<E: Engine>(
        &mut self,
        core: &mut Core<E>,
        viewers: &mut Viewers,
        head: &mut ConnHead,
        id: u32,
    ) {
        if !head.out.is_empty() || head.viewer.is_some() {
            return;
        }
        let since = core.now();
        let Some(relay) = self.get(id) else { return };
        let (What::Forward { stream, .. }, Some(Link { stage: Stage::Running, .. })) =
            (&relay.what, &relay.link)
        else {
            return;
        };
        let stream = Arc::clone(stream);
        relay.failures = 0;
        info!(stream = stream.key.as_str(), to = %relay.remote, "forward begins");
        let framing = if relay.remote.rtmp { Framing::Rtmp } else { Framing::Chunked };
        let (selection, start, answer) = (Selection::All, StartAt::Newest, Bytes::new());
        let wish = Wish { selection, start, framing, answer, head_only: false, since };
        core.no_deadline(head.sock);
        viewers.join(core, head, &stream, wish);
    }

    /// The fan-out has removed a forward.
    pub(super) fn farewell<E: Engine>(
        &mut self,
        core: &mut Core<E>,
        viewers: &mut Viewers,
        head: &mut ConnHead,
        id: u32,
        farewell: Farewell,
    ) -> Next {
        if !matches!(farewell, Farewell::StreamEnded | Farewell::NeverBegan(_)) {
            return Next::close(farewell.to_string());
        }
        viewers.leave(core, head);
        let Some(relay) = self.relays[id as usize].take() else { return Next::Stay };
        info!(stream = relay.name().0, to = %relay.remote, "forward ended");
        let begun = farewell == Farewell::StreamEnded;
        let goodbye = relay.link.map_or_else(Bytes::new, |link| link.goodbye(begun));
        core.say_last(head, goodbye)
    }

    /// A connection of a relay is closed; its goodbye may have been sent before.
    pub(super) fn closed<E: Engine>(&mut self, core: &mut Core<E>, id: u32, sock: Sock, reason: &str) {
        let linked = self.get(id).and_then(|relay| relay.link.as_ref());
        if linked.is_some_and(|link| link.sock == sock) {
            self.lost(core, id, reason);
        }
    }

    /// The connection of a relay is lost, or could not be made: tries again later.
    fn lost<E: Engine>(&mut self, core: &mut Core<E>, id: u32, reason: &str) {
        let now = core.now();
        let Some(relay) = self.get(id) else { return };
        relay.link = None;
        relay.next_try = now + RETRY.pause(relay.failures);
        relay.failures += 1;
        if relay.failures == 1 {
            let (stream, what) = relay.name();
            warn!(stream, what, remote = %relay.remote, reason, "relay lost");
        }
        let role = relay.role;
        core.counters[role].reconnects.add(1);
        let What::Fetch { writer, .. } = &mut relay.what else { return };
        if let Some(mut writer) = writer.take() {
            core.counters[role].publishers.sub(1);
            core.announce(&mut writer);
            let role = core.role(role);
            role.directory.park(writer, now + role.gap);
        }
    }

    /// Checks all relays for what is due.
    pub(super) fn sweep<E: Engine>(&mut self, core: &mut Core<E>) {
        if !self.begun {
            self.begin(core);
        }
        let (now, draining) = (core.now(), core.is_draining());
        for place in 0..self.relays.len() {
            let Some(relay) = &self.relays[place] else { continue };
            let ended = matches!(&relay.what, What::Forward { stream, .. } if stream.has_ended());
            let timeouts = relay.timeouts(core.role(relay.role).silence);
            match &relay.link {
                None if ended => self.relays[place] = None,
                None if now >= relay.next_try && !draining => {
                    self.connect(core, u32::try_from(place).expect("one for each stream at the most"));
                }
                None => {}
                Some(link) => {
                    let late = link.overdue(now, &timeouts);
                    core.tasks.extend(late.map(|error| Task::Close(link.sock, error.to_string().into())));
                }
            }
        }
    }
}

impl Relay {
    /// Writes the tags that another server has sent.
    fn write<E: Engine>(&mut self, core: &mut Core<E>, tags: &[Tag]) -> Result<(), LinkError> {
        let (now, role) = (core.now(), self.role);
        self.failures = 0;
        let What::Fetch { key, writer, .. } = &mut self.what else { return Ok(()) };
        let writer = match writer {
            Some(writer) => writer,
            None => {
                let mut fresh = core.role(role).directory.publish(key, &Claim::fixed(now))?;
                info!(stream = key.as_str(), from = %self.remote, "fetch begins");
                fresh.begin_session();
                fresh.stream().began(now);
                core.counters[role].publishers.add(1);
                let stream = Arc::clone(fresh.stream());
                core.shared.tell_all(|| Message::Published { role, stream: Arc::clone(&stream) });
                writer.insert(fresh)
            }
        };
        writer.stream().heard(now);
        for tag in tags {
            writer.push(tag)?;
        }
        core.announce(writer);
        Ok(())
    }
}
