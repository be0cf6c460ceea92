//! The client side, for a gateway's pull: one GET, one response whose body may never end.

use bytes::Bytes;

use super::chunked::{ChunkError, ChunkedReader};
use super::head::{FIELDS_MAX, HeadBuffer, HeadFault, Headers};
use super::{BodyLength, response};

/// The most responses of the 100 class before the real one.
const INTERIM_MAX: usize = 8;

/// A response that cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ResponseError {
    /// The head cannot be read.
    #[error("the upstream's answer cannot be read: {0}")]
    Head(#[from] HeadFault),
    /// The body's framing is broken.
    #[error("the upstream's body cannot be read: {0}")]
    Chunk(#[from] ChunkError),
    /// Too many interim responses.
    #[error("more than {limit} interim responses", limit = INTERIM_MAX)]
    TooManyInterim,
    /// The connection ended before the head did.
    #[error("the upstream closed before it answered")]
    NoAnswer,
    /// The connection ended before the body did.
    #[error("the upstream closed in the middle of a body{}", missing.map(|n| format!(", {n} bytes before its end")).unwrap_or_default())]
    Truncated {
        /// How many bytes are missing, if that is known.
        missing: Option<u64>,
    },
}

/// Writes a GET. `host` is the value of `Host`, `target` is already percent-encoded, `headers` are further
/// fields. Control characters in values become spaces; in the target and the host they are left out.
pub fn get_request(host: &str, target: &str, headers: &[(&str, &str)]) -> Vec<u8> {
    request_head("GET", host, target, headers).into_bytes()
}

/// Writes the head of a request, cleaned as by [`get_request`].
pub fn request_head(method: &str, host: &str, target: &str, headers: &[(&str, &str)]) -> String {
    let plain = |text: &str| text.chars().filter(char::is_ascii_graphic).collect::<String>();
    let clean = |text: &str| text.replace(|c: char| c.is_control(), " ");
    let (target, host) = (plain(target), plain(host));
    let mut text =
        format!("{method} {target} HTTP/1.1\r\nHost: {host}\r\nUser-Agent: {}\r\n", response::SERVER);
    for (name, value) in headers {
        text.push_str(&format!("{}: {}\r\n", plain(name), clean(value)));
    }
    text.push_str("\r\n");
    text
}

/// Status and fields of a response.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ResponseHead {
    /// The status, 200-999 or 101.
    pub status: u16,
    /// The fields.
    pub headers: Headers,
}

/// How much of a response has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// The head is not complete.
    Head,
    /// The head is complete, the body is not.
    Body,
    /// The body is complete, or there is none.
    Finished,
}

#[derive(Debug)]
enum Framing {
    Head,
    Length(u64),
    Chunked(ChunkedReader),
    UntilClose,
    Finished,
}

/// Reads one response to a GET, however its bytes are split.
#[derive(Debug)]
pub struct ResponseReader {
    buffer: HeadBuffer,
    framing: Framing,
    head: Option<ResponseHead>,
    interim: usize,
    /// The connection may be used again after the body.
    persistent: bool,
}

impl ResponseReader {
    /// A reader for a response whose head takes at most `head_max` bytes.
    pub fn new(head_max: usize) -> Self {
        let buffer = HeadBuffer::new(head_max, head_max);
        Self { buffer, framing: Framing::Head, head: None, interim: 0, persistent: false }
    }

    /// The response's head, once it is complete.
    pub fn head(&self) -> Option<&ResponseHead> {
        self.head.as_ref()
    }

    /// How much of the response has come.
    pub fn state(&self) -> State {
        match self.framing {
            Framing::Head => State::Head,
            Framing::Finished => State::Finished,
            _ => State::Body,
        }
    }

    /// Whether the connection may be used for another request (RFC 9112, 9.3): the response is complete,
    /// nothing came after it, and the upstream does not close.
    pub fn keeps_connection(&self) -> bool {
        self.state() == State::Finished && self.persistent
    }

    /// Takes `bytes` and passes body bytes to `on_body`, without their framing, together with their head. Bytes
    /// after the end of the body are dropped: there is no further request that they could answer.
    ///
    /// # Errors
    /// [`ResponseError`]; the reader must not be used any further.
    pub fn push(
        &mut self,
        bytes: &[u8],
        mut on_body: impl FnMut(&ResponseHead, &[u8]),
    ) -> Result<State, ResponseError> {
        if !matches!(self.framing, Framing::Head) {
            self.body(bytes, &mut on_body)?;
            return Ok(self.state());
        }
        self.buffer.extend(bytes);
        while let Some(head) = self.buffer.take_head()? {
            if !self.take_head(&head)? {
                continue;
            }
            let rest: Bytes = self.buffer.take_rest();
            self.body(&rest, &mut on_body)?;
            break;
        }
        Ok(self.state())
    }

    /// Tells the reader that the connection ended.
    ///
    /// # Errors
    /// [`ResponseError::NoAnswer`] or [`ResponseError::Truncated`] if more was expected.
    pub fn end(&mut self) -> Result<(), ResponseError> {
        self.persistent = false;
        match std::mem::replace(&mut self.framing, Framing::Finished) {
            Framing::Head => Err(ResponseError::NoAnswer),
            Framing::Length(left) => Err(ResponseError::Truncated { missing: Some(left) }),
            Framing::Chunked(_) => Err(ResponseError::Truncated { missing: None }),
            Framing::UntilClose | Framing::Finished => Ok(()),
        }
    }

    /// Parses a head; false if it was an interim one.
    fn take_head(&mut self, head: &Bytes) -> Result<bool, ResponseError> {
        let mut fields = [httparse::EMPTY_HEADER; FIELDS_MAX];
        let mut parsed = httparse::Response::new(&mut fields);
        match parsed.parse(head).map_err(HeadFault::from)? {
            httparse::Status::Complete(_) => {}
            httparse::Status::Partial => return Err(HeadFault::Syntax("incomplete line").into()),
        }
        let status = parsed.code.unwrap_or_default();
        if (100..200).contains(&status) && status != 101 {
            self.interim += 1;
            return if self.interim > INTERIM_MAX { Err(ResponseError::TooManyInterim) } else { Ok(false) };
        }
        let headers = Headers::new(head, parsed.headers);
        self.persistent =
            parsed.version == Some(1) && status != 101 && !headers.has_token("connection", "close");
        self.framing = match headers.body_length(parsed.version == Some(1))? {
            _ if matches!(status, 101 | 204 | 304) => Framing::Finished,
            BodyLength::Length(0) => Framing::Finished,
            BodyLength::Length(left) => Framing::Length(left),
            BodyLength::Chunked => Framing::Chunked(ChunkedReader::new()),
            BodyLength::None => Framing::UntilClose,
        };
        self.head = Some(ResponseHead { status, headers });
        Ok(true)
    }

    fn body(
        &mut self,
        bytes: &[u8],
        on_body: &mut impl FnMut(&ResponseHead, &[u8]),
    ) -> Result<(), ResponseError> {
        let Some(head) = &self.head else { return Ok(()) };
        if bytes.is_empty() {
            return Ok(());
        }
        let (finished, used) = match &mut self.framing {
            Framing::Head | Framing::Finished => (false, 0),
            Framing::UntilClose => {
                on_body(head, bytes);
                (false, bytes.len())
            }
            Framing::Length(left) => {
                let take = usize::try_from(*left).map_or(bytes.len(), |left| left.min(bytes.len()));
                on_body(head, bytes.get(..take).unwrap_or_default());
                *left -= take as u64;
                (*left == 0, take)
            }
            Framing::Chunked(reader) => {
                let progress = reader.push(bytes, &mut |piece| on_body(head, piece))?;
                (progress.finished, progress.consumed)
            }
        };
        if finished {
            self.framing = Framing::Finished;
        }
        self.persistent &= used == bytes.len();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(pieces: &[&[u8]]) -> Result<(u16, Vec<u8>, State), ResponseError> {
        let (mut reader, mut body) = (ResponseReader::new(2048), Vec::new());
        let mut state = State::Head;
        for piece in pieces {
            state = reader.push(piece, |_, bytes| body.extend_from_slice(bytes))?;
        }
        Ok((reader.head().map_or(0, |head| head.status), body, state))
    }

    #[test]
    fn requests_are_plain() {
        let request = get_request("h:1", "/live/a.flv?x=1", &[("X-Via", "a\r\nb")]);
        let text = String::from_utf8(request).unwrap();
        assert_eq!(
            text,
            "GET /live/a.flv?x=1 HTTP/1.1\r\nHost: h:1\r\nUser-Agent: uringcast\r\nX-Via: a  b\r\n\r\n"
        );
        assert!(get_request("h", "/a b\r\nX: y", &[]).starts_with(b"GET /abX:y HTTP/1.1\r\n"));
    }

    #[test]
    fn responses_split_at_any_point_read_the_same() {
        let cases: [(&[u8], &[u8], State); 5] = [
            (b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabcdef", b"abc", State::Finished),
            (
                b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n1\r\nc\r\n0\r\n\r\n",
                b"abc",
                State::Finished,
            ),
            (b"HTTP/1.0 200 OK\r\n\r\nabc", b"abc", State::Body),
            (b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nX: y\r\n\r\nabc", b"abc", State::Body),
            (b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", b"", State::Finished),
        ];
        for (wire, body, state) in cases {
            for split in 0..wire.len() {
                let result = read(&[&wire[..split], &wire[split..]]).unwrap();
                assert_eq!(result, (200, body.to_vec(), state), "split at {split}");
            }
        }
    }

    #[test]
    fn an_early_end_is_reported() {
        let end = |wire: &[u8]| {
            let mut reader = ResponseReader::new(2048);
            reader.push(wire, |_, _| {}).unwrap();
            reader.end()
        };
        assert_eq!(end(b"HTTP/1.1 20"), Err(ResponseError::NoAnswer));
        assert_eq!(
            end(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nab"),
            Err(ResponseError::Truncated { missing: Some(7) })
        );
        assert_eq!(
            end(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\na"),
            Err(ResponseError::Truncated { missing: None })
        );
        assert_eq!(end(b"HTTP/1.1 200 OK\r\n\r\nab"), Ok(()));
        assert_eq!(end(b"HTTP/1.1 304 Not Modified\r\nContent-Length: 9\r\n\r\n"), Ok(()));
    }

    #[test]
    fn a_connection_is_kept_after_a_whole_answer_and_nothing_else() {
        let kept = |wire: &[u8]| {
            let mut reader = ResponseReader::new(2048);
            reader.push(wire, |_, _| {}).unwrap();
            let kept = reader.keeps_connection();
            let _ = reader.end();
            (kept, reader.keeps_connection())
        };
        for wire in [
            &b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nab"[..],
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n0\r\n\r\n",
            b"HTTP/1.1 304 Not Modified\r\nContent-Length: 9\r\n\r\n",
        ] {
            assert!(kept(wire).0, "{}", String::from_utf8_lossy(wire));
        }
        for wire in [
            &b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\na"[..],
            b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nabc",
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nHTTP/1.1 200",
            b"HTTP/1.1 304 Not Modified\r\n\r\nabc",
            b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: x, Close\r\n\r\n",
            b"HTTP/1.0 200 OK\r\nContent-Length: 0\r\n\r\n",
            b"HTTP/1.1 200 OK\r\n\r\nabc",
        ] {
            assert_eq!(kept(wire), (false, false), "{}", String::from_utf8_lossy(wire));
        }
    }

    #[test]
    fn refusals() {
        assert_eq!(read(&[&b"HTTP/1.1 103 E\r\n\r\n".repeat(9)]), Err(ResponseError::TooManyInterim));
        assert!(matches!(read(&[b"SSH-2.0-x\r\n\r\n"]), Err(ResponseError::Head(HeadFault::Syntax(_)))));
        assert_eq!(
            read(&[b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n"]),
            Err(ResponseError::Head(HeadFault::LengthAndCoding))
        );
        let long = [b"HTTP/1.1 200 OK\r\nX: ".as_slice(), &[b'a'; 3000]].concat();
        assert_eq!(read(&[&long]), Err(ResponseError::Head(HeadFault::TooLarge { limit: 2048 })));
    }

    proptest! {
        #[test]
        fn garbage_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = read(&[&bytes]);
            let _ = read(&[b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", &bytes]);
            let _ = read(&[b"HTTP/1.1 ", &bytes]);
        }
    }
}
