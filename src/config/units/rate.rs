//! Bits per second.

use std::fmt;
use std::str::FromStr;

use super::UnitError;

/// A rate in bits per second; zero stands for "no limit".
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Rate {
    /// Bits per second.
    pub bits: u64,
}

/// The units, the largest first; all are decimal, as is usual for rates.
const UNITS: [(&str, u64); 4] = [("Gbps", 1_000_000_000), ("Mbps", 1_000_000), ("kbps", 1_000), ("bps", 1)];

impl Rate {
    /// From megabits per second.
    pub const fn mbps(megabits: u64) -> Self {
        Self { bits: megabits * 1_000_000 }
    }

    /// Bytes in `millis` milliseconds at this rate; `None`: there is no limit.
    pub fn bytes_in(self, millis: u64) -> Option<u64> {
        (self.bits > 0).then(|| self.bits.saturating_mul(millis) / 8_000)
    }
}

impl FromStr for Rate {
    type Err = UnitError;

    /// Plain digits are bits per second; a unit is written "kbps", "Mbps" or "Gbps" in any case.
    fn from_str(text: &str) -> Result<Self, UnitError> {
        let wrong = || UnitError::Rate { text: text.to_owned() };
        let trimmed = text.trim();
        let split = trimmed.find(|c: char| !c.is_ascii_digit()).unwrap_or(trimmed.len());
        let (digits, unit) = trimmed.split_at(split);
        let unit = unit.trim_start();
        let known = UNITS.iter().find(|(name, _)| name.eq_ignore_ascii_case(unit));
        let factor = match known {
            Some((_, factor)) => *factor,
            None if unit.is_empty() => 1,
            None => return Err(wrong()),
        };
        let bits = digits.parse::<u64>().ok().and_then(|n| n.checked_mul(factor)).ok_or_else(wrong)?;
        Ok(Self { bits })
    }
}

impl fmt::Display for Rate {
    /// In the largest unit without a remainder, in the syntax of [`Rate::from_str`].
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let whole = |(_, factor): &&(&str, u64)| self.bits != 0 && self.bits.is_multiple_of(*factor);
        match UNITS.iter().find(whole) {
            Some((unit, factor)) => write!(f, "{}{unit}", self.bits / factor),
            None => f.write_str("0"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_read_back_as_written() {
        for (text, bits) in
            [("0", 0), ("400Mbps", 400_000_000), ("1 gbps", 1_000_000_000), ("64kbps", 64_000), ("7", 7)]
        {
            let rate: Rate = text.parse().unwrap();
            assert_eq!(rate.bits, bits, "{text}");
            assert_eq!(rate.to_string().parse::<Rate>().unwrap(), rate, "{text}");
        }
        assert_eq!(Rate::mbps(1500).to_string(), "1500Mbps");
        for text in ["", "Mbps", "-1", "1.5Mbps", "100MB", "100Mb", "99999999999Gbps"] {
            assert_eq!(text.parse::<Rate>(), Err(UnitError::Rate { text: text.to_owned() }), "{text}");
        }
    }

    #[test]
    fn bytes_of_a_time() {
        assert_eq!(Rate::mbps(8).bytes_in(5_000), Some(5_000_000));
        assert_eq!(Rate::default().bytes_in(5_000), None);
        assert_eq!(Rate { bits: u64::MAX }.bytes_in(u64::MAX), Some(u64::MAX / 8_000));
    }
}
