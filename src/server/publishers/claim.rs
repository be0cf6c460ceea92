//! Claiming, holding and giving up a stream name: the same for all ways to publish.

use std::collections::HashMap;
use std::sync::Arc;

use tracing::info;

use super::pacing::Pacing;
use crate::config::Config;
use crate::live::directory::{Claim, PublishError};
use crate::live::key::StreamKey;
use crate::live::stream::StreamWriter;
use crate::server::askers::{Askers, Ticket};
use crate::server::core::Core;
use crate::server::head::{ConnHead, Next};
use crate::server::limits::{Kind, Pass, Refused};
use crate::server::log_limit::LineKind;
use crate::server::shared::Message;
use crate::uring::{Engine, Millis, Sock};

/// App names that no stream may have, since they are paths of the server.
const RESERVED: [&str; 4] = ["hls", "mp4", "flv", "api"];
/// In bytes a second: a publisher that sends less counts as silent: 1 KiB.
const TRICKLE: u64 = 1024;
/// The time over which a publisher's bit rate is measured.
const FLOW: Millis = 10_000;
/// How long a publisher waits for its recording before it is looked at again, in the next sweep.
const PAUSE: Millis = 50;
/// A publisher that sends bytes but no media counts as alive for this many times the allowed silence.
const WITHOUT_MEDIA: u64 = 4;

/// What a publisher asks for.
#[derive(Clone, Debug)]
pub(in crate::server) struct Wish {
    pub(in crate::server) key: StreamKey,
    /// Its identity, by the key or the token that it has shown.
    pub(in crate::server) token: Option<String>,
    /// The software that it says it is.
    pub(in crate::server) agent: String,
}

impl Wish {
    pub(in crate::server) fn claim(&self, now: Millis) -> Claim<'_> {
        Claim { token: self.token.as_deref(), replaceable: true, now }
    }
}

/// The result of a claim.
#[derive(Debug)]
pub(in crate::server) enum Claimed {
    Granted,
    /// The previous publisher was asked to give the name up; [`Publishers::take_claimants`] returns this one
    /// when it has.
    Soon,
    Refused(Refused),
}

/// What a connection publishes, or is about to publish.
#[derive(Debug, Default)]
pub(in crate::server) struct Publication {
    /// What it asked to publish.
    pub(in crate::server) wish: Option<Wish>,
    /// It waits for another publisher to give the name up.
    waits: Option<Ticket>,
    /// The stream it publishes.
    pub(in crate::server) writer: Option<Box<StreamWriter>>,
    life: Life,
    flow: Flow,
    pacing: Pacing,
    /// Its count among the publishers of its address.
    pass: Option<Pass>,
}

/// Measures how much a publisher sends.
#[derive(Debug, Default)]
struct Flow {
    /// When the current measurement began, and the bytes since then.
    since: Millis,
    bytes: u64,
}

impl Flow {
    /// Counts bytes; returns the bits a second of a measurement that is complete.
    fn count(&mut self, bytes: usize, now: Millis) -> Option<u64> {
        self.bytes += bytes as u64;
        let passed = now.saturating_sub(self.since);
        if passed < FLOW {
            return None;
        }
        let rate = self.bytes.saturating_mul(8_000) / passed;
        *self = Self { since: now, bytes: 0 };
        Some(rate)
    }
}

/// Signs of life of a publisher other than its media, which its stream records.
#[derive(Debug, Default)]
struct Life {
    /// When its deadline was set last, and the bytes received since then.
    looked: Millis,
    bytes: u64,
}

impl Life {
    /// How long it may continue without another sign of life; `None`: it is silent.
    ///
    /// Media is a sign of life. So are bytes at 1 KiB a second or faster, since one tag may take long on a slow
    /// line, but not for ever: a name is not held without media. `newest` is the time of the newest media or,
    /// before any media, of the publisher's start.
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
    /// The publication of a connection that has asked for it.
    pub(in crate::server) fn of(wish: Wish) -> Self {
        Self { wish: Some(wish), ..Self::default() }
    }

    /// Whether it waits for another publisher to give the name up.
    pub(in crate::server) fn waits(&self) -> bool {
        self.waits.is_some()
    }

    /// Lets it wait while it is too far ahead of real time and of its recording. Call it when its tags are in the log.
    pub(in crate::server) fn pace<E: Engine>(&mut self, core: &mut Core<E>, head: &ConnHead) {
        let Some(writer) = &self.writer else { return };
        let was_paused = self.pacing.is_paused();
        let is_paused = self.pacing.look(writer, core.now());
        if is_paused != was_paused {
            core.net.set_receiving(head.sock, !is_paused);
        }
        match (was_paused, is_paused) {
            (_, true) => core.deadline(head.sock, PAUSE),
            (true, false) => core.deadline(head.sock, core.role(head.role).silence),
            (false, false) => {}
        }
    }

    /// Counts bytes received from it.
    ///
    /// # Errors
    /// [`Refused::Bitrate`] when it sends more than it may.
    pub(in crate::server) fn heard<E: Engine>(
        &mut self,
        core: &Core<E>,
        head: &ConnHead,
        bytes: usize,
    ) -> Result<(), Refused> {
        let now = core.now();
        self.life.bytes += bytes as u64;
        let Some(writer) = &self.writer else { return Ok(()) };
        writer.stream().heard(now);
        let limit = core.shared.config.limits.publish_bitrate.bits;
        match self.flow.count(bytes, now) {
            Some(rate) if limit > 0 && rate > limit => {
                let exempt = core.shared.address_limits.is_exempt(head.address);
                if exempt { Ok(()) } else { Err(Refused::Bitrate) }
            }
            _ => Ok(()),
        }
    }
}

/// The largest tag that a publisher may send, in bytes.
pub(in crate::server) fn tag_max(config: &Config) -> u32 {
    u32::try_from(config.live.tag_max).unwrap_or(u32::MAX)
}

/// The publishers of a loop: which connection writes which stream, and which ones wait for a name.
#[derive(Debug, Default)]
pub(in crate::server) struct Publishers {
    claimants: Askers,
    /// By stream id.
    writing: HashMap<u64, Sock>,
}

impl Publishers {
    /// Claims the name that a publisher asked for.
    pub(in crate::server) fn claim<E: Engine>(
        &mut self,
        core: &mut Core<E>,
        head: &ConnHead,
        publication: &mut Publication,
    ) -> Claimed {
        let (role, sock) = (head.role, head.sock);
        let wish = publication.wish.as_ref().expect("it has asked for a name");
        let (now, name) = (core.now(), core.role(role).name);
        publication.waits = None;
        let pass = match self.admit(core, head, wish) {
            Ok(pass) => pass,
            Err(why) => return refuse(core, head, wish, why),
        };
        match core.role(role).directory.publish(&wish.key, &wish.claim(now)) {
            Ok(mut writer) => {
                if core.may_log(LineKind::Publisher) {
                    let (peer, stream, agent) = (core.peer(sock), wish.key.as_str(), &wish.agent);
                    info!(role = name, peer, stream, agent, "publisher came");
                }
                writer.begin_session();
                writer.stream().began(now);
                publication.life = Life { looked: now, bytes: 0 };
                publication.flow = Flow { since: now, bytes: 0 };
                publication.pacing = Pacing::default();
                publication.pass = pass;
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
            Err(PublishError::Taken) => refuse(core, head, wish, Refused::Taken),
        }
    }

    /// Whether the server's limits admit another publisher.
    fn admit<E: Engine>(
        &self,
        core: &Core<E>,
        head: &ConnHead,
        wish: &Wish,
    ) -> Result<Option<Pass>, Refused> {
        let shared = &core.shared;
        let app = wish.key.as_str().split('/').next().unwrap_or_default();
        if RESERVED.contains(&app) {
            return Err(Refused::Reserved);
        }
        // A publisher that continues its stream already has its memory.
        if shared.roles[head.role].directory.get(&wish.key).is_none() {
            let streams = shared.config.limits.streams;
            if streams > 0 && shared.streams() >= streams {
                return Err(Refused::Streams);
            }
            if !shared.budget.admits_publisher() {
                return Err(Refused::Memory);
            }
        }
        shared.address_limits.enter(Kind::Publish, head.address)
    }

    /// The connections of this loop that write streams.
    pub(in crate::server) fn writers(&self) -> Vec<Sock> {
        let mut writers: Vec<(u64, Sock)> = self.writing.iter().map(|(id, sock)| (*id, *sock)).collect();
        writers.sort_unstable_by_key(|(id, _)| *id);
        writers.into_iter().map(|(_, sock)| sock).collect()
    }

    /// A stream has been given up: takes out the publishers of this loop that wait for it.
    pub(in crate::server) fn take_claimants(&mut self, role: usize, key: &StreamKey) -> Vec<Sock> {
        self.claimants.take(role, key)
    }

    /// The names that publishers of this loop wait for, with their roles.
    pub(in crate::server) fn claimed(&self) -> Vec<(usize, StreamKey)> {
        self.claimants.streams()
    }

    /// The connection of this loop that writes the stream with that id.
    pub(in crate::server) fn writer_of(&self, stream: u64) -> Option<Sock> {
        self.writing.get(&stream).copied()
    }

    /// Ends a publication: gives up its stream, and stops waiting for a name.
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
        publication.pass = None;
        if std::mem::take(&mut publication.pacing).is_paused() {
            core.net.set_receiving(head.sock, true);
        }
        let role = head.role;
        if core.may_log(LineKind::Publisher) {
            info!(
                role = core.role(role).name,
                stream = writer.stream().key.as_str(),
                reason,
                "publish ended"
            );
        }
        core.counters[role].publishers.sub(1);
        core.announce(&mut writer);
        let stream = Arc::clone(writer.stream());
        self.writing.remove(&stream.id);
        let until = core.now() + core.role(role).gap;
        if core.role(role).directory.park(writer, until) {
            core.shared.tell_all(|| Message::GivenUp { role, stream: Arc::clone(&stream) });
        }
    }

    /// A publisher's deadline has passed: decides whether it continues.
    pub(in crate::server) fn deadline<E: Engine>(
        &mut self,
        core: &mut Core<E>,
        head: &ConnHead,
        publication: &mut Publication,
    ) -> Result<(), Next> {
        if publication.pacing.is_paused() {
            publication.pace(core, head);
            return Ok(());
        }
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

fn refuse<E: Engine>(core: &mut Core<E>, head: &ConnHead, wish: &Wish, why: Refused) -> Claimed {
    core.count_refusal(head.role, why);
    core.log_refusal(head, wish.key.as_str(), &why.to_string());
    Claimed::Refused(why)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SILENCE: Millis = 15_000;

    #[test]
    fn a_name_is_held_by_media_alone() {
        let mut life = Life { looked: 1_000, bytes: 15 };
        assert_eq!(life.left(1_000, 1_000, SILENCE), Some(SILENCE));
        assert_eq!(life.left(1_000, 15_999, SILENCE), Some(1));
        assert_eq!(life.left(1_000, 16_000, SILENCE), None, "a byte a second does not hold a name");
        (life.looked, life.bytes) = (60_000, 1 << 30);
        assert_eq!(life.left(1_000, 60_999, SILENCE), Some(SILENCE));
        assert_eq!(life.left(1_000, 61_000, SILENCE), None, "bytes without media do not hold a name");
    }

    #[test]
    fn a_slow_line_is_not_silent() {
        let at = |bytes| Life { looked: 1_000, bytes };
        assert_eq!(at(15 * 1024 - 1).left(1_000, 16_000, SILENCE), None);
        assert_eq!(at(15 * 1024).left(1_000, 16_000, SILENCE), Some(SILENCE));
    }
}
