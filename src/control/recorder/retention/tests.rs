//! Rounds of retention on a disk in memory.

use std::rc::Rc;
use std::time::Duration;

use super::super::finish;
use super::super::layout::{ABOUT, Kind};
use super::super::sim::Sim;
use super::super::take::About;
use super::*;
use crate::config::Quota;

fn rules() -> Recording {
    Recording { min_free: 0, min_free_files: 0, ..Recording::default() }
}

/// A take of one file of 1,000 bytes and its description.
async fn take(disk: &Sim, name: &str) -> PathBuf {
    let dir = Path::new("/data/hls").join(name);
    let stream = name.split('@').next().unwrap().to_owned();
    let about = About { stream, began: "20261121T091545Z".into(), id: "a".into(), ..About::default() };
    disk.make_dir(&dir).await.unwrap();
    disk.replace(&dir.join(ABOUT), serde_json::to_vec(&about).unwrap(), false).await.unwrap();
    disk.replace(&dir.join("segment_0.ts"), vec![0; 1000], false).await.unwrap();
    dir
}

/// Three takes, one after the other.
async fn three(disk: &Sim) -> [PathBuf; 3] {
    [take(disk, "live/x@20261121T091545Z").await, take(disk, "live/y").await, take(disk, "live/x").await]
}

fn has(disk: &Sim, dir: &Path) -> bool {
    disk.file(dir.join("segment_0.ts").to_str().unwrap()).is_some()
}

async fn round(keeper: &mut Keeper, disk: &Sim, thorough: bool, common: &Common) -> usize {
    keeper.round(disk, Path::new("/data"), thorough, disk.now(), common).await.unwrap();
    finish::takes(disk, Path::new("/data/hls")).await.takes.len()
}

async fn left(disk: &Sim, rules: Recording, common: &Common) -> usize {
    round(&mut Keeper::new(rules), disk, true, common).await
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap()
}

#[test]
fn the_oldest_are_removed_first_and_one_being_recorded_stays() {
    runtime().block_on(async {
        let (disk, common) = (Sim::default(), Rc::<Common>::default());
        let dirs = three(&disk).await;
        assert_eq!(left(&disk, rules(), &common).await, 3);
        let _active = common.activate(&dirs[0]);
        assert_eq!(left(&disk, Recording { keep_size: 2500, ..rules() }, &common).await, 2);
        assert_eq!([0, 1, 2].map(|at| has(&disk, &dirs[at])), [true, false, true]);
        // The second was written four changes before the third.
        let keep_time = Duration::from_secs(3);
        assert_eq!(left(&disk, Recording { keep_time, ..rules() }, &common).await, 2);
        assert_eq!(left(&disk, Recording { keep_size: 1, ..rules() }, &common).await, 1);
    });
}

#[test]
fn a_removal_that_a_crash_interrupts_is_completed_later() {
    let steps = |step: Option<u64>| {
        runtime().block_on(async {
            let disk = Sim::default();
            three(&disk).await;
            disk.die_at(step);
            let rules = Recording { keep_size: 1, ..rules() };
            // A killed task waits for ever.
            let common = Common::default();
            let _ =
                tokio::time::timeout(Duration::from_millis(20), left(&disk, rules.clone(), &common)).await;
            let steps = disk.steps();
            disk.die_at(None);
            let common = Common::default();
            for take in
                finish::takes(&disk, Path::new("/data/hls")).await.takes.iter().filter(|one| one.unfinished)
            {
                finish::finish(&disk, Kind::Hls, &take.dir, false, &common).await.unwrap();
            }
            left(&disk, rules, &common).await;
            let media: Vec<String> = disk.files().into_keys().filter(|name| !name.ends_with(ABOUT)).collect();
            assert!(media.is_empty(), "killed at {step:?}: {media:?}");
            steps
        })
    };
    let all = steps(None);
    assert!(all > 6, "{all} steps");
    (0..all).for_each(|step| {
        steps(Some(step));
    });
}

#[test]
fn a_full_disk_removes_old_takes_and_then_stops_recording() {
    runtime().block_on(async {
        let (disk, common) = (Sim::default(), Rc::<Common>::default());
        let dirs = three(&disk).await;
        disk.set_capacity(Some(disk.used() + 100));
        assert_eq!(left(&disk, Recording { min_free: 1000, ..rules() }, &common).await, 2);
        assert!(!common.full.get());
        let _active = common.activate(&dirs[2]);
        let mut keeper = Keeper::new(Recording { min_free: 1 << 20, ..rules() });
        assert_eq!(round(&mut keeper, &disk, true, &common).await, 1);
        assert!(common.full.get(), "nothing is left to remove");
        disk.set_capacity(None);
        round(&mut keeper, &disk, false, &common).await;
        assert!(!common.full.get());
    });
}

#[test]
fn files_that_are_still_open_cost_no_more_takes_than_their_space_needs() {
    runtime().block_on(async {
        let (disk, common) = (Sim::default(), Rc::<Common>::default());
        for n in 0..6 {
            take(&disk, &format!("live/x{n}")).await;
        }
        disk.hold(true);
        disk.set_capacity(Some(disk.used() + 900));
        let mut keeper = Keeper::new(Recording { min_free: 1500, ..rules() });
        assert_eq!(round(&mut keeper, &disk, false, &common).await, 5);
        assert!(!common.full.get(), "the space will be free");
        for _ in 0..50 {
            assert_eq!(round(&mut keeper, &disk, false, &common).await, 5);
        }
        assert!(!common.full.get());
        // Recording goes on, into the reserve.
        disk.set_capacity(Some(disk.used() + 700));
        assert_eq!(round(&mut keeper, &disk, false, &common).await, 5);
        assert!(common.full.get(), "half of the reserve stays");
        disk.hold(false);
        assert_eq!(round(&mut keeper, &disk, false, &common).await, 5);
        assert!(!common.full.get());
    });
}

#[test]
fn space_that_never_comes_is_not_waited_for() {
    runtime().block_on(async {
        let (disk, common) = (Sim::default(), Rc::<Common>::default());
        three(&disk).await;
        disk.hold(true);
        disk.set_capacity(Some(disk.used() + 900));
        let mut keeper = Keeper::new(Recording { min_free: 1500, ..rules() });
        assert_eq!(round(&mut keeper, &disk, false, &common).await, 2);
        // The files are closed, and something else takes their space.
        disk.hold(false);
        disk.set_capacity(Some(disk.used() + 900));
        for _ in 1..GRACE {
            assert_eq!(round(&mut keeper, &disk, false, &common).await, 2);
        }
        assert_eq!(round(&mut keeper, &disk, false, &common).await, 1);
    });
}

#[test]
fn a_take_that_cannot_be_removed_is_skipped() {
    runtime().block_on(async {
        let (disk, common) = (Sim::default(), Rc::<Common>::default());
        let dirs = three(&disk).await;
        disk.stick(&dirs[0]);
        assert_eq!(left(&disk, Recording { keep_size: 1500, ..rules() }, &common).await, 1);
        assert_eq!([0, 1, 2].map(|at| has(&disk, &dirs[at])), [true, false, false]);
    });
}

#[test]
fn files_are_limited_like_bytes() {
    runtime().block_on(async {
        let (disk, common) = (Sim::default(), Rc::<Common>::default());
        three(&disk).await;
        disk.set_files_max(Some(8));
        let mut keeper = Keeper::new(Recording { min_free_files: 3, ..rules() });
        assert_eq!(round(&mut keeper, &disk, false, &common).await, 2);
        disk.set_files_max(Some(2));
        assert_eq!(round(&mut keeper, &disk, false, &common).await, 0);
        assert!(common.full.get());
    });
}

#[test]
fn a_quota_is_separate() {
    runtime().block_on(async {
        let (disk, common) = (Sim::default(), Rc::<Common>::default());
        let own = take(&disk, "own/x").await;
        let flood = [take(&disk, "flood/x@20261121T091545Z").await, take(&disk, "flood/x").await];
        let other = [take(&disk, "other/x@20261121T091545Z").await, take(&disk, "other/x").await];
        let mut limited = rules();
        for (pattern, keep_size, keep_size_per_stream) in
            [("own/*", 5000, 0), ("flood/*", 1500, 0), ("other/x", 0, 1500)]
        {
            let quota = Quota { keep_size, keep_size_per_stream, ..Quota::default() };
            limited.apps.insert(pattern.to_owned(), quota);
        }
        limited.keep_size = 1;
        assert_eq!(left(&disk, limited.clone(), &common).await, 3);
        assert!(has(&disk, &own), "the oldest of all, but within its quota");
        assert_eq!([has(&disk, &flood[0]), has(&disk, &flood[1])], [false, true]);
        assert_eq!([has(&disk, &other[0]), has(&disk, &other[1])], [false, true]);

        // A flood without a quota fills the disk.
        let shared = [take(&disk, "free/a").await, take(&disk, "free/b").await];
        limited.keep_size = 0;
        limited.min_free = 1 << 20;
        let active = common.activate(&shared[1]);
        disk.set_capacity(Some(disk.used()));
        assert_eq!(left(&disk, limited.clone(), &common).await, 4);
        assert!(!has(&disk, &shared[0]) && has(&disk, &own) && common.full.get());
        drop(active);
        // Only the one that is being recorded grows.
        let _active = common.activate(&other[1]);
        disk.set_capacity(None);
        take(&disk, "other/x@20261121T091546Z").await;
        disk.set_capacity(Some(disk.used()));
        assert_eq!(left(&disk, limited, &common).await, 3, "{:?}", disk.files().keys());
        assert!(has(&disk, &own) && has(&disk, &flood[1]) && has(&disk, &other[1]));
    });
}

#[test]
fn a_full_disk_is_surveyed_less_and_less_often() {
    runtime().block_on(async {
        let (disk, common) = (Sim::default(), Rc::<Common>::default());
        let dirs = three(&disk).await;
        let active = dirs.each_ref().map(|dir| common.activate(dir));
        disk.set_capacity(Some(disk.used()));
        let mut keeper = Keeper::new(Recording { min_free: 1000, ..rules() });
        let mut surveys = 0;
        for _ in 0..100 {
            let before = disk.lists();
            keeper.round(&disk, Path::new("/data"), false, disk.now(), &common).await.unwrap();
            surveys += u32::from(disk.lists() > before);
        }
        assert!((2..=10).contains(&surveys), "{surveys}");
        drop(active);
        assert_eq!(round(&mut keeper, &disk, false, &common).await, 2, "at once when a take is finished");
    });
}
