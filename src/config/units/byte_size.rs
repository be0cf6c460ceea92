//! Numbers of bytes.

use super::UnitError;

/// Parses a number of bytes: plain digits, or digits and a unit (`KiB` is 1024 bytes, `kB` is 1000).
///
/// # Errors
/// [`UnitError::Size`], also on overflow.
pub fn parse_size(text: &str) -> Result<usize, UnitError> {
    let wrong = || UnitError::Size { text: text.to_owned() };
    let trimmed = text.trim();
    let split = trimmed.find(|c: char| !c.is_ascii_digit()).unwrap_or(trimmed.len());
    let (digits, unit) = trimmed.split_at(split);
    let factor: usize = match unit.trim_start().to_ascii_lowercase().as_str() {
        "" | "b" => 1,
        "kb" => 1000,
        "kib" => 1 << 10,
        "mb" => 1_000_000,
        "mib" => 1 << 20,
        "gb" => 1_000_000_000,
        "gib" => 1 << 30,
        _ => return Err(wrong()),
    };
    digits.parse::<usize>().ok().and_then(|n| n.checked_mul(factor)).ok_or_else(wrong)
}

/// Writes a size the way [`parse_size`] reads it, in the largest binary unit without a remainder.
pub fn format_size(bytes: usize) -> String {
    for (shift, unit) in [(30, "GiB"), (20, "MiB"), (10, "KiB")] {
        if bytes != 0 && bytes.trailing_zeros() >= shift {
            return format!("{}{unit}", bytes >> shift);
        }
    }
    bytes.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_read_back_as_written() {
        for (text, want) in [("0", 0), ("32MiB", 32 << 20), ("16 KiB", 16384), ("1kb", 1000), ("7B", 7)] {
            assert_eq!(parse_size(text), Ok(want));
            assert_eq!(parse_size(&format_size(want)), Ok(want));
        }
        for text in ["", "MiB", "-1", "1.5MiB", "32M", "99999999999999999999", "99999999999GiB"] {
            assert_eq!(parse_size(text), Err(UnitError::Size { text: text.to_owned() }));
        }
    }
}
