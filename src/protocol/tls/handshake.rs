//! A handshake, record by record, and what comes of it.

use std::sync::{Arc, Mutex};

use rustls::pki_types::ServerName;
use rustls::{
    ClientConfig, ClientConnection, Connection, KeyLog, ProtocolVersion, ServerConfig, ServerConnection,
};

use super::error::TlsError;
use super::keys::{Keys, Secret, Version};
use super::record::{Opener, Pieces, Sealer};

/// The most bytes that a peer may send in a handshake: certificates included, far above any honest one.
const BYTES_MAX: usize = 128 << 10;

/// A handshake under way.
#[derive(Debug)]
pub struct Handshake {
    rustls: Box<Connection>,
    secrets: Arc<Secrets>,
    pieces: Pieces,
    received: usize,
}

/// A connection after its handshake.
#[derive(Debug)]
pub struct Established {
    /// For what is sent.
    pub sealer: Sealer,
    /// For what is received.
    pub opener: Opener,
}

/// The traffic secrets of TLS 1.3, which rustls tells to its key log only.
#[derive(Default)]
struct Secrets {
    client: Mutex<Vec<u8>>,
    server: Mutex<Vec<u8>>,
}

impl std::fmt::Debug for Secrets {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secrets(…)")
    }
}

impl Secrets {
    fn take(of: &Mutex<Vec<u8>>) -> Vec<u8> {
        std::mem::take(&mut *of.lock().expect("no thread panics while it holds this lock"))
    }
}

impl KeyLog for Secrets {
    fn log(&self, label: &str, _: &[u8], secret: &[u8]) {
        let of = match label {
            "CLIENT_TRAFFIC_SECRET_0" => &self.client,
            "SERVER_TRAFFIC_SECRET_0" => &self.server,
            _ => return,
        };
        secret.clone_into(&mut of.lock().expect("no thread panics while it holds this lock"));
    }
}

impl Handshake {
    /// The server's side. `config` must allow the extraction of secrets.
    ///
    /// # Errors
    /// [`TlsError`] if rustls refuses the configuration.
    pub fn accept(config: &ServerConfig) -> Result<Self, TlsError> {
        let secrets = Arc::<Secrets>::default();
        let mut config = config.clone();
        config.key_log = Arc::clone(&secrets) as Arc<dyn KeyLog>;
        Ok(Self::new(ServerConnection::new(Arc::new(config))?.into(), secrets))
    }

    /// The client's side; [`push`](Self::push) with no bytes gives the first ones to send.
    ///
    /// # Errors
    /// [`TlsError`] if rustls refuses the configuration.
    pub fn connect(config: &ClientConfig, server: ServerName<'static>) -> Result<Self, TlsError> {
        let secrets = Arc::<Secrets>::default();
        let mut config = config.clone();
        config.key_log = Arc::clone(&secrets) as Arc<dyn KeyLog>;
        Ok(Self::new(ClientConnection::new(Arc::new(config), server)?.into(), secrets))
    }

    fn new(rustls: Connection, secrets: Arc<Secrets>) -> Self {
        Self { rustls: Box::new(rustls), secrets, pieces: Pieces::default(), received: 0 }
    }

    /// Takes bytes from the peer and appends those to send to `out`. Returns how many were consumed: all, unless
    /// the handshake is done, which [`finish`](Self::finish) then turns into a connection.
    ///
    /// # Errors
    /// [`TlsError`]: the connection has to end after what is in `out` has been sent.
    pub fn push(&mut self, bytes: &[u8], out: &mut Vec<u8>) -> Result<usize, TlsError> {
        let mut left = bytes;
        while !self.is_done() {
            let before = left.len();
            let record = self.pieces.next(&mut left)?;
            self.received += before - left.len();
            if self.received > BYTES_MAX {
                return Err(TlsError::HandshakeTooLong(BYTES_MAX));
            }
            let Some(record) = record else { break };
            let taken = self.take_record(&record);
            self.write(out);
            taken?;
        }
        self.write(out);
        Ok(bytes.len() - left.len())
    }

    /// Whether it is complete.
    pub fn is_done(&self) -> bool {
        !self.rustls.is_handshaking()
    }

    /// Bytes that it holds, about.
    pub fn held(&self) -> usize {
        /// What rustls keeps, by measurement.
        const RUSTLS: usize = 8 << 10;
        RUSTLS + self.pieces.held()
    }

    fn take_record(&mut self, mut record: &[u8]) -> Result<(), TlsError> {
        while !record.is_empty() {
            let taken = self.rustls.read_tls(&mut record).map_err(|_| TlsError::Malformed)?;
            self.rustls.process_new_packets()?;
            if taken == 0 {
                return Err(TlsError::Malformed);
            }
        }
        Ok(())
    }

    fn write(&mut self, out: &mut Vec<u8>) {
        while self.rustls.wants_write() {
            let written = self.rustls.write_tls(out);
            debug_assert!(written.is_ok(), "a vector takes everything");
        }
    }

    /// The connection, once [`is_done`](Self::is_done).
    ///
    /// # Errors
    /// [`TlsError`] if its suite is not one of those that the record layer knows.
    pub fn finish(self) -> Result<Established, TlsError> {
        assert!(self.is_done(), "the handshake is complete");
        let unknown =
            || TlsError::Handshake(rustls::Error::General("a suite without a record layer".to_owned()));
        let is_server = matches!(*self.rustls, Connection::Server(_));
        let version = match self.rustls.protocol_version() {
            Some(ProtocolVersion::TLSv1_3) => Version::Tls13,
            _ => Version::Tls12,
        };
        let suite = self.rustls.negotiated_cipher_suite().ok_or_else(unknown)?.suite();
        let extracted = self.rustls.dangerous_extract_secrets()?;
        let (client, server) = (Secrets::take(&self.secrets.client), Secrets::take(&self.secrets.server));
        let (sends, receives) = if is_server { (server, client) } else { (client, server) };
        let keys = |(sequence, secrets): &(u64, _), secret: &[u8]| {
            let secret = match version {
                Version::Tls13 => Some(Secret::new(secret, suite)?),
                Version::Tls12 => None,
            };
            Keys::new((*sequence, secrets), version, secret)
        };
        let sealer = Sealer::new(keys(&extracted.tx, &sends).ok_or_else(unknown)?);
        let opener = Opener::new(keys(&extracted.rx, &receives).ok_or_else(unknown)?);
        Ok(Established { sealer, opener })
    }
}
