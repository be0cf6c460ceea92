//! The chunk stream (RTMP 1.0, clause 5.3): messages split into chunks and interleaved.
//!
//! The reader copies each payload byte once, into its message. A message's buffer grows with the bytes that
//! arrive; the announced length is only compared with a limit.

mod writer;

use bytes::Bytes;

use super::message::{Message, kind};

pub use writer::ChunkWriter;

/// The chunk size with which both sides begin (clause 5.4.1).
pub const CHUNK_SIZE_DEFAULT: u32 = 128;
/// The largest chunk size the field may hold: its first bit is zero (clause 5.4.1).
pub const CHUNK_SIZE_MAX: u32 = 0x7fff_ffff;
/// The 24-bit timestamp field has this value if the real one follows in 32 bits (clause 5.3.1.3).
const EXTENDED: u32 = 0xff_ffff;
/// The longest chunk header: 3 bytes basic, 11 message, 4 extended timestamp.
const HEADER_MAX: usize = 18;
/// The most bytes with which a message's buffer begins.
const FIRST_BUFFER: usize = 16 * 1024;

/// What was wrong with the peer's chunk stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ChunkError {
    /// A header without a length, although no earlier header gave one.
    #[error("chunk stream {csid}: type {format} header before any that gives a length")]
    NoPrecedingHeader {
        /// The chunk stream.
        csid: u32,
        /// The header type, 2 or 3.
        format: u8,
    },
    /// A message larger than the limit, by its header or by continuation.
    #[error("message of {announced} bytes, limit {limit}")]
    MessageTooLarge {
        /// Announced bytes.
        announced: u32,
        /// The limit in bytes.
        limit: u32,
    },
    /// More chunk streams than the limit.
    #[error("more than {limit} chunk streams")]
    TooManyStreams {
        /// The limit.
        limit: usize,
    },
    /// Unfinished messages take too many bytes together.
    #[error("{bytes} bytes of unfinished messages, limit {limit}")]
    UnfinishedTooLarge {
        /// Bytes that they would take.
        bytes: usize,
        /// The limit in bytes.
        limit: usize,
    },
    /// A chunk size of zero, or above [`CHUNK_SIZE_MAX`].
    #[error("chunk size {size}")]
    ChunkSize {
        /// The announced size.
        size: u32,
    },
    /// A Set Chunk Size or Abort message without its four bytes.
    #[error("control message {kind} of {len} bytes, 4 are needed")]
    ControlTooShort {
        /// The message type.
        kind: u8,
        /// Payload bytes.
        len: usize,
    },
}

/// Limits of what a peer may make the reader hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChunkLimits {
    /// Bytes of one message.
    pub message_max: u32,
    /// Chunk streams in use.
    pub streams_max: usize,
    /// Bytes of all unfinished messages together.
    pub unfinished_max: usize,
}

impl Default for ChunkLimits {
    fn default() -> Self {
        Self { message_max: 16 << 20, streams_max: 64, unfinished_max: 20 << 20 }
    }
}

/// The timestamp field of a chunk header.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Stamp {
    /// Absolute in type 0, else a delta; in milliseconds.
    value: u32,
    extended: bool,
}

/// One chunk header, with the fields that its type has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Header {
    csid: u32,
    format: u8,
    /// Types 0 to 2.
    stamp: Option<Stamp>,
    /// Types 0 and 1: message length and type.
    body: Option<(u32, u8)>,
    /// Type 0.
    stream_id: Option<u32>,
}

/// What is remembered of a chunk stream, and its unfinished message.
#[derive(Debug, Default)]
struct Stream {
    csid: u32,
    stamp: Stamp,
    timestamp: u32,
    /// None until a header of type 0 or 1 came.
    body: Option<(u32, u8)>,
    stream_id: u32,
    payload: Vec<u8>,
    /// A message has begun and is not complete.
    open: bool,
}

/// Reassembles messages.
#[derive(Debug)]
pub struct ChunkReader {
    limits: ChunkLimits,
    chunk_size: u32,
    streams: Vec<Stream>,
    /// The stream whose chunk is being read, and the number of bytes that the chunk lacks.
    current: Option<(usize, usize)>,
    /// The beginning of a header that came in pieces.
    stash: [u8; HEADER_MAX],
    stashed: usize,
    /// Bytes in all payloads.
    unfinished: usize,
}

impl ChunkReader {
    /// A reader for the start of a chunk stream, after the handshake.
    pub fn new(limits: ChunkLimits) -> Self {
        Self {
            limits,
            chunk_size: CHUNK_SIZE_DEFAULT,
            streams: Vec::new(),
            current: None,
            stash: [0; HEADER_MAX],
            stashed: 0,
            unfinished: 0,
        }
    }

    /// Bytes of messages that are not complete.
    pub fn unfinished(&self) -> usize {
        self.unfinished
    }

    /// Changes the limit on one message; it applies to chunks that begin from now on.
    pub fn set_message_max(&mut self, bytes: u32) {
        self.limits.message_max = bytes;
    }

    /// Whether no message is unfinished.
    pub fn is_at_boundary(&self) -> bool {
        self.stashed == 0 && self.current.is_none() && self.streams.iter().all(|stream| !stream.open)
    }

    /// Takes bytes from the start of `input` up to the end of the next message and returns that message.
    ///
    /// Set Chunk Size and Abort have already taken effect when they are returned; the caller may ignore them.
    /// `Ok(None)`: all of `input` was taken and no message is complete.
    ///
    /// # Errors
    /// [`ChunkError`]; the stream cannot be read any further then.
    pub fn next_message(&mut self, input: &mut &[u8]) -> Result<Option<Message>, ChunkError> {
        loop {
            let (index, mut missing) = match self.current {
                Some(current) => current,
                None => {
                    let Some(header) = self.read_header(input) else { return Ok(None) };
                    let (index, missing) = self.begin_chunk(header)?;
                    (index, missing - self.append_stashed(index, missing)?)
                }
            };
            let (front, rest) = input.split_at(missing.min(input.len()));
            *input = rest;
            self.append(index, front)?;
            missing -= front.len();
            self.current = (missing > 0).then_some((index, missing));
            if missing > 0 {
                return Ok(None);
            }
            if let Some(message) = self.finish(index) {
                self.obey(&message)?;
                return Ok(Some(message));
            }
        }
    }

    /// The next chunk's header, or None after storing all of `input`.
    fn read_header(&mut self, input: &mut &[u8]) -> Option<Header> {
        if self.stashed == 0
            && let Some((header, len)) = self.parse_header(input)
        {
            *input = &input[len..];
            return Some(header);
        }
        let before = self.stashed;
        let added = (HEADER_MAX - before).min(input.len());
        self.stash[before..before + added].copy_from_slice(&input[..added]);
        self.stashed += added;
        let Some((header, len)) = self.parse_header(&self.stash[..self.stashed]) else {
            assert!(added == input.len(), "the longest header fits the stash");
            *input = &[];
            return None;
        };
        // The stored bytes are fewer than the header has, or more if they were mistaken for the start of an
        // extended timestamp.
        *input = &input[len.saturating_sub(before)..];
        self.stash.copy_within(len.min(before)..before, 0);
        self.stashed = before.saturating_sub(len);
        Some(header)
    }

    /// Takes up to `missing` payload bytes out of the stash, where a mistaken header may have left some, and
    /// returns their number. The bytes that remain there begin the next chunk.
    fn append_stashed(&mut self, index: usize, missing: usize) -> Result<usize, ChunkError> {
        let taken = missing.min(self.stashed);
        if taken > 0 {
            let stash = self.stash;
            self.append(index, &stash[..taken])?;
            self.stash.copy_within(taken..self.stashed, 0);
            self.stashed -= taken;
        }
        Ok(taken)
    }

    /// Parses a basic header, message header and extended timestamp (clause 5.3.1): the header and its
    /// length, or None if it is not complete.
    fn parse_header(&self, bytes: &[u8]) -> Option<(Header, usize)> {
        let first = *bytes.first()?;
        let format = first >> 6;
        let (csid, mut at) = match first & 0x3f {
            0 => (u32::from(*bytes.get(1)?) + 64, 2),
            1 => (u32::from(u16::from_le_bytes([*bytes.get(1)?, *bytes.get(2)?])) + 64, 3),
            csid => (u32::from(csid), 1),
        };
        let mut header = Header { csid, format, stamp: None, body: None, stream_id: None };
        if format == 3 {
            let extra = self.repeated_stamp(csid, &bytes[at..])?;
            if let Some(value) = extra {
                header.stamp = Some(Stamp { value, extended: true });
                at += 4;
            }
            return Some((header, at));
        }
        let [t2, t1, t0] = *bytes[at..].first_chunk()?;
        at += 3;
        if format < 2 {
            let [l2, l1, l0, kind] = *bytes[at..].first_chunk()?;
            header.body = Some((u32::from_be_bytes([0, l2, l1, l0]), kind));
            at += 4;
        }
        if format == 0 {
            header.stream_id = Some(u32::from_le_bytes(*bytes[at..].first_chunk()?));
            at += 4;
        }
        let mut stamp = Stamp { value: u32::from_be_bytes([0, t2, t1, t0]), extended: false };
        if stamp.value == EXTENDED {
            stamp = Stamp { value: u32::from_be_bytes(*bytes[at..].first_chunk()?), extended: true };
            at += 4;
        }
        header.stamp = Some(stamp);
        Some((header, at))
    }

    /// The extended timestamp after a type 3 header, if there is one; the outer None asks for more bytes.
    ///
    /// At the start of a message it is always there. Between the chunks of a message old librtmp leaves it out,
    /// so there the bytes must be equal to the expected ones.
    fn repeated_stamp(&self, csid: u32, bytes: &[u8]) -> Option<Option<u32>> {
        let stream = self.streams.iter().find(|stream| stream.csid == csid);
        let Some(stream) = stream.filter(|stream| stream.stamp.extended) else { return Some(None) };
        let want = stream.stamp.value.to_be_bytes();
        let seen = &bytes[..bytes.len().min(4)];
        if stream.open && !want.starts_with(seen) {
            return Some(None);
        }
        bytes.first_chunk().map(|value| Some(u32::from_be_bytes(*value)))
    }

    /// Applies a header to its stream; returns the stream and the length of the chunk's payload.
    fn begin_chunk(&mut self, header: Header) -> Result<(usize, usize), ChunkError> {
        let index = self.stream(header.csid)?;
        let stream = &mut self.streams[index];
        // A header with fields in the middle of a message: the sender abandoned that message.
        if stream.open && header.format != 3 {
            self.unfinished -= stream.payload.len();
            stream.payload = Vec::new();
            stream.open = false;
        }
        if !stream.open {
            stream.begin_message(&header)?;
        }
        let Some((len, _)) = stream.body else { unreachable!("a message has begun") };
        if len > self.limits.message_max {
            return Err(ChunkError::MessageTooLarge { announced: len, limit: self.limits.message_max });
        }
        let missing = (len as usize).saturating_sub(stream.payload.len());
        Ok((index, missing.min(self.chunk_size as usize)))
    }

    fn stream(&mut self, csid: u32) -> Result<usize, ChunkError> {
        if let Some(index) = self.streams.iter().position(|stream| stream.csid == csid) {
            return Ok(index);
        }
        if self.streams.len() == self.limits.streams_max {
            return Err(ChunkError::TooManyStreams { limit: self.limits.streams_max });
        }
        self.streams.push(Stream { csid, ..Stream::default() });
        Ok(self.streams.len() - 1)
    }

    fn append(&mut self, index: usize, bytes: &[u8]) -> Result<(), ChunkError> {
        let (unfinished, limit) = (self.unfinished + bytes.len(), self.limits.unfinished_max);
        if unfinished > limit {
            return Err(ChunkError::UnfinishedTooLarge { bytes: unfinished, limit });
        }
        self.unfinished = unfinished;
        self.streams[index].append(bytes);
        Ok(())
    }

    /// The stream's message, if that was its last chunk.
    fn finish(&mut self, index: usize) -> Option<Message> {
        let stream = &mut self.streams[index];
        let (len, kind) = stream.body?;
        if stream.payload.len() < len as usize {
            return None;
        }
        stream.open = false;
        self.unfinished -= stream.payload.len();
        Some(Message {
            csid: stream.csid,
            kind,
            timestamp: stream.timestamp,
            stream_id: stream.stream_id,
            payload: Bytes::from(std::mem::take(&mut stream.payload)),
        })
    }

    /// Set Chunk Size (clause 5.4.1) and Abort (clause 5.4.2) act on the chunk stream itself.
    fn obey(&mut self, message: &Message) -> Result<(), ChunkError> {
        if !matches!(message.kind, kind::SET_CHUNK_SIZE | kind::ABORT) {
            return Ok(());
        }
        let Some(value) = message.payload.first_chunk() else {
            return Err(ChunkError::ControlTooShort { kind: message.kind, len: message.payload.len() });
        };
        let value = u32::from_be_bytes(*value);
        if message.kind == kind::SET_CHUNK_SIZE {
            if !(1..=CHUNK_SIZE_MAX).contains(&value) {
                return Err(ChunkError::ChunkSize { size: value });
            }
            self.chunk_size = value;
        } else if let Some(stream) = self.streams.iter_mut().find(|stream| stream.csid == value) {
            self.unfinished -= stream.payload.len();
            stream.payload = Vec::new();
            stream.open = false;
        }
        Ok(())
    }
}

impl Stream {
    /// Timestamps are absolute in type 0 and relative to the previous message in all others; type 3 repeats the
    /// field of the header before it, even if that was a type 0 (clause 5.3.1.2.4).
    fn begin_message(&mut self, header: &Header) -> Result<(), ChunkError> {
        self.stamp = header.stamp.unwrap_or(self.stamp);
        self.body = header.body.or(self.body);
        self.stream_id = header.stream_id.unwrap_or(self.stream_id);
        if self.body.is_none() {
            return Err(ChunkError::NoPrecedingHeader { csid: self.csid, format: header.format });
        }
        let base = if header.format == 0 { 0 } else { self.timestamp };
        self.timestamp = base.wrapping_add(self.stamp.value);
        self.open = true;
        Ok(())
    }

    /// Grows by doubling up to the announced length, so that a complete message fills its buffer.
    fn append(&mut self, bytes: &[u8]) {
        let (have, need) = (self.payload.capacity(), self.payload.len() + bytes.len());
        if need > have {
            let announced = self.body.map_or(0, |(len, _)| len as usize);
            let wanted = need.max(have * 2).max(FIRST_BUFFER).min(announced.max(need));
            self.payload.reserve_exact(wanted - self.payload.len());
        }
        self.payload.extend_from_slice(bytes);
    }
}

#[cfg(test)]
mod tests;
