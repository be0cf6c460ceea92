//! An answer that is being sent. Ranges of files are sent in slices, one client after the other, with a limit
//! of bytes per turn of the loop, so that neither a large file nor many of them hold up other clients.

use std::rc::Rc;

use bytes::{Buf, Bytes};

use super::access_log::{Outcome, Record};
use super::answer::{Answer, Body};
use super::responder::Responder;
use crate::server::core::Core;
use crate::server::head::ConnHead;
use crate::uring::files::FILE_SEND_MAX;
use crate::uring::{Engine, Payload, SendError};

/// The answer that is being sent to a client, if any.
#[derive(Debug, Default)]
pub(super) struct Transfer {
    answer: Option<Answer>,
    /// What the access log will say about it.
    pub(super) record: Option<Box<Record>>,
    /// Bytes of a file offered in the last send.
    offered: u32,
    /// What the kernel held for the client at the last deadline, if the client had taken nothing.
    queued: Option<u32>,
}

/// The progress of an answer.
#[derive(Debug)]
pub(super) enum Progress {
    /// It is under way.
    Going,
    /// It has been sent whole; `keep`: the connection stays open.
    Done { keep: bool },
    /// The connection broke.
    Broken(String),
}

impl Answer {
    /// What to send next, and how many of its bytes come from a file.
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

    /// `taken` bytes were sent.
    fn advance(&mut self, taken: u32) {
        self.sent += u64::from(taken);
        let of_head = self.head.len().min(taken as usize);
        self.head.advance(of_head);
        if self.head.is_empty() {
            self.head = Bytes::new(); // an empty rest would keep the memory
        }
        let of_body = taken as usize - of_head;
        match &mut self.body {
            Body::None => debug_assert_eq!(of_body, 0, "no more is taken than was offered"),
            Body::Memory(bytes) => bytes.advance(of_body),
            Body::File { from, .. } => *from += of_body as u64,
        }
    }
}

impl Transfer {
    /// Whether an answer is being sent.
    pub(super) fn is_active(&self) -> bool {
        self.answer.is_some()
    }

    /// Bytes of memory that the answer holds.
    pub(super) fn held(&self) -> usize {
        self.answer.as_ref().map_or(0, |answer| answer.head.len())
    }

    /// Starts to send an answer.
    pub(super) fn begin<E: Engine>(
        &mut self,
        core: &mut Core<E>,
        responder: &mut Responder,
        head: &ConnHead,
        answer: Answer,
    ) {
        debug_assert!(self.answer.is_none(), "one answer at a time");
        self.answer = Some(answer);
        self.queued = None;
        core.deadline(head.sock, core.send_time());
        self.go_on(core, responder, head);
    }

    /// The socket has capacity: a file waits in the queue of transfers, everything else is sent now.
    fn go_on<E: Engine>(&mut self, core: &mut Core<E>, responder: &mut Responder, head: &ConnHead) {
        let Some(answer) = &self.answer else { return };
        if matches!(answer.body, Body::File { .. }) {
            responder.wait_for_turn(head.sock);
        } else {
            let (payload, len) = answer.next();
            self.offered = len;
            core.net.send(head.sock, payload);
        }
    }

    /// Sends the next slice of the client's file and returns its length.
    pub(super) fn send_slice<E: Engine>(&mut self, core: &mut Core<E>, head: &ConnHead) -> u32 {
        let Some(answer) = &self.answer else { return 0 };
        let (payload, len) = answer.next();
        self.offered = len;
        core.net.send(head.sock, payload);
        len
    }

    /// A send has ended.
    pub(super) fn sent<E: Engine>(
        &mut self,
        core: &mut Core<E>,
        responder: &mut Responder,
        head: &ConnHead,
        result: Result<u32, SendError>,
    ) -> Progress {
        let Some(answer) = &mut self.answer else { return Progress::Going };
        let taken = match result {
            Ok(taken) => taken,
            Err(SendError::Full) => {
                core.net.poll_writable(head.sock);
                return Progress::Going;
            }
            Err(SendError::Broken(error)) => return Progress::Broken(error.to_string()),
        };
        answer.advance(taken);
        if answer.left() == 0 {
            let keep = answer.keep;
            self.end(core, responder, head.role);
            return Progress::Done { keep };
        }
        core.deadline(head.sock, core.send_time());
        if taken < self.offered {
            core.net.poll_writable(head.sock);
        } else {
            self.go_on(core, responder, head);
        }
        Progress::Going
    }

    /// A full socket has capacity again.
    pub(super) fn writable<E: Engine>(
        &mut self,
        core: &mut Core<E>,
        responder: &mut Responder,
        head: &ConnHead,
    ) {
        core.deadline(head.sock, core.send_time());
        self.go_on(core, responder, head);
    }

    /// Whether the client has taken nothing since the last deadline. The kernel may hold so much that it seldom
    /// asks for more, so the bytes that it holds are compared.
    pub(super) fn is_stuck<E: Engine>(&mut self, core: &Core<E>, head: &ConnHead) -> bool {
        let queued = core.net.queued(head.sock);
        queued.is_none() || std::mem::replace(&mut self.queued, queued) == queued
    }

    /// The answer has ended, whole or not: counts it and writes its log line.
    pub(super) fn end<E: Engine>(&mut self, core: &Core<E>, responder: &mut Responder, role: usize) {
        let Some(answer) = self.answer.take() else { return };
        let counters = &core.counters[role].files;
        counters.answered(answer.status, answer.kind, answer.sent, answer.body_sent());
        if let Some(record) = self.record.take() {
            let (name, now) = (core.role(role).name, core.now());
            let outcome = Outcome { role: name, status: answer.status, bytes: answer.body_sent(), now };
            counters.lost_lines.add(responder.write(&record, outcome));
        }
    }
}
