//! An FLV stream that a publisher sends in the body of a POST or in the binary messages of a WebSocket.
//!
//! Removes the transport's framing and returns tags. The caller decides who may publish what, and when the peer
//! is told so. The meaning of the tags is not examined.

use bytes::Bytes;

use super::http::{BodyLength, ChunkError, ChunkedReader};
use super::ws::{self, FrameReader, WsError};
use crate::media::flv::{FlvError, FlvItem, FlvReader};
use crate::media::tag::Tag;

/// The first three bytes of an EBML header (RFC 8794, 11.2.1), which begins every WebM and Matroska file.
const EBML: [u8; 3] = [0x1a, 0x45, 0xdf];
/// The first three bytes of an MP4: the size of its `ftyp` box.
const MP4: [u8; 3] = [0, 0, 0];
/// The most bytes of pongs that wait for a peer that does not read them; further pings are not answered.
const OUT_MAX: usize = 16 << 10;

/// What was wrong with a peer's push. A close frame holds 123 bytes of text, so these messages are short.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PushError {
    /// WebM or Matroska: what a browser's `MediaRecorder` makes.
    #[error(
        "this is WebM, and FLV is needed: MediaRecorder cannot make it, use /push.html, OBS or ffmpeg -f flv"
    )]
    WebM,
    /// MP4.
    #[error("this is MP4, and FLV is needed: uringcast push sends MP4 files, or ffmpeg -f flv")]
    Mp4,
    /// Anything else that is not FLV.
    #[error(transparent)]
    Flv(#[from] FlvError),
    /// The push ended before it was known to be FLV.
    #[error("it ended before a whole FLV header came")]
    Empty,
    /// The body breaks the chunked coding.
    #[error(transparent)]
    Chunk(#[from] ChunkError),
    /// The peer breaks the WebSocket protocol.
    #[error(transparent)]
    WebSocket(#[from] WsError),
    /// A text message.
    #[error("this is a text message, and FLV must be sent in binary messages")]
    Text,
}

impl PushError {
    /// The HTTP status of the response: 415 for another format, 400 for a protocol error.
    pub fn status(&self) -> u16 {
        match self {
            Self::WebM | Self::Mp4 | Self::Flv(FlvError::Signature { .. } | FlvError::Version { .. }) => 415,
            Self::Flv(FlvError::BodyTooLarge { .. }) => 413,
            _ => 400,
        }
    }

    /// The code of the close frame.
    pub fn close_code(&self) -> u16 {
        match self {
            Self::WebSocket(error) => error.close_code(),
            Self::Flv(FlvError::BodyTooLarge { .. }) => ws::code::TOO_BIG,
            Self::Flv(FlvError::DataOffset { .. }) => ws::code::POLICY,
            _ => ws::code::UNSUPPORTED,
        }
    }

    fn of_flv(error: FlvError) -> Self {
        match error {
            FlvError::Signature { found: EBML } => Self::WebM,
            FlvError::Signature { found: MP4 } => Self::Mp4,
            other => Self::Flv(other),
        }
    }
}

/// The framing around the FLV bytes.
#[derive(Debug)]
enum Transport {
    /// This many bytes are still to come.
    Length(u64),
    Chunked(ChunkedReader),
    WebSocket(Box<FrameReader>),
}

/// An event of a push.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PushEvent {
    /// The stream is FLV: its header has come. Given once, before all tags.
    Begin,
    /// A tag.
    Tag(Tag),
    /// The body has ended, or the peer has sent its close frame.
    End,
}

/// Reads a pushed FLV stream, however its bytes are split.
#[derive(Debug)]
pub struct FlvPush {
    transport: Transport,
    flv: FlvReader,
    begun: bool,
    /// The transport has ended.
    over: bool,
    /// The end was reported.
    ended: bool,
    /// Frames for the peer.
    out: Vec<u8>,
}

impl FlvPush {
    /// The body of a POST with tags of at most `tag_max` bytes; `None` if it has no body.
    pub fn http(body: BodyLength, tag_max: u32) -> Option<Self> {
        match body {
            BodyLength::None | BodyLength::Length(0) => None,
            BodyLength::Length(left) => Some(Self::new(Transport::Length(left), tag_max)),
            BodyLength::Chunked => Some(Self::new(Transport::Chunked(ChunkedReader::new()), tag_max)),
        }
    }

    /// The messages of a WebSocket after its upgrade; a message may contain any part of the stream.
    pub fn websocket(tag_max: u32) -> Self {
        Self::new(Transport::WebSocket(Box::new(FrameReader::new(u64::MAX))), tag_max)
    }

    fn new(transport: Transport, tag_max: u32) -> Self {
        let flv = FlvReader::new(tag_max);
        Self { transport, flv, begun: false, over: false, ended: false, out: Vec::new() }
    }

    /// Whether the transport is a WebSocket.
    pub fn is_websocket(&self) -> bool {
        matches!(self.transport, Transport::WebSocket(_))
    }

    /// Bytes that were taken and have not become events yet.
    pub fn held(&self) -> usize {
        self.flv.held()
    }

    /// Takes all bytes from the peer; bytes after the end are dropped.
    ///
    /// # Errors
    /// [`PushError`] of the transport; events before it can still be polled. The push is over then.
    pub fn push(&mut self, bytes: &[u8]) -> Result<(), PushError> {
        if self.over || bytes.is_empty() {
            return Ok(());
        }
        let flv = &mut self.flv;
        match &mut self.transport {
            Transport::Length(left) => {
                let take = usize::try_from(*left).map_or(bytes.len(), |left| left.min(bytes.len()));
                flv.push(&bytes[..take]);
                *left -= take as u64;
                self.over = *left == 0;
            }
            Transport::Chunked(reader) => {
                self.over = reader.push(bytes, &mut |piece| flv.push(piece))?.finished;
            }
            Transport::WebSocket(frames) => {
                let (mut text, mut pong, out) = (false, None, &mut self.out);
                let result = frames.push(bytes, &mut |event| match event {
                    ws::Event::Data { text: false, bytes, .. } => flv.push(bytes),
                    ws::Event::Data { text: true, .. } => text = true,
                    // Of several pings the newest is answered (RFC 6455, 5.5.3).
                    ws::Event::Ping(payload) => pong = Some(ws::pong_frame(payload)),
                    ws::Event::Pong(_) | ws::Event::Close { .. } => {}
                });
                self.over = result.is_ok() && frames.is_closed();
                if let Some(pong) = pong.filter(|_| out.len() < OUT_MAX) {
                    out.extend(pong);
                }
                result?;
                if text {
                    return Err(PushError::Text);
                }
            }
        }
        Ok(())
    }

    /// The next event; poll until there is none after each push.
    ///
    /// # Errors
    /// [`PushError`] if the stream is not FLV; the push is over then.
    pub fn next_event(&mut self) -> Result<Option<PushEvent>, PushError> {
        while let Some(item) = self.flv.next_item().map_err(PushError::of_flv)? {
            match item {
                FlvItem::Tag(tag) => return Ok(Some(PushEvent::Tag(tag))),
                // A second header in the middle changes nothing: timestamps and tags continue.
                FlvItem::Header(_) if self.begun => {}
                FlvItem::Header(_) => {
                    self.begun = true;
                    return Ok(Some(PushEvent::Begin));
                }
            }
        }
        if !self.over || self.ended {
            return Ok(None);
        }
        self.ended = true;
        if self.begun { Ok(Some(PushEvent::End)) } else { Err(PushError::Empty) }
    }

    /// Bytes to send to the peer, if any.
    pub fn take_output(&mut self) -> Option<Bytes> {
        if self.out.is_empty() { None } else { Some(std::mem::take(&mut self.out).into()) }
    }
}

#[cfg(test)]
#[path = "push_tests.rs"]
mod tests;
