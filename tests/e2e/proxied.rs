//! Clients behind proxies: the address that a trusted one tells counts, and nobody else's word does.

use std::io::Write;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;

use crate::harness::raw::{self, Feed, Rtmp, connect, exchange, read_until, rest};
use crate::harness::secure::Certificate;
use crate::harness::{Flavor, Scratch, Server, Watch, http, until};

const ANY: &str = "127.0.0.1:0";
const TRUSTS: &str = "[limits]\ntrusted = [\"127.0.0.1\"]\nrequest_time = \"1s\"\n";

fn origin(scratch: &Scratch, config: &str, more: &[&str]) -> Server {
    let file = scratch.path("proxied.toml");
    std::fs::write(&file, config).unwrap();
    let args = ["origin", "--config", file.to_str().unwrap(), "--rtmp", ANY, "--flv", ANY, "--web", ANY];
    let args = [&args[..], &["--admin", ANY, "--loops", "2", "--record", "none", "--wait", "1s"], more];
    Server::start(&scratch.path(""), &args.concat())
}

/// The header of version 1 for a client at `ip`.
pub(crate) fn header(ip: &str) -> String {
    let (family, own) = if ip.contains(':') { ("TCP6", "::1") } else { ("TCP4", "127.0.0.1") };
    format!("PROXY {family} {ip} {own} 4242 80\r\n")
}

/// The header of version 2 for a client at an IPv4 address, with a TLV; `command`: 0 LOCAL, 1 PROXY.
pub(crate) fn binary(command: u8, ip: [u8; 4]) -> Vec<u8> {
    let addresses = [&ip[..], &[127, 0, 0, 1, 0x10, 0x92, 0, 80]].concat();
    [b"\r\n\r\n\0\r\nQUIT\n", &[0x20 | command, 0x11, 0, 16][..], &addresses, &[4, 0, 1, 0]].concat()
}

const POST: &str = "POST /live/a HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n";

/// The status of the answer to a push after `before`.
fn push(addr: SocketAddr, before: &[u8]) -> String {
    let mut socket = connect(addr);
    socket.write_all(&[before, POST.as_bytes()].concat()).unwrap();
    let _ = socket.shutdown(std::net::Shutdown::Write);
    let answer = rest(&mut socket);
    answer.split(' ').nth(1).unwrap_or("none").to_owned()
}

#[test]
fn a_header_of_an_untrusted_peer_is_no_request() {
    let scratch = Scratch::new("proxied-untrusted");
    let mut origin = origin(&scratch, "", &[]);
    let text = header("127.0.0.1").into_bytes();
    for before in [text, binary(1, [127, 0, 0, 1]), binary(0, [127, 0, 0, 1])] {
        for port in ["flv", "web"] {
            assert!(["400", "505"].contains(&&*push(origin.addr(port), &before)));
        }
        assert_eq!(exchange(origin.addr("rtmp"), &[&before[..], &[3]].concat()), "");
    }
    assert_ne!(push(origin.addr("flv"), b""), "401", "this machine may publish");
    origin.assert_up();
}

#[test]
fn a_client_behind_a_trusted_proxy_is_judged_by_the_address_told() {
    let scratch = Scratch::new("proxied-local");
    let mut origin = origin(&scratch, TRUSTS, &[]);
    for port in ["flv", "web"] {
        let push = |before: &[u8]| push(origin.addr(port), before);
        for own in ["127.0.0.1", "::1", "127.9.9.9"] {
            assert_ne!(push(header(own).as_bytes()), "401", "{own}");
        }
        assert_ne!(push(&binary(1, [127, 0, 0, 1])), "401");
        assert_ne!(push(b""), "401", "it may also connect for itself");
        for other in ["203.0.113.7", "2001:db8::7"] {
            assert_eq!(push(header(other).as_bytes()), "401", "{other}");
        }
        assert_eq!(push(&binary(1, [203, 0, 113, 7])), "401");
        // A header that names no client.
        assert_eq!(push(&binary(0, [127, 0, 0, 1])), "401");
        assert_eq!(push(b"PROXY UNKNOWN\r\n"), "401");
        // A second header is the client's own.
        let second = push(&[header("203.0.113.7"), header("127.0.0.1")].concat().into_bytes());
        assert_eq!(second, "505");
    }
    let mut socket = connect(origin.addr("rtmp"));
    socket.write_all(header("203.0.113.7").as_bytes()).unwrap();
    let mut peer = Rtmp::on(socket, "live");
    peer.say(&[raw::publish("a")]);
    let answer = String::from_utf8_lossy(&peer.wait("auth.publish")).into_owned();
    assert!(answer.contains("NetStream.Publish.Unauthorized"), "{answer}");
    origin.wait_log("203.0.113.7:4242");
    origin.assert_up();
}

#[test]
fn a_header_may_come_in_pieces_but_not_never() {
    let scratch = Scratch::new("proxied-slow");
    let origin = origin(&scratch, TRUSTS, &[]);
    for bytes in [header("203.0.113.7").into_bytes(), binary(1, [203, 0, 113, 7])] {
        let mut socket = connect(origin.addr("flv"));
        socket.set_nodelay(true).unwrap();
        for byte in [&bytes[..], b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n"].concat() {
            socket.write_all(&[byte]).unwrap();
        }
        read_until(&mut socket, b"\r\n\r\nok\n");
        // A part of it, and nothing more.
        for port in ["flv", "web", "rtmp"] {
            let mut socket = connect(origin.addr(port));
            socket.write_all(&bytes[..9]).unwrap();
            rest(&mut socket);
        }
    }
    // Malformed ones.
    let before = origin.metric("uringcast_bad_peers_total", "");
    for bad in ["PROXY TCP4 x y 1 2\r\n", "PROXY / HTTP/1.1\r\nHost: localhost\r\n\r\n"] {
        for port in ["flv", "rtmp"] {
            assert_eq!(exchange(origin.addr(port), bad.as_bytes()), "", "{bad}");
        }
    }
    let mut long = binary(1, [1, 2, 3, 4]);
    long[14..16].copy_from_slice(&[0xff, 0xff]);
    assert_eq!(exchange(origin.addr("web"), &long), "");
    origin.wait_metric("uringcast_bad_peers_total", "", |now| now >= before + 5.0);
    origin.wait_log("PROXY header: the line is malformed");
}

#[test]
fn viewers_tokens_and_limits_go_by_the_client_of_a_header_in_tls_as_well() {
    let scratch = Scratch::new("proxied-places");
    let certificate = Certificate::make(&scratch.path(""), "own");
    let secrets = scratch.path("secrets");
    std::fs::write(&secrets, "may:the-first-secret-of-all\n").unwrap();
    let config = format!(
        "{TRUSTS}connections_per_address = 2\n[auth]\nplay = \"deny\"\nsecret_file = \"{}\"\n",
        secrets.display()
    );
    let origin = origin(&scratch, &config, &certificate.flags());
    let _feed = Feed::start(origin.addr("flv"), "live/a");
    let token = sign(&secrets, "203.0.113.7");
    let ask = format!("GET /live/a.flv?token={token} HTTP/1.1\r\nHost: x\r\n\r\n");
    let play = |ip: &str| {
        let mut socket = connect(origin.addr("flv"));
        socket.write_all(format!("{}{ask}", header(ip)).as_bytes()).unwrap();
        socket
    };
    read_until(&mut play("203.0.113.8"), b"the token is for another address");
    let mut plain = play("203.0.113.7");
    read_until(&mut plain, b"FLV\x01");
    let mut secure = certificate.connect(origin.addr("flv"));
    secure.sock.write_all(&binary(1, [203, 0, 113, 7])).unwrap();
    secure.write_all(ask.as_bytes()).unwrap();
    let mut seen = [0; 12];
    std::io::Read::read_exact(&mut secure, &mut seen).unwrap();
    assert_eq!(&seen, b"HTTP/1.1 200");
    until("both viewers to be listed by the client's address", || {
        let (_, body) = http(origin.addr("admin"), "GET", "/api/v1/viewers", "");
        let list = String::from_utf8(body).unwrap();
        (list.matches("203.0.113.7:4242").count() == 2).then_some(())
    });
    // Three that ask for nothing: the third is one too many, and only for that address.
    let idle = |ip: &str| {
        let mut socket = connect(origin.addr("web"));
        write!(socket, "{}GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n", header(ip)).unwrap();
        socket
    };
    let mut held = [idle("203.0.113.9"), idle("203.0.113.9")];
    held.iter_mut().for_each(|socket| drop(read_until(socket, b"\r\n\r\nok\n")));
    assert!(rest(&mut idle("203.0.113.9")).starts_with("HTTP/1.1 429 "));
    read_until(&mut idle("203.0.113.10"), b"\r\n\r\nok\n");
    assert_eq!(origin.refused("address-connections"), 1);
    Watch::try_start(origin.addr("flv"), "/live/a.flv", Flavor::Http).err().expect("it shows no token");
}

/// A token for one client alone.
fn sign(secrets: &Path, ip: &str) -> String {
    let mut command = Command::new(env!("CARGO_BIN_EXE_uringcast"));
    command.args(["sign", "live/a", "--for", "play", "--expires", "10m", "--ip", ip]);
    let signed = command.args(["--secret-file", secrets.to_str().unwrap()]).output().unwrap().stdout;
    String::from_utf8(signed).unwrap().lines().next().unwrap().to_owned()
}

#[test]
fn requests_that_a_trusted_proxy_forwards_are_their_clients() {
    let scratch = Scratch::new("proxied-forwarded");
    let secrets = scratch.path("secrets");
    std::fs::write(&secrets, "may:the-first-secret-of-all\n").unwrap();
    let log = scratch.path("access.log");
    let config = format!(
        "{TRUSTS}connections_per_address = 2\n[auth]\nplay = \"deny\"\nsecret_file = \"{}\"\n\
         [access_log]\npath = \"{}\"\n",
        secrets.display(),
        log.display()
    );
    let origin = origin(&scratch, &config, &[]);
    let _feed = Feed::start(origin.addr("flv"), "live/a");
    let token = sign(&secrets, "203.0.113.7");
    let path = format!("/live/a.flv?token={token}");
    // Requests of several clients over one connection of the proxy.
    let mut socket = connect(origin.addr("flv"));
    let mut ask = |fields: &str, answer: &str| {
        write!(socket, "GET {path} HTTP/1.1\r\nHost: x\r\n{fields}\r\n").unwrap();
        read_until(&mut socket, answer.as_bytes());
    };
    ask("X-Forwarded-For: 203.0.113.8\r\n", "the token is for another address");
    ask("", "the token is for another address");
    ask("X-Forwarded-For: 203.0.113.7\r\nX-Real-IP: 203.0.113.8\r\n", "the token is for another address");
    ask("Forwarded: for=203.0.113.7;proto=https\r\n", "FLV\x01");
    let fields = "X-Forwarded-For: 6.6.6.6, 203.0.113.7, 127.0.0.1\r\n";
    let request = format!(
        "GET {path} HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n{fields}\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    );
    let mut upgraded = connect(origin.addr("web"));
    upgraded.write_all(request.as_bytes()).unwrap();
    read_until(&mut upgraded, b"FLV\x01");
    until("both viewers to be listed by the client's address", || {
        let (_, body) = http(origin.addr("admin"), "GET", "/api/v1/viewers", "");
        (String::from_utf8(body).unwrap().matches("\"203.0.113.7\"").count() == 2).then_some(())
    });
    // Viewers are not counted; two connections with other requests are one too few.
    let get = |ip: &str| {
        let mut socket = connect(origin.addr("web"));
        write!(socket, "GET /healthz HTTP/1.1\r\nHost: x\r\nX-Forwarded-For: {ip}\r\n\r\n").unwrap();
        socket
    };
    let mut held = [get("203.0.113.9"), get("203.0.113.9")];
    held.iter_mut().for_each(|socket| drop(read_until(socket, b"\r\n\r\nok\n")));
    assert!(rest(&mut get("203.0.113.9")).starts_with("HTTP/1.1 429 "));
    read_until(&mut get("203.0.113.10"), b"\r\n\r\nok\n");
    assert_eq!(push(origin.addr("flv"), b""), "409", "the proxy itself may publish");
    until("the access log to name the client", || {
        std::fs::read_to_string(&log).ok()?.contains("203.0.113.10 - ").then_some(())
    });
}
