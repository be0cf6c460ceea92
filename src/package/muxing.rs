//! The muxers, with a whole segment as their output.

use std::collections::VecDeque;

use super::format::Format;
use crate::media::mp4::fragment::{Fragmenter, Piece};
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
}

#[derive(Debug)]
enum Writer {
    Ts(Box<TsMuxer>),
    Mp4 { fragments: Box<Fragmenter>, bodies: Vec<Vec<u8>> },
}

impl Segments {
    pub(super) fn new(format: Format) -> Self {
        let lanes = format.lanes().len();
        let writer = match format {
            Format::Hls => Writer::Ts(Box::default()),
            Format::Fmp4 => Writer::Mp4 { fragments: Box::default(), bodies: vec![Vec::new(); lanes] },
        };
        Self { writer, opening: None, first: None, finished: VecDeque::new() }
    }

    /// Bytes in segments that were not taken, finished or not.
    pub(super) fn bytes(&self) -> u64 {
        let len = |bodies: &[Vec<u8>]| bodies.iter().map(|body| body.len() as u64).sum::<u64>();
        let open = match &self.writer {
            Writer::Ts(ts) => ts.out.len() as u64,
            Writer::Mp4 { bodies, .. } => len(bodies),
        };
        open + self.finished.iter().map(|muxed| len(&muxed.bodies)).sum::<u64>()
    }

    /// Takes over the fragments that are complete.
    fn gather(&mut self) {
        let Writer::Mp4 { fragments, bodies } = &mut self.writer else { return };
        for piece in fragments.pieces.drain(..) {
            let Piece::Bytes(all) = piece else { continue };
            for (body, bytes) in bodies.iter_mut().zip(all) {
                if body.is_empty() {
                    *body = bytes;
                } else {
                    body.extend_from_slice(&bytes);
                }
            }
        }
    }

    /// The bodies of the segment that has just ended. The next one is expected to be about as long.
    fn take_bodies(&mut self) -> Vec<Vec<u8>> {
        match &mut self.writer {
            Writer::Ts(ts) => {
                let next = Vec::with_capacity(ts.out.len() + ts.out.len() / 16);
                vec![std::mem::replace(&mut ts.out, next)]
            }
            Writer::Mp4 { bodies, .. } => {
                let lanes = bodies.len();
                std::mem::replace(bodies, vec![Vec::new(); lanes])
            }
        }
    }
}

impl Muxer for Segments {
    fn open(&mut self, opening: &Opening) {
        match &mut self.writer {
            Writer::Ts(ts) => ts.open(opening),
            Writer::Mp4 { fragments, .. } => fragments.open(opening),
        }
        assert!(self.opening.is_none(), "one segment is open at a time");
        (self.opening, self.first) = (Some(opening.clone()), None);
    }

    fn sample(&mut self, sample: &Sample<'_>) {
        if sample.video {
            self.first.get_or_insert(sample.key);
        }
        match &mut self.writer {
            Writer::Ts(ts) => ts.sample(sample),
            Writer::Mp4 { fragments, .. } => fragments.sample(sample),
        }
        self.gather();
    }

    fn close(&mut self, end: i64) {
        match &mut self.writer {
            Writer::Ts(ts) => ts.close(end),
            Writer::Mp4 { fragments, .. } => fragments.close(end),
        }
        self.gather();
        let opening = self.opening.take().expect("what is closed was opened");
        let duration = u32::try_from(end - opening.start).unwrap_or(0).max(1);
        let bodies = self.take_bodies();
        self.finished.push_back(Muxed { opening, duration, dependent: self.first == Some(false), bodies });
    }
}
