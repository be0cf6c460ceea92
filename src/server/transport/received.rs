//! What a session receives.

use std::ops::Deref;

/// Bytes from a peer, as it meant them.
#[derive(Debug)]
pub(in crate::server) enum Received<B> {
    /// As they came.
    Plain(B),
    /// From records of TLS.
    Opened(Vec<u8>),
}

impl<B: Deref<Target = [u8]>> Deref for Received<B> {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self {
            Self::Plain(bytes) => bytes,
            Self::Opened(bytes) => bytes,
        }
    }
}
