//! The response to an upgrade. The request is checked where it is read: `Request::websocket_key`.

use std::hash::{BuildHasher, RandomState};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use sha1::{Digest, Sha1};

use crate::protocol::http::Head;

/// Appended to every key (RFC 6455, 1.3).
const GUID: &[u8] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

/// The longest name of a subprotocol that is repeated.
const PROTOCOL_MAX: usize = 64;

/// The value of `Sec-WebSocket-Accept` for a key (RFC 6455, 4.2.2).
pub fn accept_key(key: &str) -> String {
    let mut hash = Sha1::new();
    hash.update(key.as_bytes());
    hash.update(GUID);
    STANDARD.encode(hash.finalize())
}

/// A key for our own upgrade request: 16 bytes that differ each time.
pub fn random_key() -> String {
    let word = || RandomState::new().hash_one(0u8).to_ne_bytes();
    STANDARD.encode([word(), word()].concat())
}

/// The whole response that turns a connection into a WebSocket. `protocol` is the subprotocol chosen among
/// those that the client offered.
pub fn upgrade_response(key: &str, protocol: Option<&str>) -> Vec<u8> {
    let head = Head::new(101)
        .header("Upgrade", "websocket")
        .header("Connection", "Upgrade")
        .header("Sec-WebSocket-Accept", accept_key(key));
    match protocol {
        Some(protocol) => head.header("Sec-WebSocket-Protocol", protocol).encode(),
        None => head.encode(),
    }
}

/// The subprotocol of the response: the first of those that the client offers in `Sec-WebSocket-Protocol` (RFC
/// 6455, 4.2.2). No subprotocol has a meaning here, but browsers fail a connection if they offered some and
/// none was chosen. `None` if the first is not a token (RFC 9110, 5.6.2): then none is chosen.
pub fn first_protocol(offered: &str) -> Option<&str> {
    let first = offered.split(',').map(str::trim).find(|name| !name.is_empty())?;
    let token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    (first.len() <= PROTOCOL_MAX && first.bytes().all(token)).then_some(first)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_subprotocol_that_is_offered_is_chosen() {
        for (offered, chosen) in [
            ("flv", Some("flv")),
            (" flv , null", Some("flv")),
            (", v1.flv", Some("v1.flv")),
            ("", None),
            (",", None),
            ("a b", None),
            ("flv\r\nX: y", None),
            ("\"flv\"", None),
            ("flv\u{e9}", None),
        ] {
            assert_eq!(first_protocol(offered), chosen, "{offered:?}");
        }
        assert_eq!(first_protocol(&"x".repeat(PROTOCOL_MAX + 1)), None);
    }

    #[test]
    fn the_standards_example() {
        let key = "dGhlIHNhbXBsZSBub25jZQ==";
        assert_eq!(accept_key(key), "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
        let answer = String::from_utf8(upgrade_response(key, Some("flv"))).unwrap();
        assert!(answer.starts_with("HTTP/1.1 101 Switching Protocols\r\n"));
        assert!(answer.contains("\r\nSec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n"));
        assert!(answer.ends_with("\r\nSec-WebSocket-Protocol: flv\r\n\r\n"));
    }
}
