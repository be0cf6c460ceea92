//! Why a file could not be fetched.

use std::io;
use std::time::Duration;

use hyper::StatusCode;

use crate::control::client::ClientError;

/// An upstream did not give a file.
#[derive(Debug, thiserror::Error)]
pub(super) enum UpstreamError {
    /// No answer, or not all of it.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// No answer, and no sign of life either.
    #[error("no answer within {0:?}")]
    NoAnswer(Duration),
    /// It lives, and yet there is no answer.
    #[error("it lives, and has not answered within {0:?}")]
    Slow(Duration),
    /// The body has stopped.
    #[error("nothing came for {0:?} in the middle of the body")]
    Silent(Duration),
    /// The body comes too slowly.
    #[error("fewer than {0} bytes of the body came in {1:?}")]
    TooSlow(u64, Duration),
    /// Not an answer that says whether there is such a file.
    #[error("it answered {0}")]
    Status(StatusCode),
}

impl UpstreamError {
    /// Whether this means that the upstream does not answer at all: others are asked from now on.
    pub(super) fn is_down(&self) -> bool {
        match self {
            Self::Client(ClientError::Unreadable(_) | ClientError::TooLong(_)) => false,
            Self::Client(_) | Self::NoAnswer(_) | Self::Silent(_) => true,
            Self::Slow(_) | Self::TooSlow(..) | Self::Status(_) => false,
        }
    }
}

/// A fetch has failed.
#[derive(Debug, thiserror::Error)]
pub(super) enum FetchError {
    /// The upstream's fault.
    #[error(transparent)]
    Upstream(#[from] UpstreamError),
    /// The cache's folder cannot be written.
    #[error("cannot write the fetched file: {0}")]
    Disk(#[from] io::Error),
    /// The file is larger than may be kept.
    #[error("the file is larger than {limit} bytes")]
    TooLarge {
        /// What may be kept.
        limit: u64,
    },
    /// The folder's size does not allow it, since all other files are being read.
    #[error("the cache has no space for {needed} bytes: all files in it are being read")]
    NoRoom {
        /// Bytes needed.
        needed: u64,
    },
    /// The upstream says that the file is unchanged, and it is not there any more.
    #[error("the fetched file was removed meanwhile; it is fetched whole the next time")]
    Removed,
    /// No client waits for it any more.
    #[error("no client waits for it any more")]
    Unwanted,
}

impl FetchError {
    /// Whether the disk of the cache's folder is full.
    pub(super) fn is_full(&self) -> bool {
        let full = [io::ErrorKind::StorageFull, io::ErrorKind::QuotaExceeded];
        matches!(self, Self::Disk(error) if full.contains(&error.kind()))
    }

    /// Whether the file cannot be kept here: another upstream would not help.
    pub(super) fn is_ours(&self) -> bool {
        matches!(self, Self::Disk(_) | Self::TooLarge { .. } | Self::NoRoom { .. })
    }
}
