//! Streams pulled from an upstream: one pull per stream, however many watch.
//!
//! A pull begins with the first viewer and outlives the last one for a while. When its upstream is lost,
//! viewers stay and it connects again, to the next upstream if there are several; if the stream's timeline
//! is the one it knows, the cut leaves no trace. It ends when nobody watches, or when the upstream says that
//! the stream is over.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use tracing::{info, warn};

use super::conn::{Conn, Fate, Kind};
use super::retry::{self, ANSWER_HEAD_MAX, Backoff};
use super::shared::{Message, Source, UpstreamState};
use super::viewer::EPOCH_HEADER;
use super::worker::Worker;
use crate::live::directory::Claim;
use crate::live::key::StreamKey;
use crate::live::stream::{Stream, StreamWriter};
use crate::media::flv::{FlvItem, FlvReader};
use crate::media::tag::TAG_BODY_MAX;
use crate::protocol::http::client::{ResponseReader, State, get_request};
use crate::uring::{Engine, Millis, Sock};

/// A pull's place in the loop's table.
pub(super) type PullId = u32;

/// Somebody watches: it is tried often.
const RETRY: Backoff = Backoff { first: 100, longest: 2_000 };
/// How long a connection to an upstream may take.
const CONNECT: Millis = 5_000;
/// Names of its timeline that an upstream may give.
const EPOCHS_MAX: usize = 4;
/// Pulls of a loop: names that nobody publishes cost one each for a short while.
const PULLS_MAX: usize = 20_000;

/// The pulls of a loop.
#[derive(Debug, Default)]
pub(super) struct Pulls {
    pulls: Vec<Option<Pull>>,
    free: Vec<PullId>,
}

#[derive(Debug)]
struct Pull {
    role: usize,
    writer: Box<StreamWriter>,
    /// Which upstream is asked, or will be next.
    upstream: usize,
    link: Option<Link>,
    /// Failures in a row.
    failures: u32,
    next_try: Millis,
    born: Millis,
    last_data: Option<Millis>,
    /// Since when nobody watches.
    idle_since: Option<Millis>,
    /// The names that the upstream gave its timeline.
    epochs: Vec<u64>,
    /// The status of the last refusal: 404 if the upstream has no such stream, 502 if there is no upstream.
    refusal: u16,
}

/// A connection to an upstream.
#[derive(Debug)]
struct Link {
    sock: Sock,
    response: ResponseReader,
    flv: FlvReader,
    /// The head of the answer has been dealt with.
    begun: bool,
    /// When bytes came last, or when it was opened.
    last: Millis,
}

impl Pulls {
    fn get(&mut self, id: PullId) -> Option<&mut Pull> {
        self.pulls.get_mut(id as usize)?.as_mut()
    }
}

impl<E: Engine> Worker<E> {
    /// The stream of a pull that begins now, or of another loop's that has just begun; `None` where streams
    /// are published, not pulled.
    pub(super) fn pull(&mut self, role: usize, key: &StreamKey) -> Option<Arc<Stream>> {
        let Source::Upstreams(_) = self.role(role).source else { return None };
        if self.pulls.pulls.len() - self.pulls.free.len() >= PULLS_MAX {
            return None;
        }
        let now = self.engine.now();
        let Ok(writer) = self.role(role).directory.publish(key, &Claim::fixed(now)) else {
            return self.role(role).directory.get(key);
        };
        let stream = Arc::clone(writer.stream());
        stream.began(now);
        info!(role = self.role(role).name, stream = key.as_str(), "pull begins");
        self.counters[role].pulls.add(1);
        let pull = Pull {
            role,
            writer,
            upstream: 0,
            link: None,
            failures: 0,
            next_try: now,
            born: now,
            last_data: None,
            idle_since: None,
            epochs: Vec::new(),
            refusal: 502,
        };
        let id = self.pulls.free.pop().unwrap_or_else(|| {
            self.pulls.pulls.push(None);
            PullId::try_from(self.pulls.pulls.len() - 1).expect("bounded by PULLS_MAX")
        });
        self.pulls.pulls[id as usize] = Some(pull);
        self.connect_pull(id);
        Some(stream)
    }

    fn connect_pull(&mut self, id: PullId) {
        let now = self.engine.now();
        let pull = self.pulls.get(id).expect("a pull connects while it is there");
        let (role, upstream, failures) = (pull.role, pull.upstream, pull.failures);
        let upstreams = self.upstreams(role);
        let address =
            retry::address(&upstreams[upstream].addresses.load(), failures as usize / upstreams.len());
        let Some(address) = address else {
            self.pull_failed(id, 502, "its name has no address yet");
            return;
        };
        match self.engine.connect(address) {
            Ok(sock) => {
                let pull = self.pulls.get(id).expect("as above");
                pull.link = Some(Link {
                    sock,
                    response: ResponseReader::new(ANSWER_HEAD_MAX),
                    flv: FlvReader::new(u32::try_from(TAG_BODY_MAX).expect("24 bits")),
                    begun: false,
                    last: now,
                });
                self.add(Conn::new(sock, role, Kind::Pull(id)));
            }
            Err(error) => self.pull_failed(id, 502, &error.to_string()),
        }
    }

    fn upstreams(&self, role: usize) -> &[UpstreamState] {
        match &self.role(role).source {
            Source::Upstreams(upstreams) => upstreams,
            Source::Publishers | Source::Nowhere => &[],
        }
    }

    pub(super) fn pull_connected(
        &mut self,
        conn: &mut Conn,
        id: PullId,
        result: Result<(), rustix::io::Errno>,
    ) -> Fate {
        if let Err(error) = result {
            self.pull_failed(id, 502, &error.to_string());
            return Fate::Close(error.to_string());
        }
        let Some(pull) = self.pulls.get(id) else { return Fate::Close("the pull is over".to_owned()) };
        let (key, upstream, again) =
            (pull.writer.stream().key.clone(), pull.upstream, pull.last_data.is_some());
        let upstream = &self.upstreams(conn.role)[upstream];
        upstream.up.store(true, Ordering::Relaxed);
        let url = &upstream.url;
        let target = format!("{}/{key}.flv", url.prefix);
        let headers = [("Accept", "*/*"), ("Connection", "close"), ("Prefer", "wait=1")];
        // The first time the upstream may wait for a publisher; later we want to know soon whether it is over.
        let headers = &headers[..if again { 3 } else { 2 }];
        let request = get_request(&url.authority(), &target, headers);
        self.say(conn, request.into())
    }

    pub(super) fn pull_received(&mut self, id: PullId, data: &[u8]) -> Fate {
        let now = self.engine.now();
        let Some(pull) = self.pulls.get(id) else { return Fate::Close("the pull is over".to_owned()) };
        let role = pull.role;
        let result = pull.take(data, now);
        self.counters[role].bytes_in.add(data.len() as u64);
        match result {
            Ok(begun) => {
                if begun {
                    self.pull_begun(id);
                }
                let mut pull = self.pulls.pulls[id as usize].take().expect("still there");
                self.announce(&mut pull.writer);
                let ended = pull.link.as_ref().is_some_and(|link| link.response.state() == State::Finished);
                self.pulls.pulls[id as usize] = Some(pull);
                if ended {
                    // The connection may stay open behind a chunked answer.
                    self.pull_failed(id, 502, "its answer ended");
                    return Fate::Close("its answer ended".to_owned());
                }
                Fate::Keep
            }
            Err((status, reason)) => {
                self.pull_failed(id, status, &reason);
                Fate::Close(reason)
            }
        }
    }

    fn pull_begun(&mut self, id: PullId) {
        let pull = self.pulls.get(id).expect("it has begun");
        let (role, upstream, again) = (pull.role, pull.upstream, pull.failures > 0);
        pull.failures = 0;
        let key = pull.writer.stream().key.clone();
        let upstream = &self.upstreams(role)[upstream];
        upstream.up.store(true, Ordering::Relaxed);
        let (role, stream) = (self.role(role).name, key.as_str());
        if again {
            info!(role, stream, upstream = %upstream.url, "pull goes on");
        }
    }

    /// The upstream hung up.
    pub(super) fn pull_finished(&mut self, id: PullId, error: Option<rustix::io::Errno>) {
        let reason = error.map_or_else(|| "it hung up".to_owned(), |error| error.to_string());
        self.pull_failed(id, 502, &reason);
    }

    /// The connection of a pull is closed, for whatever reason.
    pub(super) fn pull_closed(&mut self, id: PullId) {
        if self.pulls.get(id).is_some_and(|pull| pull.link.is_some()) {
            self.pull_failed(id, 502, "the connection ended");
        }
    }

    /// Notes a failure and when to try again; the connection is the caller's to close.
    fn pull_failed(&mut self, id: PullId, status: u16, reason: &str) {
        let now = self.engine.now();
        let Some(pull) = self.pulls.get(id) else { return };
        pull.link = None;
        pull.refusal = status;
        pull.next_try = now + RETRY.pause(pull.failures);
        pull.failures += 1;
        let (role, upstream, first) = (pull.role, pull.upstream, pull.failures == 1);
        let key = pull.writer.stream().key.clone();
        let upstreams = self.upstreams(role);
        upstreams[upstream].up.store(status == 404, Ordering::Relaxed);
        let next = (upstream + 1) % upstreams.len();
        if first {
            let upstream = upstreams[upstream].url.to_string();
            warn!(role = self.role(role).name, stream = key.as_str(), upstream, status, reason, "pull lost");
        }
        self.counters[role].reconnects.add(1);
        self.pulls.get(id).expect("as above").upstream = next;
    }

    pub(super) fn sweep_pulls(&mut self, now: Millis) {
        for place in 0..self.pulls.pulls.len() {
            let Some(pull) = &mut self.pulls.pulls[place] else { continue };
            let id = PullId::try_from(place).expect("bounded by PULLS_MAX");
            let role = &self.shared.roles[pull.role];
            pull.idle_since = match pull.writer.stream().viewers.load(Ordering::Relaxed) {
                0 => Some(pull.idle_since.unwrap_or(now)),
                _ => None,
            };
            let idle = pull.idle_since.is_some_and(|since| now - since >= role.linger);
            // Before it answers, an upstream may wait for the stream's publisher.
            let answered = pull.link.as_ref().is_some_and(|link| link.begun);
            let silence = if answered { role.silence } else { CONNECT.max(role.wait * 2) };
            let lost = match &pull.link {
                Some(link) if now - link.last >= silence => Some(link.sock),
                _ => None,
            };
            let over = pull.link.is_none() && pull.is_over(now, role.wait, role.gap);
            let retry = pull.link.is_none() && now >= pull.next_try;
            if idle || over {
                let reason = match (idle, pull.refusal) {
                    (true, _) => "nobody watches",
                    (_, 404) => "the upstream has no such stream",
                    _ => "no upstream answers",
                };
                self.end_pull(id, reason);
            } else if let Some(sock) = lost {
                self.pull_failed(id, 502, "it is silent");
                self.with(sock, |_, _| Fate::Close("it is silent".to_owned()));
            } else if retry {
                self.connect_pull(id);
            }
        }
    }

    fn end_pull(&mut self, id: PullId, reason: &str) {
        let pull = self.pulls.pulls[id as usize].take().expect("a pull ends once");
        self.pulls.free.push(id);
        let role = self.role(pull.role);
        info!(role = role.name, stream = pull.writer.stream().key.as_str(), reason, "pull ended");
        self.counters[pull.role].pulls.sub(1);
        let stream = role.directory.end(pull.writer);
        let status = pull.refusal;
        self.shared.tell_all(|| Message::Ended { stream: Arc::clone(&stream), status });
        if let Some(link) = pull.link {
            self.with(link.sock, |_, _| Fate::Close("the pull is over".to_owned()));
        }
    }
}

impl Pull {
    /// Whether waiting for the upstream makes no sense any more.
    fn is_over(&self, now: Millis, wait: Millis, gap: Millis) -> bool {
        match self.last_data {
            None => self.failures > 0 && now - self.born >= wait,
            Some(last) => self.refusal == 404 && now - last >= gap,
        }
    }

    /// Takes bytes from the upstream into the stream; `true` when its answer has just begun.
    fn take(&mut self, data: &[u8], now: Millis) -> Result<bool, (u16, String)> {
        let Some(link) = &mut self.link else { return Ok(false) };
        link.last = now;
        let flv = &mut link.flv;
        link.response
            .push(data, |head, body| {
                if head.status == 200 {
                    flv.push(body);
                }
            })
            .map_err(|error| (502, error.to_string()))?;
        let Some(head) = link.response.head() else { return Ok(false) };
        if head.status != 200 {
            let status = if head.status == 404 { 404 } else { 502 };
            return Err((status, format!("it answers {}", head.status)));
        }
        let begins = !std::mem::replace(&mut link.begun, true);
        if begins {
            let names = head.headers.get(EPOCH_HEADER).unwrap_or_default().split(' ').take(EPOCHS_MAX);
            let epochs: Vec<u64> = names.filter_map(|name| u64::from_str_radix(name, 16).ok()).collect();
            if epochs.iter().any(|name| self.epochs.contains(name)) {
                self.writer.resume_session();
            } else {
                self.writer.begin_session();
                epochs.last().into_iter().for_each(|oldest| self.writer.copy_of(*oldest));
            }
            self.epochs = epochs;
        }
        self.writer.stream().heard(now);
        while let Some(item) = link.flv.next_item().map_err(|error| (502, error.to_string()))? {
            if let FlvItem::Tag(tag) = item {
                self.writer.push(&tag).map_err(|error| (502, format!("no memory for it: {error}")))?;
                self.last_data = Some(now);
            }
        }
        Ok(begins)
    }
}
