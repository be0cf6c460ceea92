//! Reads codec headers bit by bit (H.264 clause 7.2 and 9.1, AV1 clause 4.10).

/// Takes bits from the start of some bytes, the most significant first. Every read gives `None` at the end.
#[derive(Clone, Debug)]
pub struct BitReader<'a> {
    bytes: &'a [u8],
    /// The next bit, counted from the first one.
    at: usize,
}

impl<'a> BitReader<'a> {
    /// A reader at the first bit.
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0 }
    }

    /// One bit.
    pub fn flag(&mut self) -> Option<bool> {
        let byte = *self.bytes.get(self.at / 8)?;
        let bit = byte >> (7 - self.at % 8) & 1;
        self.at += 1;
        Some(bit == 1)
    }

    /// An unsigned number of `count` bits, at most 32: `u(n)`, `f(n)`.
    pub fn bits(&mut self, count: u32) -> Option<u32> {
        debug_assert!(count <= 32);
        (0..count).try_fold(0, |value, _| Some(value << 1 | u32::from(self.flag()?)))
    }

    /// How many bits have been taken.
    pub fn position(&self) -> usize {
        self.at
    }

    /// Skips `count` bits.
    pub fn skip(&mut self, count: usize) -> Option<()> {
        self.at = self.at.checked_add(count)?;
        (self.at <= self.bytes.len() * 8).then_some(())
    }

    /// Exp-Golomb, `ue(v)` (H.264 clause 9.1): at most 32 bits after the prefix.
    pub fn ue(&mut self) -> Option<u32> {
        let mut zeros = 0;
        while !self.flag()? {
            zeros += 1;
            if zeros > 31 {
                return None;
            }
        }
        Some((1 << zeros) - 1 + self.bits(zeros)?)
    }

    /// Signed Exp-Golomb, `se(v)` (H.264 clause 9.1.1).
    pub fn se(&mut self) -> Option<i64> {
        let code = i64::from(self.ue()?);
        Some(if code % 2 == 0 { -(code / 2) } else { code / 2 + 1 })
    }
}

/// The raw bytes of a NAL unit, without the emulation prevention bytes (H.264 clause 7.4.1); at most `max`
/// bytes, since only the beginning is needed.
pub fn unescape(nal: &[u8], max: usize) -> Vec<u8> {
    let mut raw = Vec::with_capacity(nal.len().min(max));
    let mut zeros = 0;
    for &byte in nal {
        if raw.len() == max {
            break;
        }
        if zeros >= 2 && byte == 3 {
            zeros = 0;
            continue;
        }
        zeros = if byte == 0 { zeros + 1 } else { 0 };
        raw.push(byte);
    }
    raw
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_as_the_standard_codes_them() {
        // 1 010 011 00100 00101 | 1
        let mut bits = BitReader::new(&[0b1010_0110, 0b0100_0010, 0b1100_0000]);
        assert_eq!([bits.ue(), bits.ue(), bits.ue()], [Some(0), Some(1), Some(2)]);
        assert_eq!([bits.se(), bits.se()], [Some(2), Some(-2)]);
        assert_eq!(bits.flag(), Some(true));
        assert_eq!(bits.bits(7), None);
        assert_eq!(BitReader::new(&[0; 8]).ue(), None);
        assert_eq!(BitReader::new(&[0; 2]).skip(17), None);
    }

    #[test]
    fn emulation_prevention_is_removed() {
        assert_eq!(unescape(&[1, 0, 0, 3, 1, 0, 0, 3], 100), [1, 0, 0, 1, 0, 0]);
        assert_eq!(unescape(&[0, 0, 0, 3, 0, 0, 3, 3], 100), [0, 0, 0, 0, 0, 3]);
        assert_eq!(unescape(&[1; 10], 4), [1; 4]);
    }
}
