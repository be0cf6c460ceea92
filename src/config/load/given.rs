//! Converts text from the environment and from flags to the value that its key takes.

use figment::providers::{Format, Toml};
use figment::value::{Dict, Value};

/// Text that cannot be the value of its key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(in crate::config) enum GivenError {
    /// A list of tables that is not written as one. The text is not repeated: it may hold a stream key.
    #[error(
        "this is not a list: write it as in TOML, [{{ stream = \"live/*\", to = \"rtmp://host/app/name\" }}], \
         or as JSON"
    )]
    List,
    /// A table that is not written as one.
    #[error("this is not a table: write it as in TOML, {{ live = \"hls\" }}, or as JSON")]
    Table,
}

/// The value of `key`, written as `text`. Its type is that of the key's default. A key without a default (a
/// mistyped key, an entry of a table) stays text, from which every value except numbers and booleans can be
/// read.
pub(super) fn value(defaults: &Dict, key: &str, text: &str) -> Result<Value, GivenError> {
    match find(defaults, key) {
        Some(Value::Bool(..)) => Ok(boolean(text).map_or_else(|| Value::from(text), Value::from)),
        Some(Value::Num(..)) => {
            Ok(text.trim().parse::<u64>().map_or_else(|_| Value::from(text), Value::from))
        }
        Some(Value::Array(..)) => {
            inline(text).filter(|value| value.as_array().is_some()).ok_or(GivenError::List)
        }
        Some(Value::Dict(..)) => {
            inline(text).filter(|value| value.as_dict().is_some()).ok_or(GivenError::Table)
        }
        _ => Ok(Value::from(text)),
    }
}

fn find<'a>(dict: &'a Dict, key: &str) -> Option<&'a Value> {
    match key.split_once('.') {
        None => dict.get(key),
        Some((table, rest)) => match dict.get(table)? {
            Value::Dict(_, inner) => find(inner, rest),
            _ => None,
        },
    }
}

/// The words for booleans that are common in environments.
fn boolean(text: &str) -> Option<bool> {
    match text.trim().to_ascii_lowercase().as_str() {
        "true" | "1" | "yes" | "on" => Some(true),
        "false" | "0" | "no" | "off" => Some(false),
        _ => None,
    }
}

/// A list or a table in one text, written as TOML or JSON.
fn inline(text: &str) -> Option<Value> {
    let toml: Result<Dict, _> = Toml::from_str(&format!("value = {}", text.trim()));
    match toml {
        Ok(mut dict) if dict.len() == 1 => dict.remove("value"),
        _ => serde_json::from_str(text).ok(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    fn given(key: &str, text: &str) -> Result<Value, GivenError> {
        let Value::Dict(_, defaults) = Value::serialize(Config::default()).unwrap() else {
            panic!("a table")
        };
        value(&defaults, key, text)
    }

    #[test]
    fn the_type_is_that_of_the_key() {
        for (text, want) in
            [("true", true), ("1", true), ("Yes", true), ("false", false), ("0", false), ("off", false)]
        {
            assert_eq!(given("recording.sync", text).unwrap().to_bool(), Some(want), "{text}");
        }
        assert!(given("recording.sync", "maybe").unwrap().as_str().is_some());
        assert_eq!(given("loops", "3").unwrap().to_u128(), Some(3));
        // A folder or an app may be named like a number or a boolean.
        for (key, text) in
            [("origin.data", "2026"), ("log", "true"), ("origin.record_apps.live", "hls"), ("none", "1")]
        {
            assert_eq!(given(key, text).unwrap().as_str(), Some(text), "{key}");
        }
    }

    #[test]
    fn lists_and_tables_are_toml_or_json() {
        for text in [
            "[{ stream = 'a/b', to = 'rtmp://h/a/b' }]",
            r#" [{ "stream": "a/b", "to": "rtmp://h/a/b" }] "#,
            "[]",
        ] {
            assert!(given("forward", text).unwrap().as_array().is_some(), "{text}");
        }
        for text in ["{ live = 'hls' }", r#"{"live": "hls"}"#, "{}"] {
            assert!(given("origin.record_apps", text).unwrap().as_dict().is_some(), "{text}");
        }
        assert_eq!(given("forward", "rtmp://h/a/b"), Err(GivenError::List));
        assert_eq!(given("forward", "{}"), Err(GivenError::List));
        assert_eq!(given("forward", "[]\nother = 1"), Err(GivenError::List));
        assert_eq!(given("origin", "flv"), Err(GivenError::Table));
    }
}
