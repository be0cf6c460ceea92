//! What is packaged for live players.

use std::fmt;
use std::str::FromStr;

use super::{Record, UnitError};

/// The formats in which live streams are packaged.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Packaging {
    /// Those that are recorded.
    #[default]
    Recorded,
    /// These, recorded or not.
    Formats {
        /// TS segments and a playlist.
        hls: bool,
        /// Fragmented MP4.
        fmp4: bool,
    },
}

impl Packaging {
    /// Whether HLS and fMP4 are packaged of a stream that is recorded so.
    pub fn of(self, record: Record) -> (bool, bool) {
        match self {
            Self::Recorded => (record.hls, record.fmp4),
            Self::Formats { hls, fmp4 } => (hls, fmp4),
        }
    }

    /// Whether anything is packaged although it may not be recorded.
    pub fn is_any(self) -> bool {
        matches!(self, Self::Formats { hls, fmp4 } if hls || fmp4)
    }
}

impl FromStr for Packaging {
    type Err = UnitError;

    fn from_str(text: &str) -> Result<Self, UnitError> {
        let refused = || UnitError::Packaging { text: text.to_owned() };
        match text.trim() {
            "recorded" => Ok(Self::Recorded),
            formats => match formats.parse().map_err(|_| refused())? {
                Record { flv: true, .. } => Err(refused()),
                Record { hls, fmp4, .. } => Ok(Self::Formats { hls, fmp4 }),
            },
        }
    }
}

impl fmt::Display for Packaging {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Recorded => f.write_str("recorded"),
            Self::Formats { hls, fmp4 } => Record { flv: false, hls, fmp4 }.fmt(f),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packagings() {
        for text in ["recorded", "none", "hls", "fmp4", "hls,fmp4"] {
            assert_eq!(text.parse::<Packaging>().unwrap().to_string(), text);
        }
        for text in ["", "flv", "flv,hls", "recorded,hls"] {
            assert!(text.parse::<Packaging>().is_err(), "{text}");
        }
        let record = Record { hls: true, ..Record::default() };
        assert_eq!(Packaging::Recorded.of(record), (true, false));
        assert_eq!("fmp4".parse::<Packaging>().unwrap().of(record), (false, true));
    }
}
