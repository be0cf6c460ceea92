//! Upstreams that are not ours: what a gateway makes of other servers' ways to answer.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use crate::harness::{Flavor, Scratch, Server, Watch, http, nobody, until};

const CLIP: &[u8] = include_bytes!("../../web/demo/clip.flv");

/// Serves the clip in chunks to each request, ends the answer as HTTP has it, and keeps the connection open.
fn chunked_upstream() -> (std::net::SocketAddr, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let (addr, asked) = (listener.local_addr().unwrap(), Arc::new(AtomicUsize::new(0)));
    let count = Arc::clone(&asked);
    std::thread::spawn(move || {
        let mut open = Vec::new();
        for socket in listener.incoming() {
            let mut socket = socket.unwrap();
            let _ = socket.read(&mut [0; 4096]).unwrap();
            count.fetch_add(1, Ordering::Relaxed);
            let _ = socket.write_all(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n");
            for part in CLIP.chunks(10_000) {
                let chunk = [format!("{:x}\r\n", part.len()).as_bytes(), part, b"\r\n"].concat();
                let _ = socket.write_all(&chunk);
            }
            let _ = socket.write_all(b"0\r\n\r\n");
            open.push(socket);
        }
    });
    (addr, asked)
}

#[test]
fn a_chunked_answer_that_ends_is_asked_for_again() {
    let scratch = Scratch::new("chunked");
    let (addr, asked) = chunked_upstream();
    let mut gateway = Server::gateway(&scratch.path(""), "5s", addr);
    let watch = Watch::start(gateway.addr("listen"), "/live/x.flv", Flavor::Http);
    let began = Instant::now();
    until("the gateway to ask again", || (asked.load(Ordering::Relaxed) >= 3).then_some(()));
    // Sooner than it would find the connection silent.
    assert!(began.elapsed() < Duration::from_secs(10));
    watch.wait_pictures_after(watch.count());
    watch.assert_well();
    gateway.assert_up();
}

#[test]
fn a_viewer_is_told_whether_the_stream_or_the_upstream_is_missing() {
    let scratch = Scratch::new("missing");
    let origin = Server::origin(&scratch.path(""), "1s");
    for (upstream, status) in [(origin.addr("flv"), 404), (nobody(), 502)] {
        let (any, upstream) = ("127.0.0.1:0", format!("http://{upstream}"));
        let args = ["flv-gateway", "--listen", any, "--admin", any, "--upstream", &upstream, "--wait", "1s"];
        let gateway = Server::start(&scratch.path(""), &args);
        let (answer, body) = http(gateway.addr("listen"), "GET", "/live/none.flv", "");
        let said = String::from_utf8_lossy(&body).contains("no upstream");
        assert_eq!((answer.status, said), (status, status == 502));
    }
}
