//! How tags are stored in a log: as FLV tags, or as the chunks of RTMP messages.
//!
//! Both contain the same tags in the same order, whole and one after the other, so that a viewer is an offset
//! in contiguous bytes either way. RTMP (1.0, clause 5.3) is written with a type 0 header before every message,
//! in chunks of [`RTMP_CHUNK`] bytes, on message stream [`RTMP_STREAM`]; an extended timestamp is repeated on
//! type 3 headers. No message depends on an earlier one, so a viewer may start at any tag.

use super::tag::{TAG_HEADER, TAG_TRAILER, Tag, TagKind};

/// The chunk size that must be announced to a player; nginx and old servers refuse 65,536 and more.
pub const RTMP_CHUNK: usize = 60_000;
/// The message stream that a player must play on.
pub const RTMP_STREAM: u32 = 1;

/// Basic header and type 0 message header.
const RTMP_HEADER: usize = 12;
/// The 24-bit timestamp field has this value if the real one follows in 32 bits (clause 5.3.1.3).
const EXTENDED: u32 = 0xff_ffff;

/// How tags are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Encoding {
    /// FLV tags (FLV 10.1, E.4.1), each with its `PreviousTagSize`.
    #[default]
    Flv,
    /// RTMP chunks.
    Rtmp,
}

/// The header fields of an encoded tag.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stored {
    /// What it carries.
    pub kind: TagKind,
    /// Its timestamp.
    pub timestamp: u32,
    /// Length of the whole encoded tag in bytes.
    pub len: usize,
}

impl Encoding {
    /// Both.
    pub const EVERY: [Self; 2] = [Self::Flv, Self::Rtmp];

    /// Length of an encoded tag in bytes.
    pub fn len(self, tag: &Tag) -> usize {
        match self {
            Self::Flv => tag.encoded_len(),
            Self::Rtmp => rtmp_len(tag.timestamp, tag.body.len()),
        }
    }

    /// Writes a tag, piece by piece.
    pub fn write(self, tag: &Tag, mut out: impl FnMut(&[u8])) {
        match self {
            Self::Flv => {
                out(&tag.header());
                out(&tag.body);
                out(&tag.trailer());
            }
            Self::Rtmp => write_rtmp(tag, out),
        }
    }

    /// Reads the header of a tag that [`write`](Self::write) wrote; `None` if there is none.
    pub fn read(self, bytes: &[u8]) -> Option<Stored> {
        match self {
            Self::Flv => {
                let &[kind, s2, s1, s0, t2, t1, t0, t3, ..] = bytes.first_chunk::<TAG_HEADER>()?;
                let body = u32::from_be_bytes([0, s2, s1, s0]) as usize;
                let timestamp = u32::from_be_bytes([t3, t2, t1, t0]);
                let kind = TagKind::from_type(kind)?;
                Some(Stored { kind, timestamp, len: TAG_HEADER + body + TAG_TRAILER })
            }
            Self::Rtmp => {
                let &[_, t2, t1, t0, s2, s1, s0, kind, ..] = bytes.first_chunk::<RTMP_HEADER>()?;
                let mut timestamp = u32::from_be_bytes([0, t2, t1, t0]);
                if timestamp == EXTENDED {
                    timestamp = u32::from_be_bytes(*bytes[RTMP_HEADER..].first_chunk()?);
                }
                let body = u32::from_be_bytes([0, s2, s1, s0]) as usize;
                let kind = TagKind::from_type(kind)?;
                Some(Stored { kind, timestamp, len: rtmp_len(timestamp, body) })
            }
        }
    }
}

/// Length of the extended timestamp in bytes.
fn extension(timestamp: u32) -> usize {
    if timestamp >= EXTENDED { 4 } else { 0 }
}

fn rtmp_len(timestamp: u32, body: usize) -> usize {
    let extension = extension(timestamp);
    let further = body.saturating_sub(1) / RTMP_CHUNK;
    RTMP_HEADER + extension + body + further * (1 + extension)
}

fn write_rtmp(tag: &Tag, mut out: impl FnMut(&[u8])) {
    // One chunk stream for each kind, as encoders do; control uses 2, commands 3 and 5.
    let csid = match tag.kind {
        TagKind::Audio => 4,
        TagKind::Script => 5,
        TagKind::Video => 6,
    };
    let flv = tag.header();
    let [.., t2, t1, t0] = tag.timestamp.min(EXTENDED).to_be_bytes();
    let stream = RTMP_STREAM.to_le_bytes();
    let mut header = [csid, t2, t1, t0, flv[1], flv[2], flv[3], tag.kind as u8, 0, 0, 0, 0];
    header[8..].copy_from_slice(&stream);
    let extended = tag.timestamp.to_be_bytes();
    let extended = &extended[..extension(tag.timestamp)];
    out(&header);
    out(extended);
    for (at, chunk) in tag.body.chunks(RTMP_CHUNK).enumerate() {
        if at > 0 {
            out(&[3 << 6 | csid]);
            out(extended);
        }
        out(chunk);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;

    fn written(encoding: Encoding, tag: &Tag) -> Vec<u8> {
        let mut bytes = Vec::new();
        encoding.write(tag, |piece| bytes.extend_from_slice(piece));
        bytes
    }

    #[test]
    fn written_tags_are_read_back_with_their_length() {
        for encoding in Encoding::EVERY {
            for timestamp in [0, 5, EXTENDED - 1, EXTENDED, EXTENDED + 1, u32::MAX] {
                for len in [0, 1, RTMP_CHUNK - 1, RTMP_CHUNK, RTMP_CHUNK + 1, 3 * RTMP_CHUNK] {
                    let body = Bytes::from(vec![0xc4; len]);
                    for kind in [TagKind::Audio, TagKind::Video, TagKind::Script] {
                        let tag = Tag { kind, timestamp, body: body.clone() };
                        let bytes = written(encoding, &tag);
                        assert_eq!(bytes.len(), encoding.len(&tag), "{encoding:?} {timestamp} {len}");
                        let stored = Stored { kind, timestamp, len: bytes.len() };
                        assert_eq!(encoding.read(&bytes), Some(stored));
                        assert_eq!(encoding.read(&bytes[..11.min(bytes.len()) - 1]), None);
                    }
                }
            }
        }
    }

    #[test]
    fn bytes_of_a_message() {
        let tag = Tag { kind: TagKind::Video, timestamp: 0x0102_0304, body: Bytes::from_static(b"ab") };
        let want = b"\x06\xff\xff\xff\x00\x00\x02\x09\x01\x00\x00\x00\x01\x02\x03\x04ab";
        assert_eq!(written(Encoding::Rtmp, &tag), want);
    }
}
