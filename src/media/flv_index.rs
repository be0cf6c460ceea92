//! The front of a recorded FLV file: its header and `onMetaData` with duration, size and a keyframe index.
//!
//! The values are known only at the end, so space is reserved at the front and overwritten in place. If a take
//! has more keyframes than fit, the index contains every second one, or every fourth, …

use super::amf0::{self, Limits, Value};
use super::flv::FileHeader;
use super::tag::{Class, TAG_HEADER, TAG_TRAILER, Tag, TagKind};

/// Bytes reserved for `onMetaData`, as a whole tag.
const RESERVED: usize = 32 << 10;
/// Bytes before the first tag of the stream.
pub const FRONT: u64 = (13 + RESERVED) as u64;
/// The most bytes of it that the publisher's metadata may take.
const OWN_MAX: usize = 4 << 10;
/// Keyframes in an index: each takes two numbers of nine bytes.
const KEYFRAMES_MAX: usize = (RESERVED - OWN_MAX - 1024) / 18;

/// A frame lasts no longer than this, in milliseconds; pictures that are [`RARE`] apart are rare.
const FRAME_MAX: u64 = 30_000;
const RARE: u64 = 1_000;

/// What the tags of a file say about it.
#[derive(Clone, Debug)]
pub struct FlvIndex {
    /// Properties of the publisher's metadata.
    own: Vec<(String, Value)>,
    tracks: FileHeader,
    /// Time in milliseconds and offset.
    keyframes: Vec<(u64, u64)>,
    /// Every `stride`th keyframe is kept; `seen` came.
    stride: u64,
    seen: u64,
    /// The time of the newest keyframe.
    newest_key: Option<u64>,
    /// Time of the last frame of sound and of pictures, and its distance from the one before.
    last: [Option<(u64, u64)>; 2],
}

impl Default for FlvIndex {
    fn default() -> Self {
        Self {
            own: Vec::new(),
            tracks: FileHeader { audio: false, video: false },
            keyframes: Vec::new(),
            stride: 1,
            seen: 0,
            newest_key: None,
            last: [None; 2],
        }
    }
}

impl FlvIndex {
    /// Takes the properties of the publisher's `onMetaData`, except those that are measured here.
    pub fn metadata(&mut self, body: &[u8]) {
        let Ok(values) = amf0::decode_all(body, &Limits::default()) else { return };
        let Some(Value::Object(properties) | Value::EcmaArray(properties)) = values.into_iter().nth(1) else {
            return;
        };
        let found_out =
            ["duration", "filesize", "keyframes", "filler", "hasKeyframes", "hasVideo", "hasAudio"];
        let mut space = OWN_MAX;
        let plain = |value: &Value| matches!(value, Value::Number(_) | Value::Boolean(_) | Value::String(_));
        let fits = |(name, value): &(String, Value)| {
            let len = name.len() + 2 + amf0::encode(std::slice::from_ref(value)).len();
            let fits = plain(value) && !found_out.contains(&name.as_str()) && len <= space;
            space -= if fits { len } else { 0 };
            fits
        };
        self.own = properties.into_iter().filter(fits).collect();
    }

    /// Counts a tag of the file: its time in milliseconds from the file's first, and its offset.
    pub fn tag(&mut self, kind: TagKind, class: Class, time: u64, at: u64) {
        let slot = match kind {
            TagKind::Script => return,
            TagKind::Audio => 0,
            TagKind::Video => 1,
        };
        if !matches!(class, Class::KeyFrame | Class::InterFrame | Class::Sound) {
            return;
        }
        self.tracks.video |= kind == TagKind::Video;
        self.tracks.audio |= kind == TagKind::Audio;
        let distance = match self.last[slot] {
            Some((last, distance)) if time <= last || time - last > FRAME_MAX => distance,
            Some((last, _)) => time - last,
            None => 0,
        };
        self.last[slot] = Some((time, distance));
        // Slices and the other tracks' keyframes of the same time are in the same place for a player.
        if class == Class::KeyFrame && self.newest_key.is_none_or(|newest| newest != time) {
            self.newest_key = Some(time);
            if self.seen.is_multiple_of(self.stride) {
                assert!(at > self.end(), "keyframes stand one after the other");
                self.keyframes.push((time, at));
            }
            self.seen += 1;
            if self.keyframes.len() > KEYFRAMES_MAX {
                let mut keep = [true, false].into_iter().cycle();
                self.keyframes.retain(|_| keep.next().unwrap_or(true));
                self.stride *= 2;
            }
        }
    }

    /// Where the newest keyframe stands that is in the index; 0: there is none.
    pub fn end(&self) -> u64 {
        self.keyframes.last().map_or(0, |(_, at)| *at)
    }

    /// The file was cut to `len` bytes.
    pub fn truncate(&mut self, len: u64) {
        self.keyframes.retain(|(_, at)| *at < len);
    }

    /// Time of the end of the last frame, in milliseconds.
    pub fn duration(&self) -> u64 {
        let end = |slot: usize| self.last[slot].map(|(time, distance)| time + distance);
        match (end(0), self.last[1]) {
            // A rare picture ends with the sound.
            (Some(sound), Some((time, distance))) if distance >= RARE => sound.max(time),
            (sound, _) => sound.max(end(1)).unwrap_or(0),
        }
    }

    /// The first [`FRONT`] bytes of the file. `len`: its length when it is finished; until then the front has
    /// no length, duration or index.
    #[expect(clippy::cast_precision_loss, reason = "AMF0 has no other numbers")]
    pub fn front(&self, len: Option<u64>) -> Vec<u8> {
        let number = |value: u64| Value::Number(value as f64);
        let seconds = |millis: u64| Value::Number(millis as f64 / 1000.0);
        let named = |name: &str, value| (name.to_owned(), value);
        let done = len.is_some();
        // Until the tracks are known, players should rely on the tags, not on a header that may be wrong.
        let tracks = if done { self.tracks } else { FileHeader { audio: true, video: true } };
        let mut properties = self.own.clone();
        properties.push(named("duration", seconds(if done { self.duration() } else { 0 })));
        properties.push(named("filesize", number(len.unwrap_or(0))));
        if done {
            properties.push(named("hasVideo", Value::Boolean(self.tracks.video)));
            properties.push(named("hasAudio", Value::Boolean(self.tracks.audio)));
            properties.push(named("hasKeyframes", Value::Boolean(!self.keyframes.is_empty())));
        }
        if done && !self.keyframes.is_empty() {
            let times = self.keyframes.iter().map(|(time, _)| seconds(*time)).collect();
            let places = self.keyframes.iter().map(|(_, at)| number(*at)).collect();
            let lists = vec![
                named("times", Value::StrictArray(times)),
                named("filepositions", Value::StrictArray(places)),
            ];
            properties.push(named("keyframes", Value::Object(lists)));
        }
        let body = |properties: Vec<(String, Value)>| {
            amf0::encode(&[Value::String("onMetaData".to_owned()), Value::EcmaArray(properties)])
        };
        let mut padded = properties.clone();
        padded.push(named("filler", Value::StrictArray(Vec::new())));
        let spare = (RESERVED - TAG_HEADER - TAG_TRAILER).checked_sub(body(padded).len());
        properties.push(named("filler", filler(spare.expect("the index is bounded"))));
        let mut out = tracks.encode().to_vec();
        Tag { kind: TagKind::Script, timestamp: 0, body: body(properties).into() }.write_to(&mut out);
        assert_eq!(out.len() as u64, FRONT, "the front fills the reserved space exactly");
        out
    }

    /// Whether the front of a file says that it was finished with this length.
    pub fn is_finished(front: &[u8], len: u64) -> bool {
        let Some(body) = front.get(13 + TAG_HEADER..) else { return false };
        let limits = Limits::default();
        let Ok((_, name)) = amf0::decode(body, &limits) else { return false };
        let Ok((values, _)) = amf0::decode(&body[name..], &limits) else { return false };
        #[expect(clippy::cast_precision_loss, reason = "compared as it was written")]
        let same = values.get("filesize").and_then(Value::as_number) == Some(len as f64);
        same
    }
}

/// An array whose elements take `space` bytes: short strings, since some readers do not accept long ones.
fn filler(mut space: usize) -> Value {
    /// Bytes of a string's marker and length.
    const HEAD: usize = 3;
    const LONGEST: usize = 1000;
    let mut pieces = Vec::with_capacity(space / LONGEST + 2);
    while space >= HEAD {
        let mut piece = space.min(LONGEST);
        if (1..HEAD).contains(&(space - piece)) {
            piece -= HEAD;
        }
        pieces.push(Value::String(" ".repeat(piece - HEAD)));
        space -= piece;
    }
    Value::StrictArray(pieces)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pictures_in_several_tags_and_rare_ones() {
        let mut index = FlvIndex::default();
        for n in 0..40 {
            // Four slices each.
            index.tag(TagKind::Video, Class::KeyFrame, n / 4 * 5_000, FRONT + n * 1000);
        }
        assert_eq!((index.keyframes.len(), index.duration()), (10, 50_000));
        assert!(index.keyframes.iter().all(|(_, at)| (at - FRONT).is_multiple_of(4000)));
        index.tag(TagKind::Audio, Class::Sound, 46_000, FRONT);
        index.tag(TagKind::Audio, Class::Sound, 46_020, FRONT);
        assert_eq!(index.duration(), 46_040, "with sound the last picture does not last on");
    }
    use crate::media::flv::{FlvItem, FlvReader};

    fn read(front: &[u8]) -> (FileHeader, Value) {
        let mut reader = FlvReader::new(1 << 20);
        reader.push(front);
        let Ok(Some(FlvItem::Header(header))) = reader.next_item() else { panic!("no header") };
        let Ok(Some(FlvItem::Tag(tag))) = reader.next_item() else { panic!("no tag") };
        let values = amf0::decode_all(&tag.body, &Limits::default()).unwrap();
        (header, values[1].clone())
    }

    #[test]
    fn the_front_has_the_measured_values() {
        let mut index = FlvIndex::default();
        let own = Value::Object(vec![
            ("width".to_owned(), Value::Number(640.0)),
            ("duration".to_owned(), Value::Number(7.0)),
            ("endless".to_owned(), Value::String("x".repeat(10_000))),
            ("encoder".to_owned(), Value::String("e".to_owned())),
        ]);
        index.metadata(&amf0::encode(&[Value::String("onMetaData".into()), own]));
        for n in 0..100u64 {
            let class = if n % 50 == 0 { Class::KeyFrame } else { Class::InterFrame };
            index.tag(TagKind::Video, class, n * 40, FRONT + n * 1000);
        }
        let (_, early) = read(&index.front(None));
        assert_eq!(early.get("duration").and_then(Value::as_number), Some(0.0));
        let front = index.front(Some(140_000));
        assert!(FlvIndex::is_finished(&front, 140_000) && !FlvIndex::is_finished(&front, 140_001));
        assert!(!FlvIndex::is_finished(&index.front(None), 140_000));
        let (header, values) = read(&front);
        assert_eq!(header, FileHeader { audio: false, video: true });
        assert_eq!(values.get("duration").and_then(Value::as_number), Some(4.0));
        assert_eq!(values.get("width").and_then(Value::as_number), Some(640.0));
        assert!(values.get("encoder").is_some() && values.get("endless").is_none());
        let keyframes = values.get("keyframes").unwrap();
        let times = Value::StrictArray(vec![Value::Number(0.0), Value::Number(2.0)]);
        assert_eq!(keyframes.get("times"), Some(&times));
    }

    #[test]
    fn an_index_of_any_length_fits() {
        for count in [0, 1, KEYFRAMES_MAX, KEYFRAMES_MAX + 1, 100_000] {
            let mut index = FlvIndex::default();
            for n in 0..count as u64 {
                index.tag(TagKind::Video, Class::KeyFrame, n * 2000, FRONT + n * 1000);
            }
            assert!(
                index.keyframes.len() <= KEYFRAMES_MAX
                    && index.keyframes.len() * 2 + 1 >= count.min(KEYFRAMES_MAX)
            );
            let gaps = index.keyframes.windows(2).map(|pair| pair[1].0 - pair[0].0);
            assert!(gaps.collect::<std::collections::BTreeSet<_>>().len() <= 1, "evenly thinned");
            assert_eq!(index.front(Some(1 << 40)).len() as u64, FRONT);
        }
    }
}
