//! How long segments are: the target duration, and where a segment has to end so that it holds.
//!
//! `EXT-X-TARGETDURATION` must not change (RFC 8216, 6.2.1), so it is fixed when the first segment ends: the largest
//! of the set length, the longest distance of two keyframes and the length of that segment, and a second more. From
//! then on a segment ends at a keyframe where one comes in time, else at any frame, and at a pause that it would
//! have to span.

use super::remux::Sample;

/// How long segments are, in milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lengths {
    /// A segment ends at the first keyframe at or after this.
    pub target: i64,
    /// The first segment ends here if no keyframe comes before.
    pub longest: i64,
}

/// A keyframe that is early by no more than times are rounded by is in time.
const ROUNDING: i64 = 10;
/// A segment may exceed the target duration by this much, since it is compared in whole seconds (RFC 8216, 4.3.3.1).
const OVER_MAX: i64 = 450;
/// While pictures come, a segment ends at one of them: they end it so much earlier than sound would.
const PICTURES_FIRST: i64 = 250;
/// Pictures that are this far apart are rare.
const RARE: i64 = 1_000;
/// A frame lasts no longer than this, in milliseconds: after a longer time there is a pause.
const FRAME_MAX: i64 = 60_000;
/// Shorter times without a frame are no pause.
const PAUSE_MIN: i64 = 500;
/// A time without frames is a pause if it exceeds the usual distance of frames so many times.
const PAUSE_DISTANCES: i64 = 3;
/// The expected duration of a picture and of a frame of sound, before one is known.
const PICTURE: i64 = 40;
const SOUND: i64 = 20;
/// The longest time before the limit at which a segment ends because the next frame would exceed it.
const EARLY_MAX: i64 = 1_000;

/// The newest frame of a track, in milliseconds.
#[derive(Clone, Copy, Debug)]
struct Last {
    dts: i64,
    /// From the frame before it.
    distance: Option<i64>,
}

/// Decides where segments end. Times are in milliseconds.
#[derive(Debug)]
pub(super) struct Cutting {
    lengths: Lengths,
    /// The target duration, once it is fixed.
    limit: Option<i64>,
    /// The newest frame of sound and of pictures.
    last: [Option<Last>; 2],
    /// The newest keyframe of pictures.
    key: Option<i64>,
    /// The newest distance of two keyframes, and the longest.
    group: i64,
    longest_group: i64,
}

impl Cutting {
    pub(super) fn new(lengths: Lengths) -> Self {
        Self { lengths, limit: None, last: [None; 2], key: None, group: 0, longest_group: 0 }
    }

    /// The target duration in whole seconds; `None`: no segment has ended yet.
    pub(super) fn target_seconds(&self) -> Option<u32> {
        self.limit.map(|limit| u32::try_from(limit / 1000).unwrap_or(u32::MAX))
    }

    /// A frame is part of the open segment.
    pub(super) fn passed(&mut self, sample: &Sample<'_>) {
        let last = &mut self.last[usize::from(sample.video)];
        let distance = last.and_then(|last| {
            let distance = sample.dts - last.dts;
            if (1..FRAME_MAX).contains(&distance) { Some(distance) } else { last.distance }
        });
        *last = Some(Last { dts: sample.dts, distance });
        if sample.video
            && sample.key
            && let Some(before) = self.key.replace(sample.dts)
        {
            self.group = sample.dts - before;
            self.longest_group = self.longest_group.max(self.group);
        }
    }

    /// A segment of this length has ended.
    pub(super) fn ended(&mut self, length: i64) {
        let longest = self.lengths.target.max(self.longest_group).max(length);
        self.limit.get_or_insert((longest + 500) / 1000 * 1000 + 1000);
    }

    /// What comes next does not continue what was there.
    pub(super) fn forget(&mut self) {
        (self.last, self.key) = ([None; 2], None);
    }

    /// The expected duration of a track's frames.
    fn distance(&self, video: bool) -> i64 {
        let known = self.last[usize::from(video)].and_then(|last| last.distance);
        known.unwrap_or(if video { PICTURE } else { SOUND })
    }

    /// The expected end of a track's newest frame.
    fn end_of(&self, video: bool) -> Option<i64> {
        self.last[usize::from(video)].map(|last| last.dts + self.distance(video))
    }

    /// The expected end of the newest frame of a segment with or without pictures that began at `start`.
    pub(super) fn end(&self, start: i64, pictures: bool) -> i64 {
        let [sound, picture] = [false, true].map(|video| self.end_of(video));
        let rare = self.last[1].filter(|last| last.distance.is_some_and(|distance| distance >= RARE));
        let end = match (sound, rare) {
            // A rare picture ends with the sound.
            (Some(sound), Some(last)) if pictures => sound.max(last.dts + 1),
            _ if pictures => picture.or(sound).unwrap_or(start),
            _ => sound.or(picture).unwrap_or(start),
        };
        end.min(self.latest(start))
    }

    /// The latest end of a segment.
    fn latest(&self, start: i64) -> i64 {
        start.saturating_add(self.limit.unwrap_or(i64::MAX))
    }

    /// Whether a segment that has lasted `long` ends before a frame, which is one to start with (`key`) or not.
    pub(super) fn is_due(&self, long: i64, key: bool, video: bool) -> bool {
        let target = self.lengths.target;
        // Better a short segment and then one that begins with a keyframe than one that begins inside a group.
        let next_is_late = || self.limit.is_some_and(|limit| long >= target / 2 && long + self.group > limit);
        key && (long >= target - ROUNDING || next_is_late()) || self.is_full(long, video)
    }

    /// Whether a segment that has lasted `long` has to end before a frame, whatever that is.
    pub(super) fn is_full(&self, long: i64, video: bool) -> bool {
        let early = if video { PICTURES_FIRST } else { 0 };
        match self.limit {
            Some(limit) => long + self.distance(video).min(EARLY_MAX) > limit - early,
            None => long >= self.lengths.longest,
        }
    }

    /// Where a segment that began at `start` ends because a pause lies between it and a frame at `dts`; `None`: there
    /// is no pause that it would have to span.
    pub(super) fn end_before_pause(&self, start: i64, dts: i64) -> Option<i64> {
        let end = self.end_of(true).max(self.end_of(false))?;
        let usual = self.last.iter().flatten().filter_map(|last| last.distance).max();
        let long = dts - start;
        let is_pause = |usual: i64| dts - end > (usual * PAUSE_DISTANCES).max(PAUSE_MIN);
        let paused = long > self.limit.unwrap_or(self.lengths.target) && usual.is_some_and(is_pause);
        let over = self.limit.is_some_and(|limit| long > limit + OVER_MAX);
        (paused || over).then(|| end.min(self.latest(start)).max(start + 1))
    }
}
