//! RTMP publishers: a session's events become a stream.

use super::super::conn::{Conn, Fate};
use super::super::worker::Worker;
use super::{Claimed, Ingest, Publisher, Wish, publisher_of};
use crate::live::key::StreamKey;
use crate::protocol::rtmp::server::{Event, Refusal, ServerSession};
use crate::protocol::rtmp::target::Target;
use crate::uring::{Engine, Sock};

impl Publisher {
    fn session(&mut self) -> &mut ServerSession {
        let Ingest::Rtmp(session) = &mut self.ingest else { unreachable!("asked by kind") };
        session
    }
}

impl<E: Engine> Worker<E> {
    pub(super) fn rtmp_received(&mut self, conn: &mut Conn, data: &[u8]) -> Fate {
        let result = publisher_of(conn).session().input(data);
        match (self.rtmp_events(conn), result) {
            (Fate::Keep, Err(error)) => Fate::Refuse(error.to_string()),
            (fate, _) => fate,
        }
    }

    /// Does what the session's events ask for and sends what it has to say.
    fn rtmp_events(&mut self, conn: &mut Conn) -> Fate {
        let (role, sock, publisher) = (conn.role, conn.sock, publisher_of(conn));
        let mut fate = Fate::Keep;
        while let (Fate::Keep, Some(event)) = (&fate, publisher.session().poll_event()) {
            fate = self.on_session_event(role, sock, publisher, event);
        }
        if let Some(writer) = &mut publisher.writer {
            self.announce(writer);
        }
        let Some(output) = publisher.session().take_output() else { return fate };
        let said = self.say(conn, output);
        if fate == Fate::Keep { said } else { fate }
    }

    fn on_session_event(&mut self, role: usize, sock: Sock, publisher: &mut Publisher, event: Event) -> Fate {
        match event {
            Event::Publish { target, agent, .. } => self.on_publish(role, sock, publisher, &target, agent),
            Event::Play { target } => {
                let name = format!("{}/{}", target.app, target.name);
                publisher.session().refuse_play(
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
            Event::Unpublish => {
                (publisher.wish, publisher.waits) = (None, false);
                self.end_publish(role, publisher, "it said so");
            }
        }
        Fate::Keep
    }

    fn on_publish(
        &mut self,
        role: usize,
        sock: Sock,
        publisher: &mut Publisher,
        target: &Target,
        agent: String,
    ) {
        let name = format!("{}/{}", target.app, target.name);
        match StreamKey::parse(&name) {
            Ok(key) => {
                let token = target.parameter("token");
                publisher.wish = Some(Wish { key, token, agent });
                self.rtmp_claim(role, sock, publisher);
            }
            Err(error) => {
                self.refused(role, sock, &name, &error.to_string());
                publisher.session().refuse_publish(Refusal::BadName, &error.to_string());
            }
        }
    }

    fn rtmp_claim(&mut self, role: usize, sock: Sock, publisher: &mut Publisher) {
        match self.claim(role, sock, publisher) {
            Claimed::Granted => publisher.session().accept_publish(),
            Claimed::Soon => {}
            Claimed::Refused(reason) => {
                publisher.wish = None;
                publisher.session().refuse_publish(Refusal::BadName, &reason);
            }
        }
    }

    /// The name that it waited for has been given up.
    pub(super) fn rtmp_claims(&mut self, conn: &mut Conn) -> Fate {
        let (role, sock) = (conn.role, conn.sock);
        self.rtmp_claim(role, sock, publisher_of(conn));
        self.rtmp_events(conn)
    }
}
