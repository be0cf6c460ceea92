//! Where one segment ends and the next begins.
//!
//! A segment begins with the first keyframe at or after the target; without pictures only time decides (`cutting`
//! has the exceptions). First the segmenter determines the stream's tracks: headers announce them, frames prove them.
//! When a track changes or appears, or a part of the stream is missing, the next segment is marked as fresh: players
//! start anew there.
//!
//! Pictures that come in several tags stay whole: parameter sets wait for the slices that they belong to, and no
//! segment ends within a picture.

use std::sync::Arc;

use super::cutting::{self, Cutting};
use super::picture::Place;
use super::remux::Sample;
use super::track::Tracks;

pub use cutting::Lengths;

/// The segment that begins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Opening {
    /// The tracks of this segment.
    pub tracks: Tracks,
    /// Its tracks differ from those of the segment before, there is a gap between the two, or it is the very
    /// first.
    pub fresh: bool,
    /// The time of its first frame in milliseconds.
    pub start: i64,
}

/// The destination of samples.
pub trait Muxer {
    /// A segment begins.
    fn open(&mut self, opening: &Opening);
    /// A sample of one of the segment's tracks, in decoding order of its track. One that continues a picture
    /// ([`Place::Continues`]) comes after a sample of that picture in the same segment.
    fn sample(&mut self, sample: &Sample<'_>);
    /// The segment ends; the next one begins at `end`, in milliseconds.
    fn close(&mut self, end: i64);
}

/// How long to wait for a track that a header announced.
const ANNOUNCED_PATIENCE: i64 = 3_000;
/// How long to wait for a second track that nothing has announced.
const PATIENCE: i64 = 500;
/// How long a changed track waits for a keyframe of the other.
const CHANGE_PATIENCE: i64 = 10_000;
/// The most bytes that are held while the tracks are determined.
const HELD_MAX: usize = 8 << 20;
/// The most bytes of parameter sets that wait for a picture.
const LEAD_MAX: usize = 64 << 10;

/// Cuts a stream into segments.
#[derive(Debug)]
pub struct Segmenter {
    cutting: Cutting,
    supported: fn(&Tracks) -> Tracks,
    announced: Tracks,
    wanted: Tracks,
    state: State,
    /// Parameter sets that wait for the picture they belong to.
    lead: Option<Held>,
    /// The newest picture was passed on, or is held, so that slices may continue it.
    whole: bool,
    /// Frames that were dropped at a change of tracks.
    pub dropped: u64,
}

#[derive(Debug)]
enum State {
    /// The tracks are being determined.
    Probing { held: Vec<Held>, bytes: usize },
    /// A segment is open; `changed`: since when a track differs.
    Open { tracks: Tracks, start: i64, changed: Option<i64> },
}

impl State {
    const FRESH: Self = Self::Probing { held: Vec::new(), bytes: 0 };
}

/// A sample that waits.
#[derive(Debug)]
struct Held {
    video: bool,
    dts: i64,
    cts: i32,
    key: bool,
    data: Vec<u8>,
}

impl Held {
    fn new(sample: &Sample<'_>) -> Self {
        let Sample { video, dts, cts, key, place: _, data } = *sample;
        Self { video, dts, cts, key, data: data.to_vec() }
    }

    fn sample(&self) -> Sample<'_> {
        let Self { video, dts, cts, key, ref data } = *self;
        Sample { video, dts, cts, key, place: Place::Begins, data }
    }
}

impl Segmenter {
    /// A segmenter for a container that can carry the tracks that `supported` selects.
    pub fn new(lengths: Lengths, supported: fn(&Tracks) -> Tracks) -> Self {
        Self {
            cutting: Cutting::new(lengths),
            supported,
            announced: Tracks::default(),
            wanted: Tracks::default(),
            state: State::FRESH,
            lead: None,
            whole: false,
            dropped: 0,
        }
    }

    /// Takes the next sample; `tracks` are those announced so far.
    pub fn push(&mut self, tracks: &Tracks, sample: &Sample<'_>, muxer: &mut impl Muxer) {
        if !is_same(&self.announced, tracks) {
            self.announce(tracks);
        }
        let there = if sample.video { self.wanted.video.is_some() } else { self.wanted.audio.is_some() };
        if !there {
            return;
        }
        match sample.place {
            Place::Begins => {}
            Place::Leads => return self.hold_lead(sample),
            Place::Continues => return self.go_on(sample, muxer),
        }
        let lead = if sample.video { self.lead.take() } else { None };
        let Some(mut lead) = lead else { return self.whole_sample(sample, muxer) };
        lead.data.extend_from_slice(sample.data);
        let data = &lead.data;
        self.whole_sample(&Sample { key: sample.key || lead.key, data, ..*sample }, muxer);
    }

    /// Parameter sets without a picture.
    fn hold_lead(&mut self, sample: &Sample<'_>) {
        self.whole = false;
        match &mut self.lead {
            Some(lead) if lead.data.len() + sample.data.len() <= LEAD_MAX => {
                lead.key |= sample.key;
                lead.data.extend_from_slice(sample.data);
            }
            _ if sample.data.len() <= LEAD_MAX => self.lead = Some(Held::new(sample)),
            _ => self.dropped += 1,
        }
    }

    /// More of the newest picture.
    fn go_on(&mut self, sample: &Sample<'_>, muxer: &mut impl Muxer) {
        match &mut self.state {
            _ if !self.whole => self.dropped += 1,
            State::Open { .. } => muxer.sample(sample),
            State::Probing { held, bytes } => match held.iter_mut().rev().find(|held| held.video) {
                Some(picture) => {
                    picture.data.extend_from_slice(sample.data);
                    *bytes += sample.data.len();
                }
                None => self.dropped += 1,
            },
        }
    }

    fn whole_sample(&mut self, sample: &Sample<'_>, muxer: &mut impl Muxer) {
        self.cut_before(sample, muxer);
        self.take(sample, muxer);
    }

    /// Ends the segment if it does not go on with this sample.
    fn cut_before(&mut self, sample: &Sample<'_>, muxer: &mut impl Muxer) {
        match self.before(sample) {
            Some(Cut::Plain) => {
                self.close(sample.dts, muxer);
                if let State::Open { tracks, start, .. } = &mut self.state {
                    *start = sample.dts;
                    muxer.open(&Opening { tracks: tracks.clone(), fresh: false, start: sample.dts });
                }
            }
            Some(Cut::Fresh) => {
                self.close(sample.dts, muxer);
                self.state = State::FRESH;
            }
            Some(Cut::Pause { end }) => {
                self.close(end, muxer);
                self.forget();
            }
            None => {}
        }
    }

    fn announce(&mut self, tracks: &Tracks) {
        self.announced = tracks.clone();
        let before = std::mem::replace(&mut self.wanted, (self.supported)(tracks));
        if let State::Probing { held, .. } = &mut self.state {
            // Held frames of a track that has changed belong to no segment.
            let video = is_same_track(before.video.as_ref(), self.wanted.video.as_ref());
            let audio = is_same_track(before.audio.as_ref(), self.wanted.audio.as_ref());
            held.retain(|sample| if sample.video { video } else { audio });
        }
    }

    /// A part of the stream is missing: the segment ends here, and the next one is fresh.
    pub fn gap(&mut self, muxer: &mut impl Muxer) {
        self.end(muxer);
    }

    /// No more samples come, or none for a long time: what is held becomes a segment.
    pub fn end(&mut self, muxer: &mut impl Muxer) {
        self.settle(muxer);
        if let State::Open { tracks, start, .. } = &self.state {
            let end = self.cutting.end(*start, tracks.video.is_some());
            self.close(end, muxer);
        }
        self.forget();
    }

    /// Forgets what is under way, because it could not be kept.
    pub fn reset(&mut self) {
        self.forget();
    }

    /// `EXT-X-TARGETDURATION` in seconds: no segment is longer. It is fixed when the first segment ends; `None`:
    /// none has.
    pub fn target_seconds(&self) -> Option<u32> {
        self.cutting.target_seconds()
    }

    fn forget(&mut self) {
        self.state = State::FRESH;
        self.cutting.forget();
        (self.lead, self.whole) = (None, false);
    }

    fn close(&mut self, end: i64, muxer: &mut impl Muxer) {
        if let State::Open { start, .. } = &self.state {
            self.cutting.ended(end - start);
        }
        muxer.close(end);
    }

    /// Whether a segment ends before this sample.
    fn before(&mut self, sample: &Sample<'_>) -> Option<Cut> {
        let State::Open { tracks, start, changed } = &mut self.state else { return None };
        if let Some(end) = self.cutting.end_before_pause(*start, sample.dts) {
            return Some(Cut::Pause { end });
        }
        let pictures = tracks.video.is_some();
        let own = has_track_of(tracks, &self.wanted, sample.video);
        let at_key = if pictures || sample.video { sample.video && sample.key } else { true };
        if !own {
            changed.get_or_insert(sample.dts);
        }
        let long = sample.dts - *start;
        match *changed {
            Some(since) => {
                let waited =
                    sample.dts - since >= CHANGE_PATIENCE || self.cutting.is_full(long, sample.video);
                (at_key || waited).then_some(Cut::Fresh)
            }
            None => self.cutting.is_due(long, at_key, sample.video).then_some(Cut::Plain),
        }
    }

    fn take(&mut self, sample: &Sample<'_>, muxer: &mut impl Muxer) {
        match &mut self.state {
            State::Open { tracks, .. } => {
                let is_own = has_track_of(tracks, &self.wanted, sample.video);
                if sample.video {
                    self.whole = is_own;
                }
                if is_own {
                    self.pass_on(sample, muxer);
                } else {
                    self.dropped += 1;
                }
            }
            State::Probing { held, bytes } => {
                self.whole |= sample.video;
                held.push(Held::new(sample));
                *bytes += sample.data.len();
                if self.is_settled() {
                    self.settle(muxer);
                }
            }
        }
    }

    fn pass_on(&mut self, sample: &Sample<'_>, muxer: &mut impl Muxer) {
        self.cutting.passed(sample);
        muxer.sample(sample);
    }

    /// Whether the tracks are determined.
    fn is_settled(&self) -> bool {
        let State::Probing { held, bytes } = &self.state else { return true };
        let (Some(first), Some(last)) = (held.first(), held.last()) else { return false };
        let both = [true, false].map(|video| held.iter().any(|sample| sample.video == video));
        let announced = self.wanted.video.is_some() && self.wanted.audio.is_some();
        let patience = if announced { ANNOUNCED_PATIENCE } else { PATIENCE };
        both == [true; 2] || last.dts - first.dts >= patience || *bytes >= HELD_MAX
    }

    /// Opens a segment with the held frames.
    fn settle(&mut self, muxer: &mut impl Muxer) {
        let State::Probing { held, .. } = &mut self.state else { return };
        let mut held = std::mem::take(held);
        // Frames before the first keyframe are useless, unless there is no keyframe.
        if let Some(key) = held.iter().position(|sample| sample.video && sample.key) {
            let mut at = 0..;
            held.retain(|sample| at.next() >= Some(key) || !sample.video);
        }
        let Some(start) = held.iter().map(|sample| sample.dts).min() else { return };
        let shown = |video| held.iter().any(|sample| sample.video == video);
        let tracks = Tracks {
            video: self.wanted.video.clone().filter(|_| shown(true)),
            audio: self.wanted.audio.clone().filter(|_| shown(false)),
        };
        muxer.open(&Opening { tracks: tracks.clone(), fresh: true, start });
        self.state = State::Open { tracks, start, changed: None };
        for sample in &held {
            // What is held may be longer than a segment.
            self.cut_before(&sample.sample(), muxer);
            self.take(&sample.sample(), muxer);
        }
    }
}

/// How a segment ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Cut {
    /// The next segment continues this one.
    Plain,
    /// The next segment is, in effect, another stream.
    Fresh,
    /// The frames of this segment end here, and the next one comes later.
    Pause { end: i64 },
}

fn is_same(one: &Tracks, other: &Tracks) -> bool {
    has_track_of(one, other, true) && has_track_of(one, other, false)
}

/// Whether a track, of pictures or of sound, is the same object on both sides.
fn has_track_of(one: &Tracks, other: &Tracks, video: bool) -> bool {
    if video {
        is_same_track(one.video.as_ref(), other.video.as_ref())
    } else {
        is_same_track(one.audio.as_ref(), other.audio.as_ref())
    }
}

fn is_same_track<T>(one: Option<&Arc<T>>, other: Option<&Arc<T>>) -> bool {
    one.map(Arc::as_ptr) == other.map(Arc::as_ptr)
}

#[cfg(test)]
#[path = "segmenter_tests.rs"]
mod tests;

#[cfg(test)]
#[path = "cutting_tests.rs"]
mod cutting_tests;
