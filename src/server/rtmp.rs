//! An RTMP connection: one session, whether its peer publishes or plays.
//!
//! The fan-out owns the socket of a viewer. When the peer wants something else (no audio, a pause, to stop
//! playing), the fan-out first removes the viewer after a whole tag; then [`Peer::let_go`] does what the peer
//! wants by that time.

use bytes::Bytes;
use tracing::debug;

use super::askers::Ticket;
use super::authority::{Ungranted, question_of_target};
use super::core::Core;
use super::head::{ConnHead, Next};
use super::http::connection::SERVER_FULL;
use super::limits::Refused;
use super::publishers::claim::{Claimed, Publication, Wish, tag_max};
use super::streams::Streams;
use super::viewers::audience::{EXPIRED, KICKED, STREAM_ENDED, Seat};
use super::viewers::play::{Options, Play, Via};
use super::viewers::player::{cut, no_such_stream};
use super::viewers::viewer::Farewell;
use crate::access::{Action, Asker, Grant};
use crate::config::Config;
use crate::live::key::StreamKey;
use crate::live::stream::{Choice, Selection, Stream};
use crate::media::tag::Tag;
use crate::protocol::rtmp::server::{Event, Limits, Refusal, ServerSession};
use crate::protocol::rtmp::target::Target;
use crate::uring::{Engine, Millis};

/// How long a viewer may pause.
const PAUSE_MAX: Millis = 600_000;

/// The state of an RTMP connection.
#[derive(Debug)]
pub(super) struct Peer {
    session: ServerSession,
    pub(super) publication: Publication,
    /// What it plays, until it stops playing.
    play: Option<Play>,
    /// The start of that play has not been answered yet.
    fresh: bool,
    wants: Wants,
    /// What it watches or waits for at present.
    seated: Option<Seated>,
    /// What it wants to do while the hook is asked.
    asking: Option<(Action, Target, String)>,
    /// The stream that it has paused.
    paused: Option<(StreamKey, Ticket)>,
}

/// What a connection watches or waits for, from its latest request.
#[derive(Debug)]
struct Seated {
    play: Play,
    seat: Seat,
}

/// The parts of a stream that a viewer wants.
#[derive(Clone, Copy, Debug)]
struct Wants {
    audio: bool,
    video: bool,
    paused: bool,
}

impl Wants {
    fn of(selection: Selection) -> Self {
        let (audio, video) = (selection != Selection::Video, selection != Selection::Audio);
        Self { audio, video, paused: false }
    }

    /// The tracks; `None`: nothing for now.
    fn selection(self) -> Option<Selection> {
        match (self.paused, self.audio, self.video) {
            (true, _, _) | (_, false, false) => None,
            (_, true, true) => Some(Selection::All),
            (_, true, false) => Some(Selection::Audio),
            (_, false, true) => Some(Selection::Video),
        }
    }
}

impl Peer {
    /// A connection that has not sent anything yet.
    pub(super) fn new(config: &Config) -> Self {
        let session = ServerSession::new(Limits { message_max: tag_max(config), ..Limits::default() });
        Self {
            session,
            publication: Publication::default(),
            play: None,
            fresh: false,
            wants: Wants::of(Selection::All),
            seated: None,
            asking: None,
            paused: None,
        }
    }

    /// Bytes of its partial messages.
    pub(super) fn held(&self) -> usize {
        self.session.held()
    }

    /// The stream to wait for once earlier answers have been sent.
    pub(super) fn pending(&self) -> Option<&Play> {
        self.seated.as_ref().filter(|seated| seated.seat == Seat::Pending).map(|seated| &seated.play)
    }

    /// The stream that it waits for has come.
    pub(super) fn called(&mut self) -> Next {
        match &mut self.seated {
            Some(Seated { play, seat: seat @ Seat::Waiting(_) }) => {
                *seat = Seat::Gone;
                Next::Play(Box::new(play.clone()))
            }
            _ => Next::Stay,
        }
    }

    /// Sets what it watches or waits for, and where.
    pub(super) fn sit(&mut self, play: Play, seat: Seat) {
        self.seated = Some(Seated { play, seat });
    }

    /// The messages before a viewer's first tag; none when it resumes.
    pub(super) fn answer(&mut self) -> Bytes {
        if std::mem::take(&mut self.fresh) {
            self.session.accept_play();
        }
        self.output()
    }

    fn output(&mut self) -> Bytes {
        self.session.take_output().unwrap_or_default()
    }

    /// Whether it resumes something that it has seen a part of.
    fn has_watched(&self) -> bool {
        self.play.as_ref().is_some_and(|play| play.after.is_some())
    }

    /// The messages that tell a viewer that the play is over, and why.
    fn goodbye(&mut self, why: &str) -> Bytes {
        self.session.end_play(why);
        self.output()
    }

    /// The messages that tell a viewer why it does not play: the stream is missing or gone, or a limit is reached.
    fn refusal(&mut self, why: Refusal, text: &str) -> Bytes {
        if self.has_watched() {
            return self.goodbye(STREAM_ENDED);
        }
        self.session.refuse_play(why, text);
        self.output()
    }

    /// Bytes from the peer.
    pub(super) fn received<E: Engine>(
        &mut self,
        core: &mut Core<E>,
        streams: &mut Streams,
        head: &mut ConnHead,
        data: &[u8],
    ) -> Next {
        if self.seated.is_none() && self.paused.is_none() {
            core.counters[head.role].bytes_in.add(data.len() as u64);
            if let Err(why) = self.publication.heard(core, head, data.len()) {
                core.count_refusal(head.role, why);
                return self.dismiss(core, streams, head, &why.to_string());
            }
        }
        let result = self.session.input(data);
        match (self.events(core, streams, head), result) {
            (Next::Stay, Err(error)) => Next::refuse(error.to_string()),
            (next, _) => next,
        }
    }

    /// Handles the session's events and sends its output. If the result requires another call, further events
    /// wait for it.
    pub(super) fn events<E: Engine>(
        &mut self,
        core: &mut Core<E>,
        streams: &mut Streams,
        head: &mut ConnHead,
    ) -> Next {
        let mut next = Next::Stay;
        while let (Next::Stay, Some(event)) = (&next, self.session.poll_event()) {
            next = match event {
                Event::Media(tag) => self.write(&tag),
                event => self.on_event(core, streams, head, event),
            };
        }
        if let Some(writer) = &mut self.publication.writer {
            core.announce(writer);
            self.publication.pace(core, head);
        }
        match (self.say(core, streams, head), next) {
            (said, Next::Stay) => said,
            (_, next) => next,
        }
    }

    fn write(&mut self, tag: &Tag) -> Next {
        let Some(writer) = &mut self.publication.writer else { return Next::Stay };
        match writer.push(tag) {
            Ok(()) => Next::Stay,
            Err(error) => Next::close(error.to_string()),
        }
    }

    /// Sends the session's output: between the tags of a viewer, otherwise at once.
    fn say<E: Engine>(&mut self, core: &mut Core<E>, streams: &mut Streams, head: &mut ConnHead) -> Next {
        match self.session.take_output() {
            Some(output) => streams.viewers.say(core, head, output),
            None => Next::Stay,
        }
    }

    fn on_event<E: Engine>(
        &mut self,
        core: &mut Core<E>,
        streams: &mut Streams,
        head: &mut ConnHead,
        event: Event,
    ) -> Next {
        match event {
            Event::Media(tag) => return self.write(&tag),
            Event::Publish { target, agent, .. } if self.seated.is_none() => {
                self.on_publish(core, streams, head, &target, agent);
            }
            Event::Publish { .. } => {
                let text = "The previous play has not ended yet; try again.";
                self.session.refuse_publish(Refusal::Failed, text);
            }
            Event::Unpublish => {
                self.asking = None;
                streams.publishers.give_up(core, head, &mut self.publication, "it said so");
                self.publication.wish = None;
            }
            Event::Play { target, agent } => return self.on_play(core, streams, head, &target, &agent),
            Event::StopPlay => {
                self.asking = None;
                self.play = None;
                return self.change(core, streams, head);
            }
            Event::Pause(paused) => {
                self.wants.paused = paused;
                return self.change(core, streams, head);
            }
            Event::Receive { audio, wanted } => {
                *(if audio { &mut self.wants.audio } else { &mut self.wants.video }) = wanted;
                return self.change(core, streams, head);
            }
        }
        Next::Stay
    }

    fn on_publish<E: Engine>(
        &mut self,
        core: &mut Core<E>,
        streams: &mut Streams,
        head: &ConnHead,
        target: &Target,
        agent: String,
    ) {
        let name = format!("{}/{}", target.app, target.name);
        match StreamKey::parse(&name) {
            Ok(key) => match Self::authorise(core, head, (Action::Publish, &key), target) {
                Ok(grant) => {
                    self.publication.wish = Some(Wish { key, token: grant.identity, agent });
                    self.claim(core, streams, head);
                }
                Err(Ungranted::Later) => self.asking = Some((Action::Publish, target.clone(), agent)),
                Err(Ungranted::Denied(denied)) => {
                    self.session.refuse_publish(Refusal::Unauthorised, &denied.to_string());
                }
            },
            Err(error) => {
                core.log_refusal(head, &name, &error.to_string());
                self.session.refuse_publish(Refusal::BadName, &error.to_string());
            }
        }
    }

    /// Asks whether the peer may do what it wants with a stream.
    fn authorise<E: Engine>(
        core: &mut Core<E>,
        head: &ConnHead,
        (action, key): (Action, &StreamKey),
        target: &Target,
    ) -> Result<Grant, Ungranted> {
        let token = target.parameter("token");
        let asker = Asker { address: head.address, token: token.as_deref(), ..Asker::default() };
        let grant = core.authorise(head, (action, key.as_str()), &asker, false, || {
            question_of_target((action, key.as_str()), &asker, target)
        })?;
        core.end_at(head.sock, grant.end);
        Ok(grant)
    }

    /// The hook has answered.
    pub(super) fn ask_again<E: Engine>(
        &mut self,
        core: &mut Core<E>,
        streams: &mut Streams,
        head: &mut ConnHead,
    ) -> Next {
        match self.asking.take() {
            None => return Next::Stay,
            Some((Action::Play, target, agent)) => match self.on_play(core, streams, head, &target, &agent) {
                Next::Stay => {}
                next => return next,
            },
            Some((Action::Publish, target, agent)) => self.on_publish(core, streams, head, &target, agent),
        }
        self.events(core, streams, head)
    }

    fn claim<E: Engine>(&mut self, core: &mut Core<E>, streams: &mut Streams, head: &ConnHead) {
        match streams.publishers.claim(core, head, &mut self.publication) {
            Claimed::Granted => {
                self.session.accept_publish();
                debug_assert!(self.session.is_publishing(), "it waits only while the peer wants the stream");
            }
            Claimed::Soon => {}
            Claimed::Refused(why) => {
                self.publication.wish = None;
                let code = if why == Refused::Taken { Refusal::BadName } else { Refusal::Failed };
                self.session.refuse_publish(code, &why.to_string());
            }
        }
    }

    /// The stream name that it waited for has been given up.
    pub(super) fn claim_again<E: Engine>(
        &mut self,
        core: &mut Core<E>,
        streams: &mut Streams,
        head: &mut ConnHead,
    ) -> Next {
        self.claim(core, streams, head);
        self.events(core, streams, head)
    }

    fn on_play<E: Engine>(
        &mut self,
        core: &mut Core<E>,
        streams: &mut Streams,
        head: &mut ConnHead,
        target: &Target,
        agent: &str,
    ) -> Next {
        let name = format!("{}/{}", target.app, target.name);
        let refusal = match (StreamKey::parse(&name), Options::parse(|name| target.parameter(name))) {
            _ if core.is_draining() => "This server is shutting down; try another one.".to_owned(),
            _ if head.reserved => SERVER_FULL.to_owned(),
            (Err(error), _) => error.to_string(),
            (_, Err(error)) => error.to_string(),
            (Ok(key), Ok(options)) => {
                let answer = Self::authorise(core, head, (Action::Play, &key), target);
                if answer == Err(Ungranted::Later) {
                    self.asking = Some((Action::Play, target.clone(), agent.to_owned()));
                    return self.say(core, streams, head);
                }
                if let Err(Ungranted::Denied(denied)) = answer {
                    self.session.refuse_play(Refusal::Unauthorised, &denied.to_string());
                    let bytes = self.output();
                    return streams.viewers.say(core, head, bytes);
                }
                debug!(role = core.role(head.role).name, stream = key.as_str(), agent, "a player asks");
                let (since, patience) = (core.now(), core.role(head.role).wait);
                let play =
                    Play { key, options, after: None, via: Via::Rtmp, since, patience, head_only: false };
                self.stand_up(streams, head);
                (self.play, self.wants, self.fresh) =
                    (Some(play.clone()), Wants::of(options.selection), true);
                if head.viewer.is_some() {
                    return Next::Stay; // of its last play, which is about to end
                }
                // Earlier answers are sent first: the fan-out needs the socket for itself.
                return match self.say(core, streams, head) {
                    Next::Stay => Next::Play(Box::new(play)),
                    next => next,
                };
            }
        };
        let bytes = self.refusal(Refusal::NotFound, &refusal);
        streams.viewers.say(core, head, bytes)
    }

    /// Stops waiting and pausing.
    fn stand_up(&mut self, streams: &mut Streams, head: &ConnHead) {
        if let Some((key, ticket)) = self.paused.take() {
            streams.viewers.resume(head, &key, ticket);
        }
        if let Some(Seated { play, seat }) = self.seated.take_if(|_| head.viewer.is_none()) {
            streams.viewers.forget(head, &play.key, seat);
        }
    }

    /// The peer's wishes have changed.
    fn change<E: Engine>(&mut self, core: &mut Core<E>, streams: &mut Streams, head: &mut ConnHead) -> Next {
        let wanted = self.play.as_ref().and_then(|play| Some((play.clone(), self.wants.selection()?)));
        match (&mut self.seated, head.viewer, wanted) {
            (Some(seated), Some(_), Some((_, wanted))) if seated.play.options.selection == wanted => {}
            (_, Some(id), _) => {
                let answer = self.output();
                streams.viewers.fanout.say(&mut core.net, id, answer, true, &core.counters);
            }
            (Some(seated), None, Some((_, wanted))) => seated.play.options.selection = wanted,
            (Some(_), None, None) => self.rest(core, streams, head),
            (None, None, Some((play, selection))) => {
                self.stand_up(streams, head);
                let options = Options { selection, ..play.options };
                let play = Play { options, since: core.now(), ..play };
                return match self.say(core, streams, head) {
                    Next::Stay => Next::Play(Box::new(play)),
                    next => next,
                };
            }
            (None, None, None) if self.play.is_none() => self.rest(core, streams, head),
            (None, None, None) => {}
        }
        Next::Stay
    }

    /// The fan-out has removed the viewer as its peer wanted: does what is wanted by now.
    fn let_go<E: Engine>(
        &mut self,
        core: &mut Core<E>,
        streams: &mut Streams,
        head: &mut ConnHead,
        stream: &Stream,
        choice: Choice,
    ) -> Next {
        self.rest(core, streams, head);
        if self.play.is_some() && !self.fresh && stream.has_ended() {
            let goodbye = self.goodbye(STREAM_ENDED);
            return core.say_goodbye(head, goodbye);
        }
        // It resumes after what it may have seen: timestamps must not step back.
        if let Some(play) = self.play.as_mut().filter(|_| !self.fresh) {
            play.after = Some(stream.log(choice).map_or(0, |log| log.head_time()));
        }
        self.change(core, streams, head)
    }

    /// It neither watches nor waits: it has paused, or may start another play.
    fn rest<E: Engine>(&mut self, core: &mut Core<E>, streams: &mut Streams, head: &ConnHead) {
        self.stand_up(streams, head);
        match &self.play {
            Some(play) => {
                self.paused = Some((play.key.clone(), streams.viewers.pause(head, &play.key)));
                core.deadline(head.sock, PAUSE_MAX);
            }
            None => core.deadline(head.sock, core.request_time()),
        }
    }

    /// A stream that it has paused is over: notifies it.
    pub(super) fn paused_stream_ended<E: Engine>(&mut self, core: &mut Core<E>, head: &mut ConnHead) -> Next {
        self.paused = None;
        let goodbye = self.goodbye(STREAM_ENDED);
        core.say_last(head, goodbye)
    }

    /// The fan-out has removed it.
    pub(super) fn farewell<E: Engine>(
        &mut self,
        core: &mut Core<E>,
        streams: &mut Streams,
        head: &mut ConnHead,
        farewell: Farewell,
    ) -> Next {
        let Some(seated) = &self.seated else { return Next::close(farewell.to_string()) };
        match farewell {
            Farewell::NeverBegan(status) => {
                // The start of the play is still to be answered, unless it resumes.
                self.fresh = !self.has_watched();
                let play = seated.play.clone();
                streams.viewers.leave(core, head);
                self.sit(play.clone(), Seat::Gone);
                // A viewer that resumes a stream that is over does not continue with another one of the same name.
                if self.has_watched() || play.time_left(core.now()) == 0 {
                    return self.refuse(core, streams, head, status);
                }
                Next::Play(Box::new(play))
            }
            Farewell::Refused => {
                let watched = head.viewer.map(|id| streams.viewers.fanout.watched(id));
                let unsaid = streams.viewers.leave(core, head).map(|viewer| viewer.own.into_rest());
                let Some((stream, choice)) = watched else { return Next::close(farewell.to_string()) };
                match core.say(head, unsaid.unwrap_or_default()) {
                    Next::Stay => self.let_go(core, streams, head, &stream, choice),
                    next => next,
                }
            }
            Farewell::StreamEnded | Farewell::Kicked | Farewell::Expired => {
                let why = match farewell {
                    Farewell::Kicked => KICKED,
                    Farewell::Expired => EXPIRED,
                    _ => STREAM_ENDED,
                };
                streams.viewers.leave(core, head);
                let goodbye = self.goodbye(why);
                core.say_goodbye(head, goodbye)
            }
            Farewell::TooSlow | Farewell::Stalled | Farewell::Broken(_) => {
                cut(core, head, &seated.play.key, farewell)
            }
        }
    }

    /// Answers that a limit does not let it wait.
    pub(super) fn turn_away<E: Engine>(
        &mut self,
        core: &mut Core<E>,
        head: &mut ConnHead,
        why: Refused,
    ) -> Next {
        self.seated = None;
        let last = self.refusal(Refusal::Failed, &why.to_string());
        core.say_last(head, last)
    }

    /// Answers that there is no such stream.
    fn refuse<E: Engine>(
        &mut self,
        core: &mut Core<E>,
        streams: &mut Streams,
        head: &mut ConnHead,
        status: u16,
    ) -> Next {
        let Some(Seated { play, seat }) = self.seated.take() else { return Next::Stay };
        streams.viewers.leave(core, head);
        streams.viewers.forget(head, &play.key, seat);
        debug!(role = core.role(head.role).name, stream = play.key.as_str(), status, "refused a viewer");
        let last = self.refusal(Refusal::NotFound, &no_such_stream(&play.key, status));
        core.say_last(head, last)
    }

    /// Its deadline has passed.
    pub(super) fn deadline<E: Engine>(
        &mut self,
        core: &mut Core<E>,
        streams: &mut Streams,
        head: &mut ConnHead,
    ) -> Next {
        if let Some(id) = head.viewer {
            if let Some(why) = streams.viewers.fanout.dismissed(id) {
                core.counters[head.role].farewell(why);
                return Next::close(why.to_string());
            }
            if !streams.viewers.fanout.is_waiting(id, core.now()) {
                head.is_established();
                return Next::Stay;
            }
        }
        if self.pending().is_some() {
            return Next::close("it did not read its answer in time");
        }
        if self.seated.is_some() {
            let status = core.role(head.role).source.absence();
            return self.refuse(core, streams, head, status);
        }
        if self.paused.is_some() {
            let goodbye = self.goodbye("It has paused for too long.");
            return core.say_last(head, goodbye);
        }
        if self.publication.writer.is_some() {
            return streams
                .publishers
                .deadline(core, head, &mut self.publication)
                .err()
                .unwrap_or(Next::Stay);
        }
        const REASON: &str = "it did not publish in time";
        core.log_refusal(head, "", REASON);
        core.counters[head.role].bad_peers.add(1);
        self.dismiss(core, streams, head, REASON)
    }

    /// The end that its token tells has come.
    pub(super) fn expired<E: Engine>(
        &mut self,
        core: &mut Core<E>,
        streams: &mut Streams,
        head: &mut ConnHead,
    ) -> Next {
        match head.viewer {
            Some(id) => streams.viewers.expire(core, head, id),
            None if self.play.is_some() => {
                let goodbye = self.goodbye(EXPIRED);
                return core.say_last(head, goodbye);
            }
            None => return self.dismiss(core, streams, head, EXPIRED),
        }
        Next::Stay
    }

    /// Ends it as a publisher, through no fault of its bytes.
    pub(super) fn dismiss<E: Engine>(
        &mut self,
        core: &mut Core<E>,
        streams: &mut Streams,
        head: &mut ConnHead,
        reason: &str,
    ) -> Next {
        streams.publishers.give_up(core, head, &mut self.publication, reason);
        self.session.end_publish(reason);
        let goodbye = self.output();
        core.say_last(head, goodbye)
    }

    /// The connection is closed: removes it from all streams.
    pub(super) fn closed<E: Engine>(
        &mut self,
        core: &mut Core<E>,
        streams: &mut Streams,
        head: &mut ConnHead,
        reason: &str,
    ) {
        streams.viewers.leave(core, head);
        self.stand_up(streams, head);
        streams.publishers.give_up(core, head, &mut self.publication, reason);
    }
}
