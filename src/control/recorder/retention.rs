//! How long takes are kept: by age, by size in all, and by what is free on the disk.
//!
//! Only finished takes go, the oldest first. When none is left and the disk is still too full, nothing is recorded
//! until it is not.

use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use tracing::{info, warn};

use super::common::Common;
use super::disk::Disk;
use super::finish::{self, Found};
use super::layout::{self, Kind};
use super::take;

/// What is kept.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    /// Takes that ended longer ago go; `None`: they stay.
    pub(super) age: Option<Duration>,
    /// Bytes of all takes; `None`: any number.
    pub(super) size: Option<u64>,
    /// Bytes that stay free on the disk.
    pub(super) free: u64,
}

/// A finished take.
#[derive(Clone, Debug)]
struct Old {
    dir: PathBuf,
    ended: SystemTime,
    size: u64,
}

/// Looks at what is free; if that is too little, or `thorough`, removes what has to go. Says to the tasks whether
/// they may record.
pub(super) async fn sweep<D: Disk>(
    disk: &D,
    data: &Path,
    limits: &Limits,
    thorough: bool,
    now: SystemTime,
    common: &Common,
) -> io::Result<()> {
    let short = |free: u64| limits.free.saturating_sub(free);
    let mut missing = short(disk.free(data).await?);
    if missing > 0 || thorough && (limits.age.is_some() || limits.size.is_some()) {
        let (mut old, mut total) = survey(disk, data).await?;
        old.retain(|take| !common.is_active(&take.dir));
        old.sort_by_key(|take| take.ended);
        for take in old {
            let age = now.duration_since(take.ended).unwrap_or_default();
            let reason = if limits.age.is_some_and(|limit| age > limit) {
                "it is too old"
            } else if limits.size.is_some_and(|limit| total > limit) {
                "there are too many bytes of recordings"
            } else if missing > 0 {
                "too little is free on the disk"
            } else {
                break;
            };
            // While others were removed a stream may have begun here.
            if common.is_active(&take.dir) || !common.claim(&take.dir) {
                continue;
            }
            let removed = take::remove(disk, &take.dir).await;
            common.release(&take.dir);
            removed?;
            info!(take = %take.dir.display(), bytes = take.size, reason, "removed a recording");
            total = total.saturating_sub(take.size);
            missing = short(disk.free(data).await?);
        }
    }
    let full = missing > 0;
    if common.full.replace(full) != full {
        if full {
            warn!(data = %data.display(), missing, "too little is free on the disk: nothing is recorded");
        } else {
            info!(data = %data.display(), "there is room on the disk again");
        }
    }
    Ok(())
}

/// All finished takes, and the bytes of all takes.
async fn survey<D: Disk>(disk: &D, data: &Path) -> io::Result<(Vec<Old>, u64)> {
    let (mut old, mut total) = (Vec::new(), 0);
    for kind in Kind::EVERY {
        for Found { dir, unfinished, .. } in finish::takes(disk, &data.join(kind.folder())).await? {
            let (mut size, mut ended) = (0, SystemTime::UNIX_EPOCH);
            for folder in layout::folders(&dir) {
                for entry in finish::listed(disk, &folder).await?.iter().filter(|entry| !entry.is_dir) {
                    size += entry.size;
                    ended = ended.max(entry.modified);
                }
            }
            total += size;
            if !unfinished {
                old.push(Old { dir, ended, size });
            }
        }
    }
    Ok((old, total))
}

#[cfg(test)]
mod tests {
    use std::rc::Rc;

    use super::super::sim::Sim;
    use super::super::take::{ABOUT, About};
    use super::*;

    const KEEP_ALL: Limits = Limits { age: None, size: None, free: 0 };

    /// Three takes of 1,000 bytes and a little, one after the other.
    async fn takes(disk: &Sim) -> [PathBuf; 3] {
        let dirs =
            ["live/x@20261121T091545Z", "live/y", "live/x"].map(|name| Path::new("/data/hls").join(name));
        for dir in &dirs {
            let about = About {
                stream: "live/x".into(),
                began: "20261121T091545Z".into(),
                id: "a".into(),
                ..About::default()
            };
            disk.make_dir(dir).await.unwrap();
            disk.replace(&dir.join(ABOUT), serde_json::to_vec(&about).unwrap(), false).await.unwrap();
            disk.replace(&dir.join("segment_0.ts"), vec![0; 1000], false).await.unwrap();
        }
        dirs
    }

    async fn left(disk: &Sim, limits: Limits, common: &Common) -> usize {
        sweep(disk, Path::new("/data"), &limits, true, disk.now(), common).await.unwrap();
        finish::takes(disk, Path::new("/data/hls")).await.unwrap().len()
    }

    fn runtime() -> tokio::runtime::Runtime {
        tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap()
    }

    #[test]
    fn the_oldest_go_first_and_what_is_recorded_stays() {
        runtime().block_on(async {
            let (disk, common) = (Sim::default(), Rc::<Common>::default());
            let dirs = takes(&disk).await;
            assert_eq!(left(&disk, KEEP_ALL, &common).await, 3);
            let _active = common.activate(&dirs[0]);
            assert_eq!(left(&disk, Limits { size: Some(2500), ..KEEP_ALL }, &common).await, 2);
            let has = |dir: &Path| disk.file(dir.join("segment_0.ts").to_str().unwrap()).is_some();
            assert_eq!([has(&dirs[0]), has(&dirs[1]), has(&dirs[2])], [true, false, true]);
            // The second was written four changes before the third.
            let age = Some(Duration::from_secs(3));
            assert_eq!(left(&disk, Limits { age, ..KEEP_ALL }, &common).await, 2);
            assert_eq!(left(&disk, Limits { size: Some(0), ..KEEP_ALL }, &common).await, 1);
        });
    }

    #[test]
    fn a_full_disk_costs_old_takes_and_then_stops_recording() {
        runtime().block_on(async {
            let (disk, common) = (Sim::default(), Rc::<Common>::default());
            let dirs = takes(&disk).await;
            disk.set_capacity(Some(disk.used() + 100));
            assert_eq!(left(&disk, Limits { free: 1000, ..KEEP_ALL }, &common).await, 2);
            assert!(!common.full.get());
            let _active = common.activate(&dirs[2]);
            assert_eq!(left(&disk, Limits { free: 1 << 20, ..KEEP_ALL }, &common).await, 1);
            assert!(common.full.get(), "nothing is left to remove");
            disk.set_capacity(None);
            left(&disk, Limits { free: 1 << 20, ..KEEP_ALL }, &common).await;
            assert!(!common.full.get());
        });
    }
}
