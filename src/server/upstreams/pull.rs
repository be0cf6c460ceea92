//! Streams pulled from an upstream: one pull per stream, regardless of the number of viewers.
//!
//! A pull begins with the first viewer and outlives the last one for a while; a pull that has received nothing
//! yet ends with its last viewer. When its upstream is lost, the viewers stay and it connects again, to the
//! next upstream if there are several; if the stream has the same timeline as before, the cut leaves no trace.
//! It ends when no viewer is left, or when the upstream answers that the stream is over.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use tracing::{debug, info, warn};

use super::link::{ANSWER, Link, LinkError, LinkEvent, Speech, Stage, Timeouts, connect};
use crate::live::directory::Claim;
use crate::live::key::StreamKey;
use crate::live::stream::{Stream, StreamWriter};
use crate::protocol::http::client::ResponseHead;
use crate::server::core::{Core, Task};
use crate::server::head::{ConnHead, LinkId, Next};
use crate::server::health::{Backoff, choose};
use crate::server::limits::Refused;
use crate::server::log_limit::LineKind;
use crate::server::roles::{RoleState, Source, UpstreamState};
use crate::server::shared::Message;
use crate::server::viewers::viewer::EPOCH_HEADER;
use crate::uring::{Engine, Millis};

/// Viewers wait, so it is tried often.
const RETRY: Backoff = Backoff { first: 100, longest: 2_000 };
/// The most names of its timeline that are taken from an upstream.
const EPOCHS_MAX: usize = 4;
/// The most pulls of a loop.
const PULLS_MAX: usize = 20_000;
/// The most pulls of a loop that wait for the answer of one upstream; further ones wait in turn.
const ASKING_MAX: usize = 256;
/// The most names remembered that an upstream does not have.
const ABSENT_MAX: usize = 4_096;

/// The pulls of a loop.
#[derive(Debug, Default)]
pub(super) struct Pulls {
    pulls: Vec<Option<Pull>>,
    free: Vec<u32>,
    /// By upstream: the number of pulls that wait for its answer.
    asking: Vec<usize>,
    /// Names that no upstream had, and until when this is remembered.
    absent: HashMap<(usize, StreamKey), Millis>,
}

#[derive(Debug)]
struct Pull {
    role: usize,
    writer: Box<StreamWriter>,
    /// The upstream that is asked, or was asked last.
    upstream: usize,
    link: Option<Link>,
    /// Failures in a row.
    failures: u32,
    next_try: Millis,
    last_data: Option<Millis>,
    /// When the last viewer left.
    idle_since: Option<Millis>,
    /// The names that the upstream gives its timeline.
    epochs: Vec<u64>,
    /// The status of the last refusal: 404 if the upstream has no such stream, 502 if no upstream answers.
    refusal: u16,
}

/// What is due for a pull.
enum Due {
    Nothing,
    /// It ends, for this reason.
    End(&'static str),
    /// Its link has passed a timeout.
    Overdue(LinkError),
    /// It is to connect.
    Connect,
}

impl Pulls {
    fn get(&mut self, id: u32) -> Option<&mut Pull> {
        self.pulls.get_mut(id as usize)?.as_mut()
    }

    /// The stream of a pull that starts now, or that another loop has just started; `None` in roles whose
    /// streams are published, not pulled.
    pub(super) fn begin<E: Engine>(
        &mut self,
        core: &mut Core<E>,
        role: usize,
        key: &StreamKey,
    ) -> Option<Arc<Stream>> {
        let Source::Upstreams(_) = core.role(role).source else { return None };
        if self.pulls.len() - self.free.len() >= PULLS_MAX {
            return None;
        }
        let streams = core.shared.config.limits.streams;
        if streams > 0 && core.shared.streams() >= streams {
            core.count_refusal(role, Refused::Streams);
            return None;
        }
        let now = core.now();
        let Ok(writer) = core.role(role).directory.publish(key, &Claim::fixed(now)) else {
            return core.role(role).directory.get(key);
        };
        let stream = Arc::clone(writer.stream());
        stream.began(now);
        debug!(role = core.role(role).name, stream = key.as_str(), "pull begins");
        core.counters[role].pulls.add(1);
        let absent = self.absent.get(&(role, key.clone())).copied();
        let pull = Pull {
            role,
            writer,
            upstream: 0,
            link: None,
            failures: 0,
            next_try: absent.unwrap_or(now),
            last_data: None,
            idle_since: None,
            epochs: Vec::new(),
            refusal: if absent.is_some() { 404 } else { 502 },
        };
        let id = self.free.pop().unwrap_or_else(|| {
            self.pulls.push(None);
            u32::try_from(self.pulls.len() - 1).expect("bounded by PULLS_MAX")
        });
        self.pulls[id as usize] = Some(pull);
        if absent.is_none_or(|until| until <= now) {
            self.connect(core, id);
        }
        Some(stream)
    }

    /// The number of pulls that wait for the answer of an upstream.
    fn asking(&mut self, upstream: usize) -> &mut usize {
        if self.asking.len() <= upstream {
            self.asking.resize(upstream + 1, 0);
        }
        &mut self.asking[upstream]
    }

    /// A pull has dropped its link: if that waited for an answer, it is no longer counted.
    fn dropped(&mut self, upstream: usize, link: Option<&Link>) -> bool {
        let running = link.is_some_and(|link| link.stage == Stage::Running);
        if link.is_some() && !running {
            *self.asking(upstream) -= 1;
        }
        running
    }

    fn connect<E: Engine>(&mut self, core: &mut Core<E>, id: u32) {
        let now = core.now();
        let shared = Arc::clone(&core.shared);
        let Some(pull) = self.get(id) else { return };
        let role = pull.role;
        let upstreams = upstreams(&shared.roles[role]);
        let from = pull.upstream + usize::from(pull.failures > 0);
        let place = choose(upstreams.iter().map(|upstream| &upstream.health), from % upstreams.len());
        let round = pull.failures as usize / upstreams.len();
        (pull.upstream, pull.next_try) = (place, now + RETRY.first);
        if *self.asking(place) >= ASKING_MAX {
            return; // a later sweep tries again
        }
        let upstream = &upstreams[place];
        let Some(address) = upstream.address(round) else {
            return self.failed(core, id, &LinkError::NoAddress);
        };
        match connect(core, (address, upstream.url.secure), &upstream.url.host) {
            Ok(sock) => {
                let pull = self.get(id).expect("as above");
                let target = format!("{}/{}.flv", upstream.url.prefix, pull.writer.stream().key);
                // An upstream that waits longer for a publisher could not be distinguished from one that is
                // frozen.
                let bearer = shared.credential(&upstream.url, pull.writer.stream().key.as_str());
                let fields =
                    [Some(("Prefer", "wait=1")), bearer.as_deref().map(|bearer| ("Authorization", bearer))];
                let fields: Vec<_> = fields.into_iter().flatten().collect();
                let speech = Speech::get(&upstream.url.authority(), &target, &fields);
                pull.link = Some(Link::new(sock, speech, now));
                *self.asking(place) += 1;
                core.tasks.push(Task::Opened(ConnHead::new(sock, role), LinkId::Pull(id)));
            }
            Err(error) => self.failed(core, id, &error),
        }
    }

    /// The link of a pull that is connecting or connected.
    pub(super) fn link(&mut self, id: u32) -> Option<&mut Link> {
        self.get(id)?.link.as_mut()
    }

    /// Bytes from the upstream.
    pub(super) fn received<E: Engine>(&mut self, core: &mut Core<E>, id: u32, data: &[u8]) -> Next {
        let now = core.now();
        let Some(pull) = self.get(id) else { return Next::close("the pull is over") };
        let role = pull.role;
        let (began, result) = pull.take(data, now);
        core.counters[role].bytes_in.add(data.len() as u64);
        core.announce(&mut pull.writer);
        if began {
            let again = std::mem::take(&mut pull.failures) > 0;
            let (upstream, key) = (pull.upstream, pull.writer.stream().key.clone());
            *self.asking(upstream) -= 1;
            let upstream = &upstreams(core.role(role))[upstream];
            upstream.health.answered();
            let url = upstream.url.to_string();
            if core.may_log(LineKind::Pull) {
                info!(role = core.role(role).name, stream = key.as_str(), upstream = url, again, "pull runs");
            }
        }
        match result {
            Ok(()) => Next::Stay,
            Err(error) => {
                self.failed(core, id, &error);
                Next::close(error.to_string())
            }
        }
    }

    /// The connection of a pull is closed, for any reason.
    pub(super) fn closed<E: Engine>(&mut self, core: &mut Core<E>, id: u32, error: &LinkError) {
        if self.get(id).is_some_and(|pull| pull.link.is_some()) {
            self.failed(core, id, error);
        }
    }

    /// Records a failure and when to try again; the caller closes the connection.
    pub(super) fn failed<E: Engine>(&mut self, core: &mut Core<E>, id: u32, error: &LinkError) {
        let now = core.now();
        let shared = Arc::clone(&core.shared);
        let Some(pull) = self.get(id) else { return };
        let (link, place) = (pull.link.take(), pull.upstream);
        let running = self.dropped(place, link.as_ref());
        let Some(pull) = self.get(id) else { return };
        pull.refusal = error.status();
        let upstreams = upstreams(&shared.roles[pull.role]);
        let upstream = &upstreams[pull.upstream];
        // The other upstreams are asked at once; after each round there is a pause.
        let rounds = pull.failures / u32::try_from(upstreams.len()).expect("a handful");
        pull.failures += 1;
        let round_over = (pull.failures as usize).is_multiple_of(upstreams.len());
        pull.next_try = if round_over { now + RETRY.pause(rounds) } else { now };
        if error.is_answer() {
            upstream.health.answered();
        } else {
            upstream.health.failed(now);
        }
        core.counters[pull.role].reconnects.add(1);
        // What is wrong with a certificate does not pass by itself.
        if (running || matches!(error, LinkError::Tls(_))) && core.may_log(LineKind::Pull) {
            let (role, stream) = (shared.roles[pull.role].name, pull.writer.stream().key.as_str());
            warn!(role, stream, upstream = %upstream.url, %error, "pull lost");
        } else {
            debug!(stream = pull.writer.stream().key.as_str(), upstream = %upstream.url, %error, "pull failed");
        }
    }

    /// Memory is short: the streams keep less.
    pub(super) fn shorten<E: Engine>(&mut self, core: &mut Core<E>) {
        for pull in self.pulls.iter_mut().flatten() {
            pull.writer.shorten();
            core.announce(&mut pull.writer);
        }
    }

    /// Checks all pulls for what is due.
    pub(super) fn sweep<E: Engine>(&mut self, core: &mut Core<E>) {
        let now = core.now();
        self.absent.retain(|_, until| now < *until);
        for place in 0..self.pulls.len() {
            let Some(pull) = &mut self.pulls[place] else { continue };
            let id = u32::try_from(place).expect("bounded by PULLS_MAX");
            match pull.due(now, &core.shared.roles[pull.role]) {
                Due::Nothing => {}
                Due::End(reason) => self.end(core, id, reason),
                Due::Connect => self.connect(core, id),
                Due::Overdue(error) => {
                    let sock = pull.link.as_ref().map(|link| link.sock);
                    self.failed(core, id, &error);
                    core.tasks.extend(sock.map(|sock| Task::Close(sock, error.to_string().into())));
                }
            }
        }
    }

    fn end<E: Engine>(&mut self, core: &mut Core<E>, id: u32, reason: &'static str) {
        let Some(pull) = self.pulls[id as usize].take() else { return };
        self.free.push(id);
        self.dropped(pull.upstream, pull.link.as_ref());
        let shared = Arc::clone(&core.shared);
        let role = &shared.roles[pull.role];
        let key = pull.writer.stream().key.clone();
        if pull.last_data.is_some() && core.may_log(LineKind::Pull) {
            info!(role = role.name, stream = key.as_str(), reason, "pull ended");
        } else {
            debug!(role = role.name, stream = key.as_str(), reason, "pull ended");
        }
        core.counters[pull.role].pulls.sub(1);
        if pull.last_data.is_none() && pull.refusal == 404 && self.absent.len() < ABSENT_MAX {
            self.absent.insert((pull.role, key), core.now() + role.negative);
        }
        let stream = role.directory.end(pull.writer);
        let status = pull.refusal;
        let place = pull.role;
        core.shared.tell_all(|| Message::Ended { role: place, stream: Arc::clone(&stream), status });
        if let Some(link) = pull.link {
            core.tasks.push(Task::Close(link.sock, "the pull is over".into()));
        }
    }
}

impl Pull {
    fn due(&mut self, now: Millis, role: &RoleState) -> Due {
        self.idle_since = match self.writer.stream().viewers.load(Ordering::Relaxed) {
            0 => Some(self.idle_since.unwrap_or(now)),
            _ => None,
        };
        let linger = if self.last_data.is_some() { role.linger } else { 0 };
        if self.idle_since.is_some_and(|since| now - since >= linger) {
            return Due::End("no viewer is left");
        }
        let Some(link) = &self.link else {
            // Each viewer that has received nothing waits for its own patience.
            let over = self.last_data.is_some_and(|last| self.refusal == 404 && now - last >= role.gap);
            return match (over, now >= self.next_try) {
                (true, _) => Due::End("the upstream no longer has the stream"),
                (false, true) => Due::Connect,
                (false, false) => Due::Nothing,
            };
        };
        let timeouts = Timeouts { connect: role.connect, answer: ANSWER, silence: Some(role.silence) };
        link.overdue(now, &timeouts).map_or(Due::Nothing, Due::Overdue)
    }

    /// Takes bytes from the upstream into the stream; `true` when its answer has just begun.
    fn take(&mut self, data: &[u8], now: Millis) -> (bool, Result<(), LinkError>) {
        let Self { link, writer, epochs, last_data, .. } = self;
        let Some(link) = link else { return (false, Ok(())) };
        let mut began = false;
        writer.stream().heard(now);
        let result = link.take(now, data, |event| {
            match event {
                LinkEvent::Answered(head) => {
                    began = true;
                    begin_session(writer, epochs, head);
                }
                LinkEvent::Tag(tag) => {
                    writer.push(tag)?;
                    *last_data = Some(now);
                }
            }
            Ok(())
        });
        (began, result)
    }
}

/// Continues the stream, or starts a new timeline, by the names that the upstream gives its timeline.
fn begin_session(writer: &mut StreamWriter, known: &mut Vec<u64>, head: Option<&ResponseHead>) {
    let names = head.and_then(|head| head.headers.get(EPOCH_HEADER)).unwrap_or_default();
    let names = names.split(' ').take(EPOCHS_MAX);
    let epochs: Vec<u64> = names.filter_map(|name| u64::from_str_radix(name, 16).ok()).collect();
    if epochs.iter().any(|name| known.contains(name)) {
        writer.resume_session();
    } else {
        writer.begin_session();
        epochs.last().into_iter().for_each(|oldest| writer.copy_of(*oldest));
    }
    *known = epochs;
}

/// The upstreams of a role that pulls.
pub(super) fn upstreams(role: &RoleState) -> &[UpstreamState] {
    match &role.source {
        Source::Upstreams(upstreams) => upstreams,
        Source::Publishers | Source::Nowhere => &[],
    }
}
