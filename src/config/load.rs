//! The layers of a configuration, and how an error is traced back to the line that caused it.
//!
//! *Defaults < TOML file < environment < flags.* The environment is an argument, so that a reload and a test
//! use exactly what they are given.

mod given;
mod line;

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use figment::error::{Actual, Kind};
use figment::providers::{Format, Serialized, Toml};
use figment::value::{Dict, Map, Value};
use figment::{Figment, Metadata, Profile, Provider};

use super::units::masked;
use super::{Config, ConfigError, Place, Problem, Role, Rule};
pub(super) use given::GivenError;
use line::line_of;

/// Read when no file is named, if it exists.
pub const DEFAULT_FILE: &str = "/etc/uringcast/uringcast.toml";
/// The prefix of all variables; `__` separates a table from its key.
pub const ENV_PREFIX: &str = "URINGCAST_";
/// Names the file, as `--config` does.
pub const ENV_FILE: &str = "URINGCAST_CONFIG";

/// One value from the environment or the command line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Setting {
    /// Where the user wrote it.
    pub place: Place,
    /// The key with its table, `origin.rtmp`.
    pub key: String,
    /// The text as written.
    pub value: String,
}

/// The sources of the layers above the defaults. Kept for a reload.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sources {
    /// The TOML file, if any.
    pub file: Option<PathBuf>,
    /// Values of the environment, in any order.
    pub environment: Vec<Setting>,
    /// Values of the command line; a later one wins.
    pub flags: Vec<Setting>,
}

impl Sources {
    /// Takes the variables with the prefix out of an environment, except [`ENV_FILE`].
    pub fn with_environment(mut self, variables: impl Iterator<Item = (OsString, OsString)>) -> Self {
        for (name, value) in variables {
            let (Some(name), Some(value)) = (name.to_str(), value.to_str()) else { continue };
            let Some(key) = name.strip_prefix(ENV_PREFIX) else { continue };
            if name == ENV_FILE {
                self.file.get_or_insert_with(|| value.into());
                continue;
            }
            let key = key.to_ascii_lowercase().replace("__", ".");
            let place = Place::Environment(name.to_owned());
            self.environment.push(Setting { place, key, value: value.to_owned() });
        }
        self
    }

    /// Builds the configuration of a role and validates it.
    ///
    /// The all-in-one and the demo fill in what the user left out: the gateway pulls from the origin in the
    /// same process, the file gateway serves the origin's data.
    ///
    /// # Errors
    /// [`ConfigError`], which names the place, the key and the remedy.
    pub fn load(&self, role: Role) -> Result<Config, ConfigError> {
        let layers = self.layers(&Config::for_role(role))?;
        let mut config = layers.extract()?;
        if role.has_origin() && role.has_flv_gateway() && config.flv_gateway.upstream.is_empty() {
            config.flv_gateway.upstream.push(config.origin.beside());
        }
        let web_is_default = || layers.place("origin.web") == Place::Default;
        if matches!(role, Role::AllInOne | Role::Origin) && config.tls.is_on() && web_is_default() {
            config.origin.secure_web();
        }
        if role == Role::AllInOne && layers.place("file_gateway.root") == Place::Default {
            config.file_gateway.root = config.origin.data.clone();
        }
        config.validate_role(role).map_err(|broken| layers.broken(broken))?;
        Ok(config)
    }

    /// Builds the configuration without a role, to check what is written.
    ///
    /// # Errors
    /// As [`Sources::load`], except for rules of roles.
    pub fn check(&self) -> Result<Config, ConfigError> {
        self.layers(&Config::default())?.extract()
    }

    fn layers(&self, defaults: &Config) -> Result<Layers, ConfigError> {
        let Value::Dict(_, known) = Value::serialize(defaults).expect("plain data") else {
            unreachable!("a configuration is a table")
        };
        let mut layers = Layers {
            figment: Figment::from(Serialized::defaults(defaults)),
            file: self.file.clone(),
            text: String::new(),
        };
        if let Some(path) = &self.file {
            layers.text = std::fs::read_to_string(path)
                .map_err(|e| ConfigError::Unreadable { path: path.clone(), kind: e.kind() })?;
            let dict = parse_toml(path, &layers.text)?;
            layers.add(&Place::File { path: path.clone(), line: None }, dict);
        }
        for Setting { place, key, value } in self.environment.iter().chain(&self.flags) {
            let value = given::value(&known, key, value).map_err(|problem| ConfigError::Key {
                place: place.clone(),
                key: key.clone(),
                problem: problem.into(),
            })?;
            let Value::Dict(_, dict) = figment::util::nest(key, value) else { continue };
            layers.add(place, dict);
        }
        Ok(layers)
    }
}

fn parse_toml(path: &Path, text: &str) -> Result<Dict, ConfigError> {
    Toml::from_str(text).map_err(|error: <Toml as Format>::Error| {
        let before = error.span().and_then(|span| text.get(..span.start));
        let line = before.map(|before| before.matches('\n').count() + 1);
        let place = Place::File { path: path.to_owned(), line };
        ConfigError::Syntax { place, what: error.message().replace('\n', ", ") }
    })
}

/// One layer: a dict whose values are traced to their place by the layer's name.
struct Layer {
    name: String,
    dict: Dict,
}

impl Provider for Layer {
    fn metadata(&self) -> Metadata {
        Metadata::named(self.name.clone())
    }

    fn data(&self) -> Result<Map<Profile, Dict>, figment::Error> {
        Ok(Profile::Default.collect(self.dict.clone()))
    }
}

/// All layers, and the file's text to find lines in.
struct Layers {
    figment: Figment,
    file: Option<PathBuf>,
    text: String,
}

const FILE: &str = "file";
const ENVIRONMENT: &str = "environment ";
const FLAG: &str = "flag ";

impl Layers {
    fn add(&mut self, place: &Place, dict: Dict) {
        let name = match place {
            Place::File { .. } => FILE.to_owned(),
            Place::Environment(name) => format!("{ENVIRONMENT}{name}"),
            Place::Flag(name) => format!("{FLAG}{name}"),
            Place::Default => return,
        };
        self.figment = std::mem::take(&mut self.figment).merge(Layer { name, dict });
    }

    fn extract(&self) -> Result<Config, ConfigError> {
        let mut config: Config = self.figment.extract().map_err(|error| self.located(error))?;
        config.admin_explicit = self.place("admin") != Place::Default;
        config.validate().map_err(|broken| self.broken(broken))?;
        Ok(config)
    }

    /// Where the value of a key was written.
    fn place(&self, key: &str) -> Place {
        self.place_by(self.figment.find_metadata(key), key)
    }

    fn place_by(&self, metadata: Option<&Metadata>, key: &str) -> Place {
        let name = metadata.map_or("", |metadata| metadata.name.as_ref());
        if let Some(name) = name.strip_prefix(ENVIRONMENT) {
            return Place::Environment(name.to_owned());
        }
        if let Some(name) = name.strip_prefix(FLAG) {
            return Place::Flag(name.to_owned());
        }
        match &self.file {
            Some(path) if name == FILE => Place::File { path: path.clone(), line: line_of(&self.text, key) },
            _ => Place::Default,
        }
    }

    fn broken(&self, (key, rule): (&'static str, Rule)) -> ConfigError {
        ConfigError::Key { place: self.place(key), key: key.to_owned(), problem: rule.into() }
    }

    fn located(&self, error: figment::Error) -> ConfigError {
        let mut path = error.path.clone();
        let problem = match &error.kind {
            Kind::UnknownField(name, known) => {
                if path.last() != Some(name) {
                    path.push(name.clone());
                }
                Problem::Unknown { near: nearest(name, known) }
            }
            Kind::InvalidType(is, expected) => {
                let expected = match expected.as_str() {
                    "a map" => "a table",
                    "a sequence" => "a list",
                    text if text.starts_with("struct ") => "a table",
                    text => text,
                };
                let is = match is {
                    Actual::Str(text) => format!("string {:?}", masked(text)),
                    other => other.to_string(),
                };
                Problem::Malformed(format!("{is} was given, {expected} is needed"))
            }
            Kind::MissingField(name) => Problem::Missing { key: name.to_string() },
            Kind::Message(text) => Problem::Malformed(text.clone()),
            other => Problem::Malformed(other.to_string()),
        };
        let key = path.join(".");
        let place = match self.place(&key) {
            Place::Default => self.place_by(error.metadata.as_ref(), &key),
            place => place,
        };
        ConfigError::Key { place, key, problem }
    }
}

/// The known key that a mistyped one was probably meant to be: they differ by at most two letters.
fn nearest(name: &str, known: &'static [&'static str]) -> Option<&'static str> {
    let near = |key: &&&str| distance(name, key) <= if key.len() >= 4 { 2 } else { 1 };
    known.iter().filter(near).min_by_key(|key| distance(name, key)).copied()
}

/// Letters to insert, delete or replace to make one word of the other.
fn distance(one: &str, other: &str) -> usize {
    let other: Vec<char> = other.chars().collect();
    let mut row: Vec<usize> = (0..=other.len()).collect();
    for (i, a) in one.chars().enumerate() {
        let mut diagonal = std::mem::replace(&mut row[0], i + 1);
        for (j, b) in other.iter().enumerate() {
            let replace = diagonal + usize::from(a != *b);
            diagonal = row[j + 1];
            row[j + 1] = replace.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[other.len()]
}

#[cfg(test)]
#[path = "load_tests.rs"]
mod tests;
