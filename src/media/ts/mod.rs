//! MPEG transport stream (ISO/IEC 13818-1), as HLS requires it: one program, tables at the start of each
//! segment, and only the elementary streams that exist are declared.
//!
//! H.264, H.265, AAC and MPEG audio; other tracks are left out ([`supported`]).

mod packet;
mod pid;
mod psi;

use std::sync::Arc;

use super::aac::{self, Adts};
use super::nal::{NalError, Units};
use super::picture::Place;
use super::remux::Sample;
use super::sample_clock::SampleClock;
use super::segmenter::{Muxer, Opening};
use super::track::{Audio, AudioCodec, Tracks, Video, VideoCodec};
use super::{h264, h265, opus};
use packet::{Packets, Stamp};
use pid::{PID_AUDIO, PID_MAP, PID_VIDEO};

pub use packet::PACKET;

/// `stream_id` of the first video and audio stream (13818-1, table 2-22).
const ID_VIDEO: u8 = 0xe0;
const ID_AUDIO: u8 = 0xc0;
/// Ticks of 90 kHz in a millisecond.
const TICKS: i64 = 90;
/// The stream's first time, in ticks: above zero, so that a picture shown before it was decoded has a valid
/// time as well.
const BASE: i64 = 90_000;
/// How long before its decoding time a frame reaches the decoder, in ticks.
const DELAY: i64 = 45_000;
/// Frames of sound are gathered up to this many bytes or ticks, since each PES packet costs a header and
/// stuffing.
const AUDIO_BYTES: usize = 2_800;
const AUDIO_TICKS: i64 = 20_000;
/// The clock is sent at least this often, in ticks (13818-1, 2.7.2), unless the stream itself pauses for
/// longer.
const CLOCK_TICKS: i64 = 9_000;
const PAUSE: i64 = 900_000;
/// A picture is whole once sound is this much further, in ticks.
const SLICES_TICKS: i64 = 3_600;

/// The tracks of a stream that a transport stream can carry.
pub fn supported(tracks: &Tracks) -> Tracks {
    let video = |video: &&Arc<Video>| matches!(video.codec, VideoCodec::H264 | VideoCodec::H265);
    let audio = |audio: &&Arc<Audio>| match audio.codec {
        AudioCodec::Aac => Adts::new(&audio.record).is_some(),
        AudioCodec::Mpeg => true,
        AudioCodec::Opus => false,
    };
    Tracks {
        video: tracks.video.as_ref().filter(video).cloned(),
        audio: tracks.audio.as_ref().filter(audio).cloned(),
    }
}

/// Writes the segments of a stream, one after the other, to [`out`](Self::out).
#[derive(Debug, Default)]
pub struct TsMuxer {
    packets: Packets,
    /// Output that was not taken yet.
    pub out: Vec<u8>,
    tracks: Tracks,
    /// The stream time, in milliseconds, that becomes [`BASE`].
    origin: Option<i64>,
    version: u8,
    /// The last clock value sent, in ticks.
    clock: Option<i64>,
    /// How far sound was ahead of the last picture, in ticks: the clock taken from sound is set back by this.
    lead: i64,
    sound: Option<Sound>,
    picture: Picture,
    /// Frames that could not be written.
    pub broken: u64,
}

/// The newest picture, which waits for the rest of its slices. Times in milliseconds.
#[derive(Debug, Default)]
struct Picture {
    dts: i64,
    cts: i32,
    key: bool,
    /// As a byte stream; empty: none waits.
    data: Vec<u8>,
}

/// Frames of sound that wait for their PES packet.
#[derive(Debug)]
struct Sound {
    clock: SampleClock,
    rate: i64,
    frame: u32,
    adts: Option<Adts>,
    /// In ticks: times of the first and the last waiting frame.
    first: i64,
    last: i64,
    data: Vec<u8>,
}

impl Sound {
    fn new(audio: &Audio) -> Self {
        Self {
            clock: SampleClock::new(audio.sample_rate),
            rate: i64::from(audio.sample_rate),
            frame: audio.frame,
            adts: if audio.codec == AudioCodec::Aac { Adts::new(&audio.record) } else { None },
            first: 0,
            last: 0,
            data: Vec::new(),
        }
    }
}

impl TsMuxer {
    fn ticks(&self, millis: i64) -> i64 {
        (millis - self.origin.unwrap_or(0)) * TICKS + BASE
    }

    fn video(&mut self, video: &Video, sample: &Sample<'_>) -> Result<(), NalError> {
        if sample.place == Place::Continues && !self.picture.data.is_empty() {
            return put_units(video, sample.data, &mut self.picture.data);
        }
        self.flush_picture();
        let picture = &mut self.picture;
        (picture.dts, picture.cts, picture.key) = (sample.dts, sample.cts, sample.key);
        annex_b(video, sample, &mut picture.data).inspect_err(|_| picture.data.clear())
    }

    fn flush_picture(&mut self) {
        if self.picture.data.is_empty() {
            return;
        }
        let mut picture = std::mem::take(&mut self.picture);
        let dts = self.ticks(picture.dts);
        let pts = dts + i64::from(picture.cts) * TICKS;
        self.lead = self.sound.as_ref().map_or(0, |sound| (sound.last - dts).max(0));
        let clock = self.tell_clock(PID_VIDEO, dts - DELAY);
        let stamp = Stamp { pts, dts: Some(dts), clock, random_access: picture.key };
        self.packets.pes(PID_VIDEO, ID_VIDEO, stamp, &picture.data, &mut self.out);
        picture.data.clear();
        self.picture = picture;
    }

    /// The clock value `now`, for a packet that is about to be written; `None`: a later one was sent already.
    /// If none was sent for too long, packets with nothing but the clock are written before it.
    fn tell_clock(&mut self, pid: u16, now: i64) -> Option<i64> {
        if let Some(mut last) = self.clock {
            if now <= last {
                return None;
            }
            while now - last < PAUSE && now - last > CLOCK_TICKS {
                last += CLOCK_TICKS;
                self.packets.clock(pid, last, &mut self.out);
            }
        }
        self.clock = Some(now);
        self.clock
    }

    fn sound(&mut self, sample: &Sample<'_>) {
        let base = self.ticks(0);
        let Some(sound) = &mut self.sound else { return };
        let program = sound.adts.as_ref().map_or(0, |adts| adts.program().len());
        if sound.adts.is_some() && program + sample.data.len() > aac::ADTS_FRAME_MAX {
            self.broken += 1;
            return;
        }
        let frame = if sound.frame == 0 { opus::duration(sample.data) } else { sound.frame };
        let time = base + sound.clock.stamp(sample.dts, frame) * 90_000 / sound.rate;
        // No slice comes that late, and the picture must not.
        let waits = time - (self.picture.dts * TICKS + base) > SLICES_TICKS;
        if waits && !self.picture.data.is_empty() {
            self.flush_picture();
        }
        let Some(sound) = &mut self.sound else { return };
        let length = i64::from(frame) * 90_000 / sound.rate;
        let clock_due = self.clock.is_none_or(|clock| clock < sound.first - DELAY);
        let longest = if clock_due { CLOCK_TICKS } else { AUDIO_TICKS };
        let full =
            sound.data.len() + sample.data.len() > AUDIO_BYTES || time + length - sound.first > longest;
        // After a gap a new time stamp is needed.
        let gap = time - sound.last > 2 * length;
        if !sound.data.is_empty() && (full || gap) {
            self.flush_sound();
        }
        let Some(sound) = &mut self.sound else { return };
        let is_first = sound.data.is_empty();
        if is_first {
            sound.first = time;
        }
        sound.last = time;
        if let Some(adts) = &sound.adts {
            // Players start at any packet.
            let program = if is_first { adts.program() } else { &[] };
            sound.data.extend_from_slice(&adts.header(program.len() + sample.data.len()));
            sound.data.extend_from_slice(program);
        }
        sound.data.extend_from_slice(sample.data);
    }

    fn flush_sound(&mut self) {
        let waits = self.sound.as_ref().filter(|sound| !sound.data.is_empty());
        let Some(pts) = waits.map(|sound| sound.first) else { return };
        let alone = self.tracks.video.is_none();
        let now = pts - DELAY - if alone { 0 } else { self.lead };
        let clock = if alone { self.tell_clock(PID_AUDIO, now) } else { None };
        // Pictures are rare: sound sends their clock.
        if !alone && self.clock.is_some_and(|last| now - last > CLOCK_TICKS / 2) {
            self.tell_clock(PID_VIDEO, now);
            self.packets.clock(PID_VIDEO, now, &mut self.out);
        }
        let stamp = Stamp { pts, dts: None, clock, random_access: alone };
        let Some(sound) = &mut self.sound else { return };
        self.packets.pes(PID_AUDIO, ID_AUDIO, stamp, &sound.data, &mut self.out);
        sound.data.clear();
    }
}

impl Muxer for TsMuxer {
    fn open(&mut self, opening: &Opening) {
        self.origin.get_or_insert(opening.start);
        if opening.fresh {
            self.version = (self.version + 1) & 31;
            self.tracks = opening.tracks.clone();
            self.sound = self.tracks.audio.as_deref().map(Sound::new);
            self.clock = None;
        }
        let streams = psi::streams(&self.tracks);
        self.packets.section(0, &psi::association(PID_MAP), &mut self.out);
        let clock = if self.tracks.video.is_some() { PID_VIDEO } else { PID_AUDIO };
        self.packets.section(PID_MAP, &psi::map(self.version, clock, &streams), &mut self.out);
    }

    fn sample(&mut self, sample: &Sample<'_>) {
        if !sample.video {
            return self.sound(sample);
        }
        let Some(video) = self.tracks.video.clone() else { return };
        if self.video(&video, sample).is_err() {
            self.broken += 1;
        }
    }

    fn close(&mut self, _end: i64) {
        self.flush_picture();
        self.flush_sound();
    }
}

/// A frame as a byte stream (H.264 and H.265, annex B): a delimiter first, and parameter sets before each
/// keyframe that does not contain its own.
fn annex_b(video: &Video, sample: &Sample<'_>, out: &mut Vec<u8>) -> Result<(), NalError> {
    type UnitType = fn(&[u8]) -> u8;
    let (delimiter, aud, sps, unit_type): (&[u8], u8, u8, UnitType) = match video.codec {
        VideoCodec::H265 => (&[0x46, 1, 0x50], h265::NAL_AUD, h265::NAL_SPS, h265::unit_type),
        _ => (&[9, 0xf0], h264::NAL_AUD, h264::NAL_SPS, h264::unit_type),
    };
    let mut has_sets = false;
    for unit in Units::new(sample.data, video.length_size) {
        has_sets |= unit_type(unit?) == sps;
    }
    put_unit(delimiter, out);
    if sample.key && !has_sets {
        video.parameter_sets.iter().for_each(|set| put_unit(set, out));
    }
    for unit in Units::new(sample.data, video.length_size).flatten() {
        if unit_type(unit) != aud {
            put_unit(unit, out);
        }
    }
    Ok(())
}

/// More units of a picture; nothing of them if one is broken.
fn put_units(video: &Video, data: &[u8], out: &mut Vec<u8>) -> Result<(), NalError> {
    Units::new(data, video.length_size).try_for_each(|unit| unit.map(drop))?;
    Units::new(data, video.length_size).flatten().for_each(|unit| put_unit(unit, out));
    Ok(())
}

fn put_unit(unit: &[u8], out: &mut Vec<u8>) {
    out.extend_from_slice(&[0, 0, 0, 1]);
    out.extend_from_slice(unit);
}

#[cfg(test)]
mod tests;
