//! AV1: the codec configuration record, and the fields of a sequence header that a container needs.

use bytes::Bytes;

use super::bits::BitReader;
use super::track::{Video, VideoCodec};

/// `obu_type` of a sequence header (AV1, 6.2.2).
const OBU_SEQUENCE_HEADER: u8 = 1;
/// A temporal delimiter as an OBU of its own: MP4 samples omit it.
const TEMPORAL_DELIMITER: &[u8] = &[0x12, 0];

/// Reads an `AV1CodecConfigurationRecord` (AV1-ISOBMFF, 2.3.3). `None`: it is not one, or it contains no
/// readable sequence header.
pub fn parse_config(record: &Bytes) -> Option<Video> {
    let &[0x81, levels, flags, _, ref obus @ ..] = &record[..] else { return None };
    let (width, height) = parse_sequence_header(sequence_header(obus)?)?;
    let tier = if flags & 0x80 == 0 { 'M' } else { 'H' };
    let depth = match flags >> 5 & 3 {
        0 | 1 => 8,
        2 => 10,
        _ => 12,
    };
    Some(Video {
        codec: VideoCodec::Av1,
        record: record.clone(),
        width,
        height,
        codecs: format!("av01.{}.{:02}{tier}.{depth:02}", levels >> 5, levels & 0x1f),
        length_size: 0,
        parameter_sets: Vec::new(),
    })
}

/// A frame without a temporal delimiter before it, which some encoders leave there.
pub fn without_delimiter(frame: &[u8]) -> &[u8] {
    frame.strip_prefix(TEMPORAL_DELIMITER).unwrap_or(frame)
}

/// The payload of the first sequence header among some OBUs (AV1, 5.3).
fn sequence_header(mut obus: &[u8]) -> Option<&[u8]> {
    loop {
        let (header, rest) = obus.split_first()?;
        let rest = if header & 4 == 0 { rest } else { rest.get(1..)? };
        let (len, rest) = if header & 2 == 0 { (rest.len(), rest) } else { leb128(rest)? };
        let (payload, rest) = rest.split_at_checked(len)?;
        if header >> 3 & 15 == OBU_SEQUENCE_HEADER {
            return Some(payload);
        }
        obus = rest;
    }
}

/// A length of up to eight bytes, seven bits each (AV1, 4.10.5), and the bytes after it.
fn leb128(bytes: &[u8]) -> Option<(usize, &[u8])> {
    let mut value = 0u64;
    for (at, byte) in bytes.iter().take(8).enumerate() {
        value |= u64::from(byte & 0x7f) << (7 * at);
        if byte & 0x80 == 0 {
            return Some((usize::try_from(value).ok()?, &bytes[at + 1..]));
        }
    }
    None
}

/// Width and height in pixels from a sequence header (AV1, 5.5.1).
fn parse_sequence_header(payload: &[u8]) -> Option<(u16, u16)> {
    let mut bits = BitReader::new(payload);
    bits.skip(4)?; // seq_profile, still_picture
    if bits.flag()? {
        bits.skip(5)?; // reduced_still_picture_header: seq_level_idx
    } else {
        skip_operating_points(&mut bits)?;
    }
    let (width_bits, height_bits) = (bits.bits(4)? + 1, bits.bits(4)? + 1);
    let (width, height) = (bits.bits(width_bits)? + 1, bits.bits(height_bits)? + 1);
    Some((u16::try_from(width).ok()?, u16::try_from(height).ok()?))
}

fn skip_operating_points(bits: &mut BitReader<'_>) -> Option<()> {
    let mut delay_bits = None;
    if bits.flag()? {
        bits.skip(64)?; // num_units_in_display_tick, time_scale
        if bits.flag()? {
            bits.ue()?; // num_ticks_per_picture_minus_1, uvlc is written as ue(v) is
        }
        if bits.flag()? {
            delay_bits = Some(bits.bits(5)? + 1);
            bits.skip(32 + 5 + 5)?;
        }
    }
    let display_delay = bits.flag()?;
    for _ in 0..=bits.bits(5)? {
        bits.skip(12)?; // operating_point_idc
        if bits.bits(5)? > 7 {
            bits.skip(1)?; // seq_tier
        }
        if let Some(delay_bits) = delay_bits
            && bits.flag()?
        {
            bits.skip(2 * delay_bits as usize + 1)?;
        }
        if display_delay && bits.flag()? {
            bits.skip(4)?;
        }
    }
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_of_libaom() {
        // 320x180, main profile, level 2.0, 8 bits.
        let record = [129, 0, 12, 0, 10, 11, 0, 0, 0, 4, 60, 254, 204, 218, 249, 0, 64];
        let video = parse_config(&Bytes::copy_from_slice(&record));
        assert!(video.is_some_and(
            |video| video.codecs == "av01.0.00M.08" && (video.width, video.height) == (320, 180)
        ));
        for len in 0..record.len() - 4 {
            assert_eq!(parse_config(&Bytes::copy_from_slice(&record[..len])), None, "{len}");
        }
    }

    #[test]
    fn delimiters_go() {
        assert_eq!(without_delimiter(&[0x12, 0, 0x32, 1, 2]), [0x32, 1, 2]);
        assert_eq!(without_delimiter(&[0x32, 1, 2]), [0x32, 1, 2]);
    }
}
