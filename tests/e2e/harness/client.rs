//! A small HTTP and WebSocket client that hides nothing: status, headers, body bytes as they come.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

const HEAD_MAX: usize = 64 << 10;
/// The sample key of RFC 6455 1.3 and the answer that belongs to it.
const WS_KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";
const WS_ACCEPT: &str = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";

/// The two ways to play.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Flavor {
    Http,
    Ws,
}

#[derive(Clone, Copy, Debug)]
enum Framing {
    UntilClose,
    Length(usize),
    Chunked,
    Ws,
}

/// An answer whose body is still coming.
pub(crate) struct Response {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) socket: TcpStream,
    framing: Framing,
    raw: Vec<u8>,
    /// Bytes of the current chunk that are still to come, its closing CRLF included.
    chunk_left: usize,
}

/// A whole request and its whole answer.
pub(crate) fn http(addr: SocketAddr, method: &str, path: &str, headers: &str) -> (Response, Vec<u8>) {
    let head = format!("{method} {path} HTTP/1.1\r\nHost: {addr}\r\nConnection: close\r\n{headers}\r\n");
    let mut answer = Response::to(addr, &head).unwrap();
    if method == "HEAD" {
        answer.framing = Framing::Length(0);
    }
    let mut body = Vec::new();
    while answer.read(&mut body).unwrap() {}
    (answer, body)
}

impl Response {
    /// Asks for `path` as a player does.
    pub(crate) fn play(addr: SocketAddr, path: &str, flavor: Flavor) -> Result<Self, String> {
        let upgrade = match flavor {
            Flavor::Http => String::new(),
            Flavor::Ws => format!(
                "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
                 Sec-WebSocket-Key: {WS_KEY}\r\n"
            ),
        };
        let answer = Self::to(addr, &format!("GET {path} HTTP/1.1\r\nHost: {addr}\r\n{upgrade}\r\n"))?;
        if flavor == Flavor::Ws && answer.header("sec-websocket-accept") != Some(WS_ACCEPT) {
            return Err(format!("no WebSocket: {} {:?}", answer.status, answer.headers));
        }
        Ok(answer)
    }

    /// Sends `head` and reads the answer's head.
    pub(crate) fn to(addr: SocketAddr, head: &str) -> Result<Self, String> {
        let mut socket = TcpStream::connect(addr).map_err(|error| error.to_string())?;
        socket.set_read_timeout(Some(Duration::from_secs(60))).map_err(|error| error.to_string())?;
        socket.write_all(head.as_bytes()).map_err(|error| error.to_string())?;
        let mut raw = Vec::new();
        let end = loop {
            if let Some(at) = raw.windows(4).position(|part| part == b"\r\n\r\n") {
                break at;
            }
            if raw.len() > HEAD_MAX || !receive(&mut socket, &mut raw)? {
                return Err(format!("no answer's head in {:?}", String::from_utf8_lossy(&raw)));
            }
        };
        let text = String::from_utf8_lossy(&raw[..end]).into_owned();
        let body = raw.split_off(end + 4);
        let mut lines = text.split("\r\n");
        let status = lines.next().and_then(|line| line.split(' ').nth(1)?.parse().ok()).ok_or("no status")?;
        let headers = lines
            .filter_map(|line| line.split_once(':'))
            .map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned()))
            .collect();
        let mut answer =
            Self { status, headers, socket, framing: Framing::UntilClose, raw: body, chunk_left: 0 };
        answer.framing = answer.find_framing();
        Ok(answer)
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    fn find_framing(&self) -> Framing {
        if self.status == 101 {
            Framing::Ws
        } else if self.header("transfer-encoding").is_some_and(|value| value.eq_ignore_ascii_case("chunked"))
        {
            Framing::Chunked
        } else if [204, 304].contains(&self.status) {
            Framing::Length(0)
        } else {
            let length = self.header("content-length").and_then(|value| value.parse().ok());
            length.map_or(Framing::UntilClose, Framing::Length)
        }
    }

    /// Appends what comes next of the body to `out`; false: the body is over.
    ///
    /// # Errors
    /// The framing is wrong, the connection broke in the middle of it, or nothing came for a minute.
    pub(crate) fn read(&mut self, out: &mut Vec<u8>) -> Result<bool, String> {
        loop {
            let (before, taken) = (out.len(), self.raw.len());
            if !self.unframe(out)? {
                return Ok(false);
            }
            if out.len() > before {
                return Ok(true);
            }
            if self.raw.len() == taken && !receive(&mut self.socket, &mut self.raw)? {
                return match self.framing {
                    Framing::UntilClose => Ok(false),
                    _ => Err(format!("the connection ended inside its framing ({:?})", self.framing)),
                };
            }
        }
    }

    /// Moves body bytes from what was received to `out`; false at the body's end.
    fn unframe(&mut self, out: &mut Vec<u8>) -> Result<bool, String> {
        match self.framing {
            Framing::UntilClose => out.append(&mut self.raw),
            Framing::Length(0) => return Ok(false),
            Framing::Length(left) => {
                let take = left.min(self.raw.len());
                out.extend(self.raw.drain(..take));
                self.framing = Framing::Length(left - take);
            }
            Framing::Chunked => return self.unchunk(out),
            Framing::Ws => return self.unframe_ws(out),
        }
        Ok(true)
    }

    fn unchunk(&mut self, out: &mut Vec<u8>) -> Result<bool, String> {
        if self.chunk_left == 0 {
            let Some(at) = self.raw.windows(2).position(|part| part == b"\r\n") else { return Ok(true) };
            let line: Vec<u8> = self.raw.drain(..at + 2).take(at).collect();
            let text = String::from_utf8_lossy(&line);
            let size = usize::from_str_radix(&text, 16).map_err(|_| format!("chunk size {text:?}"))?;
            if size == 0 {
                return Ok(false);
            }
            self.chunk_left = size + 2;
        }
        let data = self.chunk_left.saturating_sub(2).min(self.raw.len());
        out.extend(self.raw.drain(..data));
        self.chunk_left -= data;
        if self.chunk_left == 2 && self.raw.len() >= 2 {
            let end: Vec<u8> = self.raw.drain(..2).collect();
            self.chunk_left = 0;
            if end != b"\r\n" {
                return Err(format!("a chunk ends with {end:02x?}"));
            }
        }
        Ok(true)
    }

    /// Takes one frame (RFC 6455 5.2); pings are answered, a close ends the body.
    fn unframe_ws(&mut self, out: &mut Vec<u8>) -> Result<bool, String> {
        let Some(&[first, second]) = self.raw.first_chunk() else { return Ok(true) };
        if first & 0x70 != 0 || second & 0x80 != 0 {
            return Err(format!("a server's frame begins with {first:02x} {second:02x}"));
        }
        let extended = match second {
            126 => 2,
            127 => 8,
            _ => 0,
        };
        let Some(field) = self.raw.get(2..2 + extended) else { return Ok(true) };
        let announced = field.iter().fold(0, |sum, byte| sum << 8 | usize::from(*byte));
        let len = if extended == 0 { usize::from(second) } else { announced };
        let start = 2 + extended;
        if self.raw.len() < start + len {
            return Ok(true);
        }
        let payload: Vec<u8> = self.raw.drain(..start + len).skip(start).collect();
        match first & 0x0f {
            0 | 2 => out.extend(payload),
            8 => return Ok(false),
            9 => {
                let mut pong = vec![0x8a, 0x80 | u8::try_from(len).map_err(|_| "a long ping")?, 0, 0, 0, 0];
                pong.extend(payload);
                self.socket.write_all(&pong).map_err(|error| error.to_string())?;
            }
            10 => {}
            opcode => return Err(format!("a frame with opcode {opcode}")),
        }
        Ok(true)
    }
}

/// One read; false: the peer has closed.
fn receive(socket: &mut TcpStream, into: &mut Vec<u8>) -> Result<bool, String> {
    let mut part = [0; 16 << 10];
    match socket.read(&mut part) {
        Ok(len) => {
            into.extend_from_slice(&part[..len]);
            Ok(len > 0)
        }
        Err(error) => Err(format!("receive: {error}")),
    }
}
