//! Who may publish and play: policies, keys and signed tokens.
//!
//! Pure, except for [`load`], which reads the files of secrets. A question is answered from the configuration, the
//! question and the time alone; nothing is asked of others, and no answer is kept.
//!
//! A key or a token for the stream is enough by itself. Without one the policy of the action decides.

pub mod hook;
pub mod load;
pub mod local;
pub mod mask;
mod pattern;
pub mod sessions;
pub mod token;

use std::net::IpAddr;

use crate::config::{Policy, Secret};
use local::is_loopback;
use token::{Claims, SigningKey, TokenError};

pub use crate::config::Action;
pub use pattern::Pattern;

/// The lifetime of a token that a node signs for itself, in seconds.
const OWN_LIFE: u64 = 60;

/// A peer that asks for something.
#[derive(Clone, Copy, Debug, Default)]
pub struct Asker<'a> {
    /// Its address, or the one that a trusted proxy gives for it; `None`: unknown.
    pub address: Option<IpAddr>,
    /// Another program has forwarded its request without being trusted: the address is that program's.
    pub forwarded: bool,
    /// The name by which it reached the server: the `Host` field.
    pub host: Option<&'a str>,
    /// The site whose page sent the request: the `Origin` field.
    pub origin: Option<&'a str>,
    /// The page that sent the request: the `Referer` field.
    pub referer: Option<&'a str>,
    /// The key or the token that it shows.
    pub token: Option<&'a str>,
}

/// What is granted with an answer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Grant {
    /// When the connection has to end, in seconds since 1970.
    pub end: Option<u64>,
    /// Who the asker is, as far as it can be told: two publishers with the same identity are one.
    pub identity: Option<String>,
}

/// Why something is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Denied {
    /// The policy is `local`, and the asker is not on this machine.
    #[error(
        "only this machine may {0} without a key: show one (auth.keys, auth.secret_file) or set auth.{0} = \"open\""
    )]
    Elsewhere(Verb),
    /// The policy is `deny`.
    #[error("a key or a token is needed to {0}: auth.keys and auth.secret_file set them")]
    Needed(Verb),
    /// The asker is on this machine, but used a name that other sites can point here.
    #[error(
        "this machine's own programs use an address, localhost or a name in auth.hosts: other sites can point a name \
         here"
    )]
    Host,
    /// A page of another site wants to publish.
    #[error("a page of another site may not publish here: list the site in auth.origins")]
    Origin,
    /// A page of another site wants to play, and is not listed.
    #[error("a page of another site may not play this here: list the site in auth.referers")]
    Referer,
    /// The hook refuses.
    #[error("the service that decides about this (auth.hook) refuses it")]
    Hook,
    /// What was shown is no key of this stream and no token.
    #[error("this key is not one that may {0} the stream")]
    Key(Verb),
    /// The token is not valid.
    #[error("the token {0}")]
    Token(#[from] TokenError),
}

/// An action as a verb.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Verb(pub Action);

impl std::fmt::Display for Verb {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self.0 {
            Action::Publish => "publish",
            Action::Play => "play",
        })
    }
}

impl Denied {
    /// The HTTP status: 401 asks for a key, 403 does not.
    pub const fn status(self) -> u16 {
        match self {
            Self::Elsewhere(_) | Self::Needed(_) | Self::Hook => 401,
            Self::Host | Self::Origin | Self::Referer | Self::Key(_) | Self::Token(_) => 403,
        }
    }
}

/// Some streams: those that an asker may do something with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Streams {
    /// All streams.
    All,
    /// Those that one of the patterns names.
    Some(Vec<Pattern>),
}

impl Streams {
    /// Whether a stream is one of them.
    pub fn contain(&self, stream: &str) -> bool {
        match self {
            Self::All => true,
            Self::Some(patterns) => patterns.iter().any(|pattern| pattern.matches(stream)),
        }
    }
}

/// A key rule with its keys.
#[derive(Clone, Debug)]
struct Key {
    streams: Pattern,
    action: Action,
    values: Vec<Secret>,
}

/// The policies while the hook is down.
#[derive(Debug)]
struct Down {
    publish: Policy,
    play: Policy,
}

/// The rules.
#[derive(Debug)]
pub struct Access {
    publish: Policy,
    play: Policy,
    /// There is a hook, which decides instead of the policies; these hold while it is down.
    hook: Option<Down>,
    keys: Vec<Key>,
    /// The first one signs.
    secrets: Vec<SigningKey>,
    /// Signs for the roles of this process, if there is no secret.
    own: SigningKey,
    upstream_key: Secret,
    origins: Vec<String>,
    referers: Vec<String>,
    hosts: Vec<String>,
}

impl Access {
    const fn policy(&self, action: Action) -> Policy {
        match action {
            Action::Publish => self.publish,
            Action::Play => self.play,
        }
    }

    /// Whether `asker` may do something with a stream at `now`, in seconds since 1970.
    ///
    /// # Errors
    /// [`Denied`], with the reason for the asker.
    pub fn authorise(
        &self,
        action: Action,
        stream: &str,
        asker: &Asker<'_>,
        now: u64,
    ) -> Result<Grant, Denied> {
        let shown = asker.token.map(|token| self.by_token(action, stream, (token, asker.address), now));
        let why = match shown {
            Some(Ok(grant)) => return Ok(grant),
            Some(Err(why)) => Some(why),
            None => None,
        };
        match (self.by_policy(action, asker), why) {
            (Ok(()), _) => Ok(Grant { end: None, identity: asker.token.map(|token| format!("key {token}")) }),
            (Err(Denied::Elsewhere(_) | Denied::Needed(_)), Some(why)) => Err(why),
            (Err(denied), _) => Err(denied),
        }
    }

    /// Whether a hook decides about those who show no valid key or token.
    pub const fn has_hook(&self) -> bool {
        self.hook.is_some()
    }

    /// Whether `asker` may do something with a stream while the hook is down.
    ///
    /// # Errors
    /// [`Denied`].
    pub fn while_down(&self, action: Action, asker: &Asker<'_>) -> Result<Grant, Denied> {
        let down =
            self.hook.as_ref().map(|down| if action == Action::Publish { down.publish } else { down.play });
        self.check(down.unwrap_or(Policy::Deny), action, asker)?;
        Ok(Grant { end: None, identity: asker.token.map(|token| format!("key {token}")) })
    }

    /// The streams that `asker` may do something with.
    pub fn streams(&self, action: Action, asker: &Asker<'_>, now: u64) -> Streams {
        if self.by_policy(action, asker).is_ok() {
            return Streams::All;
        }
        let Some(token) = asker.token else { return Streams::Some(Vec::new()) };
        let of_keys = self.keys.iter().filter(|key| key.action == action && key.has(token));
        let mut patterns: Vec<Pattern> = of_keys.map(|key| key.streams.clone()).collect();
        let claims = self.verify(token, now).ok();
        let claims = claims.filter(|claims| claims.holds(action, asker.address).is_ok());
        patterns.extend(claims.map(|claims| Pattern::new(&claims.stream)));
        if patterns.contains(&Pattern::All) { Streams::All } else { Streams::Some(patterns) }
    }

    /// The policy's answer, for an asker without a key.
    fn by_policy(&self, action: Action, asker: &Asker<'_>) -> Result<(), Denied> {
        let policy = if self.has_hook() { Policy::Deny } else { self.policy(action) };
        self.check(policy, action, asker)
    }

    fn check(&self, policy: Policy, action: Action, asker: &Asker<'_>) -> Result<(), Denied> {
        match policy {
            Policy::Deny => return Err(Denied::Needed(Verb(action))),
            Policy::Local if asker.forwarded || !asker.address.is_some_and(is_loopback) => {
                return Err(Denied::Elsewhere(Verb(action)));
            }
            Policy::Local if !asker.host.is_none_or(|host| local::is_own_name(host, &self.hosts)) => {
                return Err(Denied::Host);
            }
            Policy::Local | Policy::Open => {}
        }
        let is_of = |sites, page| local::is_own_page(page, asker.host) || local::is_listed(page, sites);
        match action {
            Action::Publish if !asker.origin.is_none_or(|origin| is_of(&self.origins, origin)) => {
                Err(Denied::Origin)
            }
            Action::Play if !self.referers.is_empty() => {
                let page = asker.referer.map(local::site_of).or(asker.origin);
                if page.is_none_or(|page| is_of(&self.referers, page)) {
                    Ok(())
                } else {
                    Err(Denied::Referer)
                }
            }
            Action::Publish | Action::Play => Ok(()),
        }
    }

    /// The answer to what an asker at an address shows.
    fn by_token(
        &self,
        action: Action,
        stream: &str,
        (token, address): (&str, Option<IpAddr>),
        now: u64,
    ) -> Result<Grant, Denied> {
        let is_for = |key: &&Key| key.action == action && key.streams.matches(stream);
        if self.keys.iter().filter(is_for).any(|key| key.has(token)) {
            return Ok(Grant { end: None, identity: Some(format!("key {token}")) });
        }
        if !token::has_form(token) {
            return Err(Denied::Key(Verb(action)));
        }
        let claims = self.verify(token, now)?;
        claims.holds(action, address)?;
        if !Pattern::new(&claims.stream).matches(stream) {
            return Err(TokenError::Stream.into());
        }
        let identity =
            claims.sub.map_or_else(|| format!("key {token}"), |subject| format!("subject {subject}"));
        Ok(Grant { end: claims.end, identity: Some(identity) })
    }

    fn verify(&self, token: &str, now: u64) -> Result<Claims, TokenError> {
        token::verify(self.secrets.iter().chain([&self.own]), token, now)
    }

    /// A token for an action by this process's own programs or, if there is a secret, by this node.
    pub fn sign(&self, claims: &Claims) -> String {
        token::sign(self.secrets.first().unwrap_or(&self.own), claims)
    }

    /// What a gateway shows to play a stream of an upstream; `None`: nothing. `is_own`: the upstream is in this
    /// process.
    pub fn for_upstream(&self, stream: &str, is_own: bool, now: u64) -> Option<String> {
        if !self.upstream_key.is_empty() {
            return Some(self.upstream_key.reveal().to_owned());
        }
        let signs = is_own || !self.secrets.is_empty();
        signs.then(|| self.sign(&Claims::new(Action::Play, stream, now.saturating_add(OWN_LIFE))))
    }
}

impl Key {
    fn has(&self, shown: &str) -> bool {
        self.values.iter().fold(false, |found, value| value.is(shown) | found)
    }
}

#[cfg(test)]
mod tests;
