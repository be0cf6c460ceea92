//! Receive buffers that the kernel picks from a ring of them (`IORING_REGISTER_PBUF_RING`).

use std::cell::Cell;
use std::io;
use std::ops::Deref;
use std::ptr::NonNull;
use std::rc::Rc;
use std::sync::atomic::{AtomicU16, Ordering};

use io_uring::types::BufRingEntry;
use io_uring::{IoUring, squeue};
use rustix::mm::{MapFlags, ProtFlags};

/// Bytes of a receive buffer: most frames of 4 Mbps come in two.
pub(super) const BUFFER_SIZE: usize = 16 << 10;
/// Buffers of a loop; a power of two. When all are out, receives wait for one to come back.
pub(super) const BUFFERS: u16 = 256;
/// The group's number on the ring; there is one.
pub(super) const GROUP: u16 = 0;

/// The memory of the buffers and of the ring that lists the free ones.
///
/// Owner: the [`super::ring::Uring`] and every [`RecvBuf`] that is out, through `Rc`. The kernel uses both
/// mappings until the group is unregistered, which the engine's drop does before it lets go.
#[derive(Debug)]
pub(super) struct BufferRing {
    entries: NonNull<BufRingEntry>,
    memory: NonNull<u8>,
    tail: Cell<u16>,
}

const ENTRIES_BYTES: usize = BUFFERS as usize * size_of::<BufRingEntry>();
const MEMORY_BYTES: usize = BUFFERS as usize * BUFFER_SIZE;
const _: () = assert!(BUFFERS.is_power_of_two());

impl BufferRing {
    /// Maps the memory, registers it with `ring` and lists all buffers as free.
    pub(super) fn register(ring: &IoUring<squeue::Entry>) -> io::Result<Rc<Self>> {
        let pool = Rc::new(Self {
            entries: map(ENTRIES_BYTES)?.cast(),
            memory: map(MEMORY_BYTES)?,
            tail: Cell::new(0),
        });
        // SAFETY: the address is page-aligned and `ENTRIES_BYTES` long; `pool` owns it and stays in the
        // engine until the group is unregistered.
        unsafe {
            ring.submitter().register_buf_ring_with_flags(pool.entries.as_ptr() as u64, BUFFERS, GROUP, 0)
        }?;
        for id in 0..BUFFERS {
            pool.give_back(id);
        }
        Ok(pool)
    }

    /// The buffer that a completion named, as an owner that gives it back when dropped.
    pub(super) fn take(self: &Rc<Self>, id: u16, len: usize) -> RecvBuf {
        assert!(id < BUFFERS && len <= BUFFER_SIZE, "the kernel names a buffer of ours");
        RecvBuf { pool: Rc::clone(self), id, len }
    }

    fn buffer(&self, id: u16) -> NonNull<u8> {
        // SAFETY: `id < BUFFERS`, so the address lies in the mapping.
        unsafe { self.memory.add(usize::from(id) * BUFFER_SIZE) }
    }

    #[expect(clippy::cast_possible_truncation, reason = "BUFFER_SIZE is small")]
    fn give_back(&self, id: u16) {
        let tail = self.tail.get();
        let place = usize::from(tail & (BUFFERS - 1));
        // SAFETY: `place < BUFFERS`, so the address lies in the mapping.
        let mut entry = unsafe { self.entries.add(place) };
        // SAFETY: the place is above the kernel's head: at most BUFFERS are listed at once, for each is listed
        // only when it was not. The kernel reads it after the tail has moved.
        let entry = unsafe { entry.as_mut() };
        entry.set_addr(self.buffer(id).as_ptr() as u64);
        entry.set_len(BUFFER_SIZE as u32);
        entry.set_bid(id);
        self.tail.set(tail.wrapping_add(1));
        // SAFETY: `entries` is the base of the ring, as `tail` wants it.
        let shared = unsafe { BufRingEntry::tail(self.entries.as_ptr()) };
        // SAFETY: the tail is an aligned u16 inside our mapping that the kernel reads and we alone write.
        let shared = unsafe { AtomicU16::from_ptr(shared.cast_mut()) };
        shared.store(self.tail.get(), Ordering::Release);
    }
}

impl Drop for BufferRing {
    fn drop(&mut self) {
        for (base, len) in [(self.entries.cast(), ENTRIES_BYTES), (self.memory, MEMORY_BYTES)] {
            // SAFETY: our own mapping; the group was unregistered before and no `RecvBuf` is left.
            let unmapped = unsafe { rustix::mm::munmap(base.as_ptr().cast(), len) };
            debug_assert!(unmapped.is_ok(), "munmap of our own mapping");
        }
    }
}

fn map(len: usize) -> io::Result<NonNull<u8>> {
    // SAFETY: a fresh private mapping at an address of the kernel's choice; the caller owns it.
    let base = unsafe {
        rustix::mm::mmap_anonymous(
            std::ptr::null_mut(),
            len,
            ProtFlags::READ | ProtFlags::WRITE,
            MapFlags::PRIVATE,
        )
    }?;
    Ok(NonNull::new(base.cast()).expect("mmap gives no null"))
}

/// Received bytes; dropping them gives the buffer back to the kernel.
#[derive(Debug)]
pub struct RecvBuf {
    pool: Rc<BufferRing>,
    id: u16,
    len: usize,
}

impl Deref for RecvBuf {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        // SAFETY: the kernel filled `len` bytes and does not touch the buffer until it is listed again,
        // which only our drop does.
        unsafe { std::slice::from_raw_parts(self.pool.buffer(self.id).as_ptr(), self.len) }
    }
}

impl Drop for RecvBuf {
    fn drop(&mut self) {
        self.pool.give_back(self.id);
    }
}
