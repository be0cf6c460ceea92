//! A disk that stands still: threads that write to it wait in the kernel, and cannot even be killed.

use crate::harness::disk::Disk;
use crate::harness::ffmpeg::{make_clip, publish};
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
