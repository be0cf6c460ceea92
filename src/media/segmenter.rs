//! Where one segment ends and the next begins.
//!
//! A segment begins with the first keyframe at or after the target; without pictures only time decides. First
//! the segmenter determines the stream's tracks: headers announce them, frames prove them. When a track changes
//! or appears, or a part of the stream is missing, the next segment is marked as fresh: players start anew
//! there.
//!
//! Pictures that come in several tags stay whole: parameter sets wait for the slices that they belong to, and no
//! segment ends within a picture.

use std::sync::Arc;

use super::picture::Place;
use super::remux::Sample;
use super::track::Tracks;

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

/// How long segments are, in milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lengths {
    /// A segment ends at the first keyframe at or after this.
    pub target: i64,
    /// A segment without another keyframe ends here.
    pub longest: i64,
}

/// A keyframe that is early by no more than times are rounded by is in time.
const ROUNDING: i64 = 10;
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
/// Pictures that are this far apart are rare.
const RARE: i64 = 1_000;
/// A frame lasts no longer than this, in milliseconds: after a longer time there is a pause.
const FRAME_MAX: i64 = 30_000;

/// Cuts a stream into segments.
#[derive(Debug)]
pub struct Segmenter {
    lengths: Lengths,
    supported: fn(&Tracks) -> Tracks,
    announced: Tracks,
    wanted: Tracks,
    state: State,
    /// Time of the last frame of sound and of pictures, and its distance from the one before.
    last: [Option<(i64, i64)>; 2],
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
            lengths,
            supported,
            announced: Tracks::default(),
            wanted: Tracks::default(),
            state: State::FRESH,
            last: [None; 2],
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
        match self.before(sample) {
            Some(Cut::Plain) => {
                muxer.close(sample.dts);
                if let State::Open { tracks, start, .. } = &mut self.state {
                    *start = sample.dts;
                    muxer.open(&Opening { tracks: tracks.clone(), fresh: false, start: sample.dts });
                }
            }
            Some(Cut::Fresh) => {
                muxer.close(sample.dts);
                self.state = State::FRESH;
            }
            None => {}
        }
        self.take(sample, muxer);
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
        if let State::Open { tracks, .. } = &self.state {
            muxer.close(self.estimated_end(tracks.video.is_some()));
        }
        self.forget();
    }

    /// Forgets what is under way, because it could not be kept.
    pub fn reset(&mut self) {
        self.forget();
    }

    fn forget(&mut self) {
        (self.state, self.last) = (State::FRESH, [None; 2]);
        (self.lead, self.whole) = (None, false);
    }

    /// The expected end of the last frame.
    fn estimated_end(&self, video: bool) -> i64 {
        let [sound, picture] = self.last.map(|last| last.map(|(dts, distance)| dts + distance));
        match (sound, self.last[1]) {
            // A rare picture ends with the sound.
            (Some(sound), Some((dts, distance))) if video && distance >= RARE => sound.max(dts + 1),
            _ if video => picture.or(sound).unwrap_or(0),
            _ => sound.or(picture).unwrap_or(0),
        }
    }

    /// Whether a segment ends before this sample.
    fn before(&mut self, sample: &Sample<'_>) -> Option<Cut> {
        let State::Open { tracks, start, changed } = &mut self.state else { return None };
        let pictures = tracks.video.is_some();
        let own = has_track_of(tracks, &self.wanted, sample.video);
        let at_key = if pictures || sample.video { sample.video && sample.key } else { true };
        if !own {
            changed.get_or_insert(sample.dts);
        }
        let long = sample.dts - *start;
        match *changed {
            Some(since) => (at_key || sample.dts - since >= CHANGE_PATIENCE).then_some(Cut::Fresh),
            None if at_key && long >= self.lengths.target - ROUNDING => Some(Cut::Plain),
            None => (long >= self.lengths.longest).then_some(Cut::Plain),
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
        let last = &mut self.last[usize::from(sample.video)];
        let usual = if sample.video { 40 } else { 20 };
        let distance = last.map_or(usual, |(dts, before)| {
            let distance = sample.dts - dts;
            if (1..FRAME_MAX).contains(&distance) { distance } else { before }
        });
        *last = Some((sample.dts, distance));
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
        held.iter().for_each(|sample| self.pass_on(&sample.sample(), muxer));
    }
}

/// How a segment ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Cut {
    /// The next segment continues this one.
    Plain,
    /// The next segment is, in effect, another stream.
    Fresh,
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
