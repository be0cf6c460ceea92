//! Fragments: `moof` and `mdat` (ISO/IEC 14496-12, 8.8), of both tracks together and of each alone.
//!
//! Times are counted from the take's first frame, in 64 bits. A frame lasts until the next one begins, so its
//! duration is known only then: the newest frame of each track is held until the segment ends.

use super::boxes::{count, put_box, put_full, put_u32, put_u64};
use super::{AUDIO_ID, VIDEO_ID, VIDEO_TIMESCALE};
use crate::media::opus;
use crate::media::picture::Place;
use crate::media::remux::Sample;
use crate::media::sample_clock::SampleClock;
use crate::media::segmenter::{Muxer, Opening};
use crate::media::track::{Audio, Tracks};

/// The most bytes of frames that are gathered into a fragment, unless a single frame is larger.
const GATHER: usize = 1 << 20;
/// `sample_flags` (8.8.3.1): depends on no other sample; depends on others and is not a sync sample.
const FLAGS_KEY: u32 = 0x0200_0000;
const FLAGS_OTHER: u32 = 0x0101_0000;
/// `tfhd`: the base of offsets is the `moof`.
const BASE_IS_MOOF: u32 = 0x02_0000;
/// `trun`: offset of the data; duration, size, flags and composition offset of each sample.
const RUN: u32 = 0x1 | 0x100 | 0x200 | 0x400 | 0x800;

/// One kind of output, named by the tracks in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Output {
    /// Both tracks in one file.
    Merge,
    /// Sound alone.
    Audio,
    /// Pictures alone.
    Video,
}

impl Output {
    /// All of them, in the order of their discriminants.
    pub const EVERY: [Self; 3] = [Self::Merge, Self::Audio, Self::Video];

    /// The tracks among `tracks` that it contains; `None`: none.
    pub fn pick(self, tracks: &Tracks) -> Option<Tracks> {
        let picked = Tracks {
            video: tracks.video.clone().filter(|_| self != Self::Audio),
            audio: tracks.audio.clone().filter(|_| self != Self::Video),
        };
        (picked.video.is_some() || picked.audio.is_some()).then_some(picked)
    }

    /// Whether it contains the track with this id.
    fn contains(self, id: u32) -> bool {
        match self {
            Self::Merge => true,
            Self::Audio => id == AUDIO_ID,
            Self::Video => id == VIDEO_ID,
        }
    }
}

/// One frame in a fragment; times in the track's units.
#[derive(Clone, Copy, Debug)]
struct Frame {
    dts: i64,
    cts: i32,
    size: u32,
    key: bool,
}

/// The frames of one track that are not written yet.
#[derive(Debug)]
struct Lane {
    id: u32,
    timescale: u32,
    /// For sound only.
    clock: Option<(SampleClock, u32)>,
    frames: Vec<Frame>,
    data: Vec<u8>,
    /// The duration of the last frame of sound.
    last: u32,
}

impl Lane {
    fn video() -> Self {
        Self {
            id: VIDEO_ID,
            timescale: VIDEO_TIMESCALE,
            clock: None,
            frames: Vec::new(),
            data: Vec::new(),
            last: 0,
        }
    }

    fn audio(audio: &Audio) -> Self {
        let clock = Some((SampleClock::new(audio.sample_rate), audio.frame));
        Self {
            id: AUDIO_ID,
            timescale: audio.sample_rate,
            clock,
            frames: Vec::new(),
            data: Vec::new(),
            last: 0,
        }
    }

    /// Milliseconds in the track's units.
    fn units(&self, millis: i64) -> i64 {
        millis * i64::from(self.timescale) / 1000
    }

    fn push(&mut self, sample: &Sample<'_>) {
        self.data.extend_from_slice(sample.data);
        if let Some(last) = self.frames.last_mut().filter(|_| sample.place == Place::Continues) {
            last.size += count(sample.data.len());
            return;
        }
        let dts = match &mut self.clock {
            None => self.units(sample.dts),
            Some((clock, frame)) => {
                self.last = if *frame == 0 { opus::duration(sample.data) } else { *frame };
                clock.stamp(sample.dts, self.last)
            }
        };
        let cts = i32::try_from(self.units(i64::from(sample.cts))).unwrap_or(0);
        self.frames.push(Frame { dts, cts, size: count(sample.data.len()), key: sample.key });
    }

    /// The number of frames that can be written: all, the last one ending at `end`, or all but the last.
    fn complete(&self, end: Option<i64>) -> usize {
        self.frames.len().saturating_sub(usize::from(end.is_none()))
    }

    /// What can be written; `None`: nothing.
    fn run(&self, end: Option<i64>) -> Option<Run<'_>> {
        let len = self.complete(end);
        let (frames, kept) = self.frames.split_at(len);
        let last = frames.last()?;
        let ends_at = match end {
            None => kept[0].dts,
            Some(_) if self.clock.is_some() => last.dts + i64::from(self.last),
            Some(end) => self.units(end),
        };
        Some(Run {
            id: self.id,
            timescale: self.timescale,
            frames,
            data: &self.data[..bytes(frames)],
            ends_at,
        })
    }

    /// What could be written is written.
    fn written(&mut self, end: Option<i64>) {
        let len = self.complete(end);
        self.data.drain(..bytes(&self.frames[..len]));
        self.frames.drain(..len);
    }
}

/// The length of some frames' data.
fn bytes(frames: &[Frame]) -> usize {
    frames.iter().map(|frame| frame.size as usize).sum()
}

/// Frames of one track for one fragment.
#[derive(Debug)]
struct Run<'a> {
    id: u32,
    timescale: u32,
    frames: &'a [Frame],
    data: &'a [u8],
    /// The end of the last frame.
    ends_at: i64,
}

/// Writes the fragments of a stream.
#[derive(Debug, Default)]
pub struct Fragmenter {
    /// By output, in the order of [`Output::EVERY`]: the bytes of its file that were not taken yet.
    pub outs: [Vec<u8>; 3],
    tracks: Tracks,
    lanes: Vec<Lane>,
    sequence: u32,
    /// The stream time in milliseconds from which the take counts.
    origin: Option<i64>,
}

impl Fragmenter {
    /// Writes a fragment of what can be written; at the end of a segment (`end`) of everything.
    fn flush(&mut self, end: Option<i64>) {
        let runs: Vec<Run<'_>> = self.lanes.iter().filter_map(|lane| lane.run(end)).collect();
        if runs.is_empty() {
            return;
        }
        self.sequence = self.sequence.wrapping_add(1);
        for (output, out) in Output::EVERY.into_iter().zip(&mut self.outs) {
            let own: Vec<&Run<'_>> = runs.iter().filter(|run| output.contains(run.id)).collect();
            if !own.is_empty() {
                put_fragment(self.sequence, &own, self.origin.unwrap_or(0), out);
            }
        }
        self.lanes.iter_mut().for_each(|lane| lane.written(end));
    }
}

impl Muxer for Fragmenter {
    fn open(&mut self, opening: &Opening) {
        self.origin.get_or_insert(opening.start);
        if opening.fresh {
            self.tracks = opening.tracks.clone();
            let video = self.tracks.video.as_ref().map(|_| Lane::video());
            let audio = self.tracks.audio.as_deref().map(Lane::audio);
            self.lanes = video.into_iter().chain(audio).collect();
        }
    }

    fn sample(&mut self, sample: &Sample<'_>) {
        let id = if sample.video { VIDEO_ID } else { AUDIO_ID };
        let Some(lane) = self.lanes.iter_mut().find(|lane| lane.id == id) else { return };
        lane.push(sample);
        if self.lanes.iter().map(|lane| lane.data.len()).sum::<usize>() >= GATHER {
            self.flush(None);
        }
    }

    fn close(&mut self, end: i64) {
        self.flush(Some(end));
    }
}

/// `moof` and `mdat` of some tracks.
fn put_fragment(sequence: u32, runs: &[&Run<'_>], origin: i64, out: &mut Vec<u8>) {
    let payload: usize = runs.iter().map(|run| run.data.len()).sum();
    out.reserve(payload + runs.iter().map(|run| run.frames.len() * 16 + 128).sum::<usize>());
    let start = out.len();
    let mut offsets = Vec::with_capacity(runs.len());
    put_box(out, *b"moof", |out| {
        put_full(out, *b"mfhd", 0, 0, |out| put_u32(out, sequence));
        for run in runs {
            put_box(out, *b"traf", |out| put_run(run, origin, &mut offsets, out));
        }
    });
    // The data begins after the header of `mdat`.
    let mut offset = out.len() - start + 8;
    for (run, at) in runs.iter().zip(offsets) {
        out[at..at + 4].copy_from_slice(&count(offset).to_be_bytes());
        offset += run.data.len();
    }
    put_box(out, *b"mdat", |out| runs.iter().for_each(|run| out.extend_from_slice(run.data)));
}

/// The content of `traf`. Where the data offset must be filled in is added to `offsets`.
fn put_run(run: &Run<'_>, origin: i64, offsets: &mut Vec<usize>, out: &mut Vec<u8>) {
    put_full(out, *b"tfhd", 0, BASE_IS_MOOF, |out| put_u32(out, run.id));
    let origin = origin * i64::from(run.timescale) / 1000;
    let first = run.frames.first().map_or(0, |frame| frame.dts) - origin;
    put_full(out, *b"tfdt", 1, 0, |out| put_u64(out, u64::try_from(first).unwrap_or(0)));
    // Version 1: composition offsets are signed.
    put_full(out, *b"trun", 1, RUN, |out| {
        put_u32(out, count(run.frames.len()));
        offsets.push(out.len());
        put_u32(out, 0);
        let ends = run.frames.iter().skip(1).map(|next| next.dts).chain([run.ends_at]);
        for (frame, end) in run.frames.iter().zip(ends) {
            put_u32(out, u32::try_from(end - frame.dts).unwrap_or(0));
            put_u32(out, frame.size);
            put_u32(out, if frame.key { FLAGS_KEY } else { FLAGS_OTHER });
            put_u32(out, frame.cts.cast_unsigned());
        }
    });
}
