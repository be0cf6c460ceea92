//! TLS over an engine whose sockets take any number of bytes, with rustls as the peer.

use std::collections::VecDeque;
use std::io::Write;

use proptest::prelude::*;
use rustls::pki_types::ServerName;
use rustls::{ClientConnection, Connection};

use super::*;
use crate::memory::Arena;
use crate::protocol::tls::tests::{SUITES, configs, data, drain, give};
use crate::uring::{FrameHead, SendError};

const SOCK: Sock = Sock { index: 3, generation: 7 };

/// One socket, which takes as many bytes as it is told.
#[derive(Debug, Default)]
struct Wire {
    /// How many bytes it takes before it is full.
    space: usize,
    /// What it took, and the peer has not read.
    taken: Vec<u8>,
    events: VecDeque<Event<Vec<u8>>>,
    polled: bool,
    shut: bool,
    segments: u32,
}

impl Wire {
    fn take(&mut self, bytes: &[u8]) {
        let len = bytes.len().min(self.space);
        self.space -= len;
        self.taken.extend_from_slice(&bytes[..len]);
        let result = match u32::try_from(len).unwrap() {
            0 => Err(SendError::Full),
            len => Ok(len),
        };
        self.events.push_back(Event::Sent { sock: SOCK, result });
    }

    /// The peer reads.
    fn drain(&mut self, space: usize) -> Vec<u8> {
        self.space = space;
        if space > 0 && std::mem::take(&mut self.polled) {
            self.events.push_back(Event::Writable { sock: SOCK });
        }
        std::mem::take(&mut self.taken)
    }
}

impl Engine for Wire {
    type Buf = Vec<u8>;

    fn now(&self) -> Millis {
        0
    }
    fn cpu_time(&self) -> Duration {
        Duration::ZERO
    }
    fn connect(&mut self, _: SocketAddr) -> Result<Sock, Errno> {
        Ok(SOCK)
    }
    fn send(&mut self, sock: Sock, payload: Payload) {
        assert!(sock == SOCK && !self.shut, "nothing is sent after the end");
        match payload {
            Payload::Bytes(bytes) => self.take(&bytes),
            other => panic!("plain bytes on a TLS connection: {other:?}"),
        }
    }
    fn poll_writable(&mut self, _: Sock) {
        assert!(!std::mem::replace(&mut self.polled, true), "one poll at a time");
        if self.space > 0 {
            self.polled = false;
            self.events.push_back(Event::Writable { sock: SOCK });
        }
    }
    fn shutdown_write(&mut self, _: Sock) {
        self.shut = true;
    }
    fn close(&mut self, _: Sock) {}
    fn peer(&self, _: Sock) -> Option<SocketAddr> {
        None
    }
    fn hold(&mut self, _: &Arc<Segment>) -> Region {
        self.segments += 1;
        Region(self.segments)
    }
    fn release(&mut self, _: Region) {}
    fn open_file(&mut self, _: &Arc<Folder>, _: &str, _: u64) {}
    fn load_file(&mut self, file: &Rc<OpenFile>, from: u64, len: u32, ticket: u64) {
        let mut bytes = vec![0; len as usize];
        let result = file.read_at(from, &mut bytes).map(|len| {
            bytes.truncate(len);
            bytes.into()
        });
        self.events.push_back(Event::Loaded { ticket, result });
    }
    fn queued(&self, _: Sock) -> Option<u32> {
        None
    }
    fn set_send_buffer(&mut self, _: Sock, _: u32) {}
    fn set_receiving(&mut self, _: Sock, _: bool) {}
    fn cold_reads(&self) -> u64 {
        0
    }
    fn resume_accept(&mut self, _: u32) {}
    fn stop_accept(&mut self) {}
    fn wait(&mut self, _: Option<Millis>) {}
    fn next_event(&mut self) -> Option<Event<Vec<u8>>> {
        self.events.pop_front()
    }
}

/// A connection and its peer.
struct Pair {
    net: Transports<Wire>,
    client: Connection,
    /// What the peer has read.
    read: Vec<u8>,
    closed: bool,
    /// What the session was told.
    events: Vec<Event<Received<Vec<u8>>>>,
}

impl Pair {
    fn new() -> Self {
        let (server, client) = configs(SUITES[0]);
        let mut net = Transports::new(Wire::default());
        net.accept_tls(Some(Arc::new(server)));
        net.accepted(SOCK);
        let name = ServerName::try_from("localhost").unwrap();
        let client = ClientConnection::new(Arc::new(client), name).unwrap().into();
        Self { net, client, read: Vec::new(), closed: false, events: Vec::new() }
    }

    /// The peer's bytes reach the socket in pieces.
    fn deliver(&mut self, piece: usize) {
        let wire = drain(&mut self.client);
        for part in wire.chunks(piece) {
            self.net.engine().events.push_back(Event::Received { sock: SOCK, data: part.to_vec() });
        }
    }

    /// The loop turns, and the peer reads; the socket then has `space`.
    fn turn(&mut self, space: usize) {
        self.net.wait(None);
        while let Some(event) = self.net.next_event() {
            self.events.push(event);
        }
        let wire = self.net.engine().drain(space);
        let (plain, closed) = give(&mut self.client, &wire);
        self.read.extend(plain);
        self.closed |= closed;
    }

    fn shake(&mut self, piece: usize, space: usize) {
        for _ in 0..20_000 {
            self.deliver(piece);
            self.turn(space);
            if !self.client.is_handshaking()
                && !self.client.wants_write()
                && self.net.engine().events.is_empty()
            {
                return self.turn(space);
            }
        }
        panic!("the handshake does not end");
    }

    /// Sends a payload as a session does; returns how much was taken of it.
    fn send(&mut self, payload: &Payload, spaces: &mut impl Iterator<Item = usize>) -> u32 {
        self.net.send(SOCK, payload.clone());
        for _ in 0..10_000 {
            self.turn(spaces.next().unwrap());
            let sent = self.events.iter().position(|event| matches!(event, Event::Sent { .. }));
            let Some(sent) = sent else { continue };
            match self.events.remove(sent) {
                Event::Sent { result: Ok(len), .. } => return len,
                Event::Sent { result: Err(SendError::Full), .. } => {
                    self.net.poll_writable(SOCK);
                    for _ in 0..10_000 {
                        self.turn(spaces.next().unwrap());
                        if let Some(at) = self.events.iter().position(|e| matches!(e, Event::Writable { .. }))
                        {
                            self.events.remove(at);
                            break;
                        }
                    }
                    self.net.send(SOCK, payload.clone());
                }
                other => panic!("{other:?}"),
            }
        }
        panic!("the send does not end");
    }
}

#[test]
fn what_a_peer_says_after_its_handshake_reaches_the_session() {
    for piece in [1, 7, 100, usize::MAX] {
        let mut pair = Pair::new();
        pair.client.writer().write_all(b"GET / HTTP/1.1\r\n\r\n").unwrap();
        pair.shake(piece, 1 << 20);
        let told: Vec<u8> = pair
            .events
            .iter()
            .flat_map(|event| match event {
                Event::Received { data, .. } => data.to_vec(),
                other => panic!("{other:?}"),
            })
            .collect();
        assert_eq!(told, b"GET / HTTP/1.1\r\n\r\n");
        assert!(pair.net.is_secure(SOCK) && pair.net.held(SOCK) < 2048, "{}", pair.net.held(SOCK));
    }
}

#[test]
fn another_first_byte_is_a_plain_connection() {
    let mut pair = Pair::new();
    pair.net.engine().events.push_back(Event::Received { sock: SOCK, data: b"GET".to_vec() });
    pair.turn(0);
    assert!(
        matches!(&pair.events[..], [Event::Received { data: Received::Whole(data), .. }] if data == b"GET")
    );
    assert!(!pair.net.is_secure(SOCK));
}

#[test]
fn a_peer_that_breaks_the_protocol_is_told_and_ended() {
    let mut pair = Pair::new();
    pair.shake(usize::MAX, 1 << 20);
    pair.net.engine().events.push_back(Event::Received { sock: SOCK, data: b"GET / HTTP/1.1".to_vec() });
    pair.net.wait(None);
    let events: Vec<_> = std::iter::from_fn(|| pair.net.next_event()).collect();
    assert!(matches!(events[..], [Event::Finished { error: Some(Errno::PROTO), .. }]), "{events:?}");
    let alert = pair.net.engine().drain(1 << 20);
    pair.client.read_tls(&mut &alert[..]).unwrap();
    let error = pair.client.process_new_packets().unwrap_err();
    assert_eq!(error, rustls::Error::AlertReceived(rustls::AlertDescription::DecodeError));
    assert!(pair.net.engine().shut);
    assert_eq!(pair.net.take_tls_failures(), 1);
}

#[test]
fn each_side_can_end_its_direction() {
    let mut pair = Pair::new();
    pair.shake(usize::MAX, 1 << 20);
    pair.client.send_close_notify();
    pair.deliver(1);
    pair.turn(1 << 20);
    assert!(matches!(pair.events[..], [Event::Finished { error: None, .. }]), "{:?}", pair.events);
    pair.net.engine().events.push_back(Event::Finished { sock: SOCK, error: None });
    pair.turn(1 << 20);
    assert_eq!(pair.events.len(), 1, "it is told once");
    assert_eq!(pair.send(&Payload::Bytes(Bytes::from_static(b"last")), &mut std::iter::repeat(1 << 20)), 4);
    pair.net.shutdown_write(SOCK);
    pair.turn(1 << 20);
    pair.turn(1 << 20);
    assert!(pair.closed && pair.net.engine().shut && pair.read == b"last");
}

#[test]
fn a_peer_that_asks_for_new_keys_gets_them() {
    let mut pair = Pair::new();
    pair.shake(usize::MAX, 1 << 20);
    for round in 0..3 {
        pair.client.refresh_traffic_keys().unwrap();
        pair.client.writer().write_all(b"more").unwrap();
        pair.deliver(usize::MAX);
        pair.turn(1 << 20);
        assert_eq!(
            pair.send(&Payload::Bytes(Bytes::from_static(b"yes.")), &mut std::iter::repeat(1 << 20)),
            4
        );
        pair.turn(1 << 20);
        assert_eq!(pair.read.len(), 4 * (round + 1));
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, ..ProptestConfig::default() })]

    #[test]
    fn whatever_a_socket_takes_the_peer_reads_what_was_sent(
        piece in 1usize..3_000,
        space in 1usize..5_000,
        spaces in proptest::collection::vec(prop_oneof![Just(0usize), 1usize..100, 1usize..60_000], 1..30)
            .prop_filter("some space", |spaces| spaces.iter().any(|space| *space > 0)),
        kinds in proptest::collection::vec((0usize..3, 1usize..150_000), 1..6),
    ) {
        let folder = tempfile();
        let mut pair = Pair::new();
        pair.shake(piece, space);
        let arena = Arena::new().unwrap();
        let mut segment = arena.segment(1 << 18).unwrap();
        segment.append(&data(1 << 18));
        segment.publish();
        let region = pair.net.hold(segment.segment());
        let (bytes, mut sent) = (data(1 << 18), Vec::new());
        let mut spaces = spaces.into_iter().cycle();
        for (kind, len) in kinds {
            let (head, mut at) = (b"head".as_slice(), 0usize);
            while at < len {
                let payload = match kind {
                    0 => Payload::Bytes(Bytes::copy_from_slice(&bytes[at..len])),
                    1 => Payload::Region {
                        head: FrameHead::new(head),
                        region,
                        from: u32::try_from(at).unwrap(),
                        len: u32::try_from(len - at).unwrap(),
                    },
                    _ => Payload::File {
                        head: Bytes::from_static(b"head"),
                        file: Rc::clone(&folder),
                        from: at as u64,
                        len: u32::try_from(len - at).unwrap(),
                    },
                };
                let taken = pair.send(&payload, &mut spaces) as usize;
                let (front, body) = if kind == 0 { (0, taken) } else { (4, taken - 4) };
                prop_assert!(taken > front && body <= len - at, "{taken} of {}", len - at);
                sent.extend_from_slice(&head[..front]);
                sent.extend_from_slice(&bytes[at..at + body]);
                at += body;
            }
        }
        pair.net.shutdown_write(SOCK);
        for _ in 0..2_000 {
            pair.turn(1 << 20);
        }
        prop_assert!(pair.read == sent, "{} of {} bytes", pair.read.len(), sent.len());
        prop_assert!(pair.closed && pair.net.engine().shut);
    }
}

/// A file with the bytes of [`data`].
fn tempfile() -> Rc<OpenFile> {
    let dir = std::env::temp_dir().join(format!(
        "uringcast-transport-{}-{:?}",
        std::process::id(),
        std::thread::current().id()
    ));
    std::fs::create_dir_all(&dir).unwrap();
    std::fs::write(dir.join("data"), data(1 << 18)).unwrap();
    let file = Folder::open(&dir).unwrap().open_file("data").unwrap();
    std::fs::remove_dir_all(&dir).unwrap();
    Rc::new(file)
}

/// What a session is told of a connection of a trusted proxy that sends `bytes` in two pieces.
fn proxied(bytes: &[u8], at: usize) -> (Pair, Vec<u8>) {
    let mut pair = Pair::new();
    pair.net.await_header(SOCK);
    for part in [&bytes[..at], &bytes[at..]].into_iter().filter(|part| !part.is_empty()) {
        pair.net.engine().events.push_back(Event::Received { sock: SOCK, data: part.to_vec() });
    }
    pair.turn(0);
    let received = pair.events.iter().flat_map(|event| match event {
        Event::Received { data, .. } => data.to_vec(),
        _ => Vec::new(),
    });
    let received = received.collect();
    (pair, received)
}

#[test]
fn the_header_of_a_proxy_is_taken_off_at_every_split() {
    let header = b"PROXY TCP4 192.0.2.1 192.0.2.2 5000 80\r\n";
    let client = "192.0.2.1:5000".parse().ok();
    for rest in [&b"GET / HTTP/1.1\r\n"[..], b"\x03", b""] {
        let bytes = [&header[..], rest].concat();
        for at in 0..bytes.len() {
            let (mut pair, received) = proxied(&bytes, at);
            assert_eq!((received.as_slice(), pair.net.told(SOCK)), (rest, Some(client)), "split at {at}");
            assert_eq!((pair.net.peer(SOCK), pair.net.is_secure(SOCK)), (client, false));
            pair.net.close(SOCK);
            assert_eq!(pair.net.peer(SOCK), None);
        }
    }
    for other in [&b"POST / HTTP/1.1"[..], b"PROX", b"\r\n\r\nGET", b"\x03\x01"] {
        for at in 0..other.len() {
            let (pair, received) = proxied(other, at);
            let want = if other == b"PROX" { &b""[..] } else { other };
            assert_eq!((received.as_slice(), pair.net.told(SOCK)), (want, None), "split at {at}");
        }
    }
}

#[test]
fn tls_follows_the_header_of_a_proxy() {
    let (pair, received) = proxied(b"PROXY UNKNOWN\r\n\x16\x03\x01", 7);
    assert!(pair.net.is_secure(SOCK) && received.is_empty());
    assert_eq!(pair.net.told(SOCK), Some(None));
}

#[test]
fn nothing_is_taken_after_a_malformed_header() {
    let (pair, received) = proxied(b"PROXY TCP4 x\r\nGET / HTTP/1.1\r\n\r\n", 14);
    assert!(
        matches!(pair.events[..], [Event::Finished { error: Some(Errno::PROTO), .. }]),
        "{:?}",
        pair.events
    );
    assert_eq!((received.as_slice(), pair.net.header_fault(SOCK)), (&b""[..], Some(ProxyError::Line)));
}
