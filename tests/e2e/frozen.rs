//! A disk that stands still: threads that write to it wait in the kernel, and cannot even be killed.

use std::time::Duration;

use crate::harness::disk::Disk;
use crate::harness::ffmpeg::{make_clip, publish};
use crate::harness::raw::{self, Poster};
use crate::harness::{Flavor, Scratch, Server, Watch, need_ffmpeg, until};

const ANY: &str = "127.0.0.1:0";

/// Viewers notice nothing, and the process ends when it is told to. Threads that wait for the disk are out of reach;
/// the process is a zombie until the kernel lets them go.
#[test]
fn a_frozen_disk_disturbs_no_viewer_and_does_not_keep_the_process() {
    need_ffmpeg!();
    let scratch = Scratch::new("frozen");
    let Some(disk) = Disk::freezable(&scratch) else { return };
    let clip = scratch.path("clip.flv");
    make_clip(&clip, 5, "320x180");
    let (data, config) = (disk.0.join("data"), scratch.path("config.toml"));
    std::fs::write(&config, "drain = '1s'\n[recording]\nsegment = '1s'\nmin_free = 0\n").unwrap();
    let args =
        ["origin", "--rtmp", ANY, "--flv", ANY, "--web", ANY, "--admin", ANY, "--record", "flv,hls,fmp4"];
    let files = ["--config", config.to_str().unwrap(), "--data", data.to_str().unwrap()];
    let origin = Server::start(&scratch.path(""), &[&args[..], &files[..]].concat());
    let _publisher = publish(&clip, &origin.rtmp("live/stream"), true);
    let watch = Watch::start(origin.addr("flv"), "/live/stream.flv", Flavor::Http);
    until("the first segment", || data.join("hls/live/stream/segment_0.ts").exists().then_some(()));
    let frozen = disk.freeze();
    let mark = watch.count();
    until("more than the disk could take", || (watch.count() > mark + 400).then_some(()));
    watch.assert_well();
    origin.guard.terminate();
    until("the process to end", || origin.guard.is_zombie().then_some(()));
    drop(frozen);
}

/// Threads that may wait for the disk, and all others of a server.
const THREADS_MAX: u64 = 64 + 36;
const STREAMS: u32 = 120;

/// A second of a stream: a group of pictures, and sound.
fn second(from: u32) -> Vec<u8> {
    let tags = (0..25).map(|n| {
        let time = from + n * 40;
        [raw::picture(n == 0, time, 200), raw::sound(time + 5)].concat()
    });
    tags.collect::<Vec<_>>().concat()
}

#[test]
fn many_recordings_need_few_threads_also_when_the_disk_stands_still() {
    let scratch = Scratch::new("threads");
    let disk = Disk::freezable(&scratch);
    let data = disk.as_ref().map_or_else(|| scratch.path("data"), |disk| disk.0.join("data"));
    let config = scratch.path("config.toml");
    std::fs::write(&config, "drain = '1s'\n[recording]\nsegment = '1s'\nmin_free = 0\n").unwrap();
    let files = ["--config", config.to_str().unwrap(), "--data", data.to_str().unwrap()];
    let args =
        ["origin", "--rtmp", ANY, "--flv", ANY, "--web", ANY, "--admin", ANY, "--record", "flv,hls,fmp4"];
    let origin = Server::start(&scratch.path(""), &[&args[..], &files[..]].concat());
    let mut publishers: Vec<Poster> =
        (0..STREAMS).map(|n| Poster::opened(origin.addr("flv"), &format!("live/{n}"))).collect();
    let (mut time, mut most) = (1_000, 0);
    let mut go_on = |what: &str, is_done: &dyn Fn(u32) -> bool| {
        until(what, || {
            let bytes = second(time);
            assert!(publishers.iter_mut().all(|publisher| publisher.send(&bytes)), "all publish");
            time += 1_000;
            most = most.max(origin.guard.status("Threads:"));
            std::thread::sleep(Duration::from_millis(200));
            is_done(time).then_some((time, most))
        })
    };
    let exists = |n: u32, file: &str| data.join(file.replace("{}", &n.to_string())).exists();
    let all_have = |file: &str| (0..STREAMS).all(|n| exists(n, file));
    let is_recorded = |_| all_have("hls/live/{}/segment_0.ts") && all_have("flv/live/{}/index.flv");
    let (time, threads) = go_on("every stream to be recorded", &is_recorded);
    assert!(threads <= THREADS_MAX, "{threads} threads record {STREAMS} streams");
    let Some(disk) = disk else { return };
    let frozen = disk.freeze();
    let (_, threads) = go_on("ten seconds that the disk does not take", &|now| now > time + 10_000);
    assert!(threads <= THREADS_MAX, "{threads} threads when the disk stands still");
    drop(frozen);
}
