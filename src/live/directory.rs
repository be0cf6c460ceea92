//! The streams that exist, and who publishes them.
//!
//! One lock, taken when a publisher or a viewer connects or leaves; never per tag.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use super::events::{Event, Events, Subscribers};
use super::key::StreamKey;
use super::log::Retention;
use super::stream::{Choice, Stream, StreamWriter};
use crate::memory::Arena;

/// Milliseconds on the caller's clock.
pub type Millis = u64;

/// What happens when a name is published that already has a publisher.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Republish {
    /// The new publisher is refused.
    Reject,
    /// The new publisher takes the name over.
    Replace,
    /// The new publisher takes the name over if it brings the same token, or if the old one has been silent for
    /// `stale` (and for several times its own longest pause): encoders reconnect while their old connection
    /// still looks alive.
    IfStaleOrSameToken {
        /// Milliseconds.
        stale: Millis,
    },
}

/// A request to publish.
#[derive(Clone, Copy, Debug)]
pub struct Claim<'a> {
    /// The token that the publisher sent to identify itself.
    pub token: Option<&'a str>,
    /// Whether the [`Republish`] policy applies to this publisher: it can be asked to give the name up, and may
    /// take the name over from others that can.
    pub replaceable: bool,
    /// The time of the request.
    pub now: Millis,
}

impl Claim<'_> {
    /// A claim that neither takes a name over nor gives it up.
    pub fn fixed(now: Millis) -> Self {
        Self { token: None, replaceable: false, now }
    }
}

/// Why a name cannot be published.
#[derive(Clone, Debug, thiserror::Error)]
pub enum PublishError {
    /// Another publisher has the name.
    #[error("the stream name is taken by another publisher")]
    Taken,
    /// The stream has a publisher that must give it up first: ask it to. [`Directory::park`] says when it has.
    #[error("the stream's other publisher is about to give it up")]
    Soon(Arc<Stream>),
}

/// The streams of one role.
#[derive(Debug)]
pub struct Directory {
    arena: Arc<Arena>,
    retention: Retention,
    republish: Republish,
    entries: Mutex<HashMap<StreamKey, Entry>>,
    /// Notified with `entries` locked, so that events and listings agree on the order.
    subscribers: Mutex<Subscribers>,
    /// The earliest time at which a parked stream may end; `u64::MAX` if none is parked.
    next_expiry: AtomicU64,
}

#[derive(Debug)]
struct Entry {
    stream: Arc<Stream>,
    /// The writer while the stream has no publisher, and when the stream ends unless one comes.
    parked: Option<(Box<StreamWriter>, Millis)>,
    /// The current publisher's, as in its [`Claim`].
    token: Option<Box<str>>,
    replaceable: bool,
    /// A new publisher waits for the current one to give the stream up.
    wanted: bool,
}

impl Entry {
    fn take_over(&mut self, claim: &Claim<'_>) {
        self.token = claim.token.map(Into::into);
        self.replaceable = claim.replaceable;
        self.wanted = false;
    }
}

/// A stream's id is unique in the process, whatever role it belongs to.
static NEXT_ID: AtomicU64 = AtomicU64::new(1);

impl Directory {
    /// An empty directory; new streams take their memory from `arena`.
    pub fn new(arena: Arc<Arena>, retention: Retention, republish: Republish) -> Self {
        let (entries, subscribers, next_expiry) = Default::default();
        let directory = Self { arena, retention, republish, entries, subscribers, next_expiry };
        directory.next_expiry.store(u64::MAX, Ordering::Relaxed);
        directory
    }

    /// What happens to the streams from now on. Subscribe first, then [`list`](Self::list): changes in between
    /// are seen twice, and none is missed.
    pub fn subscribe(&self) -> Events {
        let _entries = self.lock();
        self.subscribers().subscribe()
    }

    /// Returns the writer of `key`: a parked one, so that the stream continues, or a new one.
    ///
    /// # Errors
    /// [`PublishError`] while another publisher has it.
    pub fn publish(&self, key: &StreamKey, claim: &Claim<'_>) -> Result<Box<StreamWriter>, PublishError> {
        let mut entries = self.lock();
        if let Some(entry) = entries.get_mut(key) {
            if let Some((writer, _)) = entry.parked.take() {
                entry.take_over(claim);
                self.tell(Event::Came(Arc::clone(&entry.stream), None));
                return Ok(writer);
            }
            if !self.may_replace(entry, claim) {
                return Err(PublishError::Taken);
            }
            entry.wanted = true;
            return Err(PublishError::Soon(Arc::clone(&entry.stream)));
        }
        let id = NEXT_ID.fetch_add(1, Ordering::Relaxed);
        let epoch = RandomState::new().hash_one(id);
        let arena = Arc::clone(&self.arena);
        let writer = Box::new(StreamWriter::new(id, key.clone(), epoch, arena, self.retention));
        let stream = Arc::clone(writer.stream());
        let hold = stream.log(Choice::default()).map(|log| Arc::new(log.hold(0)));
        self.tell(Event::Came(Arc::clone(&stream), hold));
        let mut entry = Entry { stream, parked: None, token: None, replaceable: false, wanted: false };
        entry.take_over(claim);
        entries.insert(key.clone(), entry);
        Ok(writer)
    }

    /// Whether [`publish`](Self::publish) would refuse the claim for good. Changes nothing.
    pub fn is_taken(&self, key: &StreamKey, claim: &Claim<'_>) -> bool {
        let entries = self.lock();
        entries.get(key).is_some_and(|entry| entry.parked.is_none() && !self.may_replace(entry, claim))
    }

    fn may_replace(&self, entry: &Entry, claim: &Claim<'_>) -> bool {
        if !(claim.replaceable && entry.replaceable) {
            return false;
        }
        match self.republish {
            Republish::Reject => false,
            Republish::Replace => true,
            Republish::IfStaleOrSameToken { stale } => {
                let same = claim.token.is_some() && claim.token == entry.token.as_deref();
                same || entry.stream.is_silent(claim.now, stale)
            }
        }
    }

    /// Whether a new publisher waits for the current one to give the stream up.
    pub fn is_wanted(&self, stream: &Stream) -> bool {
        self.lock().get(&stream.key).is_some_and(|entry| entry.stream.id == stream.id && entry.wanted)
    }

    /// The publisher left. The stream ends at `until` unless it is published again before; `true` if a new
    /// publisher waits for it.
    pub fn park(&self, writer: Box<StreamWriter>, until: Millis) -> bool {
        let mut entries = self.lock();
        let entry = entries.get_mut(&writer.stream().key).expect("a writer's stream is listed");
        assert!(entry.parked.is_none() && entry.stream.id == writer.stream().id, "a stream has one writer");
        entry.parked = Some((writer, until));
        self.next_expiry.fetch_min(until, Ordering::Relaxed);
        self.tell(Event::Parked(Arc::clone(&entry.stream)));
        std::mem::take(&mut entry.wanted)
    }

    /// The stream is over now. The directory never lists an ended stream: the next publisher starts a new one.
    pub fn end(&self, writer: Box<StreamWriter>) -> Arc<Stream> {
        let stream = Arc::clone(writer.stream());
        drop(writer);
        let mut entries = self.lock();
        stream.end();
        let removed = entries.remove(&stream.key);
        assert!(removed.is_some_and(|entry| entry.stream.id == stream.id), "a writer's stream is listed");
        self.tell(Event::Ended(Arc::clone(&stream)));
        stream
    }

    /// Ends the streams whose publisher has been gone for too long and returns them.
    pub fn expire(&self, now: Millis) -> Vec<Arc<Stream>> {
        if now < self.next_expiry.load(Ordering::Relaxed) {
            return Vec::new();
        }
        let mut entries = self.lock();
        let mut next = u64::MAX;
        let mut ended = Vec::new();
        entries.retain(|_, entry| {
            let Some((_, until)) = &entry.parked else { return true };
            if now < *until {
                next = next.min(*until);
                return true;
            }
            entry.stream.end();
            self.tell(Event::Ended(Arc::clone(&entry.stream)));
            ended.push(Arc::clone(&entry.stream));
            false
        });
        self.next_expiry.store(next, Ordering::Relaxed);
        ended
    }

    /// Drops old parts of the parked streams if memory is short.
    pub fn shorten_parked(&self) {
        for (writer, _) in self.lock().values_mut().filter_map(|entry| entry.parked.as_mut()) {
            writer.shorten();
            writer.publish();
        }
    }

    /// The stream of that name, published or parked.
    pub fn get(&self, key: &StreamKey) -> Option<Arc<Stream>> {
        self.lock().get(key).map(|entry| Arc::clone(&entry.stream))
    }

    /// All streams, ordered by name, each with whether it has a publisher now.
    pub fn list(&self) -> Vec<(Arc<Stream>, bool)> {
        let mut list: Vec<_> =
            self.lock().values().map(|entry| (Arc::clone(&entry.stream), entry.parked.is_none())).collect();
        list.sort_by(|(a, _), (b, _)| a.key.cmp(&b.key));
        list
    }

    /// How many streams there are.
    pub fn len(&self) -> usize {
        self.lock().len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Must be called with the entries locked.
    fn tell(&self, event: Event) {
        self.subscribers().tell(&event);
    }

    fn subscribers(&self) -> MutexGuard<'_, Subscribers> {
        self.subscribers.lock().expect("no thread panics while it holds this lock")
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<StreamKey, Entry>> {
        self.entries.lock().expect("no thread panics while it holds this lock")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::live::log::tests::RETENTION;
    use crate::media::tag::{Tag, TagKind};

    fn directory(republish: Republish) -> Directory {
        Directory::new(Arena::new().unwrap(), RETENTION, republish)
    }

    fn claim(token: Option<&str>, now: Millis) -> Claim<'_> {
        Claim { token, replaceable: true, now }
    }

    #[test]
    fn one_publisher_at_a_time() {
        let directory = directory(Republish::Reject);
        let key = StreamKey::parse("live/x").unwrap();
        let writer = directory.publish(&key, &claim(None, 0)).unwrap();
        assert!(matches!(directory.publish(&key, &claim(None, 1_000_000)), Err(PublishError::Taken)));
        let id = writer.stream().id;
        assert!(!directory.park(writer, 100));
        assert_eq!(directory.publish(&key, &claim(None, 0)).unwrap().stream().id, id);
    }

    #[test]
    fn a_publisher_that_is_silent_or_brings_the_same_token_is_replaced() {
        let directory = directory(Republish::IfStaleOrSameToken { stale: 3_000 });
        let key = StreamKey::parse("live/x").unwrap();
        let writer = directory.publish(&key, &claim(Some("a"), 0)).unwrap();
        writer.stream().began(0);
        let taken = |token, now| match directory.publish(&key, &claim(token, now)) {
            Err(PublishError::Taken) => true,
            Err(PublishError::Soon(_)) => false,
            Ok(_) => panic!("it has a publisher"),
        };
        assert!(taken(None, 2_999) && taken(Some("b"), 2_999));
        assert!(!taken(Some("a"), 0) && !taken(None, 3_000));
        assert!(directory.is_taken(&key, &Claim::fixed(1_000_000)), "a fixed claim does not take over");
        // Media every four seconds is not silence: the publisher's own longest pause counts.
        let mut writer = writer;
        for now in [4_000, 8_000, 12_000] {
            writer.stream().heard(now);
            let body = bytes::Bytes::from_static(&[0xaf, 1, 3]);
            writer.push(&Tag { kind: TagKind::Audio, timestamp: 0, body }).unwrap();
        }
        assert!(taken(None, 12_000 + 11_999) && !taken(None, 12_000 + 12_000));
        assert!(directory.park(writer, 100), "a publisher waits");
        let writer = directory.publish(&key, &claim(Some("b"), 30_000)).unwrap();
        assert!(!directory.park(writer, 200), "no publisher waits any more");
    }

    #[test]
    fn a_new_publisher_replaces_one_that_can_be_asked_to_leave() {
        let directory = directory(Republish::Replace);
        let key = StreamKey::parse("live/x").unwrap();
        let writer = directory.publish(&key, &claim(None, 0)).unwrap();
        assert!(matches!(directory.publish(&key, &claim(None, 0)), Err(PublishError::Soon(_))));
        assert!(directory.is_wanted(writer.stream()));
        directory.park(writer, 100);
        let writer = directory.publish(&key, &claim(None, 0)).unwrap();
        assert!(
            !directory.is_wanted(writer.stream()),
            "a request to the previous publisher does not apply to this one"
        );
        directory.park(writer, 100);
        let _fixed = directory.publish(&key, &Claim::fixed(0)).unwrap();
        assert!(matches!(directory.publish(&key, &claim(None, 0)), Err(PublishError::Taken)));
    }

    #[test]
    fn a_parked_stream_expires_and_a_live_one_never_does() {
        let directory = directory(Republish::Reject);
        let publish = |key| directory.publish(key, &Claim::fixed(0)).unwrap();
        let (a, b) = (StreamKey::parse("live/a").unwrap(), StreamKey::parse("live/b").unwrap());
        let (writer, live) = (publish(&a), publish(&b));
        directory.park(writer, 100);
        assert!(directory.expire(99).is_empty());
        let ended = directory.expire(100);
        assert_eq!(ended.len(), 1);
        assert!(ended[0].has_ended() && ended[0].key == a);
        assert!(directory.get(&a).is_none());
        assert!(directory.expire(u64::MAX - 1).is_empty());
        let epoch = live.stream().epochs().next();
        directory.end(live);
        assert!(directory.is_empty());
        assert_ne!(publish(&b).stream().epochs().next(), epoch);
    }
}
