//! Takes that cannot be finished are tried again, at once, and later.

use std::path::Path;
use std::rc::Rc;
use std::time::Duration;

use super::common::{Common, Left};
use super::hook::Told;
use super::jobs::{ATTEMPTS, Jobs, LATER, Terms};
use super::layout::Kind;
use super::queue::Queue;
use super::sim::Sim;
use super::take::found;
use super::tests::{dir, one_take, play, runtime};

fn terms() -> Terms {
    Terms { data: Path::new("/data").to_owned(), sync: true, gap: Duration::from_secs(5) }
}

#[test]
fn a_merge_that_has_failed_for_good_is_tried_again_after_an_hour() {
    let (disk, kind) = (Sim::default(), Kind::Fmp4);
    let (told, mut files) = Queue::<Told>::new("hook", 100);
    tokio::task::LocalSet::new().block_on(&runtime(), async {
        one_take(kind, &disk, 7, "a").await;
        let id = found(&disk, &dir(kind)).await.unwrap().unwrap().id;
        let common = Rc::<Common>::default();
        let (jobs, items) = Jobs::new(disk.clone(), terms(), Rc::clone(&common), Some(told), Rc::default());
        tokio::task::spawn_local(Rc::clone(&jobs).work_off(items));
        disk.set_capacity(Some(disk.used() + 20_000));
        jobs.finish(Left { kind, dir: dir(kind), id });
        // All attempts are made within the first hour.
        tokio::time::sleep(LATER / 2).await;
        assert_eq!(common.actives(&dir(kind)), 0, "after {ATTEMPTS} attempts it may be removed");
        disk.set_capacity(None);
        tokio::time::sleep(LATER / 4).await;
        assert!(files.try_recv().is_err(), "nobody tries it in between");
        tokio::time::sleep(LATER).await;
    });
    assert_eq!(play(kind, &disk.files(), dir(kind).to_str().unwrap()).pictures, 175);
    let files: Vec<String> =
        std::iter::from_fn(|| files.try_recv().ok()).map(|queued| queued.item.0.file).collect();
    assert!(files.iter().any(|file| file.ends_with("x_full.mp4")), "the hook is told: {files:?}");
}
