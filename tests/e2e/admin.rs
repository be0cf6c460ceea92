//! The admin listener under peers that mean it no good.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};

use crate::harness::client::Response;
use crate::harness::raw::exchange;
use crate::harness::{Flavor, Scratch, Server, Watch, http, until};
use crate::proxied::{binary, header};

fn demo(scratch: &Scratch, more: &[&str]) -> Server {
    let any = "127.0.0.1:0";
    let args = [
        "demo",
        "--no-gateway",
        "--rtmp",
        any,
        "--flv",
        any,
        "--web",
        any,
        "--admin",
        any,
        "--record",
        "none",
    ];
    Server::start(&scratch.path(""), &[&args[..], &["--loops", "1"], more].concat())
}

fn status(admin: SocketAddr, path: &str, host: &str) -> u16 {
    let head = format!("GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
    Response::to(admin, &head).unwrap().status
}

/// Connections that say nothing, say half of a request, or read nothing of what they ask for.
#[test]
fn connections_that_do_nothing_do_not_lock_it() {
    let scratch = Scratch::new("locked");
    let mut demo = demo(&scratch, &[]);
    let admin = demo.addr("admin");
    let connect = || TcpStream::connect(admin).unwrap();
    let metrics = format!("GET /metrics HTTP/1.1\r\nHost: {admin}\r\n\r\n").repeat(50);
    let mut idle: Vec<TcpStream> = Vec::new();
    for begun in ["", "GET /metrics HTTP/1.1\r\nHo", &metrics] {
        for _ in 0..80 {
            let mut socket = connect();
            let _ = socket.write_all(begun.as_bytes());
            idle.push(socket);
        }
        for path in ["/livez", "/readyz", "/healthz", "/metrics", "/api/v1/streams", "/api/v1/viewers"] {
            assert_eq!(http(admin, "GET", path, "").0.status, 200, "{path} after {begun:?}");
        }
    }
    demo.assert_up();
}

/// One that is answered stays, whatever comes and goes meanwhile.
#[test]
fn a_connection_that_is_used_is_not_displaced() {
    let scratch = Scratch::new("used");
    let demo = demo(&scratch, &[]);
    let admin = demo.addr("admin");
    let mut used = TcpStream::connect(admin).unwrap();
    let mut idle = Vec::new();
    for _ in 0..200 {
        idle.push(TcpStream::connect(admin).unwrap());
        write!(used, "GET /livez HTTP/1.1\r\nHost: {admin}\r\n\r\n").unwrap();
        let mut answer = Vec::new();
        while !answer.ends_with(b"\r\n\r\nok\n") {
            let mut piece = [0; 512];
            let len = used.read(&mut piece).unwrap();
            assert!(len > 0, "it was closed");
            answer.extend_from_slice(&piece[..len]);
        }
    }
}

#[test]
fn under_the_names_of_others_nothing_is_answered() {
    let scratch = Scratch::new("names");
    let config = scratch.path("names.toml");
    std::fs::write(&config, "admin_hosts = [\"edge1.example\"]\n").unwrap();
    let demo = demo(&scratch, &["--config", config.to_str().unwrap()]);
    let admin = demo.addr("admin");
    for path in [
        "/",
        "/status.html",
        "/metrics",
        "/livez",
        "/readyz",
        "/healthz",
        "/api/v1/streams",
        "/api/v1/viewers",
    ] {
        assert_eq!(status(admin, path, "rebound.example:9935"), 403, "{path}");
        for own in ["127.0.0.1", "localhost:9935", "[::1]", "edge1.example:9935"] {
            assert_eq!(status(admin, path, own), 200, "{path} {own}");
        }
        let (answer, _) = http(admin, "GET", path, "Origin: http://evil.example\r\n");
        assert_eq!(answer.header("access-control-allow-origin"), None, "{path}");
    }
}

#[test]
fn health_is_503_while_it_drains() {
    let scratch = Scratch::new("drains");
    let demo = demo(&scratch, &["--drain", "60s"]);
    let admin = demo.addr("admin");
    let watch = Watch::start(demo.addr("flv"), "/live/demo.flv", Flavor::Http);
    watch.wait_pictures_after(0);
    assert_eq!(http(admin, "GET", "/healthz", "").0.status, 200);
    demo.guard.terminate();
    until("503 while draining", || (http(admin, "GET", "/healthz", "").0.status == 503).then_some(()));
    assert_eq!(http(admin, "GET", "/livez", "").0.status, 200);
}

/// One that asks and reads nothing is closed although there is room for others.
#[test]
fn a_peer_that_reads_nothing_is_closed() {
    let scratch = Scratch::new("deaf-peer");
    let mut demo = demo(&scratch, &[]);
    let admin = demo.addr("admin");
    let mut deaf = TcpStream::connect(admin).unwrap();
    deaf.set_nonblocking(true).unwrap();
    let ask = format!("GET /metrics HTTP/1.1\r\nHost: {admin}\r\n\r\n").repeat(20);
    until("it to be closed", || {
        loop {
            match deaf.write(ask.as_bytes()) {
                Ok(_) => {}
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => return None,
                Err(_) => return Some(()),
            }
        }
    });
    assert_eq!(http(admin, "GET", "/livez", "").0.status, 200);
    demo.assert_up();
}

/// A second address answers as the first one does, and each has its own rules.
#[test]
fn it_answers_on_several_addresses() {
    let scratch = Scratch::new("admin-addresses");
    let any = "127.0.0.1:0";
    let args = ["origin", "--rtmp", any, "--flv", any, "--web", any, "--record", "none", "--loops", "1"];
    let start = |admin| Server::start(&scratch.path(""), &[&args[..], &["--admin", admin]].concat());
    let mut origin = start("127.0.0.1:0,127.0.0.2:0,0.0.0.0:0");
    let statuses = |path: &str| {
        let of =
            |address: &SocketAddr| http(([127, 0, 0, 1], address.port()).into(), "GET", path, "").0.status;
        [of(&origin.addrs("admin")[0]), of(&origin.addrs("admin")[2])]
    };
    assert_eq!(origin.addrs("admin").len(), 3);
    assert_eq!(http(origin.addrs("admin")[1], "GET", "/api/v1/viewers", "").0.status, 200);
    assert_eq!((statuses("/livez"), statuses("/api/v1/viewers")), ([200, 200], [200, 403]));
    origin.assert_up();
    drop(origin);
    if TcpListener::bind("[::1]:0").is_ok() {
        // Of the same port, an IPv6 socket leaves IPv4 to the other one.
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let origin = start(&format!("[::]:{port},127.0.0.1:{port}"));
        for address in ["127.0.0.1", "[::1]"] {
            let address = format!("{address}:{port}").parse().unwrap();
            assert_eq!(http(address, "GET", "/livez", "").0.status, 200, "{address}");
        }
        drop(origin);
    }
}

/// The client that a trusted proxy names is no operator because the proxy is on this machine.
#[test]
fn a_trusted_proxy_tells_the_client() {
    let scratch = Scratch::new("admin-proxied");
    let config = scratch.path("proxied.toml");
    std::fs::write(&config, "[limits]\ntrusted = [\"127.0.0.1\"]\n").unwrap();
    let mut demo = demo(&scratch, &["--config", config.to_str().unwrap()]);
    let admin = demo.addr("admin");
    let ask = |path: &str| format!("GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n");
    let status = |before: &[u8], path: &str| {
        let answer = exchange(admin, &[before, ask(path).as_bytes()].concat());
        answer.split(' ').nth(1).unwrap_or("none").to_owned()
    };
    let other = header("203.0.113.7").into_bytes();
    for (before, operator) in [
        (b"".to_vec(), "200"),
        (header("127.0.0.1").into_bytes(), "200"),
        (b"PROXY UNKNOWN\r\n".to_vec(), "200"),
        (binary(0, [203, 0, 113, 7]), "200"),
        (other.clone(), "403"),
        (header("2001:db8::7").into_bytes(), "403"),
        (binary(1, [203, 0, 113, 7]), "403"),
    ] {
        assert_eq!(status(&before, "/livez"), "200", "{before:?}");
        assert_eq!(status(&before, "/api/v1/viewers"), operator, "{before:?}");
    }
    for bad in ["PROXY TCP4 x y 1 2\r\n", "PROXY / HTTP/1.1\r\nHost: localhost\r\n\r\n"] {
        assert_eq!(status(bad.as_bytes(), "/livez"), "none", "{bad}");
    }
    // However its bytes come.
    let mut socket = TcpStream::connect(admin).unwrap();
    socket.set_nodelay(true).unwrap();
    for byte in [&other[..], ask("/api/v1/viewers").as_bytes()].concat() {
        socket.write_all(&[byte]).unwrap();
    }
    let mut answer = String::new();
    socket.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 403 "), "{answer}");
    demo.assert_up();
    drop(demo);
    let untrusting = self::demo(&scratch, &[]);
    let answer = exchange(untrusting.addr("admin"), &[&other[..], ask("/livez").as_bytes()].concat());
    assert!(!answer.contains(" 200 "), "{answer}");
}
