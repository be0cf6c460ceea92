//! Opus: the identification header, and the duration of a packet (RFC 7845, RFC 6716).

use bytes::{BufMut, Bytes, BytesMut};

use super::track::{Audio, AudioCodec};

/// Units per second of all times in Opus.
pub const RATE: u32 = 48_000;

/// Reads an `OpusHead` (RFC 7845, 5.1); the record becomes the body of `dOps` (Opus in ISOBMFF, 4.3.2). An
/// empty header means stereo. `None`: it is truncated.
pub fn parse_config(head: &Bytes) -> Option<Audio> {
    let head = if head.is_empty() { &b"OpusHead\x01\x02\x38\x01\x80\xbb\0\0\0\0\0"[..] } else { &head[..] };
    let &[version, channels, skip0, skip1, r0, r1, r2, r3, gain0, gain1, family, ref mapping @ ..] =
        head.strip_prefix(b"OpusHead")?
    else {
        return None;
    };
    if version & 0xf0 != 0 || channels == 0 {
        return None;
    }
    let mut record = BytesMut::with_capacity(11 + mapping.len());
    record.put_slice(&[0, channels, skip1, skip0, r3, r2, r1, r0, gain1, gain0, family]);
    if family != 0 {
        record.put_slice(mapping.get(..2 + usize::from(channels))?);
    }
    Some(Audio {
        codec: AudioCodec::Opus,
        record: record.freeze(),
        sample_rate: RATE,
        channels,
        frame: 0,
        codecs: "opus".to_owned(),
    })
}

/// Duration of a packet in samples at [`RATE`] (RFC 6716, 3.1 and 3.2); 0 if it cannot be read.
pub fn duration(packet: &[u8]) -> u32 {
    let Some(&toc) = packet.first() else { return 0 };
    let frame = match toc >> 3 {
        config @ 0..12 => [480, 960, 1920, 2880][usize::from(config & 3)],
        config @ 12..16 => [480, 960][usize::from(config & 1)],
        config => [120, 240, 480, 960][usize::from(config & 3)],
    };
    let count = match toc & 3 {
        0 => 1,
        1 | 2 => 2,
        _ => packet.get(1).map_or(0, |count| u32::from(count & 0x3f)),
    };
    frame * count
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn heads() {
        let head = Bytes::from_static(b"OpusHead\x01\x01\x38\x01\x44\xac\0\0\xff\xfe\0");
        let audio = parse_config(&head).unwrap();
        assert_eq!((audio.channels, audio.sample_rate), (1, RATE));
        assert_eq!(audio.record[..], [0, 1, 1, 0x38, 0, 0, 0xac, 0x44, 0xfe, 0xff, 0]);
        for len in 1..head.len() {
            assert_eq!(parse_config(&head.slice(..len)), None);
        }
        assert_eq!(parse_config(&Bytes::new()).unwrap().channels, 2);
        let surround = Bytes::from_static(b"OpusHead\x01\x03\0\0\0\0\0\0\0\0\x01\x02\x01\x00\x01\x02");
        assert_eq!(parse_config(&surround).unwrap().record.len(), 16);
        assert_eq!(parse_config(&surround.slice(..surround.len() - 1)), None);
    }

    #[test]
    fn durations() {
        assert_eq!(duration(&[0xfc]), 960, "CELT, 20 ms");
        assert_eq!(duration(&[0x1b, 2]), 2 * 2880);
        assert_eq!(duration(&[0x61]), 2 * 480);
        assert_eq!(duration(&[]), 0);
    }
}
