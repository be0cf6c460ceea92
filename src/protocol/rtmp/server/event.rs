//! What goes between a server's session and its caller besides bytes.

#[cfg(doc)]
use super::ServerSession;
use crate::media::tag::Tag;
use crate::protocol::rtmp::chunk::ChunkLimits;
use crate::protocol::rtmp::command::PublishKind;
use crate::protocol::rtmp::target::Target;

/// What one peer may make a session hold or do.
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
    /// Bytes of answers the caller has not taken; above what one input of 64 KiB can ask for.
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
    /// It wants to publish: call [`ServerSession::accept_publish`] or [`ServerSession::refuse_publish`].
    Publish {
        /// The stream; not validated.
        target: Target,
        /// The URL it says it connected to, with query and host.
        tc_url: String,
        /// What it says it is, such as `FMLE/3.0`; may be empty.
        agent: String,
        /// How it wants the stream kept.
        kind: PublishKind,
    },
    /// It wants to watch: call [`ServerSession::accept_play`] or [`ServerSession::refuse_play`].
    Play {
        /// The stream; not validated.
        target: Target,
        /// What it says it is; may be empty.
        agent: String,
    },
    /// It does not want to watch any more, accepted or not.
    StopPlay,
    /// While it watches: it wants to pause, or to go on.
    Pause(bool),
    /// While it watches: whether it wants sound, or pictures.
    Receive {
        /// Sound, otherwise pictures.
        audio: bool,
        /// Whether it wants them.
        wanted: bool,
    },
    /// A tag of the accepted publish, never empty. `@setDataFrame` is taken off script tags.
    Media(Tag),
    /// It ended the publish, accepted or not. The end of the connection is not reported here.
    Unpublish,
}

/// Why a publish or play is turned down.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// The name is not allowed, or somebody publishes it already.
    BadName,
    /// The peer is not allowed to.
    Denied,
    /// There is no such stream; for viewers.
    NotFound,
    /// Our fault.
    Failed,
}

impl Refusal {
    pub(super) fn publish_code(self) -> &'static str {
        match self {
            Self::BadName => "NetStream.Publish.BadName",
            Self::Denied => "NetStream.Publish.Denied",
            Self::NotFound | Self::Failed => "NetStream.Failed",
        }
    }

    pub(super) fn play_code(self) -> &'static str {
        match self {
            Self::NotFound | Self::BadName => "NetStream.Play.StreamNotFound",
            Self::Denied | Self::Failed => "NetStream.Play.Failed",
        }
    }
}
