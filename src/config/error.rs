//! What can be wrong with a configuration: the place, the key, and what to do about it.

use std::fmt;
use std::io;
use std::path::PathBuf;

/// The listeners that can require TLS, by the names in `Tls::required`.
pub(super) const LISTENERS: [&str; 5] = ["rtmp", "flv", "web", "flv-gateway", "file-gateway"];

/// Where a value was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// In a file; lines count from 1; `None` if the key could not be found in the text.
    File {
        /// The file as it was named.
        path: PathBuf,
        /// The line of the key.
        line: Option<usize>,
    },
    /// In an environment variable of this name.
    Environment(String),
    /// On the command line, by this flag.
    Flag(String),
    /// Not written: it is the default.
    Default,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File { path, line: Some(line) } => write!(f, "{}:{line}", path.display()),
            Self::File { path, line: None } => write!(f, "{}", path.display()),
            Self::Environment(name) => write!(f, "environment variable {name}"),
            Self::Flag(name) => write!(f, "flag {name}"),
            Self::Default => f.write_str("defaults"),
        }
    }
}

/// A rule that a well-formed value breaks.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Rule {
    /// Larger than allowed.
    #[error("{is} is more than {max}: lower it")]
    TooLarge {
        /// The value.
        is: String,
        /// The largest value that is allowed, with a reason if that helps.
        max: String,
    },
    /// Smaller than allowed.
    #[error("{is} is less than {min}: raise it")]
    TooSmall {
        /// The value.
        is: String,
        /// The smallest value that is allowed, with a reason if that helps.
        min: String,
    },
    /// Two listeners would take the same port.
    #[error("{address} is taken by {other} already: give one of them another port")]
    SameAddress {
        /// The address.
        address: String,
        /// The key of the other listener.
        other: &'static str,
    },
    /// A certificate without its key, or the other way round.
    #[error("a certificate needs both files: give --tls-cert FILE and --tls-key FILE")]
    HalfCertificate,
    /// A listener that requires TLS without a certificate.
    #[error("no listener can require TLS without a certificate: give --tls-cert FILE and --tls-key FILE")]
    NoCertificate,
    /// No such listener.
    #[error("{name:?} is not a listener: write some of {}", LISTENERS.join(", "))]
    UnknownListener {
        /// What was written.
        name: String,
    },
    /// A key rule without a key, or with two.
    #[error("the rule for {stream:?} needs a key or a key_file, and only one of them")]
    HalfKey {
        /// The streams of the rule.
        stream: String,
    },
    /// A gateway without an upstream.
    #[error("a gateway needs at least one upstream: give --upstream http://ORIGIN:8501")]
    NoUpstream,
    /// A log filter that cannot be parsed.
    #[error("{filter:?} is not a log filter: write \"info\" or \"warn,uringcast=debug\"")]
    LogFilter {
        /// What was written.
        filter: String,
    },
    /// A name of streams that is neither `app/name` nor `app/*`.
    #[error("{pattern:?} names no streams: write \"app/name\", or \"app/*\" for all streams of an app")]
    Pattern {
        /// What was written.
        pattern: String,
    },
    /// An empty path.
    #[error("the path is empty: name a folder")]
    EmptyPath,
}

/// What is wrong with one key.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Problem {
    /// There is no such key.
    #[error("no such key{}", near.map(|key| format!(", did you mean {key:?}?")).unwrap_or_default())]
    Unknown {
        /// A similar key of that table.
        near: Option<&'static str>,
    },
    /// A key that a table needs is missing.
    #[error("{key} is missing here")]
    Missing {
        /// The key.
        key: String,
    },
    /// The value is malformed or of another type; the text says what was expected.
    #[error("{0}")]
    Malformed(String),
    /// The value is well-formed, but not allowed.
    #[error(transparent)]
    Rule(#[from] Rule),
}

impl From<super::load::GivenError> for Problem {
    fn from(error: super::load::GivenError) -> Self {
        Self::Malformed(error.to_string())
    }
}

/// Why a configuration is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("{}: {}", path.display(), unreadable(*kind))]
    Unreadable {
        /// The file as it was named.
        path: PathBuf,
        /// The system's error.
        kind: io::ErrorKind,
    },
    /// The file is not TOML.
    #[error("{place}: not TOML: {what}")]
    Syntax {
        /// The file and the line.
        place: Place,
        /// What the parser expected.
        what: String,
    },
    /// One key is wrong.
    #[error("{place}: {key}: {problem}")]
    Key {
        /// Where it was written.
        place: Place,
        /// The key with its table, `origin.rtmp`.
        key: String,
        /// What is wrong with it.
        problem: Problem,
    },
}

/// What the system's error means for a file that was to be read.
fn unreadable(kind: io::ErrorKind) -> String {
    match kind {
        io::ErrorKind::NotFound => "no such file".to_owned(),
        io::ErrorKind::IsADirectory => "this is a folder, and a file is needed".to_owned(),
        other => format!("cannot be read: {}", io::Error::from(other)),
    }
}
