//! Addresses to listen on and addresses of hosts.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use super::UnitError;

/// Parses an address to listen on; without a host it means every IPv4 address.
///
/// # Errors
/// [`UnitError::Address`]: names are not resolved, so `localhost:80` is refused.
pub fn parse_listen(text: &str) -> Result<SocketAddr, UnitError> {
    let wrong = || UnitError::Address { text: text.to_owned() };
    match text.strip_prefix(':') {
        Some(port) => {
            let port = port.parse().map_err(|_| wrong())?;
            Ok(SocketAddr::from((Ipv4Addr::UNSPECIFIED, port)))
        }
        None => text.parse().map_err(|_| wrong()),
    }
}

/// Parses a comma-separated list of addresses.
///
/// # Errors
/// [`UnitError::Hosts`].
pub(super) fn parse_hosts(text: &str) -> Result<Vec<IpAddr>, UnitError> {
    let hosts = text.split(',').map(str::trim).filter(|host| !host.is_empty()).map(str::parse);
    hosts.collect::<Result<_, _>>().map_err(|_| UnitError::Hosts { text: text.to_owned() })
}

/// Parses a comma-separated list of host names and converts them to lower case.
///
/// # Errors
/// [`UnitError::Names`]: a port or a wildcard is not part of a name.
pub(super) fn parse_names(text: &str) -> Result<Vec<String>, UnitError> {
    let good = |name: &str| {
        name.len() <= 253 && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._".contains(&byte))
    };
    let names: Vec<&str> = text.split(',').map(str::trim).filter(|name| !name.is_empty()).collect();
    if !names.iter().all(|name| good(name)) {
        return Err(UnitError::Names { text: text.to_owned() });
    }
    Ok(names.into_iter().map(str::to_ascii_lowercase).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses() {
        for (text, want) in
            [(":8080", "0.0.0.0:8080"), ("127.0.0.1:1", "127.0.0.1:1"), ("[::]:80", "[::]:80")]
        {
            assert_eq!(parse_listen(text).unwrap().to_string(), want);
        }
        for text in ["", ":", "8080", "localhost:80", ":65536", "1.2.3.4", ":-1"] {
            assert_eq!(parse_listen(text), Err(UnitError::Address { text: text.to_owned() }));
        }
    }

    #[test]
    fn names_of_hosts() {
        assert_eq!(parse_names("Edge.example, b-1"), Ok(vec!["edge.example".to_owned(), "b-1".to_owned()]));
        assert_eq!(parse_names(""), Ok(vec![]));
        for text in ["edge.example:9935", "*.example", "http://edge", "a b"] {
            assert_eq!(parse_names(text), Err(UnitError::Names { text: text.to_owned() }), "{text}");
        }
    }
}
