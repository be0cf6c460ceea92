//! Who may publish and play: policies, keys and signed tokens, on every way in.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::harness::ffmpeg::{make_clip, publish};
use crate::harness::raw::{self, Feed, Poster, Rtmp, connect, exchange, opening_messages, read_until, rest};
use crate::harness::{Flavor, Scratch, Server, Watch, http, need_ffmpeg, until};

const ANY: &str = "127.0.0.1:0";
const KEY: &str = "a-key-that-is-long";
const CLOSED: &str = "[auth]\npublish = \"deny\"\nplay = \"deny\"\nsecret_file = \"SECRETS\"\n\
    [[auth.keys]]\nstream = \"live/*\"\naction = \"publish\"\nkey = \"a-key-that-is-long\"\n";

/// A file of secrets.
pub(crate) fn secrets(scratch: &Scratch, text: &str) -> PathBuf {
    let file = scratch.path("secrets");
    std::fs::write(&file, text).unwrap();
    file
}

/// A file with a configuration, in which `SECRETS` stands for the file of secrets.
fn config(scratch: &Scratch, name: &str, text: &str) -> String {
    let file = scratch.path(name);
    let secrets = scratch.path("secrets");
    std::fs::write(&file, text.replace("SECRETS", secrets.to_str().unwrap())).unwrap();
    file.to_str().unwrap().to_owned()
}

pub(crate) fn origin(scratch: &Scratch, text: &str, more: &[&str]) -> Server {
    secrets(scratch, "may:the-first-secret-of-all\n");
    let config = config(scratch, "origin.toml", text);
    let args = ["origin", "--config", &config, "--rtmp", ANY, "--flv", ANY, "--web", ANY, "--admin", ANY];
    Server::start(&scratch.path(""), &[&args[..], &["--loops", "2", "--data", "data"], more].concat())
}

/// A token, as the program signs it.
pub(crate) fn sign(scratch: &Scratch, action: &str, stream: &str, more: &[&str]) -> String {
    let file = scratch.path("secrets");
    let mut command = Command::new(env!("CARGO_BIN_EXE_uringcast"));
    command.args(["sign", stream, "--for", action, "--secret-file", file.to_str().unwrap()]).args(more);
    if !more.contains(&"--expires") {
        command.args(["--expires", "10m"]);
    }
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().lines().next().unwrap().to_owned()
}

fn status(addr: SocketAddr, path: &str, fields: &str) -> u16 {
    http(addr, "GET", path, fields).0.status
}

/// A WebSocket's answer to a request for `path`.
fn websocket(addr: SocketAddr, path: &str, fields: &str) -> String {
    let request = format!(
        "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n{fields}\r\n"
    );
    exchange(addr, request.as_bytes())
}

/// How a server answers to the head of a POST.
fn post(addr: SocketAddr, path: &str, fields: &str) -> String {
    let mut socket = connect(addr);
    write!(socket, "POST {path} HTTP/1.1\r\nTransfer-Encoding: chunked\r\n{fields}\r\n").unwrap();
    let _ = socket.shutdown(std::net::Shutdown::Write);
    rest(&mut socket)
}

#[test]
fn every_way_to_a_stream_asks_for_a_key_and_says_so_in_its_protocol() {
    let scratch = Scratch::new("access-ways");
    let mut origin = origin(&scratch, CLOSED, &["--record", "none", "--wait", "1s"]);
    let (rtmp, flv, web) = (origin.addr("rtmp"), origin.addr("flv"), origin.addr("web"));
    let other = sign(&scratch, "publish", "live/other", &[]);
    let play = sign(&scratch, "play", "live/a", &[]);
    let late = sign(&scratch, "publish", "live/a", &["--expires", "0s"]);
    let elsewhere = sign(&scratch, "publish", "live/a", &["--ip", "192.0.2.1"]);
    let cut = &sign(&scratch, "publish", "live/a", &[])[1..];
    for (token, why) in [
        ("", "auth.keys"),
        ("?token=wrong", "may publish"),
        (&format!("?token={other}"), "another stream"),
        (&format!("?token={play}"), "another action"),
        (&format!("?token={late}"), "expired"),
        (&format!("?token={elsewhere}"), "another address"),
        (&format!("?token={cut}"), "token is"),
    ] {
        let mut peer = Rtmp::connect(rtmp, "live");
        peer.say(&[raw::publish(&format!("a{token}"))]);
        let answer = String::from_utf8_lossy(&peer.wait(why)).into_owned();
        assert!(answer.contains("NetStream.Publish.Unauthorized"), "{answer}");
        for addr in [flv, web] {
            let answer = post(addr, &format!("/live/a{token}"), "Host: localhost\r\n");
            let expected = if token.is_empty() { "HTTP/1.1 401 " } else { "HTTP/1.1 403 " };
            assert!(answer.starts_with(expected) && answer.contains(why), "{answer}");
            let answer = websocket(addr, &format!("/live/a{token}"), "");
            assert!(answer.starts_with("HTTP/1.1 101 ") && answer.contains(why), "{answer}");
        }
    }
    let mut peer = Rtmp::connect(rtmp, "live");
    peer.say(&[raw::play("a")]);
    peer.wait("NetStream.Play.Failed");
    for addr in [flv, web] {
        assert_eq!(status(addr, "/live/a.flv", ""), 401);
        assert_eq!(http(addr, "HEAD", "/live/a.flv", "").0.status, 401);
        assert!(websocket(addr, "/live/a.flv", "").contains("auth.keys"));
    }
    for path in ["/hls/live/a/index.m3u8", "/mp4/live/a/output_merge/init.mp4", "/flv/live/a/index.flv"] {
        assert_eq!(status(web, path, ""), 401, "{path}");
    }
    assert_eq!((status(web, "/index.html", ""), status(web, "/healthz", "")), (200, 200), "pages are open");
    assert_eq!(origin.metric("uringcast_streams", ""), 0.0);
    assert!(origin.refused("unauthorised") > 30);
    // With the right, in each place where a token may stand.
    let _feed = Feed::start(flv, &format!("live/a?token={KEY}"));
    let bearer = format!("Authorization: Bearer {play}\r\n");
    Watch::start(flv, Box::leak(format!("/live/a.flv?token={play}").into_boxed_str()), Flavor::Http)
        .wait_pictures_after(0);
    Watch::start(web, Box::leak(format!("/~{play}/live/a.flv").into_boxed_str()), Flavor::Ws)
        .wait_pictures_after(0);
    assert_eq!(http(flv, "HEAD", "/live/a.flv", &bearer).0.status, 200);
    peer.say(&[raw::play(&format!("a?token={play}"))]);
    peer.wait("NetStream.Play.Start");
    let mut peer = Rtmp::connect(rtmp, &format!("live?token={KEY}"));
    peer.say(&[vec![raw::publish("b")], opening_messages()].concat());
    peer.wait("NetStream.Publish.Start");
    origin.assert_up();
}

#[test]
fn publishing_is_for_this_machine_alone_unless_it_is_opened() {
    let scratch = Scratch::new("access-local");
    let mut origin = origin(&scratch, "", &["--record", "none", "--wait", "1s"]);
    let addr = origin.addr("flv");
    let own = format!("Host: {addr}\r\n");
    for (fields, why) in [
        (format!("{own}X-Forwarded-For: 1.2.3.4\r\n"), "auth.publish"),
        (format!("{own}X-Forwarded-For: 127.0.0.1\r\n"), "auth.publish"),
        (format!("{own}Forwarded: for=127.0.0.1\r\n"), "auth.publish"),
        (format!("{own}X-Real-IP: 127.0.0.1\r\n"), "auth.publish"),
        ("Host: rebound.example\r\n".to_owned(), "auth.hosts"),
        ("Host: rebound.example\r\nOrigin: http://rebound.example\r\n".to_owned(), "auth.hosts"),
        (format!("{own}Origin: https://evil.example\r\n"), "auth.origins"),
        (format!("{own}Origin: null\r\n"), "auth.origins"),
    ] {
        let answer = post(addr, "/live/a", &fields);
        assert!(answer.starts_with("HTTP/1.1 40") && answer.contains(why), "{fields}{answer}");
    }
    let foreign = websocket(addr, "/live/a", "Origin: https://evil.example\r\n");
    assert!(foreign.contains("auth.origins"), "{foreign}");
    assert_eq!(origin.metric("uringcast_streams", ""), 0.0);
    // The push page on the web port, and pages of other sites as players.
    let mut socket = connect(addr);
    let page = format!("Origin: http://127.0.0.1:{}\r\n", origin.addr("web").port());
    write!(socket, "POST /live/a HTTP/1.1\r\n{own}{page}Transfer-Encoding: chunked\r\n\r\n").unwrap();
    let mut poster = Poster(socket);
    assert!(poster.send(&raw::opening()));
    origin.wait_metric("uringcast_publishers", "", |publishers| publishers == 1.0);
    let far = "X-Forwarded-For: 1.2.3.4\r\nOrigin: https://other.example\r\n";
    assert_eq!(http(addr, "HEAD", "/live/a.flv", far).0.status, 200);
    origin.assert_up();
}

#[test]
fn a_flood_without_a_right_holds_no_name_and_writes_few_lines() {
    let scratch = Scratch::new("access-flood");
    let mut origin = origin(&scratch, CLOSED, &["--record", "none"]);
    for n in 0..1000 {
        let answer = post(origin.addr("flv"), &format!("/live/n{n}?token=SECRET{n}"), "Host: localhost\r\n");
        assert!(answer.starts_with("HTTP/1.1 403 "), "{answer}");
    }
    assert_eq!(origin.refused("unauthorised"), 1000);
    assert_eq!(origin.metric("uringcast_streams", ""), 0.0);
    let log = origin.guard.log();
    assert!(log.len() < 500, "{} lines", log.len());
    assert!(!log.iter().any(|line| line.contains("SECRET")), "a token is in the log");
    origin.assert_up();
}

#[test]
fn ffmpeg_publishes_with_a_key_and_a_player_of_hls_follows_a_signed_playlist() {
    need_ffmpeg!();
    let scratch = Scratch::new("access-hls");
    let clip = scratch.path("clip.mp4");
    make_clip(&clip, 20, "320x180");
    let log = scratch.path("access.log");
    let text = format!("[access_log]\npath = {log:?}\n[recording]\nsegment = \"1s\"\n{CLOSED}");
    let mut origin = origin(&scratch, &text, &["--record", "hls"]);
    let rtmp = origin.addr("rtmp");
    let _publisher = publish(&clip, &format!("rtmp://{rtmp}/live/a?token={KEY}"), true);
    let _other = publish(&clip, &format!("rtmp://{rtmp}/live/b?token={KEY}"), true);
    let token = sign(&scratch, "play", "live/a", &[]);
    let secrets = scratch.path("secrets");
    // Gateways of files, one after the other: they ask with tokens of their own, and share what they have among tokens.
    let gateway = |name: &str, upstream: SocketAddr| {
        let home = scratch.path(name);
        std::fs::create_dir_all(home.join("root")).unwrap();
        let upstream = format!("http://{upstream}");
        let flags = ["--upstream", &upstream, "--cache", "cache", "--root", "root", "--admin", ANY];
        let auth = ["--auth-play", "deny", "--auth-secret-file", secrets.to_str().unwrap()];
        Server::start(&home, &[&["file-gateway", "--listen", ANY][..], &flags, &auth].concat())
    };
    let near = gateway("near", origin.addr("web"));
    let far = gateway("far", near.addr("listen"));
    for addr in [origin.addr("web"), near.addr("listen"), far.addr("listen")] {
        let playlist = format!("/~{token}/hls/live/a/index.m3u8");
        let segment = until("a segment", || {
            let (answer, body) = http(addr, "GET", &playlist, "");
            let text = String::from_utf8_lossy(&body).into_owned();
            let segment = text.lines().find(|line| line.ends_with(".ts")).map(str::to_owned);
            segment.filter(|_| answer.status == 200)
        });
        assert_eq!(status(addr, &format!("/~{token}/hls/live/a/{segment}"), ""), 200);
        assert_eq!(status(addr, &format!("/hls/live/a/{segment}"), ""), 401);
        assert_eq!(status(addr, &format!("/hls/live/a/{segment}?token={token}"), ""), 200);
        for path in [
            format!("/~{token}/hls/live/b/index.m3u8"),
            format!("/~{token}/hls/live/%62/index.m3u8"),
            format!("/~{token}//hls//live//b//index.m3u8"),
            format!("/~{}/hls/live/a/index.m3u8", &token[..token.len() - 1]),
        ] {
            assert_eq!(status(addr, &path, ""), 403, "{path}");
        }
        for path in [
            format!("/~{token}/hls/live/a/../b/index.m3u8"),
            format!("/~{token}/hls/live/a/%2e%2e/b/index.m3u8"),
            format!("/~{token}%2f..%2fhls/live/b/index.m3u8"),
        ] {
            assert_eq!(status(addr, &path, ""), 400, "{path}");
        }
        let (_, list) = http(addr, "GET", &format!("/~{token}/api/v1/recordings"), "");
        let list = String::from_utf8_lossy(&list).into_owned();
        assert!(!list.contains("live/b"), "{list}");
        assert!(!String::from_utf8_lossy(&http(addr, "GET", "/api/v1/recordings", "").1).contains("live/"));
    }
    let (_, list) = http(origin.addr("flv"), "GET", &format!("/api/v1/streams?token={token}"), "");
    let list: serde_json::Value = serde_json::from_slice(&list).unwrap();
    assert_eq!((&list["total"], &list["streams"][0]["key"]), (&1.into(), &"live/a".into()), "{list}");
    let (_, none) = http(origin.addr("flv"), "GET", "/api/v1/streams", "");
    let none: serde_json::Value = serde_json::from_slice(&none).unwrap();
    assert_eq!(none["total"], 0, "{none}");
    origin.assert_up();
    origin.guard.terminate();
    origin.guard.wait();
    let log = std::fs::read_to_string(&log).unwrap();
    assert!(log.contains("/~***/hls/live/a/index.m3u8") && log.contains("token=***"), "{log}");
    assert!(!log.contains(&token), "a token is in the access log");
}

/// An upstream that notes the requests for streams and answers none of them.
fn upstream() -> (SocketAddr, Arc<Mutex<Vec<String>>>) {
    let listener = TcpListener::bind(ANY).unwrap();
    let (addr, asked) = (listener.local_addr().unwrap(), Arc::new(Mutex::new(Vec::new())));
    let heads = Arc::clone(&asked);
    std::thread::spawn(move || {
        for socket in listener.incoming() {
            let mut socket = socket.unwrap();
            let mut head = [0; 4096];
            let len = socket.read(&mut head).unwrap_or(0);
            let head = String::from_utf8_lossy(&head[..len]).into_owned();
            let _ =
                socket.write_all(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
            if head.contains(".flv") {
                heads.lock().unwrap().push(head);
            }
        }
    });
    (addr, asked)
}

#[test]
fn a_viewer_without_a_right_costs_the_upstream_nothing() {
    let scratch = Scratch::new("access-gateway");
    let (addr, asked) = upstream();
    let file = secrets(&scratch, "may:the-first-secret-of-all\n");
    let flags = ["flv-gateway", "--listen", ANY, "--admin", ANY, "--wait", "1s", "--auth-play", "deny"];
    let more = ["--auth-secret-file", file.to_str().unwrap(), "--upstream"];
    let start = |upstream: &str| Server::start(&scratch.path(""), &[&flags[..], &more, &[upstream]].concat());
    let gateway = start(&format!("http://{addr}"));
    let wrong = sign(&scratch, "play", "live/other", &[]);
    for _ in 0..50 {
        assert_eq!(status(gateway.addr("listen"), "/live/a.flv", ""), 401);
        assert_eq!(status(gateway.addr("listen"), &format!("/live/a.flv?token={wrong}"), ""), 403);
    }
    assert_eq!(asked.lock().unwrap().len(), 0, "a refused viewer has caused a pull");
    let token = sign(&scratch, "play", "live/a", &[]);
    assert_eq!(status(gateway.addr("listen"), &format!("/live/a.flv?token={token}"), ""), 404);
    let asked = asked.lock().unwrap().clone();
    assert!(asked.iter().any(|head| head.contains("Authorization: Bearer ey")), "{asked:?}");
    assert!(!asked.iter().any(|head| head.contains(&token)), "the viewer's token went to the upstream");
    // Through a second gateway to an origin that knows the same secret.
    let origin = origin(&scratch, CLOSED, &["--record", "none"]);
    let _feed = Feed::start(origin.addr("flv"), &format!("live/a?token={KEY}"));
    let inner = start(&format!("http://{}", origin.addr("flv")));
    let outer = start(&format!("http://{}", inner.addr("listen")));
    let path = Box::leak(format!("/live/a.flv?token={token}").into_boxed_str());
    Watch::start(outer.addr("listen"), path, Flavor::Http).wait_pictures_after(0);
}

#[test]
fn the_roles_of_one_process_trust_each_other() {
    let scratch = Scratch::new("access-all");
    let text = "admin = \"off\"\n[origin]\nrtmp = \"127.0.0.1:0\"\nflv = \"127.0.0.1:0\"\nweb = \"127.0.0.1:0\"\n\
        [flv_gateway]\nlisten = \"127.0.0.1:0\"\n[file_gateway]\nlisten = \"127.0.0.1:0\"\n\
        [auth]\nplay = \"deny\"\n[[auth.keys]]\nstream = \"*\"\naction = \"play\"\nkey = \"a-key-that-is-long\"\n";
    let config = config(&scratch, "all.toml", text);
    let server =
        Server::start(&scratch.path(""), &["--config", &config, "--data", "data", "--record", "none"]);
    let _feed = Feed::start(server.addr("flv"), "live/a");
    assert_eq!(status(server.addr("gateway"), "/live/a.flv", ""), 401);
    let path = Box::leak(format!("/live/a.flv?token={KEY}").into_boxed_str());
    Watch::start(server.addr("gateway"), path, Flavor::Http).wait_pictures_after(0);
}

#[test]
fn secrets_are_replaced_while_the_server_runs() {
    let scratch = Scratch::new("access-rotation");
    let mut origin = origin(&scratch, CLOSED, &["--record", "none", "--wait", "1s"]);
    let old = sign(&scratch, "play", "live/a", &[]);
    let of = |token: &str| status(origin.addr("flv"), &format!("/live/a.flv?token={token}"), "");
    assert_eq!(of(&old), 404, "there is no such stream, and the token is good");
    secrets(&scratch, "june:the-second-secret-of-all\nmay:the-first-secret-of-all\n");
    let new = sign(&scratch, "play", "live/a", &[]);
    // The file is looked at every few seconds.
    until("the new secret to be valid", || (of(&new) == 404).then_some(()));
    assert_eq!(of(&old), 404);
    secrets(&scratch, "june:the-second-secret-of-all\n");
    origin.guard.signal("HUP");
    until("the old secret to be forgotten", || (of(&old) == 403).then_some(()));
    assert_eq!(of(&new), 404);
    // A file that is wrong changes nothing.
    secrets(&scratch, "short\n");
    origin.guard.signal("HUP");
    origin.wait_log("line 1");
    assert_eq!((of(&new), of(&old)), (404, 403));
    origin.assert_up();
}

#[test]
fn a_greeting_of_bytes_is_not_waited_for_after_a_refusal() {
    let scratch = Scratch::new("access-late");
    let origin = origin(&scratch, CLOSED, &["--record", "none"]);
    let mut socket = connect(origin.addr("flv"));
    write!(socket, "POST /live/a HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000000\r\n\r\n").unwrap();
    let _ = socket.write_all(&vec![0; 200_000]);
    let answer = read_until(&mut socket, b"auth.keys");
    assert!(answer.starts_with(b"HTTP/1.1 401 "), "{}", String::from_utf8_lossy(&answer));
}

#[test]
fn an_end_in_a_token_ends_publishers_and_viewers_and_expiry_does_not() {
    let scratch = Scratch::new("access-end");
    let origin = origin(&scratch, CLOSED, &["--record", "none"]);
    let addr = origin.addr("flv");
    let _feed = Feed::start(addr, &format!("live/a?token={KEY}"));
    let start = |token: &str, flavor| {
        Watch::start(addr, Box::leak(format!("/live/a.flv?token={token}").into_boxed_str()), flavor)
    };
    let short = sign(&scratch, "play", "live/a", &["--expires", "5s"]);
    let stays = start(&short, Flavor::Http);
    let ending = sign(&scratch, "play", "live/a", &["--end", "8s"]);
    let viewers = [start(&ending, Flavor::Http), start(&ending, Flavor::Ws)];
    let mut player = Rtmp::connect(origin.addr("rtmp"), "live");
    player.say(&[raw::play(&format!("a?token={ending}"))]);
    player.wait("NetStream.Play.Start");
    let publishing = sign(&scratch, "publish", "live/b", &["--end", "8s"]);
    let mut publisher = Rtmp::connect(origin.addr("rtmp"), "live");
    publisher.say(&[vec![raw::publish(&format!("b?token={publishing}"))], opening_messages()].concat());
    publisher.wait("NetStream.Publish.Start");
    let poster = Poster::opened(
        addr,
        &format!("live/c?token={}", sign(&scratch, "publish", "live/*", &["--end", "8s"])),
    );
    viewers.iter().for_each(Watch::wait_end);
    player.wait("token that you came with has ended");
    publisher.wait("token that you came with has ended");
    origin.wait_metric("uringcast_publishers", "", |publishers| publishers == 1.0);
    let answer = poster.finish();
    assert!(answer.starts_with("HTTP/1.1 403 ") && answer.contains("has ended"), "{answer}");
    let expired =
        origin.wait_metric("uringcast_viewers_left_total", "reason=\"expired\"", |left| left == 3.0);
    assert!(expired > 2.0);
    // Nobody joins with it any more.
    until("the other token to expire", || {
        (status(addr, &format!("/live/a.flv?token={short}"), "") == 403).then_some(())
    });
    stays.wait_pictures_after(stays.count());
}

#[test]
fn a_player_of_files_goes_on_with_a_token_that_has_expired() {
    let scratch = Scratch::new("access-session");
    let root = scratch.path("root/hls/live/a");
    std::fs::create_dir_all(&root).unwrap();
    std::fs::write(root.join("segment_0.ts"), [0x47; 188]).unwrap();
    let file = secrets(&scratch, "may:the-first-secret-of-all\n");
    let args = ["file-gateway", "--listen", ANY, "--admin", ANY, "--root", "root", "--auth-play", "deny"];
    let more = ["--auth-secret-file", file.to_str().unwrap()];
    let gateway = Server::start(&scratch.path(""), &[&args[..], &more].concat());
    let segment =
        |token: &str| status(gateway.addr("listen"), &format!("/~{token}/hls/live/a/segment_0.ts"), "");
    let began = sign(&scratch, "play", "live/a", &["--expires", "7s"]);
    let ends = sign(&scratch, "play", "live/a", &["--expires", "7s", "--end", "7s"]);
    let late = sign(&scratch, "play", "live/a", &["--expires", "7s", "--subject", "late"]);
    assert_eq!((segment(&began), segment(&ends)), (200, 200));
    until("the tokens to expire", || (segment(&ends) == 403).then_some(()));
    assert_eq!(segment(&late), 403, "it has not begun in time");
    assert_eq!(segment(&began), 200, "it has begun before");
    let other = format!("/~{began}/hls/live/b/segment_0.ts");
    assert_eq!(status(gateway.addr("listen"), &other, ""), 403, "another stream is no part of it");
}

#[test]
fn a_stream_takes_as_many_viewers_as_it_may_have() {
    let scratch = Scratch::new("access-cap");
    let text = "[limits]\nviewers_per_stream = 2\n";
    let origin = origin(&scratch, text, &["--record", "none"]);
    let addr = origin.addr("flv");
    let (_feed, _other) = (Feed::start(addr, "live/a"), Feed::start(addr, "live/b"));
    let watch = || Watch::start(addr, "/live/a.flv", Flavor::Http);
    let (first, second) = (watch(), watch());
    [&first, &second].into_iter().for_each(|watch| watch.wait_pictures_after(0));
    let (answer, body) = http(addr, "GET", "/live/a.flv", "");
    assert_eq!(answer.status, 503, "{}", String::from_utf8_lossy(&body));
    let mut player = Rtmp::connect(origin.addr("rtmp"), "live");
    player.say(&[raw::play("a")]);
    player.wait("as many viewers as it may have");
    Watch::start(addr, "/live/b.flv", Flavor::Http).wait_pictures_after(0);
    assert_eq!(origin.refused("stream-viewers"), 2);
    drop(first);
    until("a place to be free", || Watch::try_start(addr, "/live/a.flv", Flavor::Http).ok())
        .wait_pictures_after(0);
}

#[test]
fn egress_is_bounded_by_stream_and_in_all() {
    let scratch = Scratch::new("access-egress");
    // A stream of some 240 kbps.
    for (text, reason, says) in [
        ("egress_per_stream = \"600kbps\"\n", "stream-egress", "limits.egress_per_stream"),
        ("egress = \"600kbps\"\n", "egress", "sends as much as it may"),
    ] {
        let origin = origin(&scratch, &format!("[limits]\n{text}"), &["--record", "none"]);
        let addr = origin.addr("flv");
        let (_feed, _other) = (Feed::start(addr, "live/a"), Feed::start(addr, "live/b"));
        until("the stream's rate to be known", || {
            let (_, body) = http(origin.addr("admin"), "GET", "/api/v1/streams", "");
            let list: serde_json::Value = serde_json::from_slice(&body).ok()?;
            let streams = list["streams"].as_array()?;
            (streams.len() == 2 && streams.iter().all(|one| one["bitrate"].as_u64() > Some(150_000)))
                .then_some(())
        });
        let mut watching = Vec::new();
        let refused = until("the limit to be reached", || {
            assert!(watching.len() < 10, "{reason}: nobody is refused");
            let watch = match Watch::try_start(addr, "/live/a.flv", Flavor::Http) {
                Ok(watch) => watch,
                Err(error) => return Some(error),
            };
            watch.wait_pictures_after(0);
            watching.push(watch);
            None
        });
        assert!(refused.contains("503"), "{refused}");
        let mut player = Rtmp::connect(origin.addr("rtmp"), "live");
        player.say(&[raw::play("a")]);
        let answer = String::from_utf8_lossy(&player.wait(says)).into_owned();
        assert!(answer.contains("NetStream.Play.Failed"), "{answer}");
        assert!(origin.refused(reason) >= 2);
        let other = http(addr, "HEAD", "/live/b.flv", "").0.status;
        assert_eq!(other == 200, reason == "stream-egress", "another stream: {other}");
        watching.iter().for_each(|watch| watch.wait_pictures_after(watch.count()));
    }
}

#[test]
fn pages_of_other_sites_may_be_kept_from_playing() {
    let scratch = Scratch::new("access-referer");
    let origin = origin(&scratch, "[auth]\nreferers = [\"shop.example\"]\n", &["--record", "none"]);
    let (flv, web) = (origin.addr("flv"), origin.addr("web"));
    let _feed = Feed::start(flv, "live/a");
    let head = |addr, path, fields: &str| http(addr, "HEAD", path, fields).0.status;
    for path in ["/live/a.flv", "/hls/live/a/index.m3u8"] {
        assert_eq!(head(web, path, "Referer: https://evil.example/page\r\n"), 403, "{path}");
        assert_ne!(head(web, path, "Referer: https://shop.example/page\r\n"), 403, "{path}");
        assert_ne!(head(web, path, ""), 403, "{path}");
    }
    assert!(websocket(flv, "/live/a.flv", "Origin: https://evil.example\r\n").contains("auth.referers"));
    assert_eq!(head(web, "/index.html", "Referer: https://evil.example/page\r\n"), 200, "links are no plays");
}

/// A service that decides, by the stream's name and by what is shown; returns its address and the questions.
fn service() -> (SocketAddr, Arc<Mutex<Vec<serde_json::Value>>>) {
    let listener = TcpListener::bind(ANY).unwrap();
    let (addr, asked) = (listener.local_addr().unwrap(), Arc::new(Mutex::new(Vec::new())));
    let questions = Arc::clone(&asked);
    std::thread::spawn(move || {
        for socket in listener.incoming() {
            let questions = Arc::clone(&questions);
            std::thread::spawn(move || decide(socket.unwrap(), &questions));
        }
    });
    (addr, asked)
}

fn decide(mut socket: std::net::TcpStream, questions: &Mutex<Vec<serde_json::Value>>) {
    let mut text = Vec::new();
    let question: serde_json::Value = loop {
        let mut part = [0; 4096];
        let len = socket.read(&mut part).unwrap();
        text.extend_from_slice(&part[..len]);
        let Some(end) = text.windows(4).position(|part| part == b"\r\n\r\n") else { continue };
        if let Ok(question) = serde_json::from_slice(&text[end + 4..]) {
            break question;
        }
    };
    questions.lock().unwrap().push(question.clone());
    let path = question["path"].as_str().unwrap();
    let good = question["token"] == "good" || (question["user"] == "anna" && question["password"] == "pw");
    if path.ends_with("silent") {
        std::thread::sleep(Duration::from_secs(30));
    }
    if path.ends_with("late") {
        std::thread::sleep(Duration::from_millis(700));
    }
    let answer = match path.rsplit('/').next().unwrap() {
        "lying" => "HTTP/1.1 302 Found\r\nLocation: /\r\nContent-Length: 0\r\n\r\n".to_owned(),
        "nonsense" => "good\r\n\r\n".to_owned(),
        "huge" => format!("HTTP/1.1 200 OK\r\nContent-Length: 10000000\r\n\r\n{}", "x".repeat(10_000_000)),
        _ if good => "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n".to_owned(),
        _ => "HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\n\r\n".to_owned(),
    };
    let _ = socket.write_all(answer.as_bytes());
}

#[test]
fn a_service_decides_and_a_name_is_free_until_it_has() {
    let scratch = Scratch::new("access-hook");
    let (service, asked) = service();
    let text = format!(
        "[auth]\nhook = \"http://{service}/auth\"\nhook_timeout = \"2s\"\nhook_cache = \"60s\"\n\
         secret_file = \"SECRETS\"\n"
    );
    let mut origin = origin(&scratch, &text, &["--record", "none", "--wait", "1s"]);
    let (rtmp, addr) = (origin.addr("rtmp"), origin.addr("flv"));
    // It is asked with the fields of MediaMTX, and what is sent before it has decided is kept.
    let mut publisher = Rtmp::connect(rtmp, "live");
    publisher.say(&[vec![raw::publish("late?user=anna&pass=pw")], opening_messages()].concat());
    until("the question", || asked.lock().unwrap().first().cloned());
    assert_eq!(origin.metric("uringcast_streams", ""), 0.0, "the name is not taken yet");
    publisher.wait("NetStream.Publish.Start");
    let question = asked.lock().unwrap()[0].clone();
    for (field, value) in [
        ("user", "anna"),
        ("password", "pw"),
        ("token", ""),
        ("ip", "127.0.0.1"),
        ("action", "publish"),
        ("path", "live/late"),
        ("protocol", "rtmp"),
        ("query", "user=anna&pass=pw"),
    ] {
        assert_eq!(question[field], value, "{field}");
    }
    let watch = Watch::start(addr, "/live/late.flv?token=good", Flavor::Http);
    watch.wait("the picture sent before the answer", |tags| tags.iter().any(|tag| tag.key));
    let poster = Poster::opened(addr, "live/later-late?token=good");
    Watch::start(addr, "/live/later-late.flv?token=good", Flavor::Ws)
        .wait("a keyframe", |tags| tags.iter().any(|tag| tag.key));
    drop(poster);
    // Its answers are kept, and a viewer by RTMP waits for them as well.
    let count = asked.lock().unwrap().len();
    (0..5).for_each(|_| assert_eq!(status(addr, "/live/none.flv?token=good", ""), 404));
    assert_eq!(asked.lock().unwrap().len(), count + 1);
    let _feed = Feed::start(addr, "live/fed-late?token=good");
    let mut player = Rtmp::connect(rtmp, "live");
    player.say(&[raw::play("fed-late?token=good")]);
    player.wait("NetStream.Play.Start");
    player.say(&[raw::delete_stream()]);
    for refused in ["/live/late.flv", "/live/late.flv?token=bad"] {
        assert_eq!(status(addr, refused, ""), 401, "{refused}");
    }
    let answer = post(addr, "/live/x?token=bad", "Host: localhost\r\n");
    assert!(answer.starts_with("HTTP/1.1 401 ") && answer.contains("auth.hook"), "{answer}");
    assert!(websocket(addr, "/live/x?token=bad", "").contains("auth.hook"));
    let mut refused = Rtmp::connect(rtmp, "live");
    refused.say(&[raw::publish("x?token=bad")]);
    refused.wait("NetStream.Publish.Unauthorized");
    // A token of our own needs no question.
    let count = asked.lock().unwrap().len();
    let token = sign(&scratch, "play", "live/none", &[]);
    assert_eq!(status(addr, &format!("/live/none.flv?token={token}"), ""), 404);
    assert_eq!(asked.lock().unwrap().len(), count);
    // While it does not answer as it should, nobody publishes and everybody plays.
    for name in ["silent", "lying", "nonsense", "huge"] {
        let answer = post(addr, &format!("/live/{name}?token=good"), "Host: localhost\r\n");
        assert!(answer.starts_with("HTTP/1.1 401 "), "{name}: {answer}");
        assert_eq!(status(addr, &format!("/live/{name}.flv?token=good"), ""), 404, "{name}");
    }
    origin.assert_up();
}

#[test]
fn many_who_wait_for_the_service_are_answered_by_one_question() {
    let scratch = Scratch::new("access-hook-many");
    let (service, asked) = service();
    let text = format!("[auth]\nhook = \"http://{service}\"\n");
    let origin = origin(&scratch, &text, &["--record", "none", "--wait", "0s"]);
    let addr = origin.addr("flv");
    std::thread::scope(|scope| {
        for _ in 0..100 {
            scope.spawn(|| assert_eq!(status(addr, "/live/late.flv?token=good", ""), 404));
        }
    });
    assert_eq!(asked.lock().unwrap().len(), 1);
}
