//! The muxers, with a whole segment as their output.

use std::collections::VecDeque;

use super::format::Format;
use super::memory::Memory;
use crate::media::mp4::fragment::Fragmenter;
use crate::media::remux::Sample;
use crate::media::segmenter::{Muxer, Opening};
use crate::media::ts::TsMuxer;

/// A segment that a muxer has finished.
#[derive(Debug)]
pub(super) struct Muxed {
    /// How it began.
    pub(super) opening: Opening,
    /// In milliseconds.
    pub(super) duration: u32,
    /// Its first picture is not one to start with.
    pub(super) dependent: bool,
    /// By lane; empty: the lane has none of its tracks.
    pub(super) bodies: Vec<Vec<u8>>,
}

/// A muxer of either format.
#[derive(Debug)]
pub(super) struct Segments {
    writer: Writer,
    /// The segment that is open.
    opening: Option<Opening>,
    /// Whether its first picture is one to start with.
    first: Option<bool>,
    /// What is finished and was not taken yet.
    pub(super) finished: VecDeque<Muxed>,
    memory: Memory,
}

#[derive(Debug)]
enum Writer {
    Ts(Box<TsMuxer>),
    Mp4(Box<Fragmenter>),
}

impl Writer {
    fn muxer(&mut self) -> &mut dyn Muxer {
        match self {
            Self::Ts(ts) => &mut **ts,
            Self::Mp4(fragments) => &mut **fragments,
        }
    }

    /// The bytes of the segment that is open, by lane.
    fn outs(&mut self) -> &mut [Vec<u8>] {
        match self {
            Self::Ts(ts) => std::slice::from_mut(&mut ts.out),
            Self::Mp4(fragments) => &mut fragments.outs,
        }
    }
}

impl Segments {
    pub(super) fn new(format: Format, memory: Memory) -> Self {
        let writer = match format {
            Format::Hls => Writer::Ts(Box::default()),
            Format::Fmp4 => Writer::Mp4(Box::default()),
        };
        Self { writer, opening: None, first: None, finished: VecDeque::new(), memory }
    }

    /// Bytes in segments that were not taken, finished or not.
    pub(super) fn bytes(&mut self) -> u64 {
        let size = |bodies: &[Vec<u8>]| bodies.iter().map(|body| body.capacity() as u64).sum::<u64>();
        size(self.writer.outs()) + self.finished.iter().map(|muxed| size(&muxed.bodies)).sum::<u64>()
    }

    /// The bodies of the segment that has just ended. The next one is expected to be about as long.
    fn take_bodies(&mut self) -> Vec<Vec<u8>> {
        let memory = &self.memory;
        self.writer.outs().iter_mut().map(|out| std::mem::replace(out, memory.buffer(out.len()))).collect()
    }
}

impl Muxer for Segments {
    fn open(&mut self, opening: &Opening) {
        self.writer.muxer().open(opening);
        assert!(self.opening.is_none(), "one segment is open at a time");
        (self.opening, self.first) = (Some(opening.clone()), None);
    }

    fn sample(&mut self, sample: &Sample<'_>) {
        if sample.video {
            self.first.get_or_insert(sample.key);
        }
        self.writer.muxer().sample(sample);
    }

    fn close(&mut self, end: i64) {
        self.writer.muxer().close(end);
        let opening = self.opening.take().expect("what is closed was opened");
        let duration = u32::try_from(end - opening.start).unwrap_or(0).max(1);
        let bodies = self.take_bodies();
        self.finished.push_back(Muxed { opening, duration, dependent: self.first == Some(false), bodies });
    }
}
