//! Players of playlists and segments that have begun with a token and go on after it has expired.
//!
//! Expiry bounds joining. A live connection stays open by itself; a player of HLS asks anew for each segment, so it is
//! remembered when its token was valid last and when it has asked last. Each process has its own memory of it.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Parts of the table, each with its own lock.
const SHARDS: usize = 16;
/// Sessions that a part remembers; further ones end with their tokens.
const SESSIONS_MAX: usize = 1 << 13;
/// A player that asks for nothing for this long, in seconds, has left.
const IDLE: u64 = 60;

#[derive(Clone, Copy, Debug)]
struct Session {
    /// When the token was valid last.
    valid: u64,
    /// When it was shown last.
    shown: u64,
}

/// See the module. Times are in seconds since 1970.
#[derive(Debug, Default)]
pub struct Sessions {
    hasher: RandomState,
    shards: [Mutex<HashMap<u64, Session>>; SHARDS],
}

impl Sessions {
    fn place(&self, token: &str) -> (u64, MutexGuard<'_, HashMap<u64, Session>>) {
        let hash = self.hasher.hash_one(token);
        let shard = usize::try_from(hash % SHARDS as u64).expect("below SHARDS");
        (hash, self.shards[shard].lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// A valid token was shown.
    pub fn note(&self, token: &str, now: u64) {
        let (hash, mut shard) = self.place(token);
        if shard.len() >= SESSIONS_MAX && !shard.contains_key(&hash) {
            shard.retain(|_, session| now.saturating_sub(session.shown) <= IDLE);
        }
        if shard.len() < SESSIONS_MAX || shard.contains_key(&hash) {
            shard.insert(hash, Session { valid: now, shown: now });
        }
    }

    /// When an expired token was valid last, if its player goes on; it has asked again.
    pub fn went_on(&self, token: &str, now: u64) -> Option<u64> {
        let (hash, mut shard) = self.place(token);
        let session = shard.get_mut(&hash).filter(|session| now.saturating_sub(session.shown) <= IDLE)?;
        session.shown = now;
        Some(session.valid)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_player_goes_on_until_it_pauses_for_long() {
        let sessions = Sessions::default();
        assert_eq!(sessions.went_on("a", 100), None, "it has not begun");
        sessions.note("a", 100);
        sessions.note("a", 105);
        assert_eq!(sessions.went_on("a", 105 + IDLE), Some(105));
        assert_eq!(sessions.went_on("a", 105 + 2 * IDLE), Some(105));
        assert_eq!(sessions.went_on("a", 106 + 3 * IDLE), None);
        assert_eq!(sessions.went_on("b", 105), None);
    }

    #[test]
    fn the_table_is_bounded_and_forgets_those_who_left() {
        let sessions = Sessions::default();
        for n in 0..SHARDS * SESSIONS_MAX * 2 {
            sessions.note(&n.to_string(), 100);
        }
        let held =
            |sessions: &Sessions| sessions.shards.iter().map(|shard| shard.lock().unwrap().len()).max();
        assert_eq!(held(&sessions), Some(SESSIONS_MAX));
        let late = 101 + IDLE;
        (0..SHARDS * 20).for_each(|n| sessions.note(&format!("late{n}"), late));
        assert!(held(&sessions) < Some(SESSIONS_MAX));
        assert_eq!(sessions.went_on("late0", late), Some(late));
    }
}
