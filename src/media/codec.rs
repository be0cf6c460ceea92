//! What a stream's headers say of its codecs, for listings.

use super::amf0::{self, Value};
use super::tag::TagKind;

/// The codec that a sequence header (or any frame) of `kind` is for; `None` if it is not known here.
pub fn name(kind: TagKind, body: &[u8]) -> Option<&'static str> {
    let first = *body.first()?;
    match kind {
        TagKind::Script => None,
        TagKind::Video if first & 0x80 != 0 => four_cc(body.get(1..5)?),
        TagKind::Video => match first & 0x0f {
            2 => Some("h263"),
            3 => Some("screen"),
            4 | 5 => Some("vp6"),
            7 => Some("h264"),
            12 => Some("h265"),
            _ => None,
        },
        TagKind::Audio if first >> 4 == 9 => four_cc(body.get(1..5)?),
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

fn four_cc(code: &[u8]) -> Option<&'static str> {
    Some(match code {
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

/// Width and height as `onMetaData` gives them.
pub fn size(metadata: &[u8]) -> Option<(u32, u32)> {
    let values = amf0::decode_all(metadata, &amf0::Limits::default()).ok()?;
    let object = values.get(1)?;
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "checked to be small")]
    let number = |name| {
        let value = object.get(name).and_then(Value::as_number)?;
        (1.0..=65_536.0).contains(&value).then_some(value as u32)
    };
    Some((number("width")?, number("height")?))
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
        assert_eq!(name(TagKind::Video, b"\x90hv"), None);
        assert_eq!(name(TagKind::Video, b""), None);
    }

    #[test]
    fn size_from_metadata() {
        let property = |name: &str, value| (name.to_owned(), Value::Number(value));
        let object = Value::Object(vec![property("width", 640.0), property("height", 360.0)]);
        let body = amf0::encode(&[Value::String("onMetaData".into()), object]);
        assert_eq!(size(&body), Some((640, 360)));
        let odd = Value::Object(vec![property("width", f64::NAN), property("height", 360.0)]);
        assert_eq!(size(&amf0::encode(&[Value::String("onMetaData".into()), odd])), None);
        assert_eq!(size(b"\x02"), None);
    }
}
