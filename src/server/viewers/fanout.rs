//! The fan-out of one loop: its views of streams, and the viewers of each.
//!
//! When a view's window has passed, its viewers are walked slice by slice ([`super::walk`]). Each viewer whose
//! previous send is complete gets one send of everything between its cursor and the head. A viewer whose send
//! completes waits for the next walk, unless it was given less than there was or was passed over meanwhile.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;

use super::pace::Windows;
use super::view::{View, pump, took};
use super::viewer::{Farewell, Framing, NO_SPAN, Own, Policy, State, Viewer, ViewerId, Wish};
use super::walk::Walk;
use crate::live::cursor::{Cursor, StartAt};
use crate::live::key::StreamKey;
use crate::live::stream::{Choice, Stream};
use crate::server::counters::RoleCounters;
use crate::server::transport::Transports;
use crate::uring::{Engine, FrameHead, Millis, SendError, Sock};

/// Pings of a viewer are not answered while more bytes of its own than this wait for it.
const OWN_MAX: usize = 16 << 10;

/// All views and viewers of a loop.
#[derive(Debug, Default)]
pub(in crate::server) struct Fanout {
    views: Vec<Option<View>>,
    by_stream: HashMap<(u64, Choice), u32>,
    viewers: Vec<Option<Viewer>>,
    free_views: Vec<u32>,
    free_viewers: Vec<ViewerId>,
    due: BinaryHeap<Reverse<(Millis, u32)>>,
    /// Viewers to be removed, with the reason: found while walking, closed by the worker.
    leaving: Vec<(ViewerId, Sock, Farewell)>,
    windows: Windows,
    /// The number of viewers served in one step.
    slice: usize,
}

/// The number of viewers served in one step: some milliseconds of work.
pub(in crate::server) const SLICE: usize = 256;

impl Fanout {
    /// No viewers yet; at most `slice` of them are served in one step.
    pub(in crate::server) fn new(slice: usize) -> Self {
        Self { slice, ..Self::default() }
    }

    /// Adds a viewer to a stream; [`welcome`](Self::welcome) sends its first bytes.
    pub(in crate::server) fn join(
        &mut self,
        loop_index: usize,
        stream: &Arc<Stream>,
        (role, policy): (usize, Policy),
        sock: Sock,
        wish: Wish,
    ) -> ViewerId {
        let encoding = wish.framing.encoding();
        let choice = Choice { selection: wish.selection, encoding };
        let view_id = self.view(loop_index, stream, choice, (role, policy));
        let view = self.views[view_id as usize].as_mut().expect("found or made above");
        let start = match wish.start {
            StartAt::NotBefore(offset) => StartAt::NotBefore(view.live_head() + offset),
            other => other,
        };
        let mut own = Own::default();
        own.push(wish.answer);
        let viewer = Viewer {
            sock,
            view: view_id,
            member: u32::try_from(view.members.len()).expect("fewer than 2^32 viewers"),
            state: State::Idle,
            framing: wish.framing,
            last_words: None,
            head_only: wish.head_only,
            started: false,
            passed_over: false,
            frame: FrameHead::default(),
            message_end: 0,
            span: NO_SPAN,
            cursor: Cursor::new(start, encoding),
            own,
            since: wish.since,
        };
        let id = self.free_viewers.pop().unwrap_or_else(|| {
            self.viewers.push(None);
            u32::try_from(self.viewers.len() - 1).expect("fewer than 2^32 viewers")
        });
        self.viewers[id as usize] = Some(viewer);
        view.members.push(id);
        stream.viewers.fetch_add(1, Ordering::Relaxed);
        id
    }

    /// Removes a viewer from its stream and returns it; the caller closes the socket.
    pub(in crate::server) fn leave<E: Engine>(
        &mut self,
        net: &mut Transports<E>,
        loop_index: usize,
        id: ViewerId,
    ) -> Viewer {
        let viewer = self.viewers[id as usize].take().expect("a viewer leaves once");
        self.free_viewers.push(id);
        let view = self.views[viewer.view as usize].as_mut().expect("a viewer's view stays");
        view.members.swap_remove(viewer.member as usize);
        if let Some(moved) = view.members.get(viewer.member as usize) {
            self.viewers[*moved as usize].as_mut().expect("a member").member = viewer.member;
            let (from, to) = (view.members.len(), viewer.member as usize);
            view.walk.iter_mut().for_each(|walk| walk.moved(from, to));
        }
        view.let_go(net, viewer.span);
        view.stream.viewers.fetch_sub(1, Ordering::Relaxed);
        if view.members.is_empty() {
            self.drop_view(net, loop_index, viewer.view);
        }
        viewer
    }

    /// The stream has new data: its views are flushed when their windows have passed.
    pub(in crate::server) fn news(&mut self, stream: u64, now: Millis) {
        for choice in Choice::every() {
            if let Some(&id) = self.by_stream.get(&(stream, choice)) {
                self.schedule(id, now);
            }
        }
    }

    /// The stream is over: its viewers get the rest and are then removed.
    pub(in crate::server) fn stream_ended(&mut self, stream: u64, status: u16, now: Millis) {
        for choice in Choice::every() {
            if let Some(&id) = self.by_stream.get(&(stream, choice)) {
                self.views[id as usize].as_mut().expect("listed").ended = Some(status);
                self.schedule(id, now);
            }
        }
    }

    /// When the next view is to be flushed.
    pub(in crate::server) fn next_flush(&self) -> Option<Millis> {
        self.due.peek().map(|Reverse((at, _))| *at)
    }

    /// The width of windows from here on.
    pub(in crate::server) fn set_windows(&mut self, windows: Windows) {
        self.windows = windows;
    }

    /// Serves the viewers that are due, as many as one turn of the loop allows.
    pub(in crate::server) fn flush<E: Engine>(&mut self, net: &mut Transports<E>, counters: &[RoleCounters]) {
        let now = net.now();
        let mut budget = 2 * self.slice;
        while let Some(Reverse((at, id))) = self.due.peek().copied().filter(|Reverse((at, _))| *at <= now) {
            if budget == 0 {
                return; // events that arrived meanwhile are handled first
            }
            self.due.pop();
            let view = self.views[id as usize].as_mut();
            let Some(view) = view.filter(|view| view.walk.is_some_and(|walk| walk.due() == at)) else {
                continue; // out of date
            };
            let counters = &counters[view.role];
            let walk = view.walk.as_mut().expect("as filtered");
            if !walk.has_begun() {
                view.walked = now;
                counters.flushes.add(1);
            }
            let slice = walk.next_slice(view.members.len(), self.slice);
            budget = budget.saturating_sub(slice.len().max(1));
            view.refresh(net);
            for place in slice {
                let member = view.members[place];
                let viewer = self.viewers[member as usize].as_mut().expect("a member");
                if viewer.state != State::Idle {
                    viewer.passed_over = true;
                } else if let Err(farewell) = pump(net, view, viewer, counters) {
                    dismiss(&mut self.leaving, member, viewer, farewell);
                }
            }
            self.walk_on(id, now);
        }
    }

    /// Plans the next slice of a view's walk, or the next walk.
    fn walk_on(&mut self, id: u32, now: Millis) {
        let view = self.views[id as usize].as_mut().expect("it has just been walked");
        let walk = view.walk.expect("as above");
        if !walk.is_over(view.members.len()) {
            self.due.push(Reverse((walk.due(), id)));
            return;
        }
        view.walk = None;
        if walk.wants_another() {
            self.schedule(id, now);
        }
    }

    /// A viewer's send has ended.
    #[inline]
    pub(in crate::server) fn sent<E: Engine>(
        &mut self,
        net: &mut Transports<E>,
        id: ViewerId,
        result: Result<u32, SendError>,
        counters: &[RoleCounters],
    ) {
        let Some(viewer) = self.viewers.get_mut(id as usize).and_then(Option::as_mut) else { return };
        let view = self.views[viewer.view as usize].as_mut().expect("a viewer's view stays");
        let counters = &counters[view.role];
        let fate = match result {
            Ok(bytes) => {
                counters.sends.add(1);
                counters.bytes_out[viewer.framing.protocol() as usize].add(u64::from(bytes));
                took(net, viewer, bytes, counters);
                let rests = viewer.is_served() && view.ended.is_none();
                if rests { Ok(()) } else { pump(net, view, viewer, counters) }
            }
            Err(SendError::Full) => {
                viewer.state = State::Blocked(net.now());
                net.poll_writable(viewer.sock);
                Ok(())
            }
            Err(SendError::Broken(error)) => Err(Farewell::Broken(error)),
        };
        if let Err(farewell) = fate {
            dismiss(&mut self.leaving, id, viewer, farewell);
        }
    }

    /// A viewer's full socket has capacity again.
    pub(in crate::server) fn writable<E: Engine>(
        &mut self,
        net: &mut Transports<E>,
        id: ViewerId,
        counters: &[RoleCounters],
    ) {
        let Some(viewer) = self.viewers.get_mut(id as usize).and_then(Option::as_mut) else { return };
        if matches!(viewer.state, State::Blocked(_)) {
            viewer.state = State::Idle;
            self.serve(net, id, counters);
        }
    }

    /// Gives an idle viewer its next send, if there is anything to send.
    fn serve<E: Engine>(&mut self, net: &mut Transports<E>, id: ViewerId, counters: &[RoleCounters]) {
        let Some(viewer) = self.viewers.get_mut(id as usize).and_then(Option::as_mut) else { return };
        let view = self.views[viewer.view as usize].as_mut().expect("a viewer's view stays");
        if viewer.state == State::Idle
            && let Err(farewell) = pump(net, view, viewer, &counters[view.role])
        {
            dismiss(&mut self.leaving, id, viewer, farewell);
        }
    }

    /// Queues bytes of a viewer's own (a control frame), to be sent where its framing next allows them; `last`:
    /// the connection is closed after them.
    pub(in crate::server) fn say<E: Engine>(
        &mut self,
        net: &mut Transports<E>,
        id: ViewerId,
        bytes: Bytes,
        last: bool,
        counters: &[RoleCounters],
    ) {
        let Some(viewer) = self.viewers.get_mut(id as usize).and_then(Option::as_mut) else { return };
        // An RTMP connection outlives its viewer: what its session sends until then is kept.
        let goes_on = viewer.framing == Framing::Rtmp && viewer.last_words == Some(Farewell::Refused);
        if viewer.last_words.is_some() && !goes_on {
            return;
        }
        if viewer.cursor.is_fresh() && !last && viewer.framing != Framing::Rtmp {
            return; // the response head still waits: the client expects no frames yet
        }
        if !last && viewer.own.alone() >= OWN_MAX {
            return; // it sends requests and does not read the answers
        }
        viewer.own.push(bytes);
        viewer.last_words = (last || goes_on).then_some(Farewell::Refused);
        self.serve(net, id, counters);
    }

    /// Removes a viewer after the tag, or the message, that is being sent.
    pub(in crate::server) fn dismiss<E: Engine>(
        &mut self,
        net: &mut Transports<E>,
        id: ViewerId,
        why: Farewell,
        counters: &[RoleCounters],
    ) {
        let Some(viewer) = self.viewers.get_mut(id as usize).and_then(Option::as_mut) else { return };
        viewer.last_words = Some(why);
        self.serve(net, id, counters);
    }

    /// Why a viewer has been dismissed, if it was, and not by itself.
    pub(in crate::server) fn dismissed(&self, id: ViewerId) -> Option<Farewell> {
        let why = self.viewer(id).and_then(|viewer| viewer.last_words);
        why.filter(|why| matches!(why, Farewell::Kicked | Farewell::Expired))
    }

    /// The views of the stream of that name, or all.
    pub(in crate::server) fn views(&self, key: Option<&StreamKey>) -> impl Iterator<Item = &View> {
        self.views.iter().flatten().filter(move |view| key.is_none_or(|key| view.stream.key == *key))
    }

    /// The viewers of a view.
    pub(in crate::server) fn members(&self, view: &View) -> impl Iterator<Item = &Viewer> {
        view.members.iter().filter_map(|id| self.viewer(*id))
    }

    /// Finds the viewers whose sockets have been full for too long, and returns the bytes that the kernel holds
    /// for those whose sockets are full now. `tight`: the kernel is to hold less.
    pub(in crate::server) fn sweep<E: Engine>(
        &mut self,
        net: &mut Transports<E>,
        now: Millis,
        tight: bool,
    ) -> u64 {
        /// What the kernel may hold for a viewer while memory is short, in bytes.
        const SMALL: u32 = 32 << 10;
        let mut queued = 0;
        for (id, viewer) in self.viewers.iter_mut().enumerate() {
            let Some(viewer) = viewer else { continue };
            let State::Blocked(since) = viewer.state else { continue };
            let view = self.views[viewer.view as usize].as_ref().expect("a viewer's view stays");
            if now.saturating_sub(since) >= view.policy.stall {
                let id = u32::try_from(id).expect("fewer than 2^32 viewers");
                dismiss(&mut self.leaving, id, viewer, Farewell::Stalled);
                continue;
            }
            if tight {
                net.set_send_buffer(viewer.sock, SMALL);
            }
            queued += net.queued(viewer.sock).map_or(u64::from(SMALL), u64::from);
        }
        queued
    }

    /// Bytes of the greetings that all views keep.
    pub(in crate::server) fn greeting_bytes(&self) -> u64 {
        self.views.iter().flatten().map(|view| view.greeting_bytes() as u64).sum()
    }

    /// The next viewer to be removed.
    pub(in crate::server) fn next_leaving(&mut self) -> Option<(Sock, Farewell)> {
        loop {
            let (id, sock, farewell) = self.leaving.pop()?;
            let there = self.viewers.get(id as usize).and_then(Option::as_ref);
            if there.is_some_and(|viewer| viewer.sock == sock) {
                return Some((sock, farewell));
            }
        }
    }

    /// Whether a viewer waits for its stream: it has received nothing yet and has nothing under way, not even a
    /// goodbye, and no media comes. If media comes, it waits only for a keyframe.
    pub(in crate::server) fn is_waiting(&self, id: ViewerId, now: Millis) -> bool {
        self.viewer(id).is_some_and(|viewer| {
            let nothing_yet = viewer.cursor.is_fresh() && viewer.state == State::Idle;
            nothing_yet && !self.views[viewer.view as usize].as_ref().is_some_and(|view| view.is_live(now))
        })
    }

    /// Whether a viewer has received no byte of its stream.
    pub(in crate::server) fn is_fresh(&self, id: ViewerId) -> bool {
        self.viewer(id).is_some_and(|viewer| viewer.cursor.is_fresh())
    }

    /// What a viewer watches.
    pub(in crate::server) fn watched(&self, id: ViewerId) -> (Arc<Stream>, Choice) {
        let viewer = self.viewer(id).expect("the viewer is in the table");
        let view = self.views[viewer.view as usize].as_ref().expect("a viewer's view stays");
        (Arc::clone(&view.stream), view.choice)
    }

    fn viewer(&self, id: ViewerId) -> Option<&Viewer> {
        self.viewers.get(id as usize)?.as_ref()
    }

    fn schedule(&mut self, id: u32, now: Millis) {
        let view = self.views[id as usize].as_mut().expect("a listed view");
        if let Some(walk) = &mut view.walk {
            walk.news();
            return;
        }
        let window = view.policy.flush.unwrap_or(self.windows.usual).max(self.windows.floor);
        let walk = Walk::new(on_grid(now, view.walked, window), window);
        view.walk = Some(walk);
        self.due.push(Reverse((walk.due(), id)));
    }

    /// Sends a viewer that has just joined its first bytes, from what its view knows: many viewers that arrive
    /// at once must not shorten the window of the others.
    pub(in crate::server) fn welcome<E: Engine>(
        &mut self,
        net: &mut Transports<E>,
        id: ViewerId,
        counters: &[RoleCounters],
    ) {
        let Some(viewer) = self.viewers.get_mut(id as usize).and_then(Option::as_mut) else { return };
        let view = self.views[viewer.view as usize].as_mut().expect("a viewer's view stays");
        if view.is_blank() {
            view.refresh(net);
        }
        self.serve(net, id, counters);
    }

    fn view(
        &mut self,
        loop_index: usize,
        stream: &Arc<Stream>,
        choice: Choice,
        (role, policy): (usize, Policy),
    ) -> u32 {
        if let Some(&id) = self.by_stream.get(&(stream.id, choice)) {
            return id;
        }
        stream.subscribe(loop_index, true);
        let view = View::new(stream, choice, role, policy);
        let id = self.free_views.pop().unwrap_or_else(|| {
            self.views.push(None);
            u32::try_from(self.views.len() - 1).expect("fewer than 2^32 views")
        });
        self.views[id as usize] = Some(view);
        self.by_stream.insert((stream.id, choice), id);
        id
    }

    fn drop_view<E: Engine>(&mut self, net: &mut Transports<E>, loop_index: usize, id: u32) {
        let view = self.views[id as usize].take().expect("a view is dropped once");
        self.free_views.push(id);
        self.by_stream.remove(&(view.stream.id, view.choice));
        if !Choice::every().any(|other| self.by_stream.contains_key(&(view.stream.id, other))) {
            view.stream.subscribe(loop_index, false);
        }
        view.end(net);
    }
}

/// When a view is due whose last walk was at `walked`. The walks of all views begin at multiples of an eighth of the
/// window, so that a turn of the loop serves several of them.
fn on_grid(now: Millis, walked: Millis, window: Millis) -> Millis {
    let grid = (window / 8).max(1);
    let next = walked + window;
    now.next_multiple_of(grid).max(next - next % grid)
}

/// Marks a viewer as to be removed. Nothing is sent to it from here on, since its handler needs the socket for
/// the final answer.
fn dismiss(
    leaving: &mut Vec<(ViewerId, Sock, Farewell)>,
    id: ViewerId,
    viewer: &mut Viewer,
    farewell: Farewell,
) {
    viewer.state = State::Leaving;
    leaving.push((id, viewer.sock, farewell));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn views_are_due_together_and_no_later_than_their_windows() {
        for (now, walked, window, due) in [
            (1001, 0, 0, 1001),
            (1001, 1000, 5, 1005),
            (1001, 1000, 40, 1040),
            (1007, 1006, 40, 1045), // late, and on the grid again
            (1043, 1000, 40, 1045),
            (9_000, 0, 350, 9_030),
        ] {
            assert_eq!(on_grid(now, walked, window), due, "{now} {walked} {window}");
        }
    }
}
