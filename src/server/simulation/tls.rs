//! TLS for scripted peers. The lengths of all records are the same in each run, so that a number still determines a
//! run: a key of Ed25519, whose signatures have one length, and no tickets.

use std::io::{Read, Write};
use std::sync::{Arc, LazyLock};

use bytes::Bytes;
use rcgen::{CertificateParams, KeyPair, PKCS_ED25519};
use rustls::pki_types::{PrivateKeyDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, ServerConfig};

use crate::protocol::tls::tests::drain;
use rustls::Connection;

static CONFIGS: LazyLock<(Arc<ServerConfig>, Arc<ClientConfig>)> = LazyLock::new(|| {
    let key = KeyPair::generate_for(&PKCS_ED25519).expect("a key");
    let mut params = CertificateParams::new(vec!["localhost".to_owned()]).expect("a name");
    params.serial_number = Some(1.into());
    let certificate = params.self_signed(&key).expect("a certificate").der().clone();
    let mut roots = RootCertStore::empty();
    roots.add(certificate.clone()).expect("a certificate");
    let key = PrivateKeyDer::try_from(key.serialize_der()).expect("a key");
    let server = ServerConfig::builder().with_no_client_auth().with_single_cert(vec![certificate], key);
    let mut server = server.expect("a certificate and its key");
    server.enable_secret_extraction = true;
    server.send_tls13_tickets = 0;
    let client = ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
    (Arc::new(server), Arc::new(client))
});

/// The certificate of all servers.
pub(super) fn server() -> Arc<ServerConfig> {
    Arc::clone(&CONFIGS.0)
}

/// A peer's end of a connection.
#[derive(Debug)]
pub(super) struct Tls(Connection);

impl Tls {
    pub(super) fn new() -> Self {
        let name = ServerName::try_from("localhost").expect("a name");
        let client = ClientConnection::new(Arc::clone(&CONFIGS.1), name).expect("a configuration");
        Self(client.into())
    }

    /// What is to be sent so that the server gets `bytes`.
    pub(super) fn seal(&mut self, bytes: &[u8]) -> Bytes {
        self.0.writer().write_all(bytes).expect("there is memory");
        drain(&mut self.0).into()
    }

    /// Received bytes become those that the server meant; returns what is to be sent at once.
    pub(super) fn open(&mut self, bytes: &mut Vec<u8>) -> Bytes {
        let records = std::mem::take(bytes);
        let mut rest = &records[..];
        while !rest.is_empty() {
            self.0.read_tls(&mut rest).expect("what was read before is taken out");
            let state = self.0.process_new_packets().expect("the server's records are right");
            let from = bytes.len();
            bytes.resize(from + state.plaintext_bytes_to_read(), 0);
            self.0.reader().read_exact(&mut bytes[from..]).expect("there are so many");
        }
        drain(&mut self.0).into()
    }
}
