//! From tags to finished segments with their numbers and names.

use std::sync::Arc;
use std::time::SystemTime;

use super::format::Format;
use super::memory::{Memory, Used};
use super::muxing::{Muxed, Segments};
use super::segment::{File, Init, Piece, Segment};
use super::source::{Complaint, Source};
use crate::live::log::Start;
use crate::live::timeline::StreamTime;
use crate::media::m3u8::Head;
use crate::media::mp4;
use crate::media::mp4::fragment::Output;
use crate::media::segmenter::Lengths;
use crate::media::tag::TagRef;
use crate::media::track::Tracks;

/// Packages one stream in one format.
#[derive(Debug)]
pub struct Packager {
    format: Format,
    source: Source,
    segments: Segments,
    /// The number of the next segment and the discontinuities before it; `None`: not known yet.
    next: Option<Head>,
    /// The newest init segment of each lane, with how many there were.
    inits: Vec<(Option<Arc<Init>>, u32)>,
    memory: Memory,
    /// What is not part of a finished segment yet.
    gathered: Used,
    /// Media of the segments that were taken, in milliseconds.
    packaged: u64,
}

impl Packager {
    /// Nothing is packaged yet, and segments have no numbers before [`number_from`](Self::number_from).
    pub fn new(format: Format, lengths: Lengths, memory: Memory) -> Self {
        Self {
            format,
            source: Source::new(lengths, format.supported()),
            segments: Segments::new(format, memory.clone()),
            next: None,
            inits: vec![(None, 0); format.lanes().len()],
            gathered: memory.used_by(),
            memory,
            packaged: 0,
        }
    }

    /// Its format.
    pub fn format(&self) -> Format {
        self.format
    }

    /// The number of the first segment, and the discontinuities before it.
    pub fn number_from(&mut self, sequence: u64, discontinuities: u64) {
        debug_assert!(self.next.is_none(), "numbers only rise");
        self.next = Some(Head { target: 0, sequence, discontinuities });
    }

    /// Whether segments have numbers.
    pub fn is_numbered(&self) -> bool {
        self.next.is_some()
    }

    /// The number of the next segment and the discontinuities before it, if segments have numbers.
    pub fn next(&self) -> Option<Head> {
        self.next
    }

    /// Continues at a start, with its headers. `gap`: data before it is missing.
    pub fn begin(&mut self, start: &Start, gap: bool) {
        self.source.begin(start, gap, &mut self.segments);
    }

    /// Takes the next tag. `Some`: an error that has not been reported yet.
    pub fn tag(&mut self, tag: &TagRef<'_>, time: StreamTime) -> Option<Complaint> {
        self.source.tag(tag, time, &mut self.segments)
    }

    /// The stream is over, or a take of it: what is there becomes a segment.
    pub fn end(&mut self) {
        self.source.end(&mut self.segments);
    }

    /// Counts the memory that it uses now.
    pub fn count(&mut self) {
        self.gathered.set(self.segments.bytes());
    }

    /// Whether a segment is finished that was not taken.
    pub fn has_segment(&self) -> bool {
        !self.segments.finished.is_empty()
    }

    /// Milliseconds of media in the segments that were taken.
    pub fn packaged(&self) -> u64 {
        self.packaged
    }

    /// Takes the next finished segment.
    ///
    /// # Panics
    /// Before segments have numbers.
    pub fn take(&mut self, now: SystemTime) -> Option<Segment> {
        let mut muxed = self.segments.finished.pop_front()?;
        let next = self.next.as_mut().expect("segments have numbers before one is taken");
        // Earlier takes of the stream have ended with other times.
        let discontinuity = muxed.opening.fresh && (next.sequence > 0 || self.packaged > 0);
        let head = Head { target: self.source.target_seconds(), ..*next };
        next.sequence += 1;
        next.discontinuities += u64::from(discontinuity);
        self.packaged += u64::from(muxed.duration);
        let tracks = muxed.opening.tracks.clone();
        self.count();
        let mut segment = Segment::new(head, discontinuity, muxed.duration, tracks);
        for (lane, body) in std::mem::take(&mut muxed.bodies).into_iter().enumerate() {
            segment.pieces.push(self.piece(lane, body, &muxed, head.sequence, now));
        }
        Some(segment)
    }

    fn piece(
        &mut self,
        lane: usize,
        body: Vec<u8>,
        muxed: &Muxed,
        number: u64,
        now: SystemTime,
    ) -> Option<Piece> {
        if body.is_empty() {
            return None; // the lane has none of the tracks
        }
        let names = self.format.lanes()[lane];
        let init = self.init(lane, &muxed.opening.tracks, muxed.opening.fresh, now);
        let sound_alone = self.format == Format::Fmp4 && Output::EVERY[lane] == Output::Audio;
        Some(Piece {
            name: format!("{}_{number}{}", names.segment, names.suffix),
            file: File::new(body, now, &self.memory),
            init,
            dependent: muxed.dependent && !sound_alone,
        })
    }

    /// The init segment for a lane's next segment: another one if the tracks have changed.
    fn init(&mut self, lane: usize, tracks: &Tracks, fresh: bool, now: SystemTime) -> Option<Arc<Init>> {
        let prefix = self.format.lanes()[lane].init;
        let (known, count) = &mut self.inits[lane];
        if prefix.is_empty() || (!fresh && known.is_some()) {
            return known.clone();
        }
        let bytes = mp4::init(&Output::EVERY[lane].pick(tracks)?);
        if known.as_ref().is_none_or(|known| known.file.body != bytes) {
            *count += 1;
            let name = if *count == 1 { format!("{prefix}.mp4") } else { format!("{prefix}_{count}.mp4") };
            *known = Some(Arc::new(Init { name, file: File::new(bytes, now, &self.memory) }));
        }
        known.clone()
    }
}
