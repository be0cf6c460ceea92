//! The session with a peer that connected to us: publishers, and the commands of viewers.
//!
//! The caller decides who may publish what: the session asks by [`Event::Publish`] and sends
//! `NetStream.Publish.Start` only in [`ServerSession::accept_publish`]. The meaning of the tags, and whether
//! their times make sense, is not examined here. The tags that a viewer is sent do not pass through here
//! either: they are in a log, in chunks of [`RTMP_CHUNK`](crate::media::encoding::RTMP_CHUNK) bytes on message
//! stream [`RTMP_STREAM`]; the session's output may be sent between any two of them.

mod event;
mod play;

use std::collections::VecDeque;

use bytes::Bytes;

use super::RtmpError;
use super::chunk::ChunkLimits;
use super::command::{self, Command, PublishKind};
use super::handshake::ServerHandshake;
use super::link::{Link, WINDOW};
use super::message::{Control, Message, UserControl, kind, tags_of};
use super::target::Target;
use crate::media::amf0::Value;
use crate::media::encoding::RTMP_STREAM;
use crate::media::tag::Tag;

pub use event::{Event, Limits, Refusal};

/// The chunk size of what we send.
const CHUNK_OUT: u32 = 4096;
/// The largest command, and the largest message of any kind before a publish is asked for.
const COMMAND_MAX: u32 = 64 * 1024;
/// The cost of a held tag in addition to its body, in bytes.
const TAG_COST: usize = 64;

/// The arguments of `connect`.
#[derive(Debug)]
struct Connection {
    app: String,
    tc_url: String,
    agent: String,
}

/// The state of the one publish of the connection; the number is its message stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Publish {
    Idle,
    Asked(u32),
    Live(u32),
}

/// The state of the one play of the connection; the number is its message stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Play {
    Idle,
    Asked(u32),
    Live(u32),
}

/// A sans-IO RTMP server's end of one connection.
#[derive(Debug)]
pub struct ServerSession {
    limits: Limits,
    /// None once it is complete.
    handshake: Option<ServerHandshake>,
    link: Link,
    connection: Option<Connection>,
    publish: Publish,
    play: Play,
    /// The name of an `FCPublish`, until it is answered together with the publish.
    fc_publish: bool,
    streams: Vec<u32>,
    /// Commands since the last media message.
    commands: u32,
    /// Media that came between the request and its answer, and its cost; while idle, the cost counts the
    /// ignored media.
    held: Vec<Tag>,
    unasked: usize,
    events: VecDeque<Event>,
    over: bool,
}

impl ServerSession {
    /// A session for a connection that was just accepted.
    pub fn new(limits: Limits) -> Self {
        let chunks = ChunkLimits {
            message_max: COMMAND_MAX.min(limits.message_max),
            streams_max: limits.csids_max,
            unfinished_max: limits.unfinished_max,
        };
        Self {
            limits,
            handshake: Some(ServerHandshake::default()),
            link: Link::new(chunks),
            connection: None,
            publish: Publish::Idle,
            play: Play::Idle,
            fc_publish: false,
            streams: Vec::new(),
            commands: 0,
            held: Vec::new(),
            unasked: 0,
            events: VecDeque::new(),
            over: false,
        }
    }

    /// Takes all bytes from the peer. Poll the events and take the output after each call: the number of events
    /// is bounded by the size of `bytes`, which should not exceed 64 KiB by much.
    ///
    /// # Errors
    /// [`RtmpError`]: the session is over. Events before the error can be polled and the output may contain a
    /// last answer.
    pub fn input(&mut self, bytes: &[u8]) -> Result<(), RtmpError> {
        if self.over {
            return Err(RtmpError::Over);
        }
        let result = self.take(bytes);
        self.over = result.is_err();
        self.check_invariants();
        result
    }

    /// Bytes of memory taken by messages that have not become events yet.
    pub fn held(&self) -> usize {
        self.link.held() + self.held.iter().map(|tag| tag.body.len()).sum::<usize>()
    }

    /// The next event, in the order in which the peer caused them.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// Bytes to send to the peer, if any.
    pub fn take_output(&mut self) -> Option<Bytes> {
        self.link.take_output()
    }

    /// Accepts the publish. Media that the peer sent meanwhile becomes events now. No effect if no publish
    /// waits, because the peer ended it before the decision.
    pub fn accept_publish(&mut self) {
        let Publish::Asked(stream_id) = self.publish else { return };
        let code = "NetStream.Publish.Start";
        self.link.send(&Control::User(UserControl::StreamBegin { stream_id }).message());
        if std::mem::take(&mut self.fc_publish) {
            self.link.send(&command::on_fc("onFCPublish", code, "Started publishing."));
        }
        self.link.send(&command::on_status(stream_id, "status", code, "Started publishing."));
        self.publish = Publish::Live(stream_id);
        self.unasked = 0;
        self.events.extend(self.held.drain(..).map(Event::Media));
        self.check_invariants();
    }

    /// Refuses the publish, with a text for the encoder's log. The peer may ask again.
    pub fn refuse_publish(&mut self, why: Refusal, description: &str) {
        let Publish::Asked(stream_id) = self.publish else { return };
        self.link.send(&command::on_status(stream_id, "error", why.publish_code(), description));
        self.reset_publish();
        self.check_invariants();
    }

    /// Ends an accepted publish, with a text for the encoder's log; or refuses one that waits.
    pub fn end_publish(&mut self, description: &str) {
        let (Publish::Asked(stream_id) | Publish::Live(stream_id)) = self.publish else { return };
        let code = Refusal::BadName.publish_code();
        self.link.send(&command::on_status(stream_id, "error", code, description));
        self.reset_publish();
        self.check_invariants();
    }

    /// True between [`accept_publish`](Self::accept_publish) and the end of the publish.
    pub fn is_publishing(&self) -> bool {
        matches!(self.publish, Publish::Live(_))
    }

    fn take(&mut self, mut input: &[u8]) -> Result<(), RtmpError> {
        self.link.count(input.len());
        if let Some(handshake) = &mut self.handshake {
            if !handshake.input(&mut input, &mut self.link.out)? {
                return Ok(());
            }
            self.handshake = None;
        }
        while let Some(message) = self.link.receive(&mut input)? {
            self.message(message)?;
            self.check_output()?;
        }
        self.link.acknowledge();
        self.check_output()
    }

    fn check_output(&self) -> Result<(), RtmpError> {
        let (bytes, limit) = (self.link.out.len(), self.limits.output_max);
        if bytes > limit { Err(RtmpError::OutputStalled { bytes, limit }) } else { Ok(()) }
    }

    fn message(&mut self, message: Message) -> Result<(), RtmpError> {
        match message.kind {
            kind::COMMAND_AMF0 | kind::COMMAND_AMF3 => self.command(message.stream_id, &message.payload),
            _ => tags_of(message)?.into_iter().try_for_each(|tag| self.media(tag)),
        }
    }

    /// The message stream of media is not checked: there is one publish per connection.
    fn media(&mut self, tag: Tag) -> Result<(), RtmpError> {
        if tag.body.is_empty() {
            return Ok(());
        }
        if self.is_publishing() {
            self.commands = 0;
            self.events.push_back(Event::Media(tag));
            return Ok(());
        }
        self.unasked += tag.body.len() + TAG_COST;
        if self.unasked > self.limits.media_unasked_max {
            self.held = Vec::new();
            let limit = self.limits.media_unasked_max;
            return Err(RtmpError::MediaUnasked { bytes: self.unasked, limit });
        }
        if matches!(self.publish, Publish::Asked(_)) {
            self.held.push(tag);
        }
        Ok(())
    }

    fn command(&mut self, stream_id: u32, payload: &[u8]) -> Result<(), RtmpError> {
        let limit = COMMAND_MAX as usize;
        if payload.len() > limit {
            return Err(RtmpError::CommandTooLarge { bytes: payload.len(), limit });
        }
        self.commands += 1;
        if self.commands > self.limits.commands_max {
            return Err(RtmpError::TooManyCommands { limit: self.limits.commands_max });
        }
        let command = Command::parse(payload)?;
        if self.connection.is_none() && !matches!(command, Command::Connect { .. } | Command::Other { .. }) {
            return Err(RtmpError::NotConnected { command: command.name() });
        }
        match command {
            Command::Connect { transaction, app, tc_url, flash_ver } => {
                self.connect(transaction, Connection { app, tc_url, agent: flash_ver })?;
            }
            Command::ReleaseStream { transaction } => self.send_result(transaction, Value::Undefined),
            Command::FcPublish { transaction, .. } => {
                self.fc_publish = true;
                self.send_result(transaction, Value::Undefined);
            }
            Command::CreateStream { transaction } => self.create_stream(transaction)?,
            Command::CheckBandwidth { transaction } => self.send_result(transaction, Value::Undefined),
            Command::GetStreamLength { transaction } => self.send_result(transaction, Value::Number(0.0)),
            Command::Publish { name, kind, .. } => self.ask_publish(stream_id, &name, kind),
            Command::Play { name, .. } => self.ask_play(stream_id, &name),
            Command::Pause { pause } => self.pause(pause),
            Command::Receive { audio, wanted } => self.receive(audio, wanted),
            Command::FcSubscribe { name } => self.subscribed(&name),
            Command::FcUnpublish { transaction, .. } => self.fc_unpublish(transaction),
            Command::DeleteStream { stream_id } => self.delete_stream(stream_id),
            Command::CloseStream => self.close(f64::from(stream_id)),
            Command::Result { .. }
            | Command::Error { .. }
            | Command::OnStatus { .. }
            | Command::Other { .. } => {}
        }
        Ok(())
    }

    fn send_result(&mut self, transaction: f64, value: Value) {
        self.link.send(&command::result(transaction, Value::Null, value));
    }

    fn connect(&mut self, transaction: f64, connection: Connection) -> Result<(), RtmpError> {
        if self.connection.is_some() {
            return Err(RtmpError::ConnectedTwice);
        }
        self.link.send(&Control::WindowAckSize { size: WINDOW }.message());
        self.link.send(&Control::SetPeerBandwidth { size: WINDOW, limit: 2 }.message());
        self.link.send_chunk_size(CHUNK_OUT);
        self.link.send(&command::connect_result(transaction));
        self.connection = Some(connection);
        Ok(())
    }

    fn create_stream(&mut self, transaction: f64) -> Result<(), RtmpError> {
        let limit = self.limits.streams_max;
        if self.streams.len() >= limit as usize {
            return Err(RtmpError::TooManyStreams { limit });
        }
        // The lowest free number: starting with the only one that can be played on.
        let free = (RTMP_STREAM..).find(|id| !self.streams.contains(id)).expect("there are few");
        self.streams.push(free);
        self.send_result(transaction, Value::Number(f64::from(free)));
        Ok(())
    }

    /// The target of a name on this connection.
    fn target(&self, name: &str) -> Target {
        let Some(connection) = &self.connection else { unreachable!("commands come after connect") };
        Target::resolve(&connection.app, &connection.tc_url, name)
    }

    /// The peer's name and version.
    fn agent(&self) -> &str {
        self.connection.as_ref().map_or("", |connection| &connection.agent)
    }

    fn ask_publish(&mut self, stream_id: u32, name: &str, kind: PublishKind) {
        if self.publish != Publish::Idle || self.play != Play::Idle {
            let text = "This connection is in use for another stream.";
            let code = Refusal::BadName.publish_code();
            return self.link.send(&command::on_status(stream_id, "error", code, text));
        }
        let target = self.target(name);
        let Some(Connection { tc_url, agent, .. }) = &self.connection else { return };
        let (tc_url, agent) = (tc_url.clone(), agent.clone());
        self.publish = Publish::Asked(stream_id);
        self.unasked = 0;
        self.link.set_message_max(self.limits.message_max);
        self.events.push_back(Event::Publish { target, tc_url, agent, kind });
    }

    fn fc_unpublish(&mut self, transaction: f64) {
        let (code, text) = ("NetStream.Unpublish.Success", "Stopped publishing.");
        if let Publish::Asked(stream_id) | Publish::Live(stream_id) = self.publish {
            self.link.send(&command::on_fc("onFCUnpublish", code, text));
            self.link.send(&command::on_status(stream_id, "status", code, text));
            self.close(f64::from(stream_id));
        }
        self.fc_publish = false;
        self.send_result(transaction, Value::Undefined);
    }

    fn delete_stream(&mut self, stream_id: f64) {
        self.streams.retain(|open| f64::from(*open) != stream_id);
        self.close(stream_id);
    }

    /// Ends the publish or play of a stream. A request that the caller has not polled yet is removed: the
    /// answer to it would be taken for the answer to the next request.
    fn close(&mut self, stream_id: f64) {
        if let Play::Asked(play) | Play::Live(play) = self.play
            && f64::from(play) == stream_id
        {
            self.play = Play::Idle;
            if !self.withdraw(|event| matches!(event, Event::Play { .. })) {
                self.events.push_back(Event::StopPlay);
            }
        }
        if let Publish::Asked(publish) | Publish::Live(publish) = self.publish
            && f64::from(publish) == stream_id
        {
            self.reset_publish();
            if !self.withdraw(|event| matches!(event, Event::Publish { .. })) {
                self.events.push_back(Event::Unpublish);
            }
        }
    }

    /// Removes a request that was not polled yet; false: there is none.
    fn withdraw(&mut self, question: impl Fn(&Event) -> bool) -> bool {
        let place = self.events.iter().position(question);
        place.is_some_and(|place| self.events.remove(place).is_some())
    }

    fn reset_publish(&mut self) {
        self.publish = Publish::Idle;
        self.fc_publish = false;
        self.held = Vec::new();
        self.unasked = 0;
    }

    fn check_invariants(&self) {
        debug_assert!(self.held.is_empty() || matches!(self.publish, Publish::Asked(_)) || self.over);
        debug_assert!(
            self.connection.is_some() || (self.publish == Publish::Idle && self.play == Play::Idle)
        );
        debug_assert!(self.streams.len() <= self.limits.streams_max as usize);
        debug_assert!(self.play == Play::Idle || self.publish == Publish::Idle);
    }
}

#[cfg(test)]
mod tests;
