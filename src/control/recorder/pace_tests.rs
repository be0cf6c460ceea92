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

/// Pictures in the FLV file, finished or not.
fn written(disk: &Sim) -> usize {
    let Some(file) = disk.file(dir(Kind::Flv).join("index.flv").to_str().unwrap()) else { return 0 };
    let is_picture = |bytes: &&[u8]| [0x41, 0x65].contains(&bytes[0]) && bytes[1..] == [7; 199];
    file.windows(200).filter(is_picture).count()
}

/// As long as what was published may wait for the file, by the clock.
const SOON: Duration = Duration::from_millis(1_050);

#[test]
fn data_before_a_sudden_silence_is_soon_in_the_flv_file() {
    // After so many seconds, so many pictures, and not a byte more.
    for (seconds, last) in [(0, 1), (0, 10), (0, 24), (3, 4), (3, 24), (1, 1)] {
        let disk = Sim::default();
        runtime().block_on(async {
            let common = Rc::<Common>::default();
            recorded(Kind::Flv, &disk, &common, async |publisher: &mut Publisher, _: &Cell<u32>| {
                publisher.play_smoothly(seconds).await;
                publisher.frames(last);
                tokio::time::sleep(SOON).await;
                assert_eq!(written(&disk), (seconds * 25 + last) as usize, "{seconds} s and {last}");
                tokio::time::sleep(Duration::from_secs(3600)).await;
                publisher.frames(1);
                tokio::time::sleep(SOON).await;
                assert_eq!(written(&disk), (seconds * 25 + last + 1) as usize, "after an hour");
            })
            .await;
            mend(&disk, Kind::Flv, &common).await;
        });
        let played = play(Kind::Flv, &disk.files(), dir(Kind::Flv).to_str().unwrap());
        assert_eq!(played.pictures, (seconds * 25 + last + 1) as usize);
    }
}

#[test]
fn the_flv_file_follows_the_clock_when_the_streams_time_is_slow() {
    let disk = Sim::default();
    runtime().block_on(async {
        let common = Rc::<Common>::default();
        recorded(Kind::Flv, &disk, &common, async |publisher: &mut Publisher, _: &Cell<u32>| {
            for n in 0..100 {
                publisher.frames(1); // 40 ms of the stream in 400 ms
                tokio::time::sleep(Duration::from_millis(400)).await;
                assert!(written(&disk) + 2 >= n, "{} of {n} after {} ms", written(&disk), n * 400);
            }
        })
        .await;
    });
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
