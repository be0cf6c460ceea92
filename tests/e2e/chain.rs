//! What a viewer gets: the publisher's packets, whole and in order, wherever and however it asks.

use std::net::SocketAddr;
use std::path::Path;

use crate::harness::ffmpeg::{self, make_clip, publish};
use crate::harness::flv::{AUDIO, Brief, SCRIPT, VIDEO};
use crate::harness::process::Guard;
use crate::harness::{Flavor, Scratch, Server, Watch, http, need_ffmpeg, until};

const KEY: &str = "/live/chain";
const PLAY: &str = "/live/chain.flv";

/// An origin with an endless publisher and a viewer that already sees pictures.
struct Stage {
    origin: Server,
    watch: Watch,
    _publisher: Guard,
    scratch: Scratch,
}

fn live(name: &str) -> Stage {
    let scratch = Scratch::new(name);
    let clip = scratch.path("clip.flv");
    make_clip(&clip, 30, "320x180");
    let origin = Server::origin(&scratch.path(""), "5s");
    let early = Watch::early(origin.addr("flv"), PLAY, Flavor::Http);
    let publisher = publish(&clip, &origin.rtmp(&KEY[1..]), true);
    let watch = early.join().unwrap().unwrap();
    watch.wait_pictures_after(0);
    Stage { origin, watch, _publisher: publisher, scratch }
}

#[test]
fn every_packet_arrives_once_and_unchanged_through_three_gateways() {
    need_ffmpeg!();
    let scratch = Scratch::new("hashes");
    let home = scratch.path("");
    let pushed = scratch.path("pushed.flv");
    make_clip(&pushed, 6, "320x180");

    let origin = Server::origin(&home, "1s");
    let first = Server::gateway(&home, "1s", origin.addr("flv"));
    let second = Server::gateway(&home, "1s", first.addr("listen"));
    let third = Server::gateway(&home, "1s", second.addr("listen"));
    let places = [
        ("origin-http", origin.addr("flv"), Flavor::Http),
        ("origin-ws", origin.addr("flv"), Flavor::Ws),
        ("third-http", third.addr("listen"), Flavor::Http),
        ("third-ws", third.addr("listen"), Flavor::Ws),
    ];
    let early: Vec<_> = places.iter().map(|(_, addr, flavor)| Watch::early(*addr, PLAY, *flavor)).collect();
    // The requests above have to be waiting before the first packet; the pulls take a few round trips.
    std::thread::sleep(std::time::Duration::from_secs(1));
    let mut publisher = publish(&pushed, &origin.rtmp(&KEY[1..]), false);
    let watches: Vec<Watch> = early.into_iter().map(|thread| thread.join().unwrap().unwrap()).collect();
    assert!(publisher.wait(), "the publisher failed: {:?}", publisher.log());
    for ((name, ..), watch) in places.iter().zip(&watches) {
        watch.wait_end();
        let got = scratch.path(&format!("{name}.flv"));
        std::fs::write(&got, watch.bytes()).unwrap();
        assert_same_packets(name, &pushed, &got);
    }
}

fn assert_same_packets(name: &str, pushed: &Path, got: &Path) {
    let (pushed, got) = (ffmpeg::packets(pushed), ffmpeg::packets(got));
    for kind in ["video", "audio"] {
        let (pushed, got) = (&pushed[kind], got.get(kind).map_or(&[][..], Vec::as_slice));
        let differ = pushed.iter().zip(got).position(|(one, other)| one != other);
        if let Some(at) = differ {
            panic!("{name}: {kind} packet {at}: pushed {:?}, got {:?}", pushed[at], got[at]);
        }
        assert_eq!(got.len(), pushed.len(), "{name}: {kind} packets");
    }
}

#[test]
fn ffmpeg_itself_reads_a_gateway() {
    need_ffmpeg!();
    let stage = live("reads");
    let gateway = Server::gateway(&stage.scratch.path(""), "5s", stage.origin.addr("flv"));
    let url = format!("http://{}{PLAY}", gateway.addr("listen"));
    let mut command = std::process::Command::new("ffmpeg");
    command.args(["-loglevel", "warning", "-nostdin", "-xerror", "-i", &url, "-t", "3", "-f", "null", "-"]);
    let mut reader = Guard::spawn("ffmpeg reader", &mut command);
    assert!(reader.wait(), "{:?}", reader.log());
    stage.watch.assert_well();
}

#[test]
fn a_late_viewer_begins_with_headers_and_a_keyframe() {
    need_ffmpeg!();
    let stage = live("late");
    let gateway = Server::gateway(&stage.scratch.path(""), "5s", stage.origin.addr("flv"));
    for addr in [stage.origin.addr("flv"), gateway.addr("listen")] {
        for flavor in [Flavor::Http, Flavor::Ws] {
            // In the middle of a GOP: the newest picture stands some frames behind its keyframe.
            stage.watch.wait("the middle of a GOP", |tags| {
                let recent = tags.iter().rev().filter(|tag| tag.is_picture());
                (5..20).contains(&recent.take_while(|tag| !tag.key).count())
            });
            let late = Watch::start(addr, PLAY, flavor);
            late.wait_pictures_after(0);
            assert_begins_well(&late.tags());
            late.assert_well();
        }
    }
    stage.watch.assert_well();
}

fn assert_begins_well(tags: &[Brief]) {
    let first: Vec<(u8, bool)> = tags[..3].iter().map(|tag| (tag.kind, tag.header)).collect();
    assert_eq!(first, [(SCRIPT, false), (VIDEO, true), (AUDIO, true)], "{:?}", &tags[..6]);
    let picture = tags.iter().find(|tag| tag.is_picture()).unwrap();
    assert!(picture.key, "{picture:?}");
}

#[test]
fn play_options_leave_out_what_they_say() {
    need_ffmpeg!();
    let stage = live("options");
    let gateway = Server::gateway(&stage.scratch.path(""), "5s", stage.origin.addr("flv"));
    for addr in [stage.origin.addr("flv"), gateway.addr("listen")] {
        assert_only(addr, "disableAudio=1", VIDEO, AUDIO);
        assert_only(addr, "disableVideo=1", AUDIO, VIDEO);
        // Without the cached GOP a viewer waits for the next keyframe; the chain itself stays whole.
        let bare = Watch::start(addr, &format!("{PLAY}?disableGop=1"), Flavor::Http);
        bare.wait_pictures_after(0);
        let cached = Watch::start(addr, PLAY, Flavor::Http);
        cached.wait_pictures_after(0);
    }
    stage.watch.assert_well();
}

fn assert_only(addr: SocketAddr, option: &str, wanted: u8, unwanted: u8) {
    for flavor in [Flavor::Http, Flavor::Ws] {
        let watch = Watch::start(addr, &format!("{PLAY}?{option}"), flavor);
        watch.wait(option, |tags| tags.iter().filter(|tag| tag.kind == wanted && !tag.header).count() > 30);
        assert!(watch.tags().iter().all(|tag| tag.kind != unwanted), "{option} at {addr}");
        let announced = watch.bytes()[4];
        assert_eq!(announced, if wanted == VIDEO { 1 } else { 4 }, "{option}: the FLV header's bits");
    }
}

#[test]
fn http_answers_what_players_and_proxies_ask() {
    need_ffmpeg!();
    let stage = live("http");
    let gateway = Server::gateway(&stage.scratch.path(""), "5s", stage.origin.addr("flv"));
    for addr in [stage.origin.addr("flv"), gateway.addr("listen")] {
        let origin = "Origin: http://elsewhere.example\r\n";
        let (head, body) = http(addr, "HEAD", PLAY, origin);
        assert_eq!((head.status, body.len()), (200, 0));
        assert_eq!(head.header("content-type"), Some("video/x-flv"));
        assert!(head.header("access-control-allow-origin").is_some(), "{:?}", head.headers);

        let ask = format!("{origin}Access-Control-Request-Method: GET\r\n");
        let (options, _) = http(addr, "OPTIONS", PLAY, &ask);
        assert!([200, 204].contains(&options.status), "{}", options.status);
        assert!(options.header("access-control-allow-origin").is_some(), "{:?}", options.headers);
        assert!(
            options.header("access-control-allow-methods").is_some_and(|methods| methods.contains("GET"))
        );

        let (refused, _) = http(addr, "GET", "/live/../../etc/passwd", origin);
        assert!((400..500).contains(&refused.status), "{}", refused.status);
        assert!(refused.header("access-control-allow-origin").is_some(), "CORS on errors as well");
    }
    stage.watch.assert_well();
}

#[test]
fn a_stream_that_never_comes_is_not_found() {
    let scratch = Scratch::new("nobody");
    let home = scratch.path("");
    let origin = Server::origin(&home, "1s");
    let gateway = Server::gateway(&home, "1s", origin.addr("flv"));
    let addrs = [origin.addr("flv"), gateway.addr("listen")];
    let asked: Vec<_> = addrs
        .map(|addr| std::thread::spawn(move || http(addr, "GET", "/live/nobody.flv", "").0.status))
        .into_iter()
        .collect();
    for thread in asked {
        assert_eq!(thread.join().unwrap(), 404);
    }
}

#[test]
fn the_admin_port_counts_viewers() {
    need_ffmpeg!();
    let stage = live("admin");
    let admin = stage.origin.addr("admin");
    let more: Vec<Watch> = [Flavor::Http, Flavor::Ws]
        .map(|flavor| Watch::start(stage.origin.addr("flv"), PLAY, flavor))
        .into_iter()
        .collect();
    more.iter().for_each(|watch| watch.wait_pictures_after(0));

    for path in ["/livez", "/readyz"] {
        assert_eq!(http(admin, "GET", path, "").0.status, 200, "{path}");
    }
    wait_viewers(admin, 3);
    drop(more);
    wait_viewers(admin, 1);
    stage.watch.assert_well();
}

/// Waits until the list of streams and the metrics both say `expected`.
fn wait_viewers(admin: SocketAddr, expected: u64) {
    until(&format!("{expected} viewers in /api/v1/streams"), || {
        let (answer, body) = http(admin, "GET", "/api/v1/streams", "");
        assert_eq!(answer.status, 200);
        let list: serde_json::Value = serde_json::from_slice(&body).unwrap();
        let stream = list["streams"].as_array().unwrap().iter().find(|one| one["key"] == KEY[1..])?;
        (stream["viewers"].as_u64() == Some(expected) && stream["live"] == true).then_some(())
    });
    until(&format!("{expected} viewers in /metrics"), || {
        let (answer, body) = http(admin, "GET", "/metrics", "");
        assert_eq!(answer.status, 200);
        let text = String::from_utf8(body).unwrap();
        let counts = text.lines().filter_map(|line| line.strip_prefix("uringcast_viewers{"));
        let online: u64 = counts.map(|line| line.rsplit_once(' ').unwrap().1.parse::<u64>().unwrap()).sum();
        (online == expected).then_some(())
    });
}
