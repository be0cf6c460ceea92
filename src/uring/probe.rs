//! What this kernel and these limits allow, found out once at start, with advice where they fall short.

use std::io;

use io_uring::{IoUring, Probe, opcode};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// The oldest kernel with all that the engine uses: `DEFER_TASKRUN` came with it.
pub const KERNEL_MIN: (u32, u32) = (6, 1);

/// What keeps the engine from starting, and what to do.
#[derive(Debug, thiserror::Error)]
pub enum ProbeError {
    /// Older than [`KERNEL_MIN`].
    #[error(
        "kernel {release} is too old: io_uring as used here needs Linux {}.{} or newer; upgrade the kernel",
        KERNEL_MIN.0,
        KERNEL_MIN.1
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
    /// The kernel refused a ring.
    #[error(
        "the kernel refuses an io_uring: {0}; in a container, allow the io_uring_* system calls in its \
         seccomp profile"
    )]
    Refused(io::Error),
    /// An operation is missing.
    #[error("the kernel lacks the io_uring operation {0}; upgrade to Linux 6.1 or newer")]
    MissingOperation(&'static str),
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
    /// Things that work, but not as well as they could, each with advice.
    pub advice: Vec<String>,
}

/// Looks at the kernel and the limits, and raises the soft limit of descriptors.
///
/// # Errors
/// A [`ProbeError`] that says what is missing and what to do.
pub fn probe() -> Result<Report, ProbeError> {
    let kernel = rustix::system::uname().release().to_string_lossy().into_owned();
    if parse_release(&kernel).is_some_and(|version| version < KERNEL_MIN) {
        return Err(ProbeError::KernelTooOld { release: kernel });
    }
    let ring = super::ring::builder().build(8).map_err(why_refused)?;
    check_operations(&ring)?;
    let mut advice = Vec::new();
    let descriptors = raise_descriptors();
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

/// Major and minor of a release like `6.18.44-generic`.
fn parse_release(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit());
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

fn why_refused(error: io::Error) -> ProbeError {
    let sysctl = std::fs::read_to_string("/proc/sys/kernel/io_uring_disabled").unwrap_or_default();
    match sysctl.trim().parse() {
        Ok(value @ 1..) => ProbeError::SwitchedOff { value },
        _ => ProbeError::Refused(error),
    }
}

fn check_operations(ring: &IoUring) -> Result<(), ProbeError> {
    let mut probe = Probe::new();
    ring.submitter().register_probe(&mut probe).map_err(ProbeError::Refused)?;
    let needed = [
        ("ACCEPT", opcode::Accept::CODE),
        ("RECV", opcode::Recv::CODE),
        ("SEND", opcode::Send::CODE),
        ("SENDMSG", opcode::SendMsg::CODE),
        ("WRITE_FIXED", opcode::WriteFixed::CODE),
        ("READ", opcode::Read::CODE),
        ("POLL_ADD", opcode::PollAdd::CODE),
        ("CONNECT", opcode::Connect::CODE),
        ("ASYNC_CANCEL", opcode::AsyncCancel::CODE),
        ("CLOSE", opcode::Close::CODE),
        ("OPENAT2", opcode::OpenAt2::CODE),
        // Came with multishot receive, which cannot be asked for by itself.
        ("SEND_ZC", opcode::SendZc::CODE),
    ];
    match needed.iter().find(|(_, code)| !probe.is_supported(*code)) {
        Some((name, _)) => Err(ProbeError::MissingOperation(name)),
        None => Ok(()),
    }
}

/// Raises the soft limit to the hard one and gives what holds then.
fn raise_descriptors() -> u64 {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    let raised = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }).is_ok();
    (if raised { maximum } else { current }).unwrap_or(u64::MAX)
}

/// Tries with more than the classic 64 KiB and the usual 8 MiB of locked memory.
fn can_register(ring: &IoUring) -> bool {
    const TRIAL: usize = 16 << 20;
    let Ok(arena) = crate::memory::Arena::new() else { return false };
    let Ok(writer) = arena.segment(TRIAL) else { return false };
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
    fn releases() {
        assert_eq!(parse_release("6.18.44-fc"), Some((6, 18)));
        assert_eq!(parse_release("5.15.0-91-generic"), Some((5, 15)));
        assert_eq!(parse_release("6.1"), Some((6, 1)));
        assert_eq!(parse_release("odd"), None);
        assert!(parse_release("6.0.19").unwrap() < KERNEL_MIN);
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
