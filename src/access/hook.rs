//! Questions to a hook, an HTTP service that decides who may publish and play, and its answers, which are kept for a
//! while. The field names are those of MediaMTX's HTTP authentication, so that services written for it work.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use serde::{Deserialize, Serialize};

use crate::config::Action;

/// Questions that are kept, answered or not.
const QUESTIONS_MAX: usize = 1 << 14;
/// Connections that wait for the answer to one question.
const WAITING_MAX: usize = 1 << 12;

/// What a hook is asked.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize)]
pub struct Question {
    /// The user name, empty without one.
    pub user: String,
    /// The password, empty without one.
    pub password: String,
    /// The key or the token, empty without one.
    pub token: String,
    /// The client's address.
    pub ip: String,
    /// `publish` or `read`.
    pub action: &'static str,
    /// The stream, `app/name`.
    pub path: String,
    /// `rtmp`, `http`, `ws` or `hls`.
    pub protocol: &'static str,
    /// The query of the URL.
    pub query: String,
}

impl Question {
    /// The name of an action in a question.
    pub const fn action(action: Action) -> &'static str {
        match action {
            Action::Publish => "publish",
            Action::Play => "read",
        }
    }
}

/// What a hook says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Yes; the connection ends at this second, if there is one.
    Yes {
        /// In seconds since 1970.
        end: Option<u64>,
    },
    /// No.
    No,
    /// It did not answer, or not as a hook does.
    Failed,
}

/// The bounds in a hook's answer.
#[derive(Deserialize)]
struct Bounds {
    #[serde(default)]
    end: Option<u64>,
}

impl Verdict {
    /// The verdict of an HTTP answer. A body that is not JSON has no bounds.
    pub fn of_answer(status: u16, body: &[u8]) -> Self {
        match status {
            200..300 => {
                Self::Yes { end: serde_json::from_slice(body).ok().and_then(|bounds: Bounds| bounds.end) }
            }
            401 | 403 => Self::No,
            _ => Self::Failed,
        }
    }
}

/// What is known about a question.
#[derive(Debug, PartialEq, Eq)]
pub enum Known {
    /// The verdict.
    Verdict(Verdict),
    /// It is being asked; the connection waits.
    Asked,
    /// The caller has to ask it; the connection waits.
    New,
}

#[derive(Debug)]
enum Entry<W> {
    Asked(Vec<W>),
    Answered { verdict: Verdict, until: u64 },
}

/// The questions of a process. `W` names a connection that waits; times are in milliseconds.
#[derive(Debug)]
pub struct Desk<W>(Mutex<HashMap<Question, Entry<W>>>);

impl<W> Default for Desk<W> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<W> Desk<W> {
    fn table(&self) -> MutexGuard<'_, HashMap<Question, Entry<W>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What is known about a question; `waits` is told when there is an answer.
    pub fn ask(&self, question: &Question, waits: W, now: u64) -> Known {
        let mut table = self.table();
        match table.get_mut(question) {
            Some(Entry::Answered { verdict, until }) if now < *until => return Known::Verdict(*verdict),
            Some(Entry::Asked(waiting)) => {
                if waiting.len() >= WAITING_MAX {
                    return Known::Verdict(Verdict::Failed);
                }
                waiting.push(waits);
                return Known::Asked;
            }
            Some(Entry::Answered { .. }) | None => {}
        }
        if table.len() >= QUESTIONS_MAX {
            table.retain(|_, entry| !matches!(entry, Entry::Answered { until, .. } if *until <= now));
            if table.len() >= QUESTIONS_MAX {
                return Known::Verdict(Verdict::Failed);
            }
        }
        table.insert(question.clone(), Entry::Asked(vec![waits]));
        Known::New
    }

    /// A question was answered: returns the connections that wait for it. The verdict is kept until then.
    pub fn answer(&self, question: &Question, verdict: Verdict, until: u64) -> Vec<W> {
        match self.table().insert(question.clone(), Entry::Answered { verdict, until }) {
            Some(Entry::Asked(waiting)) => waiting,
            _ => Vec::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn question(path: &str) -> Question {
        let text = String::new;
        let (user, password, token, ip, query) = (text(), text(), text(), text(), text());
        Question { user, password, token, ip, action: "read", path: path.to_owned(), protocol: "http", query }
    }

    #[test]
    fn a_question_is_asked_once_and_its_answer_kept_for_a_while() {
        let desk = Desk::default();
        let a = question("live/a");
        assert_eq!(desk.ask(&a, 1, 100), Known::New);
        assert_eq!(desk.ask(&a, 2, 100), Known::Asked);
        assert_eq!(desk.ask(&question("live/b"), 3, 100), Known::New);
        assert_eq!(desk.answer(&a, Verdict::No, 200), [1, 2]);
        assert_eq!(desk.ask(&a, 4, 199), Known::Verdict(Verdict::No));
        assert_eq!(desk.ask(&a, 4, 200), Known::New);
        assert_eq!(desk.answer(&a, Verdict::Yes { end: None }, 200), [4]);
        assert_eq!(desk.answer(&question("live/c"), Verdict::No, 200), Vec::<i32>::new());
    }

    #[test]
    fn questions_and_waiting_connections_are_bounded() {
        let desk = Desk::default();
        for n in 0..QUESTIONS_MAX {
            assert_eq!(desk.ask(&question(&n.to_string()), n, 0), Known::New);
        }
        assert_eq!(desk.ask(&question("more"), 0, 0), Known::Verdict(Verdict::Failed));
        desk.answer(&question("0"), Verdict::No, 10);
        assert_eq!(desk.ask(&question("more"), 0, 9), Known::Verdict(Verdict::Failed));
        assert_eq!(desk.ask(&question("more"), 0, 10), Known::New, "an old answer makes way");
        (1..WAITING_MAX).for_each(|n| assert_eq!(desk.ask(&question("more"), n, 10), Known::Asked));
        assert_eq!(desk.ask(&question("more"), 0, 10), Known::Verdict(Verdict::Failed));
    }

    #[test]
    fn answers_of_services() {
        assert_eq!(Verdict::of_answer(204, b""), Verdict::Yes { end: None });
        assert_eq!(Verdict::of_answer(200, b"OK"), Verdict::Yes { end: None });
        assert_eq!(
            Verdict::of_answer(200, b"{\"end\":1764400000,\"x\":1}"),
            Verdict::Yes { end: Some(1_764_400_000) }
        );
        assert_eq!([401, 403].map(|status| Verdict::of_answer(status, b"")), [Verdict::No; 2]);
        assert_eq!([302, 404, 500].map(|status| Verdict::of_answer(status, b"")), [Verdict::Failed; 3]);
    }
}
