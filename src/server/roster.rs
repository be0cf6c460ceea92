//! Who watches, and letting one go: what the control thread asks of the loops for an operator.
//!
//! Each question goes through the loops' mailboxes with a place for the answer. A loop looks at its tables when
//! it comes to the question; nothing is kept for it, and nothing on the way of tags knows of it.

use std::fmt;
use std::str::FromStr;

use serde::Serialize;
use tokio::sync::oneshot;
use tracing::info;

use super::conn::Kind;
use super::shared::{Message, Shared};
use super::worker::{LEAVE, Worker};
use crate::live::key::StreamKey;
use crate::live::stream::Stream;
use crate::uring::{Engine, Sock};

/// Viewers that one answer names at the most.
pub const LIMIT_MAX: usize = 1_000;

/// Which viewers are asked for.
#[derive(Clone, Debug)]
pub struct Query {
    /// Those of this stream only.
    pub stream: Option<StreamKey>,
    /// Not more than so many.
    pub limit: usize,
}

/// A viewer as an operator sees it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Entry {
    /// Its name, for [`kick`].
    pub id: String,
    /// The role that serves it.
    pub role: &'static str,
    /// What it watches.
    pub stream: String,
    /// What it speaks.
    pub protocol: &'static str,
    /// Its address.
    pub peer: String,
    /// Since when, in milliseconds on the server's clock: what lists are ordered by.
    #[serde(skip)]
    pub since: u64,
    /// For how long it has watched.
    pub seconds: u64,
    /// Bytes between it and the newest tag; none before its first byte.
    pub behind_bytes: Option<u64>,
    /// It is a forward of ours to another server.
    pub forward: bool,
}

/// What one loop answers.
#[derive(Debug, Default)]
pub struct Roll {
    /// How many there are.
    pub total: usize,
    /// Some of them.
    pub entries: Vec<Entry>,
}

/// What became of the wish to let a viewer go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kick {
    /// It is told, and goes.
    Done,
    /// There is no such viewer, or not any more.
    Gone,
    /// It is a forward of ours: it would only come again.
    Forward,
}

/// The name of a viewer: the run of the program, the loop, and the loop's name for the socket. It is never
/// another one's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ViewerName {
    run: u32,
    index: usize,
    sock: Sock,
}

impl fmt::Display for ViewerName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { run, index, sock } = self;
        write!(f, "{run:08x}-{index:x}-{:x}-{:x}", sock.index, sock.generation)
    }
}

/// A text that names no viewer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("this is no viewer's id: take one from /api/v1/viewers")]
pub struct BadName;

impl FromStr for ViewerName {
    type Err = BadName;

    fn from_str(text: &str) -> Result<Self, BadName> {
        let mut parts = text.split('-').map(|part| u32::from_str_radix(part, 16).map_err(|_| BadName));
        let mut part = || parts.next().unwrap_or(Err(BadName));
        let (run, index) = (part()?, part()? as usize);
        let name = Self { run, index, sock: Sock { index: part()?, generation: part()? } };
        // One viewer has one name: no other way to write it, nothing behind it.
        if name.to_string() == text { Ok(name) } else { Err(BadName) }
    }
}

/// Asks every loop who watches.
pub fn ask(shared: &Shared, query: &Query) -> Vec<oneshot::Receiver<Roll>> {
    let ask = |post: &crate::uring::mailbox::Postbox<Message>| {
        let (reply, answer) = oneshot::channel();
        post.post(Message::Viewers(query.clone(), reply));
        answer
    };
    shared.posts.iter().map(ask).collect()
}

/// Wants a viewer gone; `None`: it is of another run of the program.
pub fn kick(shared: &Shared, name: ViewerName) -> Option<oneshot::Receiver<Kick>> {
    let post = shared.posts.get(name.index).filter(|_| name.run == shared.run)?;
    let (reply, answer) = oneshot::channel();
    post.post(Message::Kick(name.sock, reply));
    Some(answer)
}

/// Wants a stream's publisher gone: each loop says whether it was one of its own.
pub fn kick_publisher(shared: &Shared, stream: &Stream) -> Vec<oneshot::Receiver<bool>> {
    let ask = |post: &crate::uring::mailbox::Postbox<Message>| {
        let (reply, answer) = oneshot::channel();
        post.post(Message::KickPublisher(stream.id, reply));
        answer
    };
    shared.posts.iter().map(ask).collect()
}

impl<E: Engine> Worker<E> {
    /// Who watches on this loop.
    pub(super) fn roll(&self, query: &Query) -> Roll {
        let now = self.engine.now();
        let mut roll = Roll::default();
        for view in self.fanout.views(query.stream.as_ref()) {
            roll.total += view.members.len();
            let room = query.limit.min(LIMIT_MAX).saturating_sub(roll.entries.len());
            roll.entries.extend(self.fanout.members(view).take(room).map(|viewer| {
                let sock = viewer.sock;
                let kind = self.conn(sock).map(|conn| &conn.kind);
                Entry {
                    id: ViewerName { run: self.shared.run, index: self.index, sock }.to_string(),
                    role: self.role(view.role).name,
                    stream: view.stream.key.to_string(),
                    protocol: viewer.framing.protocol().name(),
                    peer: self.peer(sock),
                    since: viewer.since,
                    seconds: now.saturating_sub(viewer.since) / 1000,
                    behind_bytes: view.behind(viewer),
                    forward: matches!(kind, Some(Kind::Viewer(_, watching)) if watching.relay.is_some()),
                }
            }));
        }
        roll
    }

    /// Lets a viewer go, with a goodbye if it takes one soon.
    pub(super) fn on_kick(&mut self, sock: Sock) -> Kick {
        let (id, role, key) = match self.conn(sock).map(|conn| (&conn.kind, conn.role)) {
            Some((Kind::Viewer(_, watching), _)) if watching.relay.is_some() => return Kick::Forward,
            Some((Kind::Viewer(id, watching), role)) => (*id, role, watching.play.key.clone()),
            _ => return Kick::Gone,
        };
        let (role, peer) = (self.role(role).name, self.peer(sock));
        info!(role, peer, stream = key.as_str(), "an operator has kicked a viewer");
        self.deadline(sock, LEAVE);
        self.fanout.kick(&mut self.engine, id, &self.counters);
        Kick::Done
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_says_who_is_meant_and_nobody_else() {
        let name = ViewerName { run: 0xbeef, index: 11, sock: Sock { index: 300, generation: 7 } };
        assert_eq!(name.to_string(), "0000beef-b-12c-7");
        assert_eq!(name.to_string().parse(), Ok(name));
        for wrong in ["", "1", "0000beef-b-12c", "0000beef-b-12c-7-1", "beef-b-12c-7", "0000beef-B-12c-7"] {
            assert_eq!(wrong.parse::<ViewerName>(), Err(BadName), "{wrong}");
        }
        for wrong in ["0000beef-b-12c-+7", "0000beef-0b-12c-7", "0000beef-b-12c-100000000"] {
            assert_eq!(wrong.parse::<ViewerName>(), Err(BadName), "{wrong}");
        }
    }
}
