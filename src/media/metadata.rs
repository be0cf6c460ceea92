//! `onMetaData` of a file, made fit for a live stream.

use super::amf0::{self, Limits, Value};

/// What describes a whole file: its length in seconds and bytes, and where its keyframes stand. In a live stream it
/// is another file's, and players show a length or seek by it. (FLV 10.1, E.5; the others are what FLV tools
/// write.)
const OF_A_FILE: [&[u8]; 11] = [
    b"duration",
    b"filesize",
    b"keyframes",
    b"hasKeyframes",
    b"canSeekToEnd",
    b"lasttimestamp",
    b"lastkeyframetimestamp",
    b"lastkeyframelocation",
    b"datasize",
    b"videosize",
    b"audiosize",
];
/// AMF0 markers of the two kinds of objects with names, and of their end.
const OBJECT: u8 = 3;
const ECMA_ARRAY: u8 = 8;
const OBJECT_END: &[u8] = &[0, 0, 9];

/// The body of `onMetaData` without what describes a file. All else stays as it is, byte by byte. `None`: nothing
/// has to go, or it cannot be read.
pub fn for_live(body: &[u8]) -> Option<Vec<u8>> {
    let limits = Limits::default();
    let (_name, front) = amf0::decode(body, &limits).ok()?;
    let (&marker, rest) = body.get(front..)?.split_first()?;
    let announced = match marker {
        OBJECT => None,
        ECMA_ARRAY => Some(u32::from_be_bytes(*rest.first_chunk()?)),
        _ => return None,
    };
    let mut at = front + 1 + if announced.is_some() { 4 } else { 0 };
    let (mut kept, mut removed) = (Vec::with_capacity(body.len()), 0u32);
    while !body.get(at..)?.starts_with(OBJECT_END) && at < body.len() {
        let (name, after) = body[at..].split_first_chunk::<2>()?;
        let len = usize::from(u16::from_be_bytes(*name));
        let name = after.get(..len)?;
        let (value, size) = amf0::decode(&after[len..], &limits).ok()?;
        let end = at + 2 + len + size;
        if OF_A_FILE.contains(&name) && says_something(&value) {
            removed += 1;
        } else {
            kept.extend_from_slice(&body[at..end]);
        }
        at = end;
    }
    if removed == 0 {
        return None;
    }
    let mut out = body[..=front].to_vec();
    if let Some(announced) = announced {
        out.extend_from_slice(&announced.saturating_sub(removed).to_be_bytes());
    }
    out.extend_from_slice(&kept);
    out.extend_from_slice(&body[at..]);
    Some(out)
}

/// Live encoders write a duration and a size of 0.
fn says_something(value: &Value) -> bool {
    !matches!(value, Value::Number(0.0) | Value::Boolean(false) | Value::Null | Value::Undefined)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn metadata(of: fn(Vec<(String, Value)>) -> Value, names: &[(&str, Value)]) -> Vec<u8> {
        let properties = names.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect();
        amf0::encode(&["onMetaData".into(), of(properties)])
    }

    #[test]
    fn what_describes_a_file_goes_and_all_else_stays() {
        let index =
            Value::Object(vec![("times".to_owned(), Value::StrictArray(vec![0.0.into(), 2.0.into()]))]);
        let (width, encoder) = (("width", Value::Number(640.0)), ("encoder", Value::from("x")));
        let whole = [
            ("duration", Value::Number(10.0)),
            width.clone(),
            ("keyframes", index),
            ("hasKeyframes", Value::Boolean(true)),
            encoder.clone(),
            ("filesize", Value::Number(1234.0)),
        ];
        for of in [Value::Object, Value::EcmaArray] {
            let live = for_live(&metadata(of, &whole)).unwrap();
            assert_eq!(live, metadata(of, &[width.clone(), encoder.clone()]));
            assert_eq!(for_live(&live), None, "nothing is left to go");
        }
    }

    #[test]
    fn live_metadata_stays_as_it_is() {
        let live = [("duration", Value::Number(0.0)), ("filesize", Value::Number(0.0))];
        assert_eq!(for_live(&metadata(Value::EcmaArray, &live)), None);
        let whole = metadata(Value::EcmaArray, &[("duration", Value::Number(10.0))]);
        for len in 0..whole.len() - 3 {
            assert_eq!(for_live(&whole[..len]), None, "{len}");
        }
        // An array without its end marker.
        assert!(for_live(&whole[..whole.len() - 3]).is_some());
    }
}
