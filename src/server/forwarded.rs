//! What HTTP proxies tell of the clients whose requests they forward: `X-Forwarded-For`, `Forwarded` (RFC 7239) and
//! `X-Real-IP`.

use std::net::{IpAddr, SocketAddr};

use crate::config::Limits;
use crate::protocol::http::request::Request;

/// Fields by which proxies tell that they have forwarded a request.
const FIELDS: [&str; 10] = [
    "forwarded",
    "via",
    "x-forwarded-for",
    "x-forwarded-host",
    "x-forwarded-proto",
    "x-forwarded-server",
    "x-real-ip",
    "x-client-ip",
    "true-client-ip",
    "cf-connecting-ip",
];

/// Whether a proxy has forwarded a request.
pub(super) fn is_forwarded(request: &Request) -> bool {
    FIELDS.iter().any(|name| request.headers.values(name).next().is_some())
}

/// The client's address that a trusted proxy tells: the last one of a list that is not another trusted proxy. `None`
/// if there is none or the fields differ, since a proxy that sets only one of them passes on what the client has
/// written in the others.
pub(super) fn told_address(limits: &Limits, request: &Request) -> Option<IpAddr> {
    let last_of = |name, parse: fn(&str) -> Option<IpAddr>| {
        let lists: Vec<&[u8]> = request.headers.values(name).collect();
        let hops = lists.iter().rev().flat_map(|list| list.rsplit(|byte| *byte == b','));
        let mut hops = hops.map(|hop| parse(std::str::from_utf8(hop).ok()?));
        hops.find(|hop| !hop.is_some_and(|hop| limits.is_trusted(hop)))
    };
    let real = request.headers.values("x-real-ip").next();
    let real = real.map(|text| std::str::from_utf8(text).ok().and_then(node));
    let fields = [last_of("x-forwarded-for", node), last_of("forwarded", element), real];
    let mut told = fields.into_iter().flatten();
    let first = told.next()??;
    told.all(|other| other == Some(first)).then_some(first)
}

/// An element of `Forwarded`: parameters, of which `for` is the client. No address that is understood has a comma or a
/// semicolon in it.
fn element(text: &str) -> Option<IpAddr> {
    let mut values = text.split(';').filter_map(|parameter| {
        let (name, value) = parameter.trim().split_once('=')?;
        name.eq_ignore_ascii_case("for").then_some(value)
    });
    let value = values.next()?;
    let quoted = value.strip_prefix('"').and_then(|value| value.strip_suffix('"'));
    node(quoted.unwrap_or(value))
}

/// An address, perhaps with a port, perhaps in brackets.
fn node(text: &str) -> Option<IpAddr> {
    let text = text.trim();
    let bare = || text.strip_prefix('[')?.strip_suffix(']')?.parse().ok().map(IpAddr::V6);
    let with_port = || text.parse::<SocketAddr>().ok().map(|address| address.ip());
    let address = text.parse().ok().or_else(with_port).or_else(bare)?;
    Some(address.to_canonical())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::http::request::{RequestLimits, RequestReader};

    fn request(fields: &str) -> Request {
        let text = format!("GET / HTTP/1.1\r\nHost: x\r\n{fields}\r\n");
        RequestReader::new(RequestLimits::new(4096)).push(text.as_bytes()).unwrap().unwrap()
    }

    fn told(fields: &str) -> Option<IpAddr> {
        let limits = Limits { trusted: vec!["10.0.0.0/8".parse().unwrap()], ..Limits::default() };
        told_address(&limits, &request(fields))
    }

    #[test]
    fn each_field_shows_that_a_request_was_forwarded() {
        assert!(!is_forwarded(&request("X-Request-ID: 1\r\n")));
        assert!(FIELDS.iter().all(|field| is_forwarded(&request(&format!("{field}: x\r\n")))));
    }

    #[test]
    fn the_last_address_that_is_not_trusted_is_the_clients() {
        let one = "1.2.3.4".parse().ok();
        for fields in [
            "X-Forwarded-For: 127.0.0.1, 1.2.3.4, 10.9.9.9\r\n",
            "X-Forwarded-For: 6.6.6.6\r\nX-Forwarded-For: 1.2.3.4\r\n",
            "X-Forwarded-For: 1.2.3.4:5678\r\n",
            "X-Real-IP: ::ffff:1.2.3.4\r\n",
            "X-Forwarded-For: 1.2.3.4\r\nX-Real-IP: 1.2.3.4\r\n",
            "Forwarded: for=1.2.3.4\r\n",
            "Forwarded: for=6.6.6.6, for=\"1.2.3.4:80\";proto=https, proto=http;For=10.9.9.9\r\n",
            "Forwarded: for=1.2.3.4\r\nX-Forwarded-For: 1.2.3.4\r\nVia: 1.1 x\r\n",
        ] {
            assert_eq!(told(fields), one, "{fields}");
        }
        let six = "2001:db8::17".parse().ok();
        assert_eq!(told("Forwarded: for=\"[2001:db8::17]:4711\"\r\n"), six);
        assert_eq!(told("X-Forwarded-For: [2001:db8::17]\r\n"), six);
    }

    #[test]
    fn an_address_that_is_not_told_or_told_twice_is_unknown() {
        for fields in [
            "Via: 1.1 x\r\n",
            "X-Forwarded-For: unknown\r\n",
            "X-Forwarded-For: \r\n",
            "X-Forwarded-For: 10.1.1.1\r\n",
            "X-Forwarded-For: 1.2.3.4\r\nX-Real-IP: 127.0.0.1\r\n",
            "X-Forwarded-For: 1.2.3.4\r\nForwarded: for=127.0.0.1\r\n",
            "Forwarded: for=unknown\r\n",
            "Forwarded: for=\"_gazonk\"\r\n",
            "Forwarded: for=1.2.3.4, proto=https\r\n",
            "Forwarded: for=\"1.2.3.4\r\n",
        ] {
            assert_eq!(told(fields), None, "{fields}");
        }
    }
}
