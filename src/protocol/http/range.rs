//! Byte ranges (RFC 9110, 14).
//!
//! One range is served as `206`. A request for several gets the whole file, as the RFC allows: no player sends
//! one, and `multipart/byteranges` would give small requests large responses.

/// The part of a file that a `Range` field asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Range {
    /// The whole file.
    Whole,
    /// The bytes from `first` on; `len` is not 0.
    Part {
        /// The first byte.
        first: u64,
        /// The number of bytes.
        len: u64,
    },
    /// No byte of the file, or a syntax error.
    Unsatisfiable,
}

impl Range {
    /// The meaning of `value` for a file of `len` bytes. Units other than bytes are ignored.
    pub fn evaluate(value: &str, len: u64) -> Self {
        let value = value.trim();
        let specs = match value.get(..6) {
            Some(unit) if unit.eq_ignore_ascii_case("bytes=") => value.get(6..).unwrap_or_default(),
            _ => return Self::Whole,
        };
        let mut satisfiable = None;
        let (mut asked, mut several) = (false, false);
        for spec in specs.split(',').map(str::trim).filter(|spec| !spec.is_empty()) {
            asked = true;
            match one(spec, len) {
                Err(Malformed) => return Self::Unsatisfiable,
                Ok(None) => {}
                Ok(part) => several |= satisfiable.replace(part).is_some(),
            }
        }
        match satisfiable.flatten() {
            Some(_) if several => Self::Whole,
            // For an empty file, the whole file is the only part.
            Some((_, 0)) => Self::Whole,
            Some((first, len)) => Self::Part { first, len },
            None if !asked => Self::Whole,
            None => Self::Unsatisfiable,
        }
    }
}

struct Malformed;

/// First byte and length of `first-last`, `first-` or `-suffix`; `None`: no such byte in the file. The length
/// is 0 only if the file is empty.
fn one(spec: &str, len: u64) -> Result<Option<(u64, u64)>, Malformed> {
    let (first, last) = spec.split_once('-').ok_or(Malformed)?;
    let (first, last) = (first.trim(), last.trim());
    if first.is_empty() {
        let suffix = number(last).ok_or(Malformed)?.min(len);
        return Ok((suffix > 0 || len == 0).then(|| (len - suffix, suffix)));
    }
    let first = number(first).ok_or(Malformed)?;
    let last = if last.is_empty() { u64::MAX } else { number(last).ok_or(Malformed)? };
    if last < first {
        return Err(Malformed);
    }
    if len == 0 {
        return Ok((first == 0).then_some((0, 0)));
    }
    Ok((first < len).then(|| (first, last.min(len - 1) - first + 1)))
}

/// Plain digits; a number that does not fit becomes the largest one.
fn number(text: &str) -> Option<u64> {
    let plain = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    plain.then(|| text.parse().unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn part(first: u64, len: u64) -> Range {
        Range::Part { first, len }
    }

    #[test]
    fn examples_of_the_rfc() {
        for (value, range) in [
            ("bytes=0-499", part(0, 500)),
            ("bytes=500-999", part(500, 500)),
            ("bytes=-500", part(9_500, 500)),
            ("bytes=9500-", part(9_500, 500)),
            ("bytes=0-0", part(0, 1)),
            ("bytes=-1", part(9_999, 1)),
            ("BYTES=0-99999", part(0, 10_000)),
            ("bytes=-99999", part(0, 10_000)),
            ("bytes= 5 - 6 ", part(5, 2)),
            ("bytes=0-0,-1", Range::Whole),
            ("bytes=0-0,20000-", part(0, 1)),
            ("items=0-1", Range::Whole),
            ("", Range::Whole),
            ("bytes", Range::Whole),
            ("bytes=10000-", Range::Unsatisfiable),
            ("bytes=-0", Range::Unsatisfiable),
            ("bytes=5-4", Range::Unsatisfiable),
            ("bytes=", Range::Whole),
            ("bytes=,", Range::Whole),
            ("bytes=-", Range::Unsatisfiable),
            ("bytes=a-b", Range::Unsatisfiable),
            ("bytes=0x1-2", Range::Unsatisfiable),
            ("bytes=99999999999999999999-", Range::Unsatisfiable),
            ("bytes=0-99999999999999999999", part(0, 10_000)),
        ] {
            assert_eq!(Range::evaluate(value, 10_000), range, "{value}");
        }
        assert_eq!(Range::evaluate("bytes=0-", 0), Range::Whole);
        assert_eq!(Range::evaluate("bytes=-5", 0), Range::Whole);
        assert_eq!(Range::evaluate("bytes=5-", 0), Range::Unsatisfiable);
        assert_eq!(Range::evaluate("bytes=5-4", 0), Range::Unsatisfiable);
    }

    proptest! {
        #[test]
        fn a_part_is_within_the_file(value in "bytes=[0-9, -]{0,24}", len in any::<u64>()) {
            if let Range::Part { first, len: part } = Range::evaluate(&value, len) {
                prop_assert!(part > 0 && first.checked_add(part).is_some_and(|end| end <= len));
            }
        }

        #[test]
        fn what_is_asked_for_is_given(len in 1..u64::MAX, a in any::<u64>(), b in any::<u64>()) {
            let (first, last) = (a.min(b) % len, a.max(b) % len);
            let (first, last) = (first.min(last), first.max(last));
            prop_assert_eq!(Range::evaluate(&format!("bytes={first}-{last}"), len), part(first, last - first + 1));
            prop_assert_eq!(Range::evaluate(&format!("bytes={first}-"), len), part(first, len - first));
        }

        #[test]
        fn garbage_never_panics(value in ".{0,40}", len in any::<u64>()) {
            let _ = Range::evaluate(&value, len);
        }
    }
}
