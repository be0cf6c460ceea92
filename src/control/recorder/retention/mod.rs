//! How long takes are kept: by age, by size, and by the free space on the disk.
//!
//! Only finished takes are removed, the oldest first. The takes of an entry of `recording.apps` are removed by
//! its own rules only. What was removed counts as free from then on, even if it is still open and the disk does
//! not say so yet: otherwise files that are being read would cost the whole archive. If nothing may be removed
//! and the disk is still too full, recording stops until there is enough space.

mod archive;
#[cfg(test)]
mod tests;

use std::collections::HashSet;
use std::io;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use tracing::{error, info, warn};

use super::common::Common;
use super::disk::Disk;
use super::space::{Held, Space};
use super::take;
use crate::config::Recording;
use archive::{Archive, Old};

/// After this many rounds without the space of removed files it is checked whether they are still open. A loop
/// closes a file within a few seconds if no request asks for it.
const GRACE: u32 = 8;
/// The most rounds between two surveys of a disk that is full and has nothing to remove.
const PAUSE_MAX: u32 = 32;

/// Removes takes by the rules, round by round.
#[derive(Debug)]
pub(super) struct Keeper {
    rules: Recording,
    /// What was removed and is not free yet.
    awaited: Space,
    /// Rounds since the last removal, or since it was last checked who holds it.
    waited: u32,
    /// It has been logged that removed files are still open.
    said_held: bool,
    /// Rounds to wait before the disk is surveyed again, and how many they were last.
    pause: (u32, u32),
    /// How many takes had been finished when the disk was surveyed last.
    finished: u64,
    /// Takes that could not be removed, and folders that could not be read; each is logged once.
    stuck: HashSet<PathBuf>,
}

/// Why a take is removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reason {
    Age,
    StreamSize,
    Size,
    Space,
}

impl Reason {
    const fn text(self) -> &'static str {
        match self {
            Self::Age => "it is too old",
            Self::StreamSize => "the recordings of its stream take too many bytes",
            Self::Size => "the recordings take too many bytes",
            Self::Space => "the disk has too little free space",
        }
    }
}

impl Keeper {
    pub(super) fn new(rules: Recording) -> Self {
        Self {
            rules,
            awaited: Space::default(),
            waited: 0,
            said_held: false,
            pause: (0, 0),
            finished: 0,
            stuck: HashSet::new(),
        }
    }

    /// Checks the free space; if it is too little, or if `thorough`, removes takes. Sets whether the tasks may
    /// record.
    ///
    /// # Errors
    /// Only if the disk does not tell its free space.
    pub(super) async fn round<D: Disk>(
        &mut self,
        disk: &D,
        data: &Path,
        thorough: bool,
        now: SystemTime,
        common: &Common,
    ) -> io::Result<()> {
        let minimum = self.minimum();
        let mut free = disk.free(data).await?;
        self.look_at_awaited(disk, data, minimum.minus(free)).await;
        let uncovered = minimum.minus(free).minus(self.awaited);
        let rules_apply = thorough && self.has_rules();
        if rules_apply || self.is_survey_due(uncovered, common) {
            let left = self.remove(disk, data, uncovered, now, common).await;
            free = disk.free(data).await?;
            let pause = if left.is_none() { 0 } else { (self.pause.1 * 2).clamp(1, PAUSE_MAX) };
            (self.pause, self.finished) = ((pause, pause), common.finished());
        }
        let missing = minimum.minus(free);
        // The reserve is there to be used while removed files are still being read, but not all of it.
        let covered = missing.minus(self.awaited).is_none() && minimum.half().minus(free).is_none();
        self.set_full(common, data, if covered { Space::default() } else { missing });
        Ok(())
    }

    /// What has to be free.
    fn minimum(&self) -> Space {
        Space { bytes: self.rules.min_free as u64, files: self.rules.min_free_files }
    }

    fn has_rules(&self) -> bool {
        !self.rules.keep_time.is_zero() || self.rules.keep_size > 0 || !self.rules.apps.is_empty()
    }

    /// Whether takes may have to be removed for their space. A disk that has nothing to remove is surveyed less
    /// and less often, until a take is finished.
    fn is_survey_due(&mut self, uncovered: Space, common: &Common) -> bool {
        if uncovered.is_none() {
            self.pause = (0, 0);
            return false;
        }
        if self.pause.0 == 0 || self.finished != common.finished() {
            return true;
        }
        self.pause.0 -= 1;
        false
    }

    /// Decides how much of what was removed is still to come.
    async fn look_at_awaited<D: Disk>(&mut self, disk: &D, data: &Path, missing: Space) {
        if missing.is_none() || self.awaited.is_none() {
            (self.awaited, self.waited, self.said_held) = (Space::default(), 0, false);
            return;
        }
        self.waited += 1;
        if self.waited < GRACE {
            return;
        }
        self.waited = 0;
        let Held { space, by } = disk.held(data).await.unwrap_or_default();
        self.awaited = self.awaited.at_most(space);
        if !self.awaited.is_none() && !self.said_held {
            self.said_held = true;
            let Space { bytes, files } = space;
            let by = by.join(", ");
            warn!(
                bytes,
                files, by, "removed recordings are still being read: their space is free after that"
            );
        }
    }

    /// Removes what the rules say, and as much more as covers `uncovered`; returns what is left of that.
    async fn remove<D: Disk>(
        &mut self,
        disk: &D,
        data: &Path,
        mut uncovered: Space,
        now: SystemTime,
        common: &Common,
    ) -> Space {
        let mut archive = Archive::survey(disk, data, &self.rules, common).await;
        for unreadable in std::mem::take(&mut archive.unreadable) {
            if self.stuck.insert(unreadable.dir.clone()) {
                let (dir, error) = (unreadable.dir.display(), unreadable.error);
                error!(%dir, %error, "recordings in a folder cannot be counted or removed");
            }
        }
        let mut kept = Vec::new();
        for take in std::mem::take(&mut archive.old) {
            match self.reason(&archive, &take, now) {
                Some(reason) => match self.remove_take(disk, data, &take, reason, common).await {
                    true => {
                        archive.forget(&take);
                        uncovered = uncovered.minus(take.frees);
                    }
                    false => kept.push(take),
                },
                None => kept.push(take),
            }
        }
        for take in for_space(&archive, &kept) {
            if uncovered.is_none() {
                break;
            }
            if self.remove_take(disk, data, take, Reason::Space, common).await {
                uncovered = uncovered.minus(take.frees);
            }
        }
        uncovered
    }

    /// Whether a take is to be removed whatever the free space is.
    fn reason(&self, archive: &Archive, take: &Old, now: SystemTime) -> Option<Reason> {
        let quota = take.quota.as_ref().and_then(|pattern| self.rules.apps.get(pattern));
        let keep_time = quota.and_then(|quota| quota.keep_time).unwrap_or(self.rules.keep_time);
        let (keep_size, per_stream) = match quota {
            Some(quota) => (quota.keep_size, quota.keep_size_per_stream),
            None => (self.rules.keep_size, 0),
        };
        let exceeds =
            |limit: usize, size: Option<&u64>| limit > 0 && size.is_some_and(|size| *size > limit as u64);
        if !keep_time.is_zero() && now.duration_since(take.ended).is_ok_and(|age| age > keep_time) {
            Some(Reason::Age)
        } else if exceeds(per_stream, archive.of_stream.get(&take.stream)) {
            Some(Reason::StreamSize)
        } else {
            exceeds(keep_size, archive.of_quota.get(&take.quota)).then_some(Reason::Size)
        }
    }

    /// Removes a take, unless it is in use again; `false`: it stays.
    async fn remove_take<D: Disk>(
        &mut self,
        disk: &D,
        data: &Path,
        take: &Old,
        reason: Reason,
        common: &Common,
    ) -> bool {
        // While others were removed, a recording may have begun here.
        if common.is_active(&take.dir) || !common.claim(&take.dir) {
            return false;
        }
        let before = disk.free(data).await;
        let removed = take::remove(disk, &take.dir).await;
        common.release(&take.dir);
        if let Err(error) = removed {
            if self.stuck.insert(take.dir.clone()) {
                error!(take = %take.dir.display(), %error, "a recording cannot be removed and is left out");
            }
            return false;
        }
        self.stuck.remove(&take.dir);
        info!(take = %take.dir.display(), bytes = take.size, reason = reason.text(), "removed a recording");
        let gained = match (before, disk.free(data).await) {
            (Ok(before), Ok(after)) => after.minus(before),
            _ => Space::default(),
        };
        self.awaited += take.frees.minus(gained);
        self.waited = 0;
        true
    }

    fn set_full(&self, common: &Common, data: &Path, missing: Space) {
        let full = !missing.is_none();
        if common.full.replace(full) == full {
            return;
        }
        if full {
            let (data, Space { bytes, files }) = (data.display(), missing);
            warn!(%data, missing = bytes, missing_files = files, "the disk has too little free space: recording stops");
        } else {
            info!(data = %data.display(), "the disk has enough free space again");
        }
    }
}

/// The takes that may be removed for their space, in this order: those without a quota; and, while none of
/// those is being recorded, those of the quotas of which something is, since only these grow.
fn for_space<'a>(archive: &'a Archive, kept: &'a [Old]) -> impl Iterator<Item = &'a Old> {
    let grows = |take: &&Old| !archive.in_use.contains(&None) && archive.in_use.contains(&take.quota);
    let (shared, own): (Vec<&Old>, Vec<&Old>) = kept.iter().partition(|take| take.quota.is_none());
    shared.into_iter().chain(own.into_iter().filter(grows))
}
