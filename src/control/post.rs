//! A POST of JSON to a service of the operator's, on a connection of its own.

use std::io;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::config::Upstream;
use crate::protocol::http::ResponseError;
use crate::protocol::http::client::{ResponseReader, State, post_json};

/// The largest head of an answer, in bytes.
const HEAD_MAX: usize = 16 << 10;
const READ: usize = 4 << 10;

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub(super) enum PostError {
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error("the answer cannot be parsed: {0}")]
    Answer(#[from] ResponseError),
    #[error("the answer is longer than {0} bytes")]
    TooLong(usize),
}

/// Posts a document and returns the answer's status and its body of at most `body_max` bytes; `None`: the body is not
/// waited for.
pub(super) async fn post(
    url: &Upstream,
    json: &str,
    body_max: Option<usize>,
) -> Result<(u16, Vec<u8>), PostError> {
    let mut stream = TcpStream::connect((url.host.as_str(), url.port)).await?;
    let target = if url.prefix.is_empty() { "/" } else { &url.prefix };
    stream.write_all(&post_json(&url.authority(), target, json)).await?;
    let mut reader = ResponseReader::new(HEAD_MAX);
    let (mut buffer, mut body) = (vec![0; READ], Vec::new());
    loop {
        let state = match stream.read(&mut buffer).await? {
            0 => {
                reader.end()?;
                State::Finished
            }
            len => reader.push(&buffer[..len], |_, bytes| {
                if body_max.is_some() {
                    body.extend_from_slice(bytes);
                }
            })?,
        };
        if let Some(max) = body_max.filter(|max| body.len() > *max) {
            return Err(PostError::TooLong(max));
        }
        if let Some(head) = reader.head().filter(|_| state == State::Finished || body_max.is_none()) {
            return Ok((head.status, body));
        }
    }
}
