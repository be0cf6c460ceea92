//! What one loop knows of one log, and how its viewers are served from it.
//!
//! A view holds the head up to which it sends, the index, and the segments that its viewers are reading.

use std::sync::Arc;

use super::greeting::Greetings;
use super::viewer::{Farewell, Framing, NO_SPAN, Policy, State, Viewer, ViewerId, flv_head};
use super::walk::Walk;
use crate::live::cursor::{Beginning, Step};
use crate::live::log::{Index, Log, Span};
use crate::live::stream::{Choice, Stream};
use crate::live::timeline::StreamTime;
use crate::media::flv::FileHeader;
use crate::server::counters::RoleCounters;
use crate::server::transport::Transports;
use crate::uring::{Engine, Millis, Payload, Region};

/// A stream without media for this long is not live.
const QUIET: Millis = 3_000;
/// The longest send: one viewer must neither occupy the loop nor pin much memory.
const RUN_MAX: u64 = 1 << 20;

/// A segment that a view sends from.
#[derive(Debug)]
struct Held {
    span: Span,
    /// The offset in the log after its last byte; the newest one has no end yet.
    end: u64,
    /// Registered when the first send needs it.
    region: Option<Region>,
    /// The number of viewers whose cursor is in it.
    holders: u32,
}

/// What a loop knows of one log.
#[derive(Debug)]
pub(in crate::server) struct View {
    pub(in crate::server) stream: Arc<Stream>,
    pub(in crate::server) choice: Choice,
    pub(in crate::server) role: usize,
    pub(in crate::server) policy: Policy,
    log: Option<Arc<Log>>,
    index: Arc<Index>,
    head: u64,
    head_time: StreamTime,
    /// Ascending.
    held: Vec<Held>,
    greetings: Greetings,
    pub(in crate::server) members: Vec<ViewerId>,
    /// The stream is over; the status is for viewers that have received nothing of it.
    pub(in crate::server) ended: Option<u16>,
    /// The walk that is planned or under way.
    pub(in crate::server) walk: Option<Walk>,
    /// When the last walk began.
    pub(in crate::server) walked: Millis,
}

impl View {
    /// A view without viewers, which has not read its log yet.
    pub(in crate::server) fn new(stream: &Arc<Stream>, choice: Choice, role: usize, policy: Policy) -> Self {
        Self {
            stream: Arc::clone(stream),
            choice,
            role,
            policy,
            log: None,
            index: Arc::default(),
            head: 0,
            head_time: 0,
            held: Vec::new(),
            greetings: Greetings::default(),
            members: Vec::new(),
            ended: None,
            walk: None,
            walked: 0,
        }
    }

    /// Whether media of a publisher comes in.
    pub(in crate::server) fn is_live(&self, now: Millis) -> bool {
        self.stream.newest_media().is_some() && !self.stream.is_silent(now, QUIET)
    }

    /// Whether it knows no place where a viewer could start.
    pub(in crate::server) fn is_blank(&self) -> bool {
        self.index.starts.is_empty()
    }

    /// Bytes between a viewer and the newest tag; `None` for a viewer that has not begun.
    pub(in crate::server) fn behind(&self, viewer: &Viewer) -> Option<u64> {
        let log = self.log.as_ref().filter(|_| !viewer.cursor.is_fresh())?;
        Some(log.head().saturating_sub(viewer.cursor.at()))
    }

    /// Releases everything it holds; no viewer uses it any more.
    pub(in crate::server) fn end<E: Engine>(self, net: &mut Transports<E>) {
        for held in self.held {
            debug_assert_eq!(held.holders, 0, "no viewer reads it any more");
            if let Some(region) = held.region {
                net.release(region);
            }
        }
    }

    /// Bytes of the greetings that it keeps.
    pub(in crate::server) fn greeting_bytes(&self) -> usize {
        self.greetings.bytes()
    }

    /// Where the log ends now, for a viewer that starts without a burst.
    pub(in crate::server) fn live_head(&self) -> u64 {
        self.stream.log(self.choice).map_or(0, |log| log.head())
    }

    /// Reads the log's present state. The head is read before the index.
    fn refresh_head(&mut self) {
        if self.log.is_none() {
            self.log = self.stream.log(self.choice);
        }
        let Some(log) = &self.log else { return };
        let (head, head_time, index) = (log.head(), log.head_time(), log.index());
        // The writer is in the middle of publishing and has dropped all starts before this head. The known
        // state is kept, which holds its own memory; another notice will come.
        if index.starts.front().is_some_and(|oldest| oldest.at >= head) {
            return;
        }
        (self.head, self.head_time, self.index) = (head, head_time, index);
    }

    /// As [`refresh_head`](Self::refresh_head), and releases the segments that no viewer needs.
    pub(in crate::server) fn refresh<E: Engine>(&mut self, net: &mut Transports<E>) {
        let version = self.index.version;
        self.refresh_head();
        if self.index.version == version && !self.held.is_empty() {
            return;
        }
        let known = self.held.last().map_or(0, |held| held.span.serial + 1);
        for span in self.index.spans.iter().filter(|span| span.serial >= known) {
            if let Some(previous) = self.held.last_mut() {
                previous.end_before(span);
            }
            self.held.push(Held { span: span.clone(), end: u64::MAX, region: None, holders: 0 });
        }
        let oldest = self.index.spans.front().map_or(0, |span| span.serial);
        self.held.retain(|held| {
            let needed = held.holders > 0 || held.span.serial >= oldest;
            if let (false, Some(region)) = (needed, held.region) {
                net.release(region);
            }
            needed
        });
    }

    /// A viewer has left that segment.
    pub(in crate::server) fn let_go<E: Engine>(&mut self, net: &mut Transports<E>, serial: u64) {
        let Some(place) = self.held.iter().position(|held| held.span.serial == serial) else { return };
        let oldest = self.index.spans.front().map_or(0, |span| span.serial);
        let held = &mut self.held[place];
        held.holders -= 1;
        if held.holders == 0 && held.span.serial < oldest {
            if let Some(region) = held.region {
                net.release(region);
            }
            self.held.remove(place);
        }
    }

    /// Finds the segment with the byte at the viewer's cursor; the viewer holds it from here on.
    fn stand<E: Engine>(&mut self, net: &mut Transports<E>, viewer: &mut Viewer) -> Option<usize> {
        let at = viewer.cursor.at();
        // Newest first: nearly all viewers are there.
        if let Some(place) = self.held.iter().rposition(|held| held.span.serial == viewer.span) {
            if self.held[place].contains(at) {
                return Some(place);
            }
            self.let_go(net, viewer.span);
        }
        let place = self.held.iter().rposition(|held| held.contains(at));
        viewer.span = place.map_or(NO_SPAN, |place| self.held[place].span.serial);
        if let Some(place) = place {
            self.held[place].holders += 1;
        }
        place
    }
}

impl Held {
    fn contains(&self, at: u64) -> bool {
        at >= self.span.start && at < self.end
    }

    /// It ends where `next` starts, or with its own bytes if there were others between them.
    fn end_before(&mut self, next: &Span) {
        let consecutive = next.serial == self.span.serial + 1;
        let own_end = self.span.start + self.span.segment.bytes().len() as u64;
        self.end = if consecutive { next.start } else { own_end };
    }

    fn region<E: Engine>(&mut self, net: &mut Transports<E>) -> Region {
        *self.region.get_or_insert_with(|| net.hold(&self.span.segment))
    }
}

/// Accounts for bytes that a viewer's socket took.
#[inline]
pub(in crate::server) fn took<E: Engine>(
    net: &mut Transports<E>,
    viewer: &mut Viewer,
    bytes: u32,
    counters: &RoleCounters,
) {
    match viewer.state {
        State::SendingOwn => viewer.own.sent(bytes as usize),
        State::SendingLog => {
            viewer.log_sent(bytes);
            if !viewer.started {
                viewer.started = true;
                counters.first_picture(net.now().saturating_sub(viewer.since));
            }
        }
        State::Idle | State::Blocked(_) | State::Leaving => unreachable!("a send was under way"),
    }
    viewer.state = State::Idle;
}

/// Gives an idle viewer its next send, if there is anything to send.
pub(in crate::server) fn pump<E: Engine>(
    net: &mut Transports<E>,
    view: &mut View,
    viewer: &mut Viewer,
    counters: &RoleCounters,
) -> Result<(), Farewell> {
    // A step either sends, ends, or begins; after a beginning comes a send or an end.
    for _ in 0..4 {
        let started = !viewer.cursor.is_fresh();
        if !viewer.own.is_empty() && (started || viewer.last_words.is_some()) && viewer.at_message_boundary()
        {
            viewer.state = State::SendingOwn;
            net.send_bytes(viewer.sock, viewer.own.front().clone());
            return Ok(());
        }
        if let Some(farewell) = viewer.last_words.filter(|_| viewer.at_message_boundary()) {
            return Err(farewell);
        }
        let place = if started { view.stand(net, viewer) } else { None };
        let held = place.map(|place| &view.held[place].span);
        viewer.passed_over = false;
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
                let place = place.expect("a cursor gets runs only within the kept log");
                run(net, &mut view.held[place], viewer, to);
                return Ok(());
            }
        }
    }
    unreachable!("a viewer's steps lead to a send or to rest")
}

/// A viewer has a new position: its start, or the place after a skip.
fn begin(
    view: &mut View,
    viewer: &mut Viewer,
    started: bool,
    beginning: &Beginning,
    counters: &RoleCounters,
) {
    viewer.message_end = viewer.cursor.at();
    let file_header =
        (!started).then_some(FileHeader { audio: beginning.tracks.audio, video: beginning.tracks.video });
    if !started && viewer.framing == Framing::Plain {
        viewer.own.push(flv_head(&view.stream).into());
    }
    if viewer.head_only {
        viewer.last_words = Some(Farewell::Refused);
        return;
    }
    let headers = beginning.headers.as_deref();
    let greeting = view.greetings.get(viewer.framing, file_header, headers, beginning.time);
    greeting.iter().for_each(|piece| viewer.own.push(piece.clone()));
    if beginning.skipped > 0 {
        counters.skips.add(1);
        counters.skipped_bytes.add(beginning.skipped);
    }
}

/// Sends from the cursor to `to`, within the segment that the cursor is in.
fn run<E: Engine>(net: &mut Transports<E>, held: &mut Held, viewer: &mut Viewer, to: u64) {
    let at = viewer.cursor.at();
    let to = viewer.frame_run(to.min(held.end), RUN_MAX);
    let region = held.region(net);
    let narrow = |bytes: u64| u32::try_from(bytes).expect("a segment is far below 4 GiB");
    viewer.state = State::SendingLog;
    let (from, len) = (narrow(at - held.span.start), narrow(to - at));
    net.send(viewer.sock, Payload::Region { head: viewer.frame, region, from, len });
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::Arena;

    fn span(arena: &Arc<Arena>, serial: u64, start: u64) -> Span {
        let mut writer = arena.segment(4096).unwrap();
        writer.append(&[7; 100]);
        writer.publish();
        Span { serial, start, segment: Arc::clone(writer.segment()) }
    }

    #[test]
    fn a_segment_ends_at_the_next_one_or_with_its_own_bytes() {
        let arena = Arena::new().unwrap();
        let newest = || Held { span: span(&arena, 3, 1000), end: u64::MAX, region: None, holders: 0 };
        assert_eq!([999, 1000, 1 << 40].map(|at| newest().contains(at)), [false, true, true]);
        for next in [span(&arena, 4, 1100), span(&arena, 6, 5000)] {
            let mut held = newest();
            held.end_before(&next);
            let inside = [999, 1000, 1099, 1100, next.start].map(|at| held.contains(at));
            assert_eq!(inside, [false, true, true, false, false], "next: {}", next.serial);
        }
    }
}
