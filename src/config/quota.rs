//! How much of the recordings of some streams is kept.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::units;

/// What is kept of the recordings of the streams that a pattern names. They are separate from all others:
/// nothing else that is recorded removes them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Quota {
    /// Takes that ended longer ago are removed; zero keeps them. `None`: as for all recordings.
    #[serde(with = "optional", skip_serializing_if = "Option::is_none")]
    pub keep_time: Option<Duration>,
    /// The oldest of these takes are removed if together they exceed this many bytes; 0: no limit.
    #[serde(with = "units::size")]
    pub keep_size: usize,
    /// The oldest takes of a stream are removed if its takes exceed this many bytes; 0: no limit.
    #[serde(with = "units::size")]
    pub keep_size_per_stream: usize,
}

/// A duration that may be missing.
mod optional {
    use std::time::Duration;

    use serde::{Deserializer, Serializer};

    use crate::config::units::duration;

    pub(super) fn serialize<S: Serializer>(value: &Option<Duration>, s: S) -> Result<S::Ok, S::Error> {
        match value {
            Some(time) => duration::serialize(time, s),
            None => s.serialize_none(),
        }
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<Option<Duration>, D::Error> {
        duration::deserialize(d).map(Some)
    }
}

/// Whether `pattern` is `app/name`, or `app/*` for all streams of an app.
pub fn is_pattern(pattern: &str) -> bool {
    pattern.rsplit_once('/').is_some_and(|(app, name)| {
        let is_plain = |text: &str| !text.is_empty() && !text.contains('*');
        is_plain(app) && (name == "*" || is_plain(name))
    })
}

/// The pattern that a stream belongs to, and its quota: its own name before that of its app.
pub(super) fn of<'a>(quotas: &'a BTreeMap<String, Quota>, stream: &str) -> Option<(&'a str, &'a Quota)> {
    let of_app = || {
        let (app, _) = stream.rsplit_once('/')?;
        quotas.get_key_value(format!("{app}/*").as_str())
    };
    let (pattern, quota) = quotas.get_key_value(stream).or_else(of_app)?;
    Some((pattern, quota))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_streams_own_name_goes_before_its_app() {
        let mut quotas = BTreeMap::new();
        for (pattern, keep_size) in [("live/*", 1), ("live/main", 2), ("live/a/*", 3)] {
            quotas.insert(pattern.to_owned(), Quota { keep_size, ..Quota::default() });
        }
        let of = |stream| super::of(&quotas, stream).map_or(0, |(_, quota)| quota.keep_size);
        assert_eq!(["live/x", "live/main", "live/a/x", "live/a/b/x", "other/x"].map(of), [1, 2, 3, 0, 0]);
    }

    #[test]
    fn patterns() {
        let good = |text: &&str| is_pattern(text);
        assert!(["live/*", "live/x", "a/b/*"].iter().all(good));
        assert!(!["live", "*", "/x", "live/", "l*/x", "live/x*", ""].iter().any(good));
    }
}
