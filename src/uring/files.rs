//! Files on the ring: opened without blocking, read ahead where they are cold, sent by page reference.
//!
//! A stretch that is in the page cache goes out by `sendfile(2)` from the loop, the cheapest way there is. One
//! that is not would block the loop for as long as the disk takes: the ring reads it first, into memory that
//! nobody looks at, and then it is sent the same way. `cachestat(2)` tells the two apart; where the kernel or
//! the filesystem has no use of it, `preadv2(2)` with `RWF_NOWAIT` does.
//!
//! What it deliberately does not do: splice on kernel threads (one thread for each stuck client), and reading
//! into memory to send from there, except for sockets in the ring's own table, which `sendfile(2)` cannot name.

use std::cell::Cell;
use std::ffi::CString;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::path::Path;
use std::ptr::NonNull;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use io_uring::types::{Fd, OpenHow};
use io_uring::{opcode, squeue};
use rustix::fs::{AtFlags, FileType, Mode, OFlags, ResolveFlags, StatxFlags};
use rustix::io::{Errno, ReadWriteFlags};
use rustix::mm::{MapFlags, ProtFlags};
use rustix::net::SendFlags;

use super::ring::{Op, Uring};
use super::sockets::Target;
use super::{Engine, Millis, SendError, Sock};

/// The longest stretch of a file that one send takes.
pub const FILE_SEND_MAX: u32 = 1 << 20;
/// What a socket in the ring's table is given at once: this much is copied.
const COPY_MAX: u32 = 64 << 10;
/// Kernel threads that may block on a disk for a loop.
const WORKERS_MAX: u32 = 8;
/// How long a stretch that was found in memory is taken to be there.
const HOT_FOR: Millis = 1_000;
/// What is looked at and remembered at once.
const BLOCK: u64 = 4 << 20;
/// Without `cachestat(2)`, one byte of so many is tried.
const TRIAL_STEP: u64 = 128 << 10;
/// `cachestat(2)`, the same number on every architecture.
const SYS_CACHESTAT: libc::c_long = 451;

/// A folder that files are opened below, and never outside of.
#[derive(Debug)]
pub struct Folder {
    fd: OwnedFd,
    /// Device and inode.
    identity: (u64, u64),
}

impl Folder {
    /// Opens a folder. Blocks.
    ///
    /// # Errors
    /// What the system says.
    pub fn open(path: &Path) -> io::Result<Arc<Self>> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let fd = rustix::fs::open(path, flags, Mode::empty())?;
        let stat = rustix::fs::fstat(&fd)?;
        Ok(Arc::new(Self { fd, identity: (stat.st_dev, stat.st_ino) }))
    }

    /// Whether both are the same folder, not only of the same name.
    pub fn is_same(&self, other: &Self) -> bool {
        self.identity == other.identity
    }

    /// Opens a file below as the ring does, but blocks.
    ///
    /// # Errors
    /// As [`super::Event::Opened`] has it.
    pub fn open_file(&self, path: &str) -> Result<OpenFile, Errno> {
        let fd = rustix::fs::openat2(&self.fd, path, open_flags(), Mode::empty(), resolve_flags())?;
        OpenFile::new(fd)
    }
}

/// A pipe or a device must not block the one who opens it; whatever it is, it does not become a terminal.
fn open_flags() -> OFlags {
    OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC
}

/// Links may point elsewhere below the folder, not out of it, and not through `/proc`.
fn resolve_flags() -> ResolveFlags {
    ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS
}

/// When a file was changed last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Modified {
    /// Seconds since 1970.
    pub seconds: i64,
    /// And nanoseconds.
    pub nanos: u32,
}

impl Modified {
    /// The time since 1970; times before that count as 1970.
    pub fn since_epoch(self) -> Duration {
        u64::try_from(self.seconds).map_or(Duration::ZERO, |seconds| Duration::new(seconds, self.nanos))
    }
}

/// A regular file as it was when it was opened.
#[derive(Debug)]
pub struct OpenFile {
    fd: OwnedFd,
    /// Bytes.
    pub len: u64,
    /// When it was changed last.
    pub modified: Modified,
    /// When its inode was changed last: also by a rename, or by setting its times.
    pub inode_changed: Modified,
    /// Device and inode.
    pub identity: (u64, u64),
    probe: Cell<Probe>,
    hot: Cell<Hot>,
}

/// How a file's pages are asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Probe {
    Cachestat,
    Trial,
}

/// The stretch that was found in memory last, and how long that holds.
#[derive(Clone, Copy, Debug, Default)]
struct Hot {
    from: u64,
    to: u64,
    until: Millis,
}

impl OpenFile {
    /// Looks at what was opened: a regular file is kept.
    ///
    /// # Errors
    /// [`Errno::ISDIR`] for a folder, [`Errno::NXIO`] for anything else that is no regular file.
    fn new(fd: OwnedFd) -> Result<Self, Errno> {
        // The inode is in memory, and nothing is asked of a server: this does not block.
        let flags = AtFlags::EMPTY_PATH | AtFlags::STATX_DONT_SYNC;
        let stat = rustix::fs::statx(&fd, "", flags, StatxFlags::BASIC_STATS)?;
        match FileType::from_raw_mode(stat.stx_mode.into()) {
            FileType::RegularFile => {}
            FileType::Directory => return Err(Errno::ISDIR),
            _ => return Err(Errno::NXIO),
        }
        let device = u64::from(stat.stx_dev_major) << 32 | u64::from(stat.stx_dev_minor);
        Ok(Self {
            fd,
            len: stat.stx_size,
            modified: Modified { seconds: stat.stx_mtime.tv_sec, nanos: stat.stx_mtime.tv_nsec },
            inode_changed: Modified { seconds: stat.stx_ctime.tv_sec, nanos: stat.stx_ctime.tv_nsec },
            identity: (device, stat.stx_ino),
            probe: Cell::new(Probe::Cachestat),
            hot: Cell::default(),
        })
    }

    /// Whether both are the same version of the same file.
    pub fn is_same(&self, other: &Self) -> bool {
        (self.identity, self.len, self.modified) == (other.identity, other.len, other.modified)
    }

    /// Reads from `from` on. Blocks where that is not in memory.
    ///
    /// # Errors
    /// What the system says.
    pub fn read_at(&self, from: u64, into: &mut [u8]) -> Result<usize, Errno> {
        rustix::io::pread(&self.fd, into, from)
    }

    /// Whether a stretch can be sent without waiting for a disk, as far as can be known.
    pub(super) fn is_hot(&self, from: u64, len: u32, now: Millis) -> bool {
        let to = from + u64::from(len);
        let known = self.hot.get();
        if known.from <= from && to <= known.to && now < known.until {
            return true;
        }
        let block = from - from % BLOCK;
        let block = (block, (block + BLOCK).min(self.len));
        for (start, end) in [block, (from, to)] {
            if start <= from && to <= end && self.is_cached(start, end) {
                self.hot.set(Hot { from: start, to: end, until: now + HOT_FOR });
                return true;
            }
        }
        false
    }

    /// A stretch was just read: a probe that still does not see it is not to be asked again.
    pub(super) fn was_read(&self, from: u64, len: u32, now: Millis) {
        if !self.is_hot(from, len, now) {
            self.probe.set(Probe::Trial);
        }
    }

    fn is_cached(&self, from: u64, to: u64) -> bool {
        if self.probe.get() == Probe::Cachestat {
            if let Some(cached) = cachestat(self.fd.as_fd(), from, to) {
                return cached;
            }
            self.probe.set(Probe::Trial);
        }
        let mut at = from;
        while at < to {
            if !self.has_byte(at) {
                return false;
            }
            at += TRIAL_STEP;
        }
        self.has_byte(to.saturating_sub(1))
    }

    fn has_byte(&self, at: u64) -> bool {
        let mut byte = [0];
        let into = &mut [io::IoSliceMut::new(&mut byte)];
        rustix::io::preadv2(&self.fd, into, at, ReadWriteFlags::NOWAIT).is_ok()
    }
}

/// Whether all pages from byte `from` to byte `to` are in memory; `None`: the kernel does not say.
fn cachestat(fd: BorrowedFd<'_>, from: u64, to: u64) -> Option<bool> {
    #[repr(C)]
    struct Range {
        from: u64,
        len: u64,
    }
    #[repr(C)]
    #[derive(Default)]
    struct Found {
        cached: u64,
        others: [u64; 4],
    }
    let page = rustix::param::page_size() as u64;
    let range = Range { from, len: to - from };
    let mut found = Found::default();
    // SAFETY: both structures are laid out as the call wants them and live until it returns.
    let result = unsafe {
        libc::syscall(SYS_CACHESTAT, fd.as_raw_fd(), &raw const range, &raw mut found, 0 as libc::c_uint)
    };
    (result == 0).then(|| found.cached >= to.div_ceil(page) - from / page)
}

/// Bytes in a socket's send queue (`SIOCOUTQ`).
pub(super) fn queued(socket: BorrowedFd<'_>) -> Option<u32> {
    let mut bytes: libc::c_int = 0;
    // SAFETY: the call writes one `int`, which lives until it returns.
    let result = unsafe { libc::ioctl(socket.as_raw_fd(), libc::TIOCOUTQ, &raw mut bytes) };
    u32::try_from(bytes).ok().filter(|_| result == 0)
}

/// A stretch of a file on its way to a socket.
#[derive(Debug)]
pub(super) struct FileSend {
    pub(super) head: Bytes,
    pub(super) file: Rc<OpenFile>,
    pub(super) from: u64,
    pub(super) len: u32,
    /// How much of it the ring has read ahead.
    pub(super) read: u32,
}

impl FileSend {
    /// Gives head and stretch to a socket, as much as it takes; blocks if the stretch is cold.
    pub(super) fn transmit(&self, to: BorrowedFd<'_>) -> Result<u32, SendError> {
        let mut taken = 0;
        if !self.head.is_empty() {
            let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL | SendFlags::MORE;
            taken = rustix::net::send(to, &self.head, flags).map_err(why)?;
            if taken < self.head.len() {
                return Ok(count(taken));
            }
        }
        let mut from = self.from;
        match rustix::fs::sendfile(to, &self.file.fd, Some(&mut from), self.len as usize) {
            // The file is shorter than it was: what was promised cannot be kept.
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

/// The open of a file, with all memory it needs.
pub(super) struct Opening {
    pub(super) ticket: u64,
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
    pub(super) fn new(ticket: u64, folder: Arc<Folder>, path: &str) -> Self {
        let how = OpenHow::new().flags(u64::from(open_flags().bits())).resolve(resolve_flags().bits());
        let path = CString::new(path).expect("a path without zero bytes");
        Self { ticket, folder, path, how: Box::new(how) }
    }

    pub(super) fn entry(&self) -> squeue::Entry {
        opcode::OpenAt2::new(Fd(self.folder.fd.as_raw_fd()), self.path.as_ptr(), &raw const *self.how).build()
    }
}

/// What an open gave.
pub(super) fn opened(result: i32) -> Result<Rc<OpenFile>, Errno> {
    if result < 0 {
        return Err(Errno::from_raw_os_error(-result));
    }
    // SAFETY: the kernel has just made this descriptor for us and gave it to nobody else.
    let fd = unsafe { OwnedFd::from_raw_fd(result) };
    OpenFile::new(fd).map(Rc::new)
}

/// Reads `into.capacity()` bytes of a file.
pub(super) fn read_entry(file: &OpenFile, from: u64, into: &Vec<u8>) -> squeue::Entry {
    let len = u32::try_from(into.capacity()).unwrap_or(u32::MAX);
    opcode::Read::new(Fd(file.fd.as_raw_fd()), into.as_ptr().cast_mut(), len).offset(from).build()
}

impl Uring {
    /// Sends a stretch of a file now if it is in memory, else when it is.
    pub(super) fn send_file(&mut self, sock: Sock, send: FileSend) {
        assert!(send.len > 0 && send.len <= FILE_SEND_MAX, "a stretch is bounded and not empty");
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
            unreachable!("others are copied to")
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

/// What a read left in `bytes`, which holds nothing yet and has the room that the read was given.
pub(super) fn filled(mut bytes: Vec<u8>, result: i32) -> Result<Vec<u8>, Errno> {
    let len = usize::try_from(result).map_err(|_| Errno::from_raw_os_error(-result))?;
    assert!(len <= bytes.capacity(), "a read keeps to its room");
    // SAFETY: the kernel has written the first `len` bytes, and the read has ended.
    unsafe { bytes.set_len(len) };
    Ok(bytes)
}

/// Memory that cold stretches are read into and that nobody ever looks at: all reads share it.
#[derive(Debug)]
pub(super) struct Scratch(NonNull<u8>);

impl Scratch {
    pub(super) fn new() -> io::Result<Rc<Self>> {
        let (protection, flags) = (ProtFlags::READ | ProtFlags::WRITE, MapFlags::PRIVATE);
        // SAFETY: a fresh private mapping at an address of the kernel's choice; `Scratch` owns it.
        let base = unsafe {
            rustix::mm::mmap_anonymous(std::ptr::null_mut(), FILE_SEND_MAX as usize, protection, flags)
        }?;
        Ok(Rc::new(Self(NonNull::new(base.cast()).expect("mmap gives no null"))))
    }

    /// Reads what is still to be read of a stretch.
    pub(super) fn read_ahead(&self, send: &FileSend) -> squeue::Entry {
        let (from, len) = (send.from + u64::from(send.read), send.len - send.read);
        opcode::Read::new(Fd(send.file.fd.as_raw_fd()), self.0.as_ptr(), len.min(FILE_SEND_MAX))
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

/// Bounds the kernel threads that opens and cold reads of filesystems without asynchronous reads wait on.
pub(super) fn bound_workers(ring: &io_uring::IoUring) {
    // Without it the kernel's own bound holds, a few for each core.
    let _ = ring.submitter().register_iowq_max_workers(&mut [WORKERS_MAX, 0]);
}
