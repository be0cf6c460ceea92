//! The arguments of tools that connect to servers: whom they trust.

use std::path::PathBuf;
use std::sync::Arc;

use rustls::ClientConfig;

use crate::protocol::tls::trust::{self, Trust, TrustError};

/// Which servers are trusted for `https://`, `wss://` and `rtmps://`.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct TrustArgs {
    /// Trust servers whose certificate one of this file (PEM) has signed, instead of the system's roots
    #[arg(long, value_name = "FILE")]
    pub ca: Option<PathBuf>,
    /// Trust any server: encrypted, but to whom is unknown
    #[arg(long, conflicts_with = "ca")]
    pub insecure: bool,
}

impl TrustArgs {
    /// The configuration of a client.
    ///
    /// # Errors
    /// [`TrustError`].
    pub fn client(&self) -> Result<Arc<ClientConfig>, TrustError> {
        trust::client(&match &self.ca {
            _ if self.insecure => Trust::Anyone,
            Some(file) => Trust::File(file.clone()),
            None => Trust::System,
        })
    }
}
