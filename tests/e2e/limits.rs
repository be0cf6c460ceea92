//! The program under the limits that systems set: each is an error that says what it is, and none ends it.

use std::net::SocketAddr;
use std::os::unix::process::CommandExt;
use std::process::{Command, Output};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use rustix::process::Resource;

use crate::harness::ffmpeg::{make_clip, publish};
use crate::harness::{Flavor, Scratch, Server, Watch, http, need_ffmpeg, until};

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

/// A client that downloads a file again and again.
struct Download(Arc<AtomicBool>, Option<JoinHandle<()>>);

impl Download {
    fn start(addr: SocketAddr, path: &'static str) -> Self {
        let goes_on = Arc::new(AtomicBool::new(true));
        let until = Arc::clone(&goes_on);
        let thread = std::thread::spawn(move || {
            while until.load(Ordering::Relaxed) {
                assert_eq!(http(addr, "GET", path, "").0.status, 200);
            }
        });
        Self(goes_on, Some(thread))
    }

    fn end(mut self) {
        self.0.store(false, Ordering::Relaxed);
        self.1.take().unwrap().join().unwrap();
    }
}

/// While as much is sent as may be, no new player gets the playlist, and one that plays goes on.
fn assert_new_players_are_refused(server: &Server, listener: &str, playlist: &str, large: &'static str) {
    let addr = server.addr(listener);
    let get = |agent: &str| http(addr, "GET", playlist, &format!("User-Agent: {agent}\r\n"));
    assert_eq!(get("first").0.status, 200);
    let download = Download::start(addr, large);
    let mut players = 0;
    let refused = until("a new player to be refused", || {
        assert_eq!(get("first").0.status, 200, "it plays already");
        players += 1;
        Some(get(&format!("player {players}"))).filter(|(answer, _)| answer.status != 200)
    });
    let (answer, text) = (&refused.0, String::from_utf8_lossy(&refused.1));
    assert_eq!((answer.status, answer.header("retry-after")), (503, Some("1")), "{text}");
    assert!(text.contains("sends as much as it may"), "{text}");
    assert!(server.refused("egress") >= 1);
    if players > 1 {
        assert_eq!(get("player 1").0.status, 200, "it was taken before");
    }
    for _ in 0..20 {
        assert_eq!(get("first").0.status, 200, "it plays already, whichever loop it asks");
    }
    download.end();
    until("another player to be taken", || (get("another").0.status == 200).then_some(()));
}

#[test]
fn new_players_of_playlists_on_disk_are_refused_at_the_limit_of_egress() {
    let scratch = Scratch::new("egress-disk");
    let root = scratch.path("root");
    std::fs::create_dir_all(root.join("hls/live/a")).unwrap();
    let text = "#EXTM3U\n#EXT-X-VERSION:3\n#EXT-X-TARGETDURATION:40\n#EXTINF:40,\nsegment_1.ts\n";
    std::fs::write(root.join("hls/live/a/index.m3u8"), text).unwrap();
    std::fs::write(root.join("large.ts"), vec![0x47; 1 << 20]).unwrap();
    let config = scratch.path("egress.toml");
    std::fs::write(&config, "loops = 2\n[limits]\negress = \"2Mbps\"\n").unwrap();
    let (config, root) = (config.to_str().unwrap(), root.to_str().unwrap());
    let args = ["file-gateway", "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--root", root];
    let gateway = Server::start(&scratch.path(""), &[&args[..], &["--config", config]].concat());
    assert_new_players_are_refused(&gateway, "listen", "/hls/live/a/index.m3u8", "/large.ts");
}

#[test]
fn new_players_of_live_playlists_are_refused_at_the_limit_of_egress() {
    need_ffmpeg!();
    let scratch = Scratch::new("egress-live");
    let text = "loops = 2\n[limits]\negress = \"4Mbps\"\n[recording]\nsegment = '5s'\n";
    let origin =
        Server::origin_with(&scratch.path(""), text, &["--record", "none", "--packaging", "hls,fmp4"]);
    let clip = scratch.path("clip.flv");
    make_clip(&clip, 60, "320x180");
    let _publisher = publish(&clip, &origin.rtmp("live/a"), true);
    for playlist in ["/hls/live/a/index.m3u8", "/mp4/live/a/output_merge/index.m3u8"] {
        until("the playlist", || {
            (http(origin.addr("web"), "GET", playlist, "").0.status == 200).then_some(())
        });
        assert_new_players_are_refused(&origin, "web", playlist, "/vendor/mpegts.js");
    }
}
