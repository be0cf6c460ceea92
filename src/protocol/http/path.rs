//! From a request's path to a file's path: this is the only way.

use std::fmt;

/// Most bytes of a path.
const LEN_MAX: usize = 1024;
/// The most bytes of one name, as in filesystems.
const NAME_MAX: usize = 255;
/// Most folders above a file.
const DEPTH_MAX: usize = 32;
/// Where an authority that issues certificates looks for its challenge (RFC 8555, 8.3).
const CHALLENGES: &str = ".well-known/acme-challenge/";

/// Why a path does not name a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PathError {
    /// It does not begin at the root.
    #[error("the path does not begin with a slash")]
    Relative,
    /// It names a folder.
    #[error("the path names a folder")]
    Folder,
    /// A name that begins with a dot: hidden, or `..`.
    #[error("a name in the path begins with a dot")]
    Dot,
    /// A character that never occurs in our file names.
    #[error("the path contains {0:?}")]
    Character(char),
    /// Too many bytes, or too many folders.
    #[error("the path is too long")]
    TooLong,
}

/// The path of a file below a folder: relative and not empty; none of its names is empty, hidden or `..`,
/// except in the path of a challenge.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RelPath(String);

impl fmt::Debug for RelPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl RelPath {
    /// Takes a path in the form of [`super::Request::path`]: decoded once, from the root. Several slashes in a
    /// row count as one.
    ///
    /// # Errors
    /// [`PathError`]: no folder can contain such a file.
    pub fn parse(path: &str) -> Result<Self, PathError> {
        let rest = path.strip_prefix('/').ok_or(PathError::Relative)?;
        if rest.len() > LEN_MAX {
            return Err(PathError::TooLong);
        }
        if let Some(bad) = rest.chars().find(|c| c.is_control() || *c == '\\') {
            return Err(PathError::Character(bad));
        }
        if rest.is_empty() || rest.ends_with('/') {
            return Err(PathError::Folder);
        }
        if let Some(token) = rest.strip_prefix(CHALLENGES) {
            let is_token = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_');
            return token.chars().all(is_token).then(|| Self(rest.to_owned())).ok_or(PathError::Dot);
        }
        let mut clean = String::with_capacity(rest.len());
        for (depth, name) in rest.split('/').filter(|name| !name.is_empty()).enumerate() {
            if name.starts_with('.') {
                return Err(PathError::Dot);
            }
            if name.len() > NAME_MAX || depth > DEPTH_MAX {
                return Err(PathError::TooLong);
            }
            if !clean.is_empty() {
                clean.push('/');
            }
            clean.push_str(name);
        }
        Ok(Self(clean))
    }

    /// The path, without a leading slash.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether it is the path of a challenge of an authority that issues certificates (RFC 8555, 8.3).
    pub fn is_challenge(&self) -> bool {
        self.0.starts_with(CHALLENGES)
    }

    /// The first name in it.
    pub fn first(&self) -> &str {
        self.0.split('/').next().unwrap_or_default()
    }

    /// The part after the last dot of the file's name; empty without one.
    pub fn extension(&self) -> &str {
        let name = self.0.rsplit('/').next().unwrap_or_default();
        name.rsplit_once('.').map_or("", |(_, extension)| extension)
    }

    /// The file next to it with `suffix`, such as `.gz`, appended to its name.
    #[must_use]
    pub fn with_suffix(&self, suffix: &str) -> Self {
        Self(format!("{}{suffix}", self.0))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn paths_of_files_are_accepted() {
        let path = |text| RelPath::parse(text).unwrap();
        assert_eq!(
            path("/hls/live/a@2026-11-21/segment_1.ts").as_str(),
            "hls/live/a@2026-11-21/segment_1.ts"
        );
        assert_eq!(path("//hls///x.m3u8").as_str(), "hls/x.m3u8");
        assert_eq!((path("/flv/a.b/index").first(), path("/flv/a.b/index").extension()), ("flv", ""));
        assert_eq!(path("/a/index.m3u8").extension(), "m3u8");
        assert_eq!(path("/a.js").with_suffix(".gz").as_str(), "a.js.gz");
        let challenge = path("/.well-known/acme-challenge/Ab-_09");
        assert!(challenge.is_challenge() && !path("/acme-challenge/Ab").is_challenge());
        assert_eq!(challenge.as_str(), ".well-known/acme-challenge/Ab-_09");
    }

    #[test]
    fn other_paths_are_refused() {
        for (text, error) in [
            ("", PathError::Relative),
            ("hls/x.ts", PathError::Relative),
            ("/", PathError::Folder),
            ("/hls/", PathError::Folder),
            ("//", PathError::Folder),
            ("/..", PathError::Dot),
            ("/hls/../../etc/passwd", PathError::Dot),
            ("/hls/./x.ts", PathError::Dot),
            ("/.git/config", PathError::Dot),
            ("/.well-known/x", PathError::Dot),
            ("/a/.well-known/acme-challenge/x", PathError::Dot),
            ("/.well-known/acme-challenge/../x", PathError::Dot),
            ("/.well-known/acme-challenge/a/b", PathError::Dot),
            ("/.well-known/acme-challenge/.x", PathError::Dot),
            ("/.well-known/acme-challenge/", PathError::Folder),
            ("/hls/.index.m3u8.part", PathError::Dot),
            ("/a\\b", PathError::Character('\\')),
            ("/a\0.ts", PathError::Character('\0')),
            ("/a\n", PathError::Character('\n')),
        ] {
            assert_eq!(RelPath::parse(text), Err(error), "{text:?}");
        }
        assert_eq!(RelPath::parse(&format!("/{}", "x".repeat(256))), Err(PathError::TooLong));
        assert_eq!(RelPath::parse(&"/x".repeat(600)), Err(PathError::TooLong));
        assert_eq!(RelPath::parse(&"/x".repeat(40)), Err(PathError::TooLong));
    }

    proptest! {
        #[test]
        fn accepted_paths_stay_below_the_folder(text in "[/.a\\\\\0 é@]{0,40}") {
            if let Ok(path) = RelPath::parse(&text) {
                let names: Vec<&str> = path.as_str().split('/').collect();
                prop_assert!(names.iter().all(|name| !name.is_empty() && !name.starts_with('.')));
                prop_assert!(!path.as_str().contains(['\\', '\0']));
                prop_assert_eq!(RelPath::parse(&format!("/{}", path.as_str())), Ok(path));
            }
        }
    }
}
