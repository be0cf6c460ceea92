//! One connection to another server: the protocol on it, and its timeouts. The same for a gateway's pulls, for
//! relays and for probes.

use std::net::SocketAddr;

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
use crate::protocol::tls::error::TlsError;
use crate::protocol::tls::handshake::Handshake;
use crate::protocol::tls::trust::server_name;
use crate::server::core::Core;
use crate::uring::{Engine, Millis, Sock};

/// The largest head of an answer, in bytes.
const ANSWER_HEAD_MAX: usize = 16 << 10;
/// How long an upstream may take to answer; it is asked to wait up to a second for a publisher.
pub(super) const ANSWER: Millis = 2_500;
/// How long another server may take to accept a relay.
pub(super) const HANDSHAKE: Millis = 10_000;

/// Why a link has failed or ended.
#[derive(Debug, thiserror::Error)]
pub(in crate::server) enum LinkError {
    /// There is no address to connect to.
    #[error("its name has no address yet")]
    NoAddress,
    /// A name that no certificate can be for.
    #[error("{0} is no name that a certificate can be for")]
    Name(String),
    /// TLS failed.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The connection could not be made, or broke.
    #[error(transparent)]
    Socket(#[from] rustix::io::Errno),
    /// The other server closed the connection.
    #[error("it closed the connection")]
    HungUp,
    /// No connection in time.
    #[error("no connection within {0} ms")]
    NoConnection(Millis),
    /// No answer in time.
    #[error("no answer within {0} ms")]
    NoAnswer(Millis),
    /// Nothing was received for too long.
    #[error("it sent nothing for {0} ms")]
    Silent(Millis),
    /// The answer is not a stream.
    #[error("it answers {0}")]
    Status(u16),
    /// The answer ended, which a live stream does not.
    #[error("its answer ended")]
    Ended,
    /// The stream ended.
    #[error("its stream has ended")]
    StreamEnded,
    /// The answer cannot be parsed.
    #[error(transparent)]
    Response(#[from] ResponseError),
    /// The body is not FLV.
    #[error(transparent)]
    Flv(#[from] FlvError),
    /// The peer breaks RTMP, or refuses.
    #[error(transparent)]
    Rtmp(#[from] RtmpError),
    /// It publishes on a message stream other than the one that the log is written for.
    #[error("it publishes on message stream {0}")]
    MessageStream(u32),
    /// What it sent cannot be stored.
    #[error(transparent)]
    Push(#[from] PushError),
    /// Another publisher has the name on this server.
    #[error(transparent)]
    Publish(#[from] crate::live::directory::PublishError),
}

impl LinkError {
    /// The HTTP status for viewers that have received nothing: 404 if the upstream has no such stream, else
    /// 502.
    pub(super) fn status(&self) -> u16 {
        if matches!(self, Self::Status(404)) { 404 } else { 502 }
    }

    /// Whether the error is an answer, so that the other server is up.
    pub(super) fn is_answer(&self) -> bool {
        matches!(self, Self::Status(status) if *status < 500)
    }
}

/// Opens a connection to a host of that name, in TLS if `secure`.
///
/// # Errors
/// [`LinkError`] when no socket can be made.
pub(super) fn connect<E: Engine>(
    core: &mut Core<E>,
    (to, secure): (SocketAddr, bool),
    host: &str,
) -> Result<Sock, LinkError> {
    if !secure {
        return Ok(core.net.connect(to)?);
    }
    let config = core.shared.trust.get().expect("made at the start if any server is secure");
    let name = server_name(host).ok_or_else(|| LinkError::Name(host.to_owned()))?;
    let handshake = Handshake::connect(config, name)?;
    Ok(core.net.connect_tls(to, handshake)?)
}

/// The protocol and direction of a link.
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
    /// HTTP: any answer is accepted.
    Probe(ResponseReader),
}

/// The stage of a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    /// Not connected yet.
    Connecting,
    /// Connected; the other server has not accepted yet.
    Asking,
    /// The other server has accepted.
    Running,
}

/// The timeouts of a link's stages, in milliseconds.
#[derive(Clone, Copy, Debug)]
pub(super) struct Timeouts {
    pub(super) connect: Millis,
    pub(super) answer: Millis,
    /// `None`: the other server need not send anything.
    pub(super) silence: Option<Millis>,
}

/// What was received over a link.
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
    /// The first bytes to send, until the connection is established.
    hello: Bytes,
    /// When this stage began, or when bytes were received last.
    last: Millis,
}

fn response() -> ResponseReader {
    ResponseReader::new(ANSWER_HEAD_MAX)
}

impl Speech {
    /// Publishes at `path` of another server; with the first bytes to send.
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

    /// Plays a stream of another server.
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

    /// Sends a request that any server answers in some way.
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

    /// The connection is established: returns the first bytes to send.
    pub(super) fn connected(&mut self, now: Millis) -> Bytes {
        self.last = now;
        // No server has to answer before the body of a POST is sent.
        self.stage = if matches!(self.speech, Speech::Post(_)) { Stage::Running } else { Stage::Asking };
        std::mem::take(&mut self.hello)
    }

    /// Which timeout has passed, if any.
    pub(super) fn overdue(&self, now: Millis, timeouts: &Timeouts) -> Option<LinkError> {
        let waited = now.saturating_sub(self.last);
        let (limit, error): (Millis, fn(Millis) -> LinkError) = match self.stage {
            Stage::Connecting => (timeouts.connect, LinkError::NoConnection),
            Stage::Asking => (timeouts.answer, LinkError::NoAnswer),
            Stage::Running => (timeouts.silence?, LinkError::Silent),
        };
        (waited >= limit).then(|| error(limit))
    }

    /// Takes bytes from the other server and hands out what they contain.
    ///
    /// # Errors
    /// [`LinkError`] of the link or of `on`: everything before it was handed out, and the link is over.
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

    /// What ends a publication, after a whole tag; `begun`: whether anything was published.
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

/// Checks that an answer is a 200.
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

/// An answer that has ended is an error: a live stream does not end it.
fn not_over(state: Result<State, LinkError>) -> Result<(), LinkError> {
    if state? == State::Finished { Err(LinkError::Ended) } else { Ok(()) }
}
