//! The FLV container, read as it arrives: file header, then tags (FLV 10.1, annex E.2 to E.4.1).
//!
//! The reader relies on what delimits the stream (tag sizes) and nothing else: `PreviousTagSize` is skipped
//! unread because many writers get it wrong, and the header's audio and video bits are only passed on. It does
//! not look into bodies, repair timestamps or decrypt.

use bytes::{Buf, Bytes, BytesMut};

use super::tag::{TAG_HEADER, TAG_TRAILER, Tag, TagKind};

/// Bytes of the file header as every writer writes it, without `PreviousTagSize0`.
const HEADER: usize = 9;
/// The largest `DataOffset` that is followed: enough for a future header, not for hidden data.
const DATA_OFFSET_MAX: u32 = 4096;
const AUDIO_BIT: u8 = 4;
const VIDEO_BIT: u8 = 1;
/// Bit 5 of the type byte: the body is encrypted and begins with a filter header.
const FILTER_BIT: u8 = 0x20;
const TYPE_MASK: u8 = 0x1f;

/// What was wrong with the peer's FLV.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FlvError {
    /// The stream does not begin with `FLV`.
    #[error("not FLV: the stream begins with {found:02x?}")]
    Signature {
        /// The first three bytes.
        found: [u8; 3],
    },
    /// A file format version other than 1.
    #[error("FLV version {version}, only 1 is known")]
    Version {
        /// The version byte.
        version: u8,
    },
    /// `DataOffset` points into the header or far after it.
    #[error("FLV header claims to be {offset} bytes long (9 to {DATA_OFFSET_MAX})")]
    DataOffset {
        /// The announced length in bytes.
        offset: u32,
    },
    /// A tag larger than the caller accepts; reported as soon as its header is there.
    #[error("tag of {announced} bytes, limit {limit}")]
    BodyTooLarge {
        /// `DataSize` in bytes.
        announced: u32,
        /// The caller's limit in bytes.
        limit: u32,
    },
}

/// The file header (FLV 10.1, E.2): the kinds of tags that the writer announces.
///
/// Many writers set the bits wrong; use them as a hint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FileHeader {
    /// Audio tags are announced.
    pub audio: bool,
    /// Video tags are announced.
    pub video: bool,
}

impl FileHeader {
    /// The 9 bytes of the header and the 4 zero bytes of `PreviousTagSize0`.
    pub fn encode(self) -> [u8; HEADER + TAG_TRAILER] {
        let flags = if self.audio { AUDIO_BIT } else { 0 } | if self.video { VIDEO_BIT } else { 0 };
        [b'F', b'L', b'V', 1, flags, 0, 0, 0, 9, 0, 0, 0, 0]
    }

    /// Reads a header from the start of `input`; returns it with its length in bytes, which includes the extra
    /// bytes of `DataOffset` and `PreviousTagSize0`. This may be more than `input` has so far.
    ///
    /// `Ok(None)`: fewer than nine bytes, and no error in them yet.
    ///
    /// # Errors
    /// [`FlvError::Signature`], [`FlvError::Version`], [`FlvError::DataOffset`].
    pub fn parse(input: &[u8]) -> Result<Option<(Self, usize)>, FlvError> {
        let &[f, l, v, version, flags, o3, o2, o1, o0, ..] = input else { return Ok(None) };
        if [f, l, v] != *b"FLV" {
            return Err(FlvError::Signature { found: [f, l, v] });
        }
        if version != 1 {
            return Err(FlvError::Version { version });
        }
        let offset = u32::from_be_bytes([o3, o2, o1, o0]);
        if !(9..=DATA_OFFSET_MAX).contains(&offset) {
            return Err(FlvError::DataOffset { offset });
        }
        let header = Self { audio: flags & AUDIO_BIT != 0, video: flags & VIDEO_BIT != 0 };
        Ok(Some((header, offset as usize + TAG_TRAILER)))
    }
}

/// One item of an FLV stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FlvItem {
    /// The file header; a second one in the middle of a stream is reported too.
    Header(FileHeader),
    /// A tag of a known kind.
    Tag(Tag),
}

/// Reads an FLV stream that arrives in pieces of any size.
///
/// Bytes are copied once, on [`push`](Self::push). Bodies are slices of what was pushed, so a body that is kept
/// for long keeps the bytes around it in memory: copy it then. The buffer grows with the bytes that arrive,
/// never by an announced size, and holds at most one tag and one push when the caller drains it after each
/// push.
#[derive(Debug)]
pub struct FlvReader {
    buffer: BytesMut,
    body_max: u32,
    /// Bytes still to be skipped: `PreviousTagSize`, and tags that are ignored.
    skip: usize,
    begun: bool,
}

impl FlvReader {
    /// A reader that takes tag bodies of up to `body_max` bytes.
    pub fn new(body_max: u32) -> Self {
        Self { buffer: BytesMut::new(), body_max, skip: 0, begun: false }
    }

    /// Takes bytes from the peer.
    pub fn push(&mut self, bytes: &[u8]) {
        let skipped = if self.buffer.is_empty() { self.skip.min(bytes.len()) } else { 0 };
        self.skip -= skipped;
        self.buffer.extend_from_slice(&bytes[skipped..]);
    }

    /// Bytes that were pushed and not returned yet.
    pub fn held(&self) -> usize {
        self.buffer.len()
    }

    /// The next item. A tag is returned with the last byte of its body, without waiting for the
    /// `PreviousTagSize` after it. Encrypted tags and unknown tag types are skipped; empty bodies are not.
    ///
    /// `Ok(None)`: the next item is not complete.
    ///
    /// # Errors
    /// [`FlvError`] if the stream is not FLV or a tag exceeds the limit; the reader cannot continue then.
    pub fn next_item(&mut self) -> Result<Option<FlvItem>, FlvError> {
        loop {
            self.discard();
            if self.skip > 0 {
                return Ok(None);
            }
            // No tag begins with these bytes: the reserved bits of `F` are set.
            if !self.begun || self.buffer.starts_with(b"FLV") {
                return self.header();
            }
            let Some(head) = self.buffer.first_chunk::<TAG_HEADER>() else { return Ok(None) };
            let &[first, s2, s1, s0, t2, t1, t0, t3, _, _, _] = head;
            let size = u32::from_be_bytes([0, s2, s1, s0]);
            if size > self.body_max {
                return Err(FlvError::BodyTooLarge { announced: size, limit: self.body_max });
            }
            let end = TAG_HEADER + size as usize;
            let kind = TagKind::from_type(first & TYPE_MASK).filter(|_| first & FILTER_BIT == 0);
            let Some(kind) = kind else {
                self.skip = end + TAG_TRAILER;
                continue;
            };
            if self.buffer.len() < end {
                return Ok(None);
            }
            self.buffer.advance(TAG_HEADER);
            let body = self.take(size as usize);
            self.skip = TAG_TRAILER;
            let timestamp = u32::from_be_bytes([t3, t2, t1, t0]);
            return Ok(Some(FlvItem::Tag(Tag { kind, timestamp, body })));
        }
    }

    fn header(&mut self) -> Result<Option<FlvItem>, FlvError> {
        let Some((header, len)) = FileHeader::parse(&self.buffer)? else { return Ok(None) };
        self.begun = true;
        self.skip = len;
        Ok(Some(FlvItem::Header(header)))
    }

    fn discard(&mut self) {
        let skipped = self.skip.min(self.buffer.len());
        self.buffer.advance(skipped);
        self.skip -= skipped;
    }

    /// Takes a body from the start of the buffer without copying it.
    fn take(&mut self, len: usize) -> Bytes {
        if len == 0 { Bytes::new() } else { self.buffer.split_to(len).freeze() }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn drain(reader: &mut FlvReader) -> Result<Vec<FlvItem>, FlvError> {
        let mut items = Vec::new();
        while let Some(item) = reader.next_item()? {
            items.push(item);
        }
        Ok(items)
    }

    fn read(pieces: &[&[u8]]) -> Result<Vec<FlvItem>, FlvError> {
        let mut reader = FlvReader::new(1 << 20);
        let mut items = Vec::new();
        for piece in pieces {
            reader.push(piece);
            items.extend(drain(&mut reader)?);
        }
        Ok(items)
    }

    fn tag(kind: TagKind, timestamp: u32, body: &'static [u8]) -> Tag {
        Tag { kind, timestamp, body: Bytes::from_static(body) }
    }

    /// Header, a tag, an encrypted tag, an unknown type, a second header, a tag without body, a tag.
    fn sample() -> (Vec<u8>, Vec<FlvItem>) {
        let header = FileHeader { audio: true, video: true };
        let first = tag(TagKind::Video, 0x0102_0304, b"\x17\x01abc");
        let empty = tag(TagKind::Audio, 5, b"");
        let last = tag(TagKind::Script, 6, b"\x02\x00\x04onFI");
        let mut bytes = header.encode().to_vec();
        first.write_to(&mut bytes);
        let wrong = bytes.len() - 1;
        bytes[wrong] ^= 0xff; // PreviousTagSize
        for kind in [0x20 | 9, 15] {
            bytes.extend([kind, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 1, 2, 0, 0, 0, 13]);
        }
        bytes.extend(FileHeader { audio: false, video: true }.encode());
        empty.write_to(&mut bytes);
        last.write_to(&mut bytes);
        let second = FlvItem::Header(FileHeader { audio: false, video: true });
        let items = [empty, last].map(FlvItem::Tag);
        let mut all = vec![FlvItem::Header(header), FlvItem::Tag(first), second];
        all.extend(items);
        (bytes, all)
    }

    #[test]
    fn header_bytes() {
        let header = FileHeader { audio: true, video: false };
        assert_eq!(header.encode(), *b"FLV\x01\x04\x00\x00\x00\x09\x00\x00\x00\x00");
        assert_eq!(FileHeader::parse(&header.encode()), Ok(Some((header, 13))));
        assert_eq!(FileHeader::parse(b"FLV\x01\x04\x00\x00\x00"), Ok(None));
    }

    #[test]
    fn bad_headers_are_named() {
        let cases: &[(&[u8], FlvError)] = &[
            (b"GET / HTTP/1.1", FlvError::Signature { found: *b"GET" }),
            (b"FLV\x02\x05\x00\x00\x00\x09", FlvError::Version { version: 2 }),
            (b"FLV\x01\x05\x00\x00\x00\x08", FlvError::DataOffset { offset: 8 }),
            (b"FLV\x01\x05\xff\xff\xff\xff", FlvError::DataOffset { offset: u32::MAX }),
        ];
        for (bytes, want) in cases {
            assert_eq!(read(&[bytes]), Err(*want));
        }
    }

    #[test]
    fn a_longer_header_is_followed() {
        let mut bytes = b"FLV\x01\x01\x00\x00\x00\x0c123\x00\x00\x00\x00".to_vec();
        let frame = tag(TagKind::Video, 1, b"\x27\x01");
        frame.write_to(&mut bytes);
        let header = FlvItem::Header(FileHeader { audio: false, video: true });
        assert_eq!(read(&[&bytes]), Ok(vec![header, FlvItem::Tag(frame)]));
    }

    #[test]
    fn a_stream_split_at_any_point_reads_the_same() {
        let (bytes, items) = sample();
        for at in 0..=bytes.len() {
            let (front, back) = bytes.split_at(at);
            assert_eq!(read(&[front, back]).as_ref(), Ok(&items), "split at {at}");
        }
        let single: Vec<&[u8]> = bytes.chunks(1).collect();
        assert_eq!(read(&single), Ok(items));
    }

    #[test]
    fn a_large_tag_is_refused_by_its_header_and_takes_no_memory() {
        let mut reader = FlvReader::new(1000);
        reader.push(&FileHeader { audio: true, video: true }.encode());
        reader.push(&[9, 0xff, 0xff, 0xff, 0, 0, 0, 0, 0, 0, 0]);
        assert!(matches!(reader.next_item(), Ok(Some(FlvItem::Header(_)))));
        assert_eq!(reader.next_item(), Err(FlvError::BodyTooLarge { announced: 0xff_ffff, limit: 1000 }));
        assert!(reader.buffer.capacity() < 4096);
    }

    #[test]
    fn an_unwanted_body_is_not_buffered() {
        let mut reader = FlvReader::new(0xff_ffff);
        reader.push(&FileHeader { audio: true, video: true }.encode());
        reader.push(&[0x29, 0xf0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(drain(&mut reader).map(|items| items.len()), Ok(1));
        for _ in 0..1000 {
            reader.push(&[0; 1000]);
            assert_eq!(reader.next_item(), Ok(None));
        }
        assert!(reader.buffer.capacity() < 64 * 1024, "{}", reader.buffer.capacity());
    }

    proptest! {
        #[test]
        fn tags_survive_a_round_trip(
            tags in prop::collection::vec((0..3usize, any::<u32>(), prop::collection::vec(any::<u8>(), 0..200)), 0..20),
            piece in 1..400usize,
        ) {
            let kinds = [TagKind::Audio, TagKind::Video, TagKind::Script];
            let mut bytes = FileHeader { audio: true, video: true }.encode().to_vec();
            let mut want = Vec::new();
            for (kind, timestamp, body) in tags {
                let tag = Tag { kind: kinds[kind], timestamp, body: body.into() };
                tag.write_to(&mut bytes);
                want.push(FlvItem::Tag(tag));
            }
            let pieces: Vec<&[u8]> = bytes.chunks(piece).collect();
            let got = read(&pieces).expect("our own bytes");
            prop_assert_eq!(&got[1..], &want[..]);
        }

        #[test]
        fn any_bytes_are_borne(bytes in prop::collection::vec(any::<u8>(), 0..600)) {
            let _ = read(&[&FileHeader { audio: true, video: true }.encode(), &bytes]);
            let _ = read(&[&bytes]);
        }
    }
}
