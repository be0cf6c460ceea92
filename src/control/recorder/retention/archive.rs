//! What is recorded: the finished takes, and how many bytes the takes of each stream and quota have.

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use super::super::common::Common;
use super::super::disk::{Disk, listed};
use super::super::finish::{self, Found, Unreadable};
use super::super::layout::{self, Kind};
use super::super::space::Space;
use crate::config::Recording;

/// A finished take.
#[derive(Clone, Debug)]
pub(super) struct Old {
    pub(super) dir: PathBuf,
    pub(super) stream: String,
    /// The entry of `recording.apps` that its stream belongs to; `None`: to none of them.
    pub(super) quota: Option<String>,
    pub(super) ended: SystemTime,
    pub(super) size: u64,
    /// What its removal frees: files with another name elsewhere free nothing.
    pub(super) frees: Space,
}

/// All takes.
#[derive(Debug, Default)]
pub(super) struct Archive {
    /// Finished ones that no recording uses, the oldest first.
    pub(super) old: Vec<Old>,
    /// Bytes by quota, unfinished takes included.
    pub(super) of_quota: HashMap<Option<String>, u64>,
    /// Bytes by stream, unfinished takes included.
    pub(super) of_stream: HashMap<String, u64>,
    /// Quotas of which something is being recorded or finished.
    pub(super) in_use: HashSet<Option<String>>,
    /// Folders that cannot be read.
    pub(super) unreadable: Vec<Unreadable>,
}

impl Archive {
    /// Looks at all takes under `data`.
    pub(super) async fn survey<D: Disk>(disk: &D, data: &Path, rules: &Recording, common: &Common) -> Self {
        let mut archive = Self::default();
        for kind in Kind::EVERY {
            let listing = finish::takes(disk, &data.join(kind.folder())).await;
            archive.unreadable.extend(listing.unreadable);
            for found in listing.takes {
                archive.add(disk, found, rules, common).await;
            }
        }
        archive.old.sort_by_key(|take| take.ended);
        archive
    }

    async fn add<D: Disk>(&mut self, disk: &D, found: Found, rules: &Recording, common: &Common) {
        let Found { dir, stream, unfinished, .. } = found;
        let (mut size, mut ended, mut frees) = (0, SystemTime::UNIX_EPOCH, Space::default());
        for folder in layout::folders(&dir) {
            let entries = match listed(disk, &folder).await {
                Ok(entries) => entries,
                Err(error) => {
                    self.unreadable.push(Unreadable { dir: folder, error });
                    continue;
                }
            };
            for entry in entries.iter().filter(|entry| !entry.is_dir) {
                size += entry.size;
                ended = ended.max(entry.modified);
                if entry.links <= 1 {
                    frees += Space { bytes: entry.size, files: 1 };
                }
            }
        }
        let quota = rules.quota_of(&stream).map(|(pattern, _)| pattern.to_owned());
        *self.of_quota.entry(quota.clone()).or_default() += size;
        *self.of_stream.entry(stream.clone()).or_default() += size;
        if unfinished || common.is_active(&dir) {
            self.in_use.insert(quota);
        } else {
            self.old.push(Old { dir, stream, quota, ended, size, frees });
        }
    }

    /// A take has been removed.
    pub(super) fn forget(&mut self, take: &Old) {
        for size in [self.of_quota.get_mut(&take.quota), self.of_stream.get_mut(&take.stream)] {
            let size = size.expect("a take is counted");
            assert!(*size >= take.size, "a take's bytes are counted once");
            *size -= take.size;
        }
    }
}
