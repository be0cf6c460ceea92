//! An RTMP connection: one session, whatever its peer does over it. Publishing is [`super::publish`]'s; what
//! stands here is what viewers ask for.
//!
//! The fan-out owns the socket of a viewer. When the peer wants something else (no sound, a pause, nothing any
//! more), its viewer is let go behind a whole tag; then [`Worker::rtmp_let_go`] does what is wanted by then.

use bytes::Bytes;
use tracing::debug;

use super::conn::{Conn, Fate, Kind};
use super::play::{Play, STREAM_ENDED, Via};
use super::publish::Publisher;
use super::shared::Phase;
use super::worker::Worker;
use crate::config::Config;
use crate::live::key::StreamKey;
use crate::live::stream::{Choice, Selection, Stream};
use crate::protocol::rtmp::server::{Event, Limits, Refusal, ServerSession};
use crate::protocol::rtmp::target::Target;
use crate::uring::Engine;

/// What an RTMP connection keeps through all that it does.
#[derive(Debug)]
pub(super) struct RtmpPeer {
    pub(super) session: ServerSession,
    /// What it asked to watch, until it asks no more.
    play: Option<Play>,
    /// It has not been greeted for that yet.
    fresh: bool,
    wants: Wants,
}

/// What a viewer wants of what it asked for.
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

impl RtmpPeer {
    pub(super) fn new(config: &Config) -> Self {
        let message_max = super::publish::tag_max(config);
        let session = ServerSession::new(Limits { message_max, ..Limits::default() });
        Self { session, play: None, fresh: false, wants: Wants::of(Selection::All) }
    }

    /// What a viewer is told before its first tag; nothing to one that goes on.
    pub(super) fn greeting(&mut self) -> Bytes {
        if std::mem::take(&mut self.fresh) {
            self.session.accept_play();
        }
        self.session.take_output().unwrap_or_default()
    }

    /// It was let go before its first byte: what it was to be told is still to be said, unless it goes on.
    pub(super) fn was_not_greeted(&mut self) {
        self.fresh = !self.has_watched();
    }

    /// Whether it goes on with something that it has seen a part of.
    fn has_watched(&self) -> bool {
        self.play.as_ref().is_some_and(|play| play.after.is_some())
    }

    /// What a viewer is told when it is over, and why.
    pub(super) fn goodbye(&mut self, why: &str) -> Bytes {
        self.session.end_play(why);
        self.session.take_output().unwrap_or_default()
    }

    /// What a viewer is told whose stream is not there, or not any more.
    pub(super) fn refusal(&mut self, text: &str) -> Bytes {
        if self.has_watched() {
            return self.goodbye(STREAM_ENDED);
        }
        self.session.refuse_play(Refusal::NotFound, text);
        self.session.take_output().unwrap_or_default()
    }
}

/// The session of a connection that speaks RTMP.
pub(super) fn rtmp_of(conn: &mut Conn) -> &mut RtmpPeer {
    conn.rtmp.as_mut().expect("it speaks RTMP")
}

impl<E: Engine> Worker<E> {
    pub(super) fn rtmp_received(&mut self, conn: &mut Conn, data: &[u8]) -> Fate {
        if conn.out.last_words {
            return Fate::Keep; // it was told why it cannot go on
        }
        let result = rtmp_of(conn).session.input(data);
        match (self.rtmp_events(conn), result) {
            (Fate::Keep, Err(error)) => Fate::Refuse(error.to_string()),
            (fate, _) => fate,
        }
    }

    /// Does what the session's events ask for and sends what it has to say.
    pub(super) fn rtmp_events(&mut self, conn: &mut Conn) -> Fate {
        let mut fate = Fate::Keep;
        while let (Fate::Keep, Some(event)) = (&fate, rtmp_of(conn).session.poll_event()) {
            fate = self.on_rtmp_event(conn, event);
        }
        if let Kind::Publisher(publisher) = &mut conn.kind
            && let Some(writer) = &mut publisher.writer
        {
            self.announce(writer);
        }
        match (self.rtmp_say(conn), fate) {
            (said, Fate::Keep) => said,
            (_, fate) => fate,
        }
    }

    /// Sends what the session has to say: between the tags of a viewer, else at once.
    fn rtmp_say(&mut self, conn: &mut Conn) -> Fate {
        let Some(output) = rtmp_of(conn).session.take_output() else { return Fate::Keep };
        if let Kind::Viewer(id, _) = conn.kind {
            self.fanout.say(&mut self.engine, id, output, false, &self.counters);
            return Fate::Keep;
        }
        self.say(conn, output)
    }

    fn on_rtmp_event(&mut self, conn: &mut Conn, event: Event) -> Fate {
        match event {
            Event::Publish { target, agent, .. } if matches!(conn.kind, Kind::Publisher(_)) => {
                self.on_publish(conn, &target, agent);
            }
            Event::Publish { .. } => {
                let text = "What it watched is still under way: try again.";
                rtmp_of(conn).session.refuse_publish(Refusal::Failed, text);
            }
            Event::Media(tag) => return self.on_media(conn, &tag),
            Event::Unpublish => self.on_unpublish(conn),
            Event::Play { target, agent } => return self.on_play(conn, &target, &agent),
            Event::StopPlay => {
                rtmp_of(conn).play = None;
                return self.rtmp_change(conn);
            }
            Event::Pause(paused) => {
                rtmp_of(conn).wants.paused = paused;
                return self.rtmp_change(conn);
            }
            Event::Receive { audio, wanted } => {
                let wants = &mut rtmp_of(conn).wants;
                *(if audio { &mut wants.audio } else { &mut wants.video }) = wanted;
                return self.rtmp_change(conn);
            }
        }
        Fate::Keep
    }

    fn on_play(&mut self, conn: &mut Conn, target: &Target, agent: &str) -> Fate {
        let name = format!("{}/{}", target.app, target.name);
        let set = |name: &str| target.parameter(name).is_some_and(|value| value != "0" && value != "false");
        let selection = match (set("disableAudio"), set("disableVideo")) {
            (true, false) => Selection::Video,
            (false, true) => Selection::Audio,
            _ => Selection::All,
        };
        let refusal = match StreamKey::parse(&name) {
            _ if self.shared.phase() == Phase::Draining => {
                "This server is going down; ask another one.".to_owned()
            }
            Err(error) => error.to_string(),
            Ok(key) => {
                debug!(role = self.role(conn.role).name, stream = key.as_str(), agent, "a player asks");
                let (since, patience) = (self.engine.now(), self.role(conn.role).wait);
                let (gop, after) = (!set("disableGop"), None);
                let play =
                    Play { key, selection, gop, after, via: Via::Rtmp, since, patience, head_only: false };
                let peer = rtmp_of(conn);
                (peer.play, peer.wants, peer.fresh) = (Some(play.clone()), Wants::of(selection), true);
                if matches!(conn.kind, Kind::Viewer(..)) {
                    return Fate::Keep; // of its last play, which is about to be let go
                }
                // What was said before goes out first: the fan-out wants the socket for itself.
                return match self.rtmp_say(conn) {
                    Fate::Keep => self.play(conn, play),
                    fate => fate,
                };
            }
        };
        let bytes = rtmp_of(conn).refusal(&refusal);
        self.say(conn, bytes)
    }

    /// The peer wants something else than before.
    fn rtmp_change(&mut self, conn: &mut Conn) -> Fate {
        let peer = conn.rtmp.as_mut().expect("it speaks RTMP");
        let wanted = peer.play.as_ref().and_then(|play| Some((play, peer.wants.selection()?)));
        match (&mut conn.kind, wanted) {
            (Kind::Viewer(_, watching), Some((_, wanted))) if watching.play.selection == wanted => {}
            (Kind::Viewer(id, _), _) => {
                let id = *id;
                self.fanout.say(&mut self.engine, id, Bytes::new(), true, &self.counters);
            }
            (Kind::Waiting(play), Some((_, wanted))) => play.selection = wanted,
            (Kind::Waiting(play), None) => {
                let key = play.key.clone();
                self.forget_waiting(conn.role, &key, conn.sock);
                self.rtmp_rest(conn);
            }
            (_, Some((play, selection))) => {
                let play = Play { selection, since: self.engine.now(), ..play.clone() };
                return match self.rtmp_say(conn) {
                    Fate::Keep => self.play(conn, play),
                    fate => fate,
                };
            }
            _ => {}
        }
        Fate::Keep
    }

    /// The viewer has been let go as its peer wanted: does what is wanted by now.
    pub(super) fn rtmp_let_go(&mut self, conn: &mut Conn, stream: &Stream, choice: Choice) -> Fate {
        self.rtmp_rest(conn);
        let peer = rtmp_of(conn);
        if peer.play.is_some() && !peer.fresh && stream.has_ended() {
            let goodbye = peer.goodbye(STREAM_ENDED);
            return self.say_last(conn, goodbye);
        }
        // It goes on behind what it may have seen: its time must not step back.
        if let Some(play) = peer.play.as_mut().filter(|_| !peer.fresh) {
            play.after = Some(stream.log(choice).map_or(0, |log| log.head_time()));
        }
        self.rtmp_change(conn)
    }

    /// It neither watches nor waits: it has paused, or may ask for something else.
    fn rtmp_rest(&mut self, conn: &mut Conn) {
        conn.kind = Kind::Publisher(Box::new(Publisher::rtmp()));
        if rtmp_of(conn).play.is_some() {
            self.paused.push(conn.sock);
            self.no_deadline(conn.sock);
        } else {
            self.deadline(conn.sock, self.request_time());
        }
    }

    /// A stream is over: those who have paused it are told so.
    pub(super) fn paused_stream_ended(&mut self, key: &StreamKey) {
        for sock in std::mem::take(&mut self.paused) {
            let mut pauses_on = false;
            self.with(sock, |worker, conn| {
                let (Some(peer), Kind::Publisher(_)) = (&mut conn.rtmp, &conn.kind) else {
                    return Fate::Keep;
                };
                let Some(play) = &peer.play else { return Fate::Keep };
                if play.key != *key {
                    pauses_on = true;
                    return Fate::Keep;
                }
                let goodbye = peer.goodbye(STREAM_ENDED);
                worker.say_last(conn, goodbye)
            });
            if pauses_on {
                self.paused.push(sock);
            }
        }
    }
}
