//! Which of the kernel's ways sends the bytes of a region, chosen by size and by what the kernel reports.
//!
//! | way | what the kernel does | used for |
//! |---|---|---|
//! | copy | `SEND`: copies into the socket's buffer | small sends, and large ones that would be copied anyway |
//! | fixed | `WRITE_FIXED`: the same from registered memory | nothing by itself: it cost more wherever it was measured in the whole server |
//! | zero-copy | `SEND_ZC` from registered memory: the network card reads our pages | large sends, if the path really avoids the copy: loopback and veth copy nevertheless, at a higher cost |
//! | pages | `sendfile(2)` from the memfd: the socket refers to our pages, which never change | large sends on loopback |

use super::engine::FrameHead;

pub(super) const SEND_FLAGS: i32 = libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL;
/// `IORING_NOTIF_USAGE_ZC_COPIED`: the bytes were copied.
const COPIED: i32 = 1 << 31;

/// From this size on, sends may be worth a page reference.
const LARGE: u32 = 16 << 10;
/// While zero-copy sends do not pay, one large send in this many tries again.
const TRIAL: u32 = 512;
/// Zero-copy sends pay if at least this many of the last 32 avoided the copy.
const PAYS: u32 = 24;

/// Which way a region's bytes leave.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SendPath {
    /// Chosen by size and by what the kernel reports.
    #[default]
    Auto,
    /// Always `SEND`.
    Copy,
    /// Always `WRITE_FIXED`.
    Fixed,
    /// Always `SEND_ZC`.
    ZeroCopy,
    /// Always `sendfile(2)`; for sockets in the ring's own table `SEND`.
    Pages,
}

/// Decides for each send.
#[derive(Debug)]
pub(super) struct Chooser {
    path: SendPath,
    /// Large sends so far.
    large: u32,
    /// The last 32 zero-copy sends, the newest in the lowest bit; set: really without a copy.
    history: u32,
}

/// The way of one send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Way {
    Copy,
    Fixed(u16),
    ZeroCopy(u16),
    Pages,
}

impl Chooser {
    pub(super) fn new(path: SendPath) -> Self {
        Self { path, large: 0, history: 0 }
    }

    /// Records whether a zero-copy send avoided the copy.
    pub(super) fn report(&mut self, zero_copy: bool) {
        self.history = self.history << 1 | u32::from(zero_copy);
    }

    /// Chooses the way of a send. `slot`: where the memory is registered, if it is.
    pub(super) fn choose(&mut self, len: u32, slot: Option<u16>) -> Way {
        match (self.path, slot) {
            (SendPath::Pages, _) => Way::Pages,
            (SendPath::Copy, _) | (_, None) => Way::Copy,
            (SendPath::Fixed, Some(slot)) => Way::Fixed(slot),
            (SendPath::ZeroCopy, Some(slot)) => Way::ZeroCopy(slot),
            (SendPath::Auto, Some(_)) if len < LARGE => Way::Copy,
            (SendPath::Auto, Some(slot)) => {
                self.large = self.large.wrapping_add(1);
                let pays = self.history.count_ones() >= PAYS;
                if pays || self.large.is_multiple_of(TRIAL) { Way::ZeroCopy(slot) } else { Way::Copy }
            }
        }
    }
}

/// Whether the second completion of a zero-copy send reports that no copy was made.
pub(super) fn was_zero_copy(result: i32) -> bool {
    result & COPIED == 0
}

/// A header and part of a region, as `sendmsg(2)` takes them; contains pointers to itself, so it stays boxed.
pub(super) struct Message {
    head: FrameHead,
    vectors: [libc::iovec; 2],
    header: libc::msghdr,
}

impl std::fmt::Debug for Message {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Message").field("head", &self.head).finish_non_exhaustive()
    }
}

impl Message {
    pub(super) fn new(head: FrameHead, base: *const u8, len: usize) -> Box<Self> {
        // SAFETY: a `msghdr` of zeros is valid: null pointers and no lengths.
        let header = unsafe { std::mem::zeroed::<libc::msghdr>() };
        let empty = libc::iovec { iov_base: std::ptr::null_mut(), iov_len: 0 };
        let mut message = Box::new(Self { head, vectors: [empty; 2], header });
        let head = message.head.as_slice();
        message.vectors = [
            libc::iovec { iov_base: head.as_ptr().cast_mut().cast(), iov_len: head.len() },
            libc::iovec { iov_base: base.cast_mut().cast(), iov_len: len },
        ];
        message.header.msg_iov = message.vectors.as_mut_ptr();
        message.header.msg_iovlen = message.vectors.len();
        message
    }

    pub(super) fn header(&self) -> *const libc::msghdr {
        &raw const self.header
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_sends_are_copied_and_large_ones_leave_as_the_path_allows() {
        let mut chooser = Chooser::new(SendPath::Auto);
        assert_eq!([chooser.choose(1000, Some(3)), chooser.choose(50_000, None)], [Way::Copy, Way::Copy]);
        let ways: Vec<Way> = (0..2 * TRIAL).map(|_| chooser.choose(50_000, Some(3))).collect();
        assert_eq!(ways.iter().filter(|way| **way == Way::ZeroCopy(3)).count(), 2);
        (0..PAYS).for_each(|_| chooser.report(true));
        assert_eq!(chooser.choose(50_000, Some(3)), Way::ZeroCopy(3));
        (0..32 - PAYS + 1).for_each(|_| chooser.report(false));
        assert_eq!(chooser.choose(50_000, Some(3)), Way::Copy);
        assert!(was_zero_copy(0) && !was_zero_copy(COPIED));
    }
}
