//! Reads MP4, whole or fragmented, as FLV tags: AVC and AAC in their classic form, other codecs by FourCC
//! (Enhanced RTMP v2, `ExVideoTagHeader` and `ExAudioTagHeader`).
//!
//! Edit lists shift a track (ISO/IEC 14496-12, 8.6.6): by empty edits at its start and by the media time of its
//! first edit; further edits are ignored. Only the first track of each kind is read, and codecs that FLV has no
//! name for are left out.

mod codec;
mod found;
mod fragments;
mod tidy;
mod track;

use std::collections::VecDeque;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::time::Duration;

use bytes::Bytes;
use shiguredo_mp4::Decode;
use shiguredo_mp4::boxes::MoovBox;
use shiguredo_mp4::demux::{DemuxError, Input, Mp4FileDemuxer, RequiredInput, Sample};

use codec::Codec;
use found::Found;
use fragments::Fragments;
pub(super) use tidy::LeftOut;
use track::{Track, are_countable, edit_shift};

use super::error::{Mp4Problem, SourceError};
use crate::media::amf0::{self, Value};
use crate::media::flv::FileHeader;
use crate::media::mp4::{HEADER_MAX, read_header};
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
    movie: Movie,
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

/// The `moov` box, tidied, and where it is in the file.
struct Movie {
    at: u64,
    bytes: Vec<u8>,
    moov: MoovBox,
    left_out: Vec<LeftOut>,
}

enum Demuxer {
    Whole(Mp4FileDemuxer),
    Fragmented(Fragments),
}

impl Mp4 {
    pub(super) fn open(file: File) -> Result<Self, SourceError> {
        let len = file.metadata()?.len();
        let movie = Movie::read(&file, len)?;
        let demuxer = movie.demuxer(len);
        let tracks = Vec::new();
        let mut mp4 = Self { file, len, movie, demuxer, tracks, lift: 0, ahead: VecDeque::new() };
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
        self.demuxer = self.movie.demuxer(self.len);
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
        let moov = &self.movie.moov;
        self.tracks.clear();
        for trak in &moov.trak_boxes {
            let kind = match &trak.mdia_box.hdlr_box.handler_type {
                b"vide" => TagKind::Video,
                b"soun" => TagKind::Audio,
                _ => continue,
            };
            if self.tracks.iter().any(|track| track.kind == kind) {
                continue;
            }
            let (id, length) = (trak.tkhd_box.track_id, trak.mdia_box.mdhd_box.duration);
            let timescale = i64::from(trak.mdia_box.mdhd_box.timescale.get());
            let shift = edit_shift(moov, id, timescale);
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
            return Err(Mp4Problem::NoTrack.into());
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
            return Err(Mp4Problem::SampleTooLarge { size: found.len }.into());
        }
        body.resize(front + found.len, 0);
        self.file.read_exact_at(&mut body[front..], found.at)?;
        put(&mut self.ahead, Tag { kind, timestamp, body: Bytes::from(body) });
        Ok(())
    }

    fn next_sample(&mut self) -> Result<Option<Found>, SourceError> {
        loop {
            let demuxer = match &mut self.demuxer {
                Demuxer::Whole(demuxer) => demuxer,
                Demuxer::Fragmented(fragments) => return fragments.next(&self.file),
            };
            match demuxer.next_sample().map(|sample| sample.map(found)) {
                Err(DemuxError::InputRequired(needed)) => {
                    let mut data = read(&self.file, self.len, needed)?;
                    self.movie.lay_over(needed.position, &mut data);
                    demuxer.handle_input(Input { position: needed.position, data: &data });
                }
                other => return other.map_err(|_| Mp4Problem::Tables.into()),
            }
        }
    }

    /// The tracks that are not pushed, each with the reason.
    pub(super) fn left_out(&self) -> &[LeftOut] {
        &self.movie.left_out
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

impl Movie {
    fn read(file: &File, len: u64) -> Result<Self, SourceError> {
        let mut at = 0;
        while at + 8 <= len {
            let mut head = vec![0; usize::try_from(len - at).unwrap_or(HEADER_MAX).min(HEADER_MAX)];
            file.read_exact_at(&mut head, at)?;
            let (kind, size) = match read_header(&head) {
                Ok(header) => (header.kind, header.size),
                // A box of size 0 reaches to the end of the file.
                Err(_) if head.starts_with(&[0; 4]) => {
                    (*head[4..].first_chunk().unwrap_or(&[0; 4]), len - at)
                }
                Err(error) => return Err(Mp4Problem::Damaged(error).into()),
            };
            if &kind == b"moov" {
                let size = usize::try_from(size.min(PIECE_MAX)).unwrap_or(usize::MAX);
                return Self::parse(at, read(file, len, RequiredInput { position: at, size: Some(size) })?);
            }
            at = at.saturating_add(size.max(8));
        }
        Err(Mp4Problem::NoMovie.into())
    }

    fn parse(at: u64, mut bytes: Vec<u8>) -> Result<Self, SourceError> {
        let left_out = tidy::tidy(&mut bytes);
        let (moov, _) = MoovBox::decode(&bytes).map_err(|_| Mp4Problem::Movie)?;
        if !moov.trak_boxes.iter().all(|trak| are_countable(&trak.mdia_box.minf_box.stbl_box)) {
            return Err(Mp4Problem::TooManySamples.into());
        }
        Ok(Self { at, bytes, moov, left_out })
    }

    /// Reads the file from its beginning.
    fn demuxer(&self, len: u64) -> Demuxer {
        match self.moov.mvex_box {
            Some(_) => {
                Demuxer::Fragmented(Fragments::new(&self.moov, self.at + self.bytes.len() as u64, len))
            }
            None => Demuxer::Whole(Mp4FileDemuxer::new()),
        }
    }

    /// Replaces what `data`, which was read from `position`, holds of the box by the tidied one.
    fn lay_over(&self, position: u64, data: &mut [u8]) {
        let (from, to) =
            (position.max(self.at), (position + data.len() as u64).min(self.at + self.bytes.len() as u64));
        if from >= to {
            return;
        }
        let place = |start: u64, at: u64| usize::try_from(at - start).unwrap_or(usize::MAX);
        data[place(position, from)..place(position, to)]
            .copy_from_slice(&self.bytes[place(self.at, from)..place(self.at, to)]);
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
        return Err(Mp4Problem::BoxTooLarge { size: wanted }.into());
    }
    let mut data = vec![0; usize::try_from(wanted).unwrap_or(usize::MAX)];
    file.read_exact_at(&mut data, needed.position)?;
    Ok(data)
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
