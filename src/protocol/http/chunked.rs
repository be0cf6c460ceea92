//! The chunked transfer coding (RFC 9112, 7.1), reading and writing.
//!
//! Extensions and trailers are read within limits and dropped.

/// The largest chunk, in bytes.
pub const CHUNK_MAX: u64 = 1 << 32;
/// Most bytes of one chunk's extensions.
pub const EXTENSION_MAX: usize = 256;
/// Most bytes of a trailer.
pub const TRAILER_MAX: usize = 4096;
/// The longest chunk header that [`chunk_head`] writes.
pub const CHUNK_HEAD_MAX: usize = 18;
/// Follows the bytes of a chunk.
pub const CHUNK_END: &[u8] = b"\r\n";
/// Ends a body, trailer included.
pub const LAST_CHUNK: &[u8] = b"0\r\n\r\n";

/// A body that breaks the coding.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ChunkError {
    /// The size is not hexadecimal.
    #[error("unexpected byte {byte:#04x} in a chunk size")]
    BadSize {
        /// The unexpected byte.
        byte: u8,
    },
    /// The size is beyond [`CHUNK_MAX`].
    #[error("a chunk of more than {limit} bytes", limit = CHUNK_MAX)]
    TooLarge,
    /// The extensions are beyond [`EXTENSION_MAX`].
    #[error("chunk extensions of more than {limit} bytes", limit = EXTENSION_MAX)]
    ExtensionTooLong,
    /// The trailer is beyond [`TRAILER_MAX`].
    #[error("a trailer of more than {limit} bytes", limit = TRAILER_MAX)]
    TrailerTooLong,
    /// Another byte where a line must end.
    #[error("byte {byte:#04x} where a line of the chunked coding must end")]
    BadLineEnd {
        /// That byte.
        byte: u8,
    },
}

/// The result of a push.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// Bytes taken; fewer than were given only if the body ends.
    pub consumed: usize,
    /// Whether the body has ended.
    pub finished: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// In the digits of a size; `digits` were read, leading zeros included.
    Size { size: u64, digits: usize },
    /// In the extensions, `seen` bytes of them.
    Extension { size: u64, seen: usize },
    /// After the carriage return of a size line.
    SizeEnd { size: u64 },
    /// In a chunk; `left` bytes are still to come.
    Data { left: u64 },
    /// After a chunk's bytes.
    DataReturn,
    /// After the carriage return that follows a chunk's bytes.
    DataEnd,
    /// At the start of a trailer line or in it, `seen` bytes in total.
    Trailer { seen: usize, line_empty: bool },
    /// After a carriage return of the trailer.
    TrailerEnd { seen: usize, line_empty: bool },
    /// The body has ended.
    Done,
}

/// Removes the coding from a body, however its bytes are split.
#[derive(Clone, Debug)]
pub struct ChunkedReader {
    state: State,
}

const START: State = State::Size { size: 0, digits: 0 };

impl Default for ChunkedReader {
    fn default() -> Self {
        Self::new()
    }
}

impl ChunkedReader {
    /// A reader at the start of a body.
    pub fn new() -> Self {
        Self { state: START }
    }

    /// Whether the body has ended.
    pub fn is_finished(&self) -> bool {
        self.state == State::Done
    }

    /// Takes `bytes` and passes the body's bytes to `out`, without copies.
    ///
    /// # Errors
    /// [`ChunkError`]; the reader must not be used any further.
    pub fn push(&mut self, bytes: &[u8], out: &mut impl FnMut(&[u8])) -> Result<Progress, ChunkError> {
        let mut rest = bytes;
        while let Some((&byte, tail)) = rest.split_first() {
            match self.state {
                State::Done => break,
                State::Data { left } => {
                    let take = usize::try_from(left).map_or(rest.len(), |left| left.min(rest.len()));
                    let (data, after) = rest.split_at(take);
                    out(data);
                    rest = after;
                    let left = left - take as u64;
                    self.state = if left == 0 { State::DataReturn } else { State::Data { left } };
                }
                framing => {
                    self.state = framing.next(byte)?;
                    rest = tail;
                }
            }
        }
        Ok(Progress { consumed: bytes.len() - rest.len(), finished: self.is_finished() })
    }
}

impl State {
    /// The state after one byte of framing.
    fn next(self, byte: u8) -> Result<Self, ChunkError> {
        match self {
            Self::Size { size, digits } => after_size(size, digits, byte),
            Self::Extension { size, seen } => match byte {
                b'\r' => Ok(Self::SizeEnd { size }),
                b'\n' | 0 => Err(ChunkError::BadLineEnd { byte }),
                _ if seen >= EXTENSION_MAX => Err(ChunkError::ExtensionTooLong),
                _ => Ok(Self::Extension { size, seen: seen + 1 }),
            },
            Self::SizeEnd { size: 0 } => expect(byte, b'\n', Self::Trailer { seen: 0, line_empty: true }),
            Self::SizeEnd { size } => expect(byte, b'\n', Self::Data { left: size }),
            Self::DataReturn => expect(byte, b'\r', Self::DataEnd),
            Self::DataEnd => expect(byte, b'\n', START),
            Self::Trailer { seen, line_empty } => match byte {
                b'\r' => Ok(Self::TrailerEnd { seen, line_empty }),
                b'\n' | 0 => Err(ChunkError::BadLineEnd { byte }),
                _ if seen >= TRAILER_MAX => Err(ChunkError::TrailerTooLong),
                _ => Ok(Self::Trailer { seen: seen + 1, line_empty: false }),
            },
            Self::TrailerEnd { line_empty: true, .. } => expect(byte, b'\n', Self::Done),
            Self::TrailerEnd { seen, .. } => expect(byte, b'\n', Self::Trailer { seen, line_empty: true }),
            Self::Data { .. } | Self::Done => Ok(self), // no framing there
        }
    }
}

/// The state after one byte of a size line's digits.
fn after_size(size: u64, digits: usize, byte: u8) -> Result<State, ChunkError> {
    let Some(digit) = char::from(byte).to_digit(16) else {
        return match byte {
            _ if digits == 0 => Err(ChunkError::BadSize { byte }),
            b'\r' => Ok(State::SizeEnd { size }),
            b';' | b' ' | b'\t' => Ok(State::Extension { size, seen: 0 }),
            _ => Err(ChunkError::BadSize { byte }),
        };
    };
    let size = size * 16 + u64::from(digit); // cannot overflow: bounded below each time
    // Sixteen digits express any size; more of them are leading zeros that only cost time.
    if size > CHUNK_MAX || digits >= 16 {
        return Err(ChunkError::TooLarge);
    }
    Ok(State::Size { size, digits: digits + 1 })
}

fn expect(byte: u8, wanted: u8, then: State) -> Result<State, ChunkError> {
    if byte == wanted { Ok(then) } else { Err(ChunkError::BadLineEnd { byte }) }
}

/// Writes the header of a chunk of `len` bytes and returns its length. A header for 0 bytes would end the body.
pub fn chunk_head(len: usize, out: &mut [u8; CHUNK_HEAD_MAX]) -> usize {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    debug_assert!(len > 0, "an empty chunk ends a body");
    let digits = (usize::BITS - len.leading_zeros()).div_ceil(4).max(1) as usize;
    for (at, byte) in out.iter_mut().take(digits).enumerate() {
        *byte = HEX[(len >> (4 * (digits - 1 - at))) & 15];
    }
    out[digits..digits + 2].copy_from_slice(CHUNK_END);
    digits + 2
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(pieces: &[&[u8]]) -> Result<(Vec<u8>, Progress), ChunkError> {
        let mut reader = ChunkedReader::new();
        let (mut body, mut last) = (Vec::new(), Progress { consumed: 0, finished: false });
        for piece in pieces {
            let progress = reader.push(piece, &mut |bytes| body.extend_from_slice(bytes))?;
            last = Progress { consumed: last.consumed + progress.consumed, ..progress };
        }
        Ok((body, last))
    }

    #[test]
    fn a_body_split_at_any_point_reads_the_same() {
        let text =
            b"4\r\nWiki\r\n006;a=\"b\"\r\npedia \r\nE \r\nin \r\n\r\nchunks.\r\n0\r\nX: y\r\nZ: w\r\n\r\nGET";
        for split in 0..text.len() {
            let (body, progress) = read(&[&text[..split], &text[split..]]).unwrap();
            assert_eq!(body, b"Wikipedia in \r\n\r\nchunks.", "split at {split}");
            assert_eq!(progress, Progress { consumed: text.len() - 3, finished: true });
        }
    }

    #[test]
    fn errors_in_the_coding_are_named() {
        let error = |text: &[u8]| read(&[text]).unwrap_err();
        assert_eq!(error(b"\r\n"), ChunkError::BadSize { byte: b'\r' });
        assert_eq!(error(b"-1\r\n"), ChunkError::BadSize { byte: b'-' });
        assert_eq!(error(b"1x"), ChunkError::BadSize { byte: b'x' });
        assert_eq!(error(b"1\n"), ChunkError::BadSize { byte: b'\n' });
        assert_eq!(error(b"1\rx"), ChunkError::BadLineEnd { byte: b'x' });
        assert_eq!(error(b"1;a\n"), ChunkError::BadLineEnd { byte: b'\n' });
        assert_eq!(error(b"1\r\nab"), ChunkError::BadLineEnd { byte: b'b' });
        assert_eq!(error(b"1\r\na\rb"), ChunkError::BadLineEnd { byte: b'b' });
        assert_eq!(error(b"100000001\r\n"), ChunkError::TooLarge);
        assert_eq!(error(&[b'0'; 17]), ChunkError::TooLarge);
        assert_eq!(error(&[b"1;".as_slice(), &[b'x'; 300]].concat()), ChunkError::ExtensionTooLong);
        assert_eq!(
            error(&[b"0\r\n".as_slice(), &b"X: y\r\n".repeat(2000)].concat()),
            ChunkError::TrailerTooLong
        );
    }

    #[test]
    fn chunk_heads_are_as_short_as_possible() {
        let mut out = [0; CHUNK_HEAD_MAX];
        for (len, text) in [
            (1, "1\r\n"),
            (15, "f\r\n"),
            (16, "10\r\n"),
            (0xabcd, "abcd\r\n"),
            (usize::MAX, "ffffffffffffffff\r\n"),
        ] {
            let n = chunk_head(len, &mut out);
            assert_eq!(&out[..n], text.as_bytes());
        }
    }

    proptest! {
        #[test]
        fn written_bodies_read_back(
            chunks in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 1..80), 0..8),
            split in 0usize..800,
        ) {
            let mut wire = Vec::new();
            for chunk in &chunks {
                let mut head = [0; CHUNK_HEAD_MAX];
                let n = chunk_head(chunk.len(), &mut head);
                wire.extend_from_slice(&head[..n]);
                wire.extend_from_slice(chunk);
                wire.extend_from_slice(CHUNK_END);
            }
            wire.extend_from_slice(LAST_CHUNK);
            let (first, second) = wire.split_at(split.min(wire.len()));
            let (body, progress) = read(&[first, second]).unwrap();
            prop_assert_eq!(body, chunks.concat());
            prop_assert!(progress.finished);
        }

        #[test]
        fn garbage_split_at_any_point_reads_the_same(text in "[0-9a-f;\r\n \\x00-\\xff]{0,40}") {
            let single: Vec<&[u8]> = text.as_bytes().chunks(1).collect();
            let whole = read(&[text.as_bytes()]);
            if single.is_empty() {
                return Ok(());
            }
            prop_assert_eq!(read(&single).map(|(body, _)| body), whole.map(|(body, _)| body));
        }
    }
}
