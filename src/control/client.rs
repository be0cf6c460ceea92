//! The HTTP client of this thread, for hooks and for the files of other servers. Connections are kept and used again.

use std::error::Error;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::body::Incoming;
use hyper::header::CONTENT_TYPE;
use hyper::{Request, Response};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use rustls::ClientConfig;

use crate::config::Upstream;
use crate::protocol::tls::trust;

/// How long a connection is kept that is not used: less than servers keep theirs.
const IDLE: Duration = Duration::from_secs(15);
/// Connections to one server that are kept unused.
const IDLE_MAX: usize = 32;
/// The largest head of an answer, in bytes, and the most that is read at a time.
const BUFFER_MAX: usize = 64 << 10;

type Cause = Box<dyn Error + Send + Sync>;

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub(super) enum ClientError {
    #[error("no connection within {0:?}")]
    ConnectTime(Duration),
    #[error("cannot connect: {}", reason(.0))]
    Connect(Cause),
    #[error("it closed the connection without an answer")]
    Closed,
    #[error("the answer cannot be parsed: {}", reason(.0))]
    Unreadable(Cause),
    #[error("the connection broke: {}", reason(.0))]
    Broken(Cause),
    #[error("the answer is longer than {0} bytes")]
    TooLong(usize),
}

impl ClientError {
    fn of(error: legacy::Error, connect: Duration) -> Self {
        if error.is_connect() {
            let is_late = |error: &io::Error| error.kind() == io::ErrorKind::TimedOut;
            let late = find::<io::Error>(&error).is_some_and(is_late);
            return if late { Self::ConnectTime(connect) } else { Self::Connect(error.into()) };
        }
        match find::<hyper::Error>(&error) {
            Some(own) if own.is_parse() => Self::Unreadable(error.into()),
            Some(own) if own.is_incomplete_message() || own.is_canceled() => Self::Closed,
            _ => Self::Broken(error.into()),
        }
    }

    fn of_body(error: Cause, max: usize) -> Self {
        match find::<hyper::Error>(&*error) {
            _ if error.is::<LengthLimitError>() => Self::TooLong(max),
            Some(own) if own.is_parse() => Self::Unreadable(error),
            _ => Self::Broken(error),
        }
    }
}

impl From<hyper::Error> for ClientError {
    /// An error of a body.
    fn from(error: hyper::Error) -> Self {
        Self::of_body(error.into(), 0)
    }
}

/// The first error of a kind among an error and its causes.
fn find<'a, E: Error + 'static>(mut error: &'a (dyn Error + 'static)) -> Option<&'a E> {
    loop {
        if let Some(found) = error.downcast_ref() {
            return Some(found);
        }
        error = error.source()?;
    }
}

/// The last cause: the others say in which part of the client it came up.
fn reason(error: &Cause) -> String {
    let mut last: &(dyn Error + 'static) = &**error;
    while let Some(cause) = last.source() {
        last = cause;
    }
    last.to_string()
}

/// See the module.
#[derive(Clone, Debug)]
pub(super) struct Client {
    pool: legacy::Client<HttpsConnector<HttpConnector>, Full<Bytes>>,
    connect: Duration,
}

impl Client {
    /// A client that trusts these servers. `connect`: how long a connection may take to be made.
    pub(super) fn new(trusted: Option<&Arc<ClientConfig>>, connect: Duration) -> Self {
        let mut tcp = HttpConnector::new();
        tcp.enforce_http(false);
        tcp.set_nodelay(true);
        tcp.set_connect_timeout(Some(connect));
        let tls = trusted.map_or_else(trust::no_server, Arc::clone);
        let connector = HttpsConnectorBuilder::new()
            .with_tls_config(ClientConfig::clone(&tls))
            .https_or_http()
            .enable_http1()
            .wrap_connector(tcp);
        let pool = legacy::Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(IDLE)
            .pool_max_idle_per_host(IDLE_MAX)
            .http1_max_buf_size(BUFFER_MAX)
            .http1_title_case_headers(true)
            .build(connector);
        Self { pool, connect }
    }

    /// Sends a request and waits for the head of its answer. It is sent once more if the connection ends without an
    /// answer: the server may have closed it before, or while the request was on its way.
    pub(super) async fn send(
        &self,
        request: Request<Full<Bytes>>,
    ) -> Result<Response<Incoming>, ClientError> {
        let send = |request| async {
            self.pool.request(request).await.map_err(|error| ClientError::of(error, self.connect))
        };
        match send(request.clone()).await {
            Err(ClientError::Closed) => send(request).await,
            answered => answered,
        }
    }

    /// Posts a JSON document and waits for the head of the answer.
    pub(super) async fn post(&self, url: &Upstream, json: String) -> Result<Response<Incoming>, ClientError> {
        let mut request = Request::post(url.to_string());
        request = request.header(CONTENT_TYPE, "application/json");
        self.send(request.body(json.into()).expect("an address and fields without errors")).await
    }
}

/// The rest of an answer, of at most `max` bytes.
pub(super) async fn body(answer: Response<Incoming>, max: usize) -> Result<Bytes, ClientError> {
    let whole = Limited::new(answer.into_body(), max).collect().await;
    whole.map(http_body_util::Collected::to_bytes).map_err(|error| ClientError::of_body(error, max))
}
