//! WebSocket (RFC 6455): the response to an upgrade, writing and reading frames; for the client side, what a
//! pusher needs.
//!
//! Deliberately not done: extensions (none is accepted, so the reserved bits stay zero), and gathering whole
//! messages, because a pushed stream is read as it comes.

pub mod frame;
pub mod handshake;
pub mod reader;

pub use frame::{HEADER_MAX, Opcode, client_frame, close_frame, frame_header, pong_frame};
pub use handshake::{accept_key, first_protocol, upgrade_response};
pub use reader::{Event, FrameReader, WsError};

/// Close codes that the program sends (RFC 6455, 7.4.1).
pub mod code {
    /// The normal end: the stream ended.
    pub const NORMAL: u16 = 1000;
    /// The server shuts down.
    pub const GOING_AWAY: u16 = 1001;
    /// The peer broke the protocol.
    pub const PROTOCOL: u16 = 1002;
    /// Data of a kind that is not accepted here.
    pub const UNSUPPORTED: u16 = 1003;
    /// Text that is not UTF-8.
    pub const BAD_DATA: u16 = 1007;
    /// Refused: the name, the token or a rule.
    pub const POLICY: u16 = 1008;
    /// A message beyond its limit.
    pub const TOO_BIG: u16 = 1009;
    /// The server failed.
    pub const INTERNAL: u16 = 1011;
    /// Try again later: the viewer lags, or the capacity is exhausted.
    pub const TRY_AGAIN: u16 = 1013;
}
