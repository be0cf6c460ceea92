//! What a session receives.

use std::ops::Deref;

/// Bytes from a peer, as it meant them.
#[derive(Debug)]
pub(in crate::server) enum Received<B> {
    /// As the engine gave them.
    Whole(B),
    /// What was kept of them: from records of TLS, or from what a PROXY header may have stood before.
    Kept(Vec<u8>),
}

impl<B: Deref<Target = [u8]>> Deref for Received<B> {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self {
            Self::Whole(bytes) => bytes,
            Self::Kept(bytes) => bytes,
        }
    }
}

impl<B> From<Vec<u8>> for Received<B> {
    fn from(bytes: Vec<u8>) -> Self {
        Self::Kept(bytes)
    }
}
