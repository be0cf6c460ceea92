//! Which fetched files the loops have open: a file that is removed while it is open keeps its space.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Device and inode.
pub type Identity = (u64, u64);

/// The open files of all loops, with the number of times that each is open.
#[derive(Debug, Default)]
pub struct OpenSet(Mutex<HashMap<Identity, u32>>);

impl OpenSet {
    /// Counts a file as open until the guard is dropped.
    pub(in crate::server) fn add(self: &Arc<Self>, identity: Identity) -> Held {
        *self.files().entry(identity).or_default() += 1;
        Held { set: Arc::clone(self), identity }
    }

    /// Whether a loop has the file open.
    pub fn contains(&self, identity: Identity) -> bool {
        self.files().contains_key(&identity)
    }

    fn files(&self) -> MutexGuard<'_, HashMap<Identity, u32>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// An open file's place in the set.
#[derive(Debug)]
pub(in crate::server) struct Held {
    set: Arc<OpenSet>,
    identity: Identity,
}

impl Drop for Held {
    fn drop(&mut self) {
        let mut files = self.set.files();
        let count = files.get_mut(&self.identity).expect("a guard is counted");
        *count -= 1;
        if *count == 0 {
            files.remove(&self.identity);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_open_until_the_last_guard_is_dropped() {
        let set = Arc::<OpenSet>::default();
        let guards = [set.add((1, 2)), set.add((1, 2))];
        assert!(set.contains((1, 2)) && !set.contains((1, 3)));
        let [first, second] = guards;
        drop(first);
        assert!(set.contains((1, 2)));
        drop(second);
        assert!(!set.contains((1, 2)));
    }
}
