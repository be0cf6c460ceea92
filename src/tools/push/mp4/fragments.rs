//! The samples of a fragmented file, in the order of their times (ISO/IEC 14496-12, 8.8).
//!
//! All ways to say where a run's data is are read: an absolute `base_data_offset`, `default-base-is-moof`, and
//! none, where data goes on after that of the track before. A file that was cut off ends with its last whole
//! sample.

use std::collections::VecDeque;
use std::fs::File;
use std::os::unix::fs::FileExt;

use shiguredo_mp4::Encode;
use shiguredo_mp4::boxes::{MoovBox, SampleEntry, TrexBox};

use super::found::Found;
use crate::media::mp4::{Boxes, Fields, HEADER_MAX, Mp4Error, read_header};
use crate::tools::push::error::{Mp4Problem, SourceError};

/// The largest `moof` box that is read.
const MOOF_MAX: u64 = 64 << 20;
/// The most samples of one `moof`.
const SAMPLES_MAX: usize = 1 << 20;
/// Samples of a track that wait for those of another one.
const WAITING_MAX: usize = 1 << 14;
/// The flag of a sample that is not a sync sample.
const NON_SYNC: u32 = 0x1_0000;

/// The fragments of a file.
#[derive(Debug)]
pub(super) struct Fragments {
    /// Where the next box begins.
    at: u64,
    len: u64,
    tracks: Vec<Lane>,
    /// No more fragments come.
    ended: bool,
}

#[derive(Debug)]
struct Lane {
    id: u32,
    timescale: u32,
    entries: Vec<SampleEntry>,
    defaults: Defaults,
    /// The entry that was given with the last sample.
    given: Option<u32>,
    /// The time after the last sample.
    next: i64,
    waiting: VecDeque<Queued>,
}

#[derive(Debug)]
struct Queued {
    entry: u32,
    key: bool,
    time: i64,
    composition: i64,
    at: u64,
    len: u32,
}

/// What holds for samples that say nothing else.
#[derive(Clone, Copy, Debug)]
struct Defaults {
    entry: u32,
    duration: u32,
    size: u32,
    flags: u32,
}

impl Defaults {
    fn of(trex: &TrexBox) -> Self {
        // The flags are in the box's last four bytes.
        let encoded = trex.encode_to_vec().unwrap_or_default();
        Self {
            entry: trex.default_sample_description_index,
            duration: trex.default_sample_duration,
            size: trex.default_sample_size,
            flags: encoded.last_chunk().map_or(0, |bytes| u32::from_be_bytes(*bytes)),
        }
    }
}

impl Fragments {
    /// The fragments of a file of `len` bytes; boxes are read from `at` on.
    pub(super) fn new(moov: &MoovBox, at: u64, len: u64) -> Self {
        let none = Defaults { entry: 1, duration: 0, size: 0, flags: 0 };
        let lane = |trak: &shiguredo_mp4::boxes::TrakBox| {
            let id = trak.tkhd_box.track_id;
            let mut trexes = moov.mvex_box.iter().flat_map(|mvex| &mvex.trex_boxes);
            Lane {
                id,
                timescale: trak.mdia_box.mdhd_box.timescale.get(),
                entries: trak.mdia_box.minf_box.stbl_box.stsd_box.entries.clone(),
                defaults: trexes.find(|trex| trex.track_id == id).map_or(none, Defaults::of),
                given: None,
                next: 0,
                waiting: VecDeque::new(),
            }
        };
        Self { at, len, tracks: moov.trak_boxes.iter().map(lane).collect(), ended: false }
    }

    /// The next sample; `None`: there is no other one.
    pub(super) fn next(&mut self, file: &File) -> Result<Option<Found>, SourceError> {
        let is_ready = |lane: &Lane| !lane.waiting.is_empty();
        while !self.ended
            && !self.tracks.iter().all(is_ready)
            && self.tracks.iter().all(|lane| lane.waiting.len() < WAITING_MAX)
        {
            self.read_box(file)?;
        }
        // Times of tracks with different units, compared in a common one.
        let time = |lane: &Lane| {
            lane.waiting
                .front()
                .map(|sample| i128::from(sample.time) * 1_000_000_000 / i128::from(lane.timescale))
        };
        let earliest = self.tracks.iter_mut().filter(|lane| is_ready(lane)).min_by_key(|lane| time(lane));
        Ok(earliest.and_then(Lane::take))
    }

    /// Reads the next box of the file, if it is a fragment.
    fn read_box(&mut self, file: &File) -> Result<(), SourceError> {
        let left = self.len.saturating_sub(self.at);
        let mut head = vec![0; usize::try_from(left).unwrap_or(HEADER_MAX).min(HEADER_MAX)];
        file.read_exact_at(&mut head, self.at)?;
        let Ok(header) = read_header(&head) else {
            self.ended = true; // the end of the file, or a box that takes all of it
            return Ok(());
        };
        if header.size > left {
            self.ended = true;
            return Ok(());
        }
        if &header.kind == b"moof" {
            if header.size > MOOF_MAX {
                return Err(Mp4Problem::BoxTooLarge { size: header.size }.into());
            }
            let mut moof = vec![0; usize::try_from(header.size).unwrap_or(usize::MAX)];
            file.read_exact_at(&mut moof, self.at)?;
            let content = &moof[usize::try_from(header.header).unwrap_or(usize::MAX)..];
            self.fragment(content, self.at).map_err(Mp4Problem::Damaged)?;
        }
        self.at += header.size;
        Ok(())
    }

    /// Takes the content of the `moof` that begins at `start`.
    fn fragment(&mut self, content: &[u8], start: u64) -> Result<(), Mp4Error> {
        let (mut end, mut samples) = (start, 0);
        for found in Boxes(content) {
            if let (kind, traf) = found?
                && kind == *b"traf"
            {
                end = self.track_fragment(traf, start, end, &mut samples)?;
            }
        }
        Ok(())
    }

    /// Takes a `traf`; `end` is where the data of the one before ended. Returns where its own ends.
    fn track_fragment(
        &mut self,
        traf: &[u8],
        moof: u64,
        end: u64,
        samples: &mut usize,
    ) -> Result<u64, Mp4Error> {
        let mut header = Fields::new(*b"tfhd", Boxes(traf).find(*b"tfhd")?);
        let (flags, id) = (header.u32()? & 0xff_ffff, header.u32()?);
        let base = match flags {
            flags if flags & 0x1 > 0 => header.u64()?,
            flags if flags & 0x2_0000 > 0 => moof,
            _ => end,
        };
        let Some(lane) = self.tracks.iter_mut().find(|lane| lane.id == id) else { return Ok(end) };
        let mut defaults = lane.defaults;
        for (flag, value) in [
            (0x2, &mut defaults.entry),
            (0x8, &mut defaults.duration),
            (0x10, &mut defaults.size),
            (0x20, &mut defaults.flags),
        ] {
            if flags & flag > 0 {
                *value = header.u32()?;
            }
        }
        if let Ok(time) = Boxes(traf).find(*b"tfdt") {
            let mut time = Fields::new(*b"tfdt", time);
            let long = time.u32()? >> 24 == 1;
            let begin = if long { time.u64()? } else { u64::from(time.u32()?) };
            lane.next = i64::try_from(begin).unwrap_or(i64::MAX / 2);
        }
        let mut at = base;
        for found in Boxes(traf) {
            if let (kind, run) = found?
                && kind == *b"trun"
            {
                at = lane.run(run, base, at, defaults, self.len, samples)?;
            }
        }
        Ok(at)
    }
}

impl Lane {
    /// Takes a `trun`, whose data goes on at `at` unless it says otherwise; returns where its data ends. Samples
    /// beyond the end of the file, of `len` bytes, are left out.
    fn run(
        &mut self,
        run: &[u8],
        base: u64,
        mut at: u64,
        defaults: Defaults,
        len: u64,
        samples: &mut usize,
    ) -> Result<u64, Mp4Error> {
        let mut fields = Fields::new(*b"trun", run);
        let (flags, count) = (fields.u32()?, fields.u32()?);
        if flags & 0x1 > 0 {
            at = base.saturating_add_signed(i64::from(fields.u32()?.cast_signed()));
        }
        let mut first = if flags & 0x4 > 0 { Some(fields.u32()?) } else { None };
        for _ in 0..count {
            *samples += 1;
            if *samples > SAMPLES_MAX {
                return Err(Mp4Error::Truncated { kind: *b"trun" });
            }
            let mut field = |flag: u32, otherwise: u32| {
                if flags & flag > 0 { fields.u32() } else { Ok(otherwise) }
            };
            let duration = field(0x100, defaults.duration)?;
            let size = field(0x200, defaults.size)?;
            let own = field(0x400, defaults.flags)?;
            let composition = field(0x800, 0)?;
            let is_signed = flags >> 24 > 0;
            let composition =
                if is_signed { i64::from(composition.cast_signed()) } else { i64::from(composition) };
            let key = first.take().unwrap_or(own) & NON_SYNC == 0;
            let end = at.saturating_add(u64::from(size));
            if end <= len {
                let (entry, time) = (defaults.entry, self.next);
                self.waiting.push_back(Queued { entry, key, time, composition, at, len: size });
            }
            at = end;
            self.next = self.next.saturating_add(i64::from(duration));
        }
        Ok(at)
    }

    fn take(&mut self) -> Option<Found> {
        let Queued { entry, key, time, composition, at, len } = self.waiting.pop_front()?;
        let fresh = self.given != Some(entry);
        self.given = Some(entry);
        let described = usize::try_from(entry).ok().and_then(|entry| self.entries.get(entry.checked_sub(1)?));
        Some(Found {
            track: self.id,
            entry: described.filter(|_| fresh).cloned(),
            key,
            time,
            composition,
            at,
            len: len as usize,
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn lane() -> Lane {
        let defaults = Defaults { entry: 1, duration: 10, size: 5, flags: 0 };
        Lane {
            id: 1,
            timescale: 1000,
            entries: vec![],
            defaults,
            given: None,
            next: 0,
            waiting: VecDeque::new(),
        }
    }

    proptest! {
        /// Whatever a run claims, its samples are within the file and their number is limited.
        #[test]
        fn any_run_stays_within_the_file(run in proptest::collection::vec(any::<u8>(), 0..100), base: u64) {
            let mut lane = lane();
            let _ = lane.run(&run, base, base, lane.defaults, 10_000, &mut 0);
            prop_assert!(lane.waiting.len() <= SAMPLES_MAX);
            prop_assert!(lane.waiting.iter().all(|sample| sample.at + u64::from(sample.len) <= 10_000));
        }
    }
}
