//! Viewers that use the connection in ways that players do not: nobody else notices.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use crate::harness::client::Response;
use crate::harness::ffmpeg::{make_clip, publish};
use crate::harness::{Flavor, Scratch, Server, http, need_ffmpeg};

/// A masked frame with an empty payload.
const PING: [u8; 6] = [0x89, 0x80, 0, 0, 0, 0];

fn demo(scratch: &Scratch) -> Server {
    let any = "127.0.0.1:0";
    let args = ["demo", "--no-gateway", "--rtmp", any, "--flv", any, "--web", any, "--admin", any];
    Server::start(&scratch.path(""), &[&args[..], &["--loops", "2", "--wait", "1s"]].concat())
}

/// Reads until `part` has come.
fn read_until(socket: &mut TcpStream, part: &[u8]) -> Vec<u8> {
    socket.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    let (mut all, mut piece) = (Vec::new(), [0; 16 << 10]);
    let mut seen = 0;
    while !all[seen..].windows(part.len()).any(|window| window == part) {
        seen = all.len().saturating_sub(part.len());
        let len = socket.read(&mut piece).unwrap();
        assert!(len > 0, "closed before {:?} came", String::from_utf8_lossy(part));
        all.extend_from_slice(&piece[..len]);
    }
    all
}

#[test]
fn a_stream_is_played_behind_an_answer_that_is_still_under_way() {
    let scratch = Scratch::new("pipelined");
    let mut demo = demo(&scratch);
    let page = "GET /vendor/mpegts.js HTTP/1.1\r\nHost: x\r\n\r\n";
    for (path, answer) in [("/live/demo.flv", b"FLV\x01\x05".as_slice()), ("/live/none.flv", b" 404 ")] {
        for pages in [1, 12] {
            let mut socket = TcpStream::connect(demo.addr("flv")).unwrap();
            let requests = format!("{}GET {path} HTTP/1.1\r\nHost: x\r\n\r\n", page.repeat(pages));
            socket.write_all(requests.as_bytes()).unwrap();
            let answers = read_until(&mut socket, answer);
            let good = answers.windows(12).filter(|part| part == b"HTTP/1.1 200").count();
            assert_eq!(good, pages + usize::from(path.contains("demo")));
        }
    }
    demo.assert_up();
}

#[test]
fn a_head_request_for_no_stream_gets_no_body() {
    let scratch = Scratch::new("head");
    let demo = demo(&scratch);
    let mut socket = TcpStream::connect(demo.addr("flv")).unwrap();
    socket.write_all(b"HEAD /live/none.flv HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
    let mut answer = Vec::new();
    socket.read_to_end(&mut answer).unwrap();
    assert!(answer.starts_with(b"HTTP/1.1 404 ") && answer.ends_with(b"\r\n\r\n"));
    assert_eq!(http(demo.addr("flv"), "HEAD", "/live/demo.flv", "").0.status, 200);
}

/// Pings at the full rate of a connection while a stream ends: the goodbye must find the socket free.
#[test]
fn pings_at_the_end_of_a_stream() {
    need_ffmpeg!();
    let scratch = Scratch::new("pings");
    let clip = scratch.path("clip.flv");
    make_clip(&clip, 2, "320x180");
    let mut origin = Server::origin(&scratch.path(""), "0s");
    for round in 0..4 {
        let key = format!("live/pings{round}");
        let mut publisher = publish(&clip, &origin.rtmp(&key), false);
        let viewers: Vec<_> = (0..8)
            .map(|_| {
                let path = format!("/{key}.flv");
                let answer = Response::play(origin.addr("flv"), &path, Flavor::Ws).unwrap();
                let mut socket = answer.socket.try_clone().unwrap();
                let pings = std::thread::spawn(move || {
                    while socket.write_all(&PING).is_ok() {
                        std::thread::sleep(Duration::from_micros(200));
                    }
                });
                (answer, pings)
            })
            .collect();
        for (mut answer, pings) in viewers {
            let mut body = Vec::new();
            while answer.read(&mut body).unwrap() {}
            assert!(body.starts_with(b"FLV"));
            drop(answer);
            pings.join().unwrap();
        }
        publisher.wait();
    }
    origin.assert_up();
}
