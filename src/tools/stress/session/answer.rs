//! HTTP responses of a known length, one after the other, on a persistent connection.

use super::{Appetite, Fault, Input};

const HEAD_MAX: usize = 16 << 10;
const FIELDS_MAX: usize = 32;

/// How much of a response has come.
#[derive(Debug, Default)]
pub(super) struct Answer {
    head: Vec<u8>,
    /// Bytes of the body that are still to come; none before the end of the head.
    left: Option<u64>,
    /// The length of the body.
    pub(super) length: u64,
    /// The server closes the connection after it.
    pub(super) closes: bool,
}

impl Answer {
    /// `looked_at`: whether the body is examined.
    pub(super) fn appetite(&self, looked_at: bool) -> Appetite {
        match self.left {
            Some(left) if !looked_at => Appetite::Count(usize::try_from(left).unwrap_or(usize::MAX)),
            _ => Appetite::Bytes,
        }
    }

    /// Takes what came and passes the body's bytes to `body`, if they are there. Returns their number, and
    /// whether the response is complete.
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

    /// Reads the head; returns where it ends once it is complete.
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
    fn an_answer_is_read_in_any_pieces() {
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
    fn a_body_can_be_counted_without_its_bytes() {
        let mut answer = Answer::default();
        let head = b"HTTP/1.1 206 Partial\r\nContent-Length: 500\r\n\r\nxy";
        assert_eq!(answer.take(Input::Bytes(head), |_| {}), Ok((2, false)));
        assert_eq!(answer.appetite(false), Appetite::Count(498));
        assert_eq!(answer.appetite(true), Appetite::Bytes);
        assert_eq!(answer.take(Input::Counted(498), |_| {}), Ok((498, true)));
    }

    #[test]
    fn unusable_answers_are_reported() {
        let take = |text: &str| Answer::default().take(Input::Bytes(text.as_bytes()), |_| {});
        assert_eq!(take("HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n"), Err(Fault::Status(404)));
        assert_eq!(take("HTTP/1.1 200 OK\r\n\r\n"), Err(Fault::NoLength));
        assert_eq!(take("HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nxy"), Err(Fault::NoAnswer));
        assert_eq!(take("RTMP\r\n\r\n"), Err(Fault::NoAnswer));
    }
}
