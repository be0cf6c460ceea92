//! Which recordings are made.

use std::fmt;
use std::str::FromStr;

use super::UnitError;

/// Which recordings an origin makes of every stream.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Record {
    /// The stream as received, as one FLV file.
    pub flv: bool,
    /// TS segments and a playlist.
    pub hls: bool,
    /// Fragmented MP4, merged when the stream ends.
    pub fmp4: bool,
}

impl Record {
    /// Whether anything is recorded.
    pub fn is_any(self) -> bool {
        self.flv || self.hls || self.fmp4
    }
}

impl FromStr for Record {
    type Err = UnitError;

    fn from_str(text: &str) -> Result<Self, UnitError> {
        let mut set = Self::default();
        if text.trim() == "none" {
            return Ok(set);
        }
        for word in text.split(',') {
            match word.trim() {
                "flv" => set.flv = true,
                "hls" => set.hls = true,
                "fmp4" => set.fmp4 = true,
                _ => return Err(UnitError::Record { text: text.to_owned() }),
            }
        }
        Ok(set)
    }
}

impl fmt::Display for Record {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let words = [(self.flv, "flv"), (self.hls, "hls"), (self.fmp4, "fmp4")];
        let given: Vec<&str> = words.iter().filter(|(on, _)| *on).map(|(_, word)| *word).collect();
        f.write_str(if given.is_empty() { "none".to_owned() } else { given.join(",") }.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn recordings() {
        for text in ["none", "flv", "flv,hls", "flv,hls,fmp4"] {
            assert_eq!(text.parse::<Record>().unwrap().to_string(), text);
        }
        for text in ["", "mp4", "flv,none", "flv,"] {
            assert!(text.parse::<Record>().is_err(), "{text}");
        }
    }
}
