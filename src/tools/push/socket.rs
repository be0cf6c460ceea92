//! The socket of a push: TCP, or TLS on it.

use std::net::ToSocketAddrs;
use std::sync::Arc;
use std::time::Duration;

use rustls::ClientConfig;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use super::args::Target;
use super::error::PushError;
use crate::protocol::tls::trust::server_name;
use crate::tools::url::host_of;

/// A byte stream to a server.
pub(super) trait Stream: AsyncRead + AsyncWrite + Unpin {}

impl<T: AsyncRead + AsyncWrite + Unpin> Stream for T {}

/// Any of them.
pub(super) type Socket = Box<dyn Stream>;

/// Connects to one of the target's addresses, each within `patience`.
///
/// # Errors
/// [`PushError::Lost`] with the last reason; [`PushError::Untrusted`].
pub(super) async fn connect(
    target: &Target,
    tls: Option<&Arc<ClientConfig>>,
    patience: Duration,
) -> Result<Socket, PushError> {
    let lost = PushError::Lost;
    let address = &target.address;
    let found = address.to_socket_addrs().map_err(|error| lost(format!("{address}: {error}")))?;
    let mut last = lost(format!("{address} has no address"));
    for address in found {
        match timeout(patience, TcpStream::connect(address)).await {
            Ok(Ok(socket)) => {
                let _ = socket.set_nodelay(true);
                return match tls {
                    Some(tls) => secure(target, tls, socket, patience).await,
                    None => Ok(Box::new(socket)),
                };
            }
            Ok(Err(error)) => last = lost(format!("{address}: {error}")),
            Err(_) => last = lost(format!("{address} does not answer")),
        }
    }
    Err(last)
}

async fn secure(
    target: &Target,
    tls: &Arc<ClientConfig>,
    socket: TcpStream,
    patience: Duration,
) -> Result<Socket, PushError> {
    let host = host_of(&target.address);
    let Some(name) = server_name(host) else {
        return Err(PushError::Lost(format!("{host} is no name for a certificate")));
    };
    match timeout(patience, TlsConnector::from(Arc::clone(tls)).connect(name, socket)).await {
        Ok(Ok(stream)) => Ok(Box::new(stream)),
        Ok(Err(error)) => {
            let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
            Err(match inner {
                Some(rustls::Error::InvalidCertificate(why)) => {
                    PushError::Untrusted { host: host.to_owned(), why: why.to_string() }
                }
                _ => PushError::Lost(format!("TLS with {host}: {error}")),
            })
        }
        Err(_) => Err(PushError::Lost(format!("{host} does not answer in TLS"))),
    }
}
