//! The name of a stream.

use std::borrow::Borrow;
use std::fmt;
use std::sync::Arc;

/// The longest key, in bytes.
pub const KEY_MAX: usize = 255;
const COMPONENTS_MAX: usize = 8;
/// The longest name after the last slash, in bytes: file systems allow 255, and a recording appends up to 22.
pub const NAME_MAX: usize = 233;

/// Names of files and folders in a recording, besides numbered segments.
const RECORDED: [&str; 5] = ["index.m3u8", "index.flv", DESCRIPTION, "output_merge", "output_separate"];
/// The recorder's description of a recording.
const DESCRIPTION: &str = "take.json";
/// Endings of files that a recording has not finished.
const UNFINISHED: [&str; 2] = [".journal", ".tmp"];

/// `app/name`: two to eight components of letters, digits, `.`, `_`, `-`, none of which starts with a dot or is
/// the name of a file in a recording.
///
/// A key can therefore be used unchanged in a URL, in a log line and in a file's path, and no two keys share a
/// file.
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
    /// The last component is longer than [`NAME_MAX`].
    #[error("{len} bytes after the last slash of a stream name, limit {NAME_MAX}: recordings add to it")]
    NameTooLong {
        /// Its length in bytes.
        len: usize,
    },
    /// A component that is the name of a recording's file.
    #[error("a component of a stream name is the name of a file in recordings: {kind}")]
    Recorded {
        /// Such names.
        kind: &'static str,
    },
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
        let name = text.rsplit('/').next().unwrap_or_default();
        if name.len() > NAME_MAX {
            return Err(KeyError::NameTooLong { len: name.len() });
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
    match recorded(component) {
        Some(kind) => Err(KeyError::Recorded { kind }),
        None => Ok(()),
    }
}

/// The kind of names in recordings that a component is one of.
fn recorded(component: &str) -> Option<&'static str> {
    let is_number = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let segment = component.strip_prefix("segment_").and_then(|rest| rest.strip_suffix(".ts"));
    let whole = RECORDED.into_iter().find(|name| *name == component);
    let ending = UNFINISHED.into_iter().find(|ending| component.ends_with(ending));
    whole.or(ending).or(segment.is_some_and(is_number).then_some("segment_N.ts"))
}

/// Whether a name in a recording's path is for the recorder alone, and not for clients.
pub fn is_internal(component: &str) -> bool {
    component == DESCRIPTION || UNFINISHED.iter().any(|ending| component.ends_with(ending))
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
        assert_eq!(bad(&format!("a/{}", "x".repeat(234))), KeyError::NameTooLong { len: 234 });
    }

    #[test]
    fn long_names_up_to_the_limits() {
        for name in [format!("a/{}", "x".repeat(NAME_MAX)), format!("{}/x", "a".repeat(KEY_MAX - 2))] {
            assert_eq!(StreamKey::parse(&name).unwrap().as_str(), name);
        }
    }

    #[test]
    fn names_of_recorded_files_are_refused() {
        let kind = |name: &str| match StreamKey::parse(name) {
            Err(KeyError::Recorded { kind }) => Some(kind),
            _ => None,
        };
        for name in ["index.m3u8", "index.flv", "take.json", "output_merge", "output_separate"] {
            for key in [format!("live/x/{name}"), format!("live/{name}"), format!("{name}/x")] {
                assert_eq!(kind(&key), Some(name), "{key}");
            }
        }
        assert_eq!(kind("live/x/segment_0.ts"), Some("segment_N.ts"));
        assert_eq!(kind("live/x/index.m3u8.journal"), Some(".journal"));
        assert_eq!(kind("live/x.tmp"), Some(".tmp"));
        for name in
            ["live/index", "live/segment_a.ts", "live/segment_.ts", "live/segment_1.tsx", "live/journal"]
        {
            assert!(StreamKey::parse(name).is_ok(), "{name}");
        }
    }
}
