//! The verdict at the end of a run: compares what each viewer saw with what was pushed, checks the counters,
//! and checks that all resources were released.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use super::check::{Bounds, Gap, Stage, compare};
use super::media::{Frame, Tracks};
use super::viewer::{Ended, Manner, Viewer};
use super::{Peer, Simulation};
use crate::live::stream::Selection;
use crate::media::tag::TagKind;
use crate::server::counters::{FAREWELLS, RoleCounters};
use crate::uring::Millis;

/// The longest delay that the slowest network, bursts and pauses of loops add up to.
const LATE: Millis = 4_000;

/// Level, key and selection: viewers with the same three see the same log.
type View = (usize, usize, Selection);

impl Simulation {
    /// Panics, with the reason, unless everything is as promised.
    pub(super) fn judge(mut self) {
        let peers = std::mem::take(&mut self.peers);
        let viewers: Vec<&Viewer> = peers
            .iter()
            .filter_map(|peer| if let Peer::Viewer(viewer) = peer { Some(&**viewer) } else { None })
            .collect();
        let taken = self.taken();
        let mut gaps: HashMap<View, (HashSet<Gap>, u64)> = HashMap::new();
        let mut cut_inside = 0;
        for viewer in &viewers {
            let found = self.judge_viewer(viewer, &taken[viewer.key]);
            let view = (viewer.level, viewer.key, viewer.reader.selection);
            let entry = gaps.entry(view).or_default();
            // A pause is a gap that the viewer asked for.
            if !matches!(viewer.manner, Manner::Pauses(..)) {
                entry.1 += found.len() as u64 + viewer.reader.restarts;
                entry.0.extend(found);
            }
            let by_server = matches!(viewer.ended, Some((Ended::ByServer, _)));
            cut_inside += u64::from(by_server && !viewer.reader.at_boundary());
        }
        self.judge_gaps(&gaps);
        judge_times(&viewers);
        let cuts = self.count(usize::MAX, |counters| {
            let farewells = FAREWELLS.iter().zip(&counters.farewells);
            let cuts =
                farewells.filter(|(name, _)| matches!(**name, "too-slow" | "stalled" | "broken" | "kicked"));
            cuts.map(|(_, count)| count.get()).sum()
        });
        let count = |name: &str| FAREWELLS.iter().position(|known| *known == name).expect("a name");
        let kicks = self.count(usize::MAX, |counters| counters.farewells[count("kicked")].get());
        let kicked = viewers.iter().filter(|viewer| viewer.kicked).count() as u64;
        assert!(kicks <= kicked, "{kicks} left as kicked, {kicked} were");
        assert!(cut_inside <= cuts, "{cut_inside} viewers were left inside a tag, {cuts} were cut");
        self.judge_leftovers();
    }

    /// How many tags of each session the origin has taken, by key.
    fn taken(&self) -> Vec<Vec<usize>> {
        let world = self.world.borrow();
        let of_session = |session: &super::media::Session| {
            let theirs = world.ends[session.end].other.expect("the session was connected");
            let taken = session.taken(world.ends[theirs].delivered);
            assert!(!session.clean || taken == session.tags.len(), "a clean session is taken whole");
            taken
        };
        self.libraries.iter().map(|library| library.sessions.iter().map(of_session).collect()).collect()
    }

    fn frames(&self, viewer: &Viewer, taken: &[usize]) -> Vec<Frame> {
        let wants = |kind| match viewer.reader.selection {
            Selection::All => true,
            Selection::Audio => kind != TagKind::Video,
            Selection::Video => kind != TagKind::Audio,
        };
        self.libraries[viewer.key].frames(wants, taken)
    }

    fn bounds(&self, level: usize) -> Bounds {
        let live = &self.processes[0].config.live;
        let time = u64::try_from(live.gop_time.as_millis()).expect("short");
        // A gateway may count from audio that it got before the keyframe, up to half of what is allowed.
        let part = if level > 0 { 2 } else { 1 };
        Bounds {
            bytes: live.gop_bytes as u64 / part,
            frames: live.gop_frames as u64 / part,
            time: time / part,
        }
    }

    fn judge_viewer(&self, viewer: &Viewer, taken: &[usize]) -> Vec<Gap> {
        let frames = self.frames(viewer, taken);
        let tracks = self.libraries[viewer.key].tracks;
        let found = compare(&viewer.reader, &frames, tracks, self.bounds(viewer.level), viewer.level);
        let (gaps, ends) = found.unwrap_or_else(|fault| panic!("viewer {}: {fault}", viewer.peer));
        assert!(viewer.reader.pongs <= viewer.pings, "as many pongs as pings");
        let sent_off = viewer.reader.stage == Stage::Refused(403) || viewer.reader.close_code == Some(1008);
        assert!(viewer.kicked || !sent_off, "viewer {} was disconnected without need", viewer.peer);
        if viewer.manner == Manner::Fast {
            self.judge_fast(viewer, &frames, &gaps, ends);
        }
        gaps
    }

    /// A viewer that takes everything at once gets everything to the end.
    fn judge_fast(&self, viewer: &Viewer, frames: &[Frame], gaps: &[Gap], ends: Option<usize>) {
        let sessions = &self.libraries[viewer.key].sessions;
        let who = viewer.peer;
        let (how, at) = viewer.ended.expect("all viewers have ended");
        assert_eq!(how, Ended::ByServer, "viewer {who} was not closed properly");
        if viewer.kicked {
            return judge_kicked(viewer);
        }
        if let Stage::Refused(status) = viewer.reader.stage {
            let (from, to) = (viewer.asked + 1_000, at.saturating_sub(1_000));
            let missed = |frame: &Frame| frame.key && (from..to).contains(&sessions[frame.session].began);
            let in_time = viewer.level == 0 && !self.libraries[viewer.key].crawls;
            let missed = in_time && status == 404 && frames.iter().any(missed);
            assert!(!missed, "viewer {who} was refused although there was a publisher");
            return;
        }
        assert!(viewer.reader.at_boundary(), "viewer {who} was left inside a tag");
        if viewer.reader.websocket {
            assert_eq!(viewer.reader.close_code, Some(1000), "viewer {who} had no close frame");
        }
        assert!(
            viewer.reader.rtmp.is_none() || viewer.reader.was_ended,
            "viewer {who} was not told of the end"
        );
        if self.wide && viewer.level == 0 {
            assert!(gaps.is_empty(), "viewer {who} has gaps {gaps:?} without need");
        }
        if viewer.level == 0 && !self.libraries[viewer.key].crawls {
            self.judge_lateness(viewer, frames);
        }
        if viewer.reader.seen.is_empty() {
            return;
        }
        let last_seen = viewer.reader.seen.last().expect("some").session;
        // A skip of a gateway's own pull may land after the last frame of a selection.
        let skipped = |level| self.count(level, |counters| counters.skips.get()) > 0;
        let whole = viewer.level == 0 || viewer.reader.selection == Selection::All || !skipped(viewer.level);
        // A relay that is lost late may not be connected again before the end.
        let certain = match viewer.level {
            0 => whole,
            level if self.far == Some(level) => whole && !self.troubled && !skipped(level),
            _ => whole && (!self.troubled || last_seen + 1 == sessions.len()),
        };
        let over =
            |session: usize| sessions[session].last || frames.last().is_some_and(|f| f.session == session);
        assert!(
            !certain || ends.is_some_and(over),
            "viewer {who} stopped at {:?} of {:?}",
            viewer.reader.seen.last(),
            frames.last(),
        );
    }

    /// What is pushed while a viewer reads reaches it soon.
    fn judge_lateness(&self, viewer: &Viewer, frames: &[Frame]) {
        let pictures = self.libraries[viewer.key].tracks != Tracks::Audio;
        for seen in &viewer.reader.seen {
            let session = &self.libraries[viewer.key].sessions[seen.session];
            let since = session.tags[seen.place].timestamp.wrapping_sub(session.tags[0].timestamp);
            let frame = frames.binary_search_by_key(&(seen.session, seen.place), |f| (f.session, f.place));
            // Audio is held until the first picture, or for a second, after which it is taken to be all
            // there is.
            let waited = frame.is_ok_and(|at| frames[at].leading) && (pictures || since < 1_200);
            if waited {
                continue;
            }
            let due = (session.began + Millis::from(since)).max(viewer.asked);
            let late = seen.at.saturating_sub(due);
            assert!(late < LATE, "viewer {} got {seen:?} {late} ms late", viewer.peer);
        }
    }

    /// No gap without a skip or, in a gateway, a lost connection.
    fn judge_gaps(&self, gaps: &HashMap<View, (HashSet<Gap>, u64)>) {
        for (&(level, key, selection), (distinct, all)) in gaps {
            let skips = self.count(level, |counters| counters.skips.get());
            let reconnects = self.count(level, |counters| counters.reconnects.get());
            let gaps = if level == 0 { *all } else { distinct.len() as u64 };
            assert!(
                gaps <= skips + reconnects,
                "key {key} {selection:?} level {level}: {gaps} gaps {distinct:?}, {skips} skips, {reconnects} reconnects"
            );
        }
    }

    /// The sum of a counter over all roles up to `level`.
    fn count(&self, level: usize, counter: impl Fn(&RoleCounters) -> u64) -> u64 {
        let mut sum = 0;
        let mut level_of = 0;
        for process in &self.processes {
            for role in 0..process.roles.len() {
                if level_of <= level {
                    sum += process.counters.iter().map(|roles| counter(&roles[role])).sum::<u64>();
                }
                level_of += 1;
            }
        }
        sum
    }

    fn judge_leftovers(self) {
        for process in &self.processes {
            for counters in process.counters.iter().flat_map(|roles| roles.iter()) {
                let viewers: u64 = counters.viewers.iter().map(|count| count.get()).sum();
                assert_eq!(
                    (viewers, counters.publishers.get(), counters.pulls.get()),
                    (0, 0, 0),
                    "still there"
                );
            }
            assert!(process.roles.iter().all(|role| role.directory.is_empty()));
        }
        let regions: usize = self.world.borrow().loops.iter().map(super::net::LoopState::held_regions).sum();
        assert_eq!(regions, 0, "regions are still held");
        let arenas: Vec<_> = self.processes.iter().map(|process| Arc::clone(&process.arena)).collect();
        drop(self.workers);
        drop(self.processes);
        self.world.borrow_mut().ends.clear();
        for arena in arenas {
            assert_eq!(arena.mapped(), 0, "memory is still mapped");
        }
    }
}

/// A viewer that an operator has kicked, and that reads, is notified after a whole tag.
fn judge_kicked(viewer: &Viewer) {
    let (who, reader) = (viewer.peer, &viewer.reader);
    if matches!(reader.stage, Stage::Refused(_)) {
        return;
    }
    assert!(reader.at_boundary(), "viewer {who} was kicked inside a tag");
    // The stream may have ended at the same time.
    let told = matches!(reader.close_code, Some(1008 | 1000));
    assert!(!reader.websocket || told, "viewer {who} was kicked with the close code {:?}", reader.close_code);
    assert!(reader.rtmp.is_none() || reader.was_ended, "viewer {who} was kicked without a notice");
}

/// All viewers of an origin get the same timestamp of a tag.
fn judge_times(viewers: &[&Viewer]) {
    let mut times = HashMap::new();
    for viewer in viewers.iter().filter(|viewer| viewer.level == 0) {
        for seen in &viewer.reader.seen {
            let time = times.entry((viewer.key, seen.session, seen.place)).or_insert(seen.timestamp);
            assert_eq!(*time, seen.timestamp, "viewer {}: the time of {seen:?}", viewer.peer);
        }
    }
}
