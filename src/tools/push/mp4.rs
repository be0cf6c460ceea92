//! Reads MP4, whole or fragmented, as FLV tags: AVC and AAC in their classic form, other codecs by FourCC
//! (Enhanced RTMP v2, `ExVideoTagHeader` and `ExAudioTagHeader`).
//!
//! Edit lists shift a track (ISO/IEC 14496-12, 8.6.6): by empty edits at its start and by the media time of its
//! first edit; further edits are ignored. Only the first track of each kind is read, and codecs that FLV has no
//! name for are left out.

mod codec;
mod track;

use std::collections::VecDeque;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::time::Duration;

use bytes::Bytes;
use shiguredo_mp4::boxes::{MoovBox, SampleEntry};
use shiguredo_mp4::demux::{
    DemuxError, Fmp4FileDemuxer, Input, Mp4FileDemuxer, Mp4FileKind, Mp4FileKindDetector, RequiredInput,
    Sample,
};
use shiguredo_mp4::{Decode, TrackKind};

use codec::Codec;
use track::{Track, are_countable, edit_shift};

use super::error::SourceError;
use crate::media::amf0::{self, Value};
use crate::media::flv::FileHeader;
use crate::media::tag::{Class, TAG_BODY_MAX, Tag, TagKind};

/// The largest piece of a file that is read at once: the sample tables of a day are far smaller.
const PIECE_MAX: u64 = 1 << 30;
/// The most tags that are read ahead for the first sample of each track.
const AHEAD_MAX: usize = 1000;
/// Tags are sorted by time among this many.
const REORDER: usize = 32;

/// An MP4 file, read tag by tag.
pub struct Mp4 {
    file: File,
    len: u64,
    demuxer: Demuxer,
    tracks: Vec<Track>,
    /// Added to all times, in milliseconds, so that none is negative.
    lift: i64,
    ahead: VecDeque<Tag>,
}

impl std::fmt::Debug for Mp4 {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Mp4").field("tracks", &self.tracks).finish_non_exhaustive()
    }
}

enum Demuxer {
    Whole(Mp4FileDemuxer),
    Fragmented(Fmp4FileDemuxer),
}

/// A sample, before its bytes are read.
struct Found {
    track: u32,
    entry: Option<SampleEntry>,
    key: bool,
    time: i64,
    composition: i64,
    at: u64,
    len: usize,
}

impl Mp4 {
    pub(super) fn open(file: File) -> Result<Self, SourceError> {
        let len = file.metadata()?.len();
        let mut detector = Mp4FileKindDetector::new();
        while let Some(needed) = detector.required_input() {
            let data = read(&file, len, needed)?;
            detector.handle_input(Input { position: needed.position, data: &data });
        }
        let demuxer = match detector.file_kind().map_err(wrong)? {
            Some(Mp4FileKind::FragmentedMp4) => Demuxer::Fragmented(Fmp4FileDemuxer::new()),
            _ => Demuxer::Whole(Mp4FileDemuxer::new()),
        };
        let tracks = Vec::new();
        let mut mp4 = Self { file, len, demuxer, tracks, lift: 0, ahead: VecDeque::new() };
        mp4.begin()?;
        Ok(mp4)
    }

    pub(super) fn header(&self) -> FileHeader {
        let has = |kind| self.tracks.iter().any(|track| track.kind == kind);
        FileHeader { audio: has(TagKind::Audio), video: has(TagKind::Video) }
    }

    pub(super) fn duration(&self) -> Duration {
        let millis = |track: &Track| track.length.saturating_mul(1000) / track.timescale.unsigned_abs();
        Duration::from_millis(self.tracks.iter().map(millis).max().unwrap_or(0))
    }

    pub(super) fn rewind(&mut self) -> Result<(), SourceError> {
        self.demuxer = match self.demuxer {
            Demuxer::Whole(_) => Demuxer::Whole(Mp4FileDemuxer::new()),
            Demuxer::Fragmented(_) => Demuxer::Fragmented(Fmp4FileDemuxer::new()),
        };
        self.begin()
    }

    pub(super) fn next_tag(&mut self) -> Result<Option<Tag>, SourceError> {
        // Edit lists shift tracks against each other: a tag that is read later may have an earlier time.
        while self.ahead.len() < REORDER {
            let Some(found) = self.next_sample()? else { break };
            self.take(found)?;
        }
        Ok(self.ahead.pop_front())
    }

    /// Finds the tracks, and reads ahead until the codec of each is known, since `onMetaData` names them.
    fn begin(&mut self) -> Result<(), SourceError> {
        let moov = self.moov()?;
        let infos = loop {
            let result = match &mut self.demuxer {
                Demuxer::Whole(demuxer) => demuxer.tracks().map(<[_]>::to_vec),
                Demuxer::Fragmented(demuxer) => demuxer.tracks().map(<[_]>::to_vec),
            };
            match result {
                Err(DemuxError::InputRequired(needed)) => self.feed(needed)?,
                other => break other.map_err(wrong)?,
            }
        };
        self.tracks.clear();
        for info in infos {
            let kind = if info.kind == TrackKind::Video { TagKind::Video } else { TagKind::Audio };
            if self.tracks.iter().any(|track| track.kind == kind) {
                continue;
            }
            let timescale = i64::from(info.timescale.get());
            let (id, length) = (info.track_id, info.duration);
            let shift = edit_shift(&moov, id, timescale);
            self.tracks.push(Track { id, kind, timescale, shift, length, codec: None });
        }
        self.lift = self.tracks.iter().map(|track| -track.millis(track.shift)).max().unwrap_or(0).max(0);
        self.ahead.clear();
        while self.tracks.iter().any(|track| track.codec.is_none()) && self.ahead.len() < AHEAD_MAX {
            let Some(found) = self.next_sample()? else { break };
            self.take(found)?;
        }
        self.tracks.retain(|track| track.codec.is_some());
        if self.tracks.is_empty() {
            return Err(SourceError::Mp4("no track has a codec that FLV can carry".to_owned()));
        }
        // Players need all sequence headers before the first frame of any track.
        let is_header = |tag: &Tag| tag.class() == Class::SequenceHeader;
        let (headers, frames): (Vec<Tag>, Vec<Tag>) = self.ahead.drain(..).partition(is_header);
        self.ahead.extend(std::iter::once(self.metadata()).chain(headers).chain(frames));
        Ok(())
    }

    fn take(&mut self, found: Found) -> Result<(), SourceError> {
        let Some(track) = self.tracks.iter_mut().find(|track| track.id == found.track) else { return Ok(()) };
        let decoded = found.time.saturating_add(track.shift);
        let dts = track.millis(decoded) + self.lift;
        let pts = track.millis(decoded.saturating_add(found.composition)) + self.lift;
        let (kind, timestamp) = (track.kind, super::pace::low(dts.max(0)));
        if let Some(entry) = &found.entry {
            let codec = Codec::of(entry);
            if codec.is_none() {
                let kept: Vec<Track> =
                    self.tracks.iter().filter(|track| track.id != found.track).cloned().collect();
                self.tracks = kept;
                return Ok(());
            }
            track.codec = codec;
            if let Some(header) = track.codec.as_ref().and_then(|codec| codec.header.clone()) {
                put(&mut self.ahead, Tag { kind, timestamp, body: header.into() });
            }
        }
        let Some(codec) = &track.codec else { return Ok(()) };
        let mut body = codec.front[usize::from(!found.key)].clone();
        if codec.composition {
            let composition = i32::try_from(pts - dts).unwrap_or(0);
            body.extend_from_slice(&composition.to_be_bytes()[1..]);
        }
        let front = body.len();
        if front + found.len > TAG_BODY_MAX {
            return Err(SourceError::Mp4(format!("a sample of {} bytes, more than a tag holds", found.len)));
        }
        body.resize(front + found.len, 0);
        self.file.read_exact_at(&mut body[front..], found.at)?;
        put(&mut self.ahead, Tag { kind, timestamp, body: Bytes::from(body) });
        Ok(())
    }

    fn next_sample(&mut self) -> Result<Option<Found>, SourceError> {
        loop {
            let result = match &mut self.demuxer {
                Demuxer::Whole(demuxer) => demuxer.next_sample().map(|sample| sample.map(found)),
                Demuxer::Fragmented(demuxer) => demuxer.next_sample().map(|sample| sample.map(found)),
            };
            match result {
                Err(DemuxError::InputRequired(needed)) => self.feed(needed)?,
                other => return other.map_err(wrong),
            }
        }
    }

    fn feed(&mut self, needed: RequiredInput) -> Result<(), SourceError> {
        let data = read(&self.file, self.len, needed)?;
        let input = Input { position: needed.position, data: &data };
        match &mut self.demuxer {
            Demuxer::Whole(demuxer) => demuxer.handle_input(input),
            Demuxer::Fragmented(demuxer) => demuxer.handle_input(input),
        }
        Ok(())
    }

    /// The `moov` box: the demuxer does not expose the edit lists.
    fn moov(&self) -> Result<MoovBox, SourceError> {
        let mut at = 0;
        while at + 8 <= self.len {
            let mut head = [0; 16];
            let have = usize::try_from(self.len - at).unwrap_or(16).min(16);
            self.file.read_exact_at(&mut head[..have], at)?;
            let [s3, s2, s1, s0, kind @ .., _, _, _, _, _, _, _, _] = head;
            let size = match u32::from_be_bytes([s3, s2, s1, s0]) {
                0 => self.len - at,
                1 => u64::from_be_bytes(*head.last_chunk().expect("16 bytes")),
                size => u64::from(size),
            };
            if &kind == b"moov" {
                let size = usize::try_from(size.min(PIECE_MAX)).unwrap_or(usize::MAX);
                let data = read(&self.file, self.len, RequiredInput { position: at, size: Some(size) })?;
                let (moov, _) =
                    MoovBox::decode(&data).map_err(|error| SourceError::Mp4(error.to_string()))?;
                if !moov.trak_boxes.iter().all(|trak| are_countable(&trak.mdia_box.minf_box.stbl_box)) {
                    return Err(SourceError::Mp4(
                        "its tables claim more samples than are possible".to_owned(),
                    ));
                }
                return Ok(moov);
            }
            at = at.saturating_add(size.max(8));
        }
        Err(SourceError::Mp4("it has no moov box: it was not written to its end".to_owned()))
    }

    fn metadata(&self) -> Tag {
        let mut properties = vec![("duration".to_owned(), Value::Number(self.duration().as_secs_f64()))];
        let mut add = |name: &str, value: f64| properties.push((name.to_owned(), Value::Number(value)));
        for track in &self.tracks {
            let Some(codec) = &track.codec else { continue };
            if let Some((width, height)) = codec.size {
                add("width", f64::from(width));
                add("height", f64::from(height));
            }
            add(if track.kind == TagKind::Video { "videocodecid" } else { "audiocodecid" }, codec.id);
        }
        let header = self.header();
        properties.push(("hasVideo".to_owned(), Value::Boolean(header.video)));
        properties.push(("hasAudio".to_owned(), Value::Boolean(header.audio)));
        let body = amf0::encode(&["onMetaData".into(), Value::EcmaArray(properties)]);
        Tag { kind: TagKind::Script, timestamp: 0, body: body.into() }
    }
}

/// Inserts a tag after those that are not later.
fn put(tags: &mut VecDeque<Tag>, tag: Tag) {
    let later = tags.iter().rev().take_while(|other| other.timestamp > tag.timestamp).count();
    tags.insert(tags.len() - later, tag);
}

fn found(sample: Sample<'_>) -> Found {
    Found {
        track: sample.track.track_id,
        entry: sample.sample_entry.cloned(),
        key: sample.keyframe,
        time: i64::try_from(sample.timestamp).unwrap_or(0),
        composition: sample.composition_time_offset.unwrap_or(0),
        at: sample.data_offset,
        len: sample.data_size,
    }
}

fn read(file: &File, len: u64, needed: RequiredInput) -> Result<Vec<u8>, SourceError> {
    let left = len.saturating_sub(needed.position);
    let wanted = needed.size.map_or(left, |size| left.min(size as u64));
    if wanted > PIECE_MAX {
        return Err(SourceError::Mp4(format!("a box of {wanted} bytes")));
    }
    let mut data = vec![0; usize::try_from(wanted).unwrap_or(usize::MAX)];
    file.read_exact_at(&mut data, needed.position)?;
    Ok(data)
}

fn wrong(error: DemuxError) -> SourceError {
    SourceError::Mp4(error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_is_not_mp4_is_an_error() {
        let path = std::env::temp_dir().join(format!("uringcast-no-mp4-{}", std::process::id()));
        for bytes in [
            &b"\0\0\0\x10ftypisom\0\0\0\0"[..],
            b"\0\0\0\x08ftyp\0\0\0\x09moovx",
            b"\0\0\0\x08ftyp\xff\xff\xff\xffmoov",
        ] {
            std::fs::write(&path, bytes).unwrap();
            assert!(matches!(Mp4::open(File::open(&path).unwrap()), Err(SourceError::Mp4(_))), "{bytes:?}");
        }
        std::fs::remove_file(&path).unwrap();
    }
}
