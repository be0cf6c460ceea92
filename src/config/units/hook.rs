//! The hook that is called for finished files.

use std::fmt;
use std::str::FromStr;

use super::{UnitError, Upstream};

/// The hook that is called for finished files.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Hook {
    /// No hook.
    #[default]
    Nobody,
    /// A server gets a POST.
    Http(Upstream),
    /// A command line for the shell.
    Command(String),
}

impl FromStr for Hook {
    type Err = UnitError;

    fn from_str(text: &str) -> Result<Self, UnitError> {
        let text = text.trim();
        if text.is_empty() {
            return Ok(Self::Nobody);
        }
        // A URL of another scheme is a mistake, not a command.
        if text.contains("://") && !text.contains(char::is_whitespace) {
            return text.parse().map(Self::Http);
        }
        Ok(Self::Command(text.to_owned()))
    }
}

impl fmt::Display for Hook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Nobody => Ok(()),
            Self::Http(url) => url.fmt(f),
            Self::Command(command) => f.write_str(command),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hooks() {
        for text in ["", "http://127.0.0.1:9000/hook", "https://x/hook", "/usr/bin/notify --file http://x"] {
            assert_eq!(text.parse::<Hook>().unwrap().to_string(), text);
        }
        assert!(matches!("/bin/true".parse(), Ok(Hook::Command(_))));
        assert!("ftp://x/".parse::<Hook>().is_err());
    }
}
