//! The name of a stream.

use std::borrow::Borrow;
use std::fmt;
use std::sync::Arc;

/// The longest key, in bytes.
pub const KEY_MAX: usize = 255;
const COMPONENTS_MAX: usize = 8;

/// `app/name`: two to eight components of letters, digits, `.`, `_`, `-`, none of which starts with a dot.
///
/// A key can therefore be used unchanged in a URL, in a log line and in a file's path.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct StreamKey(Arc<str>);

/// Why a name is not a stream key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// The part before or after the slash is empty.
    #[error("a stream is named app/name, both not empty")]
    Incomplete,
    /// Longer than [`KEY_MAX`].
    #[error("stream name of {len} bytes, limit {KEY_MAX}")]
    TooLong {
        /// Its length in bytes.
        len: usize,
    },
    /// More slashes than a key may have.
    #[error("stream name of more than {COMPONENTS_MAX} components")]
    TooDeep,
    /// A character that is not allowed.
    #[error("{found:?} in a stream name: letters, digits, '.', '_' and '-' are allowed")]
    BadCharacter {
        /// The first such character.
        found: char,
    },
    /// A component like `..` or `.hidden`.
    #[error("a component of a stream name starts with a dot")]
    LeadingDot,
}

impl StreamKey {
    /// Checks a key as it stands in a path, without slashes at its ends.
    ///
    /// # Errors
    /// A [`KeyError`] that tells the publisher what is wrong with the name.
    pub fn parse(text: &str) -> Result<Self, KeyError> {
        if text.len() > KEY_MAX {
            return Err(KeyError::TooLong { len: text.len() });
        }
        let mut components = 0;
        for component in text.split('/') {
            check_component(component)?;
            components += 1;
        }
        match components {
            0 | 1 => Err(KeyError::Incomplete),
            2..=COMPONENTS_MAX => Ok(Self(text.into())),
            _ => Err(KeyError::TooDeep),
        }
    }

    /// The key as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

fn check_component(component: &str) -> Result<(), KeyError> {
    if component.is_empty() {
        return Err(KeyError::Incomplete);
    }
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    if let Some(found) = component.chars().find(|c| !allowed(*c)) {
        return Err(KeyError::BadCharacter { found });
    }
    if component.starts_with('.') {
        return Err(KeyError::LeadingDot);
    }
    Ok(())
}

impl Borrow<str> for StreamKey {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for StreamKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for StreamKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&*self.0, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn good_names() {
        for name in ["live/demo", "a/b", "live/cam-1_hd.main", "app/with/slashes"] {
            assert_eq!(StreamKey::parse(name).unwrap().as_str(), name);
        }
    }

    #[test]
    fn bad_names() {
        let bad = |name: &str| StreamKey::parse(name).unwrap_err();
        assert_eq!(bad(""), KeyError::Incomplete);
        assert_eq!(bad("live"), KeyError::Incomplete);
        assert_eq!(bad("live/"), KeyError::Incomplete);
        assert_eq!(bad("live//x"), KeyError::Incomplete);
        assert_eq!(bad("/live/x"), KeyError::Incomplete);
        assert_eq!(bad("live/../x"), KeyError::LeadingDot);
        assert_eq!(bad("live/.x"), KeyError::LeadingDot);
        assert_eq!(bad("live/a b"), KeyError::BadCharacter { found: ' ' });
        assert_eq!(bad("live/a\\b"), KeyError::BadCharacter { found: '\\' });
        assert_eq!(bad("live/%2e"), KeyError::BadCharacter { found: '%' });
        assert_eq!(bad("live/ä"), KeyError::BadCharacter { found: 'ä' });
        assert_eq!(bad(&format!("live/{}", "x".repeat(300))), KeyError::TooLong { len: 305 });
        assert_eq!(bad("a/b/c/d/e/f/g/h/i"), KeyError::TooDeep);
    }
}
