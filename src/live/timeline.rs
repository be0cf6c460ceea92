//! Maps publishers' timestamps to a clock that never goes back.
//!
//! A publisher counts milliseconds in 32 bits from any value, starts again when it reconnects, and jumps; its
//! tracks may jump at different times, and single timestamps are wrong. Viewers must see time that only rises, with
//! pictures and sound as far apart as the publisher has them. Internally time is 64 bits; on the wire it is the low
//! 32. The policy, and why it is this one: `docs/decisions/2026-11-29-timelines.md`.
//!
//! Each track counts on a *line*: stream time minus publisher's time. Tracks share a line until one of them leaves
//! it. A timestamp that does not continue its track's line is *stray*: it gets the next time of its track, and
//! the next timestamp decides whether it was alone or begins another line.

use crate::media::tag::TagKind;

/// Milliseconds on a stream's own clock, which starts at its first publisher's timestamp and never wraps.
pub type StreamTime = i64;

/// A frame that would be more than this before the time at which it is due is on another line.
const BACK: i64 = 250;
/// A frame is due after the duration of the one before, but after no more than this: the rate may rise.
const DUE: i64 = 100;
/// A step ahead of one track that is larger than those of all others by this is a jump of its clock.
const AHEAD_ALONE: i64 = 2_000;
/// A step ahead larger than this is a jump, not a pause, even if all tracks take it.
const JUMP: i64 = 30_000;
/// The clocks of two tracks show the same if they are no further apart.
const ALIKE: i64 = 1_000;
/// A frame after which the timestamp stands still lasts no longer, in microseconds: the distance before may be a pause.
const STILL_MAX: i64 = 1_000_000;
/// The duration of a frame that nothing tells: 25 pictures a second. Also the step at a join of two sessions.
const USUAL: i64 = 40;

/// The low 32 bits, as FLV and RTMP carry time.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "the low 32 bits are meant")]
pub const fn wire_time(time: StreamTime) -> u32 {
    time as u32
}

/// What is known of a tag before it gets its time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unit {
    /// Its kind.
    pub kind: TagKind,
    /// The track's number; 0 unless the publisher sends several of a kind.
    pub track: u8,
    /// It belongs to the same picture as the tag before it in the track, and shares its time.
    pub continues: bool,
    /// It is no frame: its time only has to be no earlier than that of the frame before it.
    pub passive: bool,
    /// How long the frame lasts in microseconds, if that is known.
    pub duration: Option<u32>,
}

impl Unit {
    /// A frame of the first track.
    pub const fn new(kind: TagKind) -> Self {
        Self { kind, track: 0, continues: false, passive: false, duration: None }
    }
}

/// Maps one publisher after another onto one rising clock.
#[derive(Debug, Default)]
pub struct Timeline {
    tracks: Vec<Track>,
    /// The publisher's clock is another timeline: a step ahead is a part that was not received.
    copied: bool,
    /// Numbers the lines.
    serial: u64,
}

/// One track's clock.
#[derive(Debug)]
struct Track {
    kind: TagKind,
    number: u8,
    /// The newest time given out.
    out: StreamTime,
    /// `None`: no frame of this session yet.
    line: Option<Line>,
    /// The line before: the present one may be a single stray timestamp.
    previous: Option<Line>,
    /// The newest time of the other tracks when this one's newest frame came.
    others: Option<StreamTime>,
    /// The last two distances of frames in milliseconds.
    steps: [Option<i64>; 2],
    /// Frames since the timestamp last changed, and the duration of one in microseconds.
    still: (i64, i64),
    /// Its time is kept near that of the other tracks, since its own clock stands still.
    tied: bool,
}

/// Where a track counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Line {
    serial: u64,
    /// The publisher's newest timestamp, unwrapped.
    raw: i64,
    /// Stream time minus publisher's time.
    offset: i64,
    /// Only one timestamp was on it.
    single: bool,
}

impl Line {
    /// The 64-bit value of a timestamp close to the newest one.
    fn unwrap(&self, timestamp: u32) -> i64 {
        unwrap(self.raw, timestamp)
    }

    /// With another timestamp.
    fn at(self, raw: i64) -> Self {
        Self { raw, single: false, ..self }
    }
}

impl Timeline {
    /// The publisher left: the next timestamp is on another clock.
    pub fn end_session(&mut self) {
        self.copied = false;
        for track in &mut self.tracks {
            (track.line, track.previous, track.others) = (None, None, None);
            (track.still, track.tied) = ((0, 0), false);
        }
    }

    /// The present publisher's clock is another timeline.
    pub fn copy(&mut self) {
        self.copied = true;
    }

    /// The newest time given out for any kind; 0 before the first.
    pub fn now(&self) -> StreamTime {
        self.tracks.iter().map(|track| track.out).max().unwrap_or(0)
    }

    /// Whether no time has been given out yet.
    pub fn is_untouched(&self) -> bool {
        self.tracks.is_empty()
    }

    /// The newest time given out for `kind`.
    pub fn newest(&self, kind: TagKind) -> Option<StreamTime> {
        self.tracks.iter().filter(|track| track.kind == kind).map(|track| track.out).max()
    }

    /// The time that a timestamp of the current session would get; changes nothing.
    pub fn peek(&self, kind: TagKind, timestamp: u32) -> Option<StreamTime> {
        let own = self.tracks.iter().filter(|track| track.kind == kind).find_map(|track| track.line);
        let line = own.or_else(|| self.tracks.iter().find_map(|track| track.line))?;
        Some(line.unwrap(timestamp) + line.offset)
    }

    /// Maps the timestamp of a tag to its time, which is after that of every earlier frame of its track, unless it
    /// continues the newest one.
    ///
    /// Script data gets the newest time: its own timestamps are commonly zero.
    pub fn map(&mut self, unit: Unit, timestamp: u32) -> StreamTime {
        if unit.kind == TagKind::Script {
            return self.now();
        }
        let at = self.tracks.iter().position(|track| track.kind == unit.kind && track.number == unit.track);
        if unit.passive {
            return self.pass(at, timestamp);
        }
        let time = match at {
            Some(at) if self.tracks[at].line.is_some() => self.go_on(at, unit, timestamp),
            _ => return self.begin(at, unit, timestamp),
        };
        let others = self.others(at.expect("a line has a track"));
        let track = &mut self.tracks[at.expect("a line has a track")];
        debug_assert!(time > track.out || (unit.continues && time == track.out), "time only rises");
        (track.out, track.others) = (time, others);
        time
    }

    /// The time of a tag that is no frame.
    fn pass(&mut self, at: Option<usize>, timestamp: u32) -> StreamTime {
        let Some(track) = at.map(|at| &mut self.tracks[at]) else {
            // The track has had no frame: early enough for its first one.
            return self.tracks.iter().map(|track| track.out).min().unwrap_or(0);
        };
        let due = track.line.map_or(track.out, |line| line.unwrap(timestamp) + line.offset);
        if track.is_next(due) {
            track.out = track.out.max(due);
        }
        track.out
    }

    /// The newest time of the tracks other than `at` that have frames in this session.
    fn others(&self, at: usize) -> Option<StreamTime> {
        let rest = self.tracks.iter().enumerate().filter(|(n, track)| *n != at && track.line.is_some());
        rest.map(|(_, track)| track.out).max()
    }

    /// The first frame of a track in a session: it counts on the line of the track whose clock shows most nearly
    /// the same.
    fn begin(&mut self, at: Option<usize>, unit: Unit, timestamp: u32) -> StreamTime {
        let lines = self.tracks.iter().filter_map(|track| track.line);
        let nearest = lines.min_by_key(|line| (line.unwrap(timestamp) - line.raw).abs());
        let line = nearest.map_or_else(
            || {
                self.serial += 1;
                let raw = i64::from(timestamp);
                let offset = if self.is_untouched() { 0 } else { self.now() + USUAL - raw };
                Line { serial: self.serial, raw, offset, single: true }
            },
            |line| line.at(line.unwrap(timestamp)),
        );
        let mut time = line.raw + line.offset;
        let at = at.unwrap_or_else(|| {
            self.tracks.push(Track::new(unit, time - 1));
            self.tracks.len() - 1
        });
        self.tracks[at].line = Some(line);
        // Its frames of the session before reach further than those of the others: all wait for it.
        let late = self.tracks[at].out + 1 - time;
        if late > JUMP {
            self.serial += 1;
            time += late;
            let own = Line { serial: self.serial, offset: line.offset + late, ..line };
            self.tracks[at].line = Some(own);
        } else if late > 0 {
            self.shift(line.serial, late);
            time += late;
        }
        let others = self.others(at);
        let track = &mut self.tracks[at];
        (track.out, track.others) = (time, others);
        time
    }

    /// Moves a line, and so all tracks on it, ahead.
    fn shift(&mut self, serial: u64, by: i64) {
        let lines = self.tracks.iter_mut().filter_map(|track| track.line.as_mut());
        lines.filter(|line| line.serial == serial).for_each(|line| line.offset += by);
    }

    /// A further frame of a track.
    fn go_on(&mut self, at: usize, unit: Unit, timestamp: u32) -> StreamTime {
        let others = self.others(at);
        let track = &mut self.tracks[at];
        let line = track.line.expect("begun");
        let raw = line.unwrap(timestamp);
        let step = raw - line.raw;
        if unit.continues && step.abs() <= BACK {
            return track.out;
        }
        if step == 0 {
            return self.stand_still(at, unit);
        }
        // Of two lines that it could continue, it is on the one on which it is due.
        let is_nearer = |line: &Line| (line.unwrap(timestamp) + line.offset - track.out).abs() < step.abs();
        if line.single
            && track.previous.is_some_and(|previous| is_nearer(&previous))
            && let Some(time) = track.return_to_previous(timestamp)
        {
            return time;
        }
        if !(self.copied && step > 0) && track.is_stray(raw, others) {
            return self.stray(at, unit, timestamp);
        }
        track.line = Some(line.at(raw));
        track.learn(step);
        (track.still, track.tied) = ((0, 0), false);
        (raw + line.offset).max(track.out + 1)
    }

    /// The timestamp has not changed: frames follow each other at their duration, and near the time of the other
    /// tracks if it does not change for long.
    fn stand_still(&mut self, at: usize, unit: Unit) -> StreamTime {
        let moving = |(n, track): &(usize, &Track)| *n != at && track.line.is_some() && !track.tied;
        let others = self.tracks.iter().enumerate().filter(moving).map(|(_, track)| track.out).max();
        let track = &mut self.tracks[at];
        let line = track.line.expect("begun");
        if track.still.0 == 0 {
            track.still.1 = track.duration(unit).min(STILL_MAX);
        }
        track.still.0 += 1;
        let ahead = track.still.0 * track.still.1 / 1000;
        let mut time = line.raw + line.offset + ahead;
        // Sound knows how long its frames last; the rate of pictures may be wrong.
        let exact = unit.kind == TagKind::Audio && unit.duration.is_some();
        track.tied = !exact && ahead > BACK && others.is_some();
        if let Some(apart) = others.filter(|_| track.tied).map(|others| others - time)
            && apart.abs() > BACK / 2
        {
            // Little by little: frames that come in order are shown in order.
            let offset = line.offset + apart / 4;
            track.line = Some(Line { offset, ..line });
            time += apart / 4;
        }
        time.max(track.out + 1)
    }

    /// A timestamp that does not continue the track's line.
    fn stray(&mut self, at: usize, unit: Unit, timestamp: u32) -> StreamTime {
        if let Some(time) = self.tracks[at].return_to_previous(timestamp) {
            return time;
        }
        if let Some(time) = self.wait_is_over(at, timestamp).or_else(|| self.follow(at, unit, timestamp)) {
            return time;
        }
        let others = self.others(at);
        self.serial += 1;
        let track = &mut self.tracks[at];
        let line = track.line.expect("begun");
        let raw = line.unwrap(timestamp);
        let duration = (track.duration(unit) / 1000).max(1);
        // One stray after the other: they add no time of their own.
        let again = line.single && track.previous.is_some();
        if !again {
            track.previous = Some(line);
        }
        let offset = track.out + duration - raw;
        track.line = Some(Line { serial: self.serial, raw, offset, single: true });
        (track.still, track.tied) = ((0, 0), false);
        if again {
            others.unwrap_or(0).min(track.out + duration).max(track.out + 1)
        } else {
            // A little less than the duration: if this one was alone, the next keeps its own time.
            track.out + (duration - 1).max(1)
        }
    }

    /// Another track has left this one's line for a jump ahead that this one takes as well: it is a pause of all,
    /// and both stay on the line.
    fn wait_is_over(&mut self, at: usize, timestamp: u32) -> Option<StreamTime> {
        let line = self.tracks[at].line?;
        let raw = line.unwrap(timestamp);
        if !(1..=JUMP).contains(&(raw - line.raw)) {
            return None;
        }
        let jumped = |track: &Track| {
            let (now, before) = (track.line?, track.previous?);
            let alike = (now.unwrap(timestamp) - now.raw).abs() <= AHEAD_ALONE;
            let is_pause = (1..=JUMP + AHEAD_ALONE).contains(&(now.raw - before.raw));
            (before.serial == line.serial && alike && is_pause).then_some(before)
        };
        let mut found = false;
        for (n, track) in self.tracks.iter_mut().enumerate() {
            let Some(before) = jumped(track).filter(|_| n != at) else { continue };
            let raw = track.line.map_or(before.raw, |line| line.raw);
            (track.line, track.previous) = (Some(before.at(raw)), None);
            found = true;
        }
        let track = &mut self.tracks[at];
        if !found {
            return None;
        }
        track.line = Some(line.at(raw));
        (track.still, track.tied) = ((0, 0), false);
        Some((raw + line.offset).max(track.out + 1))
    }

    /// Another track is on a newer line, which this timestamp continues: both clocks have started anew together.
    fn follow(&mut self, at: usize, unit: Unit, timestamp: u32) -> Option<StreamTime> {
        let track = &self.tracks[at];
        let own = track.line?;
        let newer = self.tracks.iter().filter_map(|other| other.line).filter(|line| line.serial > own.serial);
        let fits = |line: &Line| {
            let raw = line.unwrap(timestamp);
            let time = raw + line.offset;
            let alike = (raw - line.raw).abs() <= ALIKE && time + JUMP > track.out;
            track.is_next(time) || alike
        };
        let line = newer.filter(fits).max_by_key(|line| line.serial)?;
        let raw = line.unwrap(timestamp);
        let mut time = raw + line.offset;
        let late = track.out + (track.duration(unit) / 1000).max(1) - time;
        let track = &mut self.tracks[at];
        let again = own.single && track.previous.is_some();
        if !again {
            track.previous = Some(own);
        }
        track.line = Some(line.at(raw));
        (track.still, track.tied) = ((0, 0), false);
        if late > BACK {
            // This track's time is further on: the others wait for it, so that the distance stays as it is.
            self.shift(line.serial, late);
            time += late;
        }
        Some(time.max(self.tracks[at].out + 1))
    }
}

impl Track {
    fn new(unit: Unit, out: StreamTime) -> Self {
        Self {
            kind: unit.kind,
            number: unit.track,
            out,
            line: None,
            previous: None,
            others: None,
            steps: [None; 2],
            still: (0, 0),
            tied: false,
        }
    }

    /// The duration of a frame in microseconds: of sound as told, of pictures the shorter of the last two distances.
    fn duration(&self, unit: Unit) -> i64 {
        let learned = self.steps.iter().flatten().min().map(|step| *step * 1000);
        let told = unit.duration.map(i64::from);
        let either = if unit.kind == TagKind::Audio { told.or(learned) } else { learned.or(told) };
        either.unwrap_or(USUAL * 1000)
    }

    /// Remembers the distance of a frame from the one before.
    fn learn(&mut self, step: i64) {
        let step = step / (self.still.0 + 1);
        if (1..=JUMP).contains(&step) {
            self.steps = [Some(step), self.steps[0]];
        }
    }

    /// The timestamp before was alone, if this one continues the previous line: then that line goes on.
    fn return_to_previous(&mut self, timestamp: u32) -> Option<StreamTime> {
        let line = self.previous?;
        let raw = line.unwrap(timestamp);
        let time = raw + line.offset;
        self.is_next(time).then(|| {
            (self.line, self.previous) = (Some(line.at(raw)), None);
            (self.still, self.tied) = ((0, 0), false);
            time.max(self.out + 1)
        })
    }

    /// Whether a frame at `time` may follow the newest one.
    fn is_next(&self, time: StreamTime) -> bool {
        let step = self.steps[0].unwrap_or(USUAL);
        (self.out - BACK..=self.out + AHEAD_ALONE + step).contains(&time)
    }

    /// Whether a timestamp does not continue the line; `others`: the newest time of the other tracks.
    fn is_stray(&self, raw: i64, others: Option<StreamTime>) -> bool {
        let Some(line) = self.line else { return false };
        let step = raw - line.raw;
        let due = self.steps.iter().flatten().min().map_or(USUAL, |step| *step).min(DUE);
        if raw + line.offset < self.out + due - BACK {
            // A clock with large steps catches up with the frames that were counted meanwhile.
            let counted = self.still.0 * self.still.1 / 1000;
            return step < 0 || step * 4 < counted || counted == 0;
        }
        let step_of_others = match (others, self.others) {
            // Others that are far back have ended, or are on clocks of their own.
            (Some(now), Some(then)) if now >= self.out - AHEAD_ALONE => now - then,
            _ => step,
        };
        let usual = self.steps[0].unwrap_or(USUAL);
        step > JUMP || step - step_of_others.max(usual) > AHEAD_ALONE
    }
}

/// The 64-bit value nearest to `near` whose low 32 bits are `timestamp`.
fn unwrap(near: i64, timestamp: u32) -> i64 {
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "the low 32 bits are meant")]
    let step = timestamp.wrapping_sub(near as u32).cast_signed();
    near + i64::from(step)
}

#[cfg(test)]
#[path = "timeline_tests.rs"]
mod tests;
