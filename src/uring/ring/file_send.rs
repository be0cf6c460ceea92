//! Sends of file parts: from the page cache at once, otherwise after the ring has read them.

use std::os::fd::BorrowedFd;
use std::rc::Rc;

use bytes::Bytes;
use io_uring::types::Fd;
use rustix::io::Errno;

use super::Uring;
use crate::uring::engine::{Engine, SendError, Sock};
use crate::uring::files::{FILE_SEND_MAX, FileSend, filled, read_entry};
use crate::uring::op::Op;
use crate::uring::sockets::Target;

/// The most that a socket in the ring's table is given at once: these bytes are copied.
const COPY_MAX: u32 = 64 << 10;

impl Uring {
    /// Sends a part of a file now if it is in memory, otherwise when it is.
    pub(super) fn send_file(&mut self, sock: Sock, send: FileSend) {
        assert!(send.len > 0 && send.len <= FILE_SEND_MAX, "a file part is bounded and not empty");
        let Target::Process(fd) = self.state(sock).expect("open").target() else {
            self.copy_file(sock, send);
            return;
        };
        if send.file.is_hot(send.from, send.len, self.now()) {
            self.transmit(sock, fd, &send);
        } else {
            self.cold_reads += 1;
            self.read_ahead(sock, Box::new(send));
        }
    }

    fn read_ahead(&mut self, sock: Sock, send: Box<FileSend>) {
        let scratch = Rc::clone(&self.scratch);
        self.begin(sock, Op::ReadAhead { sock, send, _scratch: scratch }, |op, _| {
            let Op::ReadAhead { send, _scratch: scratch, .. } = op else { unreachable!("as made") };
            scratch.read_ahead(send)
        });
    }

    pub(super) fn read_ahead_done(&mut self, sock: Sock, mut send: Box<FileSend>, result: i32) {
        if !self.done(sock) {
            return;
        }
        let read = u32::try_from(result).unwrap_or(0);
        send.read += read;
        if read > 0 && send.read < send.len {
            self.read_ahead(sock, send);
            return;
        }
        let now = self.now();
        send.file.was_read(send.from, send.len, now);
        let Target::Process(fd) = self.state(sock).expect("open").target() else {
            unreachable!("for other sockets the bytes are copied")
        };
        self.transmit(sock, fd, &send);
    }

    fn transmit(&mut self, sock: Sock, fd: Fd, send: &FileSend) {
        // SAFETY: the socket's table entry owns the descriptor and is not touched before this call ends.
        let result = send.transmit(unsafe { BorrowedFd::borrow_raw(fd.0) });
        self.tell_sent(sock, result);
    }

    fn copy_file(&mut self, sock: Sock, send: FileSend) {
        let bytes = Vec::with_capacity(send.len.min(COPY_MAX) as usize);
        self.begin(sock, Op::CopyFile { sock, send: Box::new(send), bytes }, |op, _| {
            let Op::CopyFile { send, bytes, .. } = op else { unreachable!("as made") };
            read_entry(&send.file, send.from, bytes)
        });
    }

    pub(super) fn send_copy(&mut self, sock: Sock, send: &FileSend, bytes: Vec<u8>, result: i32) {
        if !self.done(sock) {
            return;
        }
        match filled(bytes, result) {
            Ok(bytes) if !bytes.is_empty() => {
                let bytes = Bytes::from([&send.head[..], &bytes[..]].concat());
                self.send_bytes(sock, bytes);
            }
            Ok(_) => self.tell_sent(sock, Err(SendError::Broken(Errno::NODATA))),
            Err(error) => self.tell_sent(sock, Err(SendError::Broken(error))),
        }
    }
}
