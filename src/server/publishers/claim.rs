//! A name that a publisher wants, has, and gives up: the same for all ways in.

use std::collections::HashMap;
use std::sync::Arc;

use tracing::info;

use crate::config::Config;
use crate::live::directory::{Claim, PublishError};
use crate::live::key::StreamKey;
use crate::live::stream::StreamWriter;
use crate::server::askers::{Askers, Ticket};
use crate::server::core::Core;
use crate::server::head::{ConnHead, Next};
use crate::server::shared::Message;
use crate::uring::{Engine, Millis, Sock};

/// Bytes a second below which a publisher counts as silent although something comes: 1 KiB.
const TRICKLE: u64 = 1024;
/// A publisher whose bytes are no media counts as alive for so many times the time that it may be silent.
const WITHOUT_MEDIA: u64 = 4;

/// What a publisher asks for.
#[derive(Clone, Debug)]
pub(in crate::server) struct Wish {
    pub(in crate::server) key: StreamKey,
    /// The `token` of its URL.
    pub(in crate::server) token: Option<String>,
    /// What it says it is.
    pub(in crate::server) agent: String,
}

impl Wish {
    pub(in crate::server) fn claim(&self, now: Millis) -> Claim<'_> {
        Claim { token: self.token.as_deref(), replaceable: true, now }
    }
}

/// What becomes of a claim.
#[derive(Debug)]
pub(in crate::server) enum Claimed {
    Granted,
    /// The publisher before it was told to give the name up; [`Publishers::take_claimants`] says when it has.
    Soon,
    Refused(String),
}

/// What a connection publishes, or wants to.
#[derive(Debug, Default)]
pub(in crate::server) struct Publication {
    /// What it wants to publish, once it said so.
    pub(in crate::server) wish: Option<Wish>,
    /// It waits for another publisher to give the name up.
    waits: Option<Ticket>,
    /// The stream it publishes.
    pub(in crate::server) writer: Option<Box<StreamWriter>>,
    life: Life,
}

/// Signs of life of a publisher besides its media, which its stream knows of.
#[derive(Debug, Default)]
struct Life {
    /// When its deadline was set last, and the bytes that have come since.
    looked: Millis,
    bytes: u64,
}

impl Life {
    /// How long it may go on without another sign; `None`: it is silent.
    ///
    /// Media is a sign. So are bytes that come at 1 KiB a second or faster, since one tag may take long on a
    /// slow line, but not for ever: a name is not held without media.
    /// `newest`: when the newest media came, or, before that, when the publisher began.
    fn left(&self, newest: Millis, now: Millis, silence: Millis) -> Option<Millis> {
        let quiet = now.saturating_sub(newest);
        if quiet < silence {
            return Some(silence - quiet);
        }
        let bytes_needed = TRICKLE * now.saturating_sub(self.looked) / 1000;
        let slow_line = self.bytes > 0 && self.bytes >= bytes_needed;
        (slow_line && quiet < WITHOUT_MEDIA * silence).then_some(silence)
    }
}

impl Publication {
    /// What a connection wants that has said so.
    pub(in crate::server) fn of(wish: Wish) -> Self {
        Self { wish: Some(wish), ..Self::default() }
    }

    /// The stream it publishes.
    pub(in crate::server) fn key(&self) -> Option<&StreamKey> {
        Some(&self.writer.as_ref()?.stream().key)
    }

    /// Whether it waits for another publisher to give the name up.
    pub(in crate::server) fn waits(&self) -> bool {
        self.waits.is_some()
    }

    /// The name it waits for has been given up, or it waits no more.
    pub(in crate::server) fn stop_waiting(&mut self) {
        self.waits = None;
    }

    /// Bytes of it have come.
    pub(in crate::server) fn heard(&mut self, bytes: usize, now: Millis) {
        self.life.bytes += bytes as u64;
        if let Some(writer) = &self.writer {
            writer.stream().heard(now);
        }
    }
}

/// The largest tag that a publisher may send, in bytes.
pub(in crate::server) fn tag_max(config: &Config) -> u32 {
    u32::try_from(config.live.tag_max).unwrap_or(u32::MAX)
}

/// The publishers of a loop: who has which stream, and who waits for one.
#[derive(Debug, Default)]
pub(in crate::server) struct Publishers {
    claimants: Askers,
    /// By the streams' ids.
    writing: HashMap<u64, Sock>,
}

impl Publishers {
    /// Claims the name that a publisher wants.
    pub(in crate::server) fn claim<E: Engine>(
        &mut self,
        core: &mut Core<E>,
        head: &ConnHead,
        publication: &mut Publication,
    ) -> Claimed {
        let (role, sock) = (head.role, head.sock);
        let wish = publication.wish.as_ref().expect("it said what it wants");
        let (now, name) = (core.now(), core.role(role).name);
        publication.waits = None;
        match core.role(role).directory.publish(&wish.key, &wish.claim(now)) {
            Ok(mut writer) => {
                let (peer, stream, agent) = (core.peer(sock), wish.key.as_str(), &wish.agent);
                info!(role = name, peer, stream, agent, "publisher came");
                writer.begin_session();
                writer.stream().began(now);
                publication.life = Life { looked: now, bytes: 0 };
                core.counters[role].publishers.add(1);
                core.deadline(sock, core.role(role).silence);
                let stream = Arc::clone(writer.stream());
                self.writing.insert(stream.id, sock);
                publication.writer = Some(writer);
                core.shared.tell_all(|| Message::Published { role, stream: Arc::clone(&stream) });
                Claimed::Granted
            }
            Err(PublishError::Soon(stream)) => {
                publication.waits = Some(self.claimants.add(role, &wish.key, sock));
                core.shared.tell_all(|| Message::GiveUp { role, stream: Arc::clone(&stream) });
                Claimed::Soon
            }
            Err(error @ PublishError::Taken) => {
                core.log_refusal(head, wish.key.as_str(), &error.to_string());
                Claimed::Refused(error.to_string())
            }
        }
    }

    /// A stream has been given up: takes out those of this loop that wait for it.
    pub(in crate::server) fn take_claimants(&mut self, role: usize, key: &StreamKey) -> Vec<Sock> {
        self.claimants.take(role, key)
    }

    /// The connection of this loop that writes the stream of that id.
    pub(in crate::server) fn writer_of(&self, stream: u64) -> Option<Sock> {
        self.writing.get(&stream).copied()
    }

    /// A publisher wants nothing any more: what it has is given up, and it does not wait.
    pub(in crate::server) fn give_up<E: Engine>(
        &mut self,
        core: &mut Core<E>,
        head: &ConnHead,
        publication: &mut Publication,
        reason: &str,
    ) {
        if let (Some(ticket), Some(wish)) = (publication.waits.take(), &publication.wish) {
            self.claimants.remove(head.role, &wish.key, ticket);
        }
        self.end(core, head, publication, reason);
    }

    /// Takes the stream away from its publisher; its viewers stay for the role's gap.
    pub(in crate::server) fn end<E: Engine>(
        &mut self,
        core: &mut Core<E>,
        head: &ConnHead,
        publication: &mut Publication,
        reason: &str,
    ) {
        let Some(mut writer) = publication.writer.take() else { return };
        let role = head.role;
        info!(role = core.role(role).name, stream = writer.stream().key.as_str(), reason, "publish ended");
        core.counters[role].publishers.sub(1);
        core.announce(&mut writer);
        let stream = Arc::clone(writer.stream());
        self.writing.remove(&stream.id);
        let until = core.now() + core.role(role).gap;
        if core.role(role).directory.park(writer, until) {
            core.shared.tell_all(|| Message::GivenUp { role, stream: Arc::clone(&stream) });
        }
    }

    /// A publisher's deadline has passed: whether it goes on.
    pub(in crate::server) fn deadline<E: Engine>(
        &mut self,
        core: &mut Core<E>,
        head: &ConnHead,
        publication: &mut Publication,
    ) -> Result<(), Next> {
        let (now, silence) = (core.now(), core.role(head.role).silence);
        let (life, Some(writer)) = (&mut publication.life, &publication.writer) else { return Ok(()) };
        let stream = writer.stream();
        let newest = stream.newest_media().unwrap_or_else(|| now.saturating_sub(stream.uptime(now)));
        let Some(left) = life.left(newest, now, silence) else {
            return Err(Next::refuse(format!("it sent no media for {silence} ms")));
        };
        (life.looked, life.bytes) = (now, 0);
        core.deadline(head.sock, left);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SILENCE: Millis = 15_000;

    #[test]
    fn a_name_is_held_by_media() {
        let mut life = Life { looked: 1_000, bytes: 15 };
        assert_eq!(life.left(1_000, 1_000, SILENCE), Some(SILENCE));
        assert_eq!(life.left(1_000, 15_999, SILENCE), Some(1));
        assert_eq!(life.left(1_000, 16_000, SILENCE), None, "a byte a second holds no name");
        (life.looked, life.bytes) = (60_000, 1 << 30);
        assert_eq!(life.left(1_000, 60_999, SILENCE), Some(SILENCE));
        assert_eq!(life.left(1_000, 61_000, SILENCE), None, "bytes alone hold no name");
    }

    #[test]
    fn a_slow_line_is_not_silent() {
        let at = |bytes| Life { looked: 1_000, bytes };
        assert_eq!(at(15 * 1024 - 1).left(1_000, 16_000, SILENCE), None);
        assert_eq!(at(15 * 1024).left(1_000, 16_000, SILENCE), Some(SILENCE));
    }
}
