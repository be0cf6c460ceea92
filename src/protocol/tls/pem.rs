//! Certificates and keys in files.

use std::path::{Path, PathBuf};

use rustls::pki_types::pem::{Error, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

/// A file that cannot be read, or is no PEM.
#[derive(Debug, thiserror::Error)]
#[error("cannot read {}: {error}", path.display())]
pub struct PemError {
    path: PathBuf,
    error: Error,
}

impl PemError {
    fn of(path: &Path) -> impl FnOnce(Error) -> Self {
        |error| Self { path: path.to_owned(), error }
    }
}

/// The certificates in a file; there may be none.
///
/// # Errors
/// [`PemError`].
pub fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, PemError> {
    CertificateDer::pem_file_iter(path).and_then(Iterator::collect).map_err(PemError::of(path))
}

/// The first private key in a file.
///
/// # Errors
/// [`PemError`].
pub fn key(path: &Path) -> Result<PrivateKeyDer<'static>, PemError> {
    PrivateKeyDer::from_pem_file(path).map_err(PemError::of(path))
}
