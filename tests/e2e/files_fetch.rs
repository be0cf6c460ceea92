//! What a file gateway's fetches cost, and whom: clients that hang up, upstreams that do not answer, connections that
//! are kept, files that are deleted.

use std::collections::HashMap;
use std::fs;
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex};

use crate::files_proxy::{body_of, gateway, get};
use crate::harness::{Scratch, Server, http, nobody, until};

/// What an upstream has seen, and how it is to behave.
#[derive(Default)]
struct Seen {
    asked: Mutex<HashMap<String, u32>>,
    /// Connections, those for health checks left out.
    connections: AtomicU32,
    /// Requests that are not answered and whose client still waits.
    hanging: AtomicU32,
    /// It reads and does not answer, health checks included.
    frozen: AtomicBool,
    /// It answers nothing but health checks.
    stuck: AtomicBool,
    /// It closes each connection after an answer without saying so.
    closes: AtomicBool,
}

/// An upstream that keeps connections. `/hang/…` is never answered.
struct Upstream {
    addr: SocketAddr,
    seen: Arc<Seen>,
}

impl Upstream {
    fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = listener.local_addr().unwrap();
        let seen = Arc::new(Seen::default());
        let shared = Arc::clone(&seen);
        std::thread::spawn(move || {
            for socket in listener.incoming().map_while(Result::ok) {
                let seen = Arc::clone(&shared);
                std::thread::spawn(move || serve(socket, &seen));
            }
        });
        Self { addr, seen }
    }

    fn asked(&self, path: &str) -> u32 {
        self.seen.asked.lock().unwrap().get(path).copied().unwrap_or(0)
    }

    fn asked_below(&self, folder: &str) -> u32 {
        let asked = self.seen.asked.lock().unwrap();
        asked.iter().filter(|(path, _)| path.starts_with(folder)).map(|(_, count)| count).sum()
    }

    fn hanging(&self) -> u32 {
        self.seen.hanging.load(Ordering::SeqCst)
    }
}

fn serve(mut socket: TcpStream, seen: &Seen) {
    let mut is_first = true;
    while let Some(path) = read_request(&mut socket) {
        *seen.asked.lock().unwrap().entry(path.clone()).or_default() += 1;
        let is_check = path == "/healthz";
        if std::mem::take(&mut is_first) && !is_check {
            seen.connections.fetch_add(1, Ordering::SeqCst);
        }
        let stuck = seen.stuck.load(Ordering::SeqCst) && !is_check;
        if path.starts_with("/hang/") || stuck || seen.frozen.load(Ordering::SeqCst) {
            seen.hanging.fetch_add(1, Ordering::SeqCst);
            let _ = socket.read(&mut [0]);
            seen.hanging.fetch_sub(1, Ordering::SeqCst);
            return;
        }
        let body = body_of(&path);
        let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", body.len());
        let sent = socket.write_all(head.as_bytes()).and_then(|()| socket.write_all(&body));
        if sent.is_err() || seen.closes.load(Ordering::SeqCst) {
            return;
        }
    }
}

/// The path of the next request; `None`: there is none.
fn read_request(socket: &mut TcpStream) -> Option<String> {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") {
        if socket.read(&mut byte).unwrap_or(0) == 0 {
            return None;
        }
        head.push(byte[0]);
    }
    Some(String::from_utf8(head).unwrap().split(' ').nth(1).unwrap().to_owned())
}

/// Asks for a file and does not read the answer.
fn ask(addr: SocketAddr, path: &str) -> TcpStream {
    let mut socket = TcpStream::connect(addr).unwrap();
    socket.write_all(format!("GET {path} HTTP/1.1\r\nHost: {addr}\r\n\r\n").as_bytes()).unwrap();
    socket
}

/// Whether an upstream is up, as the metrics say it.
fn is_up(gateway: &Server, upstream: SocketAddr) -> bool {
    let (_, page) = http(gateway.addr("admin"), "GET", "/metrics", "");
    let name = format!("uringcast_upstream_up{{role=\"file-gateway\",upstream=\"http://{upstream}\"}} ");
    let page = String::from_utf8(page).unwrap();
    let value = page.lines().find_map(|line| line.strip_prefix(name.as_str()));
    value.unwrap_or_else(|| panic!("no {name}")) == "1"
}

#[test]
fn live_paths_are_not_fetched() {
    let scratch = Scratch::new("fetch-live");
    let upstream = Upstream::start();
    let mut gateway = gateway(&scratch, "edge", &[upstream.addr], "");
    let addr = gateway.addr("listen");
    for number in 0..300 {
        drop(ask(addr, &format!("/none/{number}.flv")));
    }
    assert_eq!(get(addr, "/hls/live/a/segment_1.ts"), (200, body_of("/hls/live/a/segment_1.ts")));
    assert_eq!(get(addr, "/live/a.flv").0, 404);
    assert_eq!(get(addr, "/api/v1/viewers").0, 404);
    assert_eq!(
        upstream.asked_below("/none/") + upstream.asked_below("/live/") + upstream.asked_below("/api/"),
        0
    );
    // Recordings are files, and so is what lies here.
    assert_eq!(get(addr, "/flv/live/a/index.flv").0, 200);
    fs::create_dir_all(scratch.path("edge-root/live")).unwrap();
    fs::write(scratch.path("edge-root/live/a.flv"), b"local").unwrap();
    until("the local file", || (get(addr, "/live/a.flv").1 == b"local").then_some(()));
    gateway.assert_up();
}

#[test]
fn orders_go_with_their_clients() {
    let scratch = Scratch::new("fetch-withdrawn");
    let upstream = Upstream::start();
    let mut gateway = gateway(&scratch, "edge", &[upstream.addr], "");
    let addr = gateway.addr("listen");
    let mut clients: Vec<_> = (0..300).map(|number| ask(addr, &format!("/hang/{number}.ts"))).collect();
    until("fetches that wait", || (upstream.hanging() > 1).then_some(()));
    let joined = ask(addr, "/hang/0.ts");
    // Half of them may only have ended their side: they do not wait for an upstream any more either.
    for client in clients.iter().skip(150) {
        client.shutdown(Shutdown::Write).unwrap();
    }
    clients.truncate(150);
    drop(clients);
    until("all but one fetch to be given up", || (upstream.hanging() == 1).then_some(()));
    assert!(upstream.asked_below("/hang/") < 300, "what waited for its turn was never asked for");
    assert_eq!(get(addr, "/segment_1.ts").0, 200);
    assert_eq!(upstream.hanging(), 1);
    drop(joined);
    until("the last fetch to be given up", || (upstream.hanging() == 0).then_some(()));
    gateway.assert_up();
}

#[test]
fn an_upstream_that_does_not_answer_is_left_for_the_next() {
    let scratch = Scratch::new("fetch-frozen");
    let (first, second) = (Upstream::start(), Upstream::start());
    let config = "stale = \"60s\"\n";
    let gateway = gateway(&scratch, "edge", &[nobody(), first.addr, second.addr], config);
    let addr = gateway.addr("listen");
    assert_eq!(get(addr, "/segment_1.ts").0, 200);
    assert_eq!((first.asked("/segment_1.ts"), second.asked("/segment_1.ts")), (1, 0));
    assert!(is_up(&gateway, first.addr));
    first.seen.frozen.store(true, Ordering::SeqCst);
    assert_eq!(get(addr, "/segment_2.ts"), (200, body_of("/segment_2.ts")));
    assert_eq!((first.asked("/segment_2.ts"), second.asked("/segment_2.ts")), (1, 1));
    assert!(!is_up(&gateway, first.addr) && is_up(&gateway, second.addr));
    assert_eq!(get(addr, "/segment_3.ts").0, 200);
    assert_eq!(first.asked("/segment_3.ts"), 0, "it is down, and no other file pays for it");
    first.seen.frozen.store(false, Ordering::SeqCst);
    until("the first upstream to be up again", || is_up(&gateway, first.addr).then_some(()));
    assert_eq!(get(addr, "/segment_4.ts").0, 200);
    assert_eq!((first.asked("/segment_4.ts"), second.asked("/segment_4.ts")), (1, 0));
}

/// A balancer over file gateways learns that this one has nobody to fetch from.
#[test]
fn a_gateway_without_upstreams_is_not_ready() {
    let scratch = Scratch::new("fetch-ready");
    let upstream = Upstream::start();
    let gateway = gateway(&scratch, "edge", &[nobody(), upstream.addr], "");
    let ready = || http(gateway.addr("admin"), "GET", "/readyz", "").0.status;
    assert_eq!((get(gateway.addr("listen"), "/segment_1.ts").0, ready()), (200, 200));
    upstream.seen.frozen.store(true, Ordering::SeqCst);
    assert_eq!(get(gateway.addr("listen"), "/segment_2.ts").0, 502);
    assert_eq!(ready(), 503);
    upstream.seen.frozen.store(false, Ordering::SeqCst);
    until("the upstream to be up again", || (ready() == 200).then_some(()));
}

#[test]
fn an_old_playlist_is_served_while_the_upstream_hangs() {
    let scratch = Scratch::new("fetch-stale");
    let upstream = Upstream::start();
    let config = "playlist_life = \"100ms\"\nstale = \"1h\"\n";
    let gateway = gateway(&scratch, "edge", &[upstream.addr], config);
    let addr = gateway.addr("listen");
    let playlist = (200, body_of("/a/index.m3u8"));
    assert_eq!(get(addr, "/a/index.m3u8"), playlist);
    // It answers health checks, so the fetch waits for it.
    upstream.seen.stuck.store(true, Ordering::SeqCst);
    until("a fetch that hangs", || {
        assert_eq!(get(addr, "/a/index.m3u8"), playlist);
        (upstream.hanging() > 0).then_some(())
    });
    std::thread::sleep(std::time::Duration::from_millis(500));
    for _ in 0..3 {
        assert_eq!(get(addr, "/a/index.m3u8"), playlist);
        assert_eq!(upstream.hanging(), 1, "the answer did not wait for it, and it is made once");
    }
}

#[test]
fn connections_to_upstreams_are_kept() {
    let scratch = Scratch::new("fetch-kept");
    let upstream = Upstream::start();
    let gateway = gateway(&scratch, "edge", &[upstream.addr], "");
    let addr = gateway.addr("listen");
    let fetch = |name: &str| {
        let path = format!("/a/{name}.ts");
        assert_eq!(get(addr, &path), (200, body_of(&path)));
    };
    (0..10).for_each(|number| fetch(&number.to_string()));
    assert_eq!(upstream.seen.connections.load(Ordering::SeqCst), 1);
    // Those that the upstream closes after all are replaced, and the file does not suffer.
    upstream.seen.closes.store(true, Ordering::SeqCst);
    (10..20).for_each(|number| fetch(&number.to_string()));
    assert_eq!(upstream.asked_below("/a/"), 20);
    assert!(is_up(&gateway, upstream.addr));
}

#[test]
fn deleted_files_do_not_stay_open() {
    let scratch = Scratch::new("fetch-deleted");
    let gateway = gateway(&scratch, "edge", &[], "");
    let root = fs::canonicalize(scratch.path("edge-root")).unwrap();
    for number in 0..20 {
        fs::write(root.join(format!("{number}.ts")), body_of("x")).unwrap();
        assert_eq!(get(gateway.addr("listen"), &format!("/{number}.ts")).0, 200);
    }
    // One that is being sent is not cut.
    fs::write(root.join("large.ts"), vec![1; 32 << 20]).unwrap();
    let mut slow = ask(gateway.addr("listen"), "/large.ts");
    let mut read = slow.read(&mut [0; 1000]).unwrap();
    assert!(gateway.guard.open_below(&root).len() > 1, "files are kept open while they are asked for");
    (0..20).for_each(|number| fs::remove_file(root.join(format!("{number}.ts"))).unwrap());
    fs::remove_file(root.join("large.ts")).unwrap();
    until("the deleted files to be closed", || {
        let open = gateway.guard.open_below(&root);
        (open.iter().filter(|name| name.ends_with("(deleted)")).count() == 1).then_some(())
    });
    let mut buffer = vec![0; 1 << 20];
    while read < 32 << 20 {
        let len = slow.read(&mut buffer).unwrap();
        assert!(len > 0, "cut after {read} bytes");
        read += len;
    }
    drop(slow);
    until("the last one to be closed", || {
        let open = gateway.guard.open_below(&root);
        (!open.iter().any(|name| name.ends_with("(deleted)"))).then_some(())
    });
}

/// A listener that takes no more connections: as many wait for it as may. The first ones are given as well.
fn full_listener() -> (TcpListener, Vec<TcpStream>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr().unwrap();
    let mut waiting = Vec::new();
    for _ in 0..10_000 {
        match TcpStream::connect_timeout(&addr, std::time::Duration::from_millis(300)) {
            Ok(socket) => waiting.push(socket),
            Err(_) => return (listener, waiting),
        }
    }
    panic!("it takes connections without end");
}

#[test]
fn an_upstream_that_takes_no_connection_is_left_for_the_next() {
    let scratch = Scratch::new("fetch-unreachable");
    let (listener, _waiting) = full_listener();
    let second = Upstream::start();
    let first = listener.local_addr().unwrap();
    let gateway = gateway(&scratch, "edge", &[first, second.addr], "");
    let addr = gateway.addr("listen");
    for number in 0..20 {
        let path = format!("/segment_{number}.ts");
        assert_eq!(get(addr, &path), (200, body_of(&path)));
    }
    until("it to be known as down", || {
        (!is_up(&gateway, first) && is_up(&gateway, second.addr)).then_some(())
    });
    assert_eq!(second.asked_below("/segment_"), 20);
}
