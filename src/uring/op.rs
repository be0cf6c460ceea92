//! Operations that were submitted to the kernel.

use std::rc::Rc;

use bytes::Bytes;

use super::engine::{Region, Sock};
use super::files::{FileSend, OpenFile, Opening, Scratch};
use super::send::Message;
use super::sockets::WAIT_RECEIVE;

/// The name of operations that own nothing and whose completions are ignored.
pub(super) const NOBODY: u64 = u64::MAX;

/// An operation under way, with all memory it uses: it stays here until the last completion.
#[derive(Debug)]
pub(super) enum Op {
    Accept {
        listener: u32,
    },
    Receive {
        sock: Sock,
    },
    Connect {
        sock: Sock,
        _address: Box<socket2::SockAddr>,
    },
    Send {
        sock: Sock,
        _bytes: Bytes,
    },
    SendRegion {
        sock: Sock,
        region: Region,
    },
    SendMessage {
        sock: Sock,
        region: Region,
        message: Box<Message>,
    },
    /// `taken`: the first completion has come; the kernel uses the memory until the second one.
    SendZeroCopy {
        sock: Sock,
        region: Region,
        taken: bool,
    },
    Poll {
        sock: Sock,
    },
    Shutdown {
        sock: Sock,
    },
    Cancel,
    Close {
        sock: Sock,
    },
    ReadWake {
        _value: Box<[u8; 8]>,
    },
    OpenFile(Opening),
    LoadFile {
        ticket: u64,
        _file: Rc<OpenFile>,
        bytes: Vec<u8>,
    },
    /// Reads a cold part of a file before it is sent.
    ReadAhead {
        sock: Sock,
        send: Box<FileSend>,
        _scratch: Rc<Scratch>,
    },
    /// Reads part of a file for a socket that `sendfile(2)` cannot name.
    CopyFile {
        sock: Sock,
        send: Box<FileSend>,
        bytes: Vec<u8>,
    },
}

impl Op {
    /// The socket, and which of its waits this is, if the operation waits for the peer.
    pub(super) fn wait(&self) -> Option<(Sock, usize)> {
        match self {
            Self::Receive { sock } | Self::Connect { sock, .. } => Some((*sock, WAIT_RECEIVE)),
            Self::Poll { sock } => Some((*sock, 1)),
            _ => None,
        }
    }
}
