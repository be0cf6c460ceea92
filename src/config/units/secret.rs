//! A secret that is compared and never shown.

use std::fmt;
use std::str::FromStr;

use serde::{Serialize, Serializer};

use super::UnitError;

/// A token that grants its bearer a right; empty: there is none. It never appears in logs or errors.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Secret(String);

/// The minimum length, in bytes.
const SECRET_MIN: usize = 16;

impl Secret {
    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The token itself: to sign with it, or to show it to another server.
    pub fn reveal(&self) -> &str {
        &self.0
    }

    /// Compares `shown` with the token; the time taken does not depend on where they differ.
    pub fn is(&self, shown: &str) -> bool {
        let differ = self.0.bytes().zip(shown.bytes()).fold(0, |sum, (one, other)| sum | (one ^ other));
        !self.is_empty() && self.0.len() == shown.len() && std::hint::black_box(differ) == 0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.is_empty() { "none" } else { "…" })
    }
}

impl FromStr for Secret {
    type Err = UnitError;

    fn from_str(text: &str) -> Result<Self, UnitError> {
        // Text of digits alone has been a number before, and its leading zeros are lost.
        let digits = text.bytes().all(|byte| byte.is_ascii_digit());
        let good = text.len() >= SECRET_MIN && text.bytes().all(|byte| byte.is_ascii_graphic()) && !digits;
        if good || text.is_empty() { Ok(Self(text.to_owned())) } else { Err(UnitError::Secret) }
    }
}

impl Serialize for Secret {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_compared_and_never_shown() {
        let secret: Secret = "correct-horse-battery".parse().unwrap();
        assert!(secret.is("correct-horse-battery"));
        for wrong in ["", "correct-horse-batterz", "correct-horse", "correct-horse-battery-"] {
            assert!(!secret.is(wrong), "{wrong}");
        }
        assert!(!Secret::default().is(""), "no token is not an empty token");
        assert_eq!(format!("{secret:?} {:?}", Secret::default()), "… none");
        for text in ["short", "0123456789012345678", "has a blank in its middle", "fünfzehn-zeichen-und-mehr"]
        {
            let error = text.parse::<Secret>().unwrap_err().to_string();
            assert!(!error.contains(text), "{error}");
        }
    }
}
