//! What a loop knows of files, for all its clients.

use std::collections::HashMap;

use super::audience::Notes;
use super::cache::Cache;
use crate::package::format::Format;
use crate::server::core::Core;
use crate::uring::{Engine, Sock};

/// See the module.
#[derive(Debug)]
pub(in crate::server) struct Files {
    pub(super) cache: Cache,
    /// Who watches by playlists and segments, by role.
    pub(in crate::server) notes: HashMap<usize, Notes>,
    /// Clients that wait for a stream's first live files, by the path that they asked for.
    packaged: HashMap<Sock, String>,
    cold_reads: u64,
}

impl Files {
    /// A loop's part: it knows so many files at once.
    pub(in crate::server) fn new(files_max: usize) -> Self {
        Self { cache: Cache::new(files_max), notes: HashMap::new(), packaged: HashMap::new(), cold_reads: 0 }
    }

    /// A client waits for a stream's first live files.
    pub(super) fn wait_for_packaged(&mut self, sock: Sock, path: &str) {
        self.packaged.insert(sock, path.to_owned());
    }

    /// A client waits no more for live files.
    pub(super) fn packaged_left(&mut self, sock: Sock) {
        self.packaged.remove(&sock);
    }

    /// The clients that wait for a stream's first live files.
    pub(in crate::server) fn take_packaged(&mut self, stream: &str) -> Vec<Sock> {
        let is_of = |path: &String| Format::parse(path).is_some_and(|(_, name, _)| name == stream);
        let waiting: Vec<Sock> =
            self.packaged.iter().filter(|(_, path)| is_of(path)).map(|(sock, _)| *sock).collect();
        waiting.iter().for_each(|sock| self.packaged_left(*sock));
        waiting
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
