//! What passes between a server's session and its caller, apart from bytes.

#[cfg(doc)]
use super::ServerSession;
use crate::media::tag::Tag;
use crate::protocol::rtmp::chunk::ChunkLimits;
use crate::protocol::rtmp::command::PublishKind;
use crate::protocol::rtmp::target::Target;

/// Limits of what one peer may make a session hold or do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of one message, once the peer asked to publish; before that it is 64 KiB.
    pub message_max: u32,
    /// Chunk streams.
    pub csids_max: usize,
    /// Bytes of all unfinished messages together.
    pub unfinished_max: usize,
    /// Commands between two media messages.
    pub commands_max: u32,
    /// Message streams open at a time.
    pub streams_max: u32,
    /// Bytes of media that are ignored without a publish, or held until it is accepted.
    pub media_unasked_max: usize,
    /// Bytes of answers that the caller has not taken; more than one input of 64 KiB can cause.
    pub output_max: usize,
}

impl Default for Limits {
    fn default() -> Self {
        let chunks = ChunkLimits::default();
        Self {
            message_max: chunks.message_max,
            csids_max: chunks.streams_max,
            unfinished_max: chunks.unfinished_max,
            commands_max: 256,
            streams_max: 8,
            media_unasked_max: 1 << 20,
            output_max: 256 * 1024,
        }
    }
}

/// What a peer did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// It requests to publish: call [`ServerSession::accept_publish`] or [`ServerSession::refuse_publish`].
    Publish {
        /// The stream; not validated.
        target: Target,
        /// The URL that it says it connected to, with query and host.
        tc_url: String,
        /// The peer's name and version, such as `FMLE/3.0`; may be empty.
        agent: String,
        /// How it asks the stream to be kept.
        kind: PublishKind,
    },
    /// It requests to play: call [`ServerSession::accept_play`] or [`ServerSession::refuse_play`].
    Play {
        /// The stream; not validated.
        target: Target,
        /// The peer's name and version; may be empty.
        agent: String,
    },
    /// It ended the play, accepted or not.
    StopPlay,
    /// While playing: it pauses, or continues.
    Pause(bool),
    /// While playing: it switches sound or pictures on or off.
    Receive {
        /// Sound, otherwise pictures.
        audio: bool,
        /// `true`: on.
        wanted: bool,
    },
    /// A tag of the accepted publish, never empty. `@setDataFrame` is removed from script tags.
    Media(Tag),
    /// It ended the publish, accepted or not. The end of the connection is not reported here.
    Unpublish,
}

/// Why a publish or play is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// The name is not allowed, or it has a publisher already.
    BadName,
    /// The peer has no right to the stream.
    Unauthorised,
    /// There is no such stream; for viewers.
    NotFound,
    /// A fault of the server.
    Failed,
}

impl Refusal {
    pub(super) fn publish_code(self) -> &'static str {
        match self {
            Self::BadName => "NetStream.Publish.BadName",
            Self::Unauthorised => "NetStream.Publish.Unauthorized",
            Self::NotFound | Self::Failed => "NetStream.Failed",
        }
    }

    pub(super) fn play_code(self) -> &'static str {
        match self {
            Self::NotFound | Self::BadName => "NetStream.Play.StreamNotFound",
            Self::Unauthorised | Self::Failed => "NetStream.Play.Failed",
        }
    }
}
