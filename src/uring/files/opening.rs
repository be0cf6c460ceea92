//! Opening a file on the ring.

use std::ffi::CString;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use std::rc::Rc;
use std::sync::Arc;

use io_uring::types::{Fd, OpenHow};
use io_uring::{opcode, squeue};
use rustix::io::Errno;

use super::folder::{Folder, open_flags, resolve_flags};
use super::open_file::OpenFile;

/// Opening a file, with all memory that this needs.
pub(in crate::uring) struct Opening {
    pub(in crate::uring) ticket: u64,
    folder: Arc<Folder>,
    path: CString,
    how: Box<OpenHow>,
}

impl std::fmt::Debug for Opening {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Opening").field("ticket", &self.ticket).field("path", &self.path).finish()
    }
}

impl Opening {
    pub(in crate::uring) fn new(ticket: u64, folder: Arc<Folder>, path: &str) -> Self {
        let how = OpenHow::new().flags(u64::from(open_flags().bits())).resolve(resolve_flags().bits());
        let path = CString::new(path).expect("a path without zero bytes");
        Self { ticket, folder, path, how: Box::new(how) }
    }

    pub(in crate::uring) fn entry(&self) -> squeue::Entry {
        opcode::OpenAt2::new(Fd(self.folder.as_fd().as_raw_fd()), self.path.as_ptr(), &raw const *self.how)
            .build()
    }
}

/// The result of an open.
pub(in crate::uring) fn opened(result: i32) -> Result<Rc<OpenFile>, Errno> {
    if result < 0 {
        return Err(Errno::from_raw_os_error(-result));
    }
    // SAFETY: the kernel has just made this descriptor for us, and no other code has it.
    let fd = unsafe { OwnedFd::from_raw_fd(result) };
    OpenFile::new(fd).map(Rc::new)
}
