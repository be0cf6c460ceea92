//! RTMP 1.0 as spoken by real encoders: handshake, chunks, messages, commands, and a session for each side of a
//! publish.
//!
//! | module | layer |
//! |---|---|
//! | [`handshake`] | C0 to S2, simple and with digests |
//! | [`chunk`] | messages read from chunks and written to them |
//! | [`message`] | protocol control, user control, aggregates |
//! | [`command`] | `connect`, `publish`, … and their answers, in AMF0 |
//! | [`target`] | which stream a publisher or viewer means |
//! | [`server`] | the session with a publisher or viewer that connected to us |
//! | [`client`] | the session with a server we publish to |
//!
//! Deliberately left out: RTMPE, RTMPT, AMF3 values, shared objects.

pub mod chunk;
pub mod client;
pub mod command;
pub mod handshake;
mod link;
pub mod message;
pub mod server;
pub mod target;

use crate::media::amf0::AmfError;
use chunk::ChunkError;
use handshake::HandshakeError;
use message::MessageError;

/// Why a session cannot continue.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RtmpError {
    /// The handshake is not RTMP's.
    #[error("handshake: {0}")]
    Handshake(#[from] HandshakeError),
    /// The chunk stream is broken or exceeds a limit.
    #[error("chunk stream: {0}")]
    Chunk(#[from] ChunkError),
    /// A control or aggregate message is malformed.
    #[error("message: {0}")]
    Message(#[from] MessageError),
    /// A command's AMF0 is malformed.
    #[error("command: {0}")]
    Command(#[from] AmfError),
    /// A command message larger than any real one.
    #[error("command of {bytes} bytes, limit {limit}")]
    CommandTooLarge {
        /// Payload bytes.
        bytes: usize,
        /// The limit in bytes.
        limit: usize,
    },
    /// Something other than `connect` came first.
    #[error("`{command}` before connect")]
    NotConnected {
        /// The command.
        command: &'static str,
    },
    /// A second `connect`.
    #[error("connect twice on one connection")]
    ConnectedTwice,
    /// Commands without any media between them.
    #[error("{limit} commands without media")]
    TooManyCommands {
        /// The limit.
        limit: u32,
    },
    /// More `createStream` than `deleteStream`.
    #[error("more than {limit} streams on one connection")]
    TooManyStreams {
        /// The limit.
        limit: u32,
    },
    /// Media without a publish, or too much of it before the publish was accepted.
    #[error("{bytes} bytes of media without an accepted publish, limit {limit}")]
    MediaUnasked {
        /// Bytes so far.
        bytes: usize,
        /// The limit in bytes.
        limit: usize,
    },
    /// The peer sends requests faster than it reads the answers.
    #[error("{bytes} bytes of answers are not taken, limit {limit}")]
    OutputStalled {
        /// Bytes waiting.
        bytes: usize,
        /// The limit in bytes.
        limit: usize,
    },
    /// The server refused our publish.
    #[error("the server refused: {code}: {description}")]
    Refused {
        /// The status code, such as `NetStream.Publish.BadName`.
        code: String,
        /// The server's description.
        description: String,
    },
    /// The session ended with an error before.
    #[error("the session is over")]
    Over,
}
