//! Records: plaintext to protected records ([`Sealer`]), and back ([`Opener`]).

use std::borrow::Cow;

use super::error::{TlsError, alert};
use super::keys::{EXPLICIT_LEN, Keys, TAG_LEN, Version};

/// Bytes of a record's header.
const HEADER: usize = 5;
/// The most plaintext of a record (RFC 8446, 5.1).
pub const TEXT_MAX: usize = 1 << 14;
/// What a record adds to its plaintext at most: header, explicit nonce or inner type, tag.
pub const OVERHEAD_MAX: usize = HEADER + EXPLICIT_LEN + TAG_LEN;
/// The longest body of a record (RFC 8446, 5.2). TLS 1.2 allows more, and no suite that is used here needs it.
const BODY_MAX: usize = TEXT_MAX + 256;
/// The most bytes of handshake messages after the handshake that may wait for their end: session tickets.
const MESSAGE_MAX: usize = 4 + (1 << 16) + 512;
/// How many records without content, or new keys, may come in a row.
const IDLE_MAX: u8 = 32;

/// Content types (RFC 8446, 5.1).
pub(super) mod content {
    /// Alerts.
    pub(in super::super) const ALERT: u8 = 21;
    /// Handshake messages.
    pub(in super::super) const HANDSHAKE: u8 = 22;
    /// Data of the application.
    pub(in super::super) const DATA: u8 = 23;
}

/// Handshake messages that may come after the handshake (RFC 8446, 4; RFC 5246, 7.4).
mod message {
    pub(super) const HELLO_REQUEST: u8 = 0;
    pub(super) const CLIENT_HELLO: u8 = 1;
    pub(super) const NEW_SESSION_TICKET: u8 = 4;
    pub(super) const KEY_UPDATE: u8 = 24;
}

/// Protects what is sent.
#[derive(Debug)]
pub struct Sealer {
    keys: Keys,
}

impl Sealer {
    pub(super) fn new(keys: Keys) -> Self {
        Self { keys }
    }

    /// Appends the records of `parts`, one after the other, to `out`.
    pub fn seal(&mut self, parts: [&[u8]; 2], out: &mut Vec<u8>) {
        let [mut first, mut second] = parts;
        while !first.is_empty() || !second.is_empty() {
            if self.keys.is_spent() {
                self.update_key(out);
            }
            let (a, rest) = first.split_at(first.len().min(TEXT_MAX));
            let (b, later) = second.split_at(second.len().min(TEXT_MAX - a.len()));
            (first, second) = (rest, later);
            self.record(content::DATA, [a, b], out);
        }
    }

    /// Appends an alert: [`alert::CLOSE_NOTIFY`], or why the connection ends.
    pub fn alert(&mut self, code: u8, out: &mut Vec<u8>) {
        let level = if code == alert::CLOSE_NOTIFY { 1 } else { 2 };
        self.record(content::ALERT, [&[level, code], &[]], out);
    }

    /// Appends a key update and sends with new keys from then on (RFC 8446, 4.6.3).
    pub fn update_key(&mut self, out: &mut Vec<u8>) {
        const NOT_REQUESTED: u8 = 0;
        self.record(content::HANDSHAKE, [&[message::KEY_UPDATE, 0, 0, 1, NOT_REQUESTED], &[]], out);
        self.keys.update();
    }

    fn record(&mut self, kind: u8, [a, b]: [&[u8]; 2], out: &mut Vec<u8>) {
        let explicit = if self.keys.is_explicit() { EXPLICIT_LEN } else { 0 };
        let (outer, inner) = match self.keys.version {
            Version::Tls13 => (content::DATA, 1),
            Version::Tls12 => (kind, 0),
        };
        let (text, tail) = (a.len() + b.len(), inner + TAG_LEN);
        let body = u16::try_from(explicit + text + tail).expect("a record is far below 2^16");
        let header = [outer, 3, 3, (body >> 8) as u8, (body & 0xff) as u8];
        let start = out.len() + HEADER;
        out.extend_from_slice(&header);
        out.extend_from_slice(&[0; EXPLICIT_LEN][..explicit]);
        out.extend_from_slice(a);
        out.extend_from_slice(b);
        out.extend_from_slice(&[0; 1 + TAG_LEN][..tail]);
        let (nonce, rest) = out[start..].split_at_mut(explicit);
        let (text, tail) = rest.split_at_mut(text);
        let told = self.keys.seal(&header, kind, text, tail);
        nonce.copy_from_slice(&told[..explicit]);
    }
}

/// What the peer's records ask for besides their data.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Wants {
    /// It wants our next records with a new key: [`Sealer::update_key`].
    pub key_update: bool,
    /// It sends no more.
    pub closed: bool,
}

/// Reads what is received.
#[derive(Debug)]
pub struct Opener {
    keys: Keys,
    pieces: Pieces,
    /// The beginning of a handshake message.
    message: Vec<u8>,
    idle: u8,
    closed: bool,
}

impl Opener {
    pub(super) fn new(keys: Keys) -> Self {
        Self { keys, pieces: Pieces::default(), message: Vec::new(), idle: 0, closed: false }
    }

    /// Bytes that it keeps of incomplete records and messages.
    pub fn held(&self) -> usize {
        self.pieces.held() + self.message.capacity()
    }

    /// Takes bytes from the peer and appends their plaintext to `plain`. What follows a close is ignored.
    ///
    /// # Errors
    /// [`TlsError`]: the connection has to end, after the alert that it names. What was appended before is
    /// valid.
    pub fn push(&mut self, mut bytes: &[u8], plain: &mut Vec<u8>) -> Result<Wants, TlsError> {
        let mut wants = Wants::default();
        while !self.closed
            && let Some(record) = self.pieces.next(&mut bytes)?
        {
            self.open(&record, plain, &mut wants)?;
        }
        wants.closed = self.closed;
        Ok(wants)
    }

    fn open(&mut self, record: &[u8], plain: &mut Vec<u8>, wants: &mut Wants) -> Result<(), TlsError> {
        let (header, mut body) = record.split_at(HEADER);
        let mut kind = header[0];
        if self.keys.version == Version::Tls13 && kind != content::DATA {
            return Err(TlsError::Unexpected(kind));
        }
        let mut explicit = None;
        if self.keys.is_explicit() {
            let (nonce, rest) = body.split_first_chunk::<EXPLICIT_LEN>().ok_or(TlsError::Decrypt)?;
            (explicit, body) = (Some(*nonce), rest);
        }
        let start = plain.len();
        plain.extend_from_slice(body);
        let opened = self.keys.open((header, kind), explicit, &mut plain[start..]);
        plain.truncate(start + opened.unwrap_or(0));
        if opened.is_none() {
            return Err(TlsError::Decrypt);
        }
        if self.keys.version == Version::Tls13 {
            // The inner type is the last byte that is not padding (RFC 8446, 5.4).
            let Some(end) = plain[start..].iter().rposition(|byte| *byte != 0) else {
                plain.truncate(start);
                return Err(TlsError::Unexpected(0));
            };
            kind = plain[start + end];
            plain.truncate(start + end);
        }
        let len = plain.len() - start;
        if len > TEXT_MAX {
            plain.truncate(start);
            return Err(TlsError::TooLong(len));
        }
        if kind == content::DATA {
            if len == 0 {
                return self.rest();
            }
            self.idle = 0;
            return Ok(());
        }
        let text = plain.split_off(start);
        match kind {
            content::ALERT => self.alert(&text),
            content::HANDSHAKE => self.handshake(&text, wants),
            _ => Err(TlsError::Unexpected(kind)),
        }
    }

    fn alert(&mut self, text: &[u8]) -> Result<(), TlsError> {
        match *text {
            [_, alert::CLOSE_NOTIFY] => {
                self.closed = true;
                Ok(())
            }
            [_, alert::USER_CANCELED] => Ok(()),
            // A warning of TLS 1.2 ends nothing.
            [1, _] if self.keys.version == Version::Tls12 => self.rest(),
            [_, code] => Err(TlsError::Alert(code)),
            _ => Err(TlsError::Malformed),
        }
    }

    /// Something came that is no data.
    fn rest(&mut self) -> Result<(), TlsError> {
        self.idle += 1;
        if self.idle > IDLE_MAX { Err(TlsError::Idle) } else { Ok(()) }
    }

    fn handshake(&mut self, text: &[u8], wants: &mut Wants) -> Result<(), TlsError> {
        self.rest()?;
        if text.is_empty() || self.message.len() + text.len() > MESSAGE_MAX {
            return Err(TlsError::Malformed);
        }
        let mut message = std::mem::take(&mut self.message);
        message.extend_from_slice(text);
        let mut left = &message[..];
        while let [kind, a, b, c, body @ ..] = left {
            let len = u32::from_be_bytes([0, *a, *b, *c]) as usize;
            let Some((body, rest)) = body.split_at_checked(len) else { break };
            match (self.keys.version, *kind, body) {
                // Messages do not span a change of keys (RFC 8446, 5.1).
                (Version::Tls13, message::KEY_UPDATE, [requested @ (0 | 1)]) if rest.is_empty() => {
                    self.keys.update();
                    wants.key_update |= *requested == 1;
                }
                (Version::Tls13, message::KEY_UPDATE, _) => return Err(TlsError::Malformed),
                (Version::Tls13, message::NEW_SESSION_TICKET, _)
                | (Version::Tls12, message::HELLO_REQUEST, []) => {}
                (Version::Tls12, message::CLIENT_HELLO, _) => return Err(TlsError::Renegotiation),
                (_, kind, _) => return Err(TlsError::Unexpected(kind)),
            }
            left = rest;
        }
        self.message = left.to_vec();
        Ok(())
    }
}

/// Puts records together that come in pieces.
#[derive(Debug, Default)]
pub(super) struct Pieces {
    /// The beginning of a record.
    partial: Vec<u8>,
}

impl Pieces {
    /// Takes the next whole record from the front of `bytes`. `None`: it is not complete, and all bytes were taken.
    pub(super) fn next<'a>(&mut self, bytes: &mut &'a [u8]) -> Result<Option<Cow<'a, [u8]>>, TlsError> {
        if self.partial.is_empty()
            && let Some(len) = record_len(bytes)?
            && let Some((record, rest)) = bytes.split_at_checked(len)
        {
            *bytes = rest;
            return Ok(Some(Cow::Borrowed(record)));
        }
        while !bytes.is_empty() {
            let needed = record_len(&self.partial)?.unwrap_or(HEADER) - self.partial.len();
            let (part, rest) = bytes.split_at(needed.min(bytes.len()));
            *bytes = rest;
            self.partial.extend_from_slice(part);
            if record_len(&self.partial)? == Some(self.partial.len()) {
                return Ok(Some(Cow::Owned(std::mem::take(&mut self.partial))));
            }
        }
        Ok(None)
    }

    /// Bytes that it keeps.
    pub(super) fn held(&self) -> usize {
        self.partial.capacity()
    }
}

/// The length of the record at the front, its header included; `None`: its header is not complete.
fn record_len(bytes: &[u8]) -> Result<Option<usize>, TlsError> {
    let Some(&[kind, major, minor, high, low]) = bytes.first_chunk::<HEADER>() else { return Ok(None) };
    if !(20..=23).contains(&kind) || major != 3 {
        return Err(TlsError::Header { kind, version: u16::from_be_bytes([major, minor]) });
    }
    let len = usize::from(u16::from_be_bytes([high, low]));
    if len > BODY_MAX { Err(TlsError::TooLong(len)) } else { Ok(Some(HEADER + len)) }
}
