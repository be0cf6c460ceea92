//! The record layer against rustls as its peer, on both sides and in both versions.

use std::io::{Read, Write};
use std::sync::Arc;

use proptest::prelude::*;
use rustls::crypto::aws_lc_rs::default_provider;
use rustls::pki_types::{PrivateKeyDer, ServerName};
use rustls::{
    CipherSuite, ClientConfig, ClientConnection, Connection, RootCertStore, ServerConfig, ServerConnection,
    SupportedProtocolVersion,
};

use super::error::{TlsError, alert};
use super::handshake::{Established, Handshake};
use super::record::{Opener, Sealer, TEXT_MAX};

/// Every suite that the record layer knows, with its version.
pub(crate) const SUITES: [(CipherSuite, &SupportedProtocolVersion); 6] = [
    (CipherSuite::TLS13_AES_128_GCM_SHA256, &rustls::version::TLS13),
    (CipherSuite::TLS13_AES_256_GCM_SHA384, &rustls::version::TLS13),
    (CipherSuite::TLS13_CHACHA20_POLY1305_SHA256, &rustls::version::TLS13),
    (CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256, &rustls::version::TLS12),
    (CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384, &rustls::version::TLS12),
    (CipherSuite::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256, &rustls::version::TLS12),
];

pub(crate) fn configs(
    (suite, version): (CipherSuite, &'static SupportedProtocolVersion),
) -> (ServerConfig, ClientConfig) {
    let mut provider = default_provider();
    provider.cipher_suites.retain(|known| known.suite() == suite);
    let provider = Arc::new(provider);
    let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    let certificate = made.cert.der().clone();
    let key = PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
    let mut server = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_protocol_versions(&[version])
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate.clone()], key)
        .unwrap();
    server.enable_secret_extraction = true;
    let mut roots = RootCertStore::empty();
    roots.add(certificate).unwrap();
    let mut client = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[version])
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    client.enable_secret_extraction = true;
    (server, client)
}

/// Our handshake with a connection of rustls; pieces of `piece` bytes reach us.
fn shake(mut ours: Handshake, theirs: &mut Connection, piece: usize) -> Established {
    let (mut out, mut tickets) = (Vec::new(), Vec::new());
    ours.push(&[], &mut out).unwrap();
    for _ in 0..10 {
        let mut from = &std::mem::take(&mut out)[..];
        while !from.is_empty() {
            theirs.read_tls(&mut from).unwrap();
            theirs.process_new_packets().unwrap();
        }
        let wire = drain(theirs);
        for part in wire.chunks(piece) {
            let consumed = ours.push(part, &mut out).unwrap();
            tickets.extend_from_slice(&part[consumed..]);
        }
        if ours.is_done() && !theirs.is_handshaking() && out.is_empty() {
            let mut ours = ours.finish().unwrap();
            assert_eq!(ours.opener.push(&tickets, &mut Vec::new()), Ok(Default::default()));
            return ours;
        }
    }
    panic!("the handshake does not end");
}

/// Both roles: we are the server, and we are the client.
fn pairs(
    suite: (CipherSuite, &'static SupportedProtocolVersion),
    piece: usize,
) -> [(Established, Connection); 2] {
    let (server, client) = configs(suite);
    let name = ServerName::try_from("localhost").unwrap();
    let mut theirs = ClientConnection::new(Arc::new(client.clone()), name.clone()).unwrap().into();
    let first = shake(Handshake::accept(&server).unwrap(), &mut theirs, piece);
    let mut other = ServerConnection::new(Arc::new(server)).unwrap().into();
    let second = shake(Handshake::connect(&client, name).unwrap(), &mut other, piece);
    [(first, theirs), (second, other)]
}

/// The peer reads: plaintext, and whether we have closed.
pub(crate) fn give(theirs: &mut Connection, mut wire: &[u8]) -> (Vec<u8>, bool) {
    let (mut plain, mut closed) = (Vec::new(), false);
    while !wire.is_empty() {
        theirs.read_tls(&mut wire).unwrap();
        let state = theirs.process_new_packets().unwrap();
        closed |= state.peer_has_closed();
        let start = plain.len();
        plain.resize(start + state.plaintext_bytes_to_read(), 0);
        theirs.reader().read_exact(&mut plain[start..]).unwrap();
    }
    (plain, closed)
}

fn take(theirs: &mut Connection, plain: &[u8]) -> Vec<u8> {
    let mut wire = Vec::new();
    for part in plain.chunks(TEXT_MAX) {
        theirs.writer().write_all(part).unwrap();
        wire.extend(drain(theirs));
    }
    wire
}

/// What the peer wants to send.
pub(crate) fn drain(theirs: &mut Connection) -> Vec<u8> {
    let mut wire = Vec::new();
    while theirs.wants_write() {
        theirs.write_tls(&mut wire).unwrap();
    }
    wire
}

pub(crate) fn data(len: usize) -> Vec<u8> {
    (0..len).map(|at| u8::try_from(at * 31 % 251).unwrap()).collect()
}

#[test]
fn each_suite_is_read_by_the_peer_and_reads_it() {
    for suite in SUITES {
        for (mut ours, mut theirs) in pairs(suite, usize::MAX) {
            for len in [1, 2, 1000, TEXT_MAX - 1, TEXT_MAX, TEXT_MAX + 1, 100_000] {
                let (plain, mut wire) = (data(len), Vec::new());
                ours.sealer.seal([&plain[..len / 3], &plain[len / 3..]], &mut wire);
                assert_eq!(give(&mut theirs, &wire), (plain.clone(), false), "{suite:?} {len}");
                let (wire, mut read) = (take(&mut theirs, &plain), Vec::new());
                assert_eq!(ours.opener.push(&wire, &mut read), Ok(Default::default()));
                assert!(read == plain, "{suite:?} {len}");
            }
            let mut wire = Vec::new();
            ours.sealer.alert(alert::CLOSE_NOTIFY, &mut wire);
            assert_eq!(give(&mut theirs, &wire), (Vec::new(), true));
            theirs.send_close_notify();
            let wire = drain(&mut theirs);
            let wants = ours.opener.push(&wire, &mut Vec::new()).unwrap();
            assert!(wants.closed && ours.opener.push(b"whatever", &mut Vec::new()).unwrap().closed);
        }
    }
}

#[test]
fn handshakes_come_in_pieces_of_any_size() {
    for suite in [SUITES[0], SUITES[3]] {
        for piece in [1, 2, 3, 5, 100, 1000] {
            for (mut ours, mut theirs) in pairs(suite, piece) {
                let mut wire = Vec::new();
                ours.sealer.seal([b"seen", b""], &mut wire);
                assert_eq!(give(&mut theirs, &wire).0, b"seen");
            }
        }
    }
}

#[test]
fn data_behind_the_handshake_is_left_for_the_opener() {
    let (server, client) = configs(SUITES[0]);
    let name = ServerName::try_from("localhost").unwrap();
    let mut theirs: Connection = ClientConnection::new(Arc::new(client), name).unwrap().into();
    let mut ours = Handshake::accept(&server).unwrap();
    let mut out = Vec::new();
    ours.push(&drain(&mut theirs), &mut out).unwrap();
    give(&mut theirs, &out);
    let wire = take(&mut theirs, b"GET / HTTP/1.1\r\n\r\n");
    let consumed = ours.push(&wire, &mut Vec::new()).unwrap();
    assert!(ours.is_done() && consumed < wire.len());
    let (mut ours, mut read) = (ours.finish().unwrap(), Vec::new());
    ours.opener.push(&wire[consumed..], &mut read).unwrap();
    assert_eq!(read, b"GET / HTTP/1.1\r\n\r\n");
}

#[test]
fn keys_are_updated_in_both_directions() {
    for suite in &SUITES[..3] {
        for (mut ours, mut theirs) in pairs(*suite, usize::MAX) {
            for round in 0..5 {
                let mut wire = Vec::new();
                ours.sealer.update_key(&mut wire);
                ours.sealer.seal([b"new ", b"key"], &mut wire);
                assert_eq!(give(&mut theirs, &wire).0, b"new key", "{suite:?} {round}");
                theirs.refresh_traffic_keys().unwrap();
                let (wire, mut read) = (take(&mut theirs, b"theirs"), Vec::new());
                let wants = ours.opener.push(&wire, &mut read).unwrap();
                assert_eq!(read, b"theirs");
                assert!(wants.key_update, "rustls asks for ours as well");
            }
        }
    }
}

#[test]
fn a_forged_record_ends_the_connection() {
    for suite in SUITES {
        let [(mut ours, mut theirs), _] = pairs(suite, usize::MAX);
        let mut wire = take(&mut theirs, b"right");
        *wire.last_mut().unwrap() ^= 1;
        let mut read = Vec::new();
        let error = ours.opener.push(&wire, &mut read).unwrap_err();
        assert_eq!(
            (error.clone(), error.alert(), read),
            (TlsError::Decrypt, Some(alert::BAD_RECORD_MAC), vec![])
        );
    }
}

#[test]
fn a_replayed_record_ends_the_connection() {
    let [(mut ours, mut theirs), _] = pairs(SUITES[0], usize::MAX);
    let wire = take(&mut theirs, b"once");
    let mut read = Vec::new();
    ours.opener.push(&wire, &mut read).unwrap();
    assert_eq!(ours.opener.push(&wire, &mut read), Err(TlsError::Decrypt));
    assert_eq!(read, b"once");
}

#[test]
fn records_without_content_are_bounded() {
    let [(mut ours, _), (mut other, _)] = pairs(SUITES[0], usize::MAX);
    let empty: Vec<u8> = [0x17, 3, 3, 0x7f, 0xff].into();
    assert!(matches!(ours.opener.push(&empty, &mut Vec::new()), Err(TlsError::TooLong(_))));
    assert!(matches!(other.opener.push(b"GET / HTTP", &mut Vec::new()), Err(TlsError::Header { .. })));
    // A peer that only changes its keys.
    let [(mut ours, mut theirs), _] = pairs(SUITES[0], usize::MAX);
    let mut result = Ok(Default::default());
    for _ in 0..100 {
        theirs.refresh_traffic_keys().unwrap();
        let wire = drain(&mut theirs);
        result = ours.opener.push(&wire, &mut Vec::new());
        if result.is_err() {
            break;
        }
    }
    assert_eq!(result, Err(TlsError::Idle));
}

#[test]
fn plain_http_is_no_handshake() {
    let (server, _) = configs(SUITES[0]);
    let mut ours = Handshake::accept(&server).unwrap();
    let error = ours.push(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", &mut Vec::new()).unwrap_err();
    assert!(matches!(error, TlsError::Header { kind: b'G', .. }), "{error}");
}

/// Two record layers of ours that share their keys.
fn looped(suite: usize) -> (Sealer, Opener) {
    let (server, client) = configs(SUITES[suite]);
    let (mut a, mut b) = (
        Handshake::accept(&server).unwrap(),
        Handshake::connect(&client, ServerName::try_from("localhost").unwrap()).unwrap(),
    );
    let (mut to_a, mut to_b) = (Vec::new(), Vec::new());
    b.push(&[], &mut to_a).unwrap();
    let mut opener_rest = Vec::new();
    for _ in 0..4 {
        let wire = std::mem::take(&mut to_a);
        a.push(&wire, &mut to_b).unwrap();
        let wire = std::mem::take(&mut to_b);
        let consumed = b.push(&wire, &mut to_a).unwrap();
        opener_rest.extend_from_slice(&wire[consumed..]);
    }
    let (a, mut b) = (a.finish().unwrap(), b.finish().unwrap());
    // Session tickets that the server sent after its handshake.
    b.opener.push(&opener_rest, &mut Vec::new()).unwrap();
    (a.sealer, b.opener)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn any_records_in_any_pieces_give_what_was_sealed(
        suite in 0..SUITES.len(),
        lengths in proptest::collection::vec((0usize..40_000, 0usize..2_000), 1..5),
        pieces in proptest::collection::vec(1usize..20_000, 1..40),
        updates in proptest::collection::vec(any::<bool>(), 5),
    ) {
        let (mut sealer, mut opener) = looped(suite);
        let (mut plain, mut wire) = (Vec::new(), Vec::new());
        for (at, (long, short)) in lengths.into_iter().enumerate() {
            let (a, b) = (data(short), data(long));
            sealer.seal([&a, &b], &mut wire);
            plain.extend(a);
            plain.extend(b);
            if updates[at] && suite < 3 {
                sealer.update_key(&mut wire);
            }
        }
        let (mut read, mut left) = (Vec::new(), &wire[..]);
        for piece in pieces.into_iter().cycle() {
            let (part, rest) = left.split_at(piece.min(left.len()));
            opener.push(part, &mut read).unwrap();
            left = rest;
            if left.is_empty() {
                break;
            }
        }
        prop_assert!(read == plain);
    }

    #[test]
    fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..400), suite in 0..SUITES.len()) {
        let (mut sealer, mut opener) = looped(suite);
        let mut wire = Vec::new();
        sealer.seal([b"first", b""], &mut wire);
        wire.extend(bytes);
        let mut read = Vec::new();
        let _ = opener.push(&wire, &mut read);
        prop_assert!(read.starts_with(b"first"));
    }
}
