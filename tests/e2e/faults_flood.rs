//! Many hostile clients: slow ones, silent ones, and those that ask for what is not there.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::harness::raw::{Feed, Poster, Rtmp, connect, exchange, publish};
use crate::harness::{Flavor, Scratch, Server, Watch, http, until};

const NO_RECORD: [&str; 2] = ["--record", "none"];

/// A head, a handshake or a body that comes byte by byte is cut on each listener; a viewer notices nothing.
#[test]
fn slow_clients_are_cut_on_each_listener() {
    let scratch = Scratch::new("slow");
    let config = "loops = 1\n[limits]\nrequest_time = \"1s\"\n";
    let mut origin = Server::origin_with(&scratch.path(""), config, &NO_RECORD);
    let root = scratch.path("");
    let files = ["file-gateway", "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--root"];
    let more = [root.to_str().unwrap(), "--config", &format!("{}origin.toml", root.to_str().unwrap())];
    let mut files = Server::start(&root, &[&files[..], &more].concat());
    let _feed = Feed::start(origin.addr("flv"), "live/fast");
    let watch = Watch::start(origin.addr("flv"), "/live/fast.flv", Flavor::Http);
    watch.wait_pictures_after(0);
    let head = b"GET /live/none.flv HTTP/1.1\r\nHost: x\r\nX-Long: ".to_vec();
    let head = [head, vec![b'a'; 10_000]].concat();
    let mut slow: Vec<(&str, TcpStream, bool)> = Vec::new();
    for name in ["rtmp", "flv", "web"] {
        slow.extend((0..50).map(|_| (name, connect(origin.addr(name)), true)));
    }
    slow.extend((0..50).map(|_| ("files", connect(files.addr("listen")), true)));
    let mut at = 0;
    until("all slow clients to be cut", || {
        for (name, socket, open) in slow.iter_mut().filter(|slow| slow.2) {
            let byte = if *name == "rtmp" { 3 } else { head[at] };
            let mut answer = [0; 512];
            socket.set_read_timeout(Some(Duration::from_millis(1))).unwrap();
            *open = socket.write_all(&[byte]).is_ok() && !matches!(socket.read(&mut answer), Ok(0));
        }
        at += 1;
        slow.iter().all(|slow| !slow.2).then_some(())
    });
    watch.wait_pictures_after(watch.count());
    watch.assert_well();
    origin.assert_up();
    files.assert_up();
}

fn raise_descriptors() -> bool {
    let limit = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit }).unwrap();
    limit.maximum.is_none_or(|most| most >= 8_000)
}

/// As many as can be had, spread over the listeners.
fn silent(addrs: &[SocketAddr], count: usize) -> Vec<TcpStream> {
    (0..count).map(|turn| TcpStream::connect(addrs[turn % addrs.len()]).unwrap()).collect()
}

#[test]
fn five_thousand_connections_that_say_nothing() {
    if !raise_descriptors() {
        eprintln!("skipped: too few descriptors may be opened");
        return;
    }
    let scratch = Scratch::new("silent");
    let mut origin = Server::origin_with(&scratch.path(""), "loops = 2\n", &NO_RECORD);
    let _feed = Feed::start(origin.addr("flv"), "live/on");
    let watch = Watch::start(origin.addr("flv"), "/live/on.flv", Flavor::Http);
    watch.wait_pictures_after(0);
    let addrs = ["flv", "web", "rtmp"].map(|name| origin.addr(name));
    let before = origin.settled_memory();
    let held = silent(&addrs, 5_000);
    origin.wait_metric("uringcast_connections", "", |open| open >= 5_000.0);
    let after = origin.memory();
    assert!(after < before + (64 << 20), "{before} bytes before, {after} after");
    for name in ["flv", "web"] {
        assert_eq!(http(origin.addr(name), "GET", "/healthz", "").0.status, 200);
    }
    watch.wait_pictures_after(watch.count());
    watch.assert_well();
    drop(held);
    origin.wait_metric("uringcast_connections", "", |open| open < 10.0);
    origin.assert_up();
}

/// Silent clients take no place from those that ask, and none at all from publishers.
#[test]
fn a_full_server_serves_those_that_ask_and_publish() {
    let scratch = Scratch::new("full-silent");
    let config = "loops = 1\n[limits]\nconnections = 100\nreserve = 20\n";
    let mut origin = Server::origin_with(&scratch.path(""), config, &NO_RECORD);
    let web = [origin.addr("web"), origin.addr("flv")];
    let _held = silent(&web, 300);
    origin.wait_metric("uringcast_accepted_total", "", |accepted| accepted >= 300.0);
    let _feed = Feed::start(origin.addr("flv"), "live/full");
    let mut rtmp = Rtmp::connect(origin.addr("rtmp"), "live");
    rtmp.say(&[publish("also")]);
    rtmp.wait("NetStream.Publish.Start");
    assert!(Poster::opened(origin.addr("web"), "live/third").finish().starts_with("HTTP/1.1 200 "));
    let watch = until("a viewer to be let in", || {
        Watch::try_start(origin.addr("flv"), "/live/full.flv", Flavor::Http).ok()
    });
    watch.wait_pictures_after(0);
    watch.assert_well();
    origin.assert_up();
}

#[test]
fn a_flood_of_requests_for_nothing() {
    let scratch = Scratch::new("nothing");
    let mut origin =
        Server::origin_with(&scratch.path(""), "loops = 1\n[origin]\nwait = \"0s\"\n", &NO_RECORD);
    let _feed = Feed::start(origin.addr("flv"), "live/flood");
    let watch = Watch::start(origin.addr("flv"), "/live/flood.flv", Flavor::Http);
    watch.wait_pictures_after(0);
    let clients: Vec<_> = (0..12)
        .map(|turn| {
            let addr = origin.addr(["flv", "web"][turn % 2]);
            std::thread::spawn(move || {
                let mut missing = 0;
                for round in 0..4 {
                    let mut ask: String = (0..200)
                        .map(|n| format!("GET /none/{turn}/{round}/{n}.ts HTTP/1.1\r\nHost: x\r\n\r\n"))
                        .collect();
                    ask += &format!("GET /live/none{turn}-{round}.flv HTTP/1.1\r\nHost: x\r\n\r\n");
                    missing += exchange(addr, ask.as_bytes()).matches("HTTP/1.1 404 ").count();
                    // What is no request at all.
                    exchange(addr, b"NONSENSE\r\n\r\n");
                }
                missing
            })
        })
        .collect();
    watch.wait_pictures_after(watch.count());
    for client in clients {
        assert_eq!(client.join().unwrap(), 4 * 201);
    }
    let lines = origin.guard.log().len();
    assert!(lines < 150, "{lines} lines are logged");
    watch.wait_pictures_after(watch.count());
    watch.assert_well();
    origin.assert_up();
}
