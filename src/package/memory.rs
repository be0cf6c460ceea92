//! The memory of packaged files: how much it is, and buffers to be used again.
//!
//! A segment's bytes are written once, read for some seconds and dropped. Memory that is fresh from the system costs a
//! page fault for every 4 KiB, so the buffers of dropped segments are kept for the next ones.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;

/// Smaller buffers are not kept: the allocator has these at hand.
const KEPT_MIN: usize = 128 << 10;
/// Spare buffers have at most this part (a quarter) of the bytes in use.
const SPARE: u64 = 4;
/// A new buffer is that much longer than what is expected in it (an eighth): most segments then never outgrow it.
const SLACK: usize = 8;

/// The memory of all packaged files of a process.
#[derive(Clone, Debug, Default)]
pub struct Memory(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    /// Bytes in use.
    used: AtomicU64,
    /// Bytes of empty buffers.
    spare: AtomicU64,
    /// Empty buffers, the oldest first.
    buffers: Mutex<Vec<Vec<u8>>>,
}

impl Memory {
    /// Bytes at present, spare ones included.
    pub fn bytes(&self) -> u64 {
        self.used() + self.0.spare.load(Ordering::Relaxed)
    }

    /// Gives all spare buffers back to the system.
    pub fn release(&self) {
        let spare = self.with_spare(std::mem::take);
        drop(spare);
    }

    /// An empty buffer for about `len` bytes.
    pub(super) fn buffer(&self, len: usize) -> Vec<u8> {
        if len < KEPT_MIN {
            return Vec::new();
        }
        let fits = |buffer: &Vec<u8>| (len..2 * len).contains(&buffer.capacity());
        let found = self.with_spare(|spare| {
            let fitting = spare.iter().enumerate().filter(|(_, buffer)| fits(buffer));
            let (at, _) = fitting.max_by_key(|(_, buffer)| buffer.capacity())?;
            Some(spare.remove(at))
        });
        found.unwrap_or_else(|| Vec::with_capacity(len + len / SLACK))
    }

    /// Bytes that are counted until the last reader has dropped them.
    pub(super) fn keep(&self, mut bytes: Vec<u8>) -> Bytes {
        if bytes.capacity() < KEPT_MIN || bytes.len() < bytes.capacity() / 2 {
            bytes.shrink_to_fit();
        }
        let used = Used::new(self.clone(), bytes.capacity() as u64);
        Bytes::from_owner(Counted { bytes, used })
    }

    /// A count of bytes that are not in a file yet.
    pub(super) fn used_by(&self) -> Used {
        Used::new(self.clone(), 0)
    }

    fn used(&self) -> u64 {
        self.0.used.load(Ordering::Relaxed)
    }

    fn with_spare<T>(&self, act: impl FnOnce(&mut Vec<Vec<u8>>) -> T) -> T {
        let mut buffers = self.0.buffers.lock().unwrap_or_else(PoisonError::into_inner);
        let done = act(&mut buffers);
        self.0.spare.store(size(&buffers), Ordering::Relaxed);
        done
    }

    /// Keeps a buffer that nobody reads any more, and drops the oldest ones that are too many.
    fn put_back(&self, mut buffer: Vec<u8>) {
        buffer.clear();
        let max = self.used() / SPARE;
        let surplus = self.with_spare(|spare| {
            if buffer.capacity() >= KEPT_MIN {
                spare.push(buffer);
            }
            let mut bytes = size(spare);
            let too_many = spare.iter().take_while(|oldest| {
                let is_surplus = bytes > max;
                bytes -= oldest.capacity() as u64;
                is_surplus
            });
            let too_many = too_many.count();
            spare.drain(..too_many).collect::<Vec<_>>()
        });
        drop(surplus); // without the lock
    }
}

fn size(buffers: &[Vec<u8>]) -> u64 {
    buffers.iter().map(|buffer| buffer.capacity() as u64).sum()
}

/// Bytes that are counted until this is dropped.
#[derive(Debug)]
pub(super) struct Used {
    memory: Memory,
    bytes: u64,
}

impl Used {
    fn new(memory: Memory, bytes: u64) -> Self {
        memory.0.used.fetch_add(bytes, Ordering::Relaxed);
        Self { memory, bytes }
    }

    /// There are so many now.
    pub(super) fn set(&mut self, bytes: u64) {
        self.memory.0.used.fetch_add(bytes, Ordering::Relaxed);
        self.memory.0.used.fetch_sub(std::mem::replace(&mut self.bytes, bytes), Ordering::Relaxed);
    }
}

impl Drop for Used {
    fn drop(&mut self) {
        self.set(0);
    }
}

/// The bytes of a file.
#[derive(Debug)]
struct Counted {
    bytes: Vec<u8>,
    used: Used,
}

impl AsRef<[u8]> for Counted {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.used.set(0);
        self.used.memory.put_back(std::mem::take(&mut self.bytes));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: usize = 1 << 20;

    #[test]
    fn buffers_of_dropped_files_are_used_again() {
        let memory = Memory::default();
        let files: Vec<Bytes> = (0..8).map(|_| memory.keep(vec![1; 2 * MIB])).collect();
        let other = memory.keep(vec![2; 2 * MIB]);
        let place = other.as_ptr();
        drop(other);
        assert_eq!(memory.bytes(), 9 * 2 * MIB as u64, "a spare buffer counts");
        let again = memory.buffer(3 * MIB / 2);
        assert_eq!((again.as_ptr(), again.len()), (place, 0));
        assert_eq!(memory.bytes(), 8 * 2 * MIB as u64);
        drop(files);
        assert_eq!(memory.bytes(), 0, "nothing is in use: nothing is spare");
    }

    #[test]
    fn only_what_fits_is_used_again_and_no_more_than_a_part_is_spare() {
        let memory = Memory::default();
        let files: Vec<Bytes> = (0..16).map(|_| memory.keep(vec![1; MIB])).collect();
        (0..16).for_each(|_| drop(memory.keep(vec![1; MIB])));
        assert_eq!(memory.bytes(), 20 * MIB as u64);
        assert!(memory.buffer(8 * MIB).capacity() >= 8 * MIB);
        assert!(memory.buffer(MIB / 4).capacity() < MIB / 2);
        assert_eq!(memory.bytes(), 20 * MIB as u64, "none of the spare ones fits");
        memory.release();
        assert_eq!(memory.bytes(), 16 * MIB as u64);
        drop(files);
    }

    #[test]
    fn short_files_take_no_more_memory_than_they_need() {
        let memory = Memory::default();
        let mut short = Vec::with_capacity(MIB);
        short.extend_from_slice(&[3; 1000]);
        let short = memory.keep(short);
        assert_eq!((memory.bytes(), short.len()), (1000, 1000));
    }
}
