//! A peer in TLS that sends any bytes: as a handshake, or as records that were sealed and then changed. No panic; what
//! is opened is the beginning of what was sealed, and the same however the records are split.
#![no_main]

use std::sync::{Arc, LazyLock};

use libfuzzer_sys::fuzz_target;
use rustls::crypto::aws_lc_rs::default_provider;
use rustls::pki_types::{PrivateKeyDer, ServerName};
use rustls::{ClientConfig, ServerConfig};
use uringcast::protocol::tls::handshake::{Established, Handshake};
use uringcast::protocol::tls::trust::{self, Trust};

static CONFIGS: LazyLock<(Arc<ClientConfig>, ServerConfig)> = LazyLock::new(|| {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let key = PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
    let mut server = ServerConfig::builder_with_provider(Arc::new(default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![made.cert.der().clone()], key)
        .unwrap();
    server.enable_secret_extraction = true;
    server.send_tls13_tickets = 0;
    (trust::client(&Trust::Anyone).unwrap(), server)
});

/// A client and a server after their handshake.
fn connected() -> (Established, Established) {
    let (client, server) = &*CONFIGS;
    let mut client = Handshake::connect(client, ServerName::try_from("localhost").unwrap()).unwrap();
    let mut server = Handshake::accept(server).unwrap();
    let (mut to_server, mut to_client) = (Vec::new(), Vec::new());
    while !(client.is_done() && server.is_done()) {
        client.push(&to_client, &mut to_server).unwrap();
        to_client.clear();
        server.push(&to_server, &mut to_client).unwrap();
        to_server.clear();
    }
    (client.finish().unwrap(), server.finish().unwrap())
}

/// Bytes that are no handshake, or begin as one.
fn shake(data: &[u8], cut: usize) {
    let mut server = Handshake::accept(&CONFIGS.1).unwrap();
    let mut out = Vec::new();
    for piece in data.chunks(cut) {
        if server.push(piece, &mut out).is_err() || server.is_done() {
            return;
        }
    }
}

fn open(mut peer: Established, pieces: &[&[u8]]) -> (Vec<u8>, bool) {
    let mut plain = Vec::new();
    let failed = pieces.iter().any(|piece| peer.opener.push(piece, &mut plain).is_err());
    (plain, failed)
}

fuzz_target!(|data: &[u8]| {
    let [what, cut, at, by, data @ ..] = data else { return };
    let cut = usize::from(*cut) + 1;
    if what % 2 == 0 {
        return shake(data, cut);
    }
    let (mut client, server) = connected();
    let mut sealed = Vec::new();
    for part in data.chunks(usize::from(*what) + 1) {
        client.sealer.seal([part, &[]], &mut sealed);
        if part.len() % 7 == 0 {
            client.sealer.update_key(&mut sealed);
        }
    }
    let place = usize::from(*at).wrapping_mul(31) % sealed.len().max(1);
    if let Some(byte) = sealed.get_mut(place) {
        *byte ^= *by;
    }
    let (plain, failed) = open(server, &sealed.chunks(cut).collect::<Vec<_>>());
    assert!(data.starts_with(&plain), "what was changed is not opened");
    assert!(failed || plain.len() == data.len() || *by != 0, "what was not changed is opened");
});
