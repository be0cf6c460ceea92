//! Files that change while they are served, and clients that are slow, rude or gone.

use std::fs;
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::harness::nginx::{self, Nginx};
use crate::harness::{SOON, Scratch, Server, http, until};

/// A file gateway on `root` below the scratch folder, with further lines of configuration.
fn gateway(scratch: &Scratch, config: &str) -> Server {
    fs::create_dir_all(root(scratch)).unwrap();
    let file = scratch.path("gateway.toml");
    fs::write(&file, config).unwrap();
    let (file, root) = (file.to_str().unwrap().to_owned(), root(scratch));
    let any = "127.0.0.1:0";
    let args = ["file-gateway", "--listen", any, "--admin", any, "--config", &file, "--root"];
    Server::start(&scratch.path(""), &[&args[..], &[root.to_str().unwrap()]].concat())
}

fn root(scratch: &Scratch) -> PathBuf {
    scratch.path("root")
}

/// Bytes that tell their place.
fn pattern(len: usize) -> Vec<u8> {
    (0..len).map(|at| u8::try_from(at * 7 % 251).unwrap()).collect()
}

fn get(addr: SocketAddr, path: &str) -> (u16, Vec<u8>) {
    let (answer, body) = http(addr, "GET", path, "");
    (answer.status, body)
}

fn connect(addr: SocketAddr) -> TcpStream {
    let socket = TcpStream::connect(addr).unwrap();
    socket.set_read_timeout(Some(SOON)).unwrap();
    socket
}

/// A connection for which the kernel here holds a few kilobytes only.
fn narrow(addr: SocketAddr) -> TcpStream {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    socket.set_recv_buffer_size(32 << 10).unwrap();
    socket.connect(&addr.into()).unwrap();
    socket.set_read_timeout(Some(SOON)).unwrap();
    socket.into()
}

fn put(path: &Path, bytes: &[u8]) {
    let aside = path.with_extension("part");
    fs::write(&aside, bytes).unwrap();
    fs::rename(&aside, path).unwrap();
}

#[test]
fn answers_come_in_the_order_of_the_requests() {
    let scratch = Scratch::new("files-pipelined");
    let mut gateway = gateway(&scratch, "");
    let (small, large) = (pattern(9_000), pattern(900_000));
    fs::write(root(&scratch).join("small.ts"), &small).unwrap();
    fs::write(root(&scratch).join("large.ts"), &large).unwrap();
    let mut asked = String::new();
    let mut expected = Vec::new();
    for round in 0..60 {
        let (path, body): (&str, &[u8]) =
            [("/small.ts", &small[..]), ("/large.ts", &large), ("/none.ts", b"404")][round % 3];
        let last = if round == 59 { "Connection: close\r\n" } else { "" };
        asked += &format!("GET {path} HTTP/1.1\r\nHost: x\r\n{last}\r\n");
        expected.push(body);
    }
    let mut socket = connect(gateway.addr("listen"));
    // The requests come in two pieces, the second of which begins in the middle of one.
    let (first, second) = asked.split_at(asked.len() / 2 + 5);
    socket.write_all(first.as_bytes()).unwrap();
    std::thread::sleep(Duration::from_millis(50));
    socket.write_all(second.as_bytes()).unwrap();
    let mut all = Vec::new();
    socket.read_to_end(&mut all).unwrap();
    let mut rest = &all[..];
    for (round, body) in expected.into_iter().enumerate() {
        let end = rest.windows(4).position(|part| part == b"\r\n\r\n").unwrap();
        let head = std::str::from_utf8(&rest[..end]).unwrap();
        let len = head.lines().find_map(|line| line.strip_prefix("Content-Length: ")).unwrap();
        rest = &rest[end + 4..];
        let got = &rest[..len.parse::<usize>().unwrap()];
        rest = &rest[got.len()..];
        assert!(if round % 3 == 2 { got.starts_with(body) } else { got == body }, "answer {round}: {head}");
    }
    assert!(rest.is_empty());
    gateway.assert_up();
}

#[test]
fn a_file_is_seen_as_it_grows_and_is_replaced() {
    let scratch = Scratch::new("files-change");
    let gateway = gateway(&scratch, "");
    let addr = gateway.addr("listen");
    let playlist = root(&scratch).join("index.m3u8");
    let recording = root(&scratch).join("index.flv");
    assert_eq!(get(addr, "/index.m3u8").0, 404);
    for round in 0..5u8 {
        // Renamed over, of the same length each time.
        let text = [b'0' + round; 100];
        put(&playlist, &text);
        until("the new playlist", || (get(addr, "/index.m3u8") == (200, text.to_vec())).then_some(()));
        // Appended to.
        let mut file = fs::File::options().create(true).append(true).open(&recording).unwrap();
        file.write_all(&pattern(30_000)).unwrap();
        let len = 30_000 * (usize::from(round) + 1);
        until("the grown recording", || (get(addr, "/index.flv").1.len() == len).then_some(()));
    }
    fs::remove_file(&playlist).unwrap();
    until("the playlist to go", || (get(addr, "/index.m3u8").0 == 404).then_some(()));
}

#[test]
fn who_began_a_file_gets_that_version_to_its_end() {
    let scratch = Scratch::new("files-version");
    let gateway = gateway(&scratch, "");
    let old = pattern(20_000_000);
    let path = root(&scratch).join("stream_full.mp4");
    put(&path, &old);
    let mut socket = connect(gateway.addr("listen"));
    socket.write_all(b"GET /stream_full.mp4 HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").unwrap();
    let mut all = vec![0; 1_000];
    socket.read_exact(&mut all).unwrap();
    put(&path, b"another");
    until("the new one", || (get(gateway.addr("listen"), "/stream_full.mp4").1 == b"another").then_some(()));
    socket.read_to_end(&mut all).unwrap();
    let body = all.windows(4).position(|part| part == b"\r\n\r\n").unwrap() + 4;
    assert!(all[body..] == old[..]);
}

#[test]
fn a_file_that_shrinks_under_way_is_not_called_whole() {
    let scratch = Scratch::new("files-shrink");
    let mut gateway = gateway(&scratch, "");
    let path = root(&scratch).join("large.mp4");
    fs::write(&path, pattern(20_000_000)).unwrap();
    let mut socket = connect(gateway.addr("listen"));
    socket.write_all(b"GET /large.mp4 HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
    let mut all = vec![0; 1_000];
    socket.read_exact(&mut all).unwrap();
    fs::File::options().write(true).open(&path).unwrap().set_len(10).unwrap();
    let ended = socket.read_to_end(&mut all);
    assert!(ended.is_err() || all.len() < 20_000_000);
    gateway.assert_up();
}

#[test]
fn a_slow_client_is_served_and_a_dead_one_is_not_waited_for() {
    let scratch = Scratch::new("files-slow");
    let gateway =
        gateway(&scratch, "[limits]\nrequest_time = \"1s\"\nkeep_alive = \"1s\"\nsend_time = \"2s\"\n");
    let addr = gateway.addr("listen");
    let bytes = pattern(6_000_000);
    fs::write(root(&scratch).join("large.mp4"), &bytes).unwrap();
    let request = b"GET /large.mp4 HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";

    // Reads a little now and then: four times as long as a client may take nothing.
    let slow = std::thread::spawn(move || {
        let mut socket = narrow(addr);
        socket.write_all(request).unwrap();
        let mut all = Vec::new();
        loop {
            // What it does not read waits at the server: the kernel holds little for it.
            let before = all.len();
            Read::by_ref(&mut socket).take(300_000).read_to_end(&mut all).unwrap();
            if all.len() == before {
                return all;
            }
            std::thread::sleep(Duration::from_millis(400));
        }
    });
    // Takes nothing of more than the kernel holds for it.
    const HUGE: u64 = 100_000_000;
    fs::File::create(root(&scratch).join("huge.mp4")).unwrap().set_len(HUGE).unwrap();
    let mut dead = connect(addr);
    dead.write_all(b"GET /huge.mp4 HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").unwrap();
    // Says half of what it wants, one letter at a time.
    let mut dripping = connect(addr);
    let dripped = std::thread::spawn(move || {
        for byte in
            b"GET /large.mp4 HTTP/1.1\r\nHost: xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx".iter().cycle()
        {
            if dripping.write_all(&[*byte]).is_err() {
                break;
            }
            std::thread::sleep(Duration::from_millis(100));
        }
    });
    // Asks once and stays.
    let mut idle = connect(addr);
    idle.write_all(b"HEAD /large.mp4 HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
    let mut all = Vec::new();
    idle.read_to_end(&mut all).unwrap();
    assert!(all.starts_with(b"HTTP/1.1 200"));

    dripped.join().unwrap();
    let all = slow.join().unwrap();
    assert!(all.ends_with(&bytes), "{} bytes came", all.len());
    let mut got = Vec::new();
    let broken = dead.read_to_end(&mut got).is_err() || (got.len() as u64) < HUGE;
    assert!(broken, "who took nothing for long was sent all of it");
}

#[test]
fn who_says_that_it_will_ask_no_more_is_still_answered() {
    let scratch = Scratch::new("files-half");
    let gateway = gateway(&scratch, "");
    let bytes = pattern(3_000_000);
    fs::write(root(&scratch).join("large.mp4"), &bytes).unwrap();
    let mut socket = connect(gateway.addr("listen"));
    socket.write_all(b"GET /large.mp4 HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
    socket.shutdown(Shutdown::Write).unwrap();
    let mut all = Vec::new();
    socket.read_to_end(&mut all).unwrap();
    assert!(all.ends_with(&bytes));
}

/// The connection ends with the answer; a client that reads slowly, or has sent more than its last request, gets all of it.
#[test]
fn who_asks_for_the_last_time_gets_the_whole_answer_and_the_end() {
    let scratch = Scratch::new("files-last");
    let server = gateway(&scratch, "");
    let body = pattern(6 << 20);
    put(&root(&scratch).join("a.bin"), &body);
    put(&root(&scratch).join("small.bin"), &body[..5000]);
    let request = |path: &str| format!("GET /{path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
    let again = request("a.bin").repeat(2);
    let cases = [(request("a.bin"), body.len()), (request("small.bin"), 5000), (again, body.len())];
    for (asked, len) in cases {
        for pause in [0, 100] {
            let mut socket = narrow(server.addr("listen"));
            let (first, rest) = asked.split_at(20);
            socket.write_all(first.as_bytes()).unwrap();
            std::thread::sleep(Duration::from_millis(pause));
            socket.write_all(rest.as_bytes()).unwrap();
            let mut answer = Vec::new();
            socket.read_to_end(&mut answer).unwrap();
            assert!(answer.starts_with(b"HTTP/1.1 200 "), "{asked:?}");
            assert!(answer.ends_with(&body[..len]), "{asked:?}: {} bytes", answer.len());
        }
    }
}

#[test]
fn pipes_and_folders_and_strangers_are_no_files() {
    let scratch = Scratch::new("files-odd");
    let mut gateway = gateway(&scratch, "");
    let root = root(&scratch);
    fs::create_dir_all(root.join("folder.ts")).unwrap();
    assert!(Command::new("mkfifo").arg(root.join("pipe.ts")).status().unwrap().success());
    let _socket = std::os::unix::net::UnixListener::bind(root.join("socket.ts")).unwrap();
    std::os::unix::fs::symlink("/dev/zero", root.join("zero.ts")).unwrap();
    std::os::unix::fs::symlink("loop.ts", root.join("loop.ts")).unwrap();
    for path in ["/pipe.ts", "/folder.ts", "/socket.ts", "/zero.ts", "/loop.ts"] {
        assert_eq!(get(gateway.addr("listen"), path).0, 404, "{path}");
    }
    gateway.assert_up();
}

#[test]
fn compressed_files_go_to_those_who_take_them() {
    let scratch = Scratch::new("files-compressed");
    let gateway = gateway(&scratch, "");
    let addr = gateway.addr("listen");
    let root = root(&scratch);
    fs::write(root.join("app.js"), b"plain").unwrap();
    fs::write(root.join("app.js.gz"), b"gzipped").unwrap();
    fs::write(root.join("app.js.br"), b"brotli").unwrap();
    fs::write(root.join("only.js.gz"), b"alone").unwrap();
    fs::write(root.join("old.js"), b"new").unwrap();
    fs::write(root.join("old.js.gz"), b"old").unwrap();
    let past = std::time::SystemTime::now() - Duration::from_secs(100);
    fs::File::options().write(true).open(root.join("old.js.gz")).unwrap().set_modified(past).unwrap();
    for (path, accept, coding, body) in [
        ("/app.js", "gzip, deflate, br", Some("br"), &b"brotli"[..]),
        ("/app.js", "gzip", Some("gzip"), b"gzipped"),
        ("/app.js", "br;q=0, gzip;q=0.5", Some("gzip"), b"gzipped"),
        ("/app.js", "identity", None, b"plain"),
        ("/old.js", "gzip", None, b"new"),
    ] {
        let (answer, got) = http(addr, "GET", path, &format!("Accept-Encoding: {accept}\r\n"));
        let seen = (answer.status, answer.header("content-encoding"), &got[..]);
        assert_eq!(seen, (200, coding, body), "{path} {accept}");
        assert_eq!(answer.header("vary"), Some("Accept-Encoding"));
        assert_eq!(answer.header("content-type"), Some("text/javascript; charset=utf-8"));
    }
    assert_eq!(http(addr, "GET", "/only.js", "Accept-Encoding: gzip\r\n").0.status, 404);
}

#[test]
fn a_gateway_that_goes_down_lets_downloads_finish() {
    let scratch = Scratch::new("files-drain");
    let mut gateway = gateway(&scratch, "drain = \"30s\"\n");
    let bytes = pattern(8_000_000);
    fs::write(root(&scratch).join("large.mp4"), &bytes).unwrap();
    let mut idle = connect(gateway.addr("listen"));
    let mut busy = connect(gateway.addr("listen"));
    busy.write_all(b"GET /large.mp4 HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
    let mut all = vec![0; 1_000];
    busy.read_exact(&mut all).unwrap();
    gateway.guard.terminate();
    let mut nothing = Vec::new();
    idle.read_to_end(&mut nothing).unwrap();
    assert!(nothing.is_empty());
    busy.read_to_end(&mut all).unwrap();
    assert!(all.ends_with(&bytes), "{} bytes came", all.len());
    assert!(gateway.guard.wait());
}

#[test]
fn an_origin_shows_its_recordings_and_nothing_else() {
    let scratch = Scratch::new("files-origin");
    let data = scratch.path("data");
    let any = "127.0.0.1:0";
    let args =
        ["origin", "--rtmp", any, "--flv", any, "--web", any, "--admin", any, "--wait", "200ms", "--data"];
    // The folder comes after the start.
    let mut origin = Server::start(&scratch.path(""), &[&args[..], &[data.to_str().unwrap()]].concat());
    let web = origin.addr("web");
    assert_eq!(get(web, "/hls/live/a/index.m3u8").0, 404);
    for (path, text) in [
        ("hls/live/a/index.m3u8", "#EXTM3U"),
        ("mp4/live/a/output_merge/a_full.mp4", "mp4"),
        ("flv/live/a/index.flv", "FLV"),
        ("private/key.txt", "secret"),
        ("index.html", "not this one"),
    ] {
        fs::create_dir_all(data.join(path).parent().unwrap()).unwrap();
        fs::write(data.join(path), text).unwrap();
    }
    until("the folder to be seen", || (get(web, "/hls/live/a/index.m3u8").0 == 200).then_some(()));
    assert_eq!(get(web, "/mp4/live/a/output_merge/a_full.mp4"), (200, b"mp4".to_vec()));
    assert_eq!(get(web, "/flv/live/a/index.flv"), (200, b"FLV".to_vec()));
    assert_eq!(get(web, "/private/key.txt").0, 404);
    assert!(get(web, "/index.html").1.starts_with(b"<!"));
    assert!(get(web, "/api/v1/streams").1.starts_with(b"{"));
    // Live play as ever: there is no such stream.
    assert_eq!(get(web, "/live/a.flv").0, 404);
    assert_eq!(get(web, "/%zz").0, 400);
    origin.assert_up();
}

#[test]
fn three_gateways_behind_an_nginx() {
    if !nginx::available() {
        return;
    }
    let scratch = Scratch::new("files-upstream");
    let gateways = [(); 3].map(|()| gateway(&scratch, ""));
    let bytes = pattern(700_000);
    for name in ["a.m3u8", "a.ts", "a.mp4", "a.m4s", "a.flv", "a.html", "a.css", "a.js"] {
        fs::write(root(&scratch).join(name), &bytes).unwrap();
    }
    let upstream: String =
        gateways.iter().map(|gateway| format!("server {};", gateway.addr("listen"))).collect();
    let nginx = Nginx::start(
        &scratch.path(""),
        &format!("upstream files {{ {upstream} keepalive 8; }}"),
        "location ~ \\.(m3u8|ts|mp4|m4s|flv|html|css|js)$ {\nproxy_pass http://files;\n\
         proxy_http_version 1.1;\nproxy_set_header Connection \"\";\nproxy_set_header Host $host;\n\
         proxy_set_header X-Real-IP $remote_addr;\n}",
    );
    for round in 0..6 {
        for name in ["a.m3u8", "a.ts", "a.mp4", "a.m4s", "a.flv", "a.html", "a.css", "a.js"] {
            let (status, body) = get(nginx.addr, &format!("/{name}"));
            assert!(status == 200 && body == bytes, "{name}: {status}, {} bytes", body.len());
            let (answer, body) = http(nginx.addr, "GET", &format!("/{name}"), "Range: bytes=100-199\r\n");
            assert!(answer.status == 206 && body == bytes[100..200], "{name} in round {round}");
        }
    }
}

#[test]
fn requests_are_logged_and_counted() {
    let scratch = Scratch::new("files-log");
    let log = scratch.path("access.log");
    // Lines of several loops come as each hands them over.
    let config = format!("loops = 1\n[access_log]\npath = {:?}\n", log.to_str().unwrap());
    let gateway = gateway(&scratch, &config);
    let addr = gateway.addr("listen");
    fs::create_dir_all(root(&scratch).join("hls/live/a")).unwrap();
    let playlist = "#EXTM3U\n#EXT-X-TARGETDURATION:4\n";
    fs::write(root(&scratch).join("hls/live/a/index.m3u8"), playlist).unwrap();
    fs::write(root(&scratch).join("hls/live/a/segment_1.ts"), pattern(20_000)).unwrap();
    for (viewer, agent) in [("10.0.0.1", "x"), ("10.0.0.1", "y\\\""), ("10.0.0.2", "x"), ("10.0.0.2", "x")] {
        let fields = format!("X-Real-IP: {viewer}\r\nUser-Agent: {agent}\r\n");
        assert_eq!(http(addr, "GET", "/hls/live/a/index.m3u8", &fields).0.status, 200);
    }
    assert_eq!(http(addr, "GET", "/hls/live/a/segment_1.ts", "Range: bytes=5-14\r\n").0.status, 206);
    assert_eq!(get(addr, "/none").0, 404);
    assert_eq!(get(addr, "/%zz").0, 400);
    let lines = until("seven lines", || {
        let text = fs::read_to_string(&log).unwrap();
        (text.lines().count() == 7).then(|| text.lines().map(str::to_owned).collect::<Vec<_>>())
    });
    assert!(lines[1].starts_with("10.0.0.1 - - ["), "{}", lines[1]);
    assert!(
        lines[1].ends_with(r#" "GET /hls/live/a/index.m3u8 HTTP/1.1" 200 32 "-" "y\x5C\x22""#),
        "{}",
        lines[1]
    );
    assert!(lines[4].contains(r#""GET /hls/live/a/segment_1.ts HTTP/1.1" 206 10 "#), "{}", lines[4]);
    assert!(lines[5].contains(" 404 ") && lines[6].contains(r#""-" 400 "#), "{lines:?}");

    let metrics = until("the metrics", || {
        let (_, page) = http(gateway.addr("admin"), "GET", "/metrics", "");
        let page = String::from_utf8(page).unwrap();
        page.contains("uringcast_hls_viewers{role=\"file-gateway\"} 4").then_some(page)
    });
    for line in [
        "uringcast_http_answers_total{role=\"file-gateway\",code=\"206\"} 1",
        "uringcast_http_answers_total{role=\"file-gateway\",code=\"404\"} 1",
        "uringcast_files_total{role=\"file-gateway\",kind=\"playlist\"} 4",
        "uringcast_file_bytes_total{role=\"file-gateway\",kind=\"segment\"} 10",
        "uringcast_hls_sessions_total{role=\"file-gateway\"} 4",
        "uringcast_hls_stream_viewers{role=\"file-gateway\",stream=\"live/a\"} 4",
    ] {
        assert!(metrics.contains(&format!("{line}\n")), "{line} is not in\n{metrics}");
    }

    // Moved away as logrotate does.
    fs::rename(&log, scratch.path("access.log.1")).unwrap();
    gateway.guard.signal("USR1");
    until("the new file", || {
        get(addr, "/none");
        log.exists().then_some(())
    });
}
