//! The header by which a proxy tells whom it forwards: PROXY protocol, versions 1 and 2 (HAProxy's specification
//! `proxy-protocol.txt`, 2.1 and 2.2).
//!
//! Deliberately not done: the destination and the TLVs are checked for their lengths and ignored, the checksum TLV
//! included.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// The first bytes of version 1.
const TEXT: &[u8] = b"PROXY ";
/// The longest header of version 1, its line end included.
const TEXT_MAX: usize = 107;
/// The first bytes of version 2.
const SIGNATURE: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";
/// Version 2: signature, version and command, family and transport, length of the rest (big endian).
const FIXED: usize = 16;
/// The most bytes after [`FIXED`] that are accepted.
const REST_MAX: usize = 4096;

/// The beginning of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Opening {
    /// Not a header.
    Other,
    /// A header.
    Header {
        /// Its length in bytes; what the client has sent follows.
        len: usize,
        /// The client, if it names one: not for the proxy's own connections and for other transports than TCP.
        client: Option<SocketAddr>,
    },
}

/// What is wrong with a header.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProxyError {
    /// Version 1: the line has no end.
    #[error("PROXY header: no line end within {TEXT_MAX} bytes")]
    LineTooLong,
    /// Version 1: another form than `PROXY TCP4|TCP6|UNKNOWN source destination port port`.
    #[error("PROXY header: the line is malformed")]
    Line,
    /// Not version 2.
    #[error("PROXY header: version {0}")]
    Version(u8),
    /// Neither LOCAL nor PROXY.
    #[error("PROXY header: unknown command {0}")]
    Command(u8),
    /// An address family or a transport that is not defined.
    #[error("PROXY header: unknown family and transport {0:#04x}")]
    Family(u8),
    /// Longer than accepted.
    #[error("PROXY header: {0} bytes after the fixed part, limit {REST_MAX}")]
    TooLong(u16),
    /// Shorter than the addresses of its family.
    #[error("PROXY header: {0} bytes are too few for its addresses")]
    TooShort(u16),
    /// A TLV that reaches beyond the header.
    #[error("PROXY header: a TLV ends outside of it")]
    Tlv,
}

/// Looks for a header at the beginning of what was received so far; `Ok(None)`: more bytes are needed. `input` need
/// never be longer than the bytes that were received when it last was `None`, and the next ones.
///
/// # Errors
/// [`ProxyError`] when it begins like a header and is none.
pub fn opening(input: &[u8]) -> Result<Option<Opening>, ProxyError> {
    let begins = |magic: &[u8]| input.iter().zip(magic).all(|(got, want)| got == want);
    if begins(TEXT) {
        if input.len() < TEXT.len() { Ok(None) } else { text(input) }
    } else if begins(SIGNATURE) {
        if input.len() < FIXED { Ok(None) } else { binary(input) }
    } else {
        Ok(Some(Opening::Other))
    }
}

fn text(input: &[u8]) -> Result<Option<Opening>, ProxyError> {
    let within = &input[..input.len().min(TEXT_MAX)];
    let Some(end) = within.windows(2).position(|pair| pair == b"\r\n") else {
        return if within.len() < TEXT_MAX { Ok(None) } else { Err(ProxyError::LineTooLong) };
    };
    let line = std::str::from_utf8(&within[TEXT.len()..end]).map_err(|_| ProxyError::Line)?;
    let client = text_client(line).ok_or(ProxyError::Line)?;
    Ok(Some(Opening::Header { len: end + 2, client }))
}

/// `TCP4 192.0.2.1 192.0.2.2 50000 1935`; the inner `None`: `UNKNOWN`, whatever follows.
fn text_client(line: &str) -> Option<Option<SocketAddr>> {
    let mut fields = line.split(' ');
    let parse = match fields.next()? {
        "TCP4" => |text: &str| text.parse().ok().map(IpAddr::V4),
        "TCP6" => |text: &str| text.parse().ok().map(IpAddr::V6),
        "UNKNOWN" => return Some(None),
        _ => return None,
    };
    let (source, _) = (parse(fields.next()?)?, parse(fields.next()?)?);
    let (port, _) = (text_port(fields.next()?)?, text_port(fields.next()?)?);
    fields.next().is_none().then(|| Some((source.to_canonical(), port).into()))
}

fn text_port(text: &str) -> Option<u16> {
    let is_plain = text.bytes().all(|byte| byte.is_ascii_digit()) && (text == "0" || !text.starts_with('0'));
    is_plain.then(|| text.parse().ok())?
}

fn binary(input: &[u8]) -> Result<Option<Opening>, ProxyError> {
    let (version, command, family) = (input[12] >> 4, input[12] & 15, input[13]);
    let announced = u16::from_be_bytes([input[14], input[15]]);
    if version != 2 {
        return Err(ProxyError::Version(version));
    }
    if command > 1 {
        return Err(ProxyError::Command(command));
    }
    if family >> 4 > 3 || family & 15 > 2 {
        return Err(ProxyError::Family(family));
    }
    if usize::from(announced) > REST_MAX {
        return Err(ProxyError::TooLong(announced));
    }
    let len = FIXED + usize::from(announced);
    let Some(rest) = input.get(FIXED..len) else { return Ok(None) };
    if command == 0 {
        return Ok(Some(Opening::Header { len, client: None }));
    }
    let (client, tlvs) = binary_client(family, rest).ok_or(ProxyError::TooShort(announced))?;
    check_tlvs(tlvs)?;
    Ok(Some(Opening::Header { len, client }))
}

/// Source, destination, source port, destination port; then TLVs.
fn binary_client(family: u8, rest: &[u8]) -> Option<(Option<SocketAddr>, &[u8])> {
    let (source, tlvs) = match family >> 4 {
        1 => {
            let (addresses, tlvs) = rest.split_first_chunk::<12>()?;
            let [a, b, c, d, _, _, _, _, high, low, ..] = *addresses;
            (SocketAddr::from((Ipv4Addr::new(a, b, c, d), u16::from_be_bytes([high, low]))), tlvs)
        }
        2 => {
            let (addresses, tlvs) = rest.split_first_chunk::<36>()?;
            let source = Ipv6Addr::from(*addresses.first_chunk::<16>()?);
            let port = u16::from_be_bytes([addresses[32], addresses[33]]);
            (SocketAddr::from((IpAddr::V6(source).to_canonical(), port)), tlvs)
        }
        3 => return Some((None, rest.get(216..)?)), // two paths of 108 bytes
        _ => return Some((None, &[])),              // unspecified: all that follows is ignored
    };
    Some(((family & 15 == 1).then_some(source), tlvs))
}

/// Each is a type of one byte, a length of two, and so many bytes.
fn check_tlvs(mut tlvs: &[u8]) -> Result<(), ProxyError> {
    while !tlvs.is_empty() {
        let (head, rest) = tlvs.split_first_chunk::<3>().ok_or(ProxyError::Tlv)?;
        tlvs = rest.get(usize::from(u16::from_be_bytes([head[1], head[2]]))..).ok_or(ProxyError::Tlv)?;
    }
    Ok(())
}

#[cfg(test)]
#[path = "proxy_tests.rs"]
mod tests;
