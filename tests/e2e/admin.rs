//! The admin listener under peers that mean it no good.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};

use crate::harness::client::Response;
use crate::harness::{Flavor, Scratch, Server, Watch, http, until};

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
