//! What is known of a publisher's tracks: which tags begin frames, how long frames last, which track is the first.

use bytes::Bytes;

use super::headers::Topic;
use super::timeline::{StreamTime, Unit};
use crate::media::packet::{self, Part};
use crate::media::picture::{Pictures, Place};
use crate::media::remux::is_readable;
use crate::media::tag::{Class, Tag, TagKind};
use crate::media::{aac, codec, mpeg_audio, opus};

/// Viewers start at another track's keyframes once the first one has had no frame for so long.
const FIRST_PATIENCE: StreamTime = 10_000;

/// The tracks of one publisher.
#[derive(Debug, Default)]
pub(super) struct Content {
    pictures: Vec<(u8, Pictures)>,
    sounds: Vec<(u8, Sound)>,
    /// Topics of which a readable header came, with its codec.
    readable: Vec<(Topic, [u8; 4])>,
    /// The first video track, and when its newest frame came.
    first: Option<(u8, StreamTime)>,
    /// A keyframe has begun with the newest picture of the first track.
    in_key: bool,
    /// How long a picture lasts by the metadata, in microseconds.
    picture: Option<u32>,
}

/// An audio track.
#[derive(Debug, Default)]
struct Sound {
    /// AAC: its configuration.
    record: Bytes,
    /// How long a frame lasts in microseconds.
    duration: Option<u32>,
}

/// A tag as the stream sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Frame {
    /// What its time depends on.
    pub(super) unit: Unit,
    /// What it means to a log: a keyframe only if viewers start there.
    pub(super) class: Class,
}

impl Content {
    /// Takes a header. `false`: it cannot be read, and does not replace the one before, which can.
    pub(super) fn header(&mut self, class: Class, tag: &Tag) -> bool {
        match class {
            Class::Metadata => {
                let rate = codec::facts(&tag.body).frame_rate;
                self.picture = rate.map(|rate| 1_000_000_000 / rate);
                true
            }
            Class::SequenceHeader => self.config(tag),
            _ => true,
        }
    }

    fn config(&mut self, tag: &Tag) -> bool {
        let Some(parts) = packet::parts(tag.kind, &tag.body) else { return false };
        let topic = Topic::of(tag.kind, &tag.body);
        let code = parts.clone().next().map_or([0; 4], |part| part.code);
        // An empty Opus header means stereo.
        let is_empty = |part: &Part<'_>| part.payload.is_empty() && part.code != *b"Opus";
        let is_good = parts.clone().all(|part| is_readable(tag.kind, &part) == Some(true));
        let known = self.readable.iter_mut().find(|(known, _)| *known == topic);
        match known {
            Some((_, before)) if *before == code && !is_good => return false,
            _ if parts.clone().any(|part| is_empty(&part)) => return false,
            Some((_, before)) => *before = code,
            None if is_good => self.readable.push((topic, code)),
            None => {}
        }
        for part in parts {
            match tag.kind {
                TagKind::Video => entry(&mut self.pictures, part.track).configure(part.code, part.payload),
                _ => *entry(&mut self.sounds, part.track) = Sound::of_config(&part),
            }
        }
        true
    }

    /// Takes a tag that is no header; `now` is the newest time of the stream. `None`: it is no frame, and nothing
    /// that viewers need.
    pub(super) fn frame(&mut self, class: Class, tag: &Tag, now: StreamTime) -> Option<Frame> {
        let plain = Unit::new(tag.kind);
        if tag.kind == TagKind::Script || !class.is_media() {
            return Some(Frame { unit: Unit { passive: true, ..plain }, class });
        }
        let first = packet::parts(tag.kind, &tag.body).and_then(|parts| parts.min_by_key(|part| part.track));
        let Some(part) = first else { return Some(Frame { unit: plain, class }) };
        match tag.kind {
            TagKind::Video => Some(self.picture(class, &part, now)),
            _ => self.sound(&part).map(|duration| {
                let unit = Unit { track: part.track, duration, ..plain };
                Frame { unit, class }
            }),
        }
    }

    fn picture(&mut self, class: Class, part: &Part<'_>, now: StreamTime) -> Frame {
        let pictures = entry(&mut self.pictures, part.track);
        let leads = pictures.is_leading();
        let place = pictures.place(part.payload);
        let continues = leads || place == Place::Continues;
        let unit = Unit { track: part.track, continues, duration: self.picture, ..Unit::new(TagKind::Video) };
        let first = match self.first {
            Some((first, at)) if part.track > first && now - at < FIRST_PATIENCE => first,
            _ => part.track,
        };
        if part.track != first {
            return Frame { unit, class: Class::Other };
        }
        self.first = Some((first, now));
        // Viewers start at the beginning of a picture: its parameter sets, or its first slice.
        let is_key = class == Class::KeyFrame;
        let starts = is_key && place != Place::Continues && !(continues && self.in_key);
        self.in_key = starts || (continues && self.in_key);
        Frame { unit, class: if is_key && !starts { Class::InterFrame } else { class } }
    }

    /// How long a frame of sound lasts. Outer `None`: it is the configuration sent as a frame, as some encoders do.
    #[expect(clippy::option_option, reason = "a frame of unknown duration is not no frame")]
    fn sound(&mut self, part: &Part<'_>) -> Option<Option<u32>> {
        let sound = entry(&mut self.sounds, part.track);
        match &part.code {
            b"mp4a" if !sound.record.is_empty() && sound.record == part.payload => return None,
            b"Opus" => return Some(Some(micros(opus::duration(part.payload), opus::RATE))),
            b".mp3" if sound.duration.is_none() => {
                let track = mpeg_audio::parse_frame(part.payload);
                sound.duration = track.map(|track| micros(track.frame, track.sample_rate));
            }
            _ => {}
        }
        Some(sound.duration)
    }
}

impl Sound {
    fn of_config(part: &Part<'_>) -> Self {
        if part.code != *b"mp4a" {
            return Self::default();
        }
        let record = Bytes::copy_from_slice(part.payload);
        let duration = aac::parse_config(&record).map(|audio| micros(audio.frame, audio.sample_rate));
        Self { record, duration }
    }
}

/// The entry of a track; there are no more than 256.
fn entry<T: Default>(list: &mut Vec<(u8, T)>, track: u8) -> &mut T {
    let at = list.iter().position(|(known, _)| *known == track).unwrap_or_else(|| {
        list.push((track, T::default()));
        list.len() - 1
    });
    &mut list[at].1
}

/// Samples as microseconds.
fn micros(samples: u32, rate: u32) -> u32 {
    u32::try_from(u64::from(samples) * 1_000_000 / u64::from(rate.max(1))).unwrap_or(u32::MAX).max(1)
}
