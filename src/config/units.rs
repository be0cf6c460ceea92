//! The values a user writes, one file per kind: addresses, sizes, durations, rates, networks, URLs, secrets,
//! words.
//!
//! Each has one parser from text, which the file, the environment and the flags share, and an error that says
//! what to write instead. No names are resolved and nothing is opened here.

mod address;
mod byte_size;
mod choice;
mod error;
mod flush;
mod hook;
mod listen;
mod mask;
mod network;
mod packaging;
mod path;
mod rate;
mod record;
mod remote;
mod secret;
mod time;
mod upstream;
mod written;

pub use address::parse_listen;
pub use byte_size::{format_size, parse_size};
pub use choice::{AccessFormat, LogFormat, Policy, SendPath};
pub use error::UnitError;
pub use flush::Flush;
pub use hook::Hook;
pub use listen::{Listen, parse_admin};
pub use mask::masked;
pub use network::{Network, client_address, is_private};
pub use packaging::Packaging;
pub use path::parse_path_or_off;
pub use rate::Rate;
pub use record::Record;
pub use remote::Remote;
pub use secret::Secret;
pub use time::parse_duration;
pub use upstream::Upstream;
pub(super) use written::{admin, duration, hosts, names, networks, path_or_off, service, size, upstreams};

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::address::{parse_hosts, parse_names};
    use super::*;

    proptest! {
        /// An accepted value is written and read back unchanged, and nothing panics.
        #[test]
        fn any_text_is_a_value_or_refused(text in "[0-9a-zA-Z:/.,@?=&{}\\[\\]% \u{e9}~-]{0,40}") {
            let _ = (parse_listen(&text), parse_admin(&text), parse_duration(&text), masked(&text));
            let _ = (parse_hosts(&text), parse_names(&text), text.parse::<Remote>(), text.parse::<Secret>());
            if let Ok(listen) = text.parse::<Listen>() {
                prop_assert_eq!(listen.to_string().parse(), Ok(listen));
            }
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
