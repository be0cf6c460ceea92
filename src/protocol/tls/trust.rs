//! Whom a client trusts.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::client::Resumption;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, WebPkiSupportedAlgorithms};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme};

use super::pem::{self, PemError};

/// Which servers a client trusts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Trust {
    /// Those whose certificates the system's roots have signed.
    System,
    /// Those whose certificates one of this file (PEM) has signed.
    File(PathBuf),
    /// All: the connection is encrypted, but to whom is unknown.
    Anyone,
}

/// Why no server can be trusted.
#[derive(Debug, thiserror::Error)]
pub enum TrustError {
    /// The file cannot be read, or is no PEM.
    #[error(transparent)]
    Read(#[from] PemError),
    /// There is no certificate.
    #[error("{0} contains no certificate of an authority: give one with --ca FILE")]
    Empty(String),
}

/// The configuration of a client that trusts those servers. Secrets can be extracted after its handshakes.
///
/// # Errors
/// [`TrustError`].
pub fn client(trust: &Trust) -> Result<Arc<ClientConfig>, TrustError> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let roots = match trust {
        Trust::System => system()?,
        Trust::File(path) => of_file(path)?,
        Trust::Anyone => RootCertStore::empty(),
    };
    let mut config = of_roots(roots, &provider);
    if *trust == Trust::Anyone {
        config.dangerous().set_certificate_verifier(Arc::new(Anyone::new(&provider)));
    }
    config.enable_secret_extraction = true;
    config.resumption = Resumption::disabled();
    Ok(Arc::new(config))
}

/// The configuration of a client that trusts no server.
pub fn no_server() -> Arc<ClientConfig> {
    of_roots(RootCertStore::empty(), &Arc::new(rustls::crypto::aws_lc_rs::default_provider())).into()
}

fn of_roots(roots: RootCertStore, provider: &Arc<CryptoProvider>) -> ClientConfig {
    ClientConfig::builder_with_provider(Arc::clone(provider))
        .with_safe_default_protocol_versions()
        .expect("the suites fit both versions")
        .with_root_certificates(roots)
        .with_no_client_auth()
}

fn system() -> Result<RootCertStore, TrustError> {
    let mut roots = RootCertStore::empty();
    // A root that cannot be parsed is left out; the others are good.
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    if roots.is_empty() { Err(TrustError::Empty("this system".to_owned())) } else { Ok(roots) }
}

fn of_file(path: &Path) -> Result<RootCertStore, TrustError> {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(pem::certificates(path)?);
    if roots.is_empty() { Err(TrustError::Empty(path.display().to_string())) } else { Ok(roots) }
}

/// The name that a server's certificate must be for, from a host as URLs write it; `None`: it cannot be one.
pub fn server_name(host: &str) -> Option<ServerName<'static>> {
    let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    ServerName::try_from(host.to_owned()).ok()
}

/// Trusts every certificate: the connection is encrypted, and nobody knows to whom. Only where a user has said
/// `insecure`.
#[derive(Debug)]
pub struct Anyone {
    algorithms: WebPkiSupportedAlgorithms,
}

impl Anyone {
    /// With the signatures of that provider.
    pub fn new(provider: &CryptoProvider) -> Self {
        Self { algorithms: provider.signature_verification_algorithms }
    }
}

impl ServerCertVerifier for Anyone {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        rustls::crypto::verify_tls12_signature(message, cert, signed, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        rustls::crypto::verify_tls13_signature(message, cert, signed, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}
