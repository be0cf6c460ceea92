//! How long tags are gathered before they are sent.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use super::{UnitError, parse_duration};

/// How long the tags of a stream are gathered before its viewers are sent them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Flush {
    /// Not at all while a loop has time to spare, and a picture's time when it has many viewers.
    #[default]
    Auto,
    /// For this long; zero: each turn's tags are sent at once.
    Every(Duration),
}

impl Flush {
    /// The time that was configured.
    pub fn every(self) -> Option<Duration> {
        match self {
            Self::Auto => None,
            Self::Every(time) => Some(time),
        }
    }
}

impl FromStr for Flush {
    type Err = UnitError;

    fn from_str(text: &str) -> Result<Self, UnitError> {
        if text.trim() == "auto" {
            return Ok(Self::Auto);
        }
        parse_duration(text).map(Self::Every).map_err(|_| UnitError::Flush { text: text.to_owned() })
    }
}

impl fmt::Display for Flush {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Auto => f.write_str("auto"),
            Self::Every(time) => humantime::format_duration(time).fmt(f),
        }
    }
}
