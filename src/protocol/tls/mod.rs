//! TLS 1.2 and 1.3: handshakes by rustls, then a record layer that seals from shared memory.
//!
//! rustls makes the handshake ([`handshake`]). After it the keys are taken out (`keys`), and a connection is a
//! [`record::Sealer`] for what it sends and a [`record::Opener`] for what it receives: no socket, no buffer of
//! plaintext, about half a kilobyte. A `rustls::ServerConnection` is ten times as large and copies what it sends
//! once more. `SECURITY.md` says what this relies on.
//!
//! Clauses are those of RFC 8446 (TLS 1.3), RFC 5246 (TLS 1.2), RFC 5288 (AES-GCM in it) and RFC 7905 (ChaCha20).

pub mod error;
pub mod handshake;
mod keys;
pub mod pem;
pub mod record;
pub mod trust;

#[cfg(test)]
pub(crate) mod tests;
