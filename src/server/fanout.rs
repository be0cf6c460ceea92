//! The fan-out of one loop: its views of streams, and the viewers that follow them.
//!
//! A view is what a loop knows of one log: the head up to which it sends in the present window, the index,
//! and the segments that its viewers stand in. All viewers that have what there was are walked when the view
//! is flushed; each is given one send of all that stands between its cursor and the window's head. A viewer
//! whose send is done waits for the next flush, unless the window has more for it.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;

use super::counters::RoleCounters;
use super::viewer::{Farewell, Framing, NO_SPAN, State, Viewer, Wish, flv_head};
use crate::live::cursor::{Beginning, Cursor, LagLimits, StartAt, Step};
use crate::live::log::{Index, Log, Span};
use crate::live::stream::{Selection, Stream};
use crate::live::timeline::StreamTime;
use crate::media::flv::FileHeader;
use crate::uring::{Engine, FrameHead, Millis, Payload, Region, SendError, Sock};

/// A viewer's place in the fan-out's table.
pub(super) type ViewerId = u32;

/// The longest send: one viewer must not keep the loop, nor pin much.
const RUN_MAX: u64 = 1 << 20;

/// Bytes of its own that wait for a viewer, beyond which its pings are not answered.
const OWN_MAX: usize = 16 << 10;

/// How a role serves its viewers.
#[derive(Clone, Copy, Debug)]
pub(super) struct Policy {
    /// Milliseconds between two sends to a viewer; 0: each batch of tags at once.
    pub(super) flush: Millis,
    /// How far a viewer may fall behind.
    pub(super) lag: LagLimits,
    /// Milliseconds that a socket may stay full.
    pub(super) stall: Millis,
}

/// A segment that a view sends from.
#[derive(Debug)]
struct Held {
    span: Span,
    /// Made when the first send needs it.
    region: Option<Region>,
    /// Viewers that stand in it.
    holders: u32,
}

/// What a loop knows of one log.
#[derive(Debug)]
struct View {
    stream: Arc<Stream>,
    selection: Selection,
    role: usize,
    policy: Policy,
    log: Option<Arc<Log>>,
    index: Arc<Index>,
    head: u64,
    head_time: StreamTime,
    held: VecDeque<Held>,
    members: Vec<ViewerId>,
    /// The stream is over, with the status for those who have had nothing of it.
    ended: Option<u16>,
    /// When it is to be flushed next; other times in the queue are out of date.
    due: Option<Millis>,
    last_flush: Millis,
}

/// All views and viewers of a loop.
#[derive(Debug, Default)]
pub(super) struct Fanout {
    views: Vec<Option<View>>,
    by_stream: HashMap<(u64, Selection), u32>,
    viewers: Vec<Option<Viewer>>,
    free_views: Vec<u32>,
    free_viewers: Vec<ViewerId>,
    due: BinaryHeap<Reverse<(Millis, u32)>>,
    /// Viewers to be let go, with the reason: found while walking, closed by the worker.
    leaving: Vec<(ViewerId, Sock, Farewell)>,
}

impl Fanout {
    /// Puts a viewer on a stream; [`welcome`](Self::welcome) gives it its first bytes.
    pub(super) fn join(
        &mut self,
        loop_index: usize,
        stream: &Arc<Stream>,
        (role, policy): (usize, Policy),
        sock: Sock,
        wish: Wish,
    ) -> ViewerId {
        let view_id = self.view(loop_index, stream, wish.selection, (role, policy));
        let view = self.views[view_id as usize].as_mut().expect("found or made above");
        let start = match wish.start {
            StartAt::Newest => StartAt::Newest,
            StartAt::NotBefore(offset) => StartAt::NotBefore(view.live_head() + offset),
        };
        let viewer = Viewer {
            sock,
            view: view_id,
            member: u32::try_from(view.members.len()).expect("fewer than 2^32 viewers"),
            state: State::Idle,
            framing: if wish.upgrade.is_some() { Framing::WebSocket } else { Framing::Plain },
            last_words: false,
            head_only: wish.head_only,
            started: false,
            frame: FrameHead::default(),
            message_end: 0,
            span: NO_SPAN,
            cursor: Cursor::new(start),
            own: wish.upgrade.unwrap_or_default(),
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

    /// Takes a viewer off its stream; its socket is the caller's to close. Gives what it was.
    pub(super) fn leave<E: Engine>(&mut self, engine: &mut E, loop_index: usize, id: ViewerId) -> Viewer {
        let viewer = self.viewers[id as usize].take().expect("a viewer leaves once");
        self.free_viewers.push(id);
        let view = self.views[viewer.view as usize].as_mut().expect("a viewer's view stays");
        view.members.swap_remove(viewer.member as usize);
        if let Some(moved) = view.members.get(viewer.member as usize) {
            self.viewers[*moved as usize].as_mut().expect("a member").member = viewer.member;
        }
        view.let_go(engine, viewer.span);
        view.stream.viewers.fetch_sub(1, Ordering::Relaxed);
        if view.members.is_empty() {
            self.drop_view(engine, loop_index, viewer.view);
        }
        viewer
    }

    /// The stream has news: its views are flushed when their windows are over.
    pub(super) fn news(&mut self, stream: u64, now: Millis) {
        for selection in [Selection::All, Selection::Audio, Selection::Video] {
            if let Some(&id) = self.by_stream.get(&(stream, selection)) {
                self.schedule(id, now);
            }
        }
    }

    /// The stream is over: its viewers get the rest and are let go.
    pub(super) fn stream_ended(&mut self, stream: u64, status: u16, now: Millis) {
        for selection in [Selection::All, Selection::Audio, Selection::Video] {
            if let Some(&id) = self.by_stream.get(&(stream, selection)) {
                self.views[id as usize].as_mut().expect("listed").ended = Some(status);
                self.schedule(id, now);
            }
        }
    }

    /// When the next view is to be flushed.
    pub(super) fn next_flush(&self) -> Option<Millis> {
        self.due.peek().map(|Reverse((at, _))| *at)
    }

    /// Flushes the views whose windows are over.
    pub(super) fn flush<E: Engine>(&mut self, engine: &mut E, counters: &[RoleCounters]) {
        let now = engine.now();
        while let Some(Reverse((at, id))) = self.due.peek().copied().filter(|Reverse((at, _))| *at <= now) {
            self.due.pop();
            let view = self.views[id as usize].as_mut().filter(|view| view.due == Some(at));
            let Some(view) = view else { continue };
            view.due = None;
            view.last_flush = now;
            view.refresh(engine);
            let counters = &counters[view.role];
            counters.flushes.add(1);
            for at in 0..view.members.len() {
                let member = view.members[at];
                let viewer = self.viewers[member as usize].as_mut().expect("a member");
                if viewer.state == State::Idle
                    && let Err(farewell) = pump(engine, view, viewer, counters)
                {
                    dismiss(&mut self.leaving, member, viewer, farewell);
                }
            }
        }
    }

    /// A viewer's send is done.
    pub(super) fn sent<E: Engine>(
        &mut self,
        engine: &mut E,
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
                took(engine, viewer, bytes, counters);
                if viewer.state == State::Idle { pump(engine, view, viewer, counters) } else { Ok(()) }
            }
            Err(SendError::Full) => {
                viewer.state = State::Blocked(engine.now());
                engine.poll_writable(viewer.sock);
                Ok(())
            }
            Err(SendError::Broken(error)) => Err(Farewell::Broken(error)),
        };
        if let Err(farewell) = fate {
            dismiss(&mut self.leaving, id, viewer, farewell);
        }
    }

    /// A viewer's full socket has room again.
    pub(super) fn writable<E: Engine>(&mut self, engine: &mut E, id: ViewerId, counters: &[RoleCounters]) {
        let Some(viewer) = self.viewers.get_mut(id as usize).and_then(Option::as_mut) else { return };
        let view = self.views[viewer.view as usize].as_mut().expect("a viewer's view stays");
        if !matches!(viewer.state, State::Blocked(_)) {
            return;
        }
        viewer.state = State::Idle;
        if let Err(farewell) = pump(engine, view, viewer, &counters[view.role]) {
            dismiss(&mut self.leaving, id, viewer, farewell);
        }
    }

    /// Puts bytes of its own (a control frame) into a viewer's stream, at the next place where they may
    /// stand; `last`: the connection is closed behind them.
    pub(super) fn say<E: Engine>(
        &mut self,
        engine: &mut E,
        id: ViewerId,
        bytes: Bytes,
        last: bool,
        counters: &[RoleCounters],
    ) {
        let Some(viewer) = self.viewers.get_mut(id as usize).and_then(Option::as_mut) else { return };
        let view = self.views[viewer.view as usize].as_mut().expect("a viewer's view stays");
        if viewer.last_words {
            return;
        }
        if viewer.cursor.is_fresh() && !last {
            return; // the response head still waits; there is nobody to talk to yet
        }
        if !last && viewer.own.len() >= OWN_MAX {
            return; // it asks and does not read the answers
        }
        viewer.say(bytes);
        viewer.last_words = last;
        if viewer.state == State::Idle
            && let Err(farewell) = pump(engine, view, viewer, &counters[view.role])
        {
            dismiss(&mut self.leaving, id, viewer, farewell);
        }
    }

    /// Finds the viewers whose sockets have been full for too long.
    pub(super) fn sweep(&mut self, now: Millis) {
        for (id, viewer) in self.viewers.iter_mut().enumerate() {
            let Some(viewer) = viewer else { continue };
            let State::Blocked(since) = viewer.state else { continue };
            let view = self.views[viewer.view as usize].as_ref().expect("a viewer's view stays");
            if now.saturating_sub(since) >= view.policy.stall {
                let id = u32::try_from(id).expect("fewer than 2^32 viewers");
                dismiss(&mut self.leaving, id, viewer, Farewell::Stalled);
            }
        }
    }

    /// The next viewer to be let go.
    pub(super) fn next_leaving(&mut self) -> Option<(ViewerId, Sock, Farewell)> {
        loop {
            let (id, sock, farewell) = self.leaving.pop()?;
            let there = self.viewers.get(id as usize).and_then(Option::as_ref);
            if there.is_some_and(|viewer| viewer.sock == sock) {
                return Some((id, sock, farewell));
            }
        }
    }

    /// Whether a viewer has had nothing yet and has nothing under way, not even a goodbye.
    pub(super) fn is_waiting(&self, id: ViewerId) -> bool {
        self.viewer(id).is_some_and(|viewer| viewer.cursor.is_fresh() && viewer.state == State::Idle)
    }

    fn viewer(&self, id: ViewerId) -> Option<&Viewer> {
        self.viewers.get(id as usize)?.as_ref()
    }

    fn schedule(&mut self, id: u32, now: Millis) {
        let view = self.views[id as usize].as_mut().expect("a listed view");
        if view.due.is_none() {
            let at = now.max(view.last_flush + view.policy.flush);
            view.due = Some(at);
            self.due.push(Reverse((at, id)));
        }
    }

    /// Gives a viewer that has just joined its first bytes, out of what its view knows: a crowd that arrives
    /// must not shorten the window of those who watch.
    pub(super) fn welcome<E: Engine>(&mut self, engine: &mut E, id: ViewerId, counters: &[RoleCounters]) {
        let Some(viewer) = self.viewers.get_mut(id as usize).and_then(Option::as_mut) else { return };
        let view = self.views[viewer.view as usize].as_mut().expect("a viewer's view stays");
        if view.index.starts.is_empty() {
            view.refresh(engine);
        }
        if let Err(farewell) = pump(engine, view, viewer, &counters[view.role]) {
            dismiss(&mut self.leaving, id, viewer, farewell);
        }
    }

    fn view(
        &mut self,
        loop_index: usize,
        stream: &Arc<Stream>,
        selection: Selection,
        (role, policy): (usize, Policy),
    ) -> u32 {
        if let Some(&id) = self.by_stream.get(&(stream.id, selection)) {
            return id;
        }
        stream.subscribe(loop_index, true);
        let view = View {
            stream: Arc::clone(stream),
            selection,
            role,
            policy,
            log: None,
            index: Arc::default(),
            head: 0,
            head_time: 0,
            held: VecDeque::new(),
            members: Vec::new(),
            ended: None,
            due: None,
            last_flush: 0,
        };
        let id = self.free_views.pop().unwrap_or_else(|| {
            self.views.push(None);
            u32::try_from(self.views.len() - 1).expect("fewer than 2^32 views")
        });
        self.views[id as usize] = Some(view);
        self.by_stream.insert((stream.id, selection), id);
        id
    }

    fn drop_view<E: Engine>(&mut self, engine: &mut E, loop_index: usize, id: u32) {
        let view = self.views[id as usize].take().expect("a view is dropped once");
        self.free_views.push(id);
        self.by_stream.remove(&(view.stream.id, view.selection));
        for held in view.held {
            debug_assert_eq!(held.holders, 0, "nobody is left to stand in it");
            if let Some(region) = held.region {
                engine.release(region);
            }
        }
        let others = [Selection::All, Selection::Audio, Selection::Video];
        if !others.iter().any(|other| self.by_stream.contains_key(&(view.stream.id, *other))) {
            view.stream.subscribe(loop_index, false);
        }
    }
}

impl View {
    /// Where the log ends now, for a viewer that wants no burst.
    fn live_head(&self) -> u64 {
        self.stream.log(self.selection).map_or(0, |log| log.head())
    }

    /// Takes the log's state as it is now. The head is read before the index.
    fn refresh_head(&mut self) {
        if self.log.is_none() {
            self.log = self.stream.log(self.selection);
        }
        let Some(log) = &self.log else { return };
        let (head, head_time, index) = (log.head(), log.head_time(), log.index());
        // Its writer is in the middle of publishing and has dropped all starts before this head: what is
        // known is kept, which holds its own memory, and news will come.
        if index.starts.front().is_some_and(|oldest| oldest.at >= head) {
            return;
        }
        (self.head, self.head_time, self.index) = (head, head_time, index);
    }

    /// As [`refresh_head`](Self::refresh_head), and lets go of segments that nobody needs.
    fn refresh<E: Engine>(&mut self, engine: &mut E) {
        let version = self.index.version;
        self.refresh_head();
        if self.index.version == version && !self.held.is_empty() {
            return;
        }
        let known = self.held.back().map_or(0, |held| held.span.serial + 1);
        for span in self.index.spans.iter().filter(|span| span.serial >= known) {
            self.held.push_back(Held { span: span.clone(), region: None, holders: 0 });
        }
        let oldest = self.index.spans.front().map_or(0, |span| span.serial);
        self.held.retain(|held| {
            let needed = held.holders > 0 || held.span.serial >= oldest;
            if let (false, Some(region)) = (needed, held.region) {
                engine.release(region);
            }
            needed
        });
    }

    /// A viewer does not stand in that segment any more.
    fn let_go<E: Engine>(&mut self, engine: &mut E, serial: u64) {
        let Some(place) = self.held.iter().position(|held| held.span.serial == serial) else { return };
        let oldest = self.index.spans.front().map_or(0, |span| span.serial);
        let held = &mut self.held[place];
        held.holders -= 1;
        if held.holders == 0 && held.span.serial < oldest {
            if let Some(region) = held.region {
                engine.release(region);
            }
            self.held.remove(place);
        }
    }

    /// The segment that holds the byte at the viewer's cursor, which the viewer holds from here on.
    fn stand<E: Engine>(&mut self, engine: &mut E, viewer: &mut Viewer) -> Option<usize> {
        let at = viewer.cursor.at();
        if let Some(place) = self.place_of(viewer.span) {
            if self.contains(place, at) {
                return Some(place);
            }
            self.let_go(engine, viewer.span);
        }
        // Newest first: that is where nearly all viewers are.
        let place = (0..self.held.len()).rev().find(|place| self.contains(*place, at));
        viewer.span = place.map_or(NO_SPAN, |place| self.held[place].span.serial);
        if let Some(place) = place {
            self.held[place].holders += 1;
        }
        place
    }

    fn place_of(&self, serial: u64) -> Option<usize> {
        self.held.iter().rposition(|held| held.span.serial == serial)
    }

    fn contains(&self, place: usize, at: u64) -> bool {
        let span = &self.held[place].span;
        at >= span.start && at < self.span_end(place)
    }

    /// The end of a segment in the log: where the next begins, or for the newest one nowhere yet.
    fn span_end(&self, place: usize) -> u64 {
        let span = &self.held[place].span;
        let next = self.held.get(place + 1).map(|next| &next.span);
        match next.filter(|next| next.serial == span.serial + 1) {
            Some(next) => next.start,
            None if place + 1 == self.held.len() => u64::MAX,
            None => span.start + span.segment.bytes().len() as u64,
        }
    }

    fn region<E: Engine>(&mut self, engine: &mut E, place: usize) -> Region {
        let held = &mut self.held[place];
        *held.region.get_or_insert_with(|| engine.hold(&held.span.segment))
    }
}

/// Notes that a viewer is to be let go. From here on nothing is sent to it: whoever lets it go wants the
/// socket for the last words.
fn dismiss(
    leaving: &mut Vec<(ViewerId, Sock, Farewell)>,
    id: ViewerId,
    viewer: &mut Viewer,
    farewell: Farewell,
) {
    viewer.state = State::Leaving;
    leaving.push((id, viewer.sock, farewell));
}

/// Accounts for bytes that a viewer's socket took, and goes on if a send was short.
fn took<E: Engine>(engine: &mut E, viewer: &mut Viewer, bytes: u32, counters: &RoleCounters) {
    match viewer.state {
        State::SendingOwn => viewer.own_sent(bytes),
        State::SendingLog => {
            viewer.log_sent(bytes);
            if !viewer.started {
                viewer.started = true;
                counters.first_picture(engine.now().saturating_sub(viewer.since));
            }
        }
        State::Idle | State::Blocked(_) | State::Leaving => unreachable!("a send was under way"),
    }
    viewer.state = State::Idle;
}

/// Gives an idle viewer its next send, if there is anything for it.
fn pump<E: Engine>(
    engine: &mut E,
    view: &mut View,
    viewer: &mut Viewer,
    counters: &RoleCounters,
) -> Result<(), Farewell> {
    // A step either sends, ends, or is a beginning, which a send or an end follows.
    for _ in 0..4 {
        let started = !viewer.cursor.is_fresh();
        if !viewer.own.is_empty() && (started || viewer.last_words) && viewer.at_message_boundary() {
            viewer.state = State::SendingOwn;
            engine.send(viewer.sock, Payload::Bytes(viewer.own.clone()));
            return Ok(());
        }
        if viewer.last_words && viewer.at_message_boundary() {
            return Err(Farewell::Refused);
        }
        let place = if started { view.stand(engine, viewer) } else { None };
        let held = place.map(|place| &view.held[place].span);
        let step = viewer.cursor.step(&view.index, view.head, view.head_time, held, &view.policy.lag);
        match step {
            Step::Idle => {
                return match view.ended {
                    None => Ok(()),
                    Some(_) if started => Err(Farewell::StreamEnded),
                    Some(status) => Err(Farewell::NeverBegan(status)),
                };
            }
            Step::Cut => return Err(Farewell::TooSlow),
            Step::Begin(beginning) => begin(view, viewer, started, &beginning, counters),
            Step::Run { to, .. } => {
                let place = place.expect("a cursor is given runs only within what is kept");
                run(engine, view, viewer, place, to);
                return Ok(());
            }
        }
    }
    unreachable!("a viewer's steps lead to a send or to rest")
}

/// A viewer was put somewhere: at its start or behind a skip.
fn begin(view: &View, viewer: &mut Viewer, started: bool, beginning: &Beginning, counters: &RoleCounters) {
    let file_header =
        (!started).then_some(FileHeader { audio: beginning.tracks.audio, video: beginning.tracks.video });
    if !started && viewer.framing == Framing::Plain {
        viewer.say(flv_head(&view.stream).into());
    }
    if viewer.head_only {
        viewer.last_words = true;
        return;
    }
    let opening = viewer.opening(file_header, beginning.headers.as_deref(), beginning.time);
    viewer.say(opening);
    if beginning.skipped > 0 {
        counters.skips.add(1);
        counters.skipped_bytes.add(beginning.skipped);
    }
}

/// Sends from the cursor to `to`, within the segment at `place`.
fn run<E: Engine>(engine: &mut E, view: &mut View, viewer: &mut Viewer, place: usize, to: u64) {
    let at = viewer.cursor.at();
    let to = to.min(view.span_end(place)).min(at + RUN_MAX);
    let to = viewer.frame_run(to);
    let region = view.region(engine, place);
    let start = view.held[place].span.start;
    let narrow = |bytes: u64| u32::try_from(bytes).expect("a segment is far below 4 GiB");
    viewer.state = State::SendingLog;
    let (from, len) = (narrow(at - start), narrow(to - at));
    engine.send(viewer.sock, Payload::Region { head: viewer.frame, region, from, len });
}
