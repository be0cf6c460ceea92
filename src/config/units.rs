//! The values a user writes, one file per kind: addresses, sizes, durations, rates, networks, URLs, secrets, words.
//!
//! Each has one parser from text that the file, the environment and the flags share, and an error that says
//! what to write instead. Nothing here resolves names or opens anything.

mod address;
mod byte_size;
mod choice;
mod hook;
mod mask;
mod network;
mod rate;
mod record;
mod remote;
mod secret;
mod time;
mod upstream;

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use serde::de::{self, Deserializer, Visitor};
use serde::{Deserialize, Serialize, Serializer};

pub use address::{parse_admin, parse_listen};
pub use byte_size::{format_size, parse_size};
pub use choice::{AccessFormat, LogFormat, SendPath};
pub use hook::Hook;
pub use mask::masked;
pub use network::{Network, client_address, is_private};
pub use rate::Rate;
pub use record::Record;
pub use remote::Remote;
pub use secret::Secret;
pub use time::parse_duration;
pub use upstream::Upstream;

use address::{parse_hosts, parse_names};
use network::parse_networks;
use upstream::parse_upstreams;

/// What is wrong with a value, and how to write it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UnitError {
    /// Not an address to listen on.
    #[error("{text:?} is not an address: write \"0.0.0.0:8080\", \"[::]:8080\" or \":8080\"")]
    Address {
        /// What was written.
        text: String,
    },
    /// Not a number of bytes.
    #[error("{text:?} is not a size: write a number of bytes or \"512KiB\", \"32MiB\", \"1GiB\"")]
    Size {
        /// What was written.
        text: String,
    },
    /// Not a duration.
    #[error("{text:?} is not a duration: write \"350ms\", \"10s\" or \"1m 30s\"")]
    Duration {
        /// What was written.
        text: String,
    },
    /// Not the URL of an upstream.
    #[error("{text:?} is not an upstream ({why}): write \"http://host[:port][/prefix]\"")]
    Upstream {
        /// What was written.
        text: String,
        /// The part that is wrong.
        why: &'static str,
    },
    /// Not the URL of a stream on another server.
    #[error(
        "{text:?} is not the URL of a stream ({why}): write \"rtmp://host/app/name\" or \"http://host:8501/app/name.flv\""
    )]
    Remote {
        /// What was written.
        text: String,
        /// The part that is wrong.
        why: &'static str,
    },
    /// Not a kind of recording.
    #[error("{text:?} cannot be recorded: write \"none\" or some of \"flv,hls,fmp4\"")]
    Record {
        /// What was written.
        text: String,
    },
    /// Not a form of the access log.
    #[error("{text:?} is not a form of the access log: write \"combined\" or \"json\"")]
    AccessFormat {
        /// What was written.
        text: String,
    },
    /// Not the address of a host.
    #[error("{text:?} is not a list of addresses: write \"127.0.0.1,::1\"")]
    Hosts {
        /// What was written.
        text: String,
    },
    /// Not names of hosts.
    #[error("{text:?} is not a list of host names: write \"edge1.example,edge1\", without ports")]
    Names {
        /// What was written.
        text: String,
    },
    /// Not bits per second.
    #[error("{text:?} is not a rate: write bits a second or \"64kbps\", \"100Mbps\", \"1Gbps\"")]
    Rate {
        /// What was written.
        text: String,
    },
    /// Not a network.
    #[error("{text:?} is not a network ({why}): write \"10.0.0.0/8\", \"2001:db8::/32\" or an address")]
    Network {
        /// What was written.
        text: String,
        /// The part that is wrong.
        why: &'static str,
    },
    /// Not fit to be a secret; it is not repeated.
    #[error("what is written is no token: write at least 16 letters, digits and signs, not digits alone")]
    Secret,
    /// Not a log format.
    #[error("{text:?} is not a log format: write \"text\" or \"json\"")]
    LogFormat {
        /// What was written.
        text: String,
    },
}

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
        pub(super) mod $name {
            use super::*;

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

written!(listen, SocketAddr, "an address as \"0.0.0.0:8080\"", parse_listen, ToString::to_string);
written!(size, usize, "a size as \"32MiB\"", parse_size, |bytes| format_size(*bytes));
written!(duration, Duration, "a duration as \"10s\"", parse_duration, |time| {
    humantime::format_duration(*time).to_string()
});
written!(admin, Option<SocketAddr>, "an address or \"off\"", parse_admin, |admin| {
    admin.map_or_else(|| "off".to_owned(), |address| address.to_string())
});
written!(upstreams, Vec<Upstream>, "a list of URLs", parse_upstreams, |list| {
    list.iter().map(ToString::to_string).collect::<Vec<_>>().join(",")
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

/// Parses a path, or `off`.
///
/// # Errors
/// None: any other text is a path.
pub fn parse_path_or_off(text: &str) -> Result<Option<PathBuf>, UnitError> {
    Ok((text != "off").then(|| text.into()))
}

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

by_text!(Rate, "a rate as \"100Mbps\"");
by_text!(Record, "\"none\" or some of \"flv,hls,fmp4\"");

impl<'de> Deserialize<'de> for Remote {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        d.deserialize_any(Written("a URL as \"rtmp://host/app/name\"", str::parse))
    }
}

by_text!(Hook, "an http:// URL or a command");
by_text!(LogFormat, "\"text\" or \"json\"");
by_text!(AccessFormat, "\"combined\" or \"json\"");

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// What is accepted reads back as the same, and nothing panics.
        #[test]
        fn any_text_is_a_value_or_refused(text in "[0-9a-zA-Z:/.,@?=&{}\\[\\]% \u{e9}~-]{0,40}") {
            let _ = (parse_listen(&text), parse_admin(&text), parse_duration(&text), masked(&text));
            let _ = (parse_hosts(&text), parse_names(&text), text.parse::<Remote>(), text.parse::<Secret>());
            if let Ok(size) = parse_size(&text) {
                prop_assert_eq!(parse_size(&format_size(size)), Ok(size));
            }
            if let Ok(rate) = text.parse::<Rate>() {
                prop_assert_eq!(rate.to_string().parse(), Ok(rate));
            }
            if let Ok(network) = text.parse::<Network>() {
                prop_assert_eq!(network.to_string().parse(), Ok(network));
            }
            if let Ok(upstream) = text.parse::<Upstream>() {
                prop_assert_eq!(upstream.to_string().parse(), Ok(upstream));
            }
        }

        #[test]
        fn networks_read_back_as_written(bits: u32, wide: u128, prefix in 0u8..=128) {
            let short = prefix.min(32);
            let mask = u32::MAX.checked_shl(32 - u32::from(short)).unwrap_or(0);
            let own = std::net::Ipv4Addr::from_bits(bits & mask);
            let network: Network = format!("{own}/{short}").parse().unwrap();
            prop_assert!(network.contains(std::net::Ipv4Addr::from_bits(bits).into()));
            prop_assert_eq!(network.to_string().parse(), Ok(network));
            let mask = u128::MAX.checked_shl(128 - u32::from(prefix)).unwrap_or(0);
            let own = std::net::Ipv6Addr::from_bits(wide & mask);
            // An IPv4 address that is written as IPv6 counts as IPv4.
            prop_assume!(own.to_ipv4_mapped().is_none() && std::net::Ipv6Addr::from_bits(wide).to_ipv4_mapped().is_none());
            let network: Network = format!("{own}/{prefix}").parse().unwrap();
            prop_assert!(network.contains(std::net::Ipv6Addr::from_bits(wide).into()));
        }
    }
}
