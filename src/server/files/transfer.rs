//! Answers on their way: stretches of files go out a slice at a time, all clients in turn, so many bytes a turn of
//! the loop, so that nobody is held up by a large file or by many.

use std::rc::Rc;

use bytes::{Buf, Bytes};

use super::answer::{Answer, Body};
use super::log::{Outcome, Record};
use crate::server::conn::{Conn, Fate, Kind};
use crate::server::shared::millis;
use crate::server::worker::Worker;
use crate::uring::files::FILE_SEND_MAX;
use crate::uring::{Engine, Millis, Payload, SendError};

/// Bytes of files that a loop sends before it looks at its other work.
const TURN_BYTES: u64 = 4 << 20;

impl Answer {
    /// What to send next, and how many bytes of a file that is.
    fn next(&self) -> (Payload, u32) {
        match &self.body {
            Body::File { file, from, to } => {
                let len = u32::try_from((to - from).min(FILE_SEND_MAX.into())).expect("bounded");
                let payload =
                    Payload::File { head: self.head.clone(), file: Rc::clone(file), from: *from, len };
                (payload, len)
            }
            Body::Memory(bytes) if self.head.is_empty() => (Payload::Bytes(bytes.clone()), 0),
            Body::None | Body::Memory(_) => (Payload::Bytes(self.head.clone()), 0),
        }
    }

    /// So many bytes were taken.
    fn advance(&mut self, taken: u32) {
        self.sent += u64::from(taken);
        let of_head = self.head.len().min(taken as usize);
        self.head.advance(of_head);
        let of_body = taken as usize - of_head;
        match &mut self.body {
            Body::None => debug_assert_eq!(of_body, 0, "no more is taken than was offered"),
            Body::Memory(bytes) => bytes.advance(of_body),
            Body::File { from, .. } => *from += of_body as u64,
        }
    }
}

impl<E: Engine> Worker<E> {
    /// Milliseconds that a client may stay connected without asking for anything.
    pub(super) fn idle_time(&self) -> Millis {
        millis(self.shared.config.limits.keep_alive)
    }

    /// Milliseconds that a client may take nothing of its answer.
    pub(super) fn send_time(&self) -> Millis {
        millis(self.shared.config.limits.send_time)
    }

    /// Begins to send an answer.
    pub(super) fn begin_answer(&mut self, conn: &mut Conn, answer: Answer) -> Fate {
        let Kind::Client(client) = &mut conn.kind else { unreachable!("asked by kind") };
        debug_assert!(client.answer.is_none(), "one answer at a time");
        client.answer = Some(answer);
        self.deadline(conn.sock, self.send_time());
        self.go_on(conn);
        Fate::Keep
    }

    /// The socket has room: a file waits for its turn, anything else is sent now.
    fn go_on(&mut self, conn: &mut Conn) {
        let Kind::Client(client) = &mut conn.kind else { unreachable!("asked by kind") };
        let answer = client.answer.as_ref().expect("there is something to send");
        if matches!(answer.body, Body::File { .. }) {
            self.files.ready.push_back(conn.sock);
        } else {
            let (payload, _) = answer.next();
            self.engine.send(conn.sock, payload);
        }
    }

    /// Sends slices of files to those who can take them, in turn.
    pub(in crate::server) fn send_files(&mut self) {
        let mut bytes = 0;
        while bytes < TURN_BYTES {
            let Some(sock) = self.files.ready.pop_front() else { return };
            self.with(sock, |worker, conn| {
                let Kind::Client(client) = &mut conn.kind else { return Fate::Keep };
                let (payload, len) = client.answer.as_ref().expect("it is not answered yet").next();
                client.offered = len;
                bytes += u64::from(len);
                worker.engine.send(conn.sock, payload);
                Fate::Keep
            });
        }
    }

    pub(in crate::server) fn client_sent(&mut self, conn: &mut Conn, result: Result<u32, SendError>) -> Fate {
        let Kind::Client(client) = &mut conn.kind else { unreachable!("asked by kind") };
        let answer = client.answer.as_mut().expect("it was being sent");
        let taken = match result {
            Ok(taken) => taken,
            Err(SendError::Full) => {
                self.engine.poll_writable(conn.sock);
                return Fate::Keep;
            }
            Err(SendError::Broken(error)) => return Fate::Close(error.to_string()),
        };
        answer.advance(taken);
        if answer.left() == 0 {
            return self.answered(conn);
        }
        let short = taken < client.offered;
        self.deadline(conn.sock, self.send_time());
        if short {
            self.engine.poll_writable(conn.sock);
        } else {
            self.go_on(conn);
        }
        Fate::Keep
    }

    pub(in crate::server) fn client_writable(&mut self, conn: &mut Conn) -> Fate {
        self.deadline(conn.sock, self.send_time());
        self.go_on(conn);
        Fate::Keep
    }

    /// An answer is sent: the next request, or the end.
    fn answered(&mut self, conn: &mut Conn) -> Fate {
        let Kind::Client(client) = &mut conn.kind else { unreachable!("asked by kind") };
        let (answer, record) = (client.answer.take().expect("it was sent"), client.record.take());
        self.account(conn.role, &answer, record);
        if answer.keep { self.next_request(conn, &[]) } else { self.say_last(conn, Bytes::new()) }
    }

    /// Counts an answer that has ended, and writes its line.
    pub(super) fn account(&mut self, role: usize, answer: &Answer, record: Option<Box<Record>>) {
        self.counters[role].files.answered(answer);
        let (Some(log), Some(record)) = (&mut self.files.log, record) else { return };
        let (name, now) = (self.shared.roles[role].name, self.engine.now());
        let outcome = Outcome { role: name, status: answer.status, bytes: answer.body_sent(), now };
        log.write(&record, outcome, self.files.date.second());
        if log.is_full() {
            self.counters[role].files.lost_lines.add(log.flush());
        }
    }
}
