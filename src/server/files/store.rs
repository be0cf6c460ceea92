//! What a loop knows of files, for all its clients.

use std::collections::HashMap;

use super::audience::Notes;
use super::cache::Cache;
use crate::server::core::Core;
use crate::uring::Engine;

/// See the module.
#[derive(Debug)]
pub(in crate::server) struct Files {
    pub(super) cache: Cache,
    /// Who watches by playlists and segments, by role.
    pub(in crate::server) notes: HashMap<usize, Notes>,
    cold_reads: u64,
}

impl Files {
    /// A loop's part: it knows so many files at once.
    pub(in crate::server) fn new(files_max: usize) -> Self {
        Self { cache: Cache::new(files_max), notes: HashMap::new(), cold_reads: 0 }
    }

    /// Closes the files that are not being sent.
    pub(in crate::server) fn close_all(&mut self) {
        self.cache.close_all();
    }

    /// Gives out what has been waited for long enough, lets go of files that no request asks for, and hands over what was
    /// gathered: notes of viewers, counts.
    pub(in crate::server) fn sweep<E: Engine>(&mut self, core: &mut Core<E>) {
        let now = core.now();
        self.serve_late(core);
        self.cache.sweep(now);
        for (role, notes) in &mut self.notes {
            if let Some(site) = &core.shared.roles[*role].files {
                notes.hand_over(&site.audience, now);
            }
        }
        let cold = core.net.cold_reads();
        let Some(role) = core.shared.roles.iter().position(|role| role.files.is_some()) else { return };
        let fresh = cold - std::mem::replace(&mut self.cold_reads, cold);
        core.counters[role].files.cold_reads.add(fresh);
    }
}
