//! Crashes where one take follows another: at any step, one after the other, and with other streams' folders inside.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::Duration;

use super::common::{Common, Left};
use super::finish::finish;
use super::layout::Kind;
use super::sim::Sim;
use super::take::found;
use super::task::Setting;
use super::tests::{
    Playable, Publisher, dir, first_number, mend, one_parted, one_take, play, record_in, runtime, seen,
    setting,
};

/// The folder of a stream that is inside another stream's folder.
fn inner(kind: Kind) -> PathBuf {
    dir(kind).join("x")
}

/// Records a stream and another one inside its folder for nine seconds, with a split every four seconds.
async fn nested(kind: Kind, disk: &Sim) -> Vec<Option<Left>> {
    let common = Rc::<Common>::default();
    let (mut outer, mut other) = (Publisher::new(), Publisher::new());
    let split = |id: &str, name: &str| {
        let mut setting = Setting { take: 4_000, ..setting(disk, kind, id, &common) };
        setting.about.stream = name.to_owned();
        setting
    };
    let streams = (outer.stream(), other.stream());
    let outer_one = record_in(kind, split("a", "live/x"), &streams.0, dir(kind));
    let inner_one = record_in(kind, split("i", "live/x/x"), &streams.1, inner(kind));
    let publishing = async {
        for _ in 0..9 {
            outer.frames(25);
            other.frames(25);
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
        outer.end();
        other.end();
    };
    let all = async { tokio::join!(outer_one, inner_one, publishing) };
    match tokio::time::timeout(Duration::from_secs(3600), all).await {
        Ok((one, other, ())) => vec![one, other],
        Err(_) => Vec::new(), // it was killed
    }
}

/// What the takes of a stream hold, whose newest one is in `newest`. Checks that nothing is left that is no take's.
fn takes_of(kind: Kind, disk: &Sim, newest: &Path) -> Vec<Playable> {
    let files = disk.files();
    let described: BTreeSet<&str> = files.keys().filter_map(|path| path.strip_suffix("/take.json")).collect();
    for path in files.keys() {
        assert!(!path.ends_with(".journal") && !path.contains(".tmp"), "{kind:?}: {path} is left");
        let mut above = Path::new(path).ancestors().skip(1).filter_map(Path::to_str);
        let is_takes = above.next().is_some_and(|folder| {
            let own = folder.strip_suffix("/output_merge").or(folder.strip_suffix("/output_separate"));
            described.contains(own.unwrap_or(folder))
        });
        assert!(is_takes, "{kind:?}: {path} is no take's");
    }
    let newest = newest.to_str().unwrap();
    let is_own = |base: &&&str| **base == newest || base.starts_with(&format!("{newest}@"));
    described.iter().filter(is_own).map(|base| play(kind, &files, base)).collect()
}

/// How many steps kills are apart: with 1, which tries each of them, these tests take minutes.
fn stride(kind: Kind) -> usize {
    if kind == Kind::Fmp4 { 5 } else { 3 }
}

fn pictures(takes: &[Playable]) -> usize {
    takes.iter().map(|take| take.pictures).sum()
}

/// How much of a stream there is: segments, each counted once, or the pictures of FLV files. A take that was split off
/// and not continued begins with segments of the one before.
fn kept(kind: Kind, disk: &Sim, newest: &Path) -> usize {
    if kind == Kind::Flv {
        return pictures(&takes_of(kind, disk, newest));
    }
    let files = disk.files();
    let names = files.keys().filter_map(|path| {
        let (folder, name) = path.rsplit_once('/')?;
        let folder = folder.strip_suffix("/output_merge").unwrap_or(folder);
        let own = folder == newest.to_str()? || folder.starts_with(&format!("{}@", newest.to_str()?));
        (own && name.starts_with("segment_")).then_some(name)
    });
    names.collect::<BTreeSet<_>>().len()
}

#[test]
fn takes_of_nested_names_survive_a_kill_at_any_step() {
    for kind in Kind::EVERY {
        let mut last = 0;
        for step in (0..).step_by(stride(kind)) {
            let disk = Sim::default();
            disk.die_at(Some(step));
            runtime().block_on(nested(kind, &disk));
            let died = disk.steps() > step;
            disk.die_at(None);
            let (in_outer, in_inner) =
                (seen(kind, &disk.files(), &dir(kind)), seen(kind, &disk.files(), &inner(kind)));
            runtime().block_on(mend(&disk, kind, &Common::default()));
            let (outer, other) = (takes_of(kind, &disk, &dir(kind)), takes_of(kind, &disk, &inner(kind)));
            assert!(pictures(&outer) >= (in_outer * 50).min(225), "{kind:?} {step}: {in_outer} {outer:?}");
            assert!(pictures(&other) >= (in_inner * 50).min(225), "{kind:?} {step}: {in_inner} {other:?}");
            let all = kept(kind, &disk, &dir(kind)) + kept(kind, &disk, &inner(kind));
            assert!(all >= last, "{kind:?} {step}: {all} are left, {last} a step before");
            last = all;

            runtime().block_on(one_take(kind, &disk, 3, "b"));
            runtime().block_on(mend(&disk, kind, &Common::default()));
            let after = takes_of(kind, &disk, &dir(kind));
            assert_eq!(pictures(&after), pictures(&outer) + 75, "{kind:?} {step}: {outer:?} {after:?}");
            assert_eq!(takes_of(kind, &disk, &inner(kind)), other, "{kind:?} {step}");
            if kind != Kind::Flv {
                assert!(first_number(kind, &disk.files()) >= in_outer as u64, "{kind:?} {step}");
            }
            if !died {
                assert_eq!(pictures(&outer) + pictures(&other), 450, "{kind:?}: without a kill");
                break;
            }
        }
    }
}

#[test]
fn a_repair_between_two_takes_that_was_killed_is_repeated() {
    for kind in Kind::EVERY {
        let mut repairs = 0;
        for step in (0..).step_by(4 * stride(kind)) {
            let disk = Sim::default();
            disk.die_at(Some(step));
            runtime().block_on(nested(kind, &disk));
            if disk.steps() <= step {
                break;
            }
            disk.die_at(None);
            let whole = disk.copy();
            runtime().block_on(mend(&whole, kind, &Common::default()));
            let want = (takes_of(kind, &whole, &dir(kind)), takes_of(kind, &whole, &inner(kind)));
            for again in (step % 7..).step_by(7) {
                let disk = disk.copy();
                disk.die_at(Some(again));
                let mending = async {
                    let common = Common::default();
                    tokio::time::timeout(Duration::from_secs(3600), mend(&disk, kind, &common)).await
                };
                let died = runtime().block_on(mending).is_err();
                disk.die_at(None);
                runtime().block_on(mend(&disk, kind, &Common::default()));
                let got = (takes_of(kind, &disk, &dir(kind)), takes_of(kind, &disk, &inner(kind)));
                assert_eq!(got, want, "{kind:?} {step} {again}");
                if !died {
                    break;
                }
                repairs += 1;
            }
        }
        assert!(repairs > 5, "{kind:?}: {repairs} repairs were killed");
    }
}

/// The next start records the stream before it has looked for what the crash has left, and is killed as well.
#[test]
fn a_second_crash_when_the_next_take_begins_loses_no_picture_and_no_number() {
    for kind in Kind::EVERY {
        for step in (20..).step_by(3 * stride(kind)) {
            let disk = Sim::default();
            disk.die_at(Some(step));
            runtime().block_on(one_parted(kind, &disk, 9, 4));
            if disk.steps() <= step {
                break;
            }
            disk.die_at(None);
            let used = seen(kind, &disk.files(), &dir(kind));
            let whole = disk.copy();
            runtime().block_on(mend(&whole, kind, &Common::default()));
            let before = pictures(&takes_of(kind, &whole, &dir(kind)));
            for again in (0..16).step_by(2) {
                let disk = disk.copy();
                disk.die_at(Some(again));
                runtime().block_on(one_take(kind, &disk, 3, "b"));
                disk.die_at(None);
                let used = used.max(seen(kind, &disk.files(), &dir(kind)));
                runtime().block_on(one_take(kind, &disk, 3, "c"));
                runtime().block_on(mend(&disk, kind, &Common::default()));
                let takes = takes_of(kind, &disk, &dir(kind));
                assert!(pictures(&takes) >= before + 75, "{kind:?} {step} {again}: {before} {takes:?}");
                assert_eq!(play(kind, &disk.files(), dir(kind).to_str().unwrap()).pictures, 75);
                if kind != Kind::Flv {
                    assert!(first_number(kind, &disk.files()) >= used as u64, "{kind:?} {step} {again}");
                }
            }
        }
    }
}

/// A disk that fails within a split, and not the process.
#[test]
fn a_take_that_was_moved_before_an_attempt_failed_is_finished() {
    for kind in Kind::EVERY {
        let disk = Sim::default();
        let left = runtime().block_on(async {
            let common = Rc::<Common>::default();
            let mut publisher = Publisher::new();
            let stream = publisher.stream();
            let publishing = async {
                disk.fail_renames_from(&super::take::fresh(&dir(kind)), 2);
                publisher.play(9).await;
                publisher.end();
            };
            let setting = Setting { take: 4_000, ..setting(&disk, kind, "a", &common) };
            tokio::join!(record_in(kind, setting, &stream, dir(kind)), publishing);
            common.take_left()
        });
        assert_eq!(left.iter().filter(|left| left.id == "a").count(), 1, "{kind:?}: {left:?}");
        runtime().block_on(async {
            for Left { dir, id, .. } in left {
                assert_eq!(found(&disk, &dir).await.unwrap().unwrap().id, id, "{kind:?}");
                finish(&disk, kind, &dir, true, &Common::default()).await.unwrap();
            }
            finish(&disk, kind, &dir(kind), true, &Common::default()).await.unwrap();
        });
        // Tags do not wait for the disk, segments do.
        let least = if kind == Kind::Flv { 125 } else { 225 };
        let takes = takes_of(kind, &disk, &dir(kind));
        assert!(pictures(&takes) >= least, "{kind:?}: {takes:?}");
    }
}

#[test]
fn a_merge_that_fails_twenty_times_leaves_the_take_as_it_was() {
    let disk = Sim::default();
    let (kind, common, dir) = (Kind::Fmp4, Common::default(), dir(Kind::Fmp4));
    runtime().block_on(async {
        one_take(kind, &disk, 7, "a").await;
        let finishing = || finish(&disk, kind, &dir, true, &common);
        disk.set_capacity(Some(disk.used() + 20_000));
        let mut used = None;
        for attempt in 0..super::jobs::ATTEMPTS {
            assert!(finishing().await.is_err(), "{attempt}");
            let now = disk.used();
            assert_eq!(*used.get_or_insert(now), now, "{attempt}: it takes no more space each time");
        }
        let played = play(kind, &disk.files(), dir.to_str().unwrap());
        assert_eq!((played.segments, played.pictures), (4, 0), "replays of its segments are finished");
        disk.set_capacity(None);
        finishing().await.unwrap();
    });
    assert_eq!(pictures(&takes_of(kind, &disk, &dir)), 175);
}

#[test]
fn what_an_init_segment_does_not_describe_is_left_out_of_the_merge() {
    for damage in [None, Some(vec![0; 40]), Some(b"\0\0\0\x10moov\0\0\0\x08trak".to_vec())] {
        let disk = Sim::default();
        let kind = Kind::Fmp4;
        let init = dir(kind).join("output_merge/init.mp4");
        runtime().block_on(async {
            use super::disk::Disk;
            one_take(kind, &disk, 7, "a").await;
            match damage.clone() {
                Some(bytes) => disk.replace(&init, bytes, false).await.unwrap(),
                None => disk.remove(&init).await.unwrap(),
            }
            finish(&disk, kind, &dir(kind), true, &Common::default()).await.expect("it is over");
        });
        assert!(!disk.files().keys().any(|name| name.ends_with(".journal")), "{damage:?}");
    }
}

#[test]
fn three_kinds_of_a_take_that_was_split_off_have_one_stamp() {
    let common = Common::default();
    let stamp = |stream: &str, at, now: &str| common.stamp(stream, at, now.to_owned());
    assert_eq!(stamp("a", 4_000, "20261121T091549Z"), "20261121T091549Z");
    assert_eq!(stamp("a", 4_000, "20261121T091550Z"), "20261121T091549Z", "another kind, a second later");
    assert_eq!(stamp("b", 4_000, "20261121T091550Z"), "20261121T091550Z", "another stream");
    assert_eq!(stamp("a", 8_000, "20261121T091553Z"), "20261121T091553Z", "the next take");
    assert_eq!(stamp("a", 4_000, "20261121T091554Z"), "20261121T091549Z", "a kind that lags");
    (0..5_000).for_each(|n| drop(stamp("c", n, "20261121T091555Z")));
}
