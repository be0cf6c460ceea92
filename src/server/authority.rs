//! The rules of access of the running server: read at the start, and again when they change.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use arc_swap::ArcSwap;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use tokio::sync::mpsc::{Receiver, Sender, channel};

use super::forwarded::is_forwarded;
use super::head::ConnHead;
use crate::access::hook::{Desk, Known, Question, Verdict};
use crate::access::load::{self, AccessError};
use crate::access::sessions::Sessions;
use crate::access::token::{SigningKey, TokenError, has_form};
use crate::access::{Access, Action, Asker, Denied, Grant};
use crate::config::Auth;
use crate::protocol::http::request::Request;
use crate::protocol::rtmp::target::Target;
use crate::uring::{Millis, Sock};

/// Questions to the hook that wait to be sent.
const QUESTIONS_MAX: usize = 1024;

/// See the module.
#[derive(Debug)]
pub struct Authority {
    rules: ArcSwap<Access>,
    /// Signs for this process; the same for as long as it runs.
    own: SigningKey,
    sessions: Sessions,
    desk: Desk<(usize, Sock)>,
    /// Questions for the control thread, which asks the hook.
    questions: Sender<Question>,
    asked: Mutex<Option<Receiver<Question>>>,
}

/// Why something was not granted, or not yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ungranted {
    /// It is refused.
    Denied(Denied),
    /// The hook is being asked: the connection is asked again ([`super::core::Task::AskAgain`]).
    Later,
}

impl Authority {
    /// The rules of a configuration.
    ///
    /// # Errors
    /// [`AccessError`].
    pub fn load(auth: &Auth) -> Result<Self, AccessError> {
        let own = load::own_key();
        let rules = ArcSwap::from_pointee(load::access(auth, &own)?);
        let (questions, asked) = channel(QUESTIONS_MAX);
        let (sessions, desk, asked) = (Sessions::default(), Desk::default(), Mutex::new(Some(asked)));
        Ok(Self { rules, own, sessions, desk, questions, asked })
    }

    /// Reads the rules again; if that fails, the present ones stay. Blocks.
    ///
    /// # Errors
    /// [`AccessError`].
    pub fn reload(&self, auth: &Auth) -> Result<(), AccessError> {
        self.rules.store(Arc::new(load::access(auth, &self.own)?));
        Ok(())
    }

    /// Whether `asker` may do something with a stream. `lasting`: it asks again and again, and one that has begun with a
    /// token goes on when that has expired.
    pub(super) fn authorise(
        &self,
        (action, stream): (Action, &str),
        asker: &Asker<'_>,
        lasting: bool,
    ) -> Result<Grant, Denied> {
        let (rules, now) = (self.rules(), unix_time());
        let answer = rules.authorise(action, stream, asker, now);
        let Some(token) = asker.token.filter(|token| lasting && has_form(token)) else { return answer };
        match answer {
            Ok(_) => self.sessions.note(token, now),
            Err(Denied::Token(TokenError::Expired)) => {
                let Some(valid) = self.sessions.went_on(token, now) else { return answer };
                let grant = rules.authorise(action, stream, asker, valid)?;
                return if grant.end.is_some_and(|end| end <= now) { answer } else { Ok(grant) };
            }
            Err(_) => {}
        }
        answer
    }

    /// Asks the hook, for a connection of a loop that waits if the answer is not known.
    ///
    /// # Errors
    /// [`Ungranted`].
    pub(super) fn ask(
        &self,
        question: &Question,
        (action, asker): (Action, &Asker<'_>),
        waits: (usize, Sock),
        now: Millis,
    ) -> Result<Grant, Ungranted> {
        let mut verdict = match self.desk.ask(question, waits, now) {
            Known::Verdict(verdict) => Some(verdict),
            Known::Asked => None,
            Known::New => self.questions.try_send(question.clone()).err().map(|_| {
                let _ = self.desk.answer(question, Verdict::Failed, now);
                Verdict::Failed
            }),
        };
        match verdict.take() {
            None => Err(Ungranted::Later),
            Some(Verdict::Yes { end }) => {
                let given = if question.token.is_empty() { &question.user } else { &question.token };
                let identity = (!given.is_empty()).then(|| format!("key {given}"));
                Ok(Grant { end, identity })
            }
            Some(Verdict::No) => Err(Ungranted::Denied(Denied::Hook)),
            Some(Verdict::Failed) => self.rules().while_down(action, asker).map_err(Ungranted::Denied),
        }
    }

    /// The hook has answered: the verdict is kept until then. Returns the connections that wait, with their loops.
    pub fn answer(&self, question: &Question, verdict: Verdict, until: Millis) -> Vec<(usize, Sock)> {
        self.desk.answer(question, verdict, until)
    }

    /// The questions, for the control thread; `None` if they were taken before.
    pub fn take_questions(&self) -> Option<Receiver<Question>> {
        self.asked.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// The rules as they are now.
    pub fn rules(&self) -> arc_swap::Guard<Arc<Access>> {
        self.rules.load()
    }
}

/// Seconds since 1970.
pub(super) fn unix_time() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO).as_secs()
}

/// The client that sent a request.
pub(super) fn asker_of<'a>(head: &ConnHead, request: &'a Request) -> Asker<'a> {
    Asker {
        address: head.address,
        forwarded: !head.is_proxy && is_forwarded(request),
        host: request.header("host"),
        origin: request.header("origin"),
        referer: request.header("referer"),
        token: request.token(),
    }
}

/// What the hook is asked about a request.
pub(super) fn question_of_request(
    (action, stream): (Action, &str),
    asker: &Asker<'_>,
    request: &Request,
    protocol: &'static str,
) -> Question {
    let basic = || {
        let (scheme, text) = request.header("authorization")?.trim().split_once(' ')?;
        let text = STANDARD.decode(text.trim()).ok().filter(|_| scheme.eq_ignore_ascii_case("basic"))?;
        let text = String::from_utf8(text).ok()?;
        text.split_once(':').map(|(user, password)| (user.to_owned(), password.to_owned()))
    };
    let parameter = |name| request.query(name).unwrap_or_default().to_owned();
    let (user, password) = basic().unwrap_or_else(|| (parameter("user"), parameter("pass")));
    let query = request.target.split_once('?').map_or("", |(_, query)| query).to_owned();
    question((action, stream), asker, (user, password), query, protocol)
}

/// What the hook is asked about a stream that a peer names by RTMP.
pub(super) fn question_of_target(
    (action, stream): (Action, &str),
    asker: &Asker<'_>,
    target: &Target,
) -> Question {
    let parameter = |name| target.parameter(name).unwrap_or_default();
    let login = (parameter("user"), parameter("pass"));
    question((action, stream), asker, login, target.query.clone().unwrap_or_default(), "rtmp")
}

fn question(
    (action, stream): (Action, &str),
    asker: &Asker<'_>,
    (user, password): (String, String),
    query: String,
    protocol: &'static str,
) -> Question {
    Question {
        user,
        password,
        token: asker.token.unwrap_or_default().to_owned(),
        ip: asker.address.map_or_else(String::new, |address| address.to_string()),
        action: Question::action(action),
        path: stream.to_owned(),
        protocol,
        query,
    }
}
