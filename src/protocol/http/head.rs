//! What requests and responses have in common: finding the end of a head, its fields, its body's framing.

use std::ops::Range;

use bytes::{Bytes, BytesMut};

use super::BodyLength;

/// Most fields of a head.
pub const FIELDS_MAX: usize = 64;
/// The most empty lines that are skipped before a head (RFC 9112, 2.2).
const BLANK_LINES_MAX: usize = 4;

/// Why the head of a request or response cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HeadFault {
    /// No HTTP message begins with this byte: another protocol, or TLS on a plain port.
    #[error("the peer does not speak HTTP: its first byte is {byte:#04x}")]
    NotHttp {
        /// The first byte.
        byte: u8,
    },
    /// A line feed without its carriage return.
    #[error("byte {at} of the head is a line feed without a carriage return")]
    BareLineFeed {
        /// Position in the head.
        at: usize,
    },
    /// A carriage return without its line feed.
    #[error("byte {at} of the head follows a carriage return and is no line feed")]
    BareCarriageReturn {
        /// Position in the head.
        at: usize,
    },
    /// A zero byte.
    #[error("byte {at} of the head is zero")]
    Nul {
        /// Position in the head.
        at: usize,
    },
    /// A field that continues on the next line (obsolete: RFC 9112, 5.2).
    #[error("line {line} of the head begins with a blank")]
    Folded {
        /// Lines before it.
        line: usize,
    },
    /// No end within the limit.
    #[error("the head is larger than {limit} bytes")]
    TooLarge {
        /// The limit in bytes.
        limit: usize,
    },
    /// The first line is longer than its limit.
    #[error("the first line is longer than {limit} bytes")]
    LineTooLong {
        /// The limit in bytes.
        limit: usize,
    },
    /// More than [`FIELDS_MAX`] fields.
    #[error("the head has more than {limit} fields", limit = FIELDS_MAX)]
    TooManyFields,
    /// A line has a syntax error.
    #[error("the head has an {0}")]
    Syntax(&'static str),
    /// Both a length and a transfer coding (RFC 9112, 6.3: request smuggling).
    #[error("both Content-Length and Transfer-Encoding were sent")]
    LengthAndCoding,
    /// A length that is not plain digits, or does not fit 64 bits.
    #[error("Content-Length is not a number")]
    BadLength,
    /// Two lengths.
    #[error("Content-Length was sent as {first} and as {second}")]
    LengthsDiffer {
        /// The first one.
        first: u64,
        /// The other one.
        second: u64,
    },
    /// A transfer coding other than a single `chunked`.
    #[error("a Transfer-Encoding other than chunked was sent")]
    UnknownCoding,
    /// A transfer coding in HTTP/1.0, which has none.
    #[error("Transfer-Encoding was sent in HTTP/1.0")]
    CodingInHttp10,
}

impl From<httparse::Error> for HeadFault {
    fn from(error: httparse::Error) -> Self {
        match error {
            httparse::Error::TooManyHeaders => Self::TooManyFields,
            httparse::Error::HeaderName => Self::Syntax("invalid field name"),
            httparse::Error::HeaderValue => Self::Syntax("invalid field value"),
            httparse::Error::NewLine => Self::Syntax("invalid line end"),
            httparse::Error::Status => Self::Syntax("invalid status"),
            httparse::Error::Token => Self::Syntax("invalid first line"),
            httparse::Error::Version => Self::Syntax("invalid version"),
        }
    }
}

/// Gathers bytes until a whole head is there. Each byte is examined once, however the bytes are split.
#[derive(Debug)]
pub(super) struct HeadBuffer {
    buffer: BytesMut,
    limit: usize,
    line_limit: usize,
    scanned: usize,
    line_start: usize,
    lines: usize,
    blank_lines: usize,
}

impl HeadBuffer {
    /// Limits are in bytes: of the whole head and of its first line.
    pub(super) fn new(limit: usize, line_limit: usize) -> Self {
        let buffer = BytesMut::new();
        Self { buffer, limit, line_limit, scanned: 0, line_start: 0, lines: 0, blank_lines: 0 }
    }

    pub(super) fn extend(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    /// Bytes after the heads taken so far.
    pub(super) fn len(&self) -> usize {
        self.buffer.len()
    }

    /// Whether there are no bytes after the heads taken so far.
    pub(super) fn is_empty(&self) -> bool {
        self.buffer.is_empty()
    }

    /// Takes the bytes after the heads taken so far.
    pub(super) fn take_rest(&mut self) -> Bytes {
        (self.scanned, self.line_start, self.lines, self.blank_lines) = (0, 0, 0, 0);
        self.buffer.split().freeze()
    }

    /// Takes the next head, including the empty line at its end; `None`: it is not complete.
    pub(super) fn take_head(&mut self) -> Result<Option<Bytes>, HeadFault> {
        while let Some(&byte) = self.buffer.get(self.scanned) {
            let at = self.scanned;
            if at >= self.limit {
                return Err(HeadFault::TooLarge { limit: self.limit });
            }
            self.check_byte(at, byte)?;
            self.scanned += 1;
            if byte == b'\n' && self.end_line(at) {
                (self.scanned, self.line_start, self.lines, self.blank_lines) = (0, 0, 0, 0);
                return Ok(Some(self.buffer.split_to(at + 1).freeze()));
            }
        }
        Ok(None)
    }

    fn check_byte(&self, at: usize, byte: u8) -> Result<(), HeadFault> {
        let after_return = at > self.line_start && self.buffer.get(at - 1) == Some(&b'\r');
        match byte {
            b'\n' if !after_return => Err(HeadFault::BareLineFeed { at }),
            b'\n' => Ok(()),
            _ if after_return => Err(HeadFault::BareCarriageReturn { at }),
            0 if self.lines > 0 => Err(HeadFault::Nul { at }),
            b' ' | b'\t' if at == self.line_start && self.lines > 0 => {
                Err(HeadFault::Folded { line: self.lines })
            }
            b'\r' if at == 0 && self.blank_lines < BLANK_LINES_MAX => Ok(()),
            _ if at == 0 && !byte.is_ascii_alphabetic() => Err(HeadFault::NotHttp { byte }),
            _ if self.lines == 0 && at >= self.line_limit => {
                Err(HeadFault::LineTooLong { limit: self.line_limit })
            }
            _ => Ok(()),
        }
    }

    /// Records the line that ends at `at`; true if it is the empty one after a head.
    fn end_line(&mut self, at: usize) -> bool {
        let empty = self.line_start + 1 == at;
        if empty && self.lines == 0 {
            let _ = self.buffer.split_to(at + 1);
            self.scanned = 0;
            self.blank_lines += 1;
            return false;
        }
        self.lines += 1;
        self.line_start = at + 1;
        empty
    }
}

/// The fields of a head. Values are kept as they came; nothing is copied out of the head.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Headers {
    head: Bytes,
    fields: Vec<(Range<usize>, Range<usize>)>,
}

impl Headers {
    /// `parsed` must point into `head`, which is where httparse leaves it.
    pub(super) fn new(head: &Bytes, parsed: &[httparse::Header<'_>]) -> Self {
        let within = |part: &[u8]| {
            let start = (part.as_ptr() as usize).wrapping_sub(head.as_ptr() as usize);
            // An empty value may point anywhere.
            if part.is_empty() { 0..0 } else { start..start + part.len() }
        };
        let fields =
            parsed.iter().map(|field| (within(field.name.as_bytes()), within(field.value))).collect();
        Self { head: head.clone(), fields }
    }

    /// All values of a field, in order; the name is compared without regard to case.
    pub fn values<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a [u8]> + 'a {
        let part = |range: &Range<usize>| self.head.get(range.clone()).unwrap_or_default();
        let named = move |(field, _): &&(Range<usize>, Range<usize>)| {
            part(field).eq_ignore_ascii_case(name.as_bytes())
        };
        self.fields.iter().filter(named).map(move |(_, value)| part(value))
    }

    /// The first value of a field; `None` also if it is not UTF-8.
    pub fn get(&self, name: &str) -> Option<&str> {
        let at = self.fields.iter().find(|(field, _)| {
            self.head.get(field.clone()).is_some_and(|part| part.eq_ignore_ascii_case(name.as_bytes()))
        })?;
        std::str::from_utf8(self.head.get(at.1.clone())?).ok()
    }

    /// Whether a list field such as `Connection` contains a token, in any of its lines and in any case.
    pub fn has_token(&self, name: &str, token: &str) -> bool {
        let mut words = self.values(name).flat_map(|value| value.split(|byte| *byte == b','));
        words.any(|word| word.trim_ascii().eq_ignore_ascii_case(token.as_bytes()))
    }

    /// How many fields there are.
    pub fn len(&self) -> usize {
        self.fields.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.fields.is_empty()
    }

    /// How the body is delimited by the fields alone (RFC 9112, 6.1-6.3).
    ///
    /// # Errors
    /// Every form that another implementation could read differently.
    pub(super) fn body_length(&self, version11: bool) -> Result<BodyLength, HeadFault> {
        let length = self.content_length()?;
        let mut codings = self.values("transfer-encoding");
        let Some(coding) = codings.next() else {
            return Ok(length.map_or(BodyLength::None, BodyLength::Length));
        };
        if length.is_some() {
            return Err(HeadFault::LengthAndCoding);
        }
        if !version11 {
            return Err(HeadFault::CodingInHttp10);
        }
        if !coding.eq_ignore_ascii_case(b"chunked") || codings.next().is_some() {
            return Err(HeadFault::UnknownCoding);
        }
        Ok(BodyLength::Chunked)
    }

    fn content_length(&self) -> Result<Option<u64>, HeadFault> {
        let mut length = None;
        for word in self.values("content-length").flat_map(|value| value.split(|byte| *byte == b',')) {
            let second = digits(word.trim_ascii()).ok_or(HeadFault::BadLength)?;
            match length {
                Some(first) if first != second => return Err(HeadFault::LengthsDiffer { first, second }),
                _ => length = Some(second),
            }
        }
        Ok(length)
    }
}

/// Plain digits, no sign; `None` also for more than 64 bits.
fn digits(text: &[u8]) -> Option<u64> {
    if text.is_empty() {
        return None;
    }
    text.iter().try_fold(0u64, |number, byte| {
        let digit = byte.is_ascii_digit().then(|| u64::from(byte - b'0'))?;
        number.checked_mul(10)?.checked_add(digit)
    })
}
