//! RTMP publishers: a session's events become a stream.

use super::super::conn::{Conn, Fate};
use super::super::rtmp::rtmp_of;
use super::super::worker::Worker;
use super::{Claimed, Wish, publisher_of};
use crate::live::key::StreamKey;
use crate::media::tag::Tag;
use crate::protocol::rtmp::server::Refusal;
use crate::protocol::rtmp::target::Target;
use crate::uring::Engine;

impl<E: Engine> Worker<E> {
    pub(in crate::server) fn on_publish(&mut self, conn: &mut Conn, target: &Target, agent: String) {
        let name = format!("{}/{}", target.app, target.name);
        match StreamKey::parse(&name) {
            Ok(key) => {
                let token = target.parameter("token");
                publisher_of(conn).wish = Some(Wish { key, token, agent });
                self.rtmp_claim(conn);
            }
            Err(error) => {
                self.refused(conn.role, conn.sock, &name, &error.to_string());
                rtmp_of(conn).session.refuse_publish(Refusal::BadName, &error.to_string());
            }
        }
    }

    fn rtmp_claim(&mut self, conn: &mut Conn) {
        match self.claim(conn) {
            Claimed::Granted => rtmp_of(conn).session.accept_publish(),
            Claimed::Soon => {}
            Claimed::Refused(reason) => {
                publisher_of(conn).wish = None;
                rtmp_of(conn).session.refuse_publish(Refusal::BadName, &reason);
            }
        }
    }

    /// The name that it waited for has been given up.
    pub(super) fn rtmp_claims(&mut self, conn: &mut Conn) -> Fate {
        self.rtmp_claim(conn);
        self.rtmp_events(conn)
    }

    pub(in crate::server) fn on_media(&mut self, conn: &mut Conn, tag: &Tag) -> Fate {
        let Some(writer) = &mut publisher_of(conn).writer else { return Fate::Keep };
        match writer.push(tag) {
            Ok(()) => Fate::Keep,
            Err(error) => Fate::Close(format!("no memory for its stream: {error}")),
        }
    }

    pub(in crate::server) fn on_unpublish(&mut self, conn: &mut Conn) {
        let (role, publisher) = (conn.role, publisher_of(conn));
        (publisher.wish, publisher.waits) = (None, false);
        self.end_publish(role, publisher, "it said so");
    }
}
