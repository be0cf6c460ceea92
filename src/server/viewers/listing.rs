//! Viewers as an operator sees them: what is asked of the loops, and what they answer.

use std::fmt;
use std::str::FromStr;

use serde::Serialize;

use crate::live::key::StreamKey;
use crate::uring::Sock;

/// Viewers that one answer names at the most.
pub const LIMIT_MAX: usize = 1_000;

/// Which viewers are asked for.
#[derive(Clone, Debug)]
pub struct Query {
    /// Those of this stream only.
    pub stream: Option<StreamKey>,
    /// Not more than so many.
    pub limit: usize,
}

/// A viewer as an operator sees it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Entry {
    /// Its name, by which it can be kicked.
    pub id: String,
    /// The role that serves it.
    pub role: &'static str,
    /// What it watches.
    pub stream: String,
    /// What it speaks.
    pub protocol: &'static str,
    /// Its address.
    pub peer: String,
    /// Since when, in milliseconds on the server's clock: what lists are ordered by.
    #[serde(skip)]
    pub since: u64,
    /// For how long it has watched.
    pub seconds: u64,
    /// Bytes between it and the newest tag; none before its first byte.
    pub behind_bytes: Option<u64>,
    /// It is a forward of ours to another server.
    pub forward: bool,
}

/// What one loop answers.
#[derive(Debug, Default)]
pub struct ViewerList {
    /// How many there are.
    pub total: usize,
    /// Some of them.
    pub entries: Vec<Entry>,
}

/// What became of the wish to let a viewer go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kick {
    /// It is told, and goes.
    Done,
    /// There is no such viewer, or not any more.
    Gone,
    /// It is a forward of ours: it would only come again.
    Forward,
}

/// The name of a viewer: the run of the program, the loop, and the loop's name for the socket. It is never
/// another one's.
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

/// A text that names no viewer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("this is no viewer's id: take one from /api/v1/viewers")]
pub struct BadName;

impl FromStr for ViewerName {
    type Err = BadName;

    fn from_str(text: &str) -> Result<Self, BadName> {
        let mut parts = text.split('-').map(|part| u32::from_str_radix(part, 16).map_err(|_| BadName));
        let mut part = || parts.next().unwrap_or(Err(BadName));
        let (run, index) = (part()?, part()? as usize);
        let name = Self { run, index, sock: Sock { index: part()?, generation: part()? } };
        // One viewer has one name: no other way to write it, nothing behind it.
        if name.to_string() == text { Ok(name) } else { Err(BadName) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_says_who_is_meant_and_nobody_else() {
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
