//! A file, requested again and again on a persistent connection.

use std::hash::{DefaultHasher, Hasher};
use std::time::Duration;

use super::answer::Answer;
use super::{Appetite, Fault, Input, Progress};
use crate::tools::stress::args::Target;

#[derive(Debug)]
pub(in crate::tools::stress) struct FileSession {
    sampled: bool,
    /// Microseconds from one request to the next.
    every: u64,
    asked: u64,
    /// None between two requests.
    answer: Option<Answer>,
    length: Option<u64>,
    /// Digests of the current response, and of the earlier ones.
    digest: DefaultHasher,
    known: Option<u64>,
}

impl FileSession {
    pub(super) fn new(sampled: bool, every: Duration) -> Self {
        Self {
            sampled,
            every: u64::try_from(every.as_micros()).unwrap_or(u64::MAX),
            asked: 0,
            answer: None,
            length: None,
            digest: DefaultHasher::new(),
            known: None,
        }
    }

    pub(super) fn appetite(&self) -> Appetite {
        self.answer.as_ref().map_or(Appetite::Bytes, |answer| answer.appetite(self.sampled))
    }

    pub(super) fn is_resting(&self) -> bool {
        self.answer.is_none()
    }

    pub(super) fn speak(&mut self, target: &Target, now: u64) -> Progress {
        self.asked = now;
        self.answer = Some(Answer::default());
        Progress { output: target.request(&target.path).into_bytes(), ..Progress::default() }
    }

    pub(super) fn take(&mut self, target: &Target, input: Input<'_>, now: u64) -> Result<Progress, Fault> {
        let answer = self.answer.as_mut().ok_or(Fault::NoAnswer)?;
        let digest = &mut self.digest;
        let (bytes, whole) = answer.take(input, |piece| digest.write(piece))?;
        if !whole {
            return Ok(Progress { bytes, ..Progress::default() });
        }
        let (length, closes) = (answer.length, answer.closes);
        self.answer = None;
        self.compare(length)?;
        let mut progress = Progress::default();
        let answered = Some(now - self.asked);
        let next = self.asked.saturating_add(self.every);
        if next > now || closes {
            progress.wake = Some(next);
        } else {
            progress = self.speak(target, now);
        }
        Ok(Progress { bytes, has_picture: true, answered, closes, ..progress })
    }

    /// Checks that the file has not changed.
    fn compare(&mut self, length: u64) -> Result<(), Fault> {
        let before = *self.length.get_or_insert(length);
        if before != length {
            return Err(Fault::OtherLength { before, got: length });
        }
        let digest = std::mem::take(&mut self.digest).finish();
        if self.sampled && *self.known.get_or_insert(digest) != digest {
            return Err(Fault::OtherBytes);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ask(session: &mut FileSession, body: &str, now: u64) -> Result<Progress, Fault> {
        let target = Target::resolve("http://127.0.0.1:1/file", &Default::default()).unwrap();
        let wire = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len());
        if session.is_resting() {
            session.speak(&target, now);
        }
        session.take(&target, Input::Bytes(wire.as_bytes()), now + 30)
    }

    #[test]
    fn the_next_request_waits_for_its_time() {
        let mut session = FileSession::new(true, Duration::from_micros(100));
        let progress = ask(&mut session, "abc", 1000).unwrap();
        assert_eq!((progress.bytes, progress.answered, progress.wake), (3, Some(30), Some(1100)));
        assert!(progress.output.is_empty() && session.is_resting());
        let mut session = FileSession::new(true, Duration::ZERO);
        assert!(ask(&mut session, "abc", 1000).unwrap().output.starts_with(b"GET /file HTTP/1.1\r\n"));
    }

    #[test]
    fn a_changed_file_is_found() {
        let mut session = FileSession::new(true, Duration::from_secs(1));
        assert!(ask(&mut session, "abc", 0).is_ok());
        assert!(ask(&mut session, "abc", 0).is_ok());
        assert_eq!(ask(&mut session, "abd", 0), Err(Fault::OtherBytes));
        assert_eq!(ask(&mut session, "abcd", 0), Err(Fault::OtherLength { before: 3, got: 4 }));
    }
}
