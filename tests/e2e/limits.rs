//! The program under the limits that systems set: each is an error that says what it is, and none ends it.

use std::os::unix::process::CommandExt;
use std::process::{Command, Output};

use rustix::process::Resource;

use crate::harness::ffmpeg::{make_clip, publish};
use crate::harness::{Flavor, Scratch, Server, Watch, need_ffmpeg, until};

const PORTS: &str = "--rtmp 127.0.0.1:0 --flv 127.0.0.1:0 --web 127.0.0.1:0 --admin off --record none";

/// How an origin that cannot start ends, under what `ulimit` sets, as a user without privileges; `None` where there
/// is no such user to be had.
fn ends(scratch: &Scratch, limit: &str, args: &str) -> Option<Output> {
    let program = env!("CARGO_BIN_EXE_uringcast");
    // The end is waited for no longer than this: a program that starts after all is ended.
    let script = format!("ulimit {limit}; exec timeout 20 {program} {args} origin {PORTS} --data .");
    let mut command = Command::new("sh");
    command.args(["-c", &script]).current_dir(scratch.path(""));
    if rustix::process::geteuid().is_root() {
        const NOBODY: u32 = 65_534;
        let reachable = Command::new("test").args(["-x", program]).uid(NOBODY).status().unwrap().success();
        if !reachable {
            eprintln!("skipped: {program} is out of reach of a user without privileges");
            return None;
        }
        command.uid(NOBODY).gid(NOBODY);
    }
    Some(command.output().unwrap())
}

#[test]
fn too_little_locked_memory_for_the_rings_is_said_before_ready() {
    let release = rustix::system::uname().release().to_string_lossy().into_owned();
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(|number| number.parse().unwrap_or(0));
    if (numbers.next(), numbers.next()) < (Some(6u32), Some(14u32)) {
        eprintln!("skipped: Linux {release} does not count a ring's memory as locked");
        return;
    }
    let scratch = Scratch::new("memlock");
    let Some(output) = ends(&scratch, "-l 512", "--loops 40") else { return };
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(75), "{said}");
    for part in ["40 io_uring rings", "512 KiB", "LimitMEMLOCK=", "ulimit -l"] {
        assert!(said.contains(part), "no {part:?} in {said}");
    }
    assert!(!said.contains("ready ") && !said.contains("seccomp"), "{said}");
}

#[test]
fn too_few_descriptors_are_said() {
    let scratch = Scratch::new("descriptors");
    let Some(output) = ends(&scratch, "-n 12", "--loops 2") else { return };
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.code().is_some_and(|code| code != 101), "{said}");
    assert!(!said.contains("seccomp") && !said.contains("panicked"), "{said}");
}

/// An origin that records below `data`.
fn recording(scratch: &Scratch) -> Server {
    let any = "127.0.0.1:0";
    let listen = ["origin", "--rtmp", any, "--flv", any, "--web", any, "--admin", any];
    Server::start(&scratch.path(""), &[&listen[..], &["--data", "data", "--record", "flv,hls,fmp4"]].concat())
}

#[test]
fn a_recording_that_may_not_grow_does_not_end_the_program() {
    need_ffmpeg!();
    let scratch = Scratch::new("fsize");
    let clip = scratch.path("clip.flv");
    make_clip(&clip, 4, "320x180");
    let mut origin = recording(&scratch);
    origin.guard.limit(Resource::Fsize, 16 << 10);
    let mut publisher = publish(&clip, &origin.rtmp("live/large"), true);
    origin.wait_log("File too large");
    let watch = Watch::start(origin.addr("flv"), "/live/large.flv", Flavor::Http);
    watch.wait_pictures_after(0);
    assert!(publisher.is_running());
    origin.assert_up();
}

#[test]
fn a_stop_needs_no_more_memory_than_there_is() {
    need_ffmpeg!();
    let scratch = Scratch::new("address-space");
    let clip = scratch.path("clip.flv");
    make_clip(&clip, 4, "320x180");
    let mut origin = recording(&scratch);
    let publisher = publish(&clip, &origin.rtmp("live/last"), true);
    let watch = Watch::start(origin.addr("flv"), "/live/last.flv", Flavor::Http);
    watch.wait_pictures_after(30);
    until("a recording", || scratch.path("data/flv/live/last").exists().then_some(()));
    const LITTLE: u64 = 4 << 20;
    origin.guard.limit(Resource::As, origin.guard.address_space() + LITTLE);
    origin.guard.signal("INT");
    assert!(origin.guard.wait(), "{:?}", origin.guard.log());
    drop(publisher);
}
