//! Who may publish and play.

use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::error::Rule;
use super::quantities::SECOND;
use super::units::{self, Policy, Secret, Upstream};

/// What may be done with a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Action {
    /// Send it.
    Publish,
    /// Watch it, or fetch its recordings.
    Play,
}

/// Access to streams, in every role.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Auth {
    /// Who may publish without a key or a token.
    pub publish: Policy,
    /// Who may play without a key or a token.
    pub play: Policy,
    /// Keys, each for some streams.
    pub keys: Vec<KeyRule>,
    /// The file with the secrets of signed tokens, one a line; empty: none. A name without a folder is looked up
    /// among the credentials of the service.
    pub secret_file: PathBuf,
    /// Further secrets, separated by commas.
    pub secrets: Secret,
    /// Other sites whose pages may publish.
    pub origins: Vec<String>,
    /// The other sites whose pages may play; empty: all may.
    pub referers: Vec<String>,
    /// Host names, besides addresses and `localhost`, under which this machine's own programs reach the server.
    #[serde(with = "units::names")]
    pub hosts: Vec<String>,
    /// The service that decides about those who show no key and no token, instead of the policies.
    #[serde(with = "units::service")]
    pub hook: Option<Upstream>,
    /// How long it may take to answer.
    #[serde(with = "units::duration")]
    pub hook_timeout: Duration,
    /// How long its answers are kept.
    #[serde(with = "units::duration")]
    pub hook_cache: Duration,
    /// Who may publish while it does not answer.
    pub hook_down_publish: Policy,
    /// Who may play while it does not answer.
    pub hook_down_play: Policy,
    /// The key that gateways show to their upstreams; empty: a signed token if there is a secret.
    pub upstream_key: Secret,
}

/// A key and what it allows.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KeyRule {
    /// `app/name`, `app/*` for all streams of an app, or `*` for all streams.
    pub stream: String,
    /// What it allows.
    pub action: Action,
    /// The key.
    #[serde(default)]
    pub key: Secret,
    /// The file with the keys instead, one a line: all of them are valid.
    #[serde(default)]
    pub key_file: PathBuf,
}

impl Default for Auth {
    fn default() -> Self {
        Self {
            publish: Policy::Local,
            play: Policy::Open,
            keys: Vec::new(),
            secret_file: PathBuf::new(),
            secrets: Secret::default(),
            origins: Vec::new(),
            referers: Vec::new(),
            hosts: Vec::new(),
            hook: None,
            hook_timeout: SECOND * 2,
            hook_cache: SECOND * 10,
            hook_down_publish: Policy::Deny,
            hook_down_play: Policy::Open,
            upstream_key: Secret::default(),
        }
    }
}

impl Auth {
    /// The files that hold secrets.
    pub fn files(&self) -> impl Iterator<Item = &PathBuf> {
        let keys = self.keys.iter().map(|rule| &rule.key_file);
        keys.chain([&self.secret_file]).filter(|path| !path.as_os_str().is_empty())
    }

    pub(super) fn check(&self) -> Result<(), (&'static str, Rule)> {
        for rule in &self.keys {
            if rule.key.is_empty() == rule.key_file.as_os_str().is_empty() {
                return Err(("auth.keys", Rule::HalfKey { stream: rule.stream.clone() }));
            }
            if rule.stream != "*" && !super::quota::is_pattern(&rule.stream) {
                return Err(("auth.keys", Rule::Pattern { pattern: rule.stream.clone() }));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(stream: &str, key: &str, file: &str) -> Auth {
        let rule = KeyRule {
            stream: stream.to_owned(),
            action: Action::Publish,
            key: key.parse().unwrap(),
            key_file: file.into(),
        };
        Auth { keys: vec![rule], ..Auth::default() }
    }

    #[test]
    fn a_key_has_streams_and_one_value() {
        let key = "correct-horse-battery";
        for stream in ["*", "live/*", "live/a"] {
            assert_eq!(rule(stream, key, "").check(), Ok(()), "{stream}");
        }
        assert!(rule("live/*", "", "keys").check().is_ok());
        assert!(rule("live/*", "", "").check().is_err() && rule("live/*", key, "keys").check().is_err());
        assert!(rule("live", key, "").check().is_err() && rule("", key, "").check().is_err());
    }

    #[test]
    fn policies_read_back_as_written() {
        for policy in [Policy::Open, Policy::Local, Policy::Deny] {
            assert_eq!(policy.to_string().parse(), Ok(policy));
        }
        assert!("any".parse::<Policy>().is_err());
    }
}
