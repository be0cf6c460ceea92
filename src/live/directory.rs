//! Which streams there are, and who publishes them.
//!
//! One lock, taken when a publisher or a viewer comes or goes; never per tag.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use super::key::StreamKey;
use super::log::Retention;
use super::stream::{Stream, StreamWriter};
use crate::memory::Arena;

/// Milliseconds on the caller's clock.
pub type Millis = u64;

/// Why a name cannot be published.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PublishError {
    /// Somebody publishes it now.
    #[error("the stream name is taken by another publisher")]
    Taken,
}

/// The streams of one role.
#[derive(Debug)]
pub struct Directory {
    arena: Arc<Arena>,
    retention: Retention,
    entries: Mutex<HashMap<StreamKey, Entry>>,
    /// The earliest time at which a parked stream may end; `u64::MAX` if none is parked.
    next_expiry: AtomicU64,
}

#[derive(Debug)]
struct Entry {
    stream: Arc<Stream>,
    /// The writer while nobody publishes, and when the stream ends unless somebody does.
    parked: Option<(Box<StreamWriter>, Millis)>,
}

/// A stream's id is unique in the process, whatever role it belongs to.
static NEXT_ID: AtomicU64 = AtomicU64::new(1);

impl Directory {
    /// No streams yet; those to come take their memory from `arena`.
    pub fn new(arena: Arc<Arena>, retention: Retention) -> Self {
        Self { arena, retention, entries: Mutex::default(), next_expiry: AtomicU64::new(u64::MAX) }
    }

    /// Hands out the writer of `key`: a parked one, so that the stream goes on, or a new one.
    ///
    /// # Errors
    /// [`PublishError::Taken`] while another publisher has it.
    pub fn publish(&self, key: &StreamKey) -> Result<Box<StreamWriter>, PublishError> {
        let mut entries = self.lock();
        if let Some(entry) = entries.get_mut(key) {
            return match entry.parked.take() {
                Some((writer, _)) => Ok(writer),
                None => Err(PublishError::Taken),
            };
        }
        let id = NEXT_ID.fetch_add(1, Ordering::Relaxed);
        let epoch = RandomState::new().hash_one(id);
        let arena = Arc::clone(&self.arena);
        let writer = Box::new(StreamWriter::new(id, key.clone(), epoch, arena, self.retention));
        entries.insert(key.clone(), Entry { stream: Arc::clone(writer.stream()), parked: None });
        Ok(writer)
    }

    /// The publisher went. The stream ends at `until` unless somebody publishes it before.
    pub fn park(&self, writer: Box<StreamWriter>, until: Millis) {
        let mut entries = self.lock();
        let entry = entries.get_mut(&writer.stream().key).expect("a writer's stream is listed");
        debug_assert!(entry.parked.is_none() && entry.stream.id == writer.stream().id);
        entry.parked = Some((writer, until));
        self.next_expiry.fetch_min(until, Ordering::Relaxed);
    }

    /// The stream is over now. Nobody finds it ended in here: who asks next begins a new one.
    pub fn end(&self, writer: Box<StreamWriter>) -> Arc<Stream> {
        let stream = Arc::clone(writer.stream());
        drop(writer);
        let mut entries = self.lock();
        stream.end();
        let removed = entries.remove(&stream.key);
        debug_assert!(removed.is_some_and(|entry| entry.stream.id == stream.id));
        stream
    }

    /// Ends the streams whose publisher has been gone for too long and gives them back.
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
            ended.push(Arc::clone(&entry.stream));
            false
        });
        self.next_expiry.store(next, Ordering::Relaxed);
        ended
    }

    /// The stream of that name, whether somebody publishes it now or it waits for its publisher.
    pub fn get(&self, key: &StreamKey) -> Option<Arc<Stream>> {
        self.lock().get(key).map(|entry| Arc::clone(&entry.stream))
    }

    /// All streams, ordered by name, each with whether somebody publishes it now.
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

    fn lock(&self) -> MutexGuard<'_, HashMap<StreamKey, Entry>> {
        self.entries.lock().expect("nobody panics with this lock")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::live::log::tests::RETENTION;

    fn directory() -> Directory {
        Directory::new(Arena::new().unwrap(), RETENTION)
    }

    #[test]
    fn one_publisher_at_a_time() {
        let directory = directory();
        let key = StreamKey::parse("live/x").unwrap();
        let writer = directory.publish(&key).unwrap();
        assert_eq!(directory.publish(&key).unwrap_err(), PublishError::Taken);
        let id = writer.stream().id;
        directory.park(writer, 100);
        assert_eq!(directory.publish(&key).unwrap().stream().id, id);
    }

    #[test]
    fn a_parked_stream_ends_in_time_and_a_live_one_never() {
        let directory = directory();
        let (a, b) = (StreamKey::parse("live/a").unwrap(), StreamKey::parse("live/b").unwrap());
        let (writer, live) = (directory.publish(&a).unwrap(), directory.publish(&b).unwrap());
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
        assert_ne!(directory.publish(&b).unwrap().stream().epochs().next(), epoch);
    }
}
