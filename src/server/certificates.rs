//! The certificates of the listeners: read from files, chosen by the name that a client asks for, and read again
//! when the files change.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use rustls::client::verify_server_name;
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::ServerName;
use rustls::server::{ClientHello, NoServerSessionStorage, ParsedCertificate, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::{CipherSuite, ClientConfig, ServerConfig};

use crate::config::{Config, Hook, Tls};
use crate::protocol::tls::pem::{self, PemError};
use crate::protocol::tls::trust::{self, Trust, TrustError};

/// Why no certificate can be used.
#[derive(Debug, thiserror::Error)]
pub enum CertificateError {
    /// A file cannot be read, or is no PEM.
    #[error(transparent)]
    Read(#[from] PemError),
    /// A file without a certificate.
    #[error("{} contains no certificate", .0.display())]
    Empty(PathBuf),
    /// The key does not belong to the certificate, or rustls does not know its kind.
    #[error("{} and its key cannot be used: {error}", cert.display())]
    Unusable {
        /// The certificate's file.
        cert: PathBuf,
        /// What rustls says.
        error: rustls::Error,
    },
    /// A certificate for the demo cannot be made.
    #[error("cannot make a certificate in {}: {error}", dir.display())]
    Make {
        /// The folder.
        dir: PathBuf,
        /// What is wrong.
        error: io::Error,
    },
}

/// The suites, the ones that cost least first: the server chooses.
const SUITES: [CipherSuite; 9] = [
    CipherSuite::TLS13_AES_128_GCM_SHA256,
    CipherSuite::TLS13_AES_256_GCM_SHA384,
    CipherSuite::TLS13_CHACHA20_POLY1305_SHA256,
    CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256,
    CipherSuite::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,
    CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384,
    CipherSuite::TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384,
    CipherSuite::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256,
    CipherSuite::TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256,
];

/// Chooses a certificate by the name that the client asks for.
#[derive(Debug)]
struct ByName(Vec<Arc<CertifiedKey>>);

impl ResolvesServerCert for ByName {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let name = hello.server_name().and_then(|name| ServerName::try_from(name).ok());
        let is_for = |key: &&Arc<CertifiedKey>| {
            let parsed = key.end_entity_cert().ok().and_then(|cert| ParsedCertificate::try_from(cert).ok());
            let both = parsed.zip(name.as_ref());
            both.is_some_and(|(parsed, name)| verify_server_name(&parsed, name).is_ok())
        };
        self.0.iter().find(is_for).or(self.0.first()).cloned()
    }
}

/// The provider of keys and signatures, with the suites in this server's order.
fn provider() -> CryptoProvider {
    let mut provider = aws_lc_rs::default_provider();
    let place = |suite: CipherSuite| SUITES.iter().position(|known| *known == suite);
    provider.cipher_suites.retain(|suite| place(suite.suite()).is_some());
    provider.cipher_suites.sort_by_key(|suite| place(suite.suite()));
    provider
}

/// Reads the certificates; `None`: there is none, and listeners are plain.
///
/// # Errors
/// [`CertificateError`].
pub fn load(tls: &Tls) -> Result<Option<Arc<ServerConfig>>, CertificateError> {
    if !tls.is_on() {
        return Ok(None);
    }
    let provider = Arc::new(provider());
    let keys = tls.all().map(|pair| read(&pair.cert, &pair.key, &provider)).collect::<Result<_, _>>()?;
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("the suites fit both versions")
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(ByName(keys)));
    config.ignore_client_order = true;
    config.enable_secret_extraction = true;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    // Resumption saves nothing that matters (a fifth of a handshake), and its keys would have to be shared by
    // all nodes under one name.
    config.send_tls13_tickets = 0;
    config.session_storage = Arc::new(NoServerSessionStorage {});
    Ok(Some(Arc::new(config)))
}

fn read(cert: &Path, key: &Path, provider: &CryptoProvider) -> Result<Arc<CertifiedKey>, CertificateError> {
    let chain = pem::certificates(cert)?;
    if chain.is_empty() {
        return Err(CertificateError::Empty(cert.to_owned()));
    }
    let key = pem::key(key)?;
    let made = CertifiedKey::from_der(chain, key, provider);
    made.map(Arc::new).map_err(|error| CertificateError::Unusable { cert: cert.to_owned(), error })
}

/// Which other servers are trusted; `None`: there is none that is connected to in TLS.
///
/// # Errors
/// [`TrustError`].
pub fn trust(config: &Config) -> Result<Option<Arc<ClientConfig>>, TrustError> {
    let remotes = config.forward.iter().map(|one| &one.to).chain(config.pull.iter().map(|one| &one.from));
    let upstreams = config.flv_gateway.upstream.iter().chain(&config.file_gateway.upstream);
    let recorded = match &config.recording.hook {
        Hook::Http(url) => Some(url),
        Hook::Nobody | Hook::Command(_) => None,
    };
    let services = upstreams.chain(&config.auth.hook).chain(recorded);
    let secure = remotes.map(|remote| remote.secure).chain(services.map(|service| service.secure));
    if !secure.into_iter().any(|secure| secure) {
        return Ok(None);
    }
    trust::client(&match &config.tls {
        tls if tls.insecure => Trust::Anyone,
        tls if tls.ca.as_os_str().is_empty() => Trust::System,
        tls => Trust::File(tls.ca.clone()),
    })
    .map(Some)
}

/// When the files were changed last, to see whether they were since.
pub fn changed(tls: &Tls) -> Vec<Option<SystemTime>> {
    let of = |path: &Path| std::fs::metadata(path).and_then(|data| data.modified()).ok();
    tls.all().flat_map(|pair| [of(&pair.cert), of(&pair.key)]).collect()
}

/// Makes a certificate that this machine's browsers can be told to trust, if there is none yet.
///
/// # Errors
/// [`CertificateError::Make`].
pub fn make(tls: &Tls) -> Result<(), CertificateError> {
    if tls.cert.exists() {
        return Ok(());
    }
    let dir = tls.cert.parent().unwrap_or(Path::new("."));
    write(tls, dir).map_err(|error| CertificateError::Make { dir: dir.to_owned(), error })
}

fn write(tls: &Tls, dir: &Path) -> io::Result<()> {
    let names = ["localhost".to_owned(), Ipv4Addr::LOCALHOST.to_string(), Ipv6Addr::LOCALHOST.to_string()];
    let made = rcgen::generate_simple_self_signed(names).map_err(io::Error::other)?;
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
    let file = |path: &Path, pem: &str| {
        let mut options = std::fs::OpenOptions::new();
        let mut file = options.write(true).create_new(true).mode(0o600).open(path)?;
        io::Write::write_all(&mut file, pem.as_bytes())
    };
    file(&tls.key, &made.signing_key.serialize_pem())?;
    file(&tls.cert, &made.cert.pem())
}

#[cfg(test)]
mod tests {
    use rustls::pki_types::CertificateDer;
    use rustls::pki_types::pem::PemObject;

    use super::*;
    use crate::config::Certificate;

    /// Files of a certificate for these names.
    fn files(dir: &Path, place: usize, names: &[&str]) -> Certificate {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let made = rcgen::generate_simple_self_signed(names).unwrap();
        let (cert, key) = (dir.join(format!("{place}.pem")), dir.join(format!("{place}.key")));
        std::fs::write(&cert, made.cert.pem()).unwrap();
        std::fs::write(&key, made.signing_key.serialize_pem()).unwrap();
        Certificate { cert, key }
    }

    fn folder(name: &str) -> PathBuf {
        let dir = std::env::temp_dir().join(format!("uringcast-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        dir
    }

    /// The certificate that a client gets who asks for this name.
    fn chosen(config: &Arc<ServerConfig>, name: &str) -> CertificateDer<'static> {
        use rustls::{ClientConnection, ServerConnection};
        let client = trust::client(&Trust::Anyone).unwrap();
        let mut client = ClientConnection::new(client, trust::server_name(name).unwrap()).unwrap();
        let mut server = ServerConnection::new(Arc::clone(config)).unwrap();
        for _ in 0..4 {
            let mut wire = Vec::new();
            client.write_tls(&mut wire).unwrap();
            server.read_tls(&mut &wire[..]).unwrap();
            server.process_new_packets().unwrap();
            wire.clear();
            while server.wants_write() {
                server.write_tls(&mut wire).unwrap();
            }
            client.read_tls(&mut &wire[..]).unwrap();
            client.process_new_packets().unwrap();
        }
        client.peer_certificates().unwrap()[0].clone()
    }

    #[test]
    fn a_client_gets_the_certificate_for_its_name() {
        let dir = folder("certificates");
        let [first, other] =
            [files(&dir, 1, &["one.example"]), files(&dir, 2, &["two.example", "*.three.example"])];
        let tls = Tls {
            cert: first.cert.clone(),
            key: first.key.clone(),
            certificates: vec![other.clone()],
            ..Tls::default()
        };
        let config = load(&tls).unwrap().unwrap();
        let der = |of: &Certificate| CertificateDer::from_pem_file(&of.cert).unwrap();
        assert_eq!(chosen(&config, "one.example"), der(&first));
        assert_eq!(chosen(&config, "two.example"), der(&other));
        assert_eq!(chosen(&config, "x.three.example"), der(&other));
        assert_eq!(chosen(&config, "unknown.example"), der(&first));
        let mixed = Tls { key: other.key, ..tls.clone() };
        assert!(matches!(load(&mixed), Err(CertificateError::Unusable { .. })));
        let missing = Tls { cert: dir.join("none.pem"), ..tls };
        assert!(matches!(load(&missing), Err(CertificateError::Read { .. })));
        std::fs::remove_dir_all(dir).unwrap();
    }

    #[test]
    fn the_demo_makes_a_certificate_once() {
        let dir = folder("made");
        let tls = Tls { cert: dir.join("tls/cert.pem"), key: dir.join("tls/key.pem"), ..Tls::default() };
        make(&tls).unwrap();
        let before = changed(&tls);
        make(&tls).unwrap();
        assert_eq!(changed(&tls), before);
        assert!(load(&tls).unwrap().is_some());
        std::fs::remove_dir_all(dir).unwrap();
    }
}
