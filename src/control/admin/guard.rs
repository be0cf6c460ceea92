//! Decides which requests may list viewers and end them: those of operators, but not those from pages of other
//! sites.
//!
//! A browser lets any page send requests to a loopback address. Three rules keep such pages out: an `Origin`
//! other than this server's is refused; no other origin may read an answer (there is no CORS and no preflight);
//! and a request under a host name that others could point at this address (DNS rebinding) is refused, whatever
//! it asks for, unless it carries the token.

use std::net::IpAddr;

use crate::config::Secret;
use crate::protocol::http::request::Request;

/// What an operator has to present.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Access {
    /// Nothing: every client of the listener is an operator.
    Open,
    /// The token.
    Token,
    /// Nothing is accepted: there is no token, and the listener is reachable from the network.
    Off,
}

impl Access {
    /// Its name in the status page's data.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::Token => "token",
            Self::Off => "off",
        }
    }
}

/// The rules of one address of the listener.
#[derive(Clone, Debug)]
pub(super) struct Guard {
    token: Secret,
    /// The host names that are accepted, in lower case.
    hosts: Vec<String>,
    pub(super) access: Access,
}

/// Why a request is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Denied {
    /// A page of another origin sent it.
    #[error("Requests from pages of other sites are refused.")]
    Foreign,
    /// The host name is one that others could point at this address.
    #[error(
        "Ask by the address itself or as localhost, list the name in admin_hosts, or show the admin_token: other \
         sites can point a name here."
    )]
    Name,
    /// The token is missing or wrong.
    #[error("Send the admin_token as \"Authorization: Bearer TOKEN\".")]
    Token,
    /// No token is configured.
    #[error(
        "Without admin_token this is answered on a loopback address only: set admin_token, or change admin."
    )]
    Off,
}

impl Denied {
    pub(super) const fn status(self) -> u16 {
        match self {
            Self::Token => 401,
            Self::Foreign | Self::Name | Self::Off => 403,
        }
    }
}

impl Guard {
    /// For a socket that listens at `address`.
    pub(super) fn new(token: Secret, hosts: Vec<String>, address: IpAddr) -> Self {
        let access = match (token.is_empty(), address.is_loopback()) {
            (false, _) => Access::Token,
            (true, true) => Access::Open,
            (true, false) => Access::Off,
        };
        Self { token, hosts, access }
    }

    /// The rules for a client for which a proxy has connected: that one is on this machine does not make an operator of
    /// the other.
    pub(super) fn of_client(&self, client: IpAddr) -> Self {
        let access = match self.access {
            Access::Open if !client.is_loopback() => Access::Off,
            access => access,
        };
        Self { access, ..self.clone() }
    }

    /// Whether a request may have any answer at all. One without a `Host`, which HTTP/1.0 allows, does not come
    /// from a browser.
    pub(super) fn check_open(&self, request: &Request) -> Result<(), Denied> {
        match request.header("host") {
            Some(host) if !self.is_own(host) && !self.is_shown(request) => Err(Denied::Name),
            _ => Ok(()),
        }
    }

    /// Whether a request may have what is reserved for operators.
    pub(super) fn check(&self, request: &Request) -> Result<(), Denied> {
        let host = request.header("host").unwrap_or_default();
        let own = |origin: &str| {
            let rest = origin.strip_prefix("http://").or_else(|| origin.strip_prefix("https://"));
            rest.is_some_and(|rest| rest.eq_ignore_ascii_case(host))
        };
        if request.header("origin").is_some_and(|origin| !own(origin)) {
            return Err(Denied::Foreign);
        }
        let site = request.header("sec-fetch-site").unwrap_or("none");
        if !matches!(site, "none" | "same-origin") {
            return Err(Denied::Foreign);
        }
        match self.access {
            Access::Off => Err(Denied::Off),
            Access::Open if self.is_own(host) => Ok(()),
            Access::Open => Err(Denied::Name),
            Access::Token if self.is_shown(request) => Ok(()),
            Access::Token => Err(Denied::Token),
        }
    }

    /// Whether the token is present and right.
    fn is_shown(&self, request: &Request) -> bool {
        let shown = request.header("authorization").and_then(|value| value.strip_prefix("Bearer "));
        shown.is_some_and(|token| self.token.is(token.trim()))
    }

    /// Whether a `Host`, with or without a port, is an address, `localhost` or a listed name: other sites
    /// cannot point these at this server.
    fn is_own(&self, host: &str) -> bool {
        let name = match host.rsplit_once(':') {
            Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
            _ => host,
        };
        let bare = name.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(name);
        name.eq_ignore_ascii_case("localhost")
            || bare.parse::<IpAddr>().is_ok()
            || self.hosts.iter().any(|own| own.eq_ignore_ascii_case(name))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::http::request::{RequestLimits, RequestReader};

    const TOKEN: &str = "0123456789abcdef";
    const LOOPBACK: &str = "127.0.0.1";

    fn guard(token: &str, address: &str) -> Guard {
        Guard::new(token.parse().unwrap(), vec!["edge1.example".to_owned()], address.parse().unwrap())
    }

    fn request(head: &str) -> Request {
        let mut reader = RequestReader::new(RequestLimits::new(4096));
        reader.push(head.as_bytes()).unwrap().unwrap()
    }

    #[test]
    fn everything_is_refused_under_other_host_names() {
        for (address, token) in [(LOOPBACK, ""), ("10.0.0.1", ""), (LOOPBACK, TOKEN)] {
            let ask = |headers: &str| {
                guard(token, address).check_open(&request(&format!("GET /metrics HTTP/1.1\r\n{headers}\r\n")))
            };
            for host in [
                "127.0.0.1:9935",
                "10.0.0.1",
                "[::1]:9935",
                "localhost",
                "edge1.example",
                "EDGE1.example:9935",
            ] {
                assert_eq!(ask(&format!("Host: {host}\r\n")), Ok(()), "{host}");
            }
            for host in ["evil.example", "edge1.example.evil.example", "xedge1.example", ""] {
                assert_eq!(ask(&format!("Host: {host}\r\n")), Err(Denied::Name), "{host}");
            }
            let shown = ask(&format!("Host: any.example\r\nAuthorization: Bearer {TOKEN}\r\n"));
            assert_eq!(shown.is_ok(), token == TOKEN);
            assert_eq!(guard(token, address).check_open(&request("GET /livez HTTP/1.0\r\n\r\n")), Ok(()));
        }
    }

    fn check(token: &str, address: &str, headers: &str) -> Result<(), Denied> {
        let guard = guard(token, address);
        guard.check(&request(&format!("DELETE /api/v1/viewers/x HTTP/1.1\r\n{headers}\r\n")))
    }

    #[test]
    fn every_client_on_loopback_is_allowed() {
        for host in ["127.0.0.1:9935", "localhost:9935", "LocalHost", "[::1]:9935", "127.0.0.1"] {
            assert_eq!(check("", LOOPBACK, &format!("Host: {host}\r\n")), Ok(()), "{host}");
            let same = format!("Host: {host}\r\nOrigin: http://{host}\r\nSec-Fetch-Site: same-origin\r\n");
            assert_eq!(check("", LOOPBACK, &same), Ok(()), "{host}");
        }
    }

    #[test]
    fn pages_of_other_origins_are_refused() {
        let host = "Host: 127.0.0.1:9935\r\n";
        for (token, header) in [
            ("", "Origin: http://evil.example"),
            ("", "Origin: null"),
            ("", "Origin: http://127.0.0.1:8088"),
            ("", "Origin: http://127.0.0.1:9935.evil.example"),
            ("", "Sec-Fetch-Site: cross-site"),
            ("", "Sec-Fetch-Site: same-site"),
            (TOKEN, "Origin: http://evil.example\r\nAuthorization: Bearer 0123456789abcdef"),
        ] {
            assert_eq!(
                check(token, LOOPBACK, &format!("{host}{header}\r\n")),
                Err(Denied::Foreign),
                "{header}"
            );
        }
        // An attacker's name that resolves to the loopback address: for the browser it is the attacker's own
        // site.
        for host in ["evil.example:9935", "localhost.evil.example", "127.0.0.1.evil.example", "0x7f.1:80", ""]
        {
            let own = format!("Host: {host}\r\nOrigin: http://{host}\r\n");
            assert_eq!(check("", LOOPBACK, &own), Err(Denied::Name), "{host}");
            assert_eq!(check(TOKEN, LOOPBACK, &own), Err(Denied::Token), "{host}");
        }
    }

    #[test]
    fn a_token_is_needed_if_configured_and_off_loopback() {
        let bearer = |token: &str| format!("Host: edge.example\r\nAuthorization: Bearer {token}\r\n");
        for address in [LOOPBACK, "10.0.0.1", "0.0.0.0"] {
            assert_eq!(check(TOKEN, address, &bearer(TOKEN)), Ok(()), "{address}");
            for wrong in ["0123456789abcdee", "0123456789abcde", "0123456789abcdef0", ""] {
                assert_eq!(check(TOKEN, address, &bearer(wrong)), Err(Denied::Token), "{wrong}");
            }
            assert_eq!(check(TOKEN, address, "Host: localhost\r\n"), Err(Denied::Token));
        }
        for address in ["10.0.0.1", "0.0.0.0", "::"] {
            assert_eq!(check("", address, "Host: localhost\r\n"), Err(Denied::Off), "{address}");
        }
        assert_eq!(check("", "::1", "Host: [::1]\r\n"), Ok(()));
    }
}
