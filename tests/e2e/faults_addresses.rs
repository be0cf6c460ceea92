//! What one client address may have, and listeners of both address families. Loopback and private addresses are exempt, so this needs others: the test runs
//! itself again in a network namespace in which the loopback interface has two of them.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::process::Command;
use std::time::Duration;

use crate::harness::raw::{
    self, Feed, Poster, Rtmp, connect, exchange, opening_messages, picture, publish, read_until,
};
use crate::harness::{Flavor, Scratch, Server, Watch, http, until};

/// Says that this is the run inside.
const INSIDE: &str = "E2E_NETWORK_NAMESPACE";
const ONE: [u8; 4] = [203, 0, 113, 1];
const OTHER: [u8; 4] = [203, 0, 113, 2];
const LOCAL: [u8; 4] = [127, 0, 0, 1];

/// Whether this is the run inside the namespace; outside, that run has been made and was good, or cannot be.
fn is_inside(test: &str) -> bool {
    if std::env::var_os(INSIDE).is_some() {
        return true;
    }
    if !rustix::process::geteuid().is_root() {
        eprintln!("skipped: a network namespace needs root");
        return false;
    }
    let setup = "ip link set lo up && for n in 1 2; do ip addr add 203.0.113.$n/32 dev lo || exit; done";
    let made = Command::new("unshare").args(["-n", "sh", "-c", setup]).status();
    if !made.is_ok_and(|status| status.success()) {
        eprintln!("skipped: no network namespace can be made here");
        return false;
    }
    let run = format!("{setup} && exec \"$0\" \"$@\"");
    let mut command = Command::new("unshare");
    command.args(["-n", "sh", "-c", &run]).arg(std::env::current_exe().unwrap());
    command.args(["--exact", &format!("faults_addresses::{test}"), "--nocapture"]).env(INSIDE, "1");
    assert!(command.status().unwrap().success(), "{test} fails in its namespace");
    false
}

/// An origin of one loop that can be reached under all addresses.
fn origin(scratch: &Scratch, limits: &str) -> Server {
    let file = scratch.path("limits.toml");
    let config = format!("loops = 1\n[origin]\ngap = \"0s\"\nwait = \"30s\"\n[limits]\n{limits}\n");
    std::fs::write(&file, config).unwrap();
    let every = "0.0.0.0:0";
    let args = ["origin", "--rtmp", every, "--flv", every, "--web", every, "--admin", "127.0.0.1:0"];
    let args = [&args[..], &["--auth-publish", "open"]].concat();
    let more = ["--record", "none", "--config", file.to_str().unwrap()];
    Server::start(&scratch.path(""), &[&args[..], &more].concat())
}

/// A client that connects to one of its own addresses has that one.
fn at(server: &Server, name: &str, ip: [u8; 4]) -> SocketAddr {
    SocketAddr::from((Ipv4Addr::from(ip), server.addr(name).port()))
}

/// An origin that listens like this, each with the same ports.
fn listens_on(scratch: &Scratch, [rtmp, flv, web]: [&str; 3]) -> Server {
    let args = ["origin", "--rtmp", rtmp, "--flv", flv, "--web", web, "--admin", "127.0.0.1:0"];
    Server::start(&scratch.path(""), &[&args[..], &["--record", "none", "--wait", "1s"]].concat())
}

/// It publishes and plays at every address, as this machine may.
fn serves(server: &Server, addresses: &[&str]) {
    let addresses: Vec<SocketAddr> = addresses.iter().map(|address| address.parse().unwrap()).collect();
    let port = |address: SocketAddr, port| SocketAddr::new(address.ip(), port);
    for (turn, address) in addresses.iter().enumerate() {
        let key = format!("live/{turn}");
        let _feed = Feed::start(*address, &key);
        let path: &str = Box::leak(format!("/{key}.flv").into_boxed_str());
        let watches: Vec<_> =
            addresses.iter().map(|address| Watch::start(*address, path, Flavor::Http)).collect();
        watches.iter().for_each(|watch| watch.wait_pictures_after(0));
        let mut player = Rtmp::connect(port(*address, 1935), "live");
        player.say(&[raw::play(&turn.to_string())]);
        player.wait("NetStream.Play.Start");
        assert_eq!(http(port(*address, 8080), "GET", "/healthz", "").0.status, 200);
        let (_, list) = http(server.addr("admin"), "GET", "/api/v1/viewers", "");
        assert!(!String::from_utf8(list).unwrap().contains("ffff"), "IPv4 is shown as IPv4");
    }
}

#[test]
fn both_families() {
    if !is_inside("both_families") {
        return;
    }
    let scratch = Scratch::new("address-both");
    let both = ["127.0.0.1:8501", "[::1]:8501"];
    // One socket for both.
    let server = listens_on(&scratch, ["[::]:1935", "[::]:8501", "[::]:8080"]);
    assert_eq!(server.addr("flv").to_string(), "[::]:8501");
    serves(&server, &both);
    drop(server);
    // One for each: they do not collide.
    let any = ["0.0.0.0:1935,[::]:1935", "[::]:8501,0.0.0.0:8501", ":8080,[::]:8080"];
    let server = listens_on(&scratch, any);
    assert_eq!(server.addrs("flv").len(), 2);
    serves(&server, &both);
    drop(server);
    // Some addresses, and no others.
    let some = ["127.0.0.1:1935,[::1]:1935", "127.0.0.1:8501,[::1]:8501", "[::1]:8080,127.0.0.1:8080"];
    let server = listens_on(&scratch, some);
    serves(&server, &both);
    assert!(TcpStream::connect("203.0.113.1:8501").is_err());
    drop(server);
    let server = listens_on(&scratch, ["[::1]:1935", "[::1]:8501", "[::1]:8080"]);
    serves(&server, &both[1..]);
    assert!(TcpStream::connect(both[0]).is_err());
}

const ASK: &[u8] = b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n";

#[test]
fn connections() {
    if !is_inside("connections") {
        return;
    }
    let scratch = Scratch::new("address-connections");
    let mut origin = origin(&scratch, "connections_per_address = 5");
    let _feed = Feed::start(at(&origin, "flv", OTHER), "live/x");
    // Those that watch are not counted.
    let watch = Watch::start(at(&origin, "flv", ONE), "/live/x.flv", Flavor::Http);
    watch.wait_pictures_after(0);
    let mut held: Vec<_> = (0..5)
        .map(|turn| {
            let mut socket = connect(at(&origin, ["flv", "web"][turn % 2], ONE));
            socket.write_all(ASK).unwrap();
            read_until(&mut socket, b"\r\n\r\nok\n");
            socket
        })
        .collect();
    for name in ["flv", "web"] {
        let answer = exchange(at(&origin, name, ONE), ASK);
        assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 429 "), "{answer}");
    }
    assert_eq!(exchange(at(&origin, "rtmp", ONE), &[3]), "");
    assert_eq!(origin.refused("address-connections"), 3);
    for ip in [OTHER, LOCAL] {
        let mut socket = connect(at(&origin, "flv", ip));
        socket.write_all(ASK).unwrap();
        read_until(&mut socket, b"HTTP/1.1 200 ");
    }
    held.pop();
    until("a place again", || {
        let mut socket = connect(at(&origin, "web", ONE));
        let mut answer = [0; 12];
        let _ = socket.write_all(ASK);
        let len = socket.read(&mut answer).unwrap_or(0);
        (&answer[..len] == b"HTTP/1.1 200").then_some(())
    });
    watch.assert_well();
    origin.assert_up();
}

#[test]
fn publishes() {
    if !is_inside("publishes") {
        return;
    }
    let scratch = Scratch::new("address-publishes");
    let mut origin = origin(&scratch, "publishes_per_address = 2");
    let first = Poster::opened(at(&origin, "flv", ONE), "live/a");
    let mut second = Rtmp::connect(at(&origin, "rtmp", ONE), "live");
    second.say(&[vec![publish("b")], opening_messages()].concat());
    second.wait("NetStream.Publish.Start");
    origin.wait_metric("uringcast_publishers", "", |publishers| publishers == 2.0);
    let answer = Poster::opened(at(&origin, "web", ONE), "live/c").finish();
    assert!(answer.starts_with("HTTP/1.1 429 ") && answer.contains("publishers"), "{answer}");
    let mut rtmp = Rtmp::connect(at(&origin, "rtmp", ONE), "live");
    rtmp.say(&[publish("c")]);
    rtmp.wait("too many publishers");
    assert_eq!(origin.refused("address-publishes"), 2);
    for (turn, ip) in [OTHER, LOCAL, LOCAL, LOCAL].into_iter().enumerate() {
        let answer = Poster::opened(at(&origin, "flv", ip), &format!("live/other{turn}")).finish();
        assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    }
    assert!(first.finish().starts_with("HTTP/1.1 200 "));
    let answer = Poster::opened(at(&origin, "web", ONE), "live/c").finish();
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    origin.assert_up();
}

#[test]
fn waits() {
    if !is_inside("waits") {
        return;
    }
    let scratch = Scratch::new("address-waits");
    let mut origin = origin(&scratch, "waits_per_address = 3");
    let ask = |turn: usize| format!("GET /live/none{turn}.flv HTTP/1.1\r\nHost: x\r\n\r\n");
    let mut held: Vec<_> = (0..3)
        .map(|turn| {
            let mut socket = connect(at(&origin, "flv", ONE));
            socket.write_all(ask(turn).as_bytes()).unwrap();
            socket
        })
        .collect();
    origin.wait_metric("uringcast_accepted_total", "", |accepted| accepted == 3.0);
    let answer = exchange(at(&origin, "web", ONE), ask(4).as_bytes());
    assert!(answer.starts_with("HTTP/1.1 429 ") && answer.contains("wait"), "{answer}");
    assert_eq!(origin.refused("address-waits"), 1);
    let other: Vec<_> = [OTHER, LOCAL, LOCAL, LOCAL, LOCAL]
        .into_iter()
        .map(|ip| {
            let mut socket = connect(at(&origin, "flv", ip));
            socket.write_all(ask(0).as_bytes()).unwrap();
            socket
        })
        .collect();
    // Those who wait are served, and their places are free then.
    let _feed = Feed::start(at(&origin, "flv", LOCAL), "live/none0");
    for socket in held.iter_mut().take(1).chain(&mut other.into_iter().collect::<Vec<_>>()) {
        read_until(socket, b"FLV\x01");
    }
    let mut again = connect(at(&origin, "flv", ONE));
    again.write_all(ask(0).as_bytes()).unwrap();
    read_until(&mut again, b"FLV\x01");
    assert_eq!(origin.refused("address-waits"), 1);
    origin.assert_up();
}

#[test]
fn requests_and_bitrate() {
    if !is_inside("requests_and_bitrate") {
        return;
    }
    let scratch = Scratch::new("address-requests");
    let mut origin = origin(&scratch, "requests_per_address = 20\npublish_bitrate = \"100kbps\"");
    let bulk = |ip: [u8; 4]| {
        let addr = at(&origin, "flv", ip);
        std::thread::spawn(move || {
            let mut poster = Poster::opened(addr, &format!("live/from{}-{}", ip[0], ip[3]));
            // The rate is measured over ten seconds.
            for turn in 1..130 {
                if !poster.send(&picture(turn % 10 == 0, turn * 100, 20_000)) {
                    break;
                }
                std::thread::sleep(Duration::from_millis(100));
            }
            poster.finish()
        })
    };
    let (limited, exempt) = (bulk(ONE), bulk(LOCAL));
    let flood = ASK.repeat(100);
    for name in ["flv", "web"] {
        let before = origin.refused("address-requests");
        let answers = exchange(at(&origin, name, OTHER), &flood);
        assert!(
            answers.contains("HTTP/1.1 429 ") && answers.contains("requests a second"),
            "{name}: {answers}"
        );
        assert!(answers.matches("HTTP/1.1 200 ").count() < 100, "{name}");
        assert!(origin.refused("address-requests") > before);
    }
    let close = b"GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
    let answers = exchange(at(&origin, "flv", LOCAL), &[&flood[..], close].concat());
    assert_eq!(answers.matches("HTTP/1.1 200 ").count(), 101);
    let (limited, exempt) = (limited.join().unwrap(), exempt.join().unwrap());
    assert!(limited.is_empty() || limited.starts_with("HTTP/1.1 429 "), "{limited}");
    assert!(exempt.starts_with("HTTP/1.1 200 "), "{exempt}");
    assert_eq!(origin.refused("bitrate"), 1);
    origin.assert_up();
}
