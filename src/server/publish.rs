//! RTMP publishers: a session's events become a stream.

use std::sync::Arc;

use tracing::{info, warn};

use super::conn::{Conn, Fate, Kind};
use super::shared::Message;
use super::worker::Worker;
use crate::config::Config;
use crate::live::key::StreamKey;
use crate::live::stream::StreamWriter;
use crate::protocol::rtmp::server::{Event, Limits, Refusal, ServerSession};
use crate::protocol::rtmp::target::Target;
use crate::uring::{Engine, Millis};

/// An RTMP connection.
#[derive(Debug)]
pub(super) struct Publisher {
    session: ServerSession,
    /// The stream it publishes.
    writer: Option<Box<StreamWriter>>,
    last_media: Millis,
}

impl Publisher {
    pub(super) fn new(config: &Config) -> Self {
        let message_max = u32::try_from(config.live.tag_max).unwrap_or(u32::MAX);
        let session = ServerSession::new(Limits { message_max, ..Limits::default() });
        Self { session, writer: None, last_media: 0 }
    }

    /// The stream it publishes.
    pub(super) fn key(&self) -> Option<&StreamKey> {
        Some(&self.writer.as_ref()?.stream().key)
    }
}

impl<E: Engine> Worker<E> {
    pub(super) fn publisher_received(&mut self, conn: &mut Conn, data: &[u8]) -> Fate {
        let Kind::Publisher(publisher) = &mut conn.kind else { unreachable!("asked by kind") };
        self.counters[conn.role].bytes_in.add(data.len() as u64);
        let result = publisher.session.input(data);
        let mut fate = Fate::Keep;
        while let (Fate::Keep, Some(event)) = (&fate, publisher.session.poll_event()) {
            fate = self.on_session_event(conn.role, conn.sock, publisher, event);
        }
        if let Some(writer) = &mut publisher.writer {
            self.announce(writer);
        }
        let output = publisher.session.take_output();
        if let Some(output) = output {
            let said = self.say(conn, output);
            if fate == Fate::Keep {
                fate = said;
            }
        }
        match (fate, result) {
            (Fate::Keep, Err(error)) => Fate::Refuse(error.to_string()),
            (fate, _) => fate,
        }
    }

    fn on_session_event(
        &mut self,
        role: usize,
        sock: crate::uring::Sock,
        publisher: &mut Publisher,
        event: Event,
    ) -> Fate {
        match event {
            Event::Publish { target, agent, .. } => self.on_publish(role, sock, publisher, &target, &agent),
            Event::Play { target } => {
                let name = format!("{}/{}", target.app, target.name);
                publisher.session.refuse_play(
                    Refusal::NotFound,
                    &format!("play {name} by HTTP-FLV: this server does not play by RTMP yet"),
                );
            }
            Event::Media(tag) => {
                publisher.last_media = self.engine.now();
                let Some(writer) = &mut publisher.writer else { return Fate::Keep };
                if let Err(error) = writer.push(&tag) {
                    return Fate::Close(format!("no memory for its stream: {error}"));
                }
            }
            Event::Unpublish => self.end_publish(role, publisher, "it said so"),
        }
        Fate::Keep
    }

    fn on_publish(
        &mut self,
        role: usize,
        sock: crate::uring::Sock,
        publisher: &mut Publisher,
        target: &Target,
        agent: &str,
    ) {
        let name = format!("{}/{}", target.app, target.name);
        let peer = self.peer(sock);
        let granted = StreamKey::parse(&name).map_err(|error| error.to_string()).and_then(|key| {
            let writer = self.role(role).directory.publish(&key);
            Ok((key, writer.map_err(|error| error.to_string())?))
        });
        let (key, mut writer) = match granted {
            Ok(granted) => granted,
            Err(reason) => {
                warn!(role = self.role(role).name, peer, stream = name, reason, "refused a publisher");
                publisher.session.refuse_publish(Refusal::BadName, &reason);
                return;
            }
        };
        info!(role = self.role(role).name, peer, stream = key.as_str(), agent, "publisher came");
        publisher.session.accept_publish();
        writer.begin_session();
        writer.stream().began(self.engine.now());
        publisher.last_media = self.engine.now();
        self.counters[role].publishers.add(1);
        self.deadline(sock, self.role(role).silence);
        let stream = Arc::clone(writer.stream());
        publisher.writer = Some(writer);
        self.shared.tell_all(|| Message::Published { role, stream: Arc::clone(&stream) });
    }

    fn end_publish(&mut self, role: usize, publisher: &mut Publisher, reason: &str) {
        let Some(mut writer) = publisher.writer.take() else { return };
        let key = writer.stream().key.clone();
        info!(role = self.role(role).name, stream = key.as_str(), reason, "publish ended");
        self.counters[role].publishers.sub(1);
        self.announce(&mut writer);
        let role = self.role(role);
        role.directory.park(writer, self.engine.now() + role.gap);
    }

    /// The connection is gone.
    pub(super) fn unpublish(&mut self, role: usize, mut publisher: Publisher) {
        self.end_publish(role, &mut publisher, "the connection ended");
    }

    pub(super) fn publisher_deadline(&mut self, conn: &mut Conn) -> Fate {
        let Kind::Publisher(publisher) = &conn.kind else { unreachable!("asked by kind") };
        if publisher.writer.is_none() {
            return Fate::Refuse("it did not publish in time".to_owned());
        }
        let silence = self.role(conn.role).silence;
        let silent = self.engine.now().saturating_sub(publisher.last_media);
        if silent >= silence {
            return Fate::Refuse(format!("it published nothing for {silent} ms"));
        }
        self.deadline(conn.sock, silence - silent);
        Fate::Keep
    }
}
