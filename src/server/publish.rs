//! Publishers: however their tags come in, one claims a name, writes its stream and gives it up again.
//!
//! [`rtmp`] and [`flv`] (HTTP and WebSocket) differ in how tags are obtained and in what is answered; who may
//! have a name, silence and the end are the same for all and stand here.

mod flv;
mod rtmp;

use std::sync::Arc;

use tracing::{info, warn};

use super::conn::{Conn, Fate, Kind};
use super::shared::Message;
use super::worker::Worker;
use crate::config::Config;
use crate::live::directory::{Claim, PublishError};
use crate::live::key::StreamKey;
use crate::live::stream::{Stream, StreamWriter};
use crate::protocol::push::FlvPush;
use crate::uring::{Engine, Millis, Sock};

/// A connection that publishes, or is about to.
#[derive(Debug)]
pub(super) struct Publisher {
    ingest: Ingest,
    /// What it wants to publish, once it said so.
    wish: Option<Wish>,
    /// It waits for another one to give the name up.
    waits: bool,
    /// The stream it publishes.
    pub(super) writer: Option<Box<StreamWriter>>,
    /// When its last byte came: one tag may take long on a slow line.
    heard: Millis,
}

/// How its tags are obtained.
#[derive(Debug)]
enum Ingest {
    /// By the connection's session.
    Rtmp,
    Flv(Box<FlvPush>),
}

/// What a publisher asks for.
#[derive(Clone, Debug)]
struct Wish {
    key: StreamKey,
    /// The `token` of its URL.
    token: Option<String>,
    /// What it says it is.
    agent: String,
}

impl Wish {
    fn claim(&self, now: Millis) -> Claim<'_> {
        Claim { token: self.token.as_deref(), replaceable: true, now }
    }
}

/// What becomes of a claim.
#[derive(Debug)]
enum Claimed {
    Granted,
    /// The publisher before it was told to give the name up; [`Worker::on_given_up`] goes on.
    Soon,
    Refused(String),
}

impl Publisher {
    /// A connection that speaks RTMP and has asked for nothing yet.
    pub(super) fn rtmp() -> Self {
        Self::new(Ingest::Rtmp, None)
    }

    fn new(ingest: Ingest, wish: Option<Wish>) -> Self {
        Self { ingest, wish, waits: false, writer: None, heard: 0 }
    }

    /// The stream it publishes.
    pub(super) fn key(&self) -> Option<&StreamKey> {
        Some(&self.writer.as_ref()?.stream().key)
    }
}

/// The largest tag that a publisher may send, in bytes.
pub(super) fn tag_max(config: &Config) -> u32 {
    u32::try_from(config.live.tag_max).unwrap_or(u32::MAX)
}

/// The publisher that a handler was called for.
fn publisher_of(conn: &mut Conn) -> &mut Publisher {
    let Kind::Publisher(publisher) = &mut conn.kind else { unreachable!("asked by kind") };
    publisher
}

impl<E: Engine> Worker<E> {
    pub(super) fn publisher_received(&mut self, conn: &mut Conn, data: &[u8]) -> Fate {
        if conn.out.last_words {
            return Fate::Keep; // it was told why it cannot go on
        }
        self.counters[conn.role].bytes_in.add(data.len() as u64);
        let (now, publisher) = (self.engine.now(), publisher_of(conn));
        publisher.heard = now;
        if let Some(writer) = &publisher.writer {
            writer.stream().heard(now);
        }
        match publisher.ingest {
            Ingest::Rtmp => self.rtmp_received(conn, data),
            Ingest::Flv(_) => self.flv_received(conn, data),
        }
    }

    /// Claims the name that a publisher wants.
    fn claim(&mut self, conn: &mut Conn) -> Claimed {
        let (role, sock, publisher) = (conn.role, conn.sock, publisher_of(conn));
        let wish = publisher.wish.as_ref().expect("it said what it wants");
        let (now, name) = (self.engine.now(), self.role(role).name);
        publisher.waits = false;
        match self.role(role).directory.publish(&wish.key, &wish.claim(now)) {
            Ok(mut writer) => {
                let (peer, stream, agent) = (self.peer(sock), wish.key.as_str(), &wish.agent);
                info!(role = name, peer, stream, agent, "publisher came");
                writer.begin_session();
                writer.stream().began(now);
                publisher.heard = now;
                self.counters[role].publishers.add(1);
                self.deadline(sock, self.role(role).silence);
                let stream = Arc::clone(writer.stream());
                publisher.writer = Some(writer);
                self.shared.tell_all(|| Message::Published { role, stream: Arc::clone(&stream) });
                Claimed::Granted
            }
            Err(PublishError::Soon(stream)) => {
                publisher.waits = true;
                self.claimants.push(sock);
                self.shared.tell_all(|| Message::GiveUp { role, stream: Arc::clone(&stream) });
                Claimed::Soon
            }
            Err(error @ PublishError::Taken) => {
                self.refused(role, sock, wish.key.as_str(), &error.to_string());
                Claimed::Refused(error.to_string())
            }
        }
    }

    fn refused(&self, role: usize, sock: Sock, stream: &str, reason: &str) {
        warn!(role = self.role(role).name, peer = self.peer(sock), stream, reason, "refused a publisher");
    }

    /// A stream has been given up: those of this loop that wait for it claim it again.
    pub(super) fn on_given_up(&mut self, role: usize, stream: &Stream) {
        for sock in std::mem::take(&mut self.claimants) {
            let mut waits_on = false;
            self.with(sock, |worker, conn| {
                let Kind::Publisher(publisher) = &conn.kind else { return Fate::Keep };
                let (own_role, wish) = (conn.role, publisher.wish.as_ref().filter(|_| publisher.waits));
                if !wish.is_some_and(|wish| own_role == role && wish.key == stream.key) {
                    waits_on = publisher.waits;
                    return Fate::Keep;
                }
                match publisher.ingest {
                    Ingest::Rtmp => worker.rtmp_claims(conn),
                    Ingest::Flv(_) => worker.flv_claims(conn),
                }
            });
            if waits_on {
                self.claimants.push(sock);
            }
        }
    }

    /// Another publisher takes a stream over: who writes it here is told so. It may be too late: the other one may have
    /// been given it meanwhile, and be here itself.
    pub(super) fn on_give_up(&mut self, role: usize, stream: &Stream) {
        if self.role(role).directory.is_wanted(stream) {
            self.take_from_publisher(stream.id, 409, "another publisher has taken the stream over");
        }
    }

    /// An operator wants a stream's publisher gone; whether it is one of this loop.
    pub(super) fn on_kick_publisher(&mut self, stream: u64) -> bool {
        self.take_from_publisher(stream, 403, "an operator has ended it")
    }

    fn take_from_publisher(&mut self, stream: u64, status: u16, reason: &str) -> bool {
        let owns = |conn: &&Conn| match &conn.kind {
            Kind::Publisher(publisher) => publisher.writer.as_ref().is_some_and(|w| w.stream().id == stream),
            _ => false,
        };
        let Some(sock) = self.conns.iter().flatten().find(owns).map(|conn| conn.sock) else { return false };
        self.with(sock, |worker, conn| {
            worker.end_publish(conn.role, publisher_of(conn), reason);
            let goodbye = goodbye(conn, status, reason);
            worker.say_last(conn, goodbye)
        });
        true
    }

    /// Takes the stream away from its publisher; whoever watches stays for the role's gap.
    fn end_publish(&mut self, role: usize, publisher: &mut Publisher, reason: &str) {
        let Some(mut writer) = publisher.writer.take() else { return };
        info!(role = self.role(role).name, stream = writer.stream().key.as_str(), reason, "publish ended");
        self.counters[role].publishers.sub(1);
        self.announce(&mut writer);
        let stream = Arc::clone(writer.stream());
        let until = self.engine.now() + self.role(role).gap;
        if self.role(role).directory.park(writer, until) {
            self.shared.tell_all(|| Message::GivenUp { role, stream: Arc::clone(&stream) });
        }
    }

    /// The connection is gone.
    pub(super) fn unpublish(&mut self, role: usize, mut publisher: Publisher) {
        self.end_publish(role, &mut publisher, "the connection ended");
    }

    pub(super) fn publisher_deadline(&mut self, conn: &mut Conn) -> Fate {
        let (role, sock, publisher) = (conn.role, conn.sock, publisher_of(conn));
        if publisher.writer.is_none() {
            const REASON: &str = "it did not publish in time";
            let status = if publisher_of(conn).wish.is_some() { 409 } else { 408 };
            let goodbye = goodbye(conn, status, REASON);
            self.refused(role, sock, "", REASON);
            self.counters[role].bad_peers.add(1);
            return self.say_last(conn, goodbye);
        }
        let silence = self.role(role).silence;
        let silent = self.engine.now().saturating_sub(publisher.heard);
        if silent >= silence {
            return Fate::Refuse(format!("it sent nothing for {silent} ms"));
        }
        self.deadline(sock, silence - silent);
        Fate::Keep
    }
}

/// The last words to a publisher whose time is over, through no fault of its bytes.
fn goodbye(conn: &mut Conn, status: u16, reason: &str) -> bytes::Bytes {
    if let Some(peer) = &mut conn.rtmp {
        peer.session.end_publish(reason);
        return peer.session.take_output().unwrap_or_default();
    }
    let publisher = publisher_of(conn);
    match &publisher.ingest {
        Ingest::Flv(push) if push.is_websocket() => flv::close(crate::protocol::ws::code::POLICY, reason),
        _ => flv::page(status, reason),
    }
}
