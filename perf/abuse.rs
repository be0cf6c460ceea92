//! Abusive clients, for `perf/abuse.sh`: runs one case against a server's port for streams, prints the outcome
//! in one line, and exits.
//!
//!     abuse CASE ADDRESS

#![allow(clippy::print_stdout, reason = "its output is the result")]

use std::error::Error;
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use socket2::{Domain, Socket, Type};

type Result<T> = std::result::Result<T, Box<dyn Error>>;

const MIB: usize = 1 << 20;
const FILE_HEADER: &[u8] = b"FLV\x01\x05\0\0\0\x09\0\0\0\0";
const AVCC: &[u8] =
    b"\x01\x64\x00\x1f\xff\xe1\x00\x1a\x67\x64\x00\x1f\xac\xd9\x40\x50\x05\xbb\x01\x10\x00\x00\x03\
    \x00\x10\x00\x00\x03\x03\x20\xf1\x83\x19\x60\x01\x00\x06\x68\xeb\xe3\xcb\x22\xc0";
/// How long the server has to react.
const SETTLE: Duration = Duration::from_secs(3);

fn main() -> Result<()> {
    let [_, case, address] = &std::env::args().collect::<Vec<_>>()[..] else {
        return Err("usage: abuse CASE ADDRESS".into());
    };
    let addr: SocketAddr = address.parse()?;
    let outcome = match case.as_str() {
        "pages" => pages(addr)?,
        "headers" => headers(addr, MIB - 4096)?,
        "large-headers" => headers(addr, 5_000_000)?,
        "publishers" => publishers(addr)?,
        "halves" => halves(addr)?,
        "deaf" => deaf(addr)?,
        "silent" => silent(addr)?,
        _ => return Err(format!("no case {case}").into()),
    };
    println!("{outcome}");
    Ok(())
}

fn u24(value: usize) -> [u8; 3] {
    let [.., a, b, c] = value.to_be_bytes();
    [a, b, c]
}

fn tag(kind: u8, time: usize, body: &[u8]) -> Vec<u8> {
    let [.., high, a, b, c] = time.to_be_bytes();
    let [.., p, q, r, s] = (body.len() + 11).to_be_bytes();
    [&[kind], &u24(body.len())[..], &[a, b, c, high, 0, 0, 0], body, &[p, q, r, s]].concat()
}

fn picture(time: usize, key: bool, len: usize) -> Vec<u8> {
    let [.., a, b, c, d] = len.to_be_bytes();
    let (first, slice) = if key { (0x17, 0x65) } else { (0x27, 0x41) };
    tag(9, time, &[&[first, 1, 0, 0, 0, a, b, c, d, slice][..], &vec![b'k'; len - 1]].concat())
}

/// Metadata and both sequence headers, each with `pad` bytes of padding, and a first picture.
fn opening(pad: usize) -> Vec<u8> {
    let [.., a, b, c, d] = pad.to_be_bytes();
    let name = b"\x02\0\x0aonMetaData\x08\0\0\0\x01\0\x03pad\x0c";
    let metadata = [&name[..], &[a, b, c, d], &vec![b'x'; pad], b"\0\0\x09"].concat();
    let video = [b"\x17\0\0\0\0", AVCC, &vec![0; pad]].concat();
    let audio = [&b"\xaf\0\x12\x10"[..], &vec![0; pad]].concat();
    [FILE_HEADER, &tag(18, 0, &metadata), &tag(9, 0, &video), &tag(8, 0, &audio), &picture(0, true, 2_000)]
        .concat()
}

/// Media of `bytes` bytes at 25 pictures a second.
fn media(bytes: usize) -> Vec<u8> {
    const PICTURE: usize = 64 << 10;
    (1..=bytes / PICTURE).flat_map(|turn| picture(turn * 40, turn % 25 == 0, PICTURE)).collect()
}

/// A connection with a small receive buffer, so that unread bytes stay with the server.
fn connect(addr: SocketAddr) -> Result<TcpStream> {
    let socket = Socket::new(Domain::for_address(addr), Type::STREAM, None)?;
    socket.set_recv_buffer_size(4096)?;
    socket.connect(&addr.into())?;
    let socket: TcpStream = socket.into();
    socket.set_write_timeout(Some(Duration::from_secs(10)))?;
    Ok(socket)
}

/// A push with a chunked body.
struct Push(TcpStream);

impl Push {
    fn start(addr: SocketAddr, name: &str) -> Result<Self> {
        let mut socket = connect(addr)?;
        write!(
            socket,
            "POST /live/{name} HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n"
        )?;
        Ok(Self(socket))
    }

    /// Whether the server still takes it.
    fn send(&mut self, bytes: &[u8]) -> bool {
        let chunk = [format!("{:x}\r\n", bytes.len()).as_bytes(), bytes, b"\r\n"].concat();
        self.0.write_all(&chunk).is_ok()
    }

    /// Whether the server has not answered yet, as it does when a push is over.
    fn goes_on(&mut self) -> bool {
        let asked = self.0.set_nonblocking(true).is_ok();
        asked && matches!(self.0.read(&mut [0; 512]), Err(error) if error.kind() == ErrorKind::WouldBlock)
    }
}

fn watch(addr: SocketAddr, count: usize, name: &str) -> Result<Vec<TcpStream>> {
    (0..count)
        .map(|_| {
            let mut socket = connect(addr)?;
            write!(socket, "GET /live/{name}.flv HTTP/1.1\r\nHost: x\r\n\r\n")?;
            Ok(socket)
        })
        .collect()
}

fn pages(addr: SocketAddr) -> Result<String> {
    let page = "GET /vendor/aac-encoder.js HTTP/1.1\r\nHost: x\r\n\r\n".repeat(4);
    let mut held = Vec::new();
    for _ in 0..200 {
        let mut socket = connect(addr)?;
        socket.write_all(page.as_bytes())?;
        held.push(socket);
    }
    std::thread::sleep(SETTLE);
    Ok("200 clients pipeline four pages each and read nothing".to_owned())
}

fn headers(addr: SocketAddr, pad: usize) -> Result<String> {
    let mut push = Push::start(addr, "big")?;
    push.send(&opening(pad));
    for turn in 1..20 {
        push.send(&picture(turn * 40, false, 500));
    }
    let taken = push.goes_on();
    push.0.set_nonblocking(false)?;
    let viewers = watch(addr, 60, "big")?;
    for turn in 20..60 {
        push.send(&picture(turn * 40, false, 500));
        std::thread::sleep(SETTLE / 40);
    }
    let taken = if taken && push.goes_on() { "taken" } else { "refused" };
    Ok(format!("three headers of {pad} bytes ({taken}), {} viewers that read nothing", viewers.len()))
}

fn publishers(addr: SocketAddr) -> Result<String> {
    let (opening, media) = (opening(0), media(31 * MIB));
    let mut pushes = Vec::new();
    for turn in 0..60 {
        let mut push = Push::start(addr, &format!("p{turn}"))?;
        let _ = push.send(&opening) && push.send(&media);
        pushes.push(push);
    }
    std::thread::sleep(SETTLE);
    let taken = pushes.iter_mut().filter_map(|push| push.goes_on().then_some(())).count();
    Ok(format!("60 publishers with 31 MiB each, {taken} taken"))
}

fn halves(addr: SocketAddr) -> Result<String> {
    let (opening, half) = (opening(0), &picture(40, true, 16 * MIB - 1000)[..12 * MIB]);
    let mut pushes = Vec::new();
    for turn in 0..60 {
        let mut push = Push::start(addr, &format!("h{turn}"))?;
        let _ = push.send(&opening) && push.send(half);
        pushes.push(push);
    }
    std::thread::sleep(SETTLE);
    let taken = pushes.iter_mut().filter_map(|push| push.goes_on().then_some(())).count();
    Ok(format!("60 publishers stop 12 MiB into a tag, {taken} taken"))
}

fn deaf(addr: SocketAddr) -> Result<String> {
    let mut push = Push::start(addr, "rich")?;
    push.send(&opening(0));
    let viewers = watch(addr, 1_000, "rich")?;
    for turn in 1..200 {
        push.send(&picture(turn * 40, turn % 25 == 0, 20_000));
        std::thread::sleep(Duration::from_millis(40));
    }
    Ok(format!("{} viewers of 4 Mbps that read nothing for 8 s", viewers.len()))
}

fn silent(addr: SocketAddr) -> Result<String> {
    let held = (0..5_000).map(|_| connect(addr)).collect::<Result<Vec<_>>>()?;
    std::thread::sleep(SETTLE);
    Ok(format!("{} connections that say nothing", held.len()))
}
