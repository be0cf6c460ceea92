//! Peers that send nonsense, too much, too little, or never read: they are closed, nobody else notices.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::Duration;

use uringcast::media::flv::{FlvItem, FlvReader};
use uringcast::protocol::rtmp::client::PublishSession;

use crate::harness::ffmpeg::{make_clip, publish};
use crate::harness::process::Guard;
use crate::harness::{Flavor, Scratch, Server, Watch, http, need_ffmpeg, until};

const PLAY: &str = "/live/well.flv";
const HANDSHAKE: usize = 1536;

/// An origin with a publisher and two healthy viewers, whose bytes have to stay right.
struct Stage {
    origin: Server,
    watches: Vec<Watch>,
    _publisher: Guard,
    _scratch: Scratch,
}

impl Stage {
    fn new(name: &str) -> Self {
        let scratch = Scratch::new(name);
        let clip = scratch.path("clip.flv");
        make_clip(&clip, 30, "320x180");
        let origin = Server::origin(&scratch.path(""), "5s");
        let publisher = publish(&clip, &origin.rtmp("live/well"), true);
        let watches: Vec<Watch> = [Flavor::Http, Flavor::Ws]
            .map(|flavor| Watch::start(origin.addr("flv"), PLAY, flavor))
            .into_iter()
            .collect();
        watches.iter().for_each(|watch| watch.wait_pictures_after(0));
        Self { origin, watches, _publisher: publisher, _scratch: scratch }
    }

    /// The peer has been closed and the log names it.
    fn assert_closed(&self, what: &str, peer: TcpStream) {
        let port = peer.local_addr().unwrap().port();
        read_to_end(what, peer);
        self.origin.wait_log(&format!(":{port}"));
    }

    /// Nobody healthy has noticed anything.
    fn finish(mut self) {
        for watch in &self.watches {
            watch.wait_pictures_after(watch.count());
            watch.assert_well();
        }
        self.origin.assert_up();
    }
}

/// Reads until the server closes; an abortive close counts.
fn read_to_end(what: &str, mut peer: TcpStream) -> Vec<u8> {
    peer.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
    let (mut all, mut part) = (Vec::new(), [0; 4096]);
    until(&format!("{what}: to be closed"), || match peer.read(&mut part) {
        Ok(0) => Some(()),
        Ok(len) => {
            all.extend_from_slice(&part[..len]);
            None
        }
        Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => None,
        Err(_) => Some(()),
    });
    all
}

fn connect(addr: SocketAddr) -> TcpStream {
    let socket = TcpStream::connect(addr).unwrap();
    socket.set_write_timeout(Some(Duration::from_secs(20))).unwrap();
    socket
}

/// Sends what can be sent; the server may close in the middle of it.
fn send(addr: SocketAddr, bytes: &[u8]) -> TcpStream {
    let mut socket = connect(addr);
    let _ = socket.write_all(bytes);
    socket
}

/// A connection that has done the RTMP handshake and has sent `bytes` after it.
fn rtmp_after_handshake(addr: SocketAddr, bytes: &[u8]) -> TcpStream {
    let mut socket = connect(addr);
    let mut hello = vec![0; 1 + HANDSHAKE];
    hello[0] = 3;
    socket.write_all(&hello).unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    let mut answer = vec![0; 1 + 2 * HANDSHAKE];
    socket.read_exact(&mut answer).unwrap();
    assert_eq!(answer[0], 3);
    socket.write_all(&answer[1..=HANDSHAKE]).unwrap();
    let _ = socket.write_all(bytes);
    socket
}

/// One message in chunks of `chunk` bytes on chunk stream 3.
fn message(kind: u8, body: &[u8], chunk: usize) -> Vec<u8> {
    let len = u32::try_from(body.len()).unwrap().to_be_bytes();
    let mut bytes = vec![3, 0, 0, 0, len[1], len[2], len[3], kind, 0, 0, 0, 0];
    for (index, part) in body.chunks(chunk).enumerate() {
        if index > 0 {
            bytes.push(0xc3);
        }
        bytes.extend_from_slice(part);
    }
    bytes
}

/// `connect`, transaction 1, and what stands for the command object.
fn connect_command(object: &[u8]) -> Vec<u8> {
    [b"\x02\x00\x07connect\x00\x3f\xf0\x00\x00\x00\x00\x00\x00".as_slice(), object].concat()
}

#[test]
fn garbage_and_half_requests_are_closed_with_a_reason() {
    need_ffmpeg!();
    let stage = Stage::new("garbage");
    let [rtmp, flv, web] = ["rtmp", "flv", "web"].map(|name| stage.origin.addr(name));
    let noise: Vec<u8> =
        (0..8192u32).map(|i| i.wrapping_mul(2_654_435_761).to_be_bytes()[0] | 0x80).collect();
    let too_large = format!("GET {PLAY} HTTP/1.1\r\nHost: x\r\nX-Long: {}\r\n\r\n", "a".repeat(1 << 20));
    let many = format!("GET {PLAY} HTTP/1.1\r\n{}\r\n", "A: b\r\n".repeat(20_000));
    let peers = [
        ("noise on RTMP", send(rtmp, &noise)),
        ("noise on FLV", send(flv, &noise)),
        ("noise on web", send(web, &noise)),
        ("half a request", send(flv, b"GET /live/we")),
        ("half a handshake", send(rtmp, &[3; 700])),
        ("a long header", send(flv, too_large.as_bytes())),
        ("many headers", send(flv, many.as_bytes())),
        ("HTTP on RTMP", send(rtmp, b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")),
    ];
    for (what, peer) in peers {
        stage.assert_closed(what, peer);
    }
    stage.finish();
}

#[test]
fn rtmp_limits_hold() {
    need_ffmpeg!();
    let stage = Stage::new("limits");
    let rtmp = stage.origin.addr("rtmp");

    // 16 MiB announced, a few bytes sent: nothing may be kept for it, and the peer is not served for ever.
    let mut announced = vec![3, 0, 0, 0, 0xff, 0xff, 0xff, 20, 0, 0, 0, 0];
    announced.extend_from_slice(&[2; 100]);
    let huge = rtmp_after_handshake(rtmp, &announced);

    // Objects in objects, 100,000 deep.
    let nested = connect_command(&b"\x03\x00\x01a".repeat(100_000));
    let deep = rtmp_after_handshake(rtmp, &message(20, &nested, 128));

    // A chunk stream that continues what never began, and one with chunk size 0.
    let orphan = rtmp_after_handshake(rtmp, &[0xc7; 64]);
    let zero = rtmp_after_handshake(rtmp, &message(1, &[0; 4], 128));

    for (what, peer) in
        [("16 MiB", huge), ("deep AMF", deep), ("orphan chunk", orphan), ("chunk size 0", zero)]
    {
        stage.assert_closed(what, peer);
    }
    stage.finish();
}

#[test]
fn chunks_of_one_byte_are_slow_for_their_sender_only() {
    need_ffmpeg!();
    let stage = Stage::new("onebyte");
    let mut bytes = message(1, &1u32.to_be_bytes(), 128);
    let object = b"\x03\x00\x03app\x02\x00\x04live\x00\x00\x09";
    bytes.extend(message(20, &connect_command(object), 1));
    bytes.extend(message(18, &[0; 60_000], 1));
    let peer = rtmp_after_handshake(stage.origin.addr("rtmp"), &bytes);
    for watch in &stage.watches {
        watch.wait_pictures_after(watch.count());
    }
    peer.shutdown(Shutdown::Write).unwrap();
    read_to_end("one-byte chunks", peer);
    stage.finish();
}

#[test]
fn a_publisher_that_dies_inside_a_tag_leaves_whole_tags() {
    need_ffmpeg!();
    let stage = Stage::new("midtag");
    let early = Watch::early(stage.origin.addr("flv"), "/live/torn.flv", Flavor::Http);
    let mut publisher = connect(stage.origin.addr("rtmp"));
    let mut session = PublishSession::new("live", "rtmp://127.0.0.1/live", "torn");
    while !session.is_publishing() {
        publisher.write_all(&session.take_output().unwrap_or_default()).unwrap();
        let mut answer = [0; 4096];
        let len = publisher.read(&mut answer).unwrap();
        session.input(&answer[..len]).unwrap();
    }
    let mut clip = FlvReader::new(1 << 20);
    clip.push(include_bytes!("../../web/demo/clip.flv"));
    let mut bytes = Vec::new();
    while bytes.len() < 100_000 {
        if let Some(FlvItem::Tag(tag)) = clip.next_item().unwrap() {
            session.write_tag(&tag);
            bytes.extend_from_slice(&session.take_output().unwrap());
        }
    }
    // All but the end of the last tag.
    publisher.write_all(&bytes[..bytes.len() - 3]).unwrap();
    let viewer = early.join().unwrap().unwrap();
    viewer.wait_pictures_after(0);
    drop(publisher);
    viewer.wait_end();
    stage.finish();
}

#[test]
fn viewers_that_never_read_cost_a_bounded_amount_and_disturb_nobody() {
    need_ffmpeg!();
    let stage = Stage::new("stuck");
    let request = format!("GET {PLAY} HTTP/1.1\r\nHost: x\r\n\r\n");
    let stuck: Vec<TcpStream> = (0..20).map(|_| send(stage.origin.addr("flv"), request.as_bytes())).collect();
    for _ in 0..5 {
        for watch in &stage.watches {
            watch.wait_pictures_after(watch.count());
        }
    }
    drop(stuck);
    stage.finish();
}

#[test]
fn a_full_server_says_so_and_serves_again_when_there_is_room() {
    let scratch = Scratch::new("full");
    let origin = Server::origin_for(&scratch.path(""), 4);
    let web = origin.addr("web");
    let mut held: Vec<TcpStream> = Vec::new();
    until("a 503", || {
        // Clients in the middle of a request keep their places, once the server has seen that they are.
        held = (0..4).map(|_| connect(web)).collect();
        held.iter_mut().for_each(|client| client.write_all(b"GET /index").unwrap());
        std::thread::sleep(Duration::from_millis(50));
        let mut late = connect(web);
        let answer = String::from_utf8_lossy(&read_some(&mut late)).into_owned();
        answer.starts_with("HTTP/1.1 503").then_some(())
    });
    held.truncate(2);
    until("room again", || (http(web, "GET", "/index.html", "").0.status == 200).then_some(()));
}

#[test]
fn clients_that_ask_for_nothing_make_way() {
    let scratch = Scratch::new("idle");
    let origin = Server::origin_for(&scratch.path(""), 4);
    let web = origin.addr("web");
    let idle: Vec<TcpStream> = (0..4).map(|_| connect(web)).collect();
    for _ in 0..8 {
        until("a place", || (http(web, "GET", "/index.html", "").0.status == 200).then_some(()));
    }
    drop(idle);
}

/// What comes first, if anything comes within a second.
fn read_some(socket: &mut TcpStream) -> Vec<u8> {
    socket.set_read_timeout(Some(Duration::from_secs(1))).unwrap();
    let mut answer = vec![0; 4096];
    let len = socket.read(&mut answer).unwrap_or(0);
    answer.truncate(len);
    answer
}
