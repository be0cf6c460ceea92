//! Viewers as an operator sees them: the request to the loops, and their answer.

use std::fmt;
use std::str::FromStr;

use serde::Serialize;

use crate::live::key::StreamKey;
use crate::uring::Sock;

/// The most viewers in one answer.
pub const LIMIT_MAX: usize = 1_000;

/// Which viewers are requested.
#[derive(Clone, Debug)]
pub struct Query {
    /// Those of this stream only.
    pub stream: Option<StreamKey>,
    /// The most viewers to return.
    pub limit: usize,
}

/// A viewer as an operator sees it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Entry {
    /// Its id, by which it can be kicked.
    pub id: String,
    /// The role that serves it.
    pub role: &'static str,
    /// What it watches.
    pub stream: String,
    /// Its protocol.
    pub protocol: &'static str,
    /// Its address.
    pub peer: String,
    /// When it started, in milliseconds on the server's clock; lists are ordered by it.
    #[serde(skip)]
    pub since: u64,
    /// For how many seconds it has watched.
    pub seconds: u64,
    /// Bytes between it and the newest tag; `None` before its first byte.
    pub behind_bytes: Option<u64>,
    /// It is one of the server's own forwards to another server.
    pub forward: bool,
}

/// The answer of one loop.
#[derive(Debug, Default)]
pub struct ViewerList {
    /// The number of matching viewers.
    pub total: usize,
    /// Some of them, up to the limit.
    pub entries: Vec<Entry>,
}

/// The result of a request to kick a viewer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kick {
    /// It is being disconnected.
    Done,
    /// There is no such viewer, or no longer.
    Gone,
    /// It is one of the server's own forwards, which would only connect again.
    Forward,
}

/// The id of a viewer: the run of the program, the loop, and the loop's name for the socket. It is never used
/// again for another viewer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ViewerName {
    /// The run of the program.
    pub(in crate::server) run: u32,
    /// The loop.
    pub(in crate::server) index: usize,
    /// The loop's name for its socket.
    pub(in crate::server) sock: Sock,
}

impl fmt::Display for ViewerName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { run, index, sock } = self;
        write!(f, "{run:08x}-{index:x}-{:x}-{:x}", sock.index, sock.generation)
    }
}

/// The text is not a viewer's id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("this is not a viewer's id: take one from /api/v1/viewers")]
pub struct BadName;

impl FromStr for ViewerName {
    type Err = BadName;

    fn from_str(text: &str) -> Result<Self, BadName> {
        let mut parts = text.split('-').map(|part| u32::from_str_radix(part, 16).map_err(|_| BadName));
        let mut part = || parts.next().unwrap_or(Err(BadName));
        let (run, index) = (part()?, part()? as usize);
        let name = Self { run, index, sock: Sock { index: part()?, generation: part()? } };
        // A viewer has one id with one spelling, and nothing may follow it.
        if name.to_string() == text { Ok(name) } else { Err(BadName) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_identifies_one_viewer_and_has_one_spelling() {
        let name = ViewerName { run: 0xbeef, index: 11, sock: Sock { index: 300, generation: 7 } };
        assert_eq!(name.to_string(), "0000beef-b-12c-7");
        assert_eq!(name.to_string().parse(), Ok(name));
        for wrong in ["", "1", "0000beef-b-12c", "0000beef-b-12c-7-1", "beef-b-12c-7", "0000beef-B-12c-7"] {
            assert_eq!(wrong.parse::<ViewerName>(), Err(BadName), "{wrong}");
        }
        for wrong in ["0000beef-b-12c-+7", "0000beef-0b-12c-7", "0000beef-b-12c-100000000"] {
            assert_eq!(wrong.parse::<ViewerName>(), Err(BadName), "{wrong}");
        }
    }
}
