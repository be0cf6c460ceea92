//! The viewers of this loop: those that watch, those that wait for a missing stream, and those that have
//! paused.

use std::sync::Arc;

use bytes::Bytes;
use tracing::info;

use super::fanout::{Fanout, SLICE};
use super::listing::{Entry, Kick, LIMIT_MAX, Query, ViewerList, ViewerName};
use super::play::Play;
use super::viewer::{Farewell, Viewer, ViewerId, Wish};
use crate::live::key::StreamKey;
use crate::live::stream::Stream;
use crate::server::askers::{Askers, Ticket};
use crate::server::core::{Core, LEAVE};
use crate::server::head::{ConnHead, Next};
use crate::server::limits::Refused;
use crate::uring::{Engine, Sock};

/// The text for viewers whose stream has ended, in protocols that can carry one.
pub(in crate::server) const STREAM_ENDED: &str = "The stream has ended.";
/// The text for clients that an operator has ended.
pub(in crate::server) const KICKED: &str = "An operator has ended this.";
/// What a viewer is told whose token has ended.
pub(in crate::server) const EXPIRED: &str = "The token that you came with has ended.";

/// The state of a connection and the stream that it asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::server) enum Seat {
    /// Earlier answers are sent first.
    Pending,
    /// The stream does not exist yet.
    Waiting(Ticket),
    /// The fan-out owns its socket.
    Watching,
    /// No longer anywhere: the end is being reported to it.
    Gone,
}

/// Viewers, and connections that are about to be viewers.
#[derive(Debug)]
pub(in crate::server) struct Viewers {
    pub(in crate::server) fanout: Fanout,
    waiting: Askers,
    /// RTMP viewers that have paused.
    paused: Askers,
}

impl Default for Viewers {
    fn default() -> Self {
        Self::new(SLICE)
    }
}

impl Viewers {
    /// No viewers yet; at most `slice` of them are served in one step.
    pub(in crate::server) fn new(slice: usize) -> Self {
        Self { fanout: Fanout::new(slice), waiting: Askers::default(), paused: Askers::default() }
    }

    /// Makes a connection a viewer of a stream. `answer` is sent before its first byte of the stream.
    pub(in crate::server) fn watch<E: Engine>(
        &mut self,
        core: &mut Core<E>,
        head: &mut ConnHead,
        play: &Play,
        answer: Bytes,
        stream: &Arc<Stream>,
    ) {
        let wish = Wish {
            selection: play.options.selection,
            start: play.start(core.now(), stream.uptime(core.now())),
            framing: play.framing(),
            answer,
            head_only: play.head_only,
            since: play.since,
        };
        core.deadline(head.sock, play.time_left(core.now()));
        // While the stream is still being pulled, the viewer counts as waiting.
        if stream.newest_media().is_some() {
            head.is_established();
        }
        self.join(core, head, stream, wish);
        tracing::debug!(role = core.role(head.role).name, stream = stream.key.as_str(), "viewer came");
    }

    /// Hands a connection's socket to the fan-out.
    pub(in crate::server) fn join<E: Engine>(
        &mut self,
        core: &mut Core<E>,
        head: &mut ConnHead,
        stream: &Arc<Stream>,
        wish: Wish,
    ) {
        let policy = core.role(head.role).policy;
        let protocol = wish.framing.protocol();
        let id = self.fanout.join(core.index, stream, (head.role, policy), head.sock, wish);
        head.viewer = Some(id);
        core.counters[head.role].viewers[protocol as usize].add(1);
        self.fanout.welcome(&mut core.net, id, &core.counters);
        if stream.has_ended() {
            // It ended before this loop was listed: no message will come.
            self.fanout.stream_ended(stream.id, 404, core.now());
        }
    }

    /// Takes a connection's socket back from the fan-out, if that owns it.
    pub(in crate::server) fn leave<E: Engine>(
        &mut self,
        core: &mut Core<E>,
        head: &mut ConnHead,
    ) -> Option<Viewer> {
        let id = head.viewer.take()?;
        let viewer = self.fanout.leave(&mut core.net, core.index, id);
        core.counters[head.role].viewers[viewer.framing.protocol() as usize].sub(1);
        Some(viewer)
    }

    /// Lets a connection wait for its stream.
    ///
    /// # Errors
    /// [`Refused`] when its address has reached its limit of waits.
    pub(in crate::server) fn wait<E: Engine>(
        &mut self,
        core: &mut Core<E>,
        head: &mut ConnHead,
        play: &Play,
    ) -> Result<Ticket, Refused> {
        core.admit_wait(head)?;
        core.deadline(head.sock, play.time_left(core.now()));
        Ok(self.waiting.add(head.role, &play.key, head.sock))
    }

    /// Removes a connection from the waits.
    pub(in crate::server) fn forget(&mut self, head: &ConnHead, key: &StreamKey, seat: Seat) {
        if let Seat::Waiting(ticket) = seat {
            self.waiting.remove(head.role, key, ticket);
        }
    }

    /// A stream has come: takes out the connections that wait for it.
    pub(in crate::server) fn take_waiting(&mut self, role: usize, key: &StreamKey) -> Vec<Sock> {
        self.waiting.take(role, key)
    }

    /// The streams that connections wait for, with their roles.
    pub(in crate::server) fn awaited(&self) -> Vec<(usize, StreamKey)> {
        self.waiting.streams()
    }

    /// A viewer has paused.
    pub(in crate::server) fn pause(&mut self, head: &ConnHead, key: &StreamKey) -> Ticket {
        self.paused.add(head.role, key, head.sock)
    }

    /// A viewer has ended its pause.
    pub(in crate::server) fn resume(&mut self, head: &ConnHead, key: &StreamKey, ticket: Ticket) {
        self.paused.remove(head.role, key, ticket);
    }

    /// A stream has ended: takes out the viewers that have paused it.
    pub(in crate::server) fn take_paused(&mut self, role: usize, key: &StreamKey) -> Vec<Sock> {
        self.paused.take(role, key)
    }

    /// Sends a session's own bytes: between whole tags to a viewer, otherwise at once.
    pub(in crate::server) fn say<E: Engine>(
        &mut self,
        core: &mut Core<E>,
        head: &mut ConnHead,
        bytes: Bytes,
    ) -> Next {
        let Some(id) = head.viewer else { return core.say(head, bytes) };
        self.fanout.say(&mut core.net, id, bytes, false, &core.counters);
        Next::Stay
    }

    /// Lists the viewers of this loop. `is_forward` marks the server's own relays.
    pub(in crate::server) fn list<E: Engine>(
        &self,
        core: &Core<E>,
        query: &Query,
        is_forward: impl Fn(Sock) -> bool,
    ) -> ViewerList {
        let now = core.now();
        let mut listing = ViewerList::default();
        for view in self.fanout.views(query.stream.as_ref()) {
            listing.total += view.members.len();
            let left = query.limit.min(LIMIT_MAX).saturating_sub(listing.entries.len());
            listing.entries.extend(self.fanout.members(view).take(left).map(|viewer| {
                let sock = viewer.sock;
                Entry {
                    id: ViewerName { run: core.shared.run, index: core.index, sock }.to_string(),
                    role: core.role(view.role).name,
                    stream: view.stream.key.to_string(),
                    protocol: viewer.framing.protocol().name(),
                    peer: core.peer(sock),
                    since: viewer.since,
                    seconds: now.saturating_sub(viewer.since) / 1000,
                    behind_bytes: view.behind(viewer),
                    forward: is_forward(sock),
                }
            }));
        }
        listing
    }

    /// Disconnects a viewer for an operator, with a goodbye if it reads that soon.
    pub(in crate::server) fn kick<E: Engine>(&mut self, core: &mut Core<E>, head: &ConnHead) -> Kick {
        let Some(id) = head.viewer else { return Kick::Gone };
        let (stream, _) = self.fanout.watched(id);
        let (role, peer) = (core.role(head.role).name, core.peer(head.sock));
        info!(role, peer, stream = stream.key.as_str(), "an operator has kicked a viewer");
        core.deadline(head.sock, LEAVE);
        self.fanout.dismiss(&mut core.net, id, Farewell::Kicked, &core.counters);
        Kick::Done
    }

    /// Disconnects a viewer whose token has ended, with a goodbye if it reads that soon.
    pub(in crate::server) fn expire<E: Engine>(&mut self, core: &mut Core<E>, head: &ConnHead, id: ViewerId) {
        core.deadline(head.sock, LEAVE);
        self.fanout.dismiss(&mut core.net, id, Farewell::Expired, &core.counters);
    }
}
