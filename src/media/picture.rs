//! Where pictures begin: some encoders send each slice, and parameter sets, in tags of their own.
//!
//! What its slices say decides whether a tag continues a picture (H.264 `first_mb_in_slice`, H.265
//! `first_slice_segment_in_pic_flag`), never its time: there are streams whose timestamps do not change.

use super::bits::BitReader;
use super::nal::Units;
use super::{h264, h265};

/// What a tag is to a picture.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Place {
    /// A picture begins with it.
    #[default]
    Begins,
    /// Parameter sets and the like without a slice: they belong to the next picture.
    Leads,
    /// It continues the picture of the tag before it.
    Continues,
}

/// Follows the pictures of one track.
#[derive(Clone, Debug, Default)]
pub struct Pictures {
    codec: Option<Codec>,
    /// A picture has begun with its first slice, so that others may continue it. (Of streams whose slices never say so,
    /// each tag is a picture.)
    begun: bool,
    /// The last tag had no slice.
    leading: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Codec {
    is_h265: bool,
    length_size: u8,
}

/// What a NAL unit says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum UnitKind {
    /// A slice; the first one of a picture or not.
    Slice { first: bool },
    /// Nothing of the picture before it comes after this.
    Before,
    /// An access unit delimiter: a picture begins even if its first slice is missing.
    Delimiter,
    /// It may belong to the picture before it.
    After,
}

impl Pictures {
    /// Takes a track's configuration record.
    pub fn configure(&mut self, code: [u8; 4], record: &[u8]) {
        let codec = match (&code, record) {
            (b"avc1", [_, _, _, _, lengths, ..]) => {
                Some(Codec { is_h265: false, length_size: (lengths & 3) + 1 })
            }
            (b"hvc1", record) => {
                record.get(21).map(|lengths| Codec { is_h265: true, length_size: (lengths & 3) + 1 })
            }
            _ => None,
        };
        if codec != self.codec {
            *self = Self { codec, ..Self::default() };
        }
    }

    /// A part of the stream is missing.
    pub fn reset(&mut self) {
        (self.begun, self.leading) = (false, false);
    }

    /// Whether the last tag had no slice, so that the next one belongs to the same picture.
    pub fn is_leading(&self) -> bool {
        self.leading
    }

    /// The place of the next tag, whose NAL units are in `payload`. Of a codec without NAL units, each tag begins
    /// a picture.
    pub fn place(&mut self, payload: &[u8]) -> Place {
        let (place, first) = self.look(payload);
        self.leading = place == Place::Leads;
        if place == Place::Begins {
            self.begun = first;
        }
        place
    }

    /// The place of a tag, and whether the first slice of a picture is in it.
    fn look(&self, payload: &[u8]) -> (Place, bool) {
        let Some(codec) = self.codec else { return (Place::Begins, false) };
        let (mut slices, mut delimiter, mut before, mut any) = (false, false, false, false);
        for unit in Units::new(payload, codec.length_size) {
            let Ok(unit) = unit else { return (Place::Begins, false) };
            any = true;
            match codec.unit(unit) {
                UnitKind::Slice { first: true } => return (Place::Begins, true),
                UnitKind::Slice { first: false } => slices = true,
                UnitKind::Delimiter => delimiter = true,
                UnitKind::Before => before = true,
                UnitKind::After => {}
            }
        }
        let place = match (slices, self.begun) {
            (true, true) if !delimiter && !self.leading => Place::Continues,
            (true, _) => Place::Begins,
            (false, true) if any && !delimiter && !before && !self.leading => Place::Continues,
            (false, _) if any => Place::Leads,
            _ => Place::Begins,
        };
        (place, false)
    }
}

impl Codec {
    fn unit(self, unit: &[u8]) -> UnitKind {
        if self.is_h265 { unit_of_h265(unit) } else { unit_of_h264(unit) }
    }
}

/// H.264, table 7-1 and 7.4.1.2.3.
fn unit_of_h264(unit: &[u8]) -> UnitKind {
    match h264::unit_type(unit) {
        1 | 2 | 5 => {
            // first_mb_in_slice: the first slice of a picture begins with macroblock 0, if slices are in order.
            let first = BitReader::new(&unit[1..]).flag().unwrap_or(true);
            UnitKind::Slice { first }
        }
        3 | 4 => UnitKind::Slice { first: false },
        h264::NAL_AUD => UnitKind::Delimiter,
        6..=8 | 13..=15 => UnitKind::Before,
        _ => UnitKind::After,
    }
}

/// H.265, table 7-1 and 7.4.2.4.4.
fn unit_of_h265(unit: &[u8]) -> UnitKind {
    match h265::unit_type(unit) {
        0..=31 => UnitKind::Slice { first: unit.get(2).is_none_or(|byte| byte & 0x80 != 0) },
        h265::NAL_AUD => UnitKind::Delimiter,
        32..=34 | 39 | 41..=44 | 48..=55 => UnitKind::Before,
        _ => UnitKind::After,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::media::h264::tests::AVCC;
    use Place::{Begins, Continues, Leads};

    /// NAL units after their lengths.
    fn frame(units: &[&[u8]]) -> Vec<u8> {
        let length = |unit: &[u8]| u32::try_from(unit.len()).unwrap().to_be_bytes();
        units.iter().flat_map(|unit| [&length(unit)[..], unit].concat()).collect()
    }

    fn places(code: [u8; 4], record: &[u8], tags: &[&[&[u8]]]) -> Vec<Place> {
        let mut pictures = Pictures::default();
        pictures.configure(code, record);
        tags.iter().map(|units| pictures.place(&frame(units))).collect()
    }

    #[test]
    fn slices_and_parameter_sets_of_h264() {
        const SPS: &[u8] = &[0x67, 77];
        const PPS: &[u8] = &[0x68, 1];
        const SEI: &[u8] = &[6, 1];
        const AUD: &[u8] = &[9, 0xf0];
        const FILLER: &[u8] = &[12, 0xff];
        const FIRST: &[u8] = &[0x65, 0x88];
        const NEXT: &[u8] = &[0x65, 0x40]; // first_mb_in_slice 1
        let tags: &[&[&[u8]]] = &[
            &[NEXT], // the picture's beginning was not seen
            &[SPS, PPS],
            &[SEI],
            &[FIRST],
            &[NEXT, NEXT],
            &[FILLER],
            &[AUD, SEI, FIRST, NEXT],
            &[AUD, NEXT],
            &[NEXT, FIRST],
            &[],
        ];
        let want = [Begins, Leads, Leads, Begins, Continues, Continues, Begins, Begins, Begins, Begins];
        assert_eq!(places(*b"avc1", AVCC, tags), want);
    }

    #[test]
    fn slices_and_parameter_sets_of_h265() {
        let mut record = vec![1; 23];
        record[21] = 3;
        const FIRST: &[u8] = &[0x26, 1, 0x80];
        const NEXT: &[u8] = &[0x26, 1, 0x10];
        let tags: &[&[&[u8]]] = &[
            &[&[0x40, 1], &[0x42, 1], &[0x44, 1]],
            &[FIRST],
            &[NEXT],
            &[&[0x50, 1]], // SEI after the slices
            &[&[0x4e, 1]], // SEI before the next ones
            &[FIRST, NEXT],
        ];
        let want = [Leads, Begins, Continues, Continues, Leads, Begins];
        assert_eq!(places(*b"hvc1", &record, tags), want);
    }

    #[test]
    fn of_other_codecs_each_tag_is_a_picture() {
        assert_eq!(places(*b"av01", AVCC, &[&[&[0x65, 0x40]], &[&[0x67]]]), [Begins, Begins]);
        let mut pictures = Pictures::default();
        pictures.configure(*b"avc1", AVCC);
        pictures.place(&frame(&[&[0x65, 0x88]]));
        assert_eq!(pictures.place(&[0, 0, 9, 9, 1]), Begins, "unreadable");
        // Slices that cannot be read, as of an encrypted stream: none says that it is the first.
        assert_eq!(places(*b"avc1", AVCC, &[&[&[0x65, 7]], &[&[0x41, 7]], &[&[0x41, 7]]]), [Begins; 3]);
    }
}
