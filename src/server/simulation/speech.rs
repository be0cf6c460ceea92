//! The protocol of a scripted publisher: RTMP, a POST in chunks, or a WebSocket whose messages are cut
//! anywhere.

use bytes::Bytes;

use super::rng::Rng;
use crate::media::flv::FileHeader;
use crate::media::tag::{TAG_TRAILER, Tag};
use crate::protocol::rtmp::client::PublishSession;
use crate::protocol::ws;

/// One end of a publishing connection.
#[derive(Debug)]
pub(super) enum Speech {
    Rtmp(Box<PublishSession>),
    Flv(Flv),
}

#[derive(Debug)]
pub(super) struct Flv {
    websocket: bool,
    /// What the server has sent so far.
    heard: Vec<u8>,
    out: Vec<u8>,
    begun: bool,
}

impl Speech {
    /// Starts to speak to an RTMP or an HTTP listener; the first output is ready.
    pub(super) fn new(rtmp: bool, key: &str, rng: &mut Rng) -> Self {
        if rtmp {
            return Self::Rtmp(Box::new(PublishSession::new("live", "rtmp://sim/live", key)));
        }
        let websocket = rng.chance(500);
        let head = if websocket {
            format!(
                "GET /live/{key} HTTP/1.1\r\nHost: sim\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
                 Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
            )
        } else {
            format!(
                "POST /live/{key} HTTP/1.1\r\nHost: sim\r\nTransfer-Encoding: chunked\r\nExpect: 100-continue\r\n\r\n"
            )
        };
        Self::Flv(Flv { websocket, heard: Vec::new(), out: head.into_bytes(), begun: false })
    }

    /// Takes bytes from the server; an error is a refusal.
    pub(super) fn input(&mut self, bytes: &[u8]) -> Result<(), ()> {
        match self {
            Self::Rtmp(session) => session.input(bytes).map_err(|_| ()),
            Self::Flv(flv) => {
                flv.heard.extend_from_slice(bytes);
                let has = |part: &[u8]| flv.heard.windows(part.len()).any(|window| window == part);
                // After its upgrade a WebSocket is refused by a close frame with a policy's code.
                if has(b"HTTP/1.1 4") || has(b"HTTP/1.1 5") || has(b"\x03\xf0") { Err(()) } else { Ok(()) }
            }
        }
    }

    pub(super) fn take_output(&mut self) -> Option<Bytes> {
        match self {
            Self::Rtmp(session) => session.take_output(),
            Self::Flv(flv) if flv.out.is_empty() => None,
            Self::Flv(flv) => Some(std::mem::take(&mut flv.out).into()),
        }
    }

    pub(super) fn is_publishing(&self) -> bool {
        match self {
            Self::Rtmp(session) => session.is_publishing(),
            Self::Flv(flv) => flv.heard.starts_with(b"HTTP/1.1 10") && flv.heard.ends_with(b"\r\n\r\n"),
        }
    }

    /// Writes a tag. After the last byte of its body [`tail`](Self::tail) bytes follow.
    pub(super) fn write_tag(&mut self, tag: &Tag, rng: &mut Rng) {
        let flv = match self {
            Self::Rtmp(session) => return session.write_tag(tag),
            Self::Flv(flv) => flv,
        };
        if !std::mem::replace(&mut flv.begun, true) {
            flv.write(&FileHeader { audio: true, video: true }.encode());
        }
        let mut bytes = Vec::new();
        tag.write_to(&mut bytes);
        let cut = if rng.chance(300) { rng.size(0, bytes.len() - TAG_TRAILER - 1) } else { 0 };
        let (front, back) = bytes.split_at(cut);
        flv.write(front);
        flv.write(back);
    }

    /// Bytes after the last byte of a tag's body, which the server does not need.
    pub(super) fn tail(&self) -> usize {
        match self {
            Self::Rtmp(_) => 0,
            Self::Flv(flv) if flv.websocket => TAG_TRAILER,
            Self::Flv(_) => TAG_TRAILER + 2,
        }
    }

    pub(super) fn unpublish(&mut self) {
        match self {
            Self::Rtmp(session) => session.unpublish(),
            Self::Flv(flv) if flv.websocket => {
                ws::client_frame(ws::Opcode::Close, &[3, 0xe8], [1, 2, 3, 4], &mut flv.out);
            }
            Self::Flv(flv) => flv.out.extend_from_slice(b"0\r\n\r\n"),
        }
    }
}

impl Flv {
    fn write(&mut self, bytes: &[u8]) {
        if bytes.is_empty() {
            return;
        }
        if self.websocket {
            ws::client_frame(ws::Opcode::Binary, bytes, [0x5a, 2, 0xff, 4], &mut self.out);
            return;
        }
        self.out.extend(format!("{:x}\r\n", bytes.len()).into_bytes());
        self.out.extend_from_slice(bytes);
        self.out.extend_from_slice(b"\r\n");
    }
}
