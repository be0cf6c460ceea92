//! NAL units as in MP4 and FLV: each after its length (ISO/IEC 14496-15, 4.3.2).

/// What was wrong with a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a NAL unit of {announced} bytes where {left} are left")]
pub struct NalError {
    /// The announced length in bytes.
    pub announced: usize,
    /// Bytes that are left.
    pub left: usize,
}

/// The units of a frame whose lengths take `length_size` bytes (1 to 4). Empty units are skipped.
#[derive(Clone, Debug)]
pub struct Units<'a> {
    rest: &'a [u8],
    length_size: usize,
}

impl<'a> Units<'a> {
    /// The units of `frame`.
    pub fn new(frame: &'a [u8], length_size: u8) -> Self {
        debug_assert!((1..=4).contains(&length_size));
        Self { rest: frame, length_size: usize::from(length_size) }
    }
}

impl<'a> Iterator for Units<'a> {
    type Item = Result<&'a [u8], NalError>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if self.rest.is_empty() {
                return None;
            }
            let (length, rest) = self.rest.split_at(self.length_size.min(self.rest.len()));
            let announced = length.iter().fold(0, |sum, byte| sum << 8 | usize::from(*byte));
            let Some((unit, rest)) = rest.split_at_checked(announced) else {
                self.rest = &[];
                return Some(Err(NalError { announced, left: rest.len() }));
            };
            self.rest = rest;
            if !unit.is_empty() {
                return Some(Ok(unit));
            }
        }
    }
}

/// Takes a 16-bit length and that many bytes from the start of `rest`: the layout of units in configuration
/// records.
pub(super) fn take_counted<'a>(rest: &mut &'a [u8]) -> Option<&'a [u8]> {
    let (length, tail) = rest.split_first_chunk::<2>()?;
    let (unit, tail) = tail.split_at_checked(usize::from(u16::from_be_bytes(*length)))?;
    *rest = tail;
    Some(unit)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_of_every_length_size() {
        for size in 1..=4u8 {
            let mut frame = Vec::new();
            for unit in [&b"abc"[..], b"", b"d"] {
                frame.extend(&u32::try_from(unit.len()).unwrap().to_be_bytes()[4 - usize::from(size)..]);
                frame.extend(unit);
            }
            let units: Vec<_> = Units::new(&frame, size).map(Result::unwrap).collect();
            assert_eq!(units, [&b"abc"[..], b"d"]);
        }
    }

    #[test]
    fn a_length_beyond_the_frame_is_named() {
        let mut units = Units::new(&[0, 0, 0, 1, 7, 0, 0, 0, 9, 1], 4);
        assert_eq!(units.next(), Some(Ok(&[7][..])));
        assert_eq!(units.next(), Some(Err(NalError { announced: 9, left: 1 })));
        assert_eq!(units.next(), None);
        assert!(Units::new(&[0, 0], 4).all(|unit| unit.is_ok()));
    }
}
