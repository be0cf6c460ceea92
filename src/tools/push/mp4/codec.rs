//! How the samples of a codec are written in FLV tags.

use shiguredo_mp4::Encode;
use shiguredo_mp4::boxes::{DopsBox, SampleEntry};

/// Bytes of a box's header before a configuration record.
const BOX_HEADER: usize = 8;
/// MPEG-1 and MPEG-2 audio layer 3 in `esds` (ISO/IEC 14496-1, table 5).
const OBJECT_TYPES_MP3: [u8; 2] = [0x69, 0x6b];

/// How a track's samples are written.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Codec {
    /// The bytes before a sample: for key frames and for others; for sound both are the same.
    pub(super) front: [Vec<u8>; 2],
    /// Whether a composition time follows.
    pub(super) composition: bool,
    /// The sequence header's body, if there is one.
    pub(super) header: Option<Vec<u8>>,
    /// The codec's number in `onMetaData`.
    pub(super) id: f64,
    pub(super) size: Option<(u16, u16)>,
}

impl Codec {
    /// The codec in FLV; `None`: FLV has no name for it.
    pub(super) fn of(entry: &SampleEntry) -> Option<Self> {
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
            // After the box's version and flags come the metadata blocks; FLAC's own marker is put before them.
            SampleEntry::Flac(flac) => {
                Some(Self::audio(b"fLaC", &[&b"fLaC"[..], boxed(&flac.dfla_box)?.get(4..)?].concat()))
            }
            // Subtitles and unknown formats.
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

/// The identification header of RFC 7845, 5.1, as Enhanced RTMP requires it: little-endian, while MP4 is not.
fn opus_head(config: &DopsBox) -> Vec<u8> {
    let mut head = b"OpusHead\x01".to_vec();
    head.push(config.output_channel_count);
    head.extend(config.pre_skip.to_le_bytes());
    head.extend(config.input_sample_rate.to_le_bytes());
    head.extend(config.output_gain.to_le_bytes());
    head.push(0);
    head
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
}
