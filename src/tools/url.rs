//! What the tools' URLs have in common: schemes with TLS, and ports.

/// A scheme without TLS, and whether this one is its sibling with TLS.
pub(super) fn without_tls(scheme: &str) -> (&str, bool) {
    match scheme {
        "rtmps" => ("rtmp", true),
        "https" => ("http", true),
        "wss" => ("ws", true),
        plain => (plain, false),
    }
}

/// Host and port of an authority that may name no port: then it is `port`, or 443 with TLS.
pub(super) fn with_port(authority: &str, port: u16, secure: bool) -> String {
    let has_port = authority.rsplit_once(':').is_some_and(|(_, port)| port.parse::<u16>().is_ok());
    let port = if secure { 443 } else { port };
    if has_port { authority.to_owned() } else { format!("{authority}:{port}") }
}

/// The host of `host:port`.
pub(super) fn host_of(address: &str) -> &str {
    address.rsplit_once(':').map_or(address, |(host, _)| host)
}
