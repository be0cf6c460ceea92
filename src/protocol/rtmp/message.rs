//! Messages: the content of the chunk stream (RTMP 1.0, clauses 5.4, 6 and 7.1).

use bytes::{Buf, Bytes};

use crate::media::tag::{TAG_HEADER, TAG_TRAILER, Tag, TagKind};

/// Message type ids (clauses 5.4 and 7.1).
#[allow(missing_docs)] // named as in the standard
pub mod kind {
    pub const SET_CHUNK_SIZE: u8 = 1;
    pub const ABORT: u8 = 2;
    pub const ACKNOWLEDGEMENT: u8 = 3;
    pub const USER_CONTROL: u8 = 4;
    pub const WINDOW_ACK_SIZE: u8 = 5;
    pub const SET_PEER_BANDWIDTH: u8 = 6;
    pub const AUDIO: u8 = 8;
    pub const VIDEO: u8 = 9;
    pub const DATA_AMF3: u8 = 15;
    pub const COMMAND_AMF3: u8 = 17;
    pub const DATA_AMF0: u8 = 18;
    pub const COMMAND_AMF0: u8 = 20;
    pub const AGGREGATE: u8 = 22;
}

/// The chunk stream of protocol and user control (clause 5.4).
pub const CONTROL_CSID: u32 = 2;
/// The most tags in one aggregate message; real ones have some tens.
const AGGREGATE_TAGS_MAX: usize = 4096;

/// What was wrong with the peer's message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MessageError {
    /// A control message without all of its fields.
    #[error("message type {kind} of {len} bytes is too short")]
    TooShort {
        /// The message type.
        kind: u8,
        /// Payload bytes.
        len: usize,
    },
    /// An aggregate whose tag reaches past its end.
    #[error("aggregate: a tag of {needed} bytes where {left} are left")]
    AggregateTruncated {
        /// Bytes of the tag.
        needed: usize,
        /// Bytes left in the message.
        left: usize,
    },
    /// An aggregate with more tags than any real one.
    #[error("aggregate of more than {AGGREGATE_TAGS_MAX} tags")]
    AggregateTooMany,
}

/// One complete message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// The chunk stream it came on or goes to.
    pub csid: u32,
    /// The message type id, see [`kind`].
    pub kind: u8,
    /// Milliseconds; wraps at 2^32.
    pub timestamp: u32,
    /// The message stream; 0 is the connection.
    pub stream_id: u32,
    /// The payload, at most 2^24 - 1 bytes.
    pub payload: Bytes,
}

/// A user control message (clause 7.1.7): a 16-bit event type and its data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UserControl {
    /// Type 0: the stream exists.
    StreamBegin {
        /// The message stream.
        stream_id: u32,
    },
    /// Type 1: the stream has ended.
    StreamEof {
        /// The message stream.
        stream_id: u32,
    },
    /// Type 2: no data for now.
    StreamDry {
        /// The message stream.
        stream_id: u32,
    },
    /// Type 3: how much the player buffers.
    SetBufferLength {
        /// The message stream.
        stream_id: u32,
        /// Milliseconds.
        length: u32,
    },
    /// Type 4.
    StreamIsRecorded {
        /// The message stream.
        stream_id: u32,
    },
    /// Type 6: to be answered with the same number.
    PingRequest {
        /// The sender's clock, in its own units.
        time: u32,
    },
    /// Type 7.
    PingResponse {
        /// The number of the request.
        time: u32,
    },
    /// Any other type; the data is not kept.
    Other {
        /// The event type.
        event: u16,
    },
}

/// A protocol control message (clause 5.4) or user control message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Control {
    /// Clause 5.4.1.
    SetChunkSize {
        /// Bytes; not checked here.
        size: u32,
    },
    /// Clause 5.4.2.
    Abort {
        /// The chunk stream whose message is abandoned.
        csid: u32,
    },
    /// Clause 5.4.3.
    Acknowledgement {
        /// Bytes received so far; wraps at 2^32.
        sequence: u32,
    },
    /// Clause 5.4.4.
    WindowAckSize {
        /// Bytes between two acknowledgements.
        size: u32,
    },
    /// Clause 5.4.5.
    SetPeerBandwidth {
        /// Bytes.
        size: u32,
        /// 0 hard, 1 soft, 2 dynamic.
        limit: u8,
    },
    /// Clause 7.1.7.
    User(UserControl),
}

impl Control {
    /// Reads a control message; None for a message of any other type. Bytes after the fields are ignored.
    ///
    /// # Errors
    /// [`MessageError::TooShort`].
    pub fn parse(message_kind: u8, payload: &[u8]) -> Result<Option<Self>, MessageError> {
        let short = MessageError::TooShort { kind: message_kind, len: payload.len() };
        let word = |at: usize| {
            let bytes = payload.get(at..).and_then(|rest| rest.first_chunk());
            bytes.map(|bytes| u32::from_be_bytes(*bytes)).ok_or(short)
        };
        Ok(Some(match message_kind {
            kind::SET_CHUNK_SIZE => Self::SetChunkSize { size: word(0)? },
            kind::ABORT => Self::Abort { csid: word(0)? },
            kind::ACKNOWLEDGEMENT => Self::Acknowledgement { sequence: word(0)? },
            kind::WINDOW_ACK_SIZE => Self::WindowAckSize { size: word(0)? },
            kind::SET_PEER_BANDWIDTH => {
                Self::SetPeerBandwidth { size: word(0)?, limit: *payload.get(4).ok_or(short)? }
            }
            kind::USER_CONTROL => {
                let event = u16::from_be_bytes(*payload.first_chunk().ok_or(short)?);
                Self::User(match event {
                    0 => UserControl::StreamBegin { stream_id: word(2)? },
                    1 => UserControl::StreamEof { stream_id: word(2)? },
                    2 => UserControl::StreamDry { stream_id: word(2)? },
                    3 => UserControl::SetBufferLength { stream_id: word(2)?, length: word(6)? },
                    4 => UserControl::StreamIsRecorded { stream_id: word(2)? },
                    6 => UserControl::PingRequest { time: word(2)? },
                    7 => UserControl::PingResponse { time: word(2)? },
                    event => UserControl::Other { event },
                })
            }
            _ => return Ok(None),
        }))
    }

    /// The message to send: on chunk stream 2, message stream 0, with time 0.
    pub fn message(self) -> Message {
        let mut payload = Vec::with_capacity(10);
        let kind = match self {
            Self::SetChunkSize { size } => {
                payload.extend_from_slice(&size.to_be_bytes());
                kind::SET_CHUNK_SIZE
            }
            Self::Abort { csid } => {
                payload.extend_from_slice(&csid.to_be_bytes());
                kind::ABORT
            }
            Self::Acknowledgement { sequence } => {
                payload.extend_from_slice(&sequence.to_be_bytes());
                kind::ACKNOWLEDGEMENT
            }
            Self::WindowAckSize { size } => {
                payload.extend_from_slice(&size.to_be_bytes());
                kind::WINDOW_ACK_SIZE
            }
            Self::SetPeerBandwidth { size, limit } => {
                payload.extend_from_slice(&size.to_be_bytes());
                payload.push(limit);
                kind::SET_PEER_BANDWIDTH
            }
            Self::User(event) => {
                event.encode(&mut payload);
                kind::USER_CONTROL
            }
        };
        Message { csid: CONTROL_CSID, kind, timestamp: 0, stream_id: 0, payload: payload.into() }
    }
}

/// The tag of a data message, if it is one: its body begins with an AMF0 string, unlike the four bytes of time
/// code that ffmpeg sends. `@setDataFrame` is removed; `@clearDataFrame` gives no tag.
pub fn script_tag(timestamp: u32, mut body: Bytes) -> Option<Tag> {
    const SET: &[u8] = b"\x02\x00\x0d@setDataFrame";
    const CLEAR: &[u8] = b"\x02\x00\x0f@clearDataFrame";
    if body.starts_with(SET) {
        body.advance(SET.len());
    }
    let is_script = body.first() == Some(&2) && !body.starts_with(CLEAR);
    is_script.then_some(Tag { kind: TagKind::Script, timestamp, body })
}

/// The tags of a message: one of sound or pictures, one of data, those of an aggregate; no tags from other
/// messages.
///
/// # Errors
/// [`MessageError`] of an aggregate.
pub fn tags_of(message: Message) -> Result<Vec<Tag>, MessageError> {
    let Message { timestamp, payload, .. } = message;
    let tag = |kind| Tag { kind, timestamp, body: payload.clone() };
    Ok(match message.kind {
        kind::AUDIO => vec![tag(TagKind::Audio)],
        kind::VIDEO => vec![tag(TagKind::Video)],
        kind::DATA_AMF0 => script_tag(timestamp, payload).into_iter().collect(),
        // AMF3 data is AMF0 after a zero byte, in all known encoders.
        kind::DATA_AMF3 => script_tag(timestamp, payload.slice(payload.len().min(1)..)).into_iter().collect(),
        kind::AGGREGATE => {
            let script = |tag: Tag| match tag.kind {
                TagKind::Script => script_tag(tag.timestamp, tag.body),
                _ => Some(tag),
            };
            split_aggregate(timestamp, payload)?.into_iter().filter_map(script).collect()
        }
        _ => Vec::new(),
    })
}

impl UserControl {
    fn encode(self, out: &mut Vec<u8>) {
        let (event, first, second) = match self {
            Self::StreamBegin { stream_id } => (0u16, Some(stream_id), None),
            Self::StreamEof { stream_id } => (1, Some(stream_id), None),
            Self::StreamDry { stream_id } => (2, Some(stream_id), None),
            Self::SetBufferLength { stream_id, length } => (3, Some(stream_id), Some(length)),
            Self::StreamIsRecorded { stream_id } => (4, Some(stream_id), None),
            Self::PingRequest { time } => (6, Some(time), None),
            Self::PingResponse { time } => (7, Some(time), None),
            Self::Other { event } => (event, None, None),
        };
        out.extend_from_slice(&event.to_be_bytes());
        for word in [first, second].into_iter().flatten() {
            out.extend_from_slice(&word.to_be_bytes());
        }
    }
}

/// Splits an aggregate message (clause 7.1.6): FLV tags one after the other, whose times are shifted so that
/// the first one has the message's `timestamp`. Tags of other kinds are skipped; the bodies are slices of
/// `payload`.
///
/// # Errors
/// [`MessageError::AggregateTruncated`], [`MessageError::AggregateTooMany`]. The back pointer after the last
/// tag may be missing; the others are not compared.
pub fn split_aggregate(timestamp: u32, mut payload: Bytes) -> Result<Vec<Tag>, MessageError> {
    let mut tags = Vec::new();
    let mut first_time = None;
    while !payload.is_empty() {
        let truncated = |needed| MessageError::AggregateTruncated { needed, left: payload.len() };
        let Some(&[first, s2, s1, s0, t2, t1, t0, t3, _, _, _]) = payload.first_chunk::<TAG_HEADER>() else {
            return Err(truncated(TAG_HEADER));
        };
        let end = TAG_HEADER + u32::from_be_bytes([0, s2, s1, s0]) as usize;
        if payload.len() < end {
            return Err(truncated(end));
        }
        let time = u32::from_be_bytes([t3, t2, t1, t0]);
        let offset = timestamp.wrapping_sub(*first_time.get_or_insert(time));
        if let Some(kind) = TagKind::from_type(first) {
            if tags.len() == AGGREGATE_TAGS_MAX {
                return Err(MessageError::AggregateTooMany);
            }
            let body = payload.slice(TAG_HEADER..end);
            tags.push(Tag { kind, timestamp: time.wrapping_add(offset), body });
        }
        payload.advance((end + TAG_TRAILER).min(payload.len()));
    }
    Ok(tags)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_messages_and_their_bytes() {
        let cases: &[(Control, u8, &[u8])] = &[
            (Control::SetChunkSize { size: 4096 }, 1, &[0, 0, 16, 0]),
            (Control::Abort { csid: 5 }, 2, &[0, 0, 0, 5]),
            (Control::Acknowledgement { sequence: u32::MAX }, 3, &[255; 4]),
            (Control::WindowAckSize { size: 2_500_000 }, 5, &[0, 0x26, 0x25, 0xa0]),
            (Control::SetPeerBandwidth { size: 1, limit: 2 }, 6, &[0, 0, 0, 1, 2]),
            (Control::User(UserControl::StreamBegin { stream_id: 1 }), 4, &[0, 0, 0, 0, 0, 1]),
            (Control::User(UserControl::StreamEof { stream_id: 1 }), 4, &[0, 1, 0, 0, 0, 1]),
            (Control::User(UserControl::StreamDry { stream_id: 1 }), 4, &[0, 2, 0, 0, 0, 1]),
            (
                Control::User(UserControl::SetBufferLength { stream_id: 1, length: 3000 }),
                4,
                &[0, 3, 0, 0, 0, 1, 0, 0, 0x0b, 0xb8],
            ),
            (Control::User(UserControl::StreamIsRecorded { stream_id: 1 }), 4, &[0, 4, 0, 0, 0, 1]),
            (Control::User(UserControl::PingRequest { time: 7 }), 4, &[0, 6, 0, 0, 0, 7]),
            (Control::User(UserControl::PingResponse { time: 7 }), 4, &[0, 7, 0, 0, 0, 7]),
            (Control::User(UserControl::Other { event: 31 }), 4, &[0, 31]),
        ];
        for (control, kind, payload) in cases {
            let message = control.message();
            assert_eq!((message.csid, message.kind, &message.payload[..]), (2, *kind, *payload));
            assert_eq!(Control::parse(*kind, payload), Ok(Some(*control)));
            for len in 0..payload.len() {
                let want = MessageError::TooShort { kind: *kind, len };
                assert_eq!(Control::parse(*kind, &payload[..len]), Err(want));
            }
        }
        assert_eq!(Control::parse(kind::VIDEO, b""), Ok(None));
    }

    fn tag(kind: TagKind, timestamp: u32) -> Tag {
        Tag { kind, timestamp, body: Bytes::from_static(b"body") }
    }

    #[test]
    fn an_aggregate_is_shifted_to_the_messages_time() {
        let mut payload = Vec::new();
        tag(TagKind::Video, u32::MAX - 5).write_to(&mut payload);
        payload.extend([15, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 9, 0, 0, 0, 12]); // an unknown kind
        tag(TagKind::Audio, 10).write_to(&mut payload);
        let want = Ok(vec![tag(TagKind::Video, 1000), tag(TagKind::Audio, 1016)]);
        assert_eq!(split_aggregate(1000, payload.clone().into()), want);
        payload.truncate(payload.len() - 4);
        assert_eq!(split_aggregate(1000, payload.into()), want);
    }

    #[test]
    fn broken_aggregates() {
        let mut payload = Vec::new();
        tag(TagKind::Video, 0).write_to(&mut payload);
        for len in (1..15).chain(20..30) {
            let mut cut = payload.repeat(2);
            cut.truncate(len);
            let result = split_aggregate(0, cut.into());
            assert!(matches!(result, Err(MessageError::AggregateTruncated { .. })), "{len}");
        }
        let many = payload.repeat(AGGREGATE_TAGS_MAX + 1);
        assert_eq!(split_aggregate(0, many.into()), Err(MessageError::AggregateTooMany));
    }
}
