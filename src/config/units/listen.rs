//! The addresses of a listener.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::ops::Deref;
use std::str::FromStr;

use super::{UnitError, parse_listen};

/// The most addresses of one listener: each takes a socket per loop.
const ADDRESSES_MAX: usize = 16;

/// The addresses that a listener listens on, at least one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listen(Vec<SocketAddr>);

impl Listen {
    /// The first one, of which there always is one.
    pub fn main(&self) -> SocketAddr {
        self.0[0]
    }

    /// The port of the first one.
    pub fn port(&self) -> u16 {
        self.main().port()
    }

    /// The place of the address by which this machine's own programs are best served: the first one that takes
    /// loopback connections.
    pub fn nearest(&self) -> usize {
        let is_near = |ip: IpAddr| ip.is_loopback() || ip.is_unspecified();
        self.0.iter().position(|address| is_near(address.ip())).unwrap_or(0)
    }

    /// Whether the socket at `address`, one of these, has to leave IPv4 to others. An IPv6 socket takes both families
    /// otherwise.
    pub fn is_v6_only(&self, address: SocketAddr) -> bool {
        self.0.iter().any(|other| other.is_ipv4() && other.port() == address.port())
    }
}

impl Deref for Listen {
    type Target = [SocketAddr];

    fn deref(&self) -> &[SocketAddr] {
        &self.0
    }
}

impl<T: Into<SocketAddr>> From<T> for Listen {
    fn from(address: T) -> Self {
        Self(vec![address.into()])
    }
}

impl FromStr for Listen {
    type Err = UnitError;

    fn from_str(text: &str) -> Result<Self, UnitError> {
        let addresses = text.split(',').map(|address| parse_listen(address.trim()));
        let list: Vec<SocketAddr> = addresses.collect::<Result<_, _>>()?;
        if list.len() > ADDRESSES_MAX {
            return Err(UnitError::Addresses { count: list.len(), max: ADDRESSES_MAX });
        }
        Ok(Self(list))
    }
}

impl fmt::Display for Listen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, address) in self.0.iter().enumerate() {
            let comma = if index == 0 { "" } else { "," };
            write!(f, "{comma}{address}")?;
        }
        Ok(())
    }
}

/// Parses the addresses of the admin listener: as [`Listen`], or `off`.
///
/// # Errors
/// [`UnitError::Address`], [`UnitError::Addresses`].
pub fn parse_admin(text: &str) -> Result<Option<Listen>, UnitError> {
    if text == "off" { Ok(None) } else { text.parse().map(Some) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listen(text: &str) -> Listen {
        text.parse().unwrap()
    }

    #[test]
    fn one_or_several_addresses() {
        for (text, want) in [
            (":8080", "0.0.0.0:8080"),
            ("[::]:1, :1", "[::]:1,0.0.0.0:1"),
            ("10.0.0.1:1,[2001:db8::1]:2", "10.0.0.1:1,[2001:db8::1]:2"),
        ] {
            assert_eq!(listen(text).to_string(), want);
            assert_eq!(listen(want), listen(text));
        }
        for text in ["", ",", ":1,", ",:1", ":1;:2", "localhost:1"] {
            assert!(matches!(text.parse::<Listen>(), Err(UnitError::Address { .. })), "{text:?}");
        }
        let many = vec![":0"; 17].join(",");
        assert_eq!(many.parse::<Listen>(), Err(UnitError::Addresses { count: 17, max: 16 }));
    }

    #[test]
    fn the_admin_listener_may_be_off() {
        assert_eq!(parse_admin("off"), Ok(None));
        let several = parse_admin("127.0.0.1:1,[::1]:1").unwrap().unwrap();
        assert_eq!(several.to_string(), "127.0.0.1:1,[::1]:1");
        assert!(matches!(parse_admin("127.0.0.1:1,off"), Err(UnitError::Address { .. })));
    }

    #[test]
    fn own_programs_take_an_address_of_this_machine() {
        assert_eq!(listen("10.0.0.1:1").nearest(), 0);
        assert_eq!(listen("10.0.0.1:1,[::1]:1").nearest(), 1);
        assert_eq!(listen("[2001:db8::1]:1,:1,127.0.0.1:2").nearest(), 1);
    }

    #[test]
    fn ipv4_is_left_to_a_socket_of_its_own() {
        let any = "[::]:80".parse().unwrap();
        assert!(!listen("[::]:80").is_v6_only(any));
        assert!(listen("[::]:80,0.0.0.0:80").is_v6_only(any));
        assert!(listen("[::]:80,10.0.0.1:80").is_v6_only(any));
        assert!(!listen("[::]:80,0.0.0.0:81").is_v6_only(any));
    }
}
