//! Streams pushed over HTTP and WebSocket, by ffmpeg, by curl-like clients and by the pusher; and who is refused.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use crate::harness::ffmpeg::{self, make_clip, publish};
use crate::harness::process::Guard;
use crate::harness::{Flavor, Scratch, Server, Watch, http, need_ffmpeg};

/// `uringcast push FILE URL …`, with its exit code.
fn push(file: &Path, url: &str, more: &[&str]) -> (i32, String) {
    let output = pusher(file, url, more).stdin(Stdio::null()).output().unwrap();
    (output.status.code().unwrap(), String::from_utf8_lossy(&output.stderr).into_owned())
}

fn pusher(file: &Path, url: &str, more: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_uringcast"));
    command.arg("push").arg(file).arg(url).args(more);
    command
}

/// Where `key` is pushed to, in the three ways.
fn urls(origin: &Server, key: &str) -> [String; 3] {
    let flv = origin.addr("flv");
    [origin.rtmp(key), format!("http://{flv}/{key}"), format!("ws://{flv}/{key}")]
}

fn assert_same(name: &str, pushed: &Path, watch: &Watch, scratch: &Scratch) {
    let got = scratch.path(&format!("{}.flv", name.replace('/', "-")));
    std::fs::write(&got, watch.bytes()).unwrap();
    let (pushed, got) = (ffmpeg::packets(pushed), ffmpeg::packets(&got));
    for kind in ["video", "audio"] {
        assert_eq!(pushed.get(kind), got.get(kind), "{name}: {kind}");
    }
}

#[test]
fn every_packet_arrives_whichever_way_it_is_pushed() {
    need_ffmpeg!();
    let scratch = Scratch::new("ways");
    let clip = scratch.path("clip.flv");
    make_clip(&clip, 4, "320x180");
    let origin = Server::origin(&scratch.path(""), "1s");
    let pushers = ["rtmp", "http", "ws"].into_iter().zip(urls(&origin, "live/way"));
    let ways: Vec<(String, Guard, Watch)> = pushers
        .chain([("ffmpeg", format!("http://{}/live/way", origin.addr("flv")))])
        .map(|(way, url)| {
            let key = format!("live/way-{way}");
            let path: &'static str = format!("/{key}.flv").leak();
            let early = Watch::early(origin.addr("flv"), path, Flavor::Http);
            std::thread::sleep(Duration::from_millis(300));
            let url = url.replace("live/way", &key);
            let guard = match way {
                "ffmpeg" => publish(&clip, &url, false),
                _ => Guard::spawn(way, &mut pusher(&clip, &url, &["--speed", "2"])),
            };
            (key, guard, early.join().unwrap().unwrap())
        })
        .collect();
    for (key, mut guard, watch) in ways {
        assert!(guard.wait(), "{key}: {:?}", guard.log());
        watch.wait_end();
        assert_same(&key, &clip, &watch, &scratch);
    }
}

#[test]
fn an_mp4_and_standard_input_are_pushed_as_they_are() {
    need_ffmpeg!();
    let scratch = Scratch::new("mp4");
    let clip = scratch.path("clip.flv");
    make_clip(&clip, 3, "320x180");
    let made = [
        ("mp4", "clip.mp4", "0"),
        ("mov", "clip.mov", "0"),
        ("frag", "frag.mp4", "frag_keyframe+empty_moov+default_base_moof"),
        // With an absolute base_data_offset, as OBS writes it.
        ("absolute", "absolute.mp4", "frag_keyframe+empty_moov"),
        // Without any base: data goes on after that of the track before.
        ("running", "running.mp4", "frag_keyframe+empty_moov+omit_tfhd_offset"),
        ("apart", "apart.mp4", "frag_keyframe+empty_moov+separate_moof"),
    ]
    .map(|(name, file, flags)| {
        let to = scratch.path(file);
        let mut command = Command::new("ffmpeg");
        command.args(["-loglevel", "error", "-i"]).arg(&clip).args(["-c", "copy", "-movflags", flags]);
        assert!(command.arg(&to).status().unwrap().success());
        (name, to)
    });
    let origin = Server::origin(&scratch.path(""), "1s");
    let files = made.iter().map(|(name, file)| (*name, &**file)).chain([("stdin", Path::new("-"))]);
    for (name, file) in files {
        let path: &'static str = format!("/live/{name}.flv").leak();
        let early = Watch::early(origin.addr("flv"), path, Flavor::Http);
        std::thread::sleep(Duration::from_millis(300));
        let url = format!("http://{}/live/{name}", origin.addr("flv"));
        let input = std::fs::File::open(&clip).unwrap();
        let status = pusher(file, &url, &["--speed", "3"]).stdin(input).status().unwrap();
        assert!(status.success(), "{name}");
        let watch = early.join().unwrap().unwrap();
        watch.wait_end();
        let got = scratch.path(&format!("{name}-got.flv"));
        std::fs::write(&got, watch.bytes()).unwrap();
        // What ffmpeg itself makes of the file.
        let reference = scratch.path(&format!("{name}-reference.flv"));
        let own = if name == "stdin" { &*clip } else { file };
        let mut command = Command::new("ffmpeg");
        command.args(["-loglevel", "error", "-i"]).arg(own).args(["-c", "copy"]);
        assert!(command.arg(&reference).status().unwrap().success());
        let (want, got) = (ffmpeg::packets(&reference), ffmpeg::packets(&got));
        for kind in ["video", "audio"] {
            let hashes = |list: &[ffmpeg::Packet]| list.iter().map(|p| p.hash.clone()).collect::<Vec<_>>();
            assert_eq!(hashes(&want[kind]), hashes(&got[kind]), "{name}: {kind}");
            // MP4 counts in other units: a millisecond may be rounded the other way.
            for (want, got) in want[kind].iter().zip(&got[kind]) {
                let off = (want.dts - got.dts).abs().max(((want.pts - want.dts) - (got.pts - got.dts)).abs());
                assert!(off <= 1, "{name}: {want:?} {got:?}");
            }
        }
    }
}

/// A track that FLV does not carry is left out with a word; the others are pushed.
#[test]
fn pcm_is_left_out_and_said() {
    need_ffmpeg!();
    let scratch = Scratch::new("pcm");
    let (clip, mov) = (scratch.path("clip.flv"), scratch.path("clip.mov"));
    make_clip(&clip, 1, "160x90");
    let mut command = Command::new("ffmpeg");
    command.args(["-loglevel", "error", "-i"]).arg(&clip).args(["-c:v", "copy", "-c:a", "pcm_s16le"]);
    assert!(command.arg(&mov).status().unwrap().success());
    let origin = Server::origin(&scratch.path(""), "0s");
    let url = format!("http://{}/live/pcm", origin.addr("flv"));
    let early = Watch::early(origin.addr("flv"), "/live/pcm.flv", Flavor::Http);
    std::thread::sleep(Duration::from_millis(300));
    let (code, said) = push(&mov, &url, &[]);
    assert_eq!(code, 0, "{said}");
    assert!(said.contains("a sound track is left out: it is PCM (sowt)"), "{said}");
    let watch = early.join().unwrap().unwrap();
    watch.wait_end();
    assert_eq!(watch.tags().iter().filter(|tag| tag.is_picture()).count(), 25);
}

#[test]
fn a_loop_goes_on_without_a_seam() {
    let scratch = Scratch::new("loop");
    let clip = Path::new(env!("CARGO_MANIFEST_DIR")).join("web/demo/clip.flv");
    let origin = Server::origin(&scratch.path(""), "1s");
    let [_, _, url] = urls(&origin, "live/loop");
    let mut pusher = Guard::spawn("push", &mut pusher(&clip, &url, &["--loop", "--speed", "8"]));
    let watch = Watch::start(origin.addr("flv"), "/live/loop.flv", Flavor::Http);
    watch.wait("a second round", |tags| tags.iter().filter(|tag| tag.is_picture()).count() > 300);
    let times: Vec<u32> = watch.tags().iter().filter(|tag| tag.is_picture()).map(|tag| tag.time).collect();
    // 25 pictures a second; at the seam the sound, which is a frame longer, is let out.
    let odd: Vec<_> = times.windows(2).filter(|pair| !(40..=80).contains(&(pair[1] - pair[0]))).collect();
    assert!(odd.is_empty(), "{odd:?}");
    watch.assert_well();
    assert!(pusher.is_running());
}

/// A raw POST: its status and text.
fn post(addr: SocketAddr, path: &str, head: &str, body: &[u8]) -> (u16, String) {
    let mut socket = TcpStream::connect(addr).unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    write!(socket, "POST {path} HTTP/1.1\r\nHost: {addr}\r\n{head}\r\n").unwrap();
    socket.write_all(body).unwrap();
    let mut answer = String::new();
    socket.read_to_string(&mut answer).unwrap();
    (answer.split(' ').nth(1).unwrap().parse().unwrap(), answer)
}

/// What a WebSocket that sends `payload` in one binary message is closed with.
fn ws_close(addr: SocketAddr, path: &str, payload: &[u8]) -> (u16, String) {
    let mut socket = TcpStream::connect(addr).unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    let upgrade = "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
                   Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
    write!(socket, "GET {path} HTTP/1.1\r\nHost: {addr}\r\n{upgrade}\r\n").unwrap();
    let len = u8::try_from(payload.len()).unwrap();
    socket.write_all(&[&[0x82, 0x80 | len, 0, 0, 0, 0], payload].concat()).unwrap();
    let mut answer = Vec::new();
    socket.read_to_end(&mut answer).unwrap();
    let end = answer.windows(4).position(|part| part == b"\r\n\r\n").unwrap() + 4;
    assert!(answer.starts_with(b"HTTP/1.1 101 "), "{}", String::from_utf8_lossy(&answer));
    let &[0x88, len, high, low, ref reason @ ..] = &answer[end..] else { panic!("{:02x?}", &answer[end..]) };
    assert_eq!(usize::from(len), reason.len() + 2);
    (u16::from_be_bytes([high, low]), String::from_utf8(reason.to_vec()).unwrap())
}

#[test]
fn who_is_refused_is_told_why() {
    let scratch = Scratch::new("refused");
    let clip = Path::new(env!("CARGO_MANIFEST_DIR")).join("web/demo/clip.flv");
    let mut origin = Server::origin(&scratch.path(""), "5s");
    let flv = origin.addr("flv");
    let taken = Guard::spawn("push", &mut pusher(&clip, &origin.rtmp("live/taken"), &["--loop"]));
    let _watch = Watch::start(flv, "/live/taken.flv", Flavor::Http);

    let chunked = "Transfer-Encoding: chunked\r\n";
    let of = |len: usize| format!("Content-Length: {len}\r\n");
    let cases: [(&str, &str, &[u8], u16, &str); 7] = [
        ("/live/taken", chunked, b"", 409, "taken"),
        ("/live/taken.flv", &of(9), b"FLV\x01\x05\0\0\0\x09", 409, "taken"),
        ("/live/x", chunked, b"6\r\nGARBAGE", 400, "chunked"),
        ("/live/x", &of(11), b"#EXTM3U\n\n\n\n", 415, "not FLV"),
        ("/live/x", &of(11), b"\x1a\x45\xdf\xa3\x9f\x42\x86\x81\x01\x42\xf7", 415, "WebM"),
        ("/live/..x", chunked, b"", 400, "dot"),
        ("/live/x", "", b"", 411, "body"),
    ];
    for (path, head, body, status, part) in cases {
        let (got, text) = post(flv, path, head, body);
        assert!(got == status && text.contains(part), "{path} {head}: {text}");
        assert!(text.contains("Access-Control-Allow-Origin"), "{text}");
    }
    // Who waits for leave is told before it sends anything.
    let (status, text) = post(flv, "/live/taken", &format!("{chunked}Expect: 100-continue\r\n"), b"");
    assert!(status == 409 && !text.contains("100 Continue"), "{text}");

    let (code, reason) = ws_close(flv, "/live/x", b"\x1a\x45\xdf\xa3\x9f\x42\x86\x81\x01\x42\xf7");
    assert!(code == 1003 && reason.contains("WebM") && reason.contains("MediaRecorder"), "{code} {reason}");
    assert_eq!(ws_close(flv, "/live/taken", b"FLV\x01\x05\0\0\0\x09").0, 1008);
    assert_eq!(ws_close(flv, "/live/a%20b", b"FLV\x01\x05\0\0\0\x09").0, 1008);
    assert_eq!(http(flv, "POST", "/live/x", &of(0)).0.status, 411);

    for (file, url, want) in [
        (&*clip, format!("http://{flv}/live/taken"), 77),
        (&clip, format!("ws://{flv}/live/taken"), 77),
        (&clip, origin.rtmp("live/taken"), 77),
        (Path::new("/nonexistent"), format!("http://{flv}/live/x"), 66),
        (&Path::new(env!("CARGO_MANIFEST_DIR")).join("Cargo.toml"), format!("http://{flv}/live/x"), 65),
        (&clip, "http://127.0.0.1:1/live/x".to_owned(), 75),
        (&clip, "ftp://127.0.0.1/live/x".to_owned(), 2),
    ] {
        let (code, log) = push(file, &url, &["--no-reconnect"]);
        assert_eq!(code, want, "{url}: {log}");
    }
    origin.assert_up();
    drop(taken);
}

/// A proxy's error page instead of an upgrade, and of a 200: its reason is shown, whether its length is known or not.
#[test]
fn a_refusal_with_a_page_is_shown() {
    let clip = Path::new(env!("CARGO_MANIFEST_DIR")).join("web/demo/clip.flv");
    let page = "<html>\r\n<body>\r\nno such app here\r\n</body>\r\n</html>\r\n";
    let length = format!("Content-Length: {}\r\n", page.len());
    for (scheme, headers, keep) in [
        ("ws", length.as_str(), true),
        ("ws", "Connection: close\r\n", false),
        ("http", length.as_str(), true),
        ("http", "Connection: close\r\n", false),
    ] {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("{scheme}://{}/live/x", listener.local_addr().unwrap());
        let answer = format!("HTTP/1.1 403 Forbidden\r\n{headers}\r\n{page}");
        let server = std::thread::spawn(move || {
            let (mut socket, _) = listener.accept().unwrap();
            let mut request = Vec::new();
            while !request.windows(4).any(|part| part == b"\r\n\r\n") {
                let mut piece = [0; 1024];
                let len = socket.read(&mut piece).unwrap();
                assert!(len > 0, "a request");
                request.extend_from_slice(&piece[..len]);
            }
            // In two pieces, as a slow proxy writes it.
            let (head, rest) = answer.as_bytes().split_at(answer.len() - 20);
            socket.write_all(head).unwrap();
            std::thread::sleep(Duration::from_millis(100));
            socket.write_all(rest).unwrap();
            if keep {
                let _ = socket.read_to_end(&mut request);
            }
        });
        let (code, log) = push(&clip, &url, &[]);
        assert_eq!(code, 77, "{url} {headers}: {log}");
        assert!(log.contains("403 no such app here"), "{url} {headers}: {log}");
        server.join().unwrap();
    }
}

#[test]
fn the_same_token_takes_a_name_over_and_viewers_stay() {
    let scratch = Scratch::new("token");
    let clip = Path::new(env!("CARGO_MANIFEST_DIR")).join("web/demo/clip.flv");
    let mut origin = Server::origin(&scratch.path(""), "5s");
    let watch = Watch::early(origin.addr("flv"), "/live/token.flv", Flavor::Http);
    let mut pushers: Vec<Guard> = Vec::new();
    for url in urls(&origin, "live/token") {
        let mut command = pusher(&clip, &format!("{url}?token=a%2Fb"), &["--loop", "--no-reconnect"]);
        pushers.push(Guard::spawn(&url, &mut command));
        if let [.., before, _] = &mut pushers[..] {
            assert!(!before.wait(), "who was replaced does not end well");
            assert!(
                before.log().iter().any(|line| line.contains("taken the stream over")),
                "{:?}",
                before.log()
            );
        }
        std::thread::sleep(Duration::from_secs(1));
    }
    let watch = watch.join().unwrap().unwrap();
    watch.wait_pictures_after(watch.count());
    watch.assert_well();
    let (code, log) =
        push(&clip, &format!("http://{}/live/token?token=b", origin.addr("flv")), &["--no-reconnect"]);
    assert_eq!(code, 77, "{log}");
    origin.assert_up();
}

/// A phone that goes under a bridge: its connection looks alive, and it comes back over another one.
#[test]
fn a_silent_publisher_is_replaced() {
    let scratch = Scratch::new("stale");
    let clip = std::fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join("web/demo/clip.flv")).unwrap();
    let mut origin = Server::origin(&scratch.path(""), "5s");
    let flv = origin.addr("flv");
    let mut silent = TcpStream::connect(flv).unwrap();
    write!(silent, "POST /live/stale HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100000000\r\n\r\n")
        .unwrap();
    silent.write_all(&clip[..100_000]).unwrap();
    let watch = Watch::start(flv, "/live/stale.flv", Flavor::Http);
    let head = format!("Content-Length: {}\r\n", clip.len());
    assert_eq!(post(flv, "/live/stale", &head, &clip[..1000]).0, 409, "it has only just been heard");
    std::thread::sleep(Duration::from_millis(3_200));
    assert_eq!(post(flv, "/live/stale", &head, &clip).0, 200);
    watch.wait_pictures_after(100);
    let mut answer = String::new();
    silent.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 409 "), "{answer}");
    origin.assert_up();
}
