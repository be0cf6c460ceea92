//! H.265: the decoder configuration record, and the fields of a sequence parameter set that a container needs.

use std::fmt::Write;

use bytes::Bytes;

use super::bits::{BitReader, unescape};
use super::h264::cropped;
use super::nal::take_counted;
use super::track::{Video, VideoCodec};

/// `nal_unit_type` of a video parameter set (H.265 table 7-1).
pub const NAL_VPS: u8 = 32;
/// `nal_unit_type` of a sequence parameter set.
pub const NAL_SPS: u8 = 33;
/// `nal_unit_type` of a picture parameter set.
pub const NAL_PPS: u8 = 34;
/// `nal_unit_type` of an access unit delimiter.
pub const NAL_AUD: u8 = 35;
/// Bytes of a parameter set that are read at most.
const SPS_MAX: usize = 1024;

/// The type of a NAL unit.
pub fn unit_type(nal: &[u8]) -> u8 {
    nal.first().map_or(0, |byte| byte >> 1 & 0x3f)
}

/// Reads an `HEVCDecoderConfigurationRecord` (ISO/IEC 14496-15, 8.3.3.1). `None`: it is not one, or it contains
/// no readable sequence parameter set.
pub fn parse_config(record: &Bytes) -> Option<Video> {
    let (head, mut rest) = record.split_first_chunk::<23>()?;
    // Early encoders wrote version 0 for the same layout.
    if head[0] > 1 {
        return None;
    }
    let mut sets: [Vec<Bytes>; 3] = Default::default();
    for _ in 0..head[22] {
        let (array, tail) = rest.split_first_chunk::<3>()?;
        rest = tail;
        for _ in 0..u16::from_be_bytes([array[1], array[2]]) {
            let unit = record.slice_ref(take_counted(&mut rest)?);
            match array[0] & 0x3f {
                NAL_VPS => sets[0].push(unit),
                NAL_SPS => sets[1].push(unit),
                NAL_PPS => sets[2].push(unit),
                _ => {}
            }
        }
    }
    let (width, height) = parse_sps(sets[1].first()?)?;
    Some(Video {
        codec: VideoCodec::H265,
        record: record.clone(),
        width,
        height,
        codecs: codecs(head),
        length_size: (head[21] & 3) + 1,
        parameter_sets: sets.concat(),
    })
}

/// The codec string of ISO/IEC 14496-15, E.3: profile, compatibility, tier and level, constraints.
fn codecs(head: &[u8; 23]) -> String {
    let space = ["", "A", "B", "C"][usize::from(head[1] >> 6)];
    let tier = if head[1] & 0x20 == 0 { 'L' } else { 'H' };
    let compatibility = u32::from_be_bytes([head[2], head[3], head[4], head[5]]).reverse_bits();
    let mut text = format!("hvc1.{space}{}.{compatibility:X}.{tier}{}", head[1] & 0x1f, head[12]);
    let used = head[6..12].iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
    for byte in &head[6..6 + used] {
        let _ = write!(text, ".{byte:X}");
    }
    text
}

/// Width and height in pixels from a sequence parameter set (H.265, 7.3.2.2.1).
fn parse_sps(nal: &[u8]) -> Option<(u16, u16)> {
    if unit_type(nal) != NAL_SPS {
        return None;
    }
    let raw = unescape(nal.get(2..)?, SPS_MAX);
    let mut bits = BitReader::new(&raw);
    bits.skip(4)?; // sps_video_parameter_set_id
    let sub_layers = bits.bits(3)?;
    bits.skip(1)?; // sps_temporal_id_nesting_flag
    skip_profile_tier_level(&mut bits, sub_layers)?;
    bits.ue()?; // sps_seq_parameter_set_id
    let chroma_format = bits.ue()?;
    if chroma_format == 3 {
        bits.skip(1)?; // separate_colour_plane_flag
    }
    let (width, height) = (bits.ue()?, bits.ue()?);
    let mut window = [0; 4];
    if bits.flag()? {
        for edge in &mut window {
            *edge = bits.ue()?;
        }
    }
    let (unit_x, unit_y) = match chroma_format {
        1 => (2, 2),
        2 => (2, 1),
        _ => (1, 1),
    };
    let [left, right, top, bottom] = window;
    Some((cropped(width, left, right, unit_x)?, cropped(height, top, bottom, unit_y)?))
}

/// `profile_tier_level(1, sub_layers)` (H.265, 7.3.3).
fn skip_profile_tier_level(bits: &mut BitReader<'_>, sub_layers: u32) -> Option<()> {
    bits.skip(96)?;
    let mut lengths = 0;
    for _ in 0..sub_layers {
        lengths += if bits.flag()? { 88 } else { 0 };
        lengths += if bits.flag()? { 8 } else { 0 };
    }
    if sub_layers > 0 {
        bits.skip(2 * (8 - sub_layers as usize))?;
    }
    bits.skip(lengths)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_of_a_codec() {
        let mut head = [0; 23];
        head[..13].copy_from_slice(&[1, 1, 0x60, 0, 0, 0, 0x90, 0, 0, 0, 0, 0, 93]);
        assert_eq!(codecs(&head), "hvc1.1.6.L93.90");
        head[1] = 0x22;
        head[6] = 0;
        assert_eq!(codecs(&head), "hvc1.2.6.H93");
    }

    #[test]
    fn a_sequence_parameter_set_of_x265() {
        // 320x180 in a coded size of 320x184, main profile, level 2.
        let sps = [
            66, 1, 1, 1, 96, 0, 0, 3, 0, 144, 0, 0, 3, 0, 0, 3, 0, 60, 160, 10, 8, 11, 159, 121, 101, 102,
            146, 76, 175, 1, 104, 8, 0, 0, 3, 0, 8, 0, 0, 3, 0, 200, 64,
        ];
        assert_eq!(parse_sps(&sps), Some((320, 180)));
        for len in 0..16 {
            assert_eq!(parse_sps(&sps[..len]), None, "{len}");
        }
    }
}
