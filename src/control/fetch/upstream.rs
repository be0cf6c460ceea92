//! One upstream: its connections, which are kept and used again, one GET on one of them, and whether it lives.
//!
//! An upstream that does not answer a request soon is asked for `/healthz` on a connection of its own. If that is not
//! answered either it is down, and others are asked instead; if it is, the file just takes its time: a file gateway
//! answers when it has fetched the whole file itself.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::error::UpstreamError;
use crate::protocol::http::RelPath;
use crate::protocol::http::client::{ResponseReader, State, get_request};
use crate::protocol::http::date::parse_date;
use crate::server::files::proxy::FileUpstream;
use crate::server::shared::Shared;

/// How long an upstream may take to answer before it is looked whether it lives, and again after that.
const CHECK_AFTER: Duration = Duration::from_millis(1_500);
/// How long that look may take; so one that is frozen costs a file 2.5 s.
const CHECK: Duration = Duration::from_secs(1);
/// How long an upstream that lives may take to answer.
const ANSWER: Duration = Duration::from_secs(60);
/// How long a connection is kept that is not used: less than servers keep theirs.
const IDLE: Duration = Duration::from_secs(15);
/// Connections that are kept unused.
const IDLE_MAX: usize = 32;
/// An answer's body that is not wanted is read all the same up to so many bytes, for the sake of the connection.
const UNWANTED_MAX: usize = 64 << 10;
const HEAD_MAX: usize = 16 << 10;
const READ: usize = 64 << 10;

/// See the module.
#[derive(Debug)]
pub(super) struct Upstream {
    pub(super) state: Arc<FileUpstream>,
    shared: Arc<Shared>,
    connect: Duration,
    idle: RefCell<Vec<(TcpStream, Instant)>>,
    /// When it has answered last.
    heard: Cell<Option<Instant>>,
}

/// What an upstream answers.
#[derive(Debug)]
pub(super) enum Answer {
    /// The file, whose body is still to come.
    File(Box<Begun>),
    /// The file is as it was.
    Unchanged,
    /// There is no such file.
    Missing,
}

/// An answer whose head has come.
#[derive(Debug)]
pub(super) struct Begun {
    pub(super) socket: TcpStream,
    pub(super) reader: ResponseReader,
    /// What came of the body with the head.
    pub(super) body: Vec<u8>,
}

impl Begun {
    fn field(&self, name: &str) -> Option<&str> {
        self.reader.head()?.headers.get(name).map(str::trim)
    }

    /// The length of the body, if the upstream says.
    pub(super) fn announced(&self) -> Option<u64> {
        self.field("content-length")?.parse().ok()
    }

    /// When the file was changed last, in seconds since 1970.
    pub(super) fn modified(&self) -> Option<u64> {
        self.field("last-modified").and_then(parse_date)
    }

    pub(super) fn etag(&self) -> Option<String> {
        self.field("etag").map(str::to_owned)
    }
}

impl Upstream {
    pub(super) fn new(state: Arc<FileUpstream>, shared: Arc<Shared>, connect: Duration) -> Self {
        Self { state, shared, connect, idle: RefCell::default(), heard: Cell::default() }
    }

    /// Asks for a file, or whether it is still the one of that entity tag.
    pub(super) async fn ask(
        self: &Rc<Self>,
        path: &RelPath,
        etag: Option<&str>,
    ) -> Result<Answer, UpstreamError> {
        let bearer = self.shared.credential_for_file(&self.state.url, path);
        let fields = [("If-None-Match", etag), ("Authorization", bearer.as_deref())];
        let fields: Vec<_> = fields.into_iter().filter_map(|(name, value)| Some((name, value?))).collect();
        let request = self.request(&encode(path), &fields);
        let begun = self.note(self.begin(&request).await)?;
        match begun.reader.head().expect("after the head").status {
            200 => Ok(Answer::File(Box::new(begun))),
            status => {
                tokio_uring::spawn(Rc::clone(self).finish(begun));
                match status {
                    304 if etag.is_some() => Ok(Answer::Unchanged),
                    404 | 410 => Ok(Answer::Missing),
                    _ => Err(UpstreamError::Status(status)),
                }
            }
        }
    }

    /// Notes what a request says of the upstream's health.
    pub(super) fn note<T>(&self, result: Result<T, UpstreamError>) -> Result<T, UpstreamError> {
        match &result {
            Err(error) if error.is_down() => self.state.health.failed(self.shared.now()),
            Err(UpstreamError::Slow(_)) => {}
            Ok(_) | Err(_) => {
                self.heard.set(Some(Instant::now()));
                self.state.health.answered();
            }
        }
        result
    }

    /// Asks whether it lives, if it is not up and it is time for that.
    pub(super) async fn probe(self: Rc<Self>) {
        if self.state.health.take_probe(self.shared.now()) {
            let _ = self.check().await;
        }
    }

    /// Closes connections that were not used for long.
    pub(super) fn close_idle(&self) {
        self.idle.borrow_mut().retain(|(_, since)| since.elapsed() < IDLE);
    }

    /// Keeps a connection whose last answer is over.
    pub(super) fn keep(&self, socket: TcpStream) {
        let mut idle = self.idle.borrow_mut();
        if idle.len() < IDLE_MAX {
            idle.push((socket, Instant::now()));
        }
    }

    fn request(&self, path: &str, fields: &[(&str, &str)]) -> Vec<u8> {
        let url = &self.state.url;
        get_request(&url.authority(), &format!("{}/{path}", url.prefix), fields)
    }

    /// Sends a request and waits for the head of its answer. A kept connection may have been closed meanwhile: then a
    /// new one is made.
    async fn begin(&self, request: &[u8]) -> Result<Begun, UpstreamError> {
        if let Some(socket) = self.kept() {
            match self.wait_for_answer(socket, request).await {
                Err(error) if error.is_closed() => self.idle.borrow_mut().clear(),
                result => return result,
            }
        }
        self.wait_for_answer(self.connect().await?, request).await
    }

    /// A kept connection that is still open as far as is known. One that has sent something is of no use.
    fn kept(&self) -> Option<TcpStream> {
        self.close_idle();
        loop {
            let (socket, _) = self.idle.borrow_mut().pop()?;
            let nothing = socket.try_read(&mut [0]);
            if nothing.is_err_and(|error| error.kind() == std::io::ErrorKind::WouldBlock) {
                return Some(socket);
            }
        }
    }

    async fn connect(&self) -> Result<TcpStream, UpstreamError> {
        let url = &self.state.url;
        let connecting = timeout(self.connect, TcpStream::connect((url.host.as_str(), url.port))).await;
        connecting.map_err(|_| UpstreamError::ConnectTime(self.connect))?.map_err(UpstreamError::Connect)
    }

    async fn wait_for_answer(&self, socket: TcpStream, request: &[u8]) -> Result<Begun, UpstreamError> {
        let since = Instant::now();
        let mut answering = std::pin::pin!(exchange(socket, request));
        while since.elapsed() < ANSWER {
            if let Ok(result) = timeout(CHECK_AFTER, &mut answering).await {
                return result;
            }
            let lives = tokio::select! {
                result = &mut answering => return result,
                lives = self.lives() => lives,
            };
            if !lives {
                return Err(UpstreamError::NoAnswer(since.elapsed()));
            }
        }
        Err(UpstreamError::Slow(ANSWER))
    }

    /// Whether it has just answered something, or does when it is asked.
    async fn lives(&self) -> bool {
        self.heard.get().is_some_and(|heard| heard.elapsed() < CHECK) || self.check().await.is_ok()
    }

    /// Asks whether it lives: any answer will do.
    async fn check(&self) -> Result<(), UpstreamError> {
        let request = self.request("healthz", &[("Connection", "close")]);
        let asking = async { exchange(self.connect().await?, &request).await.map(drop) };
        let result = timeout(CHECK, asking).await.unwrap_or(Err(UpstreamError::NoAnswer(CHECK)));
        self.note(result)
    }

    /// Reads the rest of an answer that is not wanted, if that is little, and keeps the connection.
    async fn finish(self: Rc<Self>, mut begun: Begun) {
        let reading = async {
            let mut buffer = vec![0; READ];
            let mut left = UNWANTED_MAX;
            while begun.reader.state() != State::Finished && left > 0 {
                let len = begun.socket.read(&mut buffer).await.unwrap_or(0);
                let bytes = buffer.get(..len).filter(|bytes| !bytes.is_empty());
                let pushed = bytes.map(|bytes| begun.reader.push(bytes, |_, _| {}));
                if !matches!(pushed, Some(Ok(_))) {
                    return;
                }
                left = left.saturating_sub(len);
            }
        };
        if timeout(CHECK, reading).await.is_ok() && begun.reader.keeps_connection() {
            self.keep(begun.socket);
        }
    }
}

/// Sends a request and reads the head of its answer.
async fn exchange(mut socket: TcpStream, request: &[u8]) -> Result<Begun, UpstreamError> {
    socket.write_all(request).await.map_err(UpstreamError::Broken)?;
    let mut reader = ResponseReader::new(HEAD_MAX);
    let mut body = Vec::new();
    let mut buffer = vec![0; READ];
    let mut any = false;
    while reader.state() == State::Head {
        match socket.read(&mut buffer).await.map_err(UpstreamError::Broken)? {
            0 if any => reader.end()?,
            0 => return Err(UpstreamError::Closed),
            len => {
                reader.push(&buffer[..len], |_, piece| body.extend_from_slice(piece))?;
            }
        }
        any = true;
    }
    Ok(Begun { socket, reader, body })
}

/// A path as it stands in a request.
fn encode(path: &RelPath) -> String {
    const PLAIN: &AsciiSet =
        &NON_ALPHANUMERIC.remove(b'/').remove(b'-').remove(b'.').remove(b'_').remove(b'~').remove(b'@');
    utf8_percent_encode(path.as_str(), PLAIN).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_encoded() {
        let path = RelPath::parse("/hls/live/a@b/é %1?.ts").unwrap();
        assert_eq!(encode(&path), "hls/live/a@b/%C3%A9%20%251%3F.ts");
    }
}
