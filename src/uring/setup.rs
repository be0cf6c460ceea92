//! How a ring is made, what resources it takes, and what a refusal by the kernel means.

use std::io;

use io_uring::{Builder, IoUring, cqueue, squeue};
use rustix::io::Errno;

use super::buffers;
use super::limits::Lockable;

/// Entries of the submission queue: larger batches cost more, not less.
pub(super) const SUBMISSIONS: u32 = 512;
/// Entries of the completion queue; the kernel keeps completions that do not fit.
const COMPLETIONS: u32 = 8192;
/// Entries of the completion queue of the probe's ring.
const PROBE_COMPLETIONS: u32 = 128;

const PAGE: u64 = 4096;
/// Bytes of a queue's heads, tails and counters.
const QUEUE_HEAD: u64 = 320;

/// Locked memory that a loop's ring takes, if the kernel counts it (since Linux 6.14): its queues, and the list
/// of its receive buffers.
pub const RING_LOCKED: u64 = {
    let entries = SUBMISSIONS as u64 * size_of::<squeue::Entry>() as u64;
    let queues = QUEUE_HEAD
        + SUBMISSIONS as u64 * size_of::<u32>() as u64
        + COMPLETIONS as u64 * size_of::<cqueue::Entry>() as u64;
    entries.next_multiple_of(PAGE) + queues.next_multiple_of(PAGE) + buffers::LIST_BYTES as u64
};

/// The set-up of a loop's ring.
pub(super) fn builder() -> Builder<squeue::Entry, cqueue::Entry> {
    with_completions(COMPLETIONS)
}

/// The same for the probe, but small: the kernel counts a ring's memory for a while after its end.
pub(super) fn probe_builder() -> Builder<squeue::Entry, cqueue::Entry> {
    with_completions(PROBE_COMPLETIONS)
}

fn with_completions(completions: u32) -> Builder<squeue::Entry, cqueue::Entry> {
    let mut builder = IoUring::builder();
    builder
        .setup_single_issuer()
        .setup_defer_taskrun()
        .setup_taskrun_flag()
        .setup_submit_all()
        .setup_cqsize(completions);
    builder
}

/// Why there is no ring, and what to do.
#[derive(Debug, thiserror::Error)]
pub enum RingError {
    /// `RLIMIT_MEMLOCK` is too low.
    #[error(
        "{rings} io_uring rings need {} KiB of locked memory, and the limit is {limit} for all programs of this \
         user; raise it (systemd: LimitMEMLOCK=infinity, a shell: ulimit -l unlimited) or use fewer loops \
         (--loops)",
        (rings * RING_LOCKED) >> 10
    )]
    LockedMemory {
        /// Rings that are needed.
        rings: u64,
        /// The memory that may be locked.
        limit: Lockable,
    },
    /// The kernel has no memory, and the cause is not the limit on locked memory.
    #[error("the kernel has no memory for an io_uring")]
    NoMemory,
    /// A loop's buffers cannot be mapped.
    #[error(
        "no memory for the buffers of a loop ({0}); check the memory limits (systemd: MemoryMax=, LimitAS=)"
    )]
    Buffers(io::Error),
    /// The process or the machine is out of descriptors.
    #[error("no descriptor is left for an io_uring ({0}); raise the limit (systemd: LimitNOFILE=1048576)")]
    Descriptors(io::Error),
    /// A layer between the program and the kernel forbids it.
    #[error(
        "an io_uring is forbidden ({0}); in a container, allow the io_uring_* system calls in its seccomp profile"
    )]
    Forbidden(io::Error),
    /// Anything else.
    #[error("the kernel refuses an io_uring: {0}")]
    Refused(io::Error),
}

impl RingError {
    /// Whether it may go away without action: memory held by other programs counts as well.
    pub fn is_shortage(&self) -> bool {
        matches!(self, Self::LockedMemory { .. } | Self::NoMemory | Self::Buffers(_) | Self::Descriptors(_))
    }

    /// The same error, for all rings that a process needs.
    #[must_use]
    pub fn of_rings(self, rings: u64) -> Self {
        match self {
            Self::LockedMemory { limit, .. } => Self::LockedMemory { rings, limit },
            other => other,
        }
    }

    fn explain(error: io::Error, limit: Lockable) -> Self {
        match Errno::from_io_error(&error) {
            Some(Errno::NOMEM) if limit != Lockable(None) => Self::LockedMemory { rings: 1, limit },
            Some(Errno::NOMEM) => Self::NoMemory,
            Some(Errno::MFILE | Errno::NFILE) => Self::Descriptors(error),
            Some(Errno::PERM | Errno::ACCESS | Errno::NOSYS) => Self::Forbidden(error),
            _ => Self::Refused(error),
        }
    }
}

impl From<io::Error> for RingError {
    fn from(error: io::Error) -> Self {
        Self::explain(error, Lockable::now())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn explained(errno: Errno, limit: Option<u64>) -> RingError {
        RingError::explain(errno.into(), Lockable(limit))
    }

    #[test]
    fn a_lack_of_locked_memory_says_how_much_and_what_to_set() {
        let text = explained(Errno::NOMEM, Some(8 << 20)).of_rings(64).to_string();
        let needed = 64 * RING_LOCKED / 1024;
        for part in ["64 io_uring rings", &format!("{needed} KiB"), "8192 KiB", "LimitMEMLOCK=", "ulimit -l"]
        {
            assert!(text.contains(part), "{text} lacks {part}");
        }
        assert!(!text.contains("seccomp"));
        assert!(explained(Errno::NOMEM, Some(0)).is_shortage());
        assert!(matches!(explained(Errno::NOMEM, None).of_rings(2), RingError::NoMemory));
    }

    #[test]
    fn other_refusals_name_their_own_cause() {
        assert!(explained(Errno::MFILE, Some(0)).to_string().contains("LimitNOFILE"));
        for forbidden in [Errno::PERM, Errno::NOSYS] {
            let error = explained(forbidden, Some(0));
            assert!(error.to_string().contains("seccomp") && !error.is_shortage());
        }
        assert!(!explained(Errno::INVAL, Some(0)).to_string().contains("seccomp"));
    }

    #[test]
    fn a_ring_takes_the_stated_memory() {
        // 512 entries of 64 bytes; 8192 of 16, 512 of 4 and a head; 1024 of 16.
        assert_eq!(RING_LOCKED, (8 + 33 + 4) * PAGE);
    }
}
