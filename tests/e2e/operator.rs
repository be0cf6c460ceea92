//! An operator at the admin listener: who watches, and the end of one of them or of a publisher.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use serde_json::Value;

use crate::harness::client::Response;
use crate::harness::ffmpeg::{make_clip, publish};
use crate::harness::process::Guard;
use crate::harness::{Flavor, Scratch, Server, Watch, http, need_ffmpeg, until};

const TOKEN: &str = "a-token-for-the-tests";

fn clip(scratch: &Scratch) -> PathBuf {
    let clip = scratch.path("clip.flv");
    make_clip(&clip, 4, "320x180");
    clip
}

/// A call of the API: its status and what it says.
fn call(admin: SocketAddr, method: &str, path: &str, headers: &str) -> (u16, String) {
    let (answer, body) = http(admin, method, path, headers);
    assert_eq!(answer.header("access-control-allow-origin"), None, "{path} is for operators only");
    (answer.status, String::from_utf8(body).unwrap())
}

/// What the list says, once it has so many.
fn viewers(admin: SocketAddr, query: &str, count: usize) -> Vec<Value> {
    until(&format!("{count} viewers in the list"), || {
        let (status, body) = call(admin, "GET", &format!("/api/v1/viewers{query}"), "");
        assert_eq!(status, 200, "{body}");
        let said: Value = serde_json::from_str(&body).unwrap();
        let viewers = said["viewers"].as_array().unwrap().clone();
        assert!(said["total"].as_u64().unwrap() >= viewers.len() as u64);
        (viewers.len() == count).then_some(viewers)
    })
}

fn kick(admin: SocketAddr, viewer: &Value) -> u16 {
    let path = format!("/api/v1/viewers/{}", viewer["id"].as_str().unwrap());
    call(admin, "DELETE", &path, "").0
}

fn speaks<'a>(viewers: &'a [Value], protocol: &str) -> &'a Value {
    viewers.iter().find(|viewer| viewer["protocol"] == protocol).unwrap()
}

fn kicked(admin: SocketAddr) -> u64 {
    let (_, page) = http(admin, "GET", "/metrics", "");
    let page = String::from_utf8(page).unwrap();
    let line = page.lines().find(|line| line.contains("viewers_left_total") && line.contains("\"kicked\""));
    line.and_then(|line| line.rsplit(' ').next()?.parse().ok()).unwrap()
}

#[test]
fn viewers_are_listed_and_kicked_as_their_protocol_has_it() {
    need_ffmpeg!();
    let scratch = Scratch::new("operator");
    let clip = clip(&scratch);
    let mut origin = Server::origin(&scratch.path(""), "10s");
    let (flv, admin) = (origin.addr("flv"), origin.addr("admin"));
    let _publisher = publish(&clip, &origin.rtmp("live/one"), true);
    let _other = publish(&clip, &origin.rtmp("live/two"), true);
    let stays = Watch::start(flv, "/live/two.flv", Flavor::Http);
    let watch = Watch::start(flv, "/live/one.flv", Flavor::Http);
    watch.wait_pictures_after(0);
    let mut socket = Response::play(flv, "/live/one.flv", Flavor::Ws).unwrap().socket;
    let mut command = Command::new("ffmpeg");
    command.args(["-loglevel", "error", "-i", &origin.rtmp("live/one"), "-f", "null", "-"]);
    let mut player = Guard::spawn("a player", &mut command);

    let all = viewers(admin, "", 4);
    let ids: std::collections::HashSet<&str> = all.iter().map(|one| one["id"].as_str().unwrap()).collect();
    assert_eq!(ids.len(), 4);
    let one = viewers(admin, "?stream=live/one", 3);
    assert!(one.iter().all(|viewer| viewer["stream"] == "live/one" && viewer["role"] == "origin"));
    assert!(one.iter().all(|viewer| viewer["forward"] == false));
    assert_eq!(viewers(admin, "?limit=2", 2).len(), 2, "and four in all");
    let peer = socket.local_addr().unwrap().to_string();
    assert_eq!(speaks(&one, "ws-flv")["peer"], peer.as_str());
    until("some seconds and a place behind the head", || {
        let one = viewers(admin, "?stream=live/one", 3);
        let viewer = speaks(&one, "http-flv");
        (viewer["seconds"].as_u64() >= Some(1) && viewer["behind_bytes"].is_u64()).then_some(())
    });

    assert_eq!(kick(admin, speaks(&one, "http-flv")), 204);
    watch.wait_end();
    assert_eq!(kick(admin, speaks(&one, "http-flv")), 404, "it has gone");

    assert_eq!(kick(admin, speaks(&one, "ws-flv")), 204);
    let mut rest = Vec::new();
    socket.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    socket.read_to_end(&mut rest).unwrap();
    let goodbye = b"\x88\x1a\x03\xf0an operator has ended it";
    assert!(rest.ends_with(goodbye), "{:?}", &rest[rest.len().saturating_sub(40)..]);

    assert_eq!(kick(admin, speaks(&one, "rtmp")), 204);
    assert!(player.wait(), "a player that is told so ends in peace");

    // Another one comes to the place of one that went: the old id does not mean it.
    let again = Watch::start(flv, "/live/one.flv", Flavor::Http);
    viewers(admin, "?stream=live/one", 1);
    assert!(one.iter().all(|old| kick(admin, old) == 404));
    again.wait_pictures_after(0);
    again.assert_well();
    stays.assert_well();
    assert_eq!(kicked(admin), 3);
    origin.assert_up();
}

#[test]
fn one_that_takes_nothing_is_kicked_all_the_same() {
    let scratch = Scratch::new("stuck");
    let clip = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("web/demo/clip.flv");
    let origin = Server::origin(&scratch.path(""), "10s");
    let (flv, admin) = (origin.addr("flv"), origin.addr("admin"));
    let mut command = Command::new(env!("CARGO_BIN_EXE_uringcast"));
    let url = format!("ws://{flv}/live/one");
    command.arg("push").arg(clip).args([&url, "--loop", "--speed", "60"]);
    let _pusher = Guard::spawn("push", &mut command);
    let stuck = Response::play(flv, "/live/one.flv", Flavor::Ws).unwrap();
    // The same place behind a head that moves: its socket is full.
    let mut before = 0;
    let id = until("it to be behind", || {
        std::thread::sleep(Duration::from_millis(200));
        let one = viewers(admin, "", 1).remove(0);
        let behind = one["behind_bytes"].as_u64().unwrap_or_default();
        let stands = behind > 1_000_000 && before > 1_000_000;
        before = behind;
        stands.then_some(one)
    });
    assert_eq!(kick(admin, &id), 204);
    viewers(admin, "", 0);
    assert_eq!(kicked(admin), 1, "kicked, not cut for being slow");
    drop(stuck);
}

#[test]
fn a_kicked_publisher_is_told_and_its_name_is_free() {
    need_ffmpeg!();
    let scratch = Scratch::new("publisher");
    let clip = clip(&scratch);
    let mut origin = Server::origin(&scratch.path(""), "20s");
    let (flv, admin) = (origin.addr("flv"), origin.addr("admin"));
    let kick = |name: &str| call(admin, "DELETE", &format!("/api/v1/streams/{name}"), "");
    assert_eq!(kick("live/one").0, 404, "nobody publishes it yet");
    let mut publisher = publish(&clip, &origin.rtmp("live/one"), true);
    let watch = Watch::start(flv, "/live/one.flv", Flavor::Http);
    watch.wait_pictures_after(0);
    assert_eq!(kick("live/one"), (204, String::new()));
    until("the publisher to end", || (!publisher.is_running()).then_some(()));
    assert_eq!(kick("live/one").0, 404, "it has gone");
    let mark = watch.count();

    // The next one by WebSocket, whose goodbye is a close frame.
    let upgrade = "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
                   Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
    let mut socket =
        Response::to(flv, &format!("GET /live/one HTTP/1.1\r\nHost: localhost\r\n{upgrade}\r\n"))
            .unwrap()
            .socket;
    socket.write_all(b"\x82\x8d\0\0\0\0FLV\x01\x05\0\0\0\x09\0\0\0\0").unwrap();
    until("it to publish", || (kick("live/one").0 == 204).then_some(()));
    let mut rest = Vec::new();
    socket.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    socket.read_to_end(&mut rest).unwrap();
    assert!(rest.ends_with(b"\x03\xf0an operator has ended it"), "{rest:?}");

    let _third = publish(&clip, &origin.rtmp("live/one"), true);
    watch.wait_pictures_after(mark);
    watch.assert_well();
    origin.assert_up();
}

#[test]
fn what_the_server_brings_itself_is_not_kicked() {
    let scratch = Scratch::new("own");
    let any = "127.0.0.1:0";
    let args = ["demo", "--no-gateway", "--rtmp", any, "--flv", any, "--web", any, "--admin", any];
    let demo = Server::start(&scratch.path(""), &args);
    let admin = demo.addr("admin");
    assert_eq!(call(admin, "DELETE", "/api/v1/streams/live/demo", "").0, 409);
    for (method, path, status) in [
        ("DELETE", "/api/v1/streams/live/none", 404),
        ("DELETE", "/api/v1/streams/no name", 400),
        ("DELETE", "/api/v1/viewers/", 404),
        ("DELETE", "/api/v1/viewers/1-2-3-4", 404),
        ("DELETE", "/api/v1/viewers/00000000-0-1-0", 404),
        ("GET", "/api/v1/viewers/00000000-0-1-0", 405),
        ("OPTIONS", "/api/v1/viewers/00000000-0-1-0", 405),
        ("POST", "/api/v1/viewers", 405),
        ("GET", "/api/v1/streams/live/demo", 405),
        ("GET", "/api/v1/viewers?limit=1001", 400),
        ("GET", "/api/v1/viewers?limit=x", 400),
        ("GET", "/api/v1/viewers?stream=x", 400),
        ("GET", "/api/v1/viewers?limit=0", 200),
        ("HEAD", "/api/v1/viewers", 200),
    ] {
        let path = path.replace(' ', "%20");
        assert_eq!(call(admin, method, &path, "").0, status, "{method} {path}");
    }
}

#[test]
fn only_operators_may() {
    let scratch = Scratch::new("token");
    let home = scratch.path("");
    let any = "127.0.0.1:0";
    let args = ["demo", "--no-gateway", "--rtmp", any, "--flv", any, "--web", any, "--admin"];
    let config = scratch.path("token.toml");
    std::fs::write(&config, format!("admin_token = \"{TOKEN}\"\n")).unwrap();
    let bearer = |token: &str| format!("Authorization: Bearer {token}\r\n");
    let config = ["--config", config.to_str().unwrap()];
    let guarded = Server::start(&home, &[&args[..], &["0.0.0.0:0"], &config].concat());
    let open = Server::start(&home, &[&args[..], &[any]].concat());
    let off = Server::start(&home, &[&args[..], &["0.0.0.0:0"]].concat());
    let local = |server: &Server| SocketAddr::from(([127, 0, 0, 1], server.addr("admin").port()));
    let (guarded_at, open_at, off_at) = (local(&guarded), local(&open), local(&off));
    let elsewhere = "Origin: http://evil.example\r\n".to_owned();
    for (admin, headers, status) in [
        (guarded_at, String::new(), 401),
        (guarded_at, bearer("a-token-for-the-test5"), 401),
        (guarded_at, bearer(TOKEN) + &elsewhere, 403),
        (guarded_at, bearer(TOKEN), 200),
        (open_at, elsewhere, 403),
        (open_at, String::new(), 200),
        (off_at, String::new(), 403),
    ] {
        let (list, _) = call(admin, "GET", "/api/v1/viewers", &headers);
        let (kick, _) = call(admin, "DELETE", "/api/v1/viewers/00000000-0-0-0", &headers);
        let (publisher, _) = call(admin, "DELETE", "/api/v1/streams/live/demo", &headers);
        let (gone, own) = if status == 200 { (404, 409) } else { (status, status) };
        assert_eq!((list, kick, publisher), (status, gone, own), "{headers:?}");
    }
    for server in [&guarded, &open, &off] {
        let admin = local(server);
        for path in ["/", "/status.html", "/operator/viewers.js", "/metrics", "/livez", "/api/v1/streams"] {
            assert_eq!(http(admin, "GET", path, "").0.status, 200, "{path}");
        }
        let (page, _) = http(admin, "GET", "/status.html", "");
        assert!(page.header("content-security-policy").unwrap().contains("frame-ancestors 'none'"));
        // The public pages know nothing of all this.
        let web = server.addr("web");
        assert_eq!(http(web, "GET", "/operator/viewers.js", "").0.status, 404);
        assert_eq!(http(web, "GET", "/api/v1/viewers", "").0.status, 404);
        let (_, said) = http(web, "GET", "/api/v1/streams", "");
        assert!(!String::from_utf8(said).unwrap().contains("operator"));
        assert!(!server.guard.log().iter().any(|line| line.contains(TOKEN)));
    }
    let mut raw = TcpStream::connect(open_at).unwrap();
    raw.write_all(b"DELETE /api/v1/viewers/x HTTP/1.1\r\nHost: rebound.example\r\n\r\n").unwrap();
    let mut head = [0; 12];
    raw.read_exact(&mut head).unwrap();
    assert_eq!(&head, b"HTTP/1.1 403");
}
