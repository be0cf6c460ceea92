//! The process's limits: raised where that is allowed, named in messages where it is not.

use std::fmt;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Bytes of memory that a process may lock, for messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lockable(pub Option<u64>);

impl Lockable {
    /// The process's current limit.
    pub fn now() -> Self {
        Self(getrlimit(Resource::Memlock).current)
    }
}

impl fmt::Display for Lockable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(bytes) => write!(f, "{} KiB", bytes >> 10),
            None => f.write_str("any amount"),
        }
    }
}

/// Raises the soft limit of descriptors to the hard one and returns the limit that then applies.
pub(super) fn raise_descriptors() -> u64 {
    raise(Resource::Nofile)
}

/// Raises the soft limit of locked memory to the hard one.
pub(super) fn raise_locked_memory() -> u64 {
    raise(Resource::Memlock)
}

fn raise(resource: Resource) -> u64 {
    let Rlimit { current, maximum } = getrlimit(resource);
    let raised = setrlimit(resource, Rlimit { current: maximum, maximum }).is_ok();
    (if raised { maximum } else { current }).unwrap_or(u64::MAX)
}

/// After this call a write beyond `RLIMIT_FSIZE` fails with `EFBIG` instead of ending the process.
///
/// By a handler that does nothing, not by `SIG_IGN`: programs that this one starts get the default back.
pub(super) fn survive_file_size_limit() {
    extern "C" fn nothing(_: libc::c_int) {}
    // SAFETY: a `sigaction` of zeros is valid: no flags and an empty mask.
    let mut action = unsafe { std::mem::zeroed::<libc::sigaction>() };
    action.sa_sigaction = nothing as extern "C" fn(libc::c_int) as usize;
    action.sa_flags = libc::SA_RESTART;
    // SAFETY: `action` is complete, and its handler touches nothing.
    let set = unsafe { libc::sigaction(libc::SIGXFSZ, &raw const action, std::ptr::null_mut()) };
    debug_assert_eq!(set, 0, "SIGXFSZ can be handled");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lockable_memory_is_given_in_kib() {
        assert_eq!(Lockable(Some(8 << 20)).to_string(), "8192 KiB");
        assert_eq!(Lockable(None).to_string(), "any amount");
    }

    #[test]
    fn a_file_that_grows_beyond_its_limit_is_an_error() {
        survive_file_size_limit();
        // Raises the signal itself: whether the limit triggers it is up to the kernel, and the limit applies to
        // the process.
        // SAFETY: a signal to the calling thread, whose handler was set above.
        assert_eq!(unsafe { libc::raise(libc::SIGXFSZ) }, 0);
    }
}
