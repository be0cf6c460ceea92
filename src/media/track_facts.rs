//! What is known of each track of a stream, for listings.

use super::amf0::{self, Value};
use super::tag::TagKind;
use super::{codec, packet, remux};

/// Characters of a language that are listed at most.
const LANGUAGE_MAX: usize = 35;

/// One track.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TrackFacts {
    /// Pictures or sound.
    pub kind: TagKind,
    /// The publisher's number; 0 if it sends one track of a kind.
    pub number: u8,
    /// The codec, if it is known here.
    pub codec: Option<&'static str>,
    /// Width and height of pictures in pixels, by their sequence header or else by the metadata.
    pub size: Option<(u32, u32)>,
    /// The language, if the metadata tells it (BCP 47 as it came).
    pub language: Option<String>,
}

/// The tracks of a stream by its sequence headers, in the order of their numbers, pictures first; of each, the
/// newest header counts.
pub fn tracks<'a>(
    headers: impl Iterator<Item = (TagKind, &'a [u8])>,
    metadata: Option<&[u8]>,
) -> Vec<TrackFacts> {
    let values = metadata.and_then(|body| amf0::decode_all(body, &amf0::Limits::default()).ok());
    let metadata = values.as_ref().and_then(|values| values.get(1));
    let mut all: Vec<TrackFacts> = Vec::new();
    for (kind, body) in headers {
        for part in packet::parts(kind, body).into_iter().flatten() {
            let told = metadata.and_then(|metadata| told(metadata, kind, part.track));
            let size = remux::size(kind, &part).or_else(|| {
                let own = || metadata.filter(|_| kind == TagKind::Video && part.track == 0);
                told.and_then(size).or_else(|| own().and_then(size))
            });
            all.retain(|known| (known.kind, known.number) != (kind, part.track));
            let codec = codec::four_cc(part.code).or_else(|| codec::name(kind, body));
            let language = told.and_then(language);
            all.push(TrackFacts { kind, number: part.track, codec, size, language });
        }
    }
    all.sort_by_key(|track| (track.kind != TagKind::Video, track.number));
    all
}

/// What the metadata tells of a track (Enhanced RTMP v2, `videoTrackIdInfoMap` and `audioTrackIdInfoMap`).
fn told(metadata: &Value, kind: TagKind, number: u8) -> Option<&Value> {
    let map = if kind == TagKind::Video { "videoTrackIdInfoMap" } else { "audioTrackIdInfoMap" };
    metadata.get(map)?.get(&number.to_string())
}

fn size(properties: &Value) -> Option<(u32, u32)> {
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "checked to be small")]
    let number = |name| {
        let value = properties.get(name).and_then(Value::as_number)?;
        (1.0..=65_536.0).contains(&value).then_some(value as u32)
    };
    number("width").zip(number("height"))
}

fn language(properties: &Value) -> Option<String> {
    let text = properties.get("language").or_else(|| properties.get("lang"))?.as_str()?;
    let plain = text.chars().all(|char| char.is_ascii_alphanumeric() || char == '-');
    (plain && (1..=LANGUAGE_MAX).contains(&text.len())).then(|| text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::media::h264::tests::AVCC;

    #[test]
    fn tracks_of_headers_and_metadata() {
        let object = |properties: &[(&str, Value)]| {
            Value::Object(
                properties.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect(),
            )
        };
        let second = object(&[("width", 1280.0.into()), ("height", 720.0.into())]);
        let metadata = amf0::encode(&[
            "onMetaData".into(),
            object(&[
                ("width", 1920.0.into()),
                ("videoTrackIdInfoMap", object(&[("1", second)])),
                ("audioTrackIdInfoMap", object(&[("2", object(&[("language", "de-AT".into())]))])),
            ]),
        ]);
        let classic = [&[0x17, 0, 0, 0, 0][..], AVCC].concat();
        let headers: [(TagKind, &[u8]); 4] = [
            (TagKind::Audio, b"\x95\x10Opus\x00\0\0\x02\x12\x10\x02\0\0\x00"),
            (TagKind::Video, b"\x96\x00vp09\x01"),
            (TagKind::Video, &classic),
            (TagKind::Audio, &[0xaf, 0, 0x12, 0x10]),
        ];
        let list = tracks(headers.into_iter(), Some(&metadata));
        let brief: Vec<_> = list
            .iter()
            .map(|track| (track.number, track.codec.unwrap_or("-"), track.size, track.language.as_deref()))
            .collect();
        let want = [
            (0, "h264", Some((640, 360)), None),
            (1, "vp9", Some((1280, 720)), None),
            (0, "aac", None, None),
            (2, "opus", None, Some("de-AT")),
        ];
        assert_eq!(brief, want);
    }
}
