//! File gateways that fetch from upstreams: one fetch however many ask, playlists that stay new, upstreams that
//! fail.

use std::collections::HashMap;
use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::harness::{Scratch, Server, http, nobody, until};

/// An upstream that counts: `/slow/…` takes its time, `/half/…` hangs up in the middle, `/none/…` is not there.
struct Upstream {
    addr: SocketAddr,
    asked: Arc<Mutex<HashMap<String, u32>>>,
}

impl Upstream {
    fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = listener.local_addr().unwrap();
        let asked = Arc::new(Mutex::new(HashMap::new()));
        let counts = Arc::clone(&asked);
        std::thread::spawn(move || {
            for socket in listener.incoming().map_while(Result::ok) {
                let counts = Arc::clone(&counts);
                std::thread::spawn(move || answer(socket, &counts));
            }
        });
        Self { addr, asked }
    }

    fn asked(&self, path: &str) -> u32 {
        self.asked.lock().unwrap().get(path).copied().unwrap_or(0)
    }
}

pub(crate) fn body_of(path: &str) -> Vec<u8> {
    path.bytes().cycle().take(900_000).collect()
}

fn answer(mut socket: TcpStream, counts: &Mutex<HashMap<String, u32>>) {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") {
        if socket.read(&mut byte).unwrap_or(0) == 0 {
            return;
        }
        head.push(byte[0]);
    }
    let text = String::from_utf8(head).unwrap();
    let path = text.split(' ').nth(1).unwrap().to_owned();
    *counts.lock().unwrap().entry(path.clone()).or_default() += 1;
    if path.starts_with("/none/") {
        let _ = socket.write_all(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n");
        return;
    }
    if path.starts_with("/slow/") {
        std::thread::sleep(Duration::from_millis(500));
    }
    let body = body_of(&path);
    let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", body.len());
    let len = if path.starts_with("/half/") { body.len() / 2 } else { body.len() };
    let _ = socket.write_all(head.as_bytes()).and_then(|()| socket.write_all(&body[..len]));
}

pub(crate) fn gateway(scratch: &Scratch, name: &str, upstreams: &[SocketAddr], config: &str) -> Server {
    let (root, cache) = (scratch.path(&format!("{name}-root")), scratch.path(&format!("{name}-cache")));
    fs::create_dir_all(&root).unwrap();
    let file = scratch.path(&format!("{name}.toml"));
    fs::write(&file, format!("loops = 2\n[file_gateway]\n{config}")).unwrap();
    let any = "127.0.0.1:0";
    let mut args = vec!["file-gateway", "--listen", any, "--admin", any];
    let paths = [("--config", &file), ("--root", &root), ("--cache", &cache)];
    for (flag, path) in &paths {
        args.extend([*flag, path.to_str().unwrap()]);
    }
    let urls: Vec<String> = upstreams.iter().map(|upstream| format!("http://{upstream}")).collect();
    for url in &urls {
        args.extend(["--upstream", url]);
    }
    Server::start(&scratch.path(""), &args)
}

pub(crate) fn get(addr: SocketAddr, path: &str) -> (u16, Vec<u8>) {
    let (answer, body) = http(addr, "GET", path, "");
    (answer.status, body)
}

fn bytes_below(folder: &Path) -> u64 {
    let entries = fs::read_dir(folder).unwrap().map(Result::unwrap);
    entries
        .map(|entry| match entry.metadata().unwrap() {
            meta if meta.is_dir() => bytes_below(&entry.path()),
            meta => meta.len(),
        })
        .sum()
}

#[test]
fn many_ask_and_one_fetch_is_made() {
    let scratch = Scratch::new("proxy-collapse");
    let upstream = Upstream::start();
    let mut gateway = gateway(&scratch, "edge", &[nobody(), upstream.addr], "");
    let addr = gateway.addr("listen");
    let clients: Vec<_> =
        (0..40).map(|_| std::thread::spawn(move || get(addr, "/slow/segment_1.ts"))).collect();
    for client in clients {
        let (status, body) = client.join().unwrap();
        assert!(status == 200 && body == body_of("/slow/segment_1.ts"), "{status}, {} bytes", body.len());
    }
    assert_eq!(upstream.asked("/slow/segment_1.ts"), 1);
    let (answer, body) = http(addr, "GET", "/slow/segment_1.ts", "Range: bytes=10-19\r\n");
    assert!(answer.status == 206 && body == body_of("/slow/segment_1.ts")[10..20]);
    assert_eq!(get(addr, "/none/segment_1.ts").0, 404);
    assert_eq!(get(addr, "/half/segment_1.ts").0, 502);
    assert_eq!(get(addr, "/blank%20and%20%C3%A9.ts").0, 200);
    assert_eq!(upstream.asked("/blank%20and%20%C3%A9.ts"), 1);
    // What is embedded here is not asked for elsewhere.
    assert!(get(addr, "/index.html").1.starts_with(b"<!"));
    assert_eq!(upstream.asked("/index.html"), 0);
    assert!(!scratch.path("edge-cache/half/segment_1.ts").exists());
    gateway.assert_up();
}

#[test]
fn what_is_here_is_not_fetched_and_playlists_stay_new() {
    let scratch = Scratch::new("proxy-cascade");
    let source = gateway(&scratch, "source", &[], "");
    let middle = gateway(&scratch, "middle", &[source.addr("listen")], "playlist_life = \"200ms\"\n");
    let edge = gateway(&scratch, "edge", &[middle.addr("listen")], "playlist_life = \"200ms\"\n");
    let addr = edge.addr("listen");
    let root = scratch.path("source-root/hls/live/a");
    fs::create_dir_all(&root).unwrap();
    fs::write(root.join("segment_1.ts"), body_of("x")).unwrap();
    for round in 0..4 {
        let text = format!("#EXTM3U\nround {round}\n");
        fs::write(root.join("part"), &text).unwrap();
        fs::rename(root.join("part"), root.join("index.m3u8")).unwrap();
        until("the new playlist", || {
            (get(addr, "/hls/live/a/index.m3u8") == (200, text.clone().into_bytes())).then_some(())
        });
    }
    assert_eq!(get(addr, "/hls/live/a/segment_1.ts"), (200, body_of("x")));
    let (first, _) = http(addr, "HEAD", "/hls/live/a/segment_1.ts", "");
    let (second, _) = http(source.addr("listen"), "HEAD", "/hls/live/a/segment_1.ts", "");
    assert_eq!(first.header("last-modified"), second.header("last-modified"));
    assert_eq!(get(addr, "/hls/live/a/segment_2.ts").0, 404);
    fs::create_dir_all(scratch.path("edge-root/hls/live/a")).unwrap();
    fs::write(scratch.path("edge-root/hls/live/a/segment_2.ts"), b"local").unwrap();
    until("the local file", || (get(addr, "/hls/live/a/segment_2.ts").1 == b"local").then_some(()));
}

#[test]
fn an_upstream_that_is_down_is_bridged() {
    let scratch = Scratch::new("proxy-stale");
    let mut source = gateway(&scratch, "source", &[], "");
    let config = "playlist_life = \"100ms\"\nstale = \"4s\"\n";
    let upstream = source.addr("listen");
    let mut edge = gateway(&scratch, "edge", &[upstream], config);
    let root = scratch.path("source-root");
    fs::write(root.join("index.m3u8"), b"#EXTM3U\n").unwrap();
    fs::write(root.join("segment_1.ts"), b"segment").unwrap();
    let playlist = (200, b"#EXTM3U\n".to_vec());
    assert_eq!(get(edge.addr("listen"), "/index.m3u8"), playlist);
    assert_eq!(get(edge.addr("listen"), "/segment_1.ts").1, b"segment");
    source.guard.kill();
    std::thread::sleep(Duration::from_millis(300));
    assert_eq!(get(edge.addr("listen"), "/index.m3u8"), playlist);
    assert_eq!(get(edge.addr("listen"), "/segment_2.ts").0, 502);
    until("the playlist to be too old", || (get(edge.addr("listen"), "/index.m3u8").0 == 502).then_some(()));
    // Segments do not age, and are there after a restart as well.
    edge.guard.kill();
    let edge = gateway(&scratch, "edge", &[upstream], config);
    assert_eq!(get(edge.addr("listen"), "/segment_1.ts"), (200, b"segment".to_vec()));
}

#[test]
fn the_cache_is_bounded() {
    let scratch = Scratch::new("proxy-bounded");
    let upstream = Upstream::start();
    let config = "cache_file = \"1MiB\"\ncache_size = \"3MiB\"\n";
    let gateway = gateway(&scratch, "edge", &[upstream.addr], config);
    for number in 0..12 {
        let path = format!("/hls/live/a/segment_{number}.ts");
        assert_eq!(get(gateway.addr("listen"), &path), (200, body_of(&path)));
        let bytes = bytes_below(&scratch.path("edge-cache"));
        assert!(bytes <= 3 << 20, "{bytes} bytes in the cache");
    }
    assert!(scratch.path("edge-cache/hls/live/a/segment_11.ts").exists());
    assert!(!scratch.path("edge-cache/hls/live/a/segment_0.ts").exists());
}

/// The cache's limit holds for what is on the disk: files that are still open are not removed, or are closed first.
#[test]
fn the_cache_takes_no_more_of_the_disk_than_it_may() {
    let scratch = Scratch::new("proxy-bound");
    let upstream = Upstream::start();
    let gateway =
        gateway(&scratch, "edge", &[upstream.addr], "cache_size = \"4MiB\"\ncache_file = \"1MiB\"\n");
    let cache = fs::canonicalize(scratch.path("edge-cache")).unwrap();
    for number in 0..20 {
        let path = format!("/hls/live/x/segment_{number}.ts");
        let (response, body) = http(gateway.addr("listen"), "GET", &path, "");
        assert_eq!((response.status, body == body_of(&path)), (200, true), "{path}");
        let whole = fs::read_dir(cache.join("hls/live/x")).unwrap().flatten();
        let bytes: u64 = whole.filter_map(|entry| entry.metadata().ok()).map(|meta| meta.len()).sum();
        let open = gateway.guard.open_below(&cache);
        let deleted = open.iter().filter(|name| name.ends_with("(deleted)")).count() as u64;
        assert!(bytes + deleted * 900_000 <= 4 << 20, "{bytes} bytes, {deleted} deleted files are open");
    }
    let (response, _) = http(gateway.addr("listen"), "GET", "/hls/live/x/segment_0.ts", "");
    assert_eq!(
        (response.status, upstream.asked("/hls/live/x/segment_0.ts")),
        (200, 2),
        "the oldest went first"
    );
}

#[test]
fn a_file_that_is_too_large_is_refused_with_the_reason() {
    let scratch = Scratch::new("proxy-large");
    let (root, any) = (scratch.path("first-root"), "127.0.0.1:0");
    fs::create_dir_all(&root).unwrap();
    fs::write(root.join("day.mp4"), vec![1; 3 << 20]).unwrap();
    let first = Server::start(
        &scratch.path(""),
        &["file-gateway", "--listen", any, "--admin", any, "--root", root.to_str().unwrap()],
    );
    let gateway = gateway(&scratch, "edge", &[first.addr("listen")], "cache_file = \"1MiB\"\n");
    let (response, body) = http(gateway.addr("listen"), "GET", "/day.mp4", "");
    let said = String::from_utf8_lossy(&body);
    assert!(response.status == 507 && said.contains("too large"), "{}: {said}", response.status);
    gateway.wait_log("a file cannot be kept");
}
