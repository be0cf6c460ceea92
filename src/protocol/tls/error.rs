//! Why a TLS connection ends.

/// The codes of alerts (RFC 8446, 6) that are sent or told apart here.
pub mod alert {
    /// The peer sends no more.
    pub const CLOSE_NOTIFY: u8 = 0;
    /// A message that must not come now.
    pub const UNEXPECTED_MESSAGE: u8 = 10;
    /// A record that cannot be decrypted.
    pub const BAD_RECORD_MAC: u8 = 20;
    /// A record that is too long.
    pub const RECORD_OVERFLOW: u8 = 22;
    /// A message that cannot be parsed.
    pub const DECODE_ERROR: u8 = 50;
    /// The user has canceled; a close follows.
    pub const USER_CANCELED: u8 = 90;
    /// A second handshake is refused.
    pub const NO_RENEGOTIATION: u8 = 100;
}

/// What the peer did wrong, or said.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum TlsError {
    /// The handshake failed.
    #[error("TLS handshake: {0}")]
    Handshake(#[from] rustls::Error),
    /// The handshake takes more bytes than any honest one.
    #[error("TLS handshake of more than {0} bytes")]
    HandshakeTooLong(usize),
    /// A record's header is invalid.
    #[error("TLS record of type {kind}, version {version:#06x}")]
    Header {
        /// Its content type.
        kind: u8,
        /// Its version.
        version: u16,
    },
    /// A record is longer than allowed.
    #[error("TLS record of {0} bytes")]
    TooLong(usize),
    /// A record cannot be decrypted.
    #[error("TLS record that cannot be decrypted")]
    Decrypt,
    /// A record without a content type, or a message that cannot be parsed.
    #[error("malformed TLS message")]
    Malformed,
    /// A message that must not come after the handshake.
    #[error("unexpected TLS message of type {0}")]
    Unexpected(u8),
    /// The peer wants another handshake.
    #[error("TLS renegotiation is not supported")]
    Renegotiation,
    /// The peer sends records without content, or new keys, and nothing else.
    #[error("TLS records without content")]
    Idle,
    /// The peer has ended the connection with an error.
    #[error("TLS alert {0} from the peer")]
    Alert(u8),
}

impl TlsError {
    /// The alert to send before closing; `None`: the handshake has queued its own, or the peer has sent one.
    pub fn alert(&self) -> Option<u8> {
        Some(match self {
            Self::Handshake(_) | Self::Alert(_) => return None,
            Self::TooLong(_) => alert::RECORD_OVERFLOW,
            Self::Decrypt => alert::BAD_RECORD_MAC,
            Self::Malformed | Self::Header { .. } => alert::DECODE_ERROR,
            Self::Renegotiation => alert::NO_RENEGOTIATION,
            Self::HandshakeTooLong(_) | Self::Unexpected(_) | Self::Idle => alert::UNEXPECTED_MESSAGE,
        })
    }
}
