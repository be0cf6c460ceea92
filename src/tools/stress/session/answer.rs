//! One HTTP answer of a known length after the other, on a connection that is kept.

use super::{Appetite, Fault, Input};

const HEAD_MAX: usize = 16 << 10;
const FIELDS_MAX: usize = 32;

/// How far an answer has come.
#[derive(Debug, Default)]
pub(super) struct Answer {
    head: Vec<u8>,
    /// Bytes of the body that are still to come; none while the head is.
    left: Option<u64>,
    /// The length of the body.
    pub(super) length: u64,
    /// The server closes the connection behind it.
    pub(super) closes: bool,
}

impl Answer {
    /// `looked_at`: the body is.
    pub(super) fn appetite(&self, looked_at: bool) -> Appetite {
        match self.left {
            Some(left) if !looked_at => Appetite::Count(usize::try_from(left).unwrap_or(usize::MAX)),
            _ => Appetite::Bytes,
        }
    }

    /// Takes what came and hands the body's bytes to `body` where they are there. Gives how many they were, and
    /// whether that was all.
    pub(super) fn take(
        &mut self,
        input: Input<'_>,
        mut body: impl FnMut(&[u8]),
    ) -> Result<(u64, bool), Fault> {
        let rest;
        let input = match (input, self.left) {
            (Input::Bytes(bytes), None) => {
                self.head.extend_from_slice(bytes);
                let Some(end) = self.parse()? else { return Ok((0, false)) };
                rest = self.head.split_off(end);
                self.head = Vec::new();
                Input::Bytes(&rest)
            }
            _ => input,
        };
        let left = self.left.unwrap_or_default().checked_sub(input.len() as u64).ok_or(Fault::NoAnswer)?;
        self.left = Some(left);
        if let Input::Bytes(bytes) = input {
            body(bytes);
        }
        Ok((input.len() as u64, left == 0))
    }

    /// Reads the head; gives where it ends once it is whole.
    fn parse(&mut self) -> Result<Option<usize>, Fault> {
        let mut fields = [httparse::EMPTY_HEADER; FIELDS_MAX];
        let mut response = httparse::Response::new(&mut fields);
        let end = match response.parse(&self.head) {
            Ok(httparse::Status::Complete(end)) => end,
            Ok(httparse::Status::Partial) if self.head.len() <= HEAD_MAX => return Ok(None),
            _ => return Err(Fault::NoAnswer),
        };
        match response.code {
            Some(200 | 206) => {}
            other => return Err(Fault::Status(other.unwrap_or_default())),
        }
        let field = |name: &str| {
            let found = response.headers.iter().find(|field| field.name.eq_ignore_ascii_case(name))?;
            std::str::from_utf8(found.value).ok()
        };
        self.length = field("Content-Length").and_then(|text| text.parse().ok()).ok_or(Fault::NoLength)?;
        self.closes = field("Connection").is_some_and(|text| text.eq_ignore_ascii_case("close"));
        self.left = Some(self.length);
        Ok(Some(end))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_read_in_any_portions() {
        let wire = b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\nConnection: close\r\n\r\nhello";
        for step in 1..=wire.len() {
            let (mut answer, mut body, mut whole) = (Answer::default(), Vec::new(), false);
            for part in wire.chunks(step) {
                assert!(!whole);
                (_, whole) = answer.take(Input::Bytes(part), |bytes| body.extend_from_slice(bytes)).unwrap();
            }
            assert!(whole && answer.closes && body == b"hello");
        }
    }

    #[test]
    fn a_body_may_be_counted_only() {
        let mut answer = Answer::default();
        let head = b"HTTP/1.1 206 Partial\r\nContent-Length: 500\r\n\r\nxy";
        assert_eq!(answer.take(Input::Bytes(head), |_| {}), Ok((2, false)));
        assert_eq!(answer.appetite(false), Appetite::Count(498));
        assert_eq!(answer.appetite(true), Appetite::Bytes);
        assert_eq!(answer.take(Input::Counted(498), |_| {}), Ok((498, true)));
    }

    #[test]
    fn what_cannot_be_used_is_told() {
        let take = |text: &str| Answer::default().take(Input::Bytes(text.as_bytes()), |_| {});
        assert_eq!(take("HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n"), Err(Fault::Status(404)));
        assert_eq!(take("HTTP/1.1 200 OK\r\n\r\n"), Err(Fault::NoLength));
        assert_eq!(take("HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nxy"), Err(Fault::NoAnswer));
        assert_eq!(take("RTMP\r\n\r\n"), Err(Fault::NoAnswer));
    }
}
