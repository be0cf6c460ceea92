//! When tasks read their logs: only when there is enough to be worth it.

use std::cell::Cell;
use std::future::Future;
use std::pin::pin;
use std::rc::Rc;
use std::time::Duration;

use super::common::Common;
use super::layout::Kind;
use super::sim::Sim;
use super::tests::{Publisher, dir, mend, play, record_as, runtime, setting};

/// Counts how often a future is polled.
async fn counted<F: Future>(polls: &Cell<u32>, future: F) -> F::Output {
    let mut future = pin!(future);
    std::future::poll_fn(|context| {
        polls.set(polls.get() + 1);
        future.as_mut().poll(context)
    })
    .await
}

/// Records `kind` while `publishing` runs; returns what that returns.
async fn recorded<T>(
    kind: Kind,
    disk: &Sim,
    common: &Rc<Common>,
    publishing: impl AsyncFnOnce(&mut Publisher, &Cell<u32>) -> T,
) -> T {
    let (polls, mut publisher) = (Rc::<Cell<u32>>::default(), Publisher::new());
    let (stream, setting, counter) =
        (publisher.stream(), setting(disk, kind, "a", common), Rc::clone(&polls));
    let tasks = tokio::task::LocalSet::new();
    // A separate task is polled only when it is itself woken.
    let recording =
        tasks.spawn_local(async move { counted(&counter, record_as(kind, setting, &stream)).await });
    let publishing = async {
        let outcome = publishing(&mut publisher, &polls).await;
        publisher.end();
        recording.await.unwrap();
        outcome
    };
    tasks.run_until(publishing).await
}

#[test]
fn data_before_a_sudden_silence_is_soon_in_the_flv_file() {
    let disk = Sim::default();
    runtime().block_on(async {
        let common = Rc::<Common>::default();
        recorded(Kind::Flv, &disk, &common, async |publisher: &mut Publisher, _: &Cell<u32>| {
            publisher.play(3).await;
            publisher.frames(4); // and not a byte more
            tokio::time::sleep(Duration::from_secs(3)).await;
            let file = disk.file(dir(Kind::Flv).join("index.flv").to_str().unwrap()).unwrap();
            let written =
                file.windows(200).filter(|bytes| bytes == &[&[0x41][..], &[7; 199]].concat()).count();
            // Each second has a keyframe.
            assert_eq!(written, 3 * 24 + 3, "pictures in the file");
        })
        .await;
        mend(&disk, Kind::Flv, &common).await;
    });
    assert_eq!(play(Kind::Flv, &disk.files(), dir(Kind::Flv).to_str().unwrap()).pictures, 79);
}

#[test]
fn recordings_are_polled_seldom_and_not_at_all_without_data() {
    for kind in Kind::EVERY {
        let disk = Sim::default();
        let (live, idle) = runtime().block_on(async {
            let common = Rc::<Common>::default();
            recorded(kind, &disk, &common, async |publisher: &mut Publisher, polls: &Cell<u32>| {
                publisher.play(2).await;
                let begin = polls.get();
                publisher.play_smoothly(20).await;
                let live = polls.get() - begin;
                tokio::time::sleep(Duration::from_secs(10)).await;
                let settled = polls.get();
                tokio::time::sleep(Duration::from_secs(24 * 3600)).await;
                let idle = polls.get() - settled;
                publisher.play(1).await;
                (live, idle)
            })
            .await
        });
        assert_eq!(idle, 0, "{kind:?}: polled while no data came");
        // 1,360 tags came in 20 seconds, 20 of them starts.
        let most = if kind == Kind::Flv { 60 * 6 } else { 20 * 10 };
        assert!(live <= most, "{kind:?}: polled {live} times");
    }
}

#[test]
fn recordings_end_at_once_when_the_process_does() {
    for kind in Kind::EVERY {
        let disk = Sim::default();
        runtime().block_on(async {
            let (common, mut publisher) = (Rc::<Common>::default(), Publisher::new());
            let stream = publisher.stream();
            let recording = record_as(kind, setting(&disk, kind, "a", &common), &stream);
            let stopping = async {
                publisher.play(3).await;
                tokio::time::sleep(Duration::from_secs(3600)).await;
                common.stop();
                tokio::time::Instant::now()
            };
            let (left, stopped) = tokio::join!(recording, stopping);
            assert_eq!(stopped.elapsed(), Duration::ZERO, "{kind:?}: no time passes");
            assert!(left.is_some());
            mend(&disk, kind, &Common::default()).await;
            assert_eq!(play(kind, &disk.files(), dir(kind).to_str().unwrap()).pictures, 75, "{kind:?}");
        });
    }
}
