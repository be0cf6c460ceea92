//! The form of the values in a configuration file, for serde.

use std::fmt;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use serde::de::{self, Deserializer, Visitor};
use serde::{Deserialize, Serialize, Serializer};

use super::address::{parse_hosts, parse_names};
use super::byte_size::{format_size, parse_size};
use super::choice::{AccessFormat, LogFormat, Policy};
use super::error::UnitError;
use super::flush::Flush;
use super::hook::Hook;
use super::listen::{Listen, parse_admin};
use super::network::{Network, parse_networks};
use super::packaging::Packaging;
use super::path::parse_path_or_off;
use super::rate::Rate;
use super::record::Record;
use super::remote::Remote;
use super::secret::Secret;
use super::time::parse_duration;
use super::upstream::{Upstream, parse_service, parse_upstreams};

impl<'de> Deserialize<'de> for Secret {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Written("a token in quotes", str::parse))
    }
}

/// Reads text, a bare number or a list of text (joined by commas) and hands it to one of the parsers.
struct Written<T>(&'static str, fn(&str) -> Result<T, UnitError>);

impl<'de, T> Visitor<'de> for Written<T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<T, E> {
        (self.1)(text).map_err(E::custom)
    }

    fn visit_u64<E: de::Error>(self, number: u64) -> Result<T, E> {
        self.visit_str(&number.to_string())
    }

    fn visit_i64<E: de::Error>(self, number: i64) -> Result<T, E> {
        self.visit_str(&number.to_string())
    }

    fn visit_seq<A: de::SeqAccess<'de>>(self, mut list: A) -> Result<T, A::Error> {
        let mut words: Vec<String> = Vec::new();
        while let Some(word) = list.next_element()? {
            words.push(word);
        }
        self.visit_str(&words.join(","))
    }
}

/// A pair of serde functions for fields of foreign types.
macro_rules! written {
    ($(#[$doc:meta])* $name:ident, $type:ty, $expect:literal, $parse:expr, $write:expr) => {
        $(#[$doc])*
        pub(in crate::config) mod $name {
            use crate::config::units::written::*;

            pub(in crate::config) fn serialize<S: Serializer>(value: &$type, s: S) -> Result<S::Ok, S::Error> {
                let write: fn(&$type) -> String = $write;
                s.serialize_str(&write(value))
            }

            pub(in crate::config) fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<$type, D::Error> {
                d.deserialize_any(Written($expect, $parse))
            }
        }
    };
}

written!(size, usize, "a size as \"32MiB\"", parse_size, |bytes| format_size(*bytes));
written!(duration, Duration, "a duration as \"10s\"", parse_duration, |time| {
    humantime::format_duration(*time).to_string()
});
written!(admin, Option<Listen>, "a list of addresses or \"off\"", parse_admin, |admin| {
    admin.as_ref().map_or_else(|| "off".to_owned(), ToString::to_string)
});
written!(upstreams, Vec<Upstream>, "a list of URLs", parse_upstreams, |list| {
    list.iter().map(ToString::to_string).collect::<Vec<_>>().join(",")
});

written!(service, Option<Upstream>, "an http:// URL", parse_service, |url| {
    url.as_ref().map_or_else(String::new, ToString::to_string)
});
written!(path_or_off, Option<PathBuf>, "a path or \"off\"", parse_path_or_off, |path| {
    path.as_ref().map_or_else(|| "off".to_owned(), |path| path.display().to_string())
});
written!(hosts, Vec<IpAddr>, "a list of addresses", parse_hosts, |list| {
    list.iter().map(ToString::to_string).collect::<Vec<_>>().join(",")
});

written!(names, Vec<String>, "a list of host names", parse_names, |list| list.join(","));
written!(networks, Vec<Network>, "a list of networks as \"10.0.0.0/8\"", parse_networks, |list| {
    list.iter().map(ToString::to_string).collect::<Vec<_>>().join(",")
});

macro_rules! by_text {
    ($type:ty, $expect:literal) => {
        impl Serialize for $type {
            fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
                s.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $type {
            fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
                d.deserialize_any(Written($expect, str::parse))
            }
        }
    };
}

by_text!(Flush, "\"auto\" or a time as \"40ms\"");
by_text!(Listen, "an address as \"0.0.0.0:8080\", or a list of them");
by_text!(Policy, "\"open\", \"local\" or \"deny\"");
by_text!(Rate, "a rate as \"100Mbps\"");
by_text!(Packaging, "\"recorded\", \"none\" or some of \"hls,fmp4\"");
by_text!(Record, "\"none\" or some of \"flv,hls,fmp4\"");

impl<'de> Deserialize<'de> for Remote {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        d.deserialize_any(Written("a URL as \"rtmp://host/app/name\"", str::parse))
    }
}

by_text!(Hook, "an http:// URL or a command");
by_text!(LogFormat, "\"text\" or \"json\"");
by_text!(AccessFormat, "\"combined\" or \"json\"");
