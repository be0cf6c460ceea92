//! Reads frames (RFC 6455, 5): masked if a client sends them, fragmented in any way, split anywhere.
//!
//! Payloads are unmasked and passed on as they arrive, never gathered, except the 125 bytes of a control frame.

use super::code;
use super::frame::{CONTROL_MAX, Opcode, apply_mask};

/// Bytes that are unmasked at a time.
const PIECE: usize = 16 << 10;

/// What the peer did wrong; [`WsError::close_code`] is the answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WsError {
    /// A reserved bit is set and no extension was agreed on.
    #[error("a frame begins with {byte:#04x}: reserved bits are set")]
    ReservedBits {
        /// The first byte.
        byte: u8,
    },
    /// An undefined opcode.
    #[error("opcode {opcode} is reserved")]
    ReservedOpcode {
        /// The opcode.
        opcode: u8,
    },
    /// A frame of a client without a mask (RFC 6455, 5.1).
    #[error("a frame is not masked")]
    NotMasked,
    /// A frame of a server with a mask (RFC 6455, 5.1).
    #[error("a server's frame is masked")]
    Masked,
    /// A length in more bytes than it needs, or with its top bit set.
    #[error("a length of {length} is written in {bytes} bytes")]
    BadLength {
        /// The length.
        length: u64,
        /// The bytes of the field: 2 or 8.
        bytes: u8,
    },
    /// A fragmented control frame.
    #[error("a control frame is fragmented")]
    FragmentedControl,
    /// A control frame longer than 125 bytes.
    #[error("a control frame of {length} bytes, limit {limit}", limit = CONTROL_MAX)]
    LongControl {
        /// The length announced.
        length: u64,
    },
    /// A continuation without a message.
    #[error("a continuation without a message to continue")]
    NothingToContinue,
    /// A message inside another.
    #[error("a message begins before the last one ended")]
    Interleaved,
    /// A message larger than the limit.
    #[error("a message of at least {length} bytes, limit {limit}")]
    MessageTooLarge {
        /// What was announced so far.
        length: u64,
        /// The limit.
        limit: u64,
    },
    /// A text message or a close reason that is not UTF-8.
    #[error("text is not UTF-8")]
    NotUtf8,
    /// A close frame with one byte, or with a code that must not be sent.
    #[error("a close frame with code {code}")]
    BadClose {
        /// The code; 0 if there was only half of one.
        code: u16,
    },
}

impl WsError {
    /// The code of the close frame to answer with.
    pub fn close_code(&self) -> u16 {
        match self {
            Self::MessageTooLarge { .. } => code::TOO_BIG,
            Self::NotUtf8 => code::BAD_DATA,
            _ => code::PROTOCOL,
        }
    }
}

/// An event of a reader.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event<'a> {
    /// A piece of a message.
    Data {
        /// Text, otherwise binary.
        text: bool,
        /// The bytes, unmasked; may be empty at the end of a message.
        bytes: &'a [u8],
        /// Whether the message ends here.
        end: bool,
    },
    /// To be answered with [`super::pong_frame`] of the same payload.
    Ping(&'a [u8]),
    /// An answer to a ping, or an unsolicited heartbeat.
    Pong(&'a [u8]),
    /// The peer closes; nothing is read after it. `code` is `None` if it sent none.
    Close {
        /// The code.
        code: Option<u16>,
        /// The reason.
        reason: &'a str,
    },
}

#[derive(Clone, Copy, Debug)]
struct Frame {
    opcode: Opcode,
    fin: bool,
    left: u64,
    mask: [u8; 4],
    /// Payload bytes seen, modulo 4: the position in the mask.
    phase: usize,
}

/// Reads a peer's frames, however their bytes are split.
#[derive(Debug)]
pub struct FrameReader {
    limit: u64,
    /// Bytes of the mask in each header: a client's frames have one.
    mask: usize,
    /// Header bytes of the next frame.
    header: [u8; 14],
    header_len: usize,
    frame: Option<Frame>,
    /// The message in progress: whether it is text, and its bytes so far.
    message: Option<(bool, u64)>,
    utf8: Utf8,
    control: Vec<u8>,
    piece: Vec<u8>,
    closed: bool,
}

impl FrameReader {
    /// A server's reader after the upgrade. `message_max` is in bytes, of a whole message; `u64::MAX` for
    /// streams whose content has its own limits.
    pub fn new(message_max: u64) -> Self {
        Self {
            limit: message_max,
            mask: 4,
            header: [0; 14],
            header_len: 0,
            frame: None,
            message: None,
            utf8: Utf8::default(),
            control: Vec::new(),
            piece: Vec::new(),
            closed: false,
        }
    }

    /// The same for a client, which reads a server's frames.
    pub fn for_client(message_max: u64) -> Self {
        Self { mask: 0, ..Self::new(message_max) }
    }

    /// Whether the peer's close frame was read, or an error was found.
    pub fn is_closed(&self) -> bool {
        self.closed
    }

    /// Takes all of `bytes` and reports their content, in order.
    ///
    /// # Errors
    /// [`WsError`]; bytes after it are dropped, like those after a close frame.
    pub fn push(&mut self, bytes: &[u8], on_event: &mut impl FnMut(Event<'_>)) -> Result<(), WsError> {
        let result = self.read(bytes, on_event);
        self.closed |= result.is_err();
        result
    }

    fn read(&mut self, bytes: &[u8], on_event: &mut impl FnMut(Event<'_>)) -> Result<(), WsError> {
        let mut rest = bytes;
        while !self.closed {
            let Some(mut frame) = self.frame else {
                let Some((&byte, tail)) = rest.split_first() else { break };
                rest = tail;
                self.header_byte(byte)?;
                continue;
            };
            if rest.is_empty() && frame.left > 0 {
                break;
            }
            let take = usize::try_from(frame.left).unwrap_or(PIECE).min(rest.len()).min(PIECE);
            let (masked, tail) = rest.split_at(take);
            rest = tail;
            self.unmask(&frame, masked);
            frame.phase = (frame.phase + take) % 4;
            frame.left -= take as u64;
            self.frame = (frame.left > 0).then_some(frame);
            if frame.opcode.is_control() {
                self.control_piece(&frame, on_event)?;
            } else {
                self.data_piece(&frame, on_event)?;
            }
        }
        Ok(())
    }

    /// Takes one byte of a header; the last one completes it.
    fn header_byte(&mut self, byte: u8) -> Result<(), WsError> {
        self.header[self.header_len] = byte;
        self.header_len += 1;
        let first = self.header[0];
        if self.header_len == 1 {
            return if first & 0x70 == 0 { Ok(()) } else { Err(WsError::ReservedBits { byte: first }) };
        }
        let second = self.header[1];
        match (second & 0x80 != 0, self.mask) {
            (false, 4) => return Err(WsError::NotMasked),
            (true, 0) => return Err(WsError::Masked),
            _ => {}
        }
        let extended = match second & 0x7f {
            126 => 2,
            127 => 8,
            _ => 0,
        };
        if self.header_len < 2 + extended + self.mask {
            return Ok(());
        }
        let [_, _, long @ .., _, _, _, _] = self.header;
        let length = long.iter().take(extended).fold(0, |length, byte| length << 8 | u64::from(*byte));
        let length = match extended {
            0 => u64::from(second & 0x7f),
            2 if length < 126 => return Err(WsError::BadLength { length, bytes: 2 }),
            8 if length < 1 << 16 || length >> 63 != 0 => {
                return Err(WsError::BadLength { length, bytes: 8 });
            }
            _ => length,
        };
        let mut mask = [0; 4];
        mask[..self.mask].copy_from_slice(&self.header[2 + extended..2 + extended + self.mask]);
        self.header_len = 0;
        self.begin(first, length, mask)
    }

    /// Checks a frame against the earlier ones.
    fn begin(&mut self, first: u8, left: u64, mask: [u8; 4]) -> Result<(), WsError> {
        let bits = first & 0x0f;
        let opcode = Opcode::from_bits(bits).ok_or(WsError::ReservedOpcode { opcode: bits })?;
        let fin = first & 0x80 != 0;
        if opcode.is_control() {
            if !fin {
                return Err(WsError::FragmentedControl);
            }
            if left > CONTROL_MAX as u64 {
                return Err(WsError::LongControl { length: left });
            }
        } else {
            let (text, before) = match (opcode, self.message) {
                (Opcode::Continuation, None) => return Err(WsError::NothingToContinue),
                (Opcode::Continuation, Some(message)) => message,
                (_, Some(_)) => return Err(WsError::Interleaved),
                (opcode, None) => (opcode == Opcode::Text, 0),
            };
            let length = before.saturating_add(left);
            if length > self.limit {
                return Err(WsError::MessageTooLarge { length, limit: self.limit });
            }
            self.message = Some((text, length));
        }
        self.frame = Some(Frame { opcode, fin, left, mask, phase: 0 });
        Ok(())
    }

    /// Writes the unmasked payload of `masked` to `piece`.
    fn unmask(&mut self, frame: &Frame, masked: &[u8]) {
        self.piece.clear();
        self.piece.extend_from_slice(masked);
        apply_mask(&mut self.piece, frame.mask, frame.phase);
    }

    fn data_piece(&mut self, frame: &Frame, on_event: &mut impl FnMut(Event<'_>)) -> Result<(), WsError> {
        let text = self.message.is_some_and(|(text, _)| text);
        let end = frame.fin && frame.left == 0;
        if text {
            self.utf8.take(&self.piece, end)?;
        }
        if end {
            self.message = None;
        }
        if end || !self.piece.is_empty() {
            on_event(Event::Data { text, bytes: &self.piece, end });
        }
        Ok(())
    }

    fn control_piece(&mut self, frame: &Frame, on_event: &mut impl FnMut(Event<'_>)) -> Result<(), WsError> {
        self.control.extend_from_slice(&self.piece);
        if frame.left > 0 {
            return Ok(());
        }
        match frame.opcode {
            Opcode::Ping => on_event(Event::Ping(&self.control)),
            Opcode::Pong => on_event(Event::Pong(&self.control)),
            _ => {
                self.closed = true;
                let (code, reason) = parse_close(&self.control)?;
                on_event(Event::Close { code, reason });
            }
        }
        self.control.clear();
        Ok(())
    }
}

/// Code and reason of a close frame (RFC 6455, 5.5.1 and 7.4).
fn parse_close(payload: &[u8]) -> Result<(Option<u16>, &str), WsError> {
    let Some((code, reason)) = payload.split_first_chunk() else {
        return if payload.is_empty() { Ok((None, "")) } else { Err(WsError::BadClose { code: 0 }) };
    };
    let code = u16::from_be_bytes(*code);
    if !matches!(code, 1000..=1003 | 1007..=1014 | 3000..=4999) {
        return Err(WsError::BadClose { code });
    }
    Ok((Some(code), std::str::from_utf8(reason).map_err(|_| WsError::NotUtf8)?))
}

/// Checks UTF-8 that comes in pieces: keeps the bytes of an incomplete character.
#[derive(Debug, Default)]
struct Utf8 {
    open: Vec<u8>,
}

impl Utf8 {
    fn take(&mut self, piece: &[u8], end: bool) -> Result<(), WsError> {
        let mut rest = piece;
        while !self.open.is_empty() {
            let Some((&byte, tail)) = rest.split_first() else { break };
            rest = tail;
            self.open.push(byte);
            match std::str::from_utf8(&self.open) {
                Ok(_) => self.open.clear(),
                Err(error) if error.error_len().is_none() => {}
                Err(_) => return Err(WsError::NotUtf8),
            }
        }
        match std::str::from_utf8(rest) {
            Ok(_) => {}
            Err(error) if error.error_len().is_some() => return Err(WsError::NotUtf8),
            Err(error) => self.open.extend_from_slice(rest.get(error.valid_up_to()..).unwrap_or_default()),
        }
        if end && !self.open.is_empty() { Err(WsError::NotUtf8) } else { Ok(()) }
    }
}

#[cfg(test)]
#[path = "reader_tests.rs"]
mod tests;
