//! WebSocket (RFC 6455): the upgrade's answer, frames out, frames in; of the client's side, what a pusher needs.
//!
//! What it deliberately does not do: extensions (none is accepted, so the reserved bits stay zero), and
//! gathering whole messages, because a pushed stream is read as it comes.

pub mod frame;
pub mod handshake;
pub mod reader;

pub use frame::{HEADER_MAX, Opcode, client_frame, close_frame, frame_header, pong_frame};
pub use handshake::{accept_key, first_protocol, upgrade_response};
pub use reader::{Event, FrameReader, WsError};

/// Close codes that the program sends (RFC 6455, 7.4.1).
pub mod code {
    /// The purpose is fulfilled: the stream ended.
    pub const NORMAL: u16 = 1000;
    /// The server goes down.
    pub const GOING_AWAY: u16 = 1001;
    /// The peer broke the protocol.
    pub const PROTOCOL: u16 = 1002;
    /// Data of a kind that is not taken here.
    pub const UNSUPPORTED: u16 = 1003;
    /// Text that is not UTF-8.
    pub const BAD_DATA: u16 = 1007;
    /// Refused: the name, the token, the rule.
    pub const POLICY: u16 = 1008;
    /// A message beyond its limit.
    pub const TOO_BIG: u16 = 1009;
    /// The server failed.
    pub const INTERNAL: u16 = 1011;
    /// Come back later: the viewer lags, or there is no room.
    pub const TRY_AGAIN: u16 = 1013;
}
