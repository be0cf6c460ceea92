//! What counts as this machine: addresses, host names, pages.

use std::net::{IpAddr, Ipv6Addr};

/// Whether an address is one of this machine alone.
pub fn is_loopback(address: IpAddr) -> bool {
    address.to_canonical().is_loopback()
}

/// Whether the name in a `Host` field is one that no other site can point at this machine: an address, `localhost` or
/// a listed name.
pub(super) fn is_own_name(host: &str, listed: &[String]) -> bool {
    let name = name_of(host);
    let is_listed = listed.iter().any(|own| own.eq_ignore_ascii_case(name));
    name.is_empty() || name.eq_ignore_ascii_case("localhost") || name.parse::<IpAddr>().is_ok() || is_listed
}

/// Whether a page's origin has the same host as the server that it asked; ports do not count. All loopback names of
/// this machine are one host.
pub(super) fn is_own_page(origin: &str, host: Option<&str>) -> bool {
    let (Some((_, authority)), Some(host)) = (origin.split_once("://"), host) else { return false };
    let (page, own) = (name_of(authority), name_of(host));
    !page.is_empty() && (page.eq_ignore_ascii_case(own) || (is_loopback_name(page) && is_loopback_name(own)))
}

/// Whether an origin is listed: as a whole, by its host, or with all others as `*`.
pub(super) fn is_listed(origin: &str, listed: &[String]) -> bool {
    let host =
        origin.split_once("://").map(|(_, authority)| name_of(authority)).filter(|host| !host.is_empty());
    listed.iter().any(|own| {
        own == "*"
            || own.trim_end_matches('/').eq_ignore_ascii_case(origin)
            || host.is_some_and(|host| own.eq_ignore_ascii_case(host))
    })
}

/// The origin of a page: its address without what comes after the host and the port.
pub(super) fn site_of(page: &str) -> &str {
    let host = page.find("://").map_or(0, |scheme| scheme + 3);
    let end = page[host..].find(['/', '?', '#']).map_or(page.len(), |end| host + end);
    &page[..end]
}

fn is_loopback_name(name: &str) -> bool {
    name.eq_ignore_ascii_case("localhost") || name.parse().is_ok_and(is_loopback)
}

/// A host without its port and the brackets of IPv6; empty if it has another form.
fn name_of(authority: &str) -> &str {
    if let Some(rest) = authority.strip_prefix('[') {
        let address = rest.split_once(']').map(|(address, _)| address);
        return address.filter(|address| address.parse::<Ipv6Addr>().is_ok()).unwrap_or("?");
    }
    authority.split(':').next().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_no_other_site_can_have() {
        let listed = ["edge.example".to_owned()];
        for own in [
            "127.0.0.1",
            "127.0.0.1:8501",
            "[::1]:80",
            "localhost",
            "LocalHost:1",
            "192.0.2.1",
            "Edge.Example:80",
            "",
        ] {
            assert!(is_own_name(own, &listed), "{own}");
        }
        for foreign in
            ["evil.example", "localhost.evil.example:80", "127.0.0.1.evil.example", "[x]", "edge.example."]
        {
            assert!(!is_own_name(foreign, &listed), "{foreign}");
        }
    }

    #[test]
    fn a_page_of_the_same_host_is_own_whatever_its_port() {
        for (origin, host) in [
            ("http://h.example", "h.example:8501"),
            ("https://H.example:8443", "h.example"),
            ("http://[::1]:80", "[::1]:8501"),
            ("http://localhost:8088", "127.0.0.1:8501"),
        ] {
            assert!(is_own_page(origin, Some(host)), "{origin} {host}");
        }
        for (origin, host) in [
            ("http://evil.example", "127.0.0.1:8501"),
            ("http://h.example.evil.example", "h.example"),
            ("null", "h.example"),
            ("http://", ""),
            ("http://localhost", "192.0.2.1"),
            ("http://h.example@evil.example", "h.example"),
        ] {
            assert!(!is_own_page(origin, Some(host)), "{origin} {host}");
        }
        assert!(!is_own_page("http://h.example", None));
    }

    #[test]
    fn pages_belong_to_sites() {
        for (page, site) in [
            ("https://a.example/b/c?d", "https://a.example"),
            ("https://a.example:8443?x", "https://a.example:8443"),
            ("https://a.example", "https://a.example"),
            ("https://evil.example#https://a.example/", "https://evil.example"),
            ("about:blank", "about:blank"),
            ("", ""),
        ] {
            assert_eq!(site_of(page), site);
        }
    }

    #[test]
    fn other_sites_are_listed_whole_or_by_host() {
        let listed = |list: &[&str], origin| {
            is_listed(origin, &list.iter().map(|own| (*own).to_owned()).collect::<Vec<_>>())
        };
        assert!(listed(&["https://studio.example"], "https://studio.example"));
        assert!(!listed(&["https://studio.example"], "http://studio.example"));
        assert!(listed(&["studio.example"], "http://studio.example:8080"));
        assert!(!listed(&["studio.example"], "https://a.studio.example") && !listed(&[], "null"));
        assert!(listed(&["*"], "https://any.example") && listed(&["null"], "null"));
    }
}
