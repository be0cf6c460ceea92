//! One connection to another server: what is said on it, and how long it may take. The same for a gateway's pulls,
//! for relays and for probes.

use bytes::Bytes;

use crate::config::Remote;
use crate::live::stream::PushError;
use crate::media::encoding::RTMP_STREAM;
use crate::media::flv::{FlvError, FlvItem, FlvReader};
use crate::media::tag::{TAG_BODY_MAX, Tag};
use crate::protocol::http::chunked::LAST_CHUNK;
use crate::protocol::http::client::{
    ResponseError, ResponseHead, ResponseReader, State, get_request, request_head,
};
use crate::protocol::rtmp::RtmpError;
use crate::protocol::rtmp::client::{PlayEvent, PlaySession, PublishSession};
use crate::uring::{Millis, Sock};

/// The head of an answer, in bytes.
const ANSWER_HEAD_MAX: usize = 16 << 10;
/// How long an upstream that has been asked to wait a second for a publisher may take to answer.
pub(super) const ANSWER: Millis = 2_500;
/// How long another server may take to let a relay in.
pub(super) const HANDSHAKE: Millis = 10_000;

/// Why a link is given up.
#[derive(Debug, thiserror::Error)]
pub(in crate::server) enum LinkError {
    /// There is no address to connect to.
    #[error("its name has no address yet")]
    NoAddress,
    /// No connection, or one that broke.
    #[error(transparent)]
    Socket(#[from] rustix::io::Errno),
    /// The other side hung up.
    #[error("it hung up")]
    HungUp,
    /// No connection in time.
    #[error("no connection within {0} ms")]
    NoConnection(Millis),
    /// No answer in time.
    #[error("no answer within {0} ms")]
    NoAnswer(Millis),
    /// Nothing came for too long.
    #[error("it sent nothing for {0} ms")]
    Silent(Millis),
    /// An answer that is no stream.
    #[error("it answers {0}")]
    Status(u16),
    /// The answer ended, which a live stream does not.
    #[error("its answer ended")]
    Ended,
    /// The stream ended.
    #[error("its stream has ended")]
    StreamEnded,
    /// An answer that cannot be read.
    #[error(transparent)]
    Response(#[from] ResponseError),
    /// A body that is no FLV.
    #[error(transparent)]
    Flv(#[from] FlvError),
    /// A peer that breaks RTMP, or refuses.
    #[error(transparent)]
    Rtmp(#[from] RtmpError),
    /// It publishes on another message stream than the log is written for.
    #[error("it publishes on message stream {0}")]
    MessageStream(u32),
    /// What it sent cannot be kept.
    #[error(transparent)]
    Push(#[from] PushError),
    /// The name is published by somebody else here.
    #[error(transparent)]
    Publish(#[from] crate::live::directory::PublishError),
}

impl LinkError {
    /// The HTTP status for viewers that have had nothing: 404 if the upstream has no such stream, else 502.
    pub(super) fn status(&self) -> u16 {
        if matches!(self, Self::Status(404)) { 404 } else { 502 }
    }

    /// Whether the other server is there and has said so.
    pub(super) fn is_answer(&self) -> bool {
        matches!(self, Self::Status(status) if *status < 500)
    }
}

/// What is said.
#[derive(Debug)]
pub(super) enum Speech {
    /// RTMP: publishes.
    Publish(Box<PublishSession>),
    /// RTMP: plays.
    Play(Box<PlaySession>),
    /// HTTP-FLV: publishes.
    Post(ResponseReader),
    /// HTTP-FLV: plays.
    Get(ResponseReader, FlvReader),
    /// HTTP: any answer will do.
    Probe(ResponseReader),
}

/// How far a link has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    /// No connection yet.
    Connecting,
    /// The connection stands, and the other server has not let us in.
    Asking,
    /// It has.
    Running,
}

/// How long a link may take at each stage, in milliseconds.
#[derive(Clone, Copy, Debug)]
pub(super) struct Timeouts {
    pub(super) connect: Millis,
    pub(super) answer: Millis,
    /// `None`: the other server has nothing to say.
    pub(super) silence: Option<Millis>,
}

/// What came over a link.
pub(super) enum LinkEvent<'a> {
    /// The answer has begun.
    Answered(Option<&'a ResponseHead>),
    Tag(&'a Tag),
}

/// See the module.
#[derive(Debug)]
pub(super) struct Link {
    pub(super) sock: Sock,
    pub(super) stage: Stage,
    speech: Speech,
    /// What is said first, until the connection stands.
    hello: Bytes,
    /// When this stage began, or bytes came last.
    last: Millis,
}

fn response() -> ResponseReader {
    ResponseReader::new(ANSWER_HEAD_MAX)
}

impl Speech {
    /// Publishes at `path` of another server; with what is said first.
    pub(super) fn publish(remote: &Remote, path: &str) -> (Self, Bytes) {
        if remote.rtmp {
            let (app, tc_url, name) = remote.rtmp_parts(path);
            let mut session = PublishSession::new(&app, &tc_url, &name);
            let hello = session.take_output().unwrap_or_default();
            return (Self::Publish(Box::new(session)), hello);
        }
        let fields =
            [("Content-Type", "video/x-flv"), ("Transfer-Encoding", "chunked"), ("Connection", "close")];
        (Self::Post(response()), request_head("POST", &remote.authority, path, &fields).into())
    }

    /// Plays what another server has.
    pub(super) fn play(remote: &Remote) -> (Self, Bytes) {
        if remote.rtmp {
            let (app, tc_url, name) = remote.rtmp_parts(&remote.path);
            let mut session = PlaySession::new(&app, &tc_url, &name);
            let hello = session.take_output().unwrap_or_default();
            return (Self::Play(Box::new(session)), hello);
        }
        Self::get(&remote.authority, &remote.path, &[])
    }

    /// Plays a stream by HTTP-FLV.
    pub(super) fn get(authority: &str, target: &str, fields: &[(&str, &str)]) -> (Self, Bytes) {
        let fields = [&[("Accept", "*/*"), ("Connection", "close")], fields].concat();
        let flv = FlvReader::new(u32::try_from(TAG_BODY_MAX).expect("24 bits"));
        (Self::Get(response(), flv), get_request(authority, target, &fields).into())
    }

    /// Asks for something that any server answers somehow.
    pub(super) fn probe(authority: &str, target: &str) -> (Self, Bytes) {
        let request = get_request(authority, target, &[("Accept", "*/*"), ("Connection", "close")]);
        (Self::Probe(response()), request.into())
    }
}

impl Link {
    /// A link on a socket that is being connected.
    pub(super) fn new(sock: Sock, (speech, hello): (Speech, Bytes), now: Millis) -> Self {
        Self { sock, stage: Stage::Connecting, speech, hello, last: now }
    }

    /// The connection stands: gives what is said first.
    pub(super) fn connected(&mut self, now: Millis) -> Bytes {
        self.last = now;
        // No server has to answer before the body of a POST comes.
        self.stage = if matches!(self.speech, Speech::Post(_)) { Stage::Running } else { Stage::Asking };
        std::mem::take(&mut self.hello)
    }

    /// Why it has taken too long, if it has.
    pub(super) fn overdue(&self, now: Millis, timeouts: &Timeouts) -> Option<LinkError> {
        let waited = now.saturating_sub(self.last);
        let (limit, error): (Millis, fn(Millis) -> LinkError) = match self.stage {
            Stage::Connecting => (timeouts.connect, LinkError::NoConnection),
            Stage::Asking => (timeouts.answer, LinkError::NoAnswer),
            Stage::Running => (timeouts.silence?, LinkError::Silent),
        };
        (waited >= limit).then(|| error(limit))
    }

    /// Takes bytes from the other server and hands out what they say.
    ///
    /// # Errors
    /// [`LinkError`] of the link or of `on`: what came before was handed out, and the link is over.
    pub(super) fn take(
        &mut self,
        now: Millis,
        data: &[u8],
        mut on: impl FnMut(LinkEvent<'_>) -> Result<(), LinkError>,
    ) -> Result<(), LinkError> {
        self.last = now;
        let stage = &mut self.stage;
        let mut run = |head: Option<&ResponseHead>,
                       on: &mut dyn FnMut(LinkEvent<'_>) -> Result<(), LinkError>| {
            if std::mem::replace(stage, Stage::Running) == Stage::Running {
                return Ok(());
            }
            on(LinkEvent::Answered(head))
        };
        match &mut self.speech {
            Speech::Publish(session) => {
                let result = session.input(data);
                if session.is_publishing() {
                    run(None, &mut on)?;
                }
                if let Some(id) = session.stream_id().filter(|id| *id != RTMP_STREAM) {
                    return Err(LinkError::MessageStream(id));
                }
                Ok(result?)
            }
            Speech::Play(session) => {
                let result = session.input(data);
                while let Some(event) = session.poll_event() {
                    match event {
                        PlayEvent::Begin => run(None, &mut on)?,
                        PlayEvent::Tag(tag) => on(LinkEvent::Tag(&tag))?,
                        PlayEvent::End => return Err(LinkError::StreamEnded),
                    }
                }
                Ok(result?)
            }
            Speech::Post(response) => not_over(check(response, data, |_| ())),
            Speech::Get(response, flv) => {
                let state = check(response, data, |body| flv.push(body));
                if let (Ok(_), Some(head)) = (&state, response.head()) {
                    run(Some(head), &mut on)?;
                }
                while let Some(item) = flv.next_item()? {
                    if let FlvItem::Tag(tag) = item {
                        on(LinkEvent::Tag(&tag))?;
                    }
                }
                not_over(state)
            }
            Speech::Probe(response) => {
                response.push(data, |_, _| ())?;
                if response.head().is_some() {
                    run(None, &mut on)?;
                }
                Ok(())
            }
        }
    }

    /// Bytes for the other server, if there are any.
    pub(super) fn take_output(&mut self) -> Option<Bytes> {
        match &mut self.speech {
            Speech::Publish(session) => session.take_output(),
            Speech::Play(session) => session.take_output(),
            Speech::Post(_) | Speech::Get(..) | Speech::Probe(_) => None,
        }
    }

    /// What ends a publish, after a whole tag; `begun`: whether anything was published.
    pub(super) fn goodbye(self, begun: bool) -> Bytes {
        match self.speech {
            Speech::Publish(mut session) => {
                session.unpublish();
                session.take_output().unwrap_or_default()
            }
            // The line end of the chunk before it, if there is one.
            _ if begun => [b"\r\n", LAST_CHUNK].concat().into(),
            _ => Bytes::from_static(LAST_CHUNK),
        }
    }
}

/// Reads an answer that has to be 200.
fn check(
    response: &mut ResponseReader,
    data: &[u8],
    mut body: impl FnMut(&[u8]),
) -> Result<State, LinkError> {
    let state = response.push(data, |head, bytes| {
        if head.status == 200 {
            body(bytes);
        }
    })?;
    match response.head().map(|head| head.status) {
        Some(200) | None => Ok(state),
        Some(status) => Err(LinkError::Status(status)),
    }
}

/// An answer that has ended is an error: a live stream goes on.
fn not_over(state: Result<State, LinkError>) -> Result<(), LinkError> {
    if state? == State::Finished { Err(LinkError::Ended) } else { Ok(()) }
}
