//! Removes the transport's framing from a body, in pieces of any size: none, chunked coding or WebSocket
//! frames.

/// The framing around the FLV bytes.
#[derive(Clone, Debug)]
pub(super) enum Framing {
    /// None: the body ends with the connection.
    Bare,
    /// RFC 9112 7.1.
    Chunked(Chunked),
    /// RFC 6455 5.2.
    Ws(Ws),
}

/// The framing is broken, or the body has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum FramingError {
    #[error("wrong chunk framing")]
    Chunk,
    #[error("wrong WebSocket framing")]
    Ws,
    #[error("the server ended the stream")]
    Ended,
}

impl Framing {
    /// Passes the body bytes in `bytes` to `sink`, in order.
    ///
    /// # Errors
    /// [`FramingError`]; bytes before the error have been passed on.
    pub(super) fn strip(&mut self, bytes: &[u8], mut sink: impl FnMut(&[u8])) -> Result<(), FramingError> {
        match self {
            Self::Bare => {
                sink(bytes);
                Ok(())
            }
            Self::Chunked(chunked) => chunked.strip(bytes, sink),
            Self::Ws(ws) => ws.strip(bytes, sink),
        }
    }
}

/// Position in chunked coding.
#[derive(Clone, Debug, Default)]
pub(super) struct Chunked {
    size: usize,
    digits: u8,
    in_data: bool,
    /// Bytes of the line end after the data that are still to come.
    line_end: u8,
}

impl Chunked {
    const DIGITS_MAX: u8 = 8;

    fn strip(&mut self, mut bytes: &[u8], mut sink: impl FnMut(&[u8])) -> Result<(), FramingError> {
        while let Some((&first, rest)) = bytes.split_first() {
            if self.in_data && self.size > 0 {
                let (data, after) = bytes.split_at(self.size.min(bytes.len()));
                sink(data);
                self.size -= data.len();
                bytes = after;
                if self.size == 0 {
                    (self.in_data, self.line_end, self.digits) = (false, 2, 0);
                }
                continue;
            }
            bytes = rest;
            if self.line_end > 0 {
                if first != b"\n\r"[usize::from(self.line_end) - 1] {
                    return Err(FramingError::Chunk);
                }
                self.line_end -= 1;
            } else {
                self.size_line(first)?;
            }
        }
        Ok(())
    }

    fn size_line(&mut self, byte: u8) -> Result<(), FramingError> {
        match char::from(byte).to_digit(16) {
            Some(digit) if self.digits < Self::DIGITS_MAX => {
                self.size = self.size << 4 | digit as usize;
                self.digits += 1;
            }
            None if byte == b'\r' && self.digits > 0 => {}
            None if byte == b'\n' && self.digits > 0 && self.size == 0 => return Err(FramingError::Ended),
            None if byte == b'\n' && self.digits > 0 => self.in_data = true,
            _ => return Err(FramingError::Chunk),
        }
        Ok(())
    }
}

/// Position in WebSocket frames.
#[derive(Clone, Debug, Default)]
pub(super) struct Ws {
    head: [u8; 10],
    filled: usize,
    left: u64,
    is_data: bool,
}

impl Ws {
    fn strip(&mut self, mut bytes: &[u8], mut sink: impl FnMut(&[u8])) -> Result<(), FramingError> {
        while let Some((&first, rest)) = bytes.split_first() {
            if self.left > 0 {
                let take = usize::try_from(self.left).unwrap_or(usize::MAX).min(bytes.len());
                if self.is_data {
                    sink(&bytes[..take]);
                }
                self.left -= take as u64;
                bytes = &bytes[take..];
                continue;
            }
            bytes = rest;
            self.head[self.filled] = first;
            self.filled += 1;
            if self.filled >= 2 && self.filled == self.head_len() {
                self.end_head()?;
            }
        }
        Ok(())
    }

    fn head_len(&self) -> usize {
        match self.head[1] & 0x7f {
            126 => 4,
            127 => 10,
            _ => 2,
        }
    }

    fn end_head(&mut self) -> Result<(), FramingError> {
        let [first, second, long @ ..] = self.head;
        if first & 0x70 != 0 || second & 0x80 != 0 {
            return Err(FramingError::Ws);
        }
        self.left = match second {
            126 => u64::from(u16::from_be_bytes([long[0], long[1]])),
            127 => u64::from_be_bytes(long),
            len => u64::from(len),
        };
        self.filled = 0;
        self.is_data = match first & 0x0f {
            0 | 2 => true,
            9 | 10 => false,
            8 => return Err(FramingError::Ended),
            _ => return Err(FramingError::Ws),
        };
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn strip_in(mut framing: Framing, bytes: &[u8], step: usize) -> (Vec<u8>, Result<(), FramingError>) {
        let mut out = Vec::new();
        for part in bytes.chunks(step) {
            let result = framing.strip(part, |data| out.extend_from_slice(data));
            if result.is_err() {
                return (out, result);
            }
        }
        (out, Ok(()))
    }

    #[test]
    fn chunks_are_stripped_in_any_pieces() {
        let bytes = b"3\r\nabc\r\n00a\r\n0123456789\r\n0\r\n\r\n";
        for step in 1..=bytes.len() {
            let (out, end) = strip_in(Framing::Chunked(Chunked::default()), bytes, step);
            assert_eq!((out.as_slice(), end), (b"abc0123456789".as_slice(), Err(FramingError::Ended)));
        }
        let (_, end) = strip_in(Framing::Chunked(Chunked::default()), b"3\r\nabcd\r\n", 4);
        assert_eq!(end, Err(FramingError::Chunk));
    }

    #[test]
    fn frames_are_stripped_in_any_pieces() {
        let mut bytes = b"\x82\x03abc\x89\x01p\x02\x7e\x00\x80".to_vec();
        bytes.extend([7; 128]);
        bytes.extend(b"\x80\x00\x88\x00");
        for step in 1..=bytes.len() {
            let (out, end) = strip_in(Framing::Ws(Ws::default()), &bytes, step);
            assert_eq!((out.len(), &out[..3], end), (131, b"abc".as_slice(), Err(FramingError::Ended)));
        }
    }
}
