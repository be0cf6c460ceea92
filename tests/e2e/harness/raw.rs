//! Connections by hand: FLV made on the spot, pushes byte by byte, RTMP commands, and what the process says of itself.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use socket2::{Domain, Socket, Type};

use super::flv::{AUDIO, SCRIPT, VIDEO};
use super::{SOON, Server, http, until};

/// File header and the zero before the first tag.
pub(crate) const FILE_HEADER: &[u8] = b"FLV\x01\x05\0\0\0\x09\0\0\0\0";
const AVCC: &[u8] =
    b"\x01\x64\x00\x1f\xff\xe1\x00\x1a\x67\x64\x00\x1f\xac\xd9\x40\x50\x05\xbb\x01\x10\x00\x00\x03\
    \x00\x10\x00\x00\x03\x03\x20\xf1\x83\x19\x60\x01\x00\x06\x68\xeb\xe3\xcb\x22\xc0";

fn u24(value: usize) -> [u8; 3] {
    let [_, rest @ ..] = u32::try_from(value).unwrap().to_be_bytes();
    rest
}

/// One tag with the size that follows it.
pub(crate) fn tag(kind: u8, time: u32, body: &[u8]) -> Vec<u8> {
    let [high, low @ ..] = time.to_be_bytes();
    let size = u32::try_from(body.len() + 11).unwrap().to_be_bytes();
    [&[kind], &u24(body.len())[..], &low, &[high, 0, 0, 0], body, &size].concat()
}

/// `onMetaData` with one string of that length.
pub(crate) fn metadata(pad: usize) -> Vec<u8> {
    let mut body = b"\x02\0\x0aonMetaData\x08\0\0\0\x01\0\x03pad\x0c".to_vec();
    body.extend(u32::try_from(pad).unwrap().to_be_bytes());
    body.resize(body.len() + pad, b'x');
    body.extend(b"\0\0\x09");
    tag(SCRIPT, 0, &body)
}

pub(crate) fn video_header(pad: usize) -> Vec<u8> {
    tag(VIDEO, 0, &[b"\x17\0\0\0\0", AVCC, &vec![0; pad]].concat())
}

pub(crate) fn audio_header(pad: usize) -> Vec<u8> {
    tag(AUDIO, 0, &[b"\xaf\0\x12\x10".as_slice(), &vec![0; pad]].concat())
}

/// A picture of one slice.
pub(crate) fn picture(key: bool, time: u32, len: usize) -> Vec<u8> {
    let size = u32::try_from(len).unwrap().to_be_bytes();
    let (head, slice) = if key { (b"\x17\x01\0\0\0", 0x65) } else { (b"\x27\x01\0\0\0", 0x41) };
    tag(VIDEO, time, &[head, &size[..], &[slice], &vec![b'k'; len - 1]].concat())
}

pub(crate) fn sound(time: u32) -> Vec<u8> {
    tag(AUDIO, time, &[b"\xaf\x01".as_slice(), &[b'a'; 100]].concat())
}

/// File header, both headers and a first keyframe.
pub(crate) fn opening() -> Vec<u8> {
    [FILE_HEADER, &video_header(0), &audio_header(0), &picture(true, 0, 2_000), &sound(5)].concat()
}

/// A connection that takes little before its kernel's buffer is full.
pub(crate) fn connect_deaf(addr: SocketAddr) -> TcpStream {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.set_recv_buffer_size(4096).unwrap();
    socket.connect(&addr.into()).unwrap();
    socket.into()
}

/// A connection on which nothing waits for ever.
pub(crate) fn connect(addr: SocketAddr) -> TcpStream {
    let socket = TcpStream::connect(addr).unwrap();
    for set in [TcpStream::set_read_timeout, TcpStream::set_write_timeout] {
        set(&socket, Some(Duration::from_secs(40))).unwrap();
    }
    socket
}

/// Sends what can be sent and reads until the server closes; an abortive close counts.
pub(crate) fn exchange(addr: SocketAddr, request: &[u8]) -> String {
    let mut socket = connect(addr);
    let _ = socket.write_all(request);
    rest(&mut socket)
}

/// What comes until the server closes.
///
/// # Panics
/// If nothing comes for long and it does not close.
pub(crate) fn rest(socket: &mut TcpStream) -> String {
    let (mut all, mut part) = (Vec::new(), [0; 16 << 10]);
    loop {
        match socket.read(&mut part) {
            Ok(0) => break,
            Ok(len) => all.extend_from_slice(&part[..len]),
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {
                panic!("it was not closed; what came: {:?}", String::from_utf8_lossy(&all))
            }
            Err(_) => break,
        }
    }
    String::from_utf8_lossy(&all).into_owned()
}

/// Reads until `part` has come.
pub(crate) fn read_until(socket: &mut TcpStream, part: &[u8]) -> Vec<u8> {
    let (mut all, mut piece, mut seen) = (Vec::new(), [0; 16 << 10], 0);
    while !all[seen..].windows(part.len()).any(|window| window == part) {
        seen = all.len().saturating_sub(part.len());
        let len = socket.read(&mut piece).unwrap();
        let text = String::from_utf8_lossy(part).into_owned();
        assert!(len > 0, "closed before {text:?} came: {:?}", String::from_utf8_lossy(&all));
        all.extend_from_slice(&piece[..len]);
    }
    all
}

/// A push whose body is written by hand, in chunks.
pub(crate) struct Poster(pub(crate) TcpStream);

impl Poster {
    pub(crate) fn start(addr: SocketAddr, key: &str) -> Self {
        let mut socket = connect(addr);
        write!(socket, "POST /{key} HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n")
            .unwrap();
        Self(socket)
    }

    /// One that has sent [`opening`].
    pub(crate) fn opened(addr: SocketAddr, key: &str) -> Self {
        let mut poster = Self::start(addr, key);
        assert!(poster.send(&opening()));
        poster
    }

    /// Sends a chunk; false: the server has closed.
    pub(crate) fn send(&mut self, bytes: &[u8]) -> bool {
        let chunk = [format!("{:x}\r\n", bytes.len()).as_bytes(), bytes, b"\r\n"].concat();
        self.0.write_all(&chunk).is_ok()
    }

    /// The last chunk, and the answer.
    pub(crate) fn finish(mut self) -> String {
        let _ = self.0.write_all(b"0\r\n\r\n");
        rest(&mut self.0)
    }
}

/// An RTMP client that says what it is told to.
pub(crate) struct Rtmp(pub(crate) TcpStream);

/// A string of AMF 0.
pub(crate) fn text(value: &str) -> Vec<u8> {
    [&[2], &u16::try_from(value.len()).unwrap().to_be_bytes()[..], value.as_bytes()].concat()
}

/// A number of AMF 0.
pub(crate) fn number(value: f64) -> Vec<u8> {
    [&[0], &value.to_be_bytes()[..]].concat()
}

/// A boolean of AMF 0.
pub(crate) fn boolean(value: bool) -> Vec<u8> {
    vec![1, u8::from(value)]
}

/// A message in chunks of 128 bytes.
pub(crate) fn message(csid: u8, kind: u8, stream: u8, body: &[u8]) -> Vec<u8> {
    let mut bytes = [&[csid, 0, 0, 0], &u24(body.len())[..], &[kind, stream, 0, 0, 0]].concat();
    for (index, part) in body.chunks(128).enumerate() {
        bytes.extend((index > 0).then_some(0xc0 | csid));
        bytes.extend_from_slice(part);
    }
    bytes
}

/// A command: its name, the transaction 9, null, and what follows.
pub(crate) fn command(stream: u8, name: &str, arguments: &[Vec<u8>]) -> Vec<u8> {
    message(3, 20, stream, &[text(name), number(9.0), vec![5], arguments.concat()].concat())
}

impl Rtmp {
    /// Has done the handshake and `connect`, and has a message stream, which is 1.
    pub(crate) fn connect(addr: SocketAddr, app: &str) -> Self {
        Self::on(connect(addr), app)
    }

    /// The same over a connection on which something else was sent before.
    pub(crate) fn on(mut socket: TcpStream, app: &str) -> Self {
        let mut hello = vec![0; 1537];
        hello[0] = 3;
        socket.write_all(&hello).unwrap();
        let mut answer = vec![0; 1 + 2 * 1536];
        socket.read_exact(&mut answer).unwrap();
        socket.write_all(&answer[1..1537]).unwrap();
        let object = [b"\x03\0\x03app".as_slice(), &text(app), b"\0\0\x09"].concat();
        let connect = [text("connect"), number(1.0), object].concat();
        socket.write_all(&message(3, 20, 0, &connect)).unwrap();
        let mut rtmp = Self(socket);
        rtmp.wait("NetConnection.Connect.Success");
        rtmp.say(&[command(0, "createStream", &[])]);
        rtmp.wait("_result");
        rtmp
    }

    /// Sends all in one piece.
    pub(crate) fn say(&mut self, messages: &[Vec<u8>]) {
        self.0.write_all(&messages.concat()).unwrap();
    }

    /// Reads until `part` has come.
    pub(crate) fn wait(&mut self, part: &str) -> Vec<u8> {
        read_until(&mut self.0, part.as_bytes())
    }
}

/// What asks for the name on message stream 1.
pub(crate) fn publish(name: &str) -> Vec<u8> {
    command(1, "publish", &[text(name), text("live")])
}

/// What asks to watch on message stream 1.
pub(crate) fn play(name: &str) -> Vec<u8> {
    command(1, "play", &[text(name)])
}

/// What ends what goes on on message stream 1.
pub(crate) fn delete_stream() -> Vec<u8> {
    command(0, "deleteStream", &[number(1.0)])
}

/// The headers and a keyframe of a publisher on message stream 1.
pub(crate) fn opening_messages() -> Vec<Vec<u8>> {
    let video = |bytes: Vec<u8>| message(6, 9, 1, &bytes[11..bytes.len() - 4]);
    vec![video(video_header(0)), message(4, 8, 1, &audio_header(0)[11..15]), video(picture(true, 0, 2_000))]
}

impl Server {
    /// Sum of a metric over the labels that hold all of `labels`.
    pub(crate) fn metric(&self, name: &str, labels: &str) -> f64 {
        let (answer, body) = http(self.addr("admin"), "GET", "/metrics", "");
        assert_eq!(answer.status, 200);
        let text = String::from_utf8(body).unwrap();
        text.lines()
            .filter_map(|line| line.strip_prefix(name))
            .filter(|line| line.starts_with(['{', ' ']) && line.contains(labels))
            .map(|line| line.rsplit(' ').next().unwrap().parse::<f64>().unwrap())
            .sum()
    }

    /// How often something was refused for that reason.
    pub(crate) fn refused(&self, reason: &str) -> usize {
        let count = self.metric("uringcast_refused_total", &format!("reason=\"{reason}\""));
        format!("{count:.0}").parse().unwrap()
    }

    /// Waits until a metric is what `like` likes.
    pub(crate) fn wait_metric(&self, name: &str, labels: &str, like: impl Fn(f64) -> bool) -> f64 {
        let deadline = Instant::now() + SOON;
        loop {
            let value = self.metric(name, labels);
            if like(value) {
                return value;
            }
            assert!(Instant::now() < deadline, "{name} {labels} stays at {value}");
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// The server's memory, in bytes.
    pub(crate) fn memory(&self) -> u64 {
        self.guard.status("VmRSS:") << 10
    }

    /// Waits for the memory to settle: it is the same, to 1 MiB, at several looks in a row.
    pub(crate) fn settled_memory(&self) -> u64 {
        let (mut before, mut same) = (0, 0);
        until("the memory to settle", || {
            std::thread::sleep(Duration::from_millis(75));
            let now = self.memory();
            same = if now.abs_diff(before) < 1 << 20 { same + 1 } else { 0 };
            before = now;
            (same >= 5).then_some(now)
        })
    }
}

/// A push that goes on by itself, with a keyframe every fifth picture, until it is dropped.
pub(crate) struct Feed {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Feed {
    pub(crate) fn start(addr: SocketAddr, key: &str) -> Self {
        Self::of(Poster::opened(addr, key))
    }

    /// Goes on with what a push has begun.
    pub(crate) fn of(mut poster: Poster) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = std::thread::spawn(move || {
            for turn in 1.. {
                let time = turn * 40;
                let tags = [picture(turn % 5 == 0, time, 1_000), sound(time + 5)].concat();
                if stopped.load(Ordering::Relaxed) || !poster.send(&tags) {
                    break;
                }
                std::thread::sleep(Duration::from_millis(40));
            }
            poster.finish();
        });
        Self { stop, thread: Some(thread) }
    }
}

impl Drop for Feed {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        let joined = self.thread.take().map(JoinHandle::join);
        debug_assert!(std::thread::panicking() || joined.is_some_and(|end| end.is_ok()));
    }
}
