//! One GET to one upstream.

use std::time::{Duration, Instant};

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use rustix::fs::{Timespec, Timestamps, UTIME_NOW, UTIME_OMIT};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::config;
use crate::protocol::http::RelPath;
use crate::protocol::http::client::{ResponseReader, State, get_request};
use crate::protocol::http::date::parse_date;

/// How long a connection may take.
const CONNECT: Duration = Duration::from_secs(3);
/// How long an upstream may say nothing.
const SILENCE: Duration = Duration::from_secs(10);
const HEAD_MAX: usize = 16 << 10;
const READ: usize = 64 << 10;
/// How long a whole body may take.
const BODY: Duration = Duration::from_secs(600);

const KEEP_TIME: Timespec = Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT };
/// Leaves a file's time of change as it is, and sets its inode's to now.
pub(super) const KEEP: Timestamps =
    Timestamps { last_access: Timespec { tv_sec: 0, tv_nsec: UTIME_NOW }, last_modification: KEEP_TIME };

/// An upstream that is asked.
pub(super) struct Upstream<'a>(&'a config::Upstream);

/// What it answers.
pub(super) enum Answer {
    /// The file, whose body is still to come.
    File(Box<Body>),
    /// The file is as it was.
    Unchanged,
    /// There is no such file.
    Missing,
}

/// A body on its way.
pub(super) struct Body {
    socket: TcpStream,
    reader: ResponseReader,
    /// What came with the head.
    begun: Vec<u8>,
    /// Its length, if the upstream says.
    pub(super) announced: Option<u64>,
    /// When the file was changed last, in seconds since 1970.
    pub(super) modified: Option<u64>,
    pub(super) etag: Option<String>,
}

impl<'a> Upstream<'a> {
    pub(super) fn new(upstream: &'a config::Upstream) -> Self {
        Self(upstream)
    }

    /// Asks for a file, or whether it is still the one of that entity tag.
    pub(super) async fn ask(&self, path: &RelPath, etag: Option<&str>) -> Result<Answer, String> {
        let address = (self.0.host.as_str(), self.0.port);
        let connecting = tokio::time::timeout(CONNECT, TcpStream::connect(address));
        let mut socket = connecting.await.map_err(|_| "no connection in time")?.map_err(|e| e.to_string())?;
        let target = format!("{}/{}", self.0.prefix, encode(path));
        let mut fields = vec![("Connection", "close")];
        fields.extend(etag.map(|etag| ("If-None-Match", etag)));
        let request = get_request(&self.0.authority(), &target, &fields);
        socket.write_all(&request).await.map_err(|error| error.to_string())?;
        let mut reader = ResponseReader::new(HEAD_MAX);
        let mut begun = Vec::new();
        let mut buffer = vec![0; READ];
        while reader.state() == State::Head {
            let len = read(&mut socket, &mut buffer).await?;
            if len == 0 {
                return Err("it hung up without an answer".to_owned());
            }
            let bytes = &buffer[..len];
            reader.push(bytes, |_, body| begun.extend_from_slice(body)).map_err(|error| error.to_string())?;
        }
        let head = reader.head().expect("behind the head").clone();
        match head.status {
            200 => {
                let field = |name| head.headers.get(name).map(str::trim);
                Ok(Answer::File(Box::new(Body {
                    announced: field("content-length").and_then(|len| len.parse().ok()),
                    modified: field("last-modified").and_then(parse_date),
                    etag: field("etag").map(str::to_owned),
                    socket,
                    reader,
                    begun,
                })))
            }
            304 if etag.is_some() => Ok(Answer::Unchanged),
            404 | 410 => Ok(Answer::Missing),
            status => Err(format!("it answered {status}")),
        }
    }
}

impl Body {
    /// Writes the whole body to a file and gives its length.
    pub(super) async fn write_to(&mut self, file: &tokio_uring::fs::File, limit: u64) -> Result<u64, String> {
        let deadline = Instant::now() + BODY;
        let mut at = 0;
        let mut piece = std::mem::take(&mut self.begun);
        let mut buffer = vec![0; READ];
        loop {
            if at + piece.len() as u64 > limit {
                return Err(format!("the file is larger than {limit} bytes"));
            }
            if !piece.is_empty() {
                let (written, returned) = file.write_all_at(piece, at).await;
                written.map_err(|error| error.to_string())?;
                at += returned.len() as u64;
                piece = returned;
                piece.clear();
            }
            if self.reader.state() == State::Finished {
                return Ok(at);
            }
            if Instant::now() > deadline {
                return Err("it takes too long".to_owned());
            }
            let len = read(&mut self.socket, &mut buffer).await?;
            if len == 0 {
                self.reader.end().map_err(|error| error.to_string())?;
                return Ok(at);
            }
            self.reader
                .push(&buffer[..len], |_, body| piece.extend_from_slice(body))
                .map_err(|error| error.to_string())?;
        }
    }
}

async fn read(socket: &mut TcpStream, buffer: &mut [u8]) -> Result<usize, String> {
    let reading = tokio::time::timeout(SILENCE, socket.read(buffer));
    reading.await.map_err(|_| "it says nothing")?.map_err(|error| error.to_string())
}

/// The time of change that a fetched file gets: its upstream's, with nanoseconds that tell versions of one second
/// apart, the same on every gateway that fetched this version.
pub(super) fn times(modified: u64, etag: Option<&str>) -> Timestamps {
    // FNV-1a: any mixing will do, but it must be the same everywhere.
    let mix = |hash: u32, byte: u8| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193);
    let nanos = etag.map_or(0, |etag| etag.bytes().fold(0x811c_9dc5, mix) % 1_000_000_000);
    let modified = i64::try_from(modified).unwrap_or(0);
    Timestamps { last_modification: Timespec { tv_sec: modified, tv_nsec: nanos.into() }, ..KEEP }
}

/// A path as it stands in a request.
fn encode(path: &RelPath) -> String {
    const PLAIN: &AsciiSet =
        &NON_ALPHANUMERIC.remove(b'/').remove(b'-').remove(b'.').remove(b'_').remove(b'~').remove(b'@');
    utf8_percent_encode(path.as_str(), PLAIN).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_encoded() {
        let path = RelPath::parse("/hls/live/a@b/é %1?.ts").unwrap();
        assert_eq!(encode(&path), "hls/live/a@b/%C3%A9%20%251%3F.ts");
    }

    #[test]
    fn versions_of_one_second_differ() {
        let nanos = |etag| times(5, etag).last_modification.tv_nsec;
        assert_eq!((nanos(None), times(5, None).last_modification.tv_sec), (0, 5));
        assert_eq!(nanos(Some("\"a\"")), nanos(Some("\"a\"")));
        assert_ne!(nanos(Some("\"a\"")), nanos(Some("\"b\"")));
        assert!((0..1_000_000_000).contains(&nanos(Some("\"some-long-tag\""))));
    }
}
