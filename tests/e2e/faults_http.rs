//! HTTP as it stands in its RFC, on each listener: bodies, pipelines, a client's FIN, `Host`, and streams that are
//! pushed on whichever port.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr};
use std::path::Path;

use crate::harness::client::Response;
use crate::harness::raw::{
    Poster, connect, exchange, opening, picture, read_until, rest, sound, video_header,
};
use crate::harness::{Flavor, Scratch, Server, Watch, http, until};

const CLIP: &[u8] = include_bytes!("../../web/demo/clip.flv");
const LISTENERS: [&str; 2] = ["flv", "web"];

fn count(text: &str, part: &str) -> usize {
    text.matches(part).count()
}

#[test]
fn a_body_is_not_the_next_request() {
    let scratch = Scratch::new("bodies");
    let mut origin = Server::origin(&scratch.path(""), "1s");
    let smuggled = "GET /healthz?smuggled HTTP/1.1\r\nHost: x\r\n\r\n";
    for name in LISTENERS {
        for method in ["OPTIONS", "GET", "HEAD", "DELETE", "PATCH"] {
            for body in [
                format!("Content-Length: {}\r\n\r\n{smuggled}", smuggled.len()),
                format!("Transfer-Encoding: chunked\r\n\r\n{:x}\r\n{smuggled}\r\n0\r\n\r\n", smuggled.len()),
            ] {
                let request = format!("{method} /healthz HTTP/1.1\r\nHost: x\r\n{body}");
                let answers = exchange(origin.addr(name), request.as_bytes());
                assert_eq!(count(&answers, "HTTP/1.1 "), 1, "{name} {request}: {answers}");
            }
        }
    }
    origin.assert_up();
}

#[test]
fn an_empty_body_is_none_and_the_connection_stays() {
    let scratch = Scratch::new("empty");
    let origin = Server::origin(&scratch.path(""), "1s");
    for name in LISTENERS {
        for method in ["GET", "HEAD", "OPTIONS"] {
            let mut socket = connect(origin.addr(name));
            let empty = format!("{method} /healthz HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n");
            let last = "GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
            socket.write_all([&empty, last].concat().as_bytes()).unwrap();
            let answers = rest(&mut socket);
            assert_eq!(count(&answers, "HTTP/1.1 20"), 2, "{name} {method}: {answers}");
        }
    }
}

#[test]
fn a_hundred_requests_in_one_piece_get_a_hundred_answers() {
    let scratch = Scratch::new("hundred");
    let origin = Server::origin(&scratch.path(""), "1s");
    let paths = ["/healthz", "/index.html", "/none", "/api/v1/streams", "/vendor/mpegts.js"];
    for name in LISTENERS {
        let requests: Vec<String> = (0..99)
            .map(|turn| format!("GET {} HTTP/1.1\r\nHost: x\r\n\r\n", paths[turn % paths.len()]))
            .chain(["GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".to_owned()])
            .collect();
        let mut socket = connect(origin.addr(name));
        socket.write_all(requests.concat().as_bytes()).unwrap();
        let mut all = Vec::new();
        socket.read_to_end(&mut all).unwrap();
        let mut bytes = &all[..];
        for (turn, request) in requests.iter().enumerate() {
            let (status, len) = split_answer(bytes);
            let missing = request.starts_with("GET /none ");
            assert_eq!(status, if missing { 404 } else { 200 }, "{name}: answer {turn} to {request}");
            bytes = &bytes[len..];
        }
        assert!(bytes.is_empty(), "{name}: {} bytes more", bytes.len());
    }
}

/// Status and length of the answer that stands in front.
fn split_answer(bytes: &[u8]) -> (u16, usize) {
    let end = bytes.windows(4).position(|part| part == b"\r\n\r\n").expect("a head") + 4;
    let head = String::from_utf8_lossy(&bytes[..end]).to_ascii_lowercase();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")).expect("a length");
    (status, end + length.parse::<usize>().unwrap())
}

#[test]
fn a_host_that_names_no_host_gets_400() {
    let scratch = Scratch::new("hosts");
    let origin = Server::origin(&scratch.path(""), "1s");
    for name in LISTENERS {
        for host in [
            "",
            "Host: a b\r\n",
            "Host: x\r\nHost: x\r\n",
            "Host: user@x\r\n",
            "Host: x:port\r\n",
            "Host: [::1\r\n",
        ] {
            for target in ["/healthz", "/index.html", "/live/x.flv"] {
                let answer =
                    exchange(origin.addr(name), format!("GET {target} HTTP/1.1\r\n{host}\r\n").as_bytes());
                assert!(answer.starts_with("HTTP/1.1 400 "), "{name} {target} {host:?}: {answer}");
            }
        }
        for host in ["Host: x:80\r\n", "Host: [::1]:8080\r\n", "Host:\r\n"] {
            let request = format!("GET /healthz HTTP/1.1\r\n{host}Connection: close\r\n\r\n");
            let answer = exchange(origin.addr(name), request.as_bytes());
            assert!(answer.starts_with("HTTP/1.1 200 "), "{name} {host:?}: {answer}");
        }
    }
}

#[test]
fn after_a_clients_fin_what_is_finite_is_answered() {
    let scratch = Scratch::new("fin");
    let origin = Server::origin(&scratch.path(""), "1s");
    let page = "GET /vendor/mpegts.js HTTP/1.1\r\nHost: x\r\n\r\n";
    for name in LISTENERS {
        let mut socket = connect(origin.addr(name));
        socket.write_all(page.repeat(5).as_bytes()).unwrap();
        socket.shutdown(Shutdown::Write).unwrap();
        let mut all = Vec::new();
        socket.read_to_end(&mut all).unwrap();
        let mut bytes = &all[..];
        for _ in 0..5 {
            let (status, len) = split_answer(bytes);
            assert_eq!(status, 200);
            bytes = &bytes[len..];
        }
    }
}

/// A stream has no end, and neither has a wait: both are over with the client's FIN, wherever it stands.
#[test]
fn after_a_clients_fin_a_stream_and_a_wait_end() {
    let scratch = Scratch::new("fin-live");
    let origin = Server::origin(&scratch.path(""), "1s");
    let mut poster = Poster::opened(origin.addr("flv"), "live/fin");
    let page = "GET /vendor/mpegts.js HTTP/1.1\r\nHost: x\r\n\r\n".repeat(4);
    for name in LISTENERS {
        for before in ["", &page] {
            for path in ["/live/fin.flv", "/live/none.flv"] {
                let mut socket = connect(origin.addr(name));
                write!(socket, "{before}GET {path} HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
                socket.shutdown(Shutdown::Write).unwrap();
                // Longer than this, a stream would go on; a wait would take 20 s.
                until(&format!("{name} {path} to end"), || {
                    assert!(poster.send(&sound(40)));
                    let mut part = [0; 64 << 10];
                    socket.set_nonblocking(true).unwrap();
                    matches!(socket.read(&mut part), Ok(0)).then_some(())
                });
            }
        }
    }
    origin.wait_metric("uringcast_viewers", "", |viewers| viewers == 0.0);
}

#[test]
fn a_push_that_is_cut_by_a_fin_gives_its_name_back() {
    let scratch = Scratch::new("fin-push");
    let origin = Server::origin(&scratch.path(""), "0s");
    let page = "GET /vendor/mpegts.js HTTP/1.1\r\nHost: x\r\n\r\n".repeat(4);
    for before in ["", &page] {
        let mut socket = connect(origin.addr("flv"));
        write!(
            socket,
            "{before}POST /live/cut HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000000\r\n\r\n"
        )
        .unwrap();
        socket.write_all(&opening()).unwrap();
        socket.shutdown(Shutdown::Write).unwrap();
        rest(&mut socket);
        origin.wait_metric("uringcast_publishers", "", |publishers| publishers == 0.0);
        origin.wait_metric("uringcast_streams", "", |streams| streams == 0.0);
    }
}

/// A masked frame of binary data, with a mask of zeros.
fn frame(bytes: &[u8]) -> Vec<u8> {
    let len = u64::try_from(bytes.len()).unwrap().to_be_bytes();
    [&[0x82, 0xff], &len[..], &[0; 4], bytes].concat()
}

fn upgrade(path: &str, more: &str) -> String {
    format!(
        "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: keep-alive, Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n{more}\r\n"
    )
}

/// Begins a push and gives the connection, which has had no answer but that of the upgrade.
fn begin_push(addr: SocketAddr, way: &str, key: &str) -> std::net::TcpStream {
    let mut socket = connect(addr);
    if way == "ws" {
        socket.write_all(upgrade(&format!("/{key}?token=a%20b"), "").as_bytes()).unwrap();
        read_until(&mut socket, b"\r\n\r\n");
        socket.write_all(&frame(CLIP)).unwrap();
    } else {
        let len = CLIP.len() + 10;
        write!(socket, "{way} /{key} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len}\r\n\r\n").unwrap();
        socket.write_all(CLIP).unwrap();
    }
    socket
}

#[test]
fn streams_are_pushed_and_played_on_both_ports() {
    let scratch = Scratch::new("both-ports");
    let mut origin = Server::origin(&scratch.path(""), "1s");
    for name in LISTENERS {
        for way in ["POST", "PUT", "ws"] {
            let key = format!("live/{name}-{way}");
            let _push = begin_push(origin.addr(name), way, &key);
            for port in LISTENERS {
                for flavor in [Flavor::Http, Flavor::Ws] {
                    let watch = Watch::start(origin.addr(port), &format!("/{key}.flv?start=gop"), flavor);
                    watch.wait("a keyframe", |tags| tags.iter().any(|tag| tag.key));
                    watch.assert_well();
                }
            }
        }
    }
    origin.assert_up();
}

#[test]
fn a_push_follows_other_requests_on_its_connection() {
    let scratch = Scratch::new("keep-push");
    let origin = Server::origin(&scratch.path(""), "1s");
    for name in LISTENERS {
        let mut socket = connect(origin.addr(name));
        let page = "GET /index.html HTTP/1.1\r\nHost: x\r\n\r\n".repeat(3);
        let head = format!(
            "PUT /live/{name}.flv HTTP/1.1\r\nHost: localhost\r\nContent-Length: {}\r\n\r\n",
            CLIP.len()
        );
        // The first bytes of the body come in one piece with the requests.
        socket.write_all(&[page.as_bytes(), head.as_bytes(), &CLIP[..40_000]].concat()).unwrap();
        let watch = Watch::start(origin.addr("flv"), &format!("/live/{name}.flv"), Flavor::Http);
        socket.write_all(&CLIP[40_000..]).unwrap();
        watch.wait("a keyframe", |tags| tags.iter().any(|tag| tag.key));
        assert_eq!(count(&rest(&mut socket), "HTTP/1.1 200 "), 4);
    }
}

#[test]
fn a_subprotocol_is_said_back() {
    let scratch = Scratch::new("subprotocol");
    let origin = Server::origin(&scratch.path(""), "1s");
    let _poster = Poster::opened(origin.addr("flv"), "live/spoken");
    for name in LISTENERS {
        for path in ["/live/spoken.flv", "/live/pushed"] {
            let more = "Sec-WebSocket-Protocol: flv, other\r\n";
            let answer = Response::to(origin.addr(name), &upgrade(path, more)).unwrap();
            assert_eq!(
                (answer.status, answer.header("sec-websocket-protocol")),
                (101, Some("flv")),
                "{name} {path}"
            );
            let answer = Response::to(origin.addr(name), &upgrade(path, "")).unwrap();
            assert_eq!(
                (answer.status, answer.header("sec-websocket-protocol")),
                (101, None),
                "{name} {path}"
            );
        }
    }
}

#[test]
fn heads_have_no_bodies() {
    let scratch = Scratch::new("heads");
    let origin = Server::origin(&scratch.path(""), "1s");
    let _poster = Poster::opened(origin.addr("flv"), "live/head");
    for name in LISTENERS {
        for path in [
            "/",
            "/healthz",
            "/api/v1/streams",
            "/api/v1/recordings",
            "/index.html",
            "/none",
            "/live/head.flv",
            "/hls/live/none/index.m3u8",
            "/vendor/mpegts.js",
            "/a/b/c/d.flv",
        ] {
            let request =
                format!("HEAD {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nPrefer: wait=0\r\n\r\n");
            let answer = exchange(origin.addr(name), request.as_bytes());
            assert!(
                answer.starts_with("HTTP/1.1 ") && answer.ends_with("\r\n\r\n"),
                "{name} {path}: {answer}"
            );
            assert_eq!(count(&answer, "\r\n\r\n"), 1, "{name} {path}: {answer}");
        }
    }
}

#[test]
fn health_is_on_every_listener_and_503_while_it_drains() {
    let scratch = Scratch::new("health");
    let origin = Server::origin_with(&scratch.path(""), "drain = \"60s\"\n", &["--record", "none"]);
    let any = "127.0.0.1:0";
    let upstream = format!("http://{}", origin.addr("flv"));
    let drain = ["--drain", "60s"];
    let args = ["flv-gateway", "--listen", any, "--admin", any, "--upstream", &upstream];
    let gateway = Server::start(&scratch.path(""), &[&args[..], &drain].concat());
    let root = scratch.path("");
    let args = ["file-gateway", "--listen", any, "--admin", any, "--root", root.to_str().unwrap()];
    let files = Server::start(&scratch.path(""), &[&args[..], &drain].concat());
    let mut poster = Poster::opened(origin.addr("flv"), "live/health");
    let watch = Watch::start(gateway.addr("listen"), "/live/health.flv", Flavor::Http);
    watch.wait("something", |tags| !tags.is_empty());
    let all = [(&origin, "flv"), (&origin, "web"), (&gateway, "listen"), (&files, "listen")];
    let ask = "GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n";
    // While it drains nobody is let in anew: a client that was there asks again.
    let mut kept: Vec<_> = all
        .iter()
        .map(|(server, name)| {
            assert_eq!(http(server.addr(name), "GET", "/healthz", "").0.status, 200, "{name}");
            assert_eq!(http(server.addr(name), "HEAD", "/healthz", "").0.status, 200, "{name}");
            let mut socket = connect(server.addr(name));
            // Half of a request is pending, so that the connection is not idle and stays.
            socket.write_all(&ask.as_bytes()[..20]).unwrap();
            socket
        })
        .collect();
    std::fs::write(Path::new(&root).join("x.bin"), vec![0; 1000]).unwrap();
    for (server, name) in &all {
        // What was sent above has been read once a later connection is answered.
        assert_eq!(http(server.addr(name), "GET", "/healthz", "").0.status, 200, "{name}");
    }
    [&origin, &gateway, &files].iter().for_each(|server| server.guard.terminate());
    for server in [&origin, &gateway, &files] {
        until("draining", || {
            (http(server.addr("admin"), "GET", "/healthz", "").0.status == 503).then_some(())
        });
    }
    for (socket, (_, name)) in kept.iter_mut().zip(all) {
        socket.write_all(&ask.as_bytes()[20..]).unwrap();
        let answer = rest(socket);
        assert!(answer.starts_with("HTTP/1.1 503 "), "{name}: {answer}");
    }
    assert!(poster.send(&picture(true, 40, 2_000)));
    assert!(poster.send(&video_header(0)));
}
