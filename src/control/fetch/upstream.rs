//! One upstream: its connections, which are kept and used again, one GET on one of them, and whether it lives.
//!
//! An upstream that does not answer a request soon is asked for `/healthz` on a connection of its own. If that is not
//! answered either it is down, and others are asked instead; if it is, the file just takes its time: a file gateway
//! answers when it has fetched the whole file itself.

use std::cell::Cell;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::header::{
    AUTHORIZATION, CONNECTION, CONTENT_LENGTH, ETAG, HeaderName, IF_NONE_MATCH, LAST_MODIFIED,
};
use hyper::{Request, Response, StatusCode};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use tokio::time::timeout;

use super::error::UpstreamError;
use crate::control::client::{Client, body};
use crate::protocol::http::RelPath;
use crate::protocol::http::date::parse_date;
use crate::server::files::proxy::FileUpstream;
use crate::server::shared::Shared;

/// How long an upstream may take to answer before it is looked whether it lives, and again after that.
const CHECK_AFTER: Duration = Duration::from_millis(1_500);
/// How long that look may take; so one that is frozen costs a file 2.5 s.
const CHECK: Duration = Duration::from_secs(1);
/// How long an upstream that lives may take to answer.
const ANSWER: Duration = Duration::from_secs(60);
/// An answer's body that is not wanted is read all the same up to so many bytes, for the sake of the connection.
const UNWANTED_MAX: usize = 64 << 10;

/// See the module.
#[derive(Debug)]
pub(super) struct Upstream {
    pub(super) state: Arc<FileUpstream>,
    shared: Arc<Shared>,
    client: Client,
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
pub(super) struct Begun(Response<Incoming>);

impl Begun {
    fn field(&self, name: HeaderName) -> Option<&str> {
        self.0.headers().get(name)?.to_str().ok().map(str::trim)
    }

    /// The length of the body, if the upstream says.
    pub(super) fn announced(&self) -> Option<u64> {
        self.field(CONTENT_LENGTH)?.parse().ok()
    }

    /// When the file was changed last, in seconds since 1970.
    pub(super) fn modified(&self) -> Option<u64> {
        self.field(LAST_MODIFIED).and_then(parse_date)
    }

    pub(super) fn etag(&self) -> Option<String> {
        self.field(ETAG).map(str::to_owned)
    }

    pub(super) fn into_body(self) -> Incoming {
        self.0.into_body()
    }
}

impl Upstream {
    pub(super) fn new(state: Arc<FileUpstream>, shared: Arc<Shared>, connect: Duration) -> Self {
        let client = Client::new(shared.trust.get(), connect);
        Self { state, shared, client, heard: Cell::default() }
    }

    /// Asks for a file, or whether it is still the one of that entity tag.
    pub(super) async fn ask(&self, path: &RelPath, etag: Option<&str>) -> Result<Answer, UpstreamError> {
        let bearer = self.shared.credential_for_file(&self.state.url, path);
        let fields = [(IF_NONE_MATCH, etag), (AUTHORIZATION, bearer.as_deref())];
        let fields: Vec<_> = fields.into_iter().filter_map(|(name, value)| Some((name, value?))).collect();
        let answer = self.note(self.wait_for_answer(self.request(&encode(path), &fields)).await)?;
        match answer.status() {
            StatusCode::OK => Ok(Answer::File(Box::new(Begun(answer)))),
            status => {
                tokio_uring::spawn(finish(answer));
                match status {
                    StatusCode::NOT_MODIFIED if etag.is_some() => Ok(Answer::Unchanged),
                    StatusCode::NOT_FOUND | StatusCode::GONE => Ok(Answer::Missing),
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

    fn request(&self, path: &str, fields: &[(HeaderName, &str)]) -> Request<Full<Bytes>> {
        let request = Request::get(format!("{}/{path}", self.state.url));
        let request = fields.iter().fold(request, |request, (name, value)| request.header(name, *value));
        request.body(Full::default()).expect("an encoded path, and fields that were checked")
    }

    async fn wait_for_answer(
        &self,
        request: Request<Full<Bytes>>,
    ) -> Result<Response<Incoming>, UpstreamError> {
        let since = Instant::now();
        let mut answering = std::pin::pin!(self.client.send(request));
        while since.elapsed() < ANSWER {
            if let Ok(answered) = timeout(CHECK_AFTER, &mut answering).await {
                return Ok(answered?);
            }
            let lives = tokio::select! {
                answered = &mut answering => return Ok(answered?),
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
        let asking = self.client.send(self.request("healthz", &[(CONNECTION, "close")]));
        let asked = timeout(CHECK, asking).await.map_err(|_| UpstreamError::NoAnswer(CHECK));
        self.note(asked.and_then(|answered| Ok(answered.map(drop)?)))
    }
}

/// Reads the rest of an answer that is not wanted, if that is little: the connection is then kept.
async fn finish(answer: Response<Incoming>) {
    let _ = timeout(CHECK, body(answer, UNWANTED_MAX)).await;
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
