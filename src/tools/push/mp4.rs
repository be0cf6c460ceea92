//! MP4, whole or fragmented, as FLV tags: AVC and AAC as FLV has always carried them, the others by FourCC
//! (Enhanced RTMP v2, `ExVideoTagHeader` and `ExAudioTagHeader`).
//!
//! Edit lists shift a track (ISO/IEC 14496-12, 8.6.6): empty edits at its start and the media time of its first
//! edit; further edits are not looked at. Tracks beyond the first of each kind and codecs that FLV has no name
//! for are left out.

use std::collections::VecDeque;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::time::Duration;

use bytes::Bytes;
use shiguredo_mp4::boxes::{DopsBox, MoovBox, SampleEntry, StblBox};
use shiguredo_mp4::demux::{
    DemuxError, Fmp4FileDemuxer, Input, Mp4FileDemuxer, Mp4FileKind, Mp4FileKindDetector, RequiredInput,
    Sample,
};
use shiguredo_mp4::{Decode, Encode, TrackKind};

use super::source::SourceError;
use crate::media::amf0::{self, Value};
use crate::media::flv::FileHeader;
use crate::media::tag::{Class, TAG_BODY_MAX, Tag, TagKind};

/// The largest piece of a file that is read at once: a table of samples of a day is far below.
const PIECE_MAX: u64 = 1 << 30;
/// Tags that are read ahead for the first sample of each track.
const AHEAD_MAX: usize = 1000;
/// Tags among which they are put in order of time.
const REORDER: usize = 32;
/// Bytes of a box's header in front of a configuration record.
const BOX_HEADER: usize = 8;
/// MPEG-1 and MPEG-2 audio layer 3 in `esds` (ISO/IEC 14496-1, table 5).
const OBJECT_TYPES_MP3: [u8; 2] = [0x69, 0x6b];

/// An MP4 file, tag after tag.
pub struct Mp4 {
    file: File,
    len: u64,
    demuxer: Demuxer,
    tracks: Vec<Track>,
    /// What is added to all times, in milliseconds, so that none is negative.
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

/// A track that is pushed.
#[derive(Clone, Debug)]
struct Track {
    id: u32,
    kind: TagKind,
    timescale: i64,
    /// What its edit list adds to its times, in its own units.
    shift: i64,
    length: u64,
    codec: Option<Codec>,
}

impl Track {
    /// A time in its own units as milliseconds. A file may claim any time; sums of these do not overflow.
    fn millis(&self, units: i64) -> i64 {
        let millis = (i128::from(units) * 1000).div_euclid(i128::from(self.timescale));
        i64::try_from(millis).unwrap_or(i64::MAX * units.signum()).clamp(i64::MIN / 4, i64::MAX / 4)
    }
}

/// How a track's samples are written.
#[derive(Clone, Debug, PartialEq)]
struct Codec {
    /// In front of a sample: key and other frames; the first byte of sound is the same for both.
    front: [Vec<u8>; 2],
    /// Whether a composition time follows.
    composition: bool,
    /// The sequence header's body, where there is one.
    header: Option<Vec<u8>>,
    /// What `onMetaData` calls it.
    id: f64,
    size: Option<(u16, u16)>,
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
        // Edit lists shift tracks against each other: what comes later may belong in front.
        while self.ahead.len() < REORDER {
            let Some(found) = self.next_sample()? else { break };
            self.take(found)?;
        }
        Ok(self.ahead.pop_front())
    }

    /// Finds the tracks, and reads ahead until the codec of each is known: `onMetaData` names them.
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
        // Players want to know of all tracks before the first frame of any.
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

    /// The `moov` box: the demuxer keeps the edit lists to itself.
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
                        "its tables claim more samples than there can be".to_owned(),
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

impl Codec {
    fn of(entry: &SampleEntry) -> Option<Self> {
        let boxed = |record: &dyn EncodeBox| record.contents();
        match entry {
            SampleEntry::Avc1(avc) => {
                let front = [vec![0x17, 1], vec![0x27, 1]];
                let header = [&[0x17, 0, 0, 0, 0][..], &boxed(&avc.avcc_box)?].concat();
                let size = Some((avc.visual.width, avc.visual.height));
                Some(Self { front, composition: true, header: Some(header), id: 7.0, size })
            }
            SampleEntry::Hvc1(hevc) => {
                let size = (hevc.visual.width, hevc.visual.height);
                Some(Self::video(b"hvc1", boxed(&hevc.hvcc_box)?, true, size))
            }
            SampleEntry::Hev1(hevc) => {
                let size = (hevc.visual.width, hevc.visual.height);
                Some(Self::video(b"hvc1", boxed(&hevc.hvcc_box)?, true, size))
            }
            SampleEntry::Av01(av1) => {
                let size = (av1.visual.width, av1.visual.height);
                Some(Self::video(b"av01", boxed(&av1.av1c_box)?, false, size))
            }
            SampleEntry::Vp09(vp9) => {
                let size = (vp9.visual.width, vp9.visual.height);
                Some(Self::video(b"vp09", boxed(&vp9.vpcc_box)?, false, size))
            }
            SampleEntry::Vp08(vp8) => {
                let size = (vp8.visual.width, vp8.visual.height);
                Some(Self::video(b"vp08", boxed(&vp8.vpcc_box)?, false, size))
            }
            SampleEntry::Mp4a(aac) => {
                let config = &aac.esds_box.es.dec_config_descr;
                if OBJECT_TYPES_MP3.contains(&config.object_type_indication) {
                    let front = [vec![0x2f], vec![0x2f]];
                    return Some(Self { front, composition: false, header: None, id: 2.0, size: None });
                }
                let specific = &config.dec_specific_info.as_ref()?.payload;
                let header = [&[0xaf, 0][..], specific].concat();
                let front = [vec![0xaf, 1], vec![0xaf, 1]];
                Some(Self { front, composition: false, header: Some(header), id: 10.0, size: None })
            }
            SampleEntry::Opus(opus) => Some(Self::audio(b"Opus", &opus_head(&opus.dops_box))),
            // Behind the box's version and flags stand the metadata blocks; FLAC's own marker goes in front.
            SampleEntry::Flac(flac) => {
                Some(Self::audio(b"fLaC", &[&b"fLaC"[..], boxed(&flac.dfla_box)?.get(4..)?].concat()))
            }
            // Subtitles, and what nobody knows.
            _ => None,
        }
    }

    fn video(four_cc: &[u8; 4], record: Vec<u8>, composition: bool, (width, height): (u16, u16)) -> Self {
        // IsExHeader, frame type (1 key, 2 inter), packet type (0 sequence start, 1 coded frames).
        let front = |first: u8| [&[first][..], four_cc].concat();
        let header = Some([front(0x90), record].concat());
        let id = f64::from(u32::from_be_bytes(*four_cc));
        Self { front: [front(0x91), front(0xa1)], composition, header, id, size: Some((width, height)) }
    }

    fn audio(four_cc: &[u8; 4], record: &[u8]) -> Self {
        let front = |first: u8| [&[first][..], four_cc].concat();
        let header = Some([&front(0x90)[..], record].concat());
        let id = f64::from(u32::from_be_bytes(*four_cc));
        Self { front: [front(0x91), front(0x91)], composition: false, header, id, size: None }
    }
}

/// A box's bytes without its header.
trait EncodeBox {
    fn contents(&self) -> Option<Vec<u8>>;
}

impl<T: Encode> EncodeBox for T {
    fn contents(&self) -> Option<Vec<u8>> {
        Some(self.encode_to_vec().ok()?.get(BOX_HEADER..)?.to_vec())
    }
}

/// The identification header of RFC 7845, 5.1, which Enhanced RTMP wants: little-endian, where MP4 is not.
fn opus_head(config: &DopsBox) -> Vec<u8> {
    let mut head = b"OpusHead\x01".to_vec();
    head.push(config.output_channel_count);
    head.extend(config.pre_skip.to_le_bytes());
    head.extend(config.input_sample_rate.to_le_bytes());
    head.extend(config.output_gain.to_le_bytes());
    head.push(0);
    head
}

/// Whether the sums of a table's counts are numbers that the demuxer can add up.
fn are_countable(table: &StblBox) -> bool {
    let times = table.stts_box.entries.iter();
    let length = times.clone().try_fold(0u64, |sum, entry| {
        sum.checked_add(u64::from(entry.sample_delta) * u64::from(entry.sample_count))
    });
    let samples = times.map(|entry| u64::from(entry.sample_count)).sum::<u64>();
    let compositions = table.ctts_box.iter().flat_map(|ctts| &ctts.entries);
    let composed = compositions.map(|entry| u64::from(entry.sample_count)).sum::<u64>();
    length.is_some() && samples.max(composed) < u64::from(u32::MAX)
}

/// What a track's edit list adds to its times.
fn edit_shift(moov: &MoovBox, track: u32, timescale: i64) -> i64 {
    let mut traks = moov.trak_boxes.iter();
    let trak = traks.find(|trak| trak.tkhd_box.track_id == track);
    let edits = trak.and_then(|trak| trak.edts_box.as_ref()?.elst_box.as_ref());
    let mut shift = 0;
    for edit in edits.map_or(&[][..], |list| &list.entries) {
        if edit.media_time >= 0 {
            return i64::saturating_sub(shift, edit.media_time);
        }
        let pause = i64::try_from(edit.edit_duration).unwrap_or(0).saturating_mul(timescale);
        shift = shift.saturating_add(pause / i64::from(moov.mvhd_box.timescale.get()));
    }
    shift
}

/// Puts a tag behind those that are not later.
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
    fn opus_heads_are_little_endian() {
        let config =
            DopsBox { output_channel_count: 2, pre_skip: 312, input_sample_rate: 48_000, output_gain: -256 };
        assert_eq!(opus_head(&config), b"OpusHead\x01\x02\x38\x01\x80\xbb\0\0\x00\xff\0");
    }

    #[test]
    fn any_time_that_a_file_claims_is_a_number_of_milliseconds() {
        let track = |timescale| Track {
            id: 1,
            kind: TagKind::Video,
            timescale,
            shift: i64::MIN,
            length: 0,
            codec: None,
        };
        assert_eq!(
            [-1, 0, 45_000, 90_001].map(|units| track(90_000).millis(units)),
            [-1, 0, 500, 1000],
            "rounded down"
        );
        let far = track(1).millis(i64::MAX);
        assert_eq!((far, track(1).millis(i64::MIN)), (i64::MAX / 4, i64::MIN / 4));
        assert_eq!(track(i64::from(u32::MAX)).millis(i64::MAX), 2_147_483_648_499);
    }

    #[test]
    fn tables_that_claim_more_than_there_can_be_are_refused() {
        use shiguredo_mp4::boxes::{StcoBox, StscBox, StsdBox, StszBox, SttsBox, SttsEntry};
        let table = |entries: &[(u32, u32)]| {
            let entry = |&(sample_count, sample_delta)| SttsEntry { sample_count, sample_delta };
            StblBox {
                stsd_box: StsdBox { entries: Vec::new() },
                stts_box: SttsBox { entries: entries.iter().map(entry).collect() },
                ctts_box: None,
                cslg_box: None,
                stsc_box: StscBox { entries: Vec::new() },
                stsz_box: StszBox::Variable { entry_sizes: Vec::new() },
                stco_or_co64_box: shiguredo_mp4::Either::A(StcoBox { chunk_offsets: Vec::new() }),
                stss_box: None,
                sdtp_box: None,
                unknown_boxes: Vec::new(),
            }
        };
        assert!(are_countable(&table(&[(1000, 3600), (u32::MAX / 2, 1)])));
        assert!(!are_countable(&table(&[(u32::MAX, 1), (1, 1)])));
        assert!(!are_countable(&table(&[(u32::MAX, u32::MAX); 2])), "their times do not fit either");
    }

    #[test]
    fn what_is_no_mp4_is_an_error() {
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
