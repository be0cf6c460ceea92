//! A player: used to pull from an RTMP server.

use std::collections::VecDeque;

use bytes::Bytes;

use super::{Caller, refused, stream_id, transaction};
use crate::media::amf0::Value;
use crate::media::tag::{TAG_BODY_MAX, Tag};
use crate::protocol::rtmp::RtmpError;
use crate::protocol::rtmp::command::Command;
use crate::protocol::rtmp::message::{Control, UserControl, kind, tags_of};

/// The buffer length announced to a server, in milliseconds; live streams are sent as they come.
const BUFFER: u32 = 3_000;
/// Data that only Flash uses.
const SAMPLE_ACCESS: &[u8] = b"\x02\x00\x11|RtmpSampleAccess";

/// What a server did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PlayEvent {
    /// It accepted the play.
    Begin,
    /// A tag, never empty.
    Tag(Tag),
    /// The stream has ended, or its publisher has left.
    End,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Connect,
    CreateStream,
    Play,
    Playing,
    Over,
}

/// A sans-IO RTMP player's end of one connection.
#[derive(Debug)]
pub struct PlaySession {
    caller: Caller,
    state: State,
    events: VecDeque<PlayEvent>,
}

impl PlaySession {
    /// A session that plays `name` (which may include a query string) of `app` at `tc_url`
    /// (`rtmp://host:port/app`). Its first output is ready at once.
    pub fn new(app: &str, tc_url: &str, name: &str) -> Self {
        let message_max = u32::try_from(TAG_BODY_MAX).expect("24 bits");
        let caller = Caller::new(app, tc_url, name, message_max);
        Self { caller, state: State::Connect, events: VecDeque::new() }
    }

    /// Takes bytes from the server. Poll the events and take the output after each call.
    ///
    /// # Errors
    /// [`RtmpError::Refused`] if the server refuses a step; others if it does not speak RTMP. The session is
    /// over then.
    pub fn input(&mut self, bytes: &[u8]) -> Result<(), RtmpError> {
        if self.state == State::Over {
            return Err(RtmpError::Over);
        }
        let result = self.take(bytes);
        if result.is_err() {
            self.state = State::Over;
        }
        result
    }

    /// The next event.
    pub fn poll_event(&mut self) -> Option<PlayEvent> {
        self.events.pop_front()
    }

    /// Whether the server's bytes so far end with a whole message.
    pub fn is_at_boundary(&self) -> bool {
        self.caller.link.is_at_boundary()
    }

    /// Bytes to send to the server, if any.
    pub fn take_output(&mut self) -> Option<Bytes> {
        self.caller.link.take_output()
    }

    /// Sends another command on the stream, such as `pause`.
    pub fn command(&mut self, name: &str, arguments: &[Value]) {
        self.caller.send(1, name, 0.0, arguments);
    }

    fn take(&mut self, mut input: &[u8]) -> Result<(), RtmpError> {
        self.caller.link.count(input.len());
        while let Some(message) = self.caller.receive(&mut input)? {
            if matches!(message.kind, kind::COMMAND_AMF0 | kind::COMMAND_AMF3) {
                self.answer(Command::parse(&message.payload)?)?;
            } else if self.state == State::Playing {
                let good = |tag: &Tag| !tag.body.is_empty() && !tag.body.starts_with(SAMPLE_ACCESS);
                self.events.extend(tags_of(message)?.into_iter().filter(good).map(PlayEvent::Tag));
            }
        }
        self.caller.link.acknowledge();
        Ok(())
    }

    fn answer(&mut self, command: Command) -> Result<(), RtmpError> {
        match (command, self.state) {
            (Command::Result { transaction: transaction::CONNECT, .. }, State::Connect) => {
                self.caller.send(0, "createStream", transaction::CREATE_STREAM, &[]);
                self.state = State::CreateStream;
            }
            (Command::Result { transaction: transaction::CREATE_STREAM, values }, State::CreateStream) => {
                let stream_id = values.get(1).and_then(Value::as_number).map_or(1, stream_id);
                let name = self.caller.name.as_str().into();
                self.caller.send(stream_id, "play", transaction::PLAY, &[name, (-2.0).into()]);
                let buffer = UserControl::SetBufferLength { stream_id, length: BUFFER };
                self.caller.link.send(&Control::User(buffer).message());
                self.state = State::Play;
            }
            (Command::Error { values, .. }, _) => return Err(refused(values.get(1).unwrap_or(&Value::Null))),
            (Command::OnStatus { info }, state) => {
                if info.get("level").and_then(Value::as_str) == Some("error") {
                    return Err(refused(&info));
                }
                match (info.get("code").and_then(Value::as_str), state) {
                    (Some("NetStream.Play.Start"), State::Play) => {
                        self.state = State::Playing;
                        self.events.push_back(PlayEvent::Begin);
                    }
                    (Some("NetStream.Play.UnpublishNotify" | "NetStream.Play.Stop"), State::Playing) => {
                        self.events.push_back(PlayEvent::End);
                    }
                    _ => {}
                }
            }
            _ => {}
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::media::encoding::Encoding;
    use crate::media::tag::TagKind;
    use crate::protocol::rtmp::server::{Event, Limits, Refusal, ServerSession};

    /// Exchanges bytes until neither side has more to send.
    fn exchange(client: &mut PlaySession, server: &mut ServerSession, piece: usize) -> Result<(), RtmpError> {
        loop {
            let (up, down) = (client.take_output(), server.take_output());
            if up.is_none() && down.is_none() {
                return Ok(());
            }
            for bytes in up.unwrap_or_default().chunks(piece) {
                server.input(bytes).expect("a good player");
            }
            down.unwrap_or_default().chunks(piece).try_for_each(|bytes| client.input(bytes))?;
        }
    }

    /// A player reads exactly what a log of RTMP chunks contains, wherever it is split.
    #[test]
    fn a_player_reads_the_log_after_the_sessions_answers() {
        for piece in [1, 100, 1 << 20] {
            let mut client = PlaySession::new("live", "rtmp://h/live", "x?a=1");
            let mut server = ServerSession::new(Limits::default());
            exchange(&mut client, &mut server, piece).unwrap();
            let Some(Event::Play { target, .. }) = server.poll_event() else { panic!("no play") };
            assert_eq!((&*target.app, &*target.name, target.query.as_deref()), ("live", "x", Some("a=1")));
            server.accept_play();
            let mut wire = server.take_output().unwrap().to_vec();
            let tags = [
                (TagKind::Script, 0, Bytes::from_static(b"\x02\x00\x0aonMetaData\x05")),
                (TagKind::Video, 0xff_fffe, Bytes::from(vec![0x17; 200_000])),
                (TagKind::Video, 0xff_ffff, Bytes::from(vec![0xc6; 60_000])),
                (TagKind::Audio, 0x0100_0000, Bytes::from(vec![0xc4; 60_001])),
                (TagKind::Video, u32::MAX, Bytes::from(vec![0xff; 150_000])),
            ]
            .map(|(kind, timestamp, body)| Tag { kind, timestamp, body });
            for tag in &tags {
                Encoding::Rtmp.write(tag, |piece| wire.extend_from_slice(piece));
            }
            server.end_play("over");
            wire.extend_from_slice(&server.take_output().unwrap());
            wire.chunks(piece).for_each(|bytes| client.input(bytes).unwrap());
            let events: Vec<_> = std::iter::from_fn(|| client.poll_event()).collect();
            let tags = tags.into_iter().map(PlayEvent::Tag);
            let want: Vec<_> = [PlayEvent::Begin].into_iter().chain(tags).collect();
            assert_eq!(events[..want.len()], want[..]);
            assert!(events[want.len()..].iter().all(|event| *event == PlayEvent::End));
        }
    }

    #[test]
    fn a_refusal_is_passed_on() {
        let mut client = PlaySession::new("live", "rtmp://h/live", "x");
        let mut server = ServerSession::new(Limits::default());
        exchange(&mut client, &mut server, 1 << 20).unwrap();
        server.refuse_play(Refusal::NotFound, "nothing here");
        let error = exchange(&mut client, &mut server, 1 << 20).unwrap_err();
        let (code, description) = ("NetStream.Play.StreamNotFound".into(), "nothing here".into());
        assert_eq!(error, RtmpError::Refused { code, description });
    }
}
