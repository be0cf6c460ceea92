//! A part of a file: sent by page reference, or read by the ring.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::ptr::NonNull;
use std::rc::Rc;

use bytes::Bytes;
use io_uring::types::Fd;
use io_uring::{opcode, squeue};
use rustix::io::Errno;
use rustix::mm::{MapFlags, ProtFlags};
use rustix::net::SendFlags;

use super::open_file::OpenFile;
use crate::uring::engine::SendError;

/// The longest part of a file that one send takes.
pub const FILE_SEND_MAX: u32 = 1 << 20;

/// A part of a file on its way to a socket.
#[derive(Debug)]
pub(in crate::uring) struct FileSend {
    pub(in crate::uring) head: Bytes,
    pub(in crate::uring) file: Rc<OpenFile>,
    pub(in crate::uring) from: u64,
    pub(in crate::uring) len: u32,
    /// How much of it the ring has read ahead.
    pub(in crate::uring) read: u32,
}

impl FileSend {
    /// Gives header and file part to a socket, as much as it takes; blocks if the part is cold.
    pub(in crate::uring) fn transmit(&self, to: BorrowedFd<'_>) -> Result<u32, SendError> {
        let mut taken = 0;
        if !self.head.is_empty() {
            let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL | SendFlags::MORE;
            taken = rustix::net::send(to, &self.head, flags).map_err(why)?;
            if taken < self.head.len() {
                return Ok(count(taken));
            }
        }
        let mut from = self.from;
        match rustix::fs::sendfile(to, &*self.file, Some(&mut from), self.len as usize) {
            // The file is shorter than it was: the announced bytes cannot be delivered.
            Ok(0) => Err(SendError::Broken(Errno::NODATA)),
            Ok(sent) => Ok(count(taken + sent)),
            Err(Errno::AGAIN) if taken > 0 => Ok(count(taken)),
            Err(error) => Err(why(error)),
        }
    }
}

fn why(error: Errno) -> SendError {
    if error == Errno::AGAIN { SendError::Full } else { SendError::Broken(error) }
}

fn count(bytes: usize) -> u32 {
    u32::try_from(bytes).expect("a send is bounded")
}

/// Reads `into.capacity()` bytes of a file.
pub(in crate::uring) fn read_entry(file: &OpenFile, from: u64, into: &Vec<u8>) -> squeue::Entry {
    let len = u32::try_from(into.capacity()).unwrap_or(u32::MAX);
    opcode::Read::new(Fd(file.as_fd().as_raw_fd()), into.as_ptr().cast_mut(), len).offset(from).build()
}

/// The result of a read into `bytes`, which is empty and has the capacity that the read was given.
pub(in crate::uring) fn filled(mut bytes: Vec<u8>, result: i32) -> Result<Vec<u8>, Errno> {
    let len = usize::try_from(result).map_err(|_| Errno::from_raw_os_error(-result))?;
    assert!(len <= bytes.capacity(), "a read stays within its capacity");
    // SAFETY: the kernel has written the first `len` bytes, and the read has ended.
    unsafe { bytes.set_len(len) };
    Ok(bytes)
}

/// Memory that cold parts are read into and that is never looked at: all reads share it.
#[derive(Debug)]
pub(in crate::uring) struct Scratch(NonNull<u8>);

impl Scratch {
    pub(in crate::uring) fn new() -> io::Result<Rc<Self>> {
        let (protection, flags) = (ProtFlags::READ | ProtFlags::WRITE, MapFlags::PRIVATE);
        // SAFETY: a fresh private mapping at an address of the kernel's choice; `Scratch` owns it.
        let base = unsafe {
            rustix::mm::mmap_anonymous(std::ptr::null_mut(), FILE_SEND_MAX as usize, protection, flags)
        }?;
        Ok(Rc::new(Self(NonNull::new(base.cast()).expect("mmap gives no null"))))
    }

    /// Reads what is still to be read of a part.
    pub(in crate::uring) fn read_ahead(&self, send: &FileSend) -> squeue::Entry {
        let (from, len) = (send.from + u64::from(send.read), send.len - send.read);
        opcode::Read::new(Fd(send.file.as_fd().as_raw_fd()), self.0.as_ptr(), len.min(FILE_SEND_MAX))
            .offset(from)
            .build()
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // SAFETY: our own mapping; every read into it held the `Rc` until it had ended.
        let unmapped = unsafe { rustix::mm::munmap(self.0.as_ptr().cast(), FILE_SEND_MAX as usize) };
        debug_assert!(unmapped.is_ok(), "munmap of our own mapping");
    }
}
