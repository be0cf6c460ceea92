//! Segments that wait for the disk. The queue is bounded: packaging goes on whatever the disk does, and what the disk
//! cannot take in time is shed, the oldest first. Recording continues with a segment that can be decoded by itself.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::sync::Arc;

use tokio::sync::Notify;

use super::take::{About, WAITING_MAX};
use crate::package::segment::Segment;

/// Segments that may wait, whatever their bytes.
const SEGMENTS: usize = 8;
/// Segments that may wait while memory is short.
const SEGMENTS_SHORT: usize = 2;

/// What a writer does next.
#[derive(Debug)]
pub(super) enum Order {
    /// Write a segment. `gap`: the one before was shed.
    Segment { segment: Arc<Segment>, gap: bool },
    /// End the take, and begin this one with the next segment.
    Part(About),
}

/// The orders of one writer.
#[derive(Debug, Default)]
pub(super) struct Pending {
    orders: RefCell<VecDeque<Order>>,
    /// Segments among them.
    segments: Cell<usize>,
    /// Bytes of these.
    bytes: Cell<u64>,
    /// The number of the segment that was put last.
    newest: Cell<Option<u64>>,
    /// With as many bytes, no more than [`SEGMENTS`] may wait.
    bytes_max: u64,
    /// Memory is short.
    short: Cell<bool>,
    /// The next segment follows one that was shed.
    gap: Cell<bool>,
    closed: Cell<bool>,
    changed: Notify,
    taken: Notify,
}

impl Pending {
    /// Segments of so many bytes may wait.
    pub(super) fn new(bytes_max: u64) -> Self {
        Self { bytes_max, ..Self::default() }
    }

    /// Whether another segment would make an older one be shed.
    pub(super) fn is_full(&self) -> bool {
        let max = match self.short.get() {
            true => SEGMENTS_SHORT,
            false if self.bytes.get() < self.bytes_max => WAITING_MAX,
            false => SEGMENTS,
        };
        self.segments.get() >= max
    }

    fn came(&self, segment: &Segment) {
        self.segments.set(self.segments.get() + 1);
        self.bytes.set(self.bytes.get() + segment.len());
        assert!(self.segments.get() <= WAITING_MAX, "the queue is bounded");
    }

    fn left(&self, segment: &Segment) {
        let (segments, bytes) = (self.segments.get(), self.bytes.get());
        assert!(segments > 0 && bytes >= segment.len(), "only what came leaves");
        self.segments.set(segments - 1);
        self.bytes.set(bytes - segment.len());
        assert!(segments > 1 || self.bytes.get() == 0, "no segment has no bytes");
    }

    /// The counts are those of the queue, and its takes are not empty.
    fn check(&self) {
        if !cfg!(debug_assertions) {
            return;
        }
        let orders = self.orders.borrow();
        let waiting = orders.iter().filter_map(|order| match order {
            Order::Segment { segment, .. } => Some(segment),
            Order::Part(_) => None,
        });
        let (count, bytes) =
            waiting.clone().fold((0, 0), |(count, bytes), segment| (count + 1, bytes + segment.len()));
        assert_eq!((self.segments.get(), self.bytes.get()), (count, bytes), "the counts are right");
        assert!(waiting.is_sorted_by(|one, next| one.number < next.number), "numbers rise in the queue");
        let is_empty = |pair: (&Order, &Order)| matches!(pair, (Order::Part(_), Order::Part(_)));
        assert!(!orders.iter().zip(orders.iter().skip(1)).any(is_empty), "a take has a segment");
    }

    /// Sets whether memory is short.
    pub(super) fn set_short(&self, short: bool) {
        self.short.set(short);
    }

    /// Adds a segment; returns the bytes of those that were shed for it.
    pub(super) fn put(&self, segment: Arc<Segment>) -> u64 {
        assert!(!self.closed.get(), "nothing comes after the end");
        assert!(self.newest.get() < Some(segment.number), "numbers rise: {} comes", segment.number);
        self.newest.set(Some(segment.number));
        let mut shed = 0;
        while self.is_full() {
            assert!(self.segments.get() > 0, "a full queue has a segment to shed");
            shed += self.shed_oldest();
        }
        shed += self.add(segment);
        self.check();
        self.changed.notify_one();
        shed
    }

    /// The take ends after what was put. A take without a segment is not written.
    pub(super) fn part(&self, about: About) {
        let mut orders = self.orders.borrow_mut();
        if matches!(orders.back(), Some(Order::Part(_))) {
            orders.pop_back();
        }
        orders.push_back(Order::Part(about));
        drop(orders);
        self.check();
        self.changed.notify_one();
    }

    /// Nothing more is put.
    pub(super) fn close(&self) {
        self.closed.set(true);
        self.changed.notify_one();
    }

    /// Whether the newest segment that was put was shed.
    pub(super) fn ends_with_gap(&self) -> bool {
        self.gap.get()
    }

    /// Whether nothing more is put.
    pub(super) fn is_closed(&self) -> bool {
        self.closed.get()
    }

    /// The next order; `None`: there is none and none comes.
    pub(super) async fn next(&self) -> Option<Order> {
        loop {
            let changed = self.changed.notified();
            let first = self.orders.borrow_mut().pop_front();
            if let Some(order) = first {
                if let Order::Segment { segment, .. } = &order {
                    self.left(segment);
                    self.taken.notify_one();
                }
                self.check();
                return Some(order);
            }
            if self.closed.get() {
                return None;
            }
            changed.await;
        }
    }

    /// Waits until a segment is taken.
    pub(super) async fn taken(&self) {
        self.taken.notified().await;
    }

    /// A segment was shed that was next: returns the bytes of those that cannot be decoded without it.
    pub(super) fn restart(&self) -> u64 {
        self.gap.set(true);
        let shed = self.shed_dependent();
        self.check();
        shed
    }

    fn add(&self, segment: Arc<Segment>) -> u64 {
        // A gap is told to the oldest segment that waits.
        let gap = self.segments.get() == 0 && self.gap.get();
        if gap && segment.is_dependent() {
            return segment.len();
        }
        if gap {
            self.gap.set(false);
        }
        self.came(&segment);
        self.orders.borrow_mut().push_back(Order::Segment { segment, gap });
        0
    }

    fn shed_oldest(&self) -> u64 {
        let shed = self.remove_oldest();
        self.gap.set(true);
        shed + self.shed_dependent()
    }

    fn remove_oldest(&self) -> u64 {
        let mut orders = self.orders.borrow_mut();
        let oldest = orders.iter().position(|order| matches!(order, Order::Segment { .. }));
        let Some(at) = oldest else { return 0 };
        let Some(Order::Segment { segment, .. }) = orders.remove(at) else { return 0 };
        self.left(&segment);
        if at > 0 && matches!(orders.get(at), Some(Order::Part(_))) {
            orders.remove(at - 1); // its take has lost its only segment
        }
        segment.len()
    }

    /// After a gap: sheds what cannot be decoded, and marks the oldest segment that can.
    fn shed_dependent(&self) -> u64 {
        let mut shed = 0;
        loop {
            let dependent = match self.orders.borrow_mut().iter_mut().find_map(|order| match order {
                Order::Segment { segment, gap } => Some((segment, gap)),
                Order::Part(_) => None,
            }) {
                None => return shed,
                Some((segment, _)) if segment.is_dependent() => true,
                Some((_, gap)) => {
                    *gap = true;
                    false
                }
            };
            if !dependent {
                self.gap.set(false);
                return shed;
            }
            shed += self.remove_oldest();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::media::m3u8::Head;
    use crate::media::track::Tracks;
    use crate::package::memory::Memory;
    use crate::package::segment::{File, Piece};

    fn segment(number: u64, dependent: bool) -> Arc<Segment> {
        let head = Head { target: 5, sequence: number, discontinuities: 0 };
        let mut segment = Segment::new(head, false, 4_000, Tracks::default());
        let file = File::new(vec![0; 10], std::time::SystemTime::UNIX_EPOCH, &Memory::default());
        segment.pieces.push(Some(Piece {
            name: format!("segment_{number}.ts"),
            file,
            init: None,
            dependent,
        }));
        Arc::new(segment)
    }

    /// The numbers that a writer gets, with their gaps.
    fn drain(pending: &Pending) -> Vec<(u64, bool)> {
        pending.close();
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let mut all = Vec::new();
        while let Some(order) = runtime.block_on(pending.next()) {
            let Order::Segment { segment, gap } = order else { continue };
            all.push((segment.number, gap));
        }
        all
    }

    #[test]
    fn the_oldest_is_shed_and_what_depends_on_it() {
        let pending = Pending::default();
        let shed: u64 = (0..10).map(|n| pending.put(segment(n, n == 1 || n == 2))).sum();
        assert_eq!(shed, 30, "two are too many, and two depend on them");
        let want: Vec<_> = (3..10).map(|n| (n, n == 3)).collect();
        assert_eq!(drain(&pending), want);
    }

    #[test]
    fn after_a_gap_the_next_segment_begins_with_a_keyframe() {
        let pending = Pending::default();
        assert_eq!(pending.restart(), 0);
        let shed: Vec<_> = (0..4).map(|n| pending.put(segment(n, n < 2))).collect();
        assert_eq!(shed, [10, 10, 0, 0]);
        assert_eq!(drain(&pending), [(2, true), (3, false)]);
    }

    #[test]
    fn takes_without_segments_do_not_wait() {
        let pending = Pending::default();
        for n in 0..100 {
            pending.put(segment(n, false));
            pending.part(About { id: n.to_string(), ..About::default() });
            pending.part(About { id: format!("{n}b"), ..About::default() });
            assert!(pending.orders.borrow().len() <= 2 * SEGMENTS + 1);
        }
        let orders = pending.orders.take();
        let id = |order: &Order| match order {
            Order::Part(about) => Some(about.id.clone()),
            Order::Segment { .. } => None,
        };
        let want: Vec<String> = (91..100).map(|n| format!("{n}b")).collect();
        assert_eq!(orders.iter().filter_map(id).collect::<Vec<_>>(), want);
    }

    #[test]
    fn as_much_waits_as_bytes_allow() {
        let pending = Pending::new(100);
        assert_eq!((0..30).map(|n| pending.put(segment(n, false))).filter(|shed| *shed == 0).count(), 10);
        let want: Vec<_> = (20..30).map(|n| (n, n == 20)).collect();
        assert_eq!(drain(&pending), want);
        let pending = Pending::new(u64::MAX);
        let shed: u64 = (0..300).map(|n| pending.put(segment(n, false))).sum();
        assert_eq!(shed, 10 * (300 - WAITING_MAX as u64));
    }

    #[test]
    fn less_may_wait_while_memory_is_short() {
        let pending = Pending::default();
        (0..SEGMENTS as u64).for_each(|n| assert_eq!(pending.put(segment(n, false)), 0));
        pending.set_short(true);
        assert_eq!(pending.put(segment(8, false)), 70);
        assert_eq!(drain(&pending), [(7, true), (8, false)]);
    }
}
