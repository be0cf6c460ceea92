//! What a stream's headers say of its codecs, for listings.

use super::amf0::{self, Value};
use super::packet;
use super::tag::TagKind;

/// The codec of a sequence header (or any frame) of `kind`; `None` if it is not known here.
pub fn name(kind: TagKind, body: &[u8]) -> Option<&'static str> {
    let first = *body.first()?;
    match kind {
        TagKind::Script => None,
        TagKind::Video if first & 0x80 != 0 => first_four_cc(kind, body),
        TagKind::Video => match first & 0x0f {
            2 => Some("h263"),
            3 => Some("screen"),
            4 | 5 => Some("vp6"),
            7 => Some("h264"),
            12 => Some("h265"),
            _ => None,
        },
        TagKind::Audio if first >> 4 == 9 => first_four_cc(kind, body),
        TagKind::Audio => match first >> 4 {
            0 | 3 => Some("pcm"),
            1 => Some("adpcm"),
            2 | 14 => Some("mp3"),
            4..=6 => Some("nellymoser"),
            7 => Some("g711a"),
            8 => Some("g711u"),
            10 => Some("aac"),
            11 => Some("speex"),
            _ => None,
        },
    }
}

fn first_four_cc(kind: TagKind, body: &[u8]) -> Option<&'static str> {
    four_cc(packet::parts(kind, body)?.next()?.code)
}

/// The codec with a FourCC of Enhanced RTMP.
pub(super) fn four_cc(code: [u8; 4]) -> Option<&'static str> {
    Some(match &code {
        b"avc1" => "h264",
        b"hvc1" => "h265",
        b"av01" => "av1",
        b"vp09" => "vp9",
        b"vp08" => "vp8",
        b"mp4a" => "aac",
        b"Opus" => "opus",
        b"fLaC" => "flac",
        b"ac-3" => "ac3",
        b"ec-3" => "eac3",
        b".mp3" => "mp3",
        _ => return None,
    })
}

/// What `onMetaData` says of a stream.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Facts {
    /// Width and height.
    pub size: Option<(u32, u32)>,
    /// Pictures are promised.
    pub video: bool,
    /// Sound is promised.
    pub audio: bool,
    /// Pictures in a thousand seconds.
    pub frame_rate: Option<u32>,
}

/// Reads the body of `onMetaData`; values that are missing or of the wrong type are left out.
pub fn facts(metadata: &[u8]) -> Facts {
    let Ok(values) = amf0::decode_all(metadata, &amf0::Limits::default()) else { return Facts::default() };
    let Some(object) = values.get(1) else { return Facts::default() };
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "checked to be small")]
    let number = |name| {
        let value = object.get(name).and_then(Value::as_number)?;
        (1.0..=65_536.0).contains(&value).then_some(value as u32)
    };
    let rate =
        object.get("framerate").and_then(Value::as_number).filter(|rate| (0.01..=1_000.0).contains(rate));
    let promised = |has, codec| match (object.get(has), object.get(codec)) {
        (Some(Value::Boolean(has)), _) => *has,
        // A number, or a FourCC as text; codec 0 is a real one.
        (_, Some(Value::Number(_))) => true,
        (_, Some(text)) => text.as_str().is_some_and(|text| !text.is_empty()),
        _ => false,
    };
    Facts {
        size: number("width").zip(number("height")),
        video: promised("hasVideo", "videocodecid"),
        audio: promised("hasAudio", "audiocodecid"),
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "checked to be small")]
        frame_rate: rate.map(|rate| (rate * 1000.0) as u32),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codecs() {
        assert_eq!(name(TagKind::Video, &[0x17, 0]), Some("h264"));
        assert_eq!(name(TagKind::Video, b"\x90hvc1"), Some("h265"));
        assert_eq!(name(TagKind::Audio, &[0xaf, 0]), Some("aac"));
        assert_eq!(name(TagKind::Audio, b"\x90Opus"), Some("opus"));
        assert_eq!(name(TagKind::Video, b"\x96\0av01\x01"), Some("av1"), "one of several tracks");
        assert_eq!(name(TagKind::Video, b"\x90hv"), None);
        assert_eq!(name(TagKind::Video, b""), None);
    }

    fn metadata(properties: &[(&str, Value)]) -> Vec<u8> {
        let properties = properties.iter().map(|(name, value)| ((*name).to_owned(), value.clone()));
        amf0::encode(&["onMetaData".into(), Value::EcmaArray(properties.collect())])
    }

    #[test]
    fn facts_of_metadata() {
        let size = [("width", Value::Number(640.0)), ("height", Value::Number(360.0))];
        assert_eq!(facts(&metadata(&size)), Facts { size: Some((640, 360)), ..Facts::default() });
        let odd = [("width", Value::Number(f64::NAN)), ("height", Value::Number(360.0))];
        assert_eq!(facts(&metadata(&odd)), Facts::default());
        assert_eq!(facts(b"\x02"), Facts::default());
        let both = |video: Value, audio: Value| {
            let facts = facts(&metadata(&[("videocodecid", video), ("audiocodecid", audio)]));
            (facts.video, facts.audio)
        };
        assert_eq!(both(7.0.into(), 10.0.into()), (true, true));
        assert_eq!(both("hvc1".into(), "".into()), (true, false));
        let not = [("hasAudio", Value::Boolean(false)), ("audiocodecid", Value::Number(10.0))];
        assert!(!facts(&metadata(&not)).audio);
    }
}
