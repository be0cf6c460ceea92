//! MPEG audio (MP1, MP2, MP3): the header of a frame (ISO/IEC 11172-3, 2.4.2.3, and 13818-3).

use bytes::Bytes;

use super::track::{Audio, AudioCodec};

/// The track described by the header of `frame`. `None`: no frame begins here.
pub fn parse_frame(frame: &[u8]) -> Option<Audio> {
    let &[0xff, kind, rate, mode, ..] = frame else { return None };
    if kind & 0xe0 != 0xe0 {
        return None;
    }
    let (version, layer) = (kind >> 3 & 3, 4 - (kind >> 1 & 3));
    let halvings = match version {
        3 => 0,
        2 => 1,
        0 => 2,
        _ => return None,
    };
    if layer == 4 || rate >> 4 == 15 {
        return None;
    }
    let sample_rate = [44_100, 48_000, 32_000].get(usize::from(rate >> 2 & 3))? >> halvings;
    let samples = match layer {
        1 => 384,
        3 if halvings > 0 => 576,
        _ => 1152,
    };
    Some(Audio {
        codec: AudioCodec::Mpeg,
        record: Bytes::new(),
        sample_rate,
        channels: if mode >> 6 == 3 { 1 } else { 2 },
        frame: samples,
        codecs: if halvings == 0 { "mp4a.6b" } else { "mp4a.69" }.to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames() {
        let says = |frame: &[u8]| parse_frame(frame).map(|a| (a.sample_rate, a.channels, a.frame, a.codecs));
        assert_eq!(says(&[0xff, 0xfb, 0x90, 0x64]), Some((44_100, 2, 1152, "mp4a.6b".into())));
        assert_eq!(says(&[0xff, 0xf3, 0x44, 0xc4]), Some((24_000, 1, 576, "mp4a.69".into())));
        assert_eq!(says(&[0xff, 0xfd, 0x94, 0]), Some((48_000, 2, 1152, "mp4a.6b".into())));
        for bad in
            [&[0xff, 0xfb, 0x90][..], &[0xff, 0xeb, 0x90, 0], &[0xff, 0xf9, 0x90, 0], &[0xff, 0xfb, 0xf0, 0]]
        {
            assert_eq!(says(bad), None, "{bad:02x?}");
        }
        assert_eq!(says(&[0xff, 0xfb, 0x9c, 0]), None, "a reserved rate");
    }
}
