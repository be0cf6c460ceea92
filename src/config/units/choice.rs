//! Values that are one of a few words.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::UnitError;

/// How the bytes of streams are sent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SendPath {
    /// Chosen by size and by what the kernel reports.
    #[default]
    Auto,
    /// Copied into the socket's buffer.
    Copy,
    /// The same, from registered memory.
    Fixed,
    /// From registered memory, without a copy where the path allows.
    ZeroCopy,
    /// By reference to the pages of the log.
    Pages,
}

/// The format of log lines on stderr.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LogFormat {
    /// For people and journald.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

impl FromStr for LogFormat {
    type Err = UnitError;

    fn from_str(text: &str) -> Result<Self, UnitError> {
        match text {
            "text" => Ok(Self::Text),
            "json" => Ok(Self::Json),
            _ => Err(UnitError::LogFormat { text: text.to_owned() }),
        }
    }
}

impl fmt::Display for LogFormat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Text => "text",
            Self::Json => "json",
        })
    }
}

/// The format of access log lines.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum AccessFormat {
    /// The combined format of nginx and Apache, which every tool reads.
    #[default]
    Combined,
    /// One JSON object a line.
    Json,
}

impl FromStr for AccessFormat {
    type Err = UnitError;

    fn from_str(text: &str) -> Result<Self, UnitError> {
        match text {
            "combined" => Ok(Self::Combined),
            "json" => Ok(Self::Json),
            _ => Err(UnitError::AccessFormat { text: text.to_owned() }),
        }
    }
}

impl fmt::Display for AccessFormat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Combined => "combined",
            Self::Json => "json",
        })
    }
}

/// Who may do something without a key or a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Policy {
    /// Everyone.
    Open,
    /// Programs and pages of this machine.
    Local,
    /// No one.
    Deny,
}

impl FromStr for Policy {
    type Err = UnitError;

    fn from_str(text: &str) -> Result<Self, UnitError> {
        match text {
            "open" => Ok(Self::Open),
            "local" => Ok(Self::Local),
            "deny" => Ok(Self::Deny),
            _ => Err(UnitError::Policy { text: text.to_owned() }),
        }
    }
}

impl fmt::Display for Policy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Open => "open",
            Self::Local => "local",
            Self::Deny => "deny",
        })
    }
}
