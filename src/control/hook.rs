//! Asks the hook who may publish and play, and tells the loops its answers.

use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use tokio::sync::Semaphore;
use tracing::warn;

use super::post::{PostError, post};
use crate::access::hook::{Question, Verdict};
use crate::config::{Auth, Upstream};
use crate::server::shared::{Message, Shared};

/// Questions that are under way at a time.
const CALLS_MAX: usize = 64;
/// The largest body of an answer, in bytes.
const BODY_MAX: usize = 16 << 10;
/// How long a failure of the hook is remembered: it gets time to recover. Verdicts are kept at least as long, for those
/// who wait for them.
const FAILURE_LIFE: Duration = Duration::from_millis(500);

/// Why the hook gave no verdict.
#[derive(Debug, thiserror::Error)]
enum HookError {
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error(transparent)]
    Post(#[from] PostError),
    #[error("it did not answer in time")]
    Late,
    #[error("the answer's status is {0}, and neither 2xx nor 401 nor 403")]
    Status(u16),
}

/// A question with a number, which tells it from others in the service's log.
#[derive(Serialize)]
struct Numbered<'a> {
    #[serde(flatten)]
    question: &'a Question,
    id: String,
}

/// Starts to ask, for as long as the server runs.
pub(super) fn start(shared: &Arc<Shared>, auth: impl Fn() -> Auth + 'static) {
    let Some(mut questions) = shared.authority.take_questions() else { return };
    let shared = Arc::clone(shared);
    tokio_uring::spawn(async move {
        let calls = Arc::new(Semaphore::new(CALLS_MAX));
        let mut number = 0u64;
        while let Some(question) = questions.recv().await {
            let Ok(call) = Arc::clone(&calls).acquire_owned().await else { return };
            number += 1;
            let (shared, auth) = (Arc::clone(&shared), Rc::new(auth()));
            tokio_uring::spawn(async move {
                decide(&shared, &auth, &question, number).await;
                drop(call);
            });
        }
    });
}

async fn decide(shared: &Shared, auth: &Auth, question: &Question, number: u64) {
    let called = async {
        match &auth.hook {
            Some(url) => call(url, question, number).await,
            None => Ok(Verdict::Failed), // a reload has taken it away
        }
    };
    let called = tokio::time::timeout(auth.hook_timeout, called).await.unwrap_or(Err(HookError::Late));
    let (verdict, life) = match called {
        Ok(verdict) => (verdict, auth.hook_cache.max(FAILURE_LIFE)),
        Err(error) => {
            warn!(%error, stream = question.path, "the hook (auth.hook) gave no verdict");
            (Verdict::Failed, FAILURE_LIFE)
        }
    };
    let until = shared.now().saturating_add(u64::try_from(life.as_millis()).unwrap_or(u64::MAX));
    for (index, sock) in shared.authority.answer(question, verdict, until) {
        shared.posts[index].post(Message::Answered(sock));
    }
}

async fn call(url: &Upstream, question: &Question, number: u64) -> Result<Verdict, HookError> {
    let json =
        serde_json::to_string(&Numbered { question, id: number.to_string() }).map_err(io::Error::from)?;
    let (status, body) = post(url, &json, Some(BODY_MAX)).await?;
    match Verdict::of_answer(status, &body) {
        Verdict::Failed => Err(HookError::Status(status)),
        verdict => Ok(verdict),
    }
}
