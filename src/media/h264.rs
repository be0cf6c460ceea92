//! H.264: the decoder configuration record, and the fields of a sequence parameter set that a container needs.

use bytes::Bytes;

use super::bits::{BitReader, unescape};
use super::nal::take_counted;
use super::track::{Video, VideoCodec};

/// `nal_unit_type` of an IDR slice (H.264 table 7-1).
pub const NAL_IDR: u8 = 5;
/// `nal_unit_type` of a sequence parameter set.
pub const NAL_SPS: u8 = 7;
/// `nal_unit_type` of an access unit delimiter.
pub const NAL_AUD: u8 = 9;
/// Bytes of a parameter set that are read at most.
const SPS_MAX: usize = 1024;

/// The type of a NAL unit.
pub fn unit_type(nal: &[u8]) -> u8 {
    nal.first().map_or(0, |byte| byte & 0x1f)
}

/// Reads an `AVCDecoderConfigurationRecord` (ISO/IEC 14496-15, 5.3.3.1). `None`: it is not one, or its first
/// sequence parameter set cannot be read.
pub fn parse_config(record: &Bytes) -> Option<Video> {
    let &[1, profile, compatibility, level, lengths, count, ref rest @ ..] = &record[..] else { return None };
    let mut rest = rest;
    let mut parameter_sets = Vec::new();
    for _ in 0..count & 0x1f {
        parameter_sets.push(record.slice_ref(take_counted(&mut rest)?));
    }
    let (width, height) = parse_sps(parameter_sets.first()?)?;
    let (count, tail) = rest.split_first()?;
    rest = tail;
    for _ in 0..*count {
        parameter_sets.push(record.slice_ref(take_counted(&mut rest)?));
    }
    parameter_sets.retain(|set| !set.is_empty());
    Some(Video {
        codec: VideoCodec::H264,
        record: record.clone(),
        width,
        height,
        codecs: format!("avc1.{profile:02x}{compatibility:02x}{level:02x}"),
        length_size: (lengths & 3) + 1,
        parameter_sets,
    })
}

/// Width and height in pixels from a sequence parameter set (H.264, 7.3.2.1.1).
fn parse_sps(nal: &[u8]) -> Option<(u16, u16)> {
    if unit_type(nal) != NAL_SPS {
        return None;
    }
    let raw = unescape(&nal[1..], SPS_MAX);
    let mut bits = BitReader::new(&raw);
    let profile = bits.bits(8)?;
    bits.skip(16)?; // constraint_set flags, level_idc
    bits.ue()?; // seq_parameter_set_id
    let mut chroma_format = 1;
    let mut separate_planes = false;
    if matches!(profile, 100 | 110 | 122 | 244 | 44 | 83 | 86 | 118 | 128 | 134 | 135 | 138 | 139) {
        chroma_format = bits.ue()?;
        if chroma_format == 3 {
            separate_planes = bits.flag()?;
        }
        bits.ue()?; // bit_depth_luma_minus8
        bits.ue()?; // bit_depth_chroma_minus8
        bits.skip(1)?; // qpprime_y_zero_transform_bypass_flag
        if bits.flag()? {
            skip_scaling_lists(&mut bits, if chroma_format == 3 { 12 } else { 8 })?;
        }
    }
    bits.ue()?; // log2_max_frame_num_minus4
    skip_picture_order(&mut bits)?;
    bits.ue()?; // max_num_ref_frames
    bits.skip(1)?; // gaps_in_frame_num_value_allowed_flag
    let width_in_mbs = bits.ue()?.checked_add(1)?;
    let height_in_map_units = bits.ue()?.checked_add(1)?;
    let frame_mbs_only = bits.flag()?;
    if !frame_mbs_only {
        bits.skip(1)?; // mb_adaptive_frame_field_flag
    }
    bits.skip(1)?; // direct_8x8_inference_flag
    let mut crop = [0; 4];
    if bits.flag()? {
        for edge in &mut crop {
            *edge = bits.ue()?;
        }
    }
    let fields = if frame_mbs_only { 1 } else { 2 };
    let (unit_x, unit_y) = match chroma_format {
        1 => (2, 2),
        2 => (2, 1),
        3 if !separate_planes => (1, 1),
        _ => (1, 1),
    };
    let [left, right, top, bottom] = crop;
    let width = cropped(width_in_mbs.checked_mul(16)?, left, right, unit_x)?;
    let height = cropped(height_in_map_units.checked_mul(16 * fields)?, top, bottom, unit_y * fields)?;
    Some((width, height))
}

/// A length minus what is cropped at both ends, in units of `unit`.
pub(super) fn cropped(length: u32, near: u32, far: u32, unit: u32) -> Option<u16> {
    let cut = near.checked_add(far)?.checked_mul(unit)?;
    u16::try_from(length.checked_sub(cut)?).ok().filter(|length| *length > 0)
}

/// `scaling_list` (H.264, 7.3.2.1.1.1), the first six of 16 entries, the others of 64.
fn skip_scaling_lists(bits: &mut BitReader<'_>, count: usize) -> Option<()> {
    for list in 0..count {
        if !bits.flag()? {
            continue;
        }
        let (mut last, mut next) = (8i64, 8i64);
        for _ in 0..if list < 6 { 16 } else { 64 } {
            if next != 0 {
                next = (last + bits.se()?).rem_euclid(256);
            }
            last = if next == 0 { last } else { next };
        }
    }
    Some(())
}

fn skip_picture_order(bits: &mut BitReader<'_>) -> Option<()> {
    match bits.ue()? {
        0 => {
            bits.ue()?; // log2_max_pic_order_cnt_lsb_minus4
        }
        1 => {
            bits.skip(1)?; // delta_pic_order_always_zero_flag
            bits.se()?;
            bits.se()?;
            for _ in 0..bits.ue()?.min(255) {
                bits.se()?;
            }
        }
        _ => {}
    }
    Some(())
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// x264, main profile, 640x360 (the height is cropped by 8).
    pub(crate) const AVCC: &[u8] = &[
        1, 77, 64, 30, 255, 225, 0, 24, 103, 77, 64, 30, 236, 160, 80, 23, 252, 184, 8, 128, 0, 0, 3, 0, 128,
        0, 0, 25, 7, 139, 22, 203, 1, 0, 5, 104, 235, 227, 203, 32,
    ];

    #[test]
    fn a_record_of_x264() {
        let video =
            parse_config(&Bytes::from_static(AVCC)).map(|video| (video.width, video.height, video.codecs));
        assert_eq!(video, Some((640, 360, "avc1.4d401e".to_owned())));
        let video = parse_config(&Bytes::from_static(AVCC)).unwrap();
        assert_eq!((video.length_size, video.parameter_sets.len()), (4, 2));
        assert_eq!(video.parameter_sets[1][..], [0x68, 0xeb, 0xe3, 0xcb, 0x20]);
    }

    #[test]
    fn records_cut_anywhere_are_refused_without_a_panic() {
        for len in 0..AVCC.len() {
            assert!(parse_config(&Bytes::from_static(&AVCC[..len])).is_none(), "{len}");
        }
    }
}
