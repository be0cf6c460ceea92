//! Receive buffers that the kernel picks from a ring of them (`IORING_REGISTER_PBUF_RING`).
//!
//! A loop starts with few buffers, so that they stay in the cache: the kernel uses all listed buffers in turn.
//! When they run out, as many again are added, up to a limit; receives that still find none wait until a buffer
//! is returned.

use std::cell::Cell;
use std::io;
use std::ops::Deref;
use std::ptr::NonNull;
use std::rc::Rc;
use std::sync::atomic::{AtomicU16, Ordering};

use io_uring::types::BufRingEntry;
use io_uring::{IoUring, squeue};
use rustix::mm::{MapFlags, ProtFlags};

/// Bytes of a receive buffer: most frames of a 4 Mbps stream fit into two.
pub(super) const BUFFER_SIZE: usize = 16 << 10;
/// Buffers that are added at a time.
const BATCH: u16 = 256;
/// The most batches: 16 MiB a loop.
const BATCHES: u16 = 4;
/// The most buffers of a loop; a power of two, as the list has a place for each.
pub(super) const BUFFERS_MAX: u16 = BATCH * BATCHES;
/// The group's number on the ring; there is one.
pub(super) const GROUP: u16 = 0;

/// The memory of the buffers and of the ring that lists the free ones.
///
/// Owner: the [`super::ring::Uring`] and every [`RecvBuf`] in use, through `Rc`. The kernel uses all mappings
/// until the group is unregistered, which the engine's drop does before it releases them.
#[derive(Debug)]
pub(super) struct BufferRing {
    entries: NonNull<BufRingEntry>,
    /// Each is a mapping of `BATCH` buffers, made when needed and kept to the end.
    batches: [Cell<Option<NonNull<u8>>>; BATCHES as usize],
    tail: Cell<u16>,
}

/// Bytes of the list, which the kernel counts as locked memory.
pub(super) const LIST_BYTES: usize = BUFFERS_MAX as usize * size_of::<BufRingEntry>();
const BATCH_BYTES: usize = BATCH as usize * BUFFER_SIZE;
const _: () = assert!(BUFFERS_MAX.is_power_of_two());

impl BufferRing {
    /// Maps the memory of the list.
    pub(super) fn new() -> io::Result<Rc<Self>> {
        let entries = map(LIST_BYTES)?.cast();
        Ok(Rc::new(Self { entries, batches: Default::default(), tail: Cell::new(0) }))
    }

    /// Registers the list with `ring`; buffers added by [`grow`](Self::grow) are listed as free.
    pub(super) fn register(&self, ring: &IoUring<squeue::Entry>) -> io::Result<()> {
        let list = self.entries.as_ptr() as u64;
        // SAFETY: the address is page-aligned and `LIST_BYTES` long; `self` owns it and stays in the engine until
        // the group is unregistered.
        unsafe { ring.submitter().register_buf_ring_with_flags(list, BUFFERS_MAX, GROUP, 0) }
    }

    /// Adds a batch of buffers; `false` if the limit is reached or there is no memory for them.
    pub(super) fn grow(&self) -> bool {
        let Some(next) = self.batches.iter().position(|batch| batch.get().is_none()) else { return false };
        let Ok(memory) = map(BATCH_BYTES) else { return false };
        self.batches[next].set(Some(memory));
        #[expect(clippy::cast_possible_truncation, reason = "one of BATCHES")]
        let first = next as u16 * BATCH;
        (first..first + BATCH).for_each(|id| self.give_back(id));
        true
    }

    /// How many buffers there are.
    pub(super) fn buffers(&self) -> u16 {
        self.batches.iter().filter(|batch| batch.get().is_some()).map(|_| BATCH).sum()
    }

    /// The buffer that a completion named, owned by a value that returns it when dropped.
    pub(super) fn take(self: &Rc<Self>, id: u16, len: usize) -> RecvBuf {
        assert!(id < self.buffers() && len <= BUFFER_SIZE, "the kernel names one of our buffers");
        RecvBuf { pool: Rc::clone(self), id, len }
    }

    fn buffer(&self, id: u16) -> NonNull<u8> {
        let batch = self.batches[usize::from(id / BATCH)].get().expect("a buffer of a mapped batch");
        // SAFETY: the place within its batch is below `BATCH`, so the address lies in the mapping.
        unsafe { batch.add(usize::from(id % BATCH) * BUFFER_SIZE) }
    }

    #[expect(clippy::cast_possible_truncation, reason = "BUFFER_SIZE is small")]
    fn give_back(&self, id: u16) {
        let tail = self.tail.get();
        let place = usize::from(tail & (BUFFERS_MAX - 1));
        // SAFETY: `place < BUFFERS_MAX`, so the address lies in the mapping.
        let mut entry = unsafe { self.entries.add(place) };
        // SAFETY: the place is above the kernel's head: at most BUFFERS_MAX are listed at once, since a buffer
        // is listed only while it is not listed already. The kernel reads the entry after the tail has moved.
        let entry = unsafe { entry.as_mut() };
        entry.set_addr(self.buffer(id).as_ptr() as u64);
        entry.set_len(BUFFER_SIZE as u32);
        entry.set_bid(id);
        self.tail.set(tail.wrapping_add(1));
        // SAFETY: `entries` is the base of the ring, as `tail` requires.
        let shared = unsafe { BufRingEntry::tail(self.entries.as_ptr()) };
        // SAFETY: the tail is an aligned u16 inside our mapping that the kernel reads and only we write.
        let shared = unsafe { AtomicU16::from_ptr(shared.cast_mut()) };
        shared.store(self.tail.get(), Ordering::Release);
    }
}

impl Drop for BufferRing {
    fn drop(&mut self) {
        let batches = self.batches.iter().filter_map(Cell::get).map(|batch| (batch, BATCH_BYTES));
        for (base, len) in batches.chain([(self.entries.cast(), LIST_BYTES)]) {
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
        // SAFETY: the kernel filled `len` bytes and does not touch the buffer until it is listed again, which
        // only our drop does.
        unsafe { std::slice::from_raw_parts(self.pool.buffer(self.id).as_ptr(), self.len) }
    }
}

impl Drop for RecvBuf {
    fn drop(&mut self) {
        self.pool.give_back(self.id);
    }
}
