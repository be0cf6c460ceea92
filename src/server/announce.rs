//! The output at the start: the line that scripts wait for, and what a user may try next.

use std::fmt::Write;
use std::net::SocketAddr;

use super::shared::Shared;
use crate::config::Role;

/// The `ready` line: the role and all addresses.
pub fn ready(role: Role, shared: &Shared, admin: &[SocketAddr]) -> String {
    let name = match role {
        Role::AllInOne => "all",
        Role::Origin => "origin",
        Role::FlvGateway => "flv-gateway",
        Role::FileGateway => "file-gateway",
        Role::Demo { .. } => "demo",
    };
    let own = &shared.addresses;
    let gateway = if role == Role::FlvGateway { "listen" } else { "gateway" };
    let files = if role == Role::FileGateway { "listen" } else { "files" };
    let addresses = [
        ("rtmp", &own.rtmp[..]),
        ("flv", &own.flv),
        ("web", &own.web),
        (gateway, &own.gateway),
        (files, &own.files),
        ("admin", admin),
    ];
    let mut line = format!("ready role={name}");
    for (name, listen) in addresses {
        for (index, address) in listen.iter().enumerate() {
            let _ = if index == 0 { write!(line, " {name}={address}") } else { write!(line, ",{address}") };
        }
    }
    line
}

/// What to try next, for a user who starts an origin by hand.
pub fn hints(role: Role, shared: &Shared) -> Option<String> {
    if !matches!(role, Role::Demo { .. } | Role::AllInOne) {
        return None;
    }
    let own = &shared.addresses;
    let (rtmp, flv, web) = (*own.rtmp.first()?, *own.flv.first()?, *own.web.first()?);
    let demo = matches!(role, Role::Demo { .. });
    let key = if demo { "live/demo" } else { "live/stream" };
    let mut text = String::from("\n");
    let _ = writeln!(text, "  Watch in a browser   http://{}/index.html?stream={key}", reachable(web));
    let _ = writeln!(text, "  HTTP-FLV             http://{}/{key}.flv", reachable(flv));
    let _ = writeln!(text, "  WebSocket-FLV        ws://{}/{key}.flv", reachable(flv));
    if let Some(&gateway) = own.gateway.first() {
        let _ = writeln!(text, "  Through the gateway  http://{}/{key}.flv", reachable(gateway));
    }
    let _ = writeln!(text, "  Publish your own     rtmp://{}/live/stream", reachable(rtmp));
    Some(text)
}

/// An address that can be opened on this machine.
fn reachable(address: SocketAddr) -> SocketAddr {
    let mut address = address;
    if address.ip().is_unspecified() {
        address.set_ip(if address.is_ipv4() {
            std::net::Ipv4Addr::LOCALHOST.into()
        } else {
            std::net::Ipv6Addr::LOCALHOST.into()
        });
    }
    address
}
