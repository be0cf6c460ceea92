//! TLS: certificates, and the listeners that take nothing else.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::error::{LISTENERS, Rule};

/// The certificates of all listeners. With one, every listener takes TLS and plain connections on the same port.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tls {
    /// The certificate with its chain, as PEM; empty: no TLS. Clients that name no known server get this one.
    pub cert: PathBuf,
    /// Its private key, as PEM.
    pub key: PathBuf,
    /// Further certificates, for the names that stand in them.
    pub certificates: Vec<Certificate>,
    /// Other servers are trusted whose certificates one of this file (PEM) has signed; empty: the system's roots.
    pub ca: PathBuf,
    /// Any other server is trusted: connections to it are encrypted, but to whom is unknown.
    pub insecure: bool,
    /// The listeners that take no plain connections.
    pub required: Vec<String>,
}

/// A certificate and its key.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Certificate {
    /// The certificate with its chain, as PEM.
    pub cert: PathBuf,
    /// Its private key, as PEM.
    pub key: PathBuf,
}

impl Tls {
    /// Whether there is a certificate.
    pub fn is_on(&self) -> bool {
        !self.cert.as_os_str().is_empty()
    }

    /// Whether a listener takes no plain connections.
    pub fn requires(&self, listener: &str) -> bool {
        self.required.iter().any(|name| name == listener)
    }

    /// All certificates, the default one first.
    pub fn all(&self) -> impl Iterator<Item = Certificate> {
        let first = Certificate { cert: self.cert.clone(), key: self.key.clone() };
        self.is_on().then_some(first).into_iter().chain(self.certificates.iter().cloned())
    }

    pub(super) fn check(&self) -> Result<(), (&'static str, Rule)> {
        if self.is_on() == self.key.as_os_str().is_empty() {
            return Err((if self.is_on() { "tls.key" } else { "tls.cert" }, Rule::HalfCertificate));
        }
        if !self.is_on() && !self.certificates.is_empty() {
            return Err(("tls.certificates", Rule::HalfCertificate));
        }
        if !self.is_on() && !self.required.is_empty() {
            return Err(("tls.required", Rule::NoCertificate));
        }
        match self.required.iter().find(|name| !LISTENERS.contains(&name.as_str())) {
            Some(name) => Err(("tls.required", Rule::UnknownListener { name: name.clone() })),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_certificate_needs_its_key_and_a_requirement_needs_a_certificate() {
        let check = |cert: &str, key: &str, required: &[&str]| {
            let required = required.iter().map(|name| (*name).to_owned()).collect();
            Tls { cert: cert.into(), key: key.into(), required, ..Tls::default() }.check().map_err(|e| e.0)
        };
        assert_eq!(check("", "", &[]), Ok(()));
        assert_eq!(check("a.pem", "a.key", &["rtmp", "web"]), Ok(()));
        assert_eq!(check("a.pem", "", &[]), Err("tls.key"));
        assert_eq!(check("", "a.key", &[]), Err("tls.cert"));
        assert_eq!(check("", "", &["web"]), Err("tls.required"));
        assert_eq!(check("a.pem", "a.key", &["webs"]), Err("tls.required"));
    }
}
