//! Why the program could not start, and what to do.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;

use rustix::io::Errno;

use crate::access::load::AccessError;
use crate::uring::setup::RingError;

/// Why the program could not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The address is in use.
    #[error(
        "{name}: the address {address} is taken by another program; stop it (ss -ltnp shows which it is) \
         or choose another one"
    )]
    Taken {
        /// The flag or key that sets it.
        name: &'static str,
        /// The address.
        address: SocketAddr,
    },
    /// A port below 1024 without the right to it.
    #[error(
        "{name}: no right to listen on {address}: run as root, give the program CAP_NET_BIND_SERVICE, or \
         choose a port above 1023"
    )]
    NoRight {
        /// The flag or key that sets it.
        name: &'static str,
        /// The address.
        address: SocketAddr,
    },
    /// Another failure to listen.
    #[error("{name}: cannot listen on {address}: {error}")]
    Listen {
        /// The flag or key that sets it.
        name: &'static str,
        /// The address.
        address: SocketAddr,
        /// What the kernel said.
        error: io::Error,
    },
    /// A certificate cannot be used.
    #[error("tls: {0}")]
    Certificate(#[from] crate::server::certificates::CertificateError),
    /// No other server can be trusted.
    #[error("tls.ca: {0}")]
    Trust(#[from] crate::protocol::tls::trust::TrustError),
    /// The file gateway's folder cannot be opened.
    #[error("--root: cannot serve the folder {}: {error}", root.display())]
    Root {
        /// The folder.
        root: PathBuf,
        /// What the system said.
        error: io::Error,
    },
    /// The recordings' folder cannot be written.
    #[error(
        "--data: recordings cannot be written to {}: {error}; choose another folder, give this user the right to \
         write there, or record nothing (--record none)",
        folder.display()
    )]
    Data {
        /// The folder.
        folder: PathBuf,
        /// What the system said.
        error: io::Error,
    },
    /// The folder for fetched files cannot be used.
    #[error("file_gateway.cache: cannot use the folder {}: {error}", cache.display())]
    Cache {
        /// The folder.
        cache: PathBuf,
        /// What the system said.
        error: io::Error,
    },
    /// The access log cannot be opened.
    #[error("access_log.path: cannot write {}: {error}", path.display())]
    AccessLog {
        /// The file.
        path: PathBuf,
        /// What the system said.
        error: io::Error,
    },
    /// A file of keys or secrets cannot be used.
    #[error(transparent)]
    Access(#[from] AccessError),
    /// A loop could not create its ring.
    #[error(transparent)]
    Ring(#[from] RingError),
    /// The control thread could not create its ring or its runtime.
    #[error("cannot start the control thread: {0}")]
    Control(RingError),
    /// A thread cannot be started.
    #[error(
        "cannot start {loops} loops: {error}; raise the limit of threads (systemd: TasksMax=, LimitNPROC=) or of \
         memory, or use fewer loops (--loops)"
    )]
    Threads {
        /// How many.
        loops: usize,
        /// What the system said.
        error: io::Error,
    },
    /// Shared memory could not be created.
    #[error("cannot make the memory that streams are kept in (memfd_create): {0}{advice}", advice = memfd_advice(.0))]
    Memory(io::Error),
    /// Anything else.
    #[error("{0}")]
    Io(#[from] io::Error),
}

/// Advice for the case that a memfd is refused.
fn memfd_advice(error: &io::Error) -> &'static str {
    match Errno::from_io_error(error) {
        Some(Errno::PERM | Errno::ACCESS | Errno::NOSYS) => {
            "; in a container, allow the system call memfd_create in its seccomp profile"
        }
        Some(Errno::MFILE | Errno::NFILE) => {
            "; raise the limit of descriptors (systemd: LimitNOFILE=1048576)"
        }
        Some(Errno::FBIG) => "; raise the limit of a file's size (systemd: LimitFSIZE=infinity)",
        _ => "",
    }
}

impl StartError {
    /// As in `sysexits.h`: 75 for failures that may go away by themselves, so that a supervisor tries again, 69
    /// for an io_uring that is not available, 78 for a configuration that cannot work.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Ring(error) | Self::Control(error) if !error.is_shortage() => 69,
            Self::Data { .. } | Self::Access(_) | Self::Certificate(_) | Self::Trust(_) => 78,
            _ => 75,
        }
    }

    /// Why `address`, which the flag `name` sets, cannot be listened on.
    pub fn listen(name: &'static str, address: SocketAddr, error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::AddrInUse => Self::Taken { name, address },
            io::ErrorKind::PermissionDenied => Self::NoRight { name, address },
            _ => Self::Listen { name, address, error },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refused_memfd_is_explained() {
        for (errno, advice) in [
            (Errno::PERM, "seccomp"),
            (Errno::NOSYS, "seccomp"),
            (Errno::MFILE, "LimitNOFILE"),
            (Errno::FBIG, "LimitFSIZE"),
        ] {
            let text = StartError::Memory(errno.into()).to_string();
            assert!(text.contains("memfd_create") && text.contains(advice), "{text}");
        }
    }
}
