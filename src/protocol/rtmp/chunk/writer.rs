//! Splits messages into chunks.

use super::super::message::Message;
use super::{CHUNK_SIZE_DEFAULT, CHUNK_SIZE_MAX, EXTENDED, HEADER_MAX};

/// Splits messages into chunks. Every message begins with a type 0 header, so that reading it never depends on
/// earlier messages.
#[derive(Clone, Debug)]
pub struct ChunkWriter {
    chunk_size: u32,
}

impl Default for ChunkWriter {
    fn default() -> Self {
        Self { chunk_size: CHUNK_SIZE_DEFAULT }
    }
}

impl ChunkWriter {
    /// Writes chunks of `bytes` from now on. The peer must have been sent a Set Chunk Size before.
    pub fn set_chunk_size(&mut self, bytes: u32) {
        assert!((1..=CHUNK_SIZE_MAX).contains(&bytes), "a chunk size of {bytes}");
        self.chunk_size = bytes;
    }

    /// Appends the chunks of one message. The payload is bounded by its 24-bit length field, the chunk
    /// stream by the 3-byte form of the basic header.
    pub fn write(&self, message: &Message, out: &mut Vec<u8>) {
        let extended = message.timestamp >= EXTENDED;
        let mut format = 0;
        let mut payload = &message.payload[..];
        out.reserve(HEADER_MAX + payload.len() + 8 * (payload.len() / self.chunk_size as usize));
        loop {
            put_basic_header(format, message.csid, out);
            if format == 0 {
                put_message_header(message, out);
            }
            if extended {
                out.extend_from_slice(&message.timestamp.to_be_bytes());
            }
            let (front, rest) = payload.split_at(payload.len().min(self.chunk_size as usize));
            out.extend_from_slice(front);
            if rest.is_empty() {
                return;
            }
            (payload, format) = (rest, 3);
        }
    }
}

/// Clause 5.3.1.1.
fn put_basic_header(format: u8, csid: u32, out: &mut Vec<u8>) {
    assert!((2..=65_599).contains(&csid), "chunk stream {csid}");
    match (u8::try_from(csid), csid.checked_sub(64).map(u16::try_from)) {
        (Ok(csid @ 2..64), _) => out.push(format << 6 | csid),
        (_, Some(Ok(rest))) => match u8::try_from(rest) {
            Ok(rest) => out.extend_from_slice(&[format << 6, rest]),
            Err(_) => {
                out.push(format << 6 | 1);
                out.extend_from_slice(&rest.to_le_bytes());
            }
        },
        _ => unreachable!("asserted"),
    }
}

/// Clause 5.3.1.2.1, without the extended timestamp.
fn put_message_header(message: &Message, out: &mut Vec<u8>) {
    let Ok(len @ 0..=0xff_ffff) = u32::try_from(message.payload.len()) else {
        panic!("a message of {} bytes: our own payloads are bounded", message.payload.len());
    };
    out.extend_from_slice(&message.timestamp.min(EXTENDED).to_be_bytes()[1..]);
    out.extend_from_slice(&len.to_be_bytes()[1..]);
    out.push(message.kind);
    out.extend_from_slice(&message.stream_id.to_le_bytes());
}
