//! Memory: what peers that read nothing, or send much, may cost.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::sync::{Arc, Mutex};

use crate::harness::flv::{Brief, Chain};
use crate::harness::raw::{
    FILE_HEADER, Feed, Poster, Rtmp, audio_header, connect_deaf, metadata, opening, opening_messages,
    picture, publish, read_until, rest, sound, video_header,
};
use crate::harness::{Flavor, Scratch, Server, Watch, until};

const MIB: usize = 1 << 20;
/// Headers just below what is allowed.
const LARGE: usize = MIB - 4096;
const NO_RECORD: [&str; 2] = ["--record", "none"];

fn headers(pad: usize) -> Vec<u8> {
    let media = [picture(true, 0, 2_000), sound(5)].concat();
    [FILE_HEADER, &metadata(pad), &video_header(pad), &audio_header(pad), &media].concat()
}

/// Takes forwards as HTTP-FLV and checks each chunk and each tag of them.
fn forward_target() -> (SocketAddr, Arc<Mutex<Vec<Brief>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let (addr, tags) = (listener.local_addr().unwrap(), Arc::new(Mutex::new(Vec::new())));
    let seen = Arc::clone(&tags);
    std::thread::spawn(move || {
        for socket in listener.incoming() {
            let (mut socket, mut bytes, mut chain) = (socket.unwrap(), Vec::new(), Chain::default());
            let mut in_body = false;
            let mut part = vec![0; 64 << 10];
            while let Ok(len @ 1..) = socket.read(&mut part) {
                bytes.extend_from_slice(&part[..len]);
                if let Some(at) = bytes.windows(4).position(|part| part == b"\r\n\r\n").filter(|_| !in_body) {
                    bytes.drain(..at + 4);
                    in_body = true;
                }
                while let Some(chunk) = in_body.then(|| take_chunk(&mut bytes)).flatten() {
                    chain.feed(&chunk, &mut seen.lock().unwrap()).unwrap();
                }
            }
        }
    });
    (addr, tags)
}

/// The chunk that stands in front, if it is whole.
fn take_chunk(bytes: &mut Vec<u8>) -> Option<Vec<u8>> {
    let line = bytes.windows(2).position(|part| part == b"\r\n")?;
    let size = usize::from_str_radix(std::str::from_utf8(&bytes[..line]).unwrap(), 16).unwrap();
    let end = line + 2 + size;
    if bytes.len() < end + 2 {
        return None;
    }
    assert_eq!(&bytes[end..end + 2], b"\r\n", "a chunk's end");
    let chunk = bytes[line + 2..end].to_vec();
    bytes.drain(..end + 2);
    Some(chunk)
}

#[test]
fn large_headers_are_forwarded_or_refused_and_never_fatal() {
    let scratch = Scratch::new("large-headers");
    let (target, seen) = forward_target();
    let config = format!(
        "[origin]\ngap = \"0s\"\n[[forward]]\nstream = \"live/*\"\nto = \"http://{target}/{{app}}/{{name}}\"\n"
    );
    let mut origin = Server::origin_with(&scratch.path(""), &config, &NO_RECORD);
    let flv = origin.addr("flv");
    for (what, bytes) in [
        ("metadata", [FILE_HEADER, &metadata(9 * MIB)].concat()),
        ("video", [FILE_HEADER, &video_header(9 * MIB), &picture(true, 0, 2_000)].concat()),
        ("audio", [FILE_HEADER, &audio_header(2 * MIB), &sound(0)].concat()),
    ] {
        let mut poster = Poster::start(flv, "live/large");
        poster.send(&bytes);
        let answer = poster.finish();
        assert!(answer.starts_with("HTTP/1.1 4") || answer.starts_with("HTTP/1.1 503"), "{what}: {answer}");
        assert!(answer.contains("header") || answer.contains("metadata"), "{what}: no reason in {answer}");
        origin.assert_up();
    }
    let mut poster = Poster::start(flv, "live/allowed");
    assert!(poster.send(&headers(LARGE)));
    let _feed = Feed::of(poster);
    until("the forward to have the headers and pictures", || {
        let tags = seen.lock().unwrap();
        let large = tags.iter().filter(|tag| tag.len >= LARGE).count();
        (large >= 3 && tags.iter().any(|tag| tag.key)).then_some(())
    });
    origin.assert_up();
}

#[test]
fn headers_are_shared_by_viewers_that_read_nothing() {
    let scratch = Scratch::new("shared-headers");
    let config = "loops = 1\n[limits]\nsndbuf = \"64KiB\"\n";
    let mut origin = Server::origin_with(&scratch.path(""), config, &NO_RECORD);
    let flv = origin.addr("flv");
    let mut poster = Poster::start(flv, "live/big");
    assert!(poster.send(&headers(LARGE)));
    let _feed = Feed::of(poster);
    let join = |count: usize, path: &str| -> Vec<_> {
        (0..count)
            .map(|_| {
                let mut socket = connect_deaf(flv);
                write!(socket, "GET {path} HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
                socket
            })
            .collect()
    };
    // Every kind of viewer has its greeting framed once.
    let first = [join(1, "/live/big.flv"), join(1, "/live/big.flv?only=video")];
    origin.wait_metric("uringcast_viewers", "", |viewers| viewers >= 1.0);
    let one = origin.settled_memory();
    let all = [join(60, "/live/big.flv"), join(20, "/live/big.flv")];
    origin.wait_metric("uringcast_viewers", "", |viewers| viewers >= 80.0);
    let many = origin.settled_memory();
    assert!(many < one + 12 * MIB as u64, "{one} bytes with one viewer, {many} with 80 more");
    let watch = Watch::start(flv, "/live/big.flv", Flavor::Http);
    watch.wait_pictures_after(0);
    watch.assert_well();
    drop((first, all));
    origin.assert_up();
}

#[test]
fn pages_that_nobody_reads_are_not_copied_for_each_client() {
    let scratch = Scratch::new("deaf-pages");
    let mut origin = Server::origin_with(&scratch.path(""), "loops = 1\n", &NO_RECORD);
    for name in ["flv", "web"] {
        let before = origin.settled_memory();
        let deaf: Vec<_> = (0..200)
            .map(|_| {
                let mut socket = connect_deaf(origin.addr(name));
                let page = "GET /vendor/aac-encoder.js HTTP/1.1\r\nHost: x\r\n\r\n";
                socket.write_all(page.repeat(4).as_bytes()).unwrap();
                socket
            })
            .collect();
        origin.wait_metric("uringcast_connections", "", |open| open >= 200.0);
        let after = origin.settled_memory();
        assert!(after < before + 24 * MIB as u64, "{name}: {before} bytes before, {after} with 200 clients");
        drop(deaf);
    }
    origin.assert_up();
}

/// Requests without end by a client that reads no answer.
#[test]
fn a_pipeline_without_end_is_cut() {
    let scratch = Scratch::new("endless");
    let mut origin = Server::origin_with(&scratch.path(""), "loops = 1\n", &NO_RECORD);
    for name in ["flv", "web"] {
        let mut deaf = connect_deaf(origin.addr(name));
        deaf.set_nonblocking(true).unwrap();
        let ask = "GET /vendor/aac-encoder.js HTTP/1.1\r\nHost: x\r\n\r\n".repeat(50);
        until("it to be cut", || {
            loop {
                match deaf.write(ask.as_bytes()) {
                    Ok(_) => {}
                    Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => return None,
                    Err(_) => return Some(()),
                }
            }
        });
    }
    origin.assert_up();
}

/// Media of eight seconds that takes so much memory.
fn bulk(bytes: usize) -> Vec<u8> {
    const PICTURE: usize = 64 << 10;
    (1..=bytes / PICTURE)
        .flat_map(|turn| picture(turn % 20 == 0, u32::try_from(turn * 40).unwrap(), PICTURE))
        .collect()
}

#[test]
fn publishers_beyond_the_budget_are_refused_and_histories_shrink() {
    const BUDGET: f64 = 64.0 * 1024.0 * 1024.0;
    let scratch = Scratch::new("budget");
    let config = "loops = 1\n[origin]\ngap = \"0s\"\n[limits]\nmemory = \"64MiB\"\n";
    let mut origin = Server::origin_with(&scratch.path(""), config, &NO_RECORD);
    let flv = origin.addr("flv");
    let _first = Feed::start(flv, "live/first");
    let watch = Watch::start(flv, "/live/first.flv", Flavor::Http);
    watch.wait_pictures_after(0);
    let media = bulk(8 * MIB);
    let (mut held, mut refused) = (Vec::new(), Vec::new());
    let mut turn = 0;
    let used = || origin.metric("uringcast_memory_used_bytes", "");
    while refused.len() < 3 {
        assert!(turn < 400, "400 publishers with 8 MiB each are let in: {} bytes", used());
        let mut poster = Poster::start(flv, &format!("live/bulk{turn}"));
        turn += 1;
        let sent = poster.send(&opening()) && poster.send(&media);
        poster.0.set_nonblocking(true).unwrap();
        let mut answer = [0; 512];
        std::thread::sleep(std::time::Duration::from_millis(20));
        match poster.0.read(&mut answer) {
            Err(error) if sent && error.kind() == std::io::ErrorKind::WouldBlock => held.push(poster),
            Ok(len) => refused.push(String::from_utf8_lossy(&answer[..len]).into_owned()),
            Err(_) => refused.push(String::new()),
        }
        assert!(origin.metric("uringcast_memory_used_bytes", "for=\"logs\"") <= BUDGET);
    }
    assert!(held.len() >= 5, "only {} are let in: {refused:?}", held.len());
    let named: Vec<_> = refused.iter().filter(|answer| !answer.is_empty()).collect();
    assert!(!named.is_empty(), "no reason is given");
    for answer in named {
        assert!(answer.starts_with("HTTP/1.1 503 ") && answer.contains("memory"), "{answer}");
    }
    // Histories shrink meanwhile, which may let one more in: the memory is filled again until RTMP is refused.
    let refused_by_rtmp = (0..50).any(|turn| {
        let mut poster = Poster::start(flv, &format!("live/more{turn}"));
        let _ = poster.send(&opening()) && poster.send(&media);
        held.push(poster);
        let mut rtmp = Rtmp::connect(origin.addr("rtmp"), "live");
        rtmp.say(&[vec![publish(&format!("late{turn}"))], opening_messages()].concat());
        let answer = read_until(&mut rtmp.0, b"description");
        let answer = String::from_utf8_lossy(&answer);
        if answer.contains("Publish.Start") {
            return false;
        }
        if !answer.contains("memory budget") {
            rtmp.wait("memory budget");
        }
        true
    });
    assert!(refused_by_rtmp, "50 RTMP publishers are let in: {} bytes", used());
    assert!(origin.refused("memory") >= 2);
    // Each had 8 MiB: what is kept of them by now is less.
    let logs = origin.metric("uringcast_memory_used_bytes", "for=\"logs\"");
    #[expect(clippy::cast_precision_loss, reason = "a few")]
    let sent = (held.len() * 8 * MIB) as f64;
    assert!(logs < sent.min(BUDGET), "{logs} bytes of {sent}");
    watch.wait_pictures_after(watch.count());
    watch.assert_well();
    // With some of them gone there is memory again.
    drop(held);
    until("another publisher to be let in", || {
        let mut poster = Poster::start(flv, "live/after");
        let sent = poster.send(&opening());
        let answer = poster.finish();
        (sent && answer.starts_with("HTTP/1.1 200 ")).then_some(())
    });
    origin.assert_up();
}

#[test]
fn half_messages_of_many_clients_are_counted() {
    let scratch = Scratch::new("half-messages");
    let config = "loops = 1\n[limits]\nmemory = \"64MiB\"\n";
    let mut origin = Server::origin_with(&scratch.path(""), config, &NO_RECORD);
    let flv = origin.addr("flv");
    let before = origin.settled_memory();
    let half = &picture(true, 40, 16 * MIB - 1000)[..12 * MIB];
    let mut held = Vec::new();
    for turn in 0..16 {
        let mut poster = Poster::start(flv, &format!("live/half{turn}"));
        let _ = poster.send(&opening());
        let _ = poster.send(half);
        held.push(poster);
    }
    let after = origin.settled_memory();
    assert!(after < before + 128 * MIB as u64, "{before} bytes before, {after} after");
    assert!(origin.refused("memory") >= 1);
    let last = rest(&mut held.pop().unwrap().0);
    assert!(last.is_empty() || last.starts_with("HTTP/1.1 503 "), "{last}");
    origin.assert_up();
}
