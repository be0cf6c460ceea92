//! Names of streams: one, all of an app, or all.

/// Streams by their names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Pattern {
    /// `*`: every stream.
    All,
    /// `app/*`: the streams of an app; the name has no slash.
    App(String),
    /// `app/name`: one stream.
    One(String),
}

impl Pattern {
    /// Reads a pattern; any other text names one stream, which may not exist.
    pub fn new(text: &str) -> Self {
        match text.strip_suffix("/*") {
            _ if text == "*" => Self::All,
            Some(app) => Self::App(app.to_owned()),
            None => Self::One(text.to_owned()),
        }
    }

    /// Whether it names a stream.
    pub fn matches(&self, stream: &str) -> bool {
        match self {
            Self::All => true,
            Self::App(own) => {
                stream.rsplit_once('/').is_some_and(|(app, name)| app == own && !name.is_empty())
            }
            Self::One(name) => name == stream,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_names_one_stream_an_app_or_all() {
        let names = |pattern: &str| {
            ["live/a", "live/b", "live/a/b", "liver/a", "live", "live/"]
                .map(|name| Pattern::new(pattern).matches(name))
        };
        assert_eq!(names("*"), [true; 6]);
        assert_eq!(names("live/*"), [true, true, false, false, false, false]);
        assert_eq!(names("live/a"), [true, false, false, false, false, false]);
        assert_eq!(names("live/a/*"), [false, false, true, false, false, false]);
        assert_eq!(names(""), [false; 6]);
        assert_eq!(names("/*"), [false; 6]);
    }
}
