//! Merges the fragments of a take into one progressive file: the tables first, then the media data unchanged.
//!
//! Only the heads of the fragments are read; the caller copies their media data, in the order in which the
//! fragments were given. At most eight bytes are kept for each frame.

use super::boxes::{Boxes, Fields, Mp4Error, count, put_u32, put_u64};
use super::movie::{Edit, MOVIE_TIMESCALE, Track, movie};
use super::{VIDEO_ID, file_type};

/// Gathers the tables of a file.
#[derive(Debug, Default)]
pub struct Merger {
    lanes: Vec<Lane>,
    /// Bytes of media data so far.
    payload: u64,
}

#[derive(Debug)]
struct Lane {
    track: Track,
    /// Timescale (units per second) of the current init segment, and its sample entry, counted from 1.
    timescale: u32,
    entry: u32,
    /// The first decoding time, and the first and last time at which something is shown.
    first: Option<i64>,
    earliest: i64,
    latest: i64,
    /// Time of the last frame, and its duration.
    last: Option<(i64, u32)>,
}

impl Lane {
    fn frame(&mut self, dts: i64, duration: u32, cts: i32, size: u32, key: bool) {
        let scale = |units: i64| scaled(units, self.timescale, self.track.timescale);
        let (dts, end) = (scale(dts), scale(dts + i64::from(duration)));
        let cts = i32::try_from(scale(i64::from(cts))).unwrap_or(0);
        // Before a gap a frame lasts until the next one; time never goes back.
        let dts = self.last.map_or(dts, |(last, _)| dts.max(last));
        if let Some((last, _)) = self.last {
            add_run(&mut self.track.tables.durations, u32::try_from(dts - last).unwrap_or(u32::MAX));
        }
        self.last = Some((dts, u32::try_from(end - dts).unwrap_or(0)));
        self.first.get_or_insert(dts);
        self.earliest = self.earliest.min(dts + i64::from(cts));
        self.latest = self.latest.max(end + i64::from(cts));
        let tables = &mut self.track.tables;
        add_run(&mut tables.offsets, cts);
        tables.sizes.push(size);
        if key && self.track.size.is_some() {
            tables.sync.push(count(tables.sizes.len()));
        }
    }

    fn chunk(&mut self, offset: u64, samples: u32) {
        let tables = &mut self.track.tables;
        tables.chunks.push(offset);
        let same = |run: &&(u32, u32, u32)| (run.1, run.2) == (samples, self.entry);
        if tables.chunk_runs.last().filter(same).is_none() {
            tables.chunk_runs.push((count(tables.chunks.len()), samples, self.entry));
        }
    }
}

/// Converts units of one timescale to another.
fn scaled(units: i64, from: u32, to: u32) -> i64 {
    if from == to {
        return units;
    }
    i64::try_from(i128::from(units) * i128::from(to) / i128::from(from.max(1))).unwrap_or(i64::MAX)
}

/// Adds one more of `value` to a run-length coded list.
fn add_run<T: PartialEq + Copy>(runs: &mut Vec<(u32, T)>, value: T) {
    match runs.last_mut() {
        Some((count, last)) if *last == value => *count += 1,
        _ => runs.push((1, value)),
    }
}

impl Merger {
    /// The next fragments belong to this init segment.
    ///
    /// # Errors
    /// [`Mp4Error`] if it was not written by this program.
    pub fn init(&mut self, init: &[u8]) -> Result<(), Mp4Error> {
        for found in Boxes(Boxes(init).find(*b"moov")?) {
            if let (kind, body) = found?
                && kind == *b"trak"
            {
                self.describe(read_track(body)?);
            }
        }
        Ok(())
    }

    fn describe(&mut self, track: Track) {
        let Some(lane) = self.lanes.iter_mut().find(|lane| lane.track.id == track.id) else {
            let timescale = track.timescale;
            self.lanes.push(Lane {
                track,
                timescale,
                entry: 1,
                first: None,
                earliest: i64::MAX,
                latest: i64::MIN,
                last: None,
            });
            return;
        };
        lane.timescale = track.timescale;
        let known = &mut lane.track.entries;
        for entry in track.entries {
            let at = known.iter().position(|other| *other == entry).unwrap_or_else(|| {
                known.push(entry);
                known.len() - 1
            });
            lane.entry = count(at + 1);
        }
    }

    /// Takes a fragment: the whole `moof`, and the bytes of media data in the `mdat` after it.
    ///
    /// # Errors
    /// [`Mp4Error`] if it was not written by this program; it is left out then.
    pub fn fragment(&mut self, moof: &[u8], payload: u64) -> Result<(), Mp4Error> {
        let mut runs = Vec::new();
        for found in Boxes(Boxes(moof).find(*b"moof")?) {
            if let (kind, body) = found?
                && kind == *b"traf"
            {
                runs.push(read_run(body)?);
            }
        }
        let foreign = Mp4Error::Foreign { kind: *b"trun" };
        let head = moof.len() as u64 + 8;
        // Everything is checked before anything is taken.
        for run in &runs {
            let size: u64 = run.frames().map(|frame| u64::from(frame.size)).sum();
            let from = u64::from(run.offset).checked_sub(head).ok_or(foreign)?;
            if from + size > payload || !self.lanes.iter().any(|lane| lane.track.id == run.track) {
                return Err(foreign);
            }
        }
        for run in runs {
            let Some(lane) = self.lanes.iter_mut().find(|lane| lane.track.id == run.track) else { continue };
            let mut dts = i64::try_from(run.time).map_err(|_| foreign)?;
            for frame in run.frames() {
                lane.frame(dts, frame.duration, frame.cts, frame.size, frame.key);
                dts += i64::from(frame.duration);
            }
            lane.chunk(self.payload + u64::from(run.offset) - head, run.count);
        }
        self.payload += payload;
        Ok(())
    }

    /// Total bytes of media data.
    pub fn payload(&self) -> u64 {
        self.payload
    }

    /// Whether there is no frame.
    pub fn is_empty(&self) -> bool {
        self.lanes.iter().all(|lane| lane.first.is_none())
    }

    /// The bytes before the media data.
    pub fn finish(self) -> Vec<u8> {
        let mut lanes: Vec<Lane> = self.lanes.into_iter().filter(|lane| lane.first.is_some()).collect();
        // What is shown first is shown at once; the other track waits for its time.
        let begin = |lane: &Lane| scaled(lane.earliest, lane.track.timescale, MOVIE_TIMESCALE);
        let origin = lanes.iter().map(begin).min().unwrap_or(0);
        for lane in &mut lanes {
            let wait = begin(lane) - origin;
            if let Some((_, duration)) = lane.last {
                add_run(&mut lane.track.tables.durations, duration);
            }
            let media_time = lane.earliest - lane.first.unwrap_or(0);
            let shown = scaled((lane.latest - lane.earliest).max(0), lane.track.timescale, MOVIE_TIMESCALE);
            if wait > 0 {
                lane.track.edits.push(Edit { duration: wait.cast_unsigned(), media_time: -1 });
            }
            lane.track.edits.push(Edit { duration: shown.cast_unsigned(), media_time: media_time.max(0) });
        }
        let tracks: Vec<Track> = lanes.into_iter().map(|lane| lane.track).collect();
        let mut out = file_type(b"isom", &[b"isom", b"iso2", b"iso6", b"mp41"]);
        let head = mdat_head(self.payload);
        // With the base added, offsets of a track may exceed 32 bits; then `moov` is longer, and so is the base, with
        // which those of another track may exceed them as well.
        let mut moov = movie(&tracks, 0, false);
        loop {
            let (len, base) = (moov.len(), (out.len() + moov.len() + head.len()) as u64);
            moov = movie(&tracks, base, false);
            assert!(moov.len() >= len, "a higher base makes no table shorter");
            if moov.len() == len {
                break;
            }
        }
        out.extend_from_slice(&moov);
        out.extend_from_slice(&head);
        out
    }
}

/// The header of a `mdat` with `payload` bytes in it.
fn mdat_head(payload: u64) -> Vec<u8> {
    let mut out = Vec::with_capacity(16);
    match u32::try_from(payload + 8) {
        Ok(size) => {
            put_u32(&mut out, size);
            out.extend_from_slice(b"mdat");
        }
        Err(_) => {
            put_u32(&mut out, 1);
            out.extend_from_slice(b"mdat");
            put_u64(&mut out, payload + 16);
        }
    }
    out
}

/// The description of a track in an init segment.
fn read_track(trak: &[u8]) -> Result<Track, Mp4Error> {
    let mut header = Fields::new(*b"tkhd", Boxes(trak).find(*b"tkhd")?);
    header.skip(4 + 16)?;
    let id = header.u32()?;
    let media = Boxes(trak).find(*b"mdia")?;
    let mut times = Fields::new(*b"mdhd", Boxes(media).find(*b"mdhd")?);
    times.skip(4 + 16)?;
    let timescale = times.u32()?;
    let tables = Boxes(Boxes(media).find(*b"minf")?).find(*b"stbl")?;
    let mut described = Fields::new(*b"stsd", Boxes(tables).find(*b"stsd")?);
    described.skip(8)?;
    let mut entries = Vec::new();
    let mut rest = described.rest;
    while !rest.is_empty() {
        let before = rest;
        let mut boxes = Boxes(rest);
        boxes.next().transpose()?;
        rest = boxes.0;
        entries.push(before[..before.len() - rest.len()].to_vec());
    }
    let size = if id == VIDEO_ID { entries.first().and_then(|entry| picture_size(entry)) } else { None };
    if timescale == 0 || entries.is_empty() || (id == VIDEO_ID) != size.is_some() {
        return Err(Mp4Error::Foreign { kind: *b"trak" });
    }
    Ok(Track { id, size, timescale, entries, ..Track::default() })
}

/// Width and height in a `VisualSampleEntry`.
fn picture_size(entry: &[u8]) -> Option<(u16, u16)> {
    let field = |at: usize| Some(u16::from_be_bytes(*entry.get(at..)?.first_chunk()?));
    Some((field(32)?, field(34)?))
}

/// The content of a `traf`.
struct Run<'a> {
    track: u32,
    time: u64,
    offset: u32,
    count: u32,
    samples: &'a [u8],
}

struct Frame {
    duration: u32,
    size: u32,
    key: bool,
    cts: i32,
}

impl Run<'_> {
    fn frames(&self) -> impl Iterator<Item = Frame> {
        self.samples.chunks_exact(16).map(|sample| {
            let field = |at| sample[at..].first_chunk().map_or(0, |bytes| u32::from_be_bytes(*bytes));
            let key = field(8) & 0x1_0000 == 0;
            Frame { duration: field(0), size: field(4), key, cts: field(12).cast_signed() }
        })
    }
}

fn read_run(traf: &[u8]) -> Result<Run<'_>, Mp4Error> {
    let mut header = Fields::new(*b"tfhd", Boxes(traf).find(*b"tfhd")?);
    if header.u32()? != 0x02_0000 {
        return Err(Mp4Error::Foreign { kind: *b"tfhd" });
    }
    let track = header.u32()?;
    let mut time = Fields::new(*b"tfdt", Boxes(traf).find(*b"tfdt")?);
    time.skip(4)?;
    let time = time.u64()?;
    let mut run = Fields::new(*b"trun", Boxes(traf).find(*b"trun")?);
    let (kind, samples, offset) = (run.u32()?, run.u32()?, run.u32()?);
    if kind != 0x0100_0f01 || run.rest.len() as u64 != u64::from(samples) * 16 || samples == 0 {
        return Err(Mp4Error::Foreign { kind: *b"trun" });
    }
    Ok(Run { track, time, offset, count: samples, samples: run.rest })
}
