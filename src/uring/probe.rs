//! What this kernel and the limits allow: checked once at start, with advice where they fall short.

use std::io;
use std::time::Duration;

use io_uring::types::{Fd, OpenHow, SubmitArgs, Timespec};
use io_uring::{IoUring, Probe, cqueue, opcode, squeue};
use rustix::io::Errno;

use super::kernels::{self, Version};
use super::limits;
use super::setup::{RingError, probe_builder};

/// The oldest kernel with everything that the engine uses: `DEFER_TASKRUN` came with it.
pub const KERNEL_MIN: Version = Version::new(6, 1, 0);

/// Entries of the probe's ring.
const PROBE_ENTRIES: u32 = 16;

/// What keeps the engine from starting, and what to do.
#[derive(Debug, thiserror::Error)]
pub enum ProbeError {
    /// Older than [`KERNEL_MIN`].
    #[error(
        "kernel {release} is too old: io_uring as used here needs Linux {}.{} or newer; upgrade the kernel",
        KERNEL_MIN.major,
        KERNEL_MIN.minor
    )]
    KernelTooOld {
        /// As `uname -r` prints it.
        release: String,
    },
    /// `kernel.io_uring_disabled` forbids it.
    #[error(
        "io_uring is switched off on this machine (kernel.io_uring_disabled = {value}); \
         run 'sysctl -w kernel.io_uring_disabled=0' as root{}",
        if *value == 1 { " or give the process CAP_SYS_ADMIN" } else { "" }
    )]
    SwitchedOff {
        /// The sysctl's value: 1 forbids it to the unprivileged, 2 to all.
        value: u8,
    },
    /// The kernel refused to make a ring.
    #[error(transparent)]
    Ring(#[from] RingError),
    /// A filter that the process has inherited forbids an operation.
    #[error(
        "a filter forbids the io_uring operation {operation} ({error}); allow it in what starts this program \
         (a container, a sandbox)"
    )]
    ForbiddenOperation {
        /// The operation.
        operation: &'static str,
        /// The kernel's error.
        error: Errno,
    },
    /// The kernel lacks an operation.
    #[error("the kernel lacks the io_uring operation {0}; upgrade to Linux 6.1 or newer")]
    MissingOperation(&'static str),
}

impl ProbeError {
    /// Whether waiting may help.
    pub fn is_shortage(&self) -> bool {
        matches!(self, Self::Ring(error) if error.is_shortage())
    }
}

/// What was found.
#[derive(Clone, Debug)]
pub struct Report {
    /// As `uname -r` prints it.
    pub kernel: String,
    /// Descriptors the process may open, after raising the soft limit to the hard one.
    pub descriptors: u64,
    /// Whether memory can be registered with a ring, beyond the little that every limit allows.
    pub registered_memory: bool,
    /// Advice on things that work, but not as well as they could.
    pub advice: Vec<String>,
}

/// Checks the kernel and the limits, raises the soft limits of descriptors and of locked memory, and makes a
/// write beyond the file size limit an error.
///
/// # Errors
/// A [`ProbeError`] that says what is missing and what to do.
pub fn probe() -> Result<Report, ProbeError> {
    limits::survive_file_size_limit();
    let kernel = rustix::system::uname().release().to_string_lossy().into_owned();
    let version = Version::running();
    if version.is_some_and(|version| version < KERNEL_MIN) {
        return Err(ProbeError::KernelTooOld { release: kernel });
    }
    let descriptors = limits::raise_descriptors();
    limits::raise_locked_memory();
    let mut ring = probe_builder().build(PROBE_ENTRIES).map_err(why_refused)?;
    check_operations(&ring)?;
    try_operations(&mut ring)?;
    let mut advice = version.map(kernels::advice).unwrap_or_default();
    if descriptors < 65_536 {
        advice.push(format!(
            "this process may open {descriptors} descriptors; further sockets live in the rings' own tables, \
             which cannot be handed on or sent files to; better raise the hard limit (systemd: \
             LimitNOFILE=1048576)"
        ));
    }
    let registered_memory = can_register(&ring);
    if !registered_memory {
        advice.push(
            "memory cannot be registered with io_uring, so sends cost a little more; raise the limit of \
             locked memory (systemd: LimitMEMLOCK=infinity)"
                .to_owned(),
        );
    }
    Ok(Report { kernel, descriptors, registered_memory, advice })
}

fn why_refused(error: io::Error) -> ProbeError {
    let sysctl = std::fs::read_to_string("/proc/sys/kernel/io_uring_disabled").unwrap_or_default();
    match sysctl.trim().parse() {
        Ok(value @ 1..) => ProbeError::SwitchedOff { value },
        _ => RingError::from(error).into(),
    }
}

fn check_operations(ring: &IoUring) -> Result<(), ProbeError> {
    let mut probe = Probe::new();
    ring.submitter().register_probe(&mut probe).map_err(RingError::from)?;
    let known =
        |entry: &squeue::Entry| u8::try_from(entry.get_opcode()).is_ok_and(|code| probe.is_supported(code));
    match operations().iter().find(|(_, entry)| !known(entry)) {
        Some((name, _)) => Err(ProbeError::MissingOperation(name)),
        None => Ok(()),
    }
}

/// The operations that the engine uses, each on a descriptor that does not exist: the kernel answers at once
/// and touches none of the named memory.
fn operations() -> [(&'static str, squeue::Entry); 13] {
    static HOW: OpenHow = OpenHow::new();
    let (fd, null) = (Fd(-1), std::ptr::null_mut::<u8>());
    [
        ("ACCEPT", opcode::Accept::new(fd, null.cast(), null.cast()).build()),
        ("RECV", opcode::Recv::new(fd, null, 0).build()),
        ("SEND", opcode::Send::new(fd, null, 0).build()),
        ("SENDMSG", opcode::SendMsg::new(fd, null.cast()).build()),
        ("WRITE_FIXED", opcode::WriteFixed::new(fd, null, 0, 0).build()),
        ("READ", opcode::Read::new(fd, null, 0).build()),
        ("POLL_ADD", opcode::PollAdd::new(fd, 0).build()),
        ("CONNECT", opcode::Connect::new(fd, null.cast(), 0).build()),
        ("ASYNC_CANCEL", opcode::AsyncCancel::new(u64::MAX).build()),
        ("CLOSE", opcode::Close::new(fd).build()),
        ("OPENAT2", opcode::OpenAt2::new(fd, c"x".as_ptr(), &raw const HOW).build()),
        ("SHUTDOWN", opcode::Shutdown::new(fd, 0).build()),
        // Came with multishot receive, which cannot be checked by itself.
        ("SEND_ZC", opcode::SendZc::new(fd, null, 0).build()),
    ]
}

/// Tries each operation: filters (Linux 7.0) cannot be queried otherwise.
fn try_operations(ring: &mut IoUring) -> Result<(), ProbeError> {
    /// All complete at once; this limits the wait for a kernel on which they do not.
    const WAIT: Duration = Duration::from_millis(200);
    let operations = operations();
    for (place, (_, entry)) in (0..).zip(&operations) {
        let entry = entry.clone().user_data(place);
        // SAFETY: the entries point to statics, or to nothing.
        unsafe { ring.submission().push(&entry) }.expect("the queue holds them all");
    }
    let timespec = Timespec::from(WAIT);
    let args = SubmitArgs::new().timespec(&timespec);
    match ring.submitter().submit_with_args(operations.len(), &args) {
        Err(error)
            if !matches!(Errno::from_io_error(&error), Some(Errno::TIME | Errno::INTR | Errno::AGAIN)) =>
        {
            return Err(RingError::from(error).into());
        }
        _ => {}
    }
    let answers: Vec<(u64, i32)> = ring
        .completion()
        .filter(|entry| !cqueue::notif(entry.flags()))
        .map(|entry| (entry.user_data(), entry.result()))
        .collect();
    forbidden(&operations.map(|(name, _)| name), &answers)
}

/// `answers` are pairs of an index into `names` and a result.
fn forbidden(names: &[&'static str], answers: &[(u64, i32)]) -> Result<(), ProbeError> {
    for (place, result) in answers {
        let error = if *result < 0 { Errno::from_raw_os_error(-*result) } else { continue };
        if matches!(error, Errno::ACCESS | Errno::PERM) {
            let operation = names[usize::try_from(*place).expect("a place in the list")];
            return Err(ProbeError::ForbiddenOperation { operation, error });
        }
    }
    Ok(())
}

/// Tries to register more than the classic 64 KiB and the usual 8 MiB of locked memory.
fn can_register(ring: &IoUring) -> bool {
    const TRIAL: usize = 16 << 20;
    // Without memory nothing can be tried; the lack of memory is reported where it matters.
    let Ok(arena) = crate::memory::Arena::new() else { return true };
    let Ok(writer) = arena.segment(TRIAL) else { return true };
    let base = writer.segment().base().as_ptr().cast();
    let vector = libc::iovec { iov_base: base, iov_len: TRIAL };
    // SAFETY: `writer` keeps the mapping until the end of this function, and it is unregistered before.
    let registered = unsafe { ring.submitter().register_buffers(&[vector]) }.is_ok();
    if registered {
        let _ = ring.submitter().unregister_buffers();
    }
    registered
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn operations_that_a_filter_forbids_are_named() {
        let names = ["ACCEPT", "RECV"];
        let bad = |errno: i32| forbidden(&names, &[(0, -libc::EBADF), (1, -errno)]);
        assert!(bad(libc::EFAULT).is_ok() && forbidden(&names, &[(0, 0)]).is_ok());
        let text = bad(libc::EACCES).unwrap_err().to_string();
        assert!(text.contains("operation RECV"), "{text}");
    }

    #[test]
    fn a_ring_tries_every_operation() {
        let mut ring = probe_builder().build(PROBE_ENTRIES).unwrap();
        try_operations(&mut ring).unwrap();
        check_operations(&ring).unwrap();
    }

    #[test]
    fn errors_say_what_to_do() {
        let text = ProbeError::SwitchedOff { value: 2 }.to_string();
        assert!(text.contains("sysctl -w kernel.io_uring_disabled=0") && !text.contains("CAP_SYS_ADMIN"));
        let text = ProbeError::KernelTooOld { release: "5.4".into() }.to_string();
        assert!(text.contains("needs Linux 6.1"));
    }

    #[test]
    fn this_machine_runs_it() {
        let report = probe().unwrap();
        assert!(report.descriptors >= 1024);
    }
}
