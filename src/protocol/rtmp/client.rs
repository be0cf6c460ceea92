//! The sessions with a server that we connect to: [`PublishSession`], in the customary order of Flash Media
//! Live Encoder (connect, releaseStream, FCPublish, createStream, publish; FCUnpublish and deleteStream at the
//! end), and [`PlaySession`] (connect, createStream, play).

mod play;

pub use play::{PlayEvent, PlaySession};

use bytes::Bytes;

use super::RtmpError;
use super::chunk::ChunkLimits;
use super::command::{self, COMMAND_CSID, Command, STATUS_CSID, message, object};
use super::handshake::ClientHandshake;
use super::link::{Link, WINDOW};
use super::message::{Control, Message, kind};
use crate::media::amf0::Value;
use crate::media::encoding::RTMP_CHUNK;
use crate::media::tag::{Class, TAG_BODY_MAX, Tag, TagKind};

/// What a server may send in one message.
const MESSAGE_MAX: u32 = 64 * 1024;
const AUDIO_CSID: u32 = 4;
const VIDEO_CSID: u32 = 6;
const SET_DATA_FRAME: &[u8] = b"\x02\x00\x0d@setDataFrame";

/// The transaction numbers of our commands, which the answers repeat.
mod transaction {
    pub(super) const CONNECT: f64 = 1.0;
    pub(super) const RELEASE_STREAM: f64 = 2.0;
    pub(super) const FC_PUBLISH: f64 = 3.0;
    pub(super) const CREATE_STREAM: f64 = 4.0;
    pub(super) const PUBLISH: f64 = 5.0;
    pub(super) const PLAY: f64 = 5.0;
    pub(super) const FC_UNPUBLISH: f64 = 6.0;
    pub(super) const DELETE_STREAM: f64 = 7.0;
}

/// What the session waits for; the number is our message stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Connect,
    CreateStream,
    Publish(u32),
    Publishing(u32),
    /// We ended the session; further input is ignored.
    Ended,
    Over,
}

/// What a publisher and a player have in common: everything up to `connect`.
#[derive(Debug)]
struct Caller {
    app: String,
    tc_url: String,
    name: String,
    /// None once it is complete and `connect` is sent.
    handshake: Option<ClientHandshake>,
    link: Link,
}

impl Caller {
    fn new(app: &str, tc_url: &str, name: &str, message_max: u32) -> Self {
        let limits = ChunkLimits { message_max, ..ChunkLimits::default() };
        let (app, tc_url, name) = (app.to_owned(), tc_url.to_owned(), name.to_owned());
        let (mut handshake, mut link) = (ClientHandshake::default(), Link::new(limits));
        handshake.start(format!("{tc_url}/{name}").as_bytes(), &mut link.out);
        Self { app, tc_url, name, handshake: Some(handshake), link }
    }

    /// The next message from the server; sends `connect` when the handshake is complete.
    fn receive(&mut self, input: &mut &[u8]) -> Result<Option<Message>, RtmpError> {
        if let Some(handshake) = &mut self.handshake {
            if !handshake.input(input, &mut self.link.out)? {
                return Ok(None);
            }
            self.handshake = None;
            self.connect();
        }
        self.link.receive(input)
    }

    fn connect(&mut self) {
        self.link.send(&Control::WindowAckSize { size: WINDOW }.message());
        self.link.send_chunk_size(u32::try_from(RTMP_CHUNK).expect("a chunk size"));
        let mut properties = vec![
            ("app", self.app.as_str().into()),
            ("type", "nonprivate".into()),
            ("flashVer", "FMLE/3.0 (compatible; uringcast)".into()),
            ("tcUrl", self.tc_url.as_str().into()),
        ];
        properties.extend(command::capabilities());
        let values = ["connect".into(), transaction::CONNECT.into(), object(&properties)];
        self.link.send(&message(COMMAND_CSID, 0, &values));
    }

    fn send(&mut self, stream_id: u32, name: &str, transaction: f64, arguments: &[Value]) {
        let head = [name.into(), transaction.into(), Value::Null];
        self.link.send(&message(COMMAND_CSID, stream_id, &[&head, arguments].concat()));
    }
}

/// A sans-IO RTMP publisher's end of one connection.
#[derive(Debug)]
pub struct PublishSession {
    caller: Caller,
    state: State,
}

impl PublishSession {
    /// A session that publishes `name` (which may include a query string) to `app` at `tc_url`
    /// (`rtmp://host:port/app`). Its first output is ready at once.
    pub fn new(app: &str, tc_url: &str, name: &str) -> Self {
        Self { caller: Caller::new(app, tc_url, name, MESSAGE_MAX), state: State::Connect }
    }

    /// Takes bytes from the server.
    ///
    /// # Errors
    /// [`RtmpError::Refused`] if the server refuses a step, now or while publishing; others if it does not
    /// speak RTMP. The session is over then.
    pub fn input(&mut self, bytes: &[u8]) -> Result<(), RtmpError> {
        match self.state {
            State::Over => return Err(RtmpError::Over),
            State::Ended => return Ok(()),
            _ => {}
        }
        let result = self.take(bytes);
        if result.is_err() {
            self.state = State::Over;
        }
        result
    }

    /// Bytes to send to the server, if any.
    pub fn take_output(&mut self) -> Option<Bytes> {
        self.caller.link.take_output()
    }

    /// True after the server accepted the publish, until the session is over.
    pub fn is_publishing(&self) -> bool {
        matches!(self.state, State::Publishing(_))
    }

    /// The message stream that the server assigned, from then on until the session is over.
    pub fn stream_id(&self) -> Option<u32> {
        match self.state {
            State::Publish(stream_id) | State::Publishing(stream_id) => Some(stream_id),
            _ => None,
        }
    }

    /// Appends a tag to the output. `onMetaData` is sent with `@setDataFrame` before it.
    ///
    /// # Panics
    /// If the session [is not publishing](Self::is_publishing).
    pub fn write_tag(&mut self, tag: &Tag) {
        let State::Publishing(stream_id) = self.state else { panic!("tags are written while publishing") };
        let (csid, kind) = match tag.kind {
            TagKind::Audio => (AUDIO_CSID, kind::AUDIO),
            TagKind::Video => (VIDEO_CSID, kind::VIDEO),
            TagKind::Script => (STATUS_CSID, kind::DATA_AMF0),
        };
        let mut payload = tag.body.clone();
        if tag.class() == Class::Metadata && payload.len() + SET_DATA_FRAME.len() <= TAG_BODY_MAX {
            payload = [SET_DATA_FRAME, &payload].concat().into();
        }
        self.caller.link.send(&Message { csid, kind, timestamp: tag.timestamp, stream_id, payload });
    }

    /// Ends the publish: send the output, then close. Further input is ignored.
    pub fn unpublish(&mut self) {
        if let State::Publish(stream_id) | State::Publishing(stream_id) = self.state {
            let name = self.caller.name.as_str().into();
            self.caller.send(0, "FCUnpublish", transaction::FC_UNPUBLISH, &[name]);
            self.caller.send(0, "deleteStream", transaction::DELETE_STREAM, &[f64::from(stream_id).into()]);
        }
        self.state = State::Ended;
    }

    fn take(&mut self, mut input: &[u8]) -> Result<(), RtmpError> {
        self.caller.link.count(input.len());
        while let Some(message) = self.caller.receive(&mut input)? {
            if matches!(message.kind, kind::COMMAND_AMF0 | kind::COMMAND_AMF3) {
                self.answer(Command::parse(&message.payload)?)?;
            }
        }
        self.caller.link.acknowledge();
        Ok(())
    }

    fn answer(&mut self, command: Command) -> Result<(), RtmpError> {
        match (command, self.state) {
            (Command::Result { transaction: transaction::CONNECT, .. }, State::Connect) => {
                let name: Value = self.caller.name.as_str().into();
                self.caller.send(
                    0,
                    "releaseStream",
                    transaction::RELEASE_STREAM,
                    std::slice::from_ref(&name),
                );
                self.caller.send(0, "FCPublish", transaction::FC_PUBLISH, &[name]);
                self.caller.send(0, "createStream", transaction::CREATE_STREAM, &[]);
                self.state = State::CreateStream;
            }
            (Command::Result { transaction: transaction::CREATE_STREAM, values }, State::CreateStream) => {
                let stream_id = values.get(1).and_then(Value::as_number).map_or(1, stream_id);
                let name = self.caller.name.as_str().into();
                self.caller.send(stream_id, "publish", transaction::PUBLISH, &[name, "live".into()]);
                self.state = State::Publish(stream_id);
            }
            // Servers that do not know releaseStream and FCPublish answer with an error; that is not a refusal.
            (Command::Error { transaction, values }, _)
                if ![transaction::RELEASE_STREAM, transaction::FC_PUBLISH].contains(&transaction) =>
            {
                return Err(refused(values.get(1).unwrap_or(&Value::Null)));
            }
            (Command::OnStatus { info }, state) => {
                if info.get("level").and_then(Value::as_str) == Some("error") {
                    return Err(refused(&info));
                }
                let code = info.get("code").and_then(Value::as_str);
                if let (Some("NetStream.Publish.Start"), State::Publish(stream_id)) = (code, state) {
                    self.state = State::Publishing(stream_id);
                }
            }
            _ => {}
        }
        Ok(())
    }
}

/// A stream number from AMF0; 1, as used by most servers, if it is not a valid one.
fn stream_id(number: f64) -> u32 {
    if !(1.0..=f64::from(u32::MAX)).contains(&number) {
        return 1;
    }
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // in range
    let id = number as u32;
    id
}

fn refused(info: &Value) -> RtmpError {
    let text = |name| info.get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
    RtmpError::Refused { code: text("code"), description: text("description") }
}

#[cfg(test)]
mod tests {
    use super::super::server::{Event, Limits, Refusal, ServerSession};
    use super::*;

    /// Carries bytes both ways, `piece` at a time, until neither side has more to send.
    fn exchange(
        client: &mut PublishSession,
        server: &mut ServerSession,
        piece: usize,
    ) -> (Vec<Event>, Result<(), RtmpError>) {
        let mut events = Vec::new();
        loop {
            let (up, down) = (client.take_output(), server.take_output());
            if up.is_none() && down.is_none() {
                return (events, Ok(()));
            }
            for bytes in up.unwrap_or_default().chunks(piece) {
                server.input(bytes).expect("our own client");
                events.extend(std::iter::from_fn(|| server.poll_event()));
            }
            for bytes in down.unwrap_or_default().chunks(piece) {
                if let Err(error) = client.input(bytes) {
                    return (events, Err(error));
                }
            }
        }
    }

    fn pair() -> (PublishSession, ServerSession) {
        let client = PublishSession::new("live", "rtmp://h/live", "x?token=1");
        (client, ServerSession::new(Limits::default()))
    }

    #[test]
    fn a_publish_from_end_to_end() {
        for piece in [1, 7, 1000, 1 << 20] {
            let (mut client, mut server) = pair();
            let (events, result) = exchange(&mut client, &mut server, piece);
            assert_eq!(result, Ok(()));
            let [Event::Publish { target, .. }] = &events[..] else { panic!("{events:?}") };
            assert_eq!((&*target.app, &*target.name), ("live", "x"));
            assert_eq!(target.query.as_deref(), Some("token=1"));
            assert!(!client.is_publishing());
            server.accept_publish();
            let _ = exchange(&mut client, &mut server, piece);
            assert!(client.is_publishing());
            let tags = [
                (TagKind::Script, 0, Bytes::from_static(b"\x02\x00\x0aonMetaData\x05")),
                (TagKind::Video, 0xff_ffff, Bytes::from(vec![0x17; 100_000])),
                (TagKind::Audio, 5, Bytes::from_static(b"\xaf\x01z")),
                (TagKind::Video, u32::MAX, Bytes::from(vec![0x27; 200_001])),
            ]
            .map(|(kind, timestamp, body)| Tag { kind, timestamp, body });
            tags.iter().for_each(|tag| client.write_tag(tag));
            client.unpublish();
            let (events, result) = exchange(&mut client, &mut server, piece);
            let want: Vec<Event> = tags.into_iter().map(Event::Media).chain([Event::Unpublish]).collect();
            assert_eq!(events, want);
            assert_eq!(result, Ok(()), "answers after the end are ignored");
        }
    }

    #[test]
    fn a_refusal_is_passed_on() {
        let (mut client, mut server) = pair();
        let _ = exchange(&mut client, &mut server, 1 << 20);
        server.refuse_publish(Refusal::BadName, "taken");
        let (_, result) = exchange(&mut client, &mut server, 1 << 20);
        let (code, description) = ("NetStream.Publish.BadName".into(), "taken".into());
        assert_eq!(result, Err(RtmpError::Refused { code, description }));
        assert_eq!(client.input(b""), Err(RtmpError::Over));
    }

    #[test]
    fn stream_numbers() {
        let cases =
            [(1.0, 1), (5.0, 5), (0.0, 1), (-1.0, 1), (f64::NAN, 1), (1e300, 1), (4_294_967_295.0, u32::MAX)];
        for (number, want) in cases {
            assert_eq!(stream_id(number), want, "{number}");
        }
    }
}
