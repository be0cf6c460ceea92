//! Asks the hook who may publish and play, and tells the loops its answers.

use std::cell::RefCell;
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use metrics::{counter, describe_counter};
use serde::Serialize;
use tokio::sync::Semaphore;
use tracing::{debug, warn};

use super::client::{Client, ClientError, body};
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
/// How long a connection to the hook may take; `auth.hook_timeout` bounds the whole question.
const CONNECT: Duration = Duration::from_secs(5);
/// After so many failures in a row the hook is not asked for a while.
const FAILURES_MAX: u32 = 5;
/// How long it is not asked then.
const PAUSE: Duration = Duration::from_secs(1);

/// Why the hook gave no verdict.
#[derive(Debug, thiserror::Error)]
enum HookError {
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error(transparent)]
    Client(#[from] ClientError),
    #[error("it did not answer in time")]
    Late,
    #[error("the answer's status is {0}, and neither 2xx nor 401 nor 403")]
    Status(u16),
    #[error("it is not asked for a while: it has failed {FAILURES_MAX} times in a row")]
    Paused,
}

/// Keeps a service that fails from being asked by everyone: after some failures in a row there is a pause, and then one
/// question at a time until one is answered.
#[derive(Debug, Default)]
struct Breaker {
    failures: u32,
    /// When the next question may be asked, once it has failed often enough.
    paused_until: Option<Instant>,
}

impl Breaker {
    fn admits(&mut self, now: Instant) -> bool {
        match self.paused_until {
            Some(until) if now < until => false,
            Some(_) => {
                self.paused_until = Some(now + PAUSE); // this one tells
                true
            }
            None => true,
        }
    }

    fn told(&mut self, answered: bool, now: Instant) {
        if answered {
            *self = Self::default();
            return;
        }
        self.failures = self.failures.saturating_add(1);
        if self.failures >= FAILURES_MAX {
            self.paused_until = Some(now + PAUSE);
        }
    }
}

/// What all questions share.
struct Asker {
    shared: Arc<Shared>,
    client: Client,
    breaker: RefCell<Breaker>,
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
    describe_counter!(
        "uringcast_hook_questions_total",
        "Questions to the hook (auth.hook), by what came of them"
    );
    let client = Client::new(shared.trust.get(), CONNECT);
    let asker = Rc::new(Asker { shared: Arc::clone(shared), client, breaker: RefCell::default() });
    tokio_uring::spawn(async move {
        let calls = Arc::new(Semaphore::new(CALLS_MAX));
        let mut number = 0u64;
        while let Some(question) = questions.recv().await {
            let Ok(call) = Arc::clone(&calls).acquire_owned().await else { return };
            number += 1;
            let (asker, auth) = (Rc::clone(&asker), auth());
            tokio_uring::spawn(async move {
                asker.decide(&auth, &question, number).await;
                drop(call);
            });
        }
    });
}

impl Asker {
    async fn decide(&self, auth: &Auth, question: &Question, number: u64) {
        let (verdict, life) = match self.ask(auth, question, number).await {
            Ok(verdict) => (verdict, auth.hook_cache.max(FAILURE_LIFE)),
            Err(error) => {
                Self::complain(&error, question);
                (Verdict::Failed, FAILURE_LIFE)
            }
        };
        let shared = &self.shared;
        let until = shared.now().saturating_add(u64::try_from(life.as_millis()).unwrap_or(u64::MAX));
        for (index, sock) in shared.authority.answer(question, verdict, until) {
            shared.posts[index].post(Message::Answered(sock));
        }
    }

    fn complain(error: &HookError, question: &Question) {
        match error {
            HookError::Paused => debug!(%error, stream = question.path, "the hook (auth.hook) is not asked"),
            _ => warn!(%error, stream = question.path, "the hook (auth.hook) gave no verdict"),
        }
    }

    async fn ask(&self, auth: &Auth, question: &Question, number: u64) -> Result<Verdict, HookError> {
        let Some(url) = &auth.hook else { return Ok(Verdict::Failed) }; // a reload has taken it away
        if !self.breaker.borrow_mut().admits(Instant::now()) {
            counter!("uringcast_hook_questions_total", "result" => "not_asked").increment(1);
            return Err(HookError::Paused);
        }
        let called = tokio::time::timeout(auth.hook_timeout, self.call(url, question, number)).await;
        let called = called.unwrap_or(Err(HookError::Late));
        let result = match &called {
            Ok(Verdict::Yes { .. }) => "allowed",
            Ok(_) => "refused",
            Err(_) => "failed",
        };
        counter!("uringcast_hook_questions_total", "result" => result).increment(1);
        self.breaker.borrow_mut().told(called.is_ok(), Instant::now());
        called
    }

    async fn call(&self, url: &Upstream, question: &Question, number: u64) -> Result<Verdict, HookError> {
        let json =
            serde_json::to_string(&Numbered { question, id: number.to_string() }).map_err(io::Error::from)?;
        let answer = self.client.post(url, json).await?;
        let status = answer.status().as_u16();
        match Verdict::of_answer(status, &body(answer, BODY_MAX).await?) {
            Verdict::Failed => Err(HookError::Status(status)),
            verdict => Ok(verdict),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn after_some_failures_in_a_row_there_is_a_pause_and_then_one_question_at_a_time() {
        let (mut breaker, start) = (Breaker::default(), Instant::now());
        for _ in 1..FAILURES_MAX {
            breaker.told(false, start);
        }
        assert!(breaker.admits(start) && breaker.admits(start));
        breaker.told(false, start);
        assert!(!breaker.admits(start) && !breaker.admits(start + PAUSE / 2));
        assert!(breaker.admits(start + PAUSE), "one tells");
        assert!(!breaker.admits(start + PAUSE), "the others wait for it");
        breaker.told(false, start + PAUSE);
        assert!(!breaker.admits(start + PAUSE * 3 / 2));
        assert!(breaker.admits(start + PAUSE * 2));
        breaker.told(true, start + PAUSE * 2);
        assert!(breaker.admits(start + PAUSE * 2) && breaker.admits(start + PAUSE * 2));
    }

    #[test]
    fn failures_that_are_not_in_a_row_count_for_nothing() {
        let (mut breaker, now) = (Breaker::default(), Instant::now());
        for turn in 0..100 {
            breaker.told(turn % 3 == 0, now);
            assert!(breaker.admits(now));
        }
    }
}
