//! When the viewers of a view are served: each once per window, spread over it.
//!
//! A walk visits all members of a view in slices. The slices are spread over the window, so that the loop's
//! work is even and new viewers do not have to wait for a large number of others. A member is visited at about
//! the same point of each window, so that it is served once per window and its sends stay large.

use std::ops::Range;

use crate::uring::Millis;

/// One pass over the members of a view.
#[derive(Clone, Copy, Debug)]
pub(in crate::server) struct Walk {
    /// When its first slice is due.
    starts: Millis,
    /// The time over which its slices are spread.
    window: Millis,
    /// The number of members that have been visited.
    passed: usize,
    slices_done: u64,
    /// Estimated at the start: members come and go meanwhile.
    slices: u64,
    /// New data came after it had begun: the members that were visited before are due again.
    again: bool,
}

impl Walk {
    /// A walk that begins at `starts`.
    pub(in crate::server) fn new(starts: Millis, window: Millis) -> Self {
        Self { starts, window, passed: 0, slices_done: 0, slices: 1, again: false }
    }

    /// Whether some members have been visited.
    pub(in crate::server) fn has_begun(&self) -> bool {
        self.slices_done > 0
    }

    /// When the next slice is due.
    pub(in crate::server) fn due(&self) -> Millis {
        self.starts + self.window * self.slices_done / self.slices
    }

    /// The next slice, of at most `slice` of `members` members.
    pub(in crate::server) fn next_slice(&mut self, members: usize, slice: usize) -> Range<usize> {
        if !self.has_begun() {
            self.slices = members.div_ceil(slice).max(1) as u64;
        }
        let from = self.passed.min(members);
        self.passed = members.min(from + slice);
        self.slices_done += 1;
        from..self.passed
    }

    /// Whether all of `members` members have been visited.
    pub(in crate::server) fn is_over(&self, members: usize) -> bool {
        self.has_begun() && self.passed >= members
    }

    /// There is more to send.
    pub(in crate::server) fn news(&mut self) {
        self.again |= self.has_begun();
    }

    /// The member at `from` took the place `to` of one that left: this walk may miss it.
    pub(in crate::server) fn moved(&mut self, from: usize, to: usize) {
        self.again |= self.has_begun() && to < self.passed && from >= self.passed;
    }

    /// Whether another walk is due after this one.
    pub(in crate::server) fn wants_another(&self) -> bool {
        self.again
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn slices_are_spread_over_the_window() {
        let mut walk = Walk::new(1000, 350);
        let mut seen = Vec::new();
        while !walk.is_over(1000) {
            let due = walk.due();
            seen.push((due, walk.next_slice(1000, 300)));
        }
        assert_eq!(seen, [(1000, 0..300), (1087, 300..600), (1175, 600..900), (1262, 900..1000)]);
    }

    #[test]
    fn news_counts_only_after_the_first_slice() {
        let mut walk = Walk::new(0, 0);
        walk.news();
        assert!(!walk.wants_another());
        walk.next_slice(10, 4);
        walk.news();
        assert!(walk.wants_another());
    }

    #[test]
    fn a_member_that_moves_behind_the_walk_is_visited_again() {
        for (from, to, again) in [(9, 3, true), (9, 5, false), (3, 1, false)] {
            let mut walk = Walk::new(0, 0);
            walk.moved(from, to);
            assert!(!walk.wants_another());
            walk.next_slice(10, 4);
            walk.moved(from, to);
            assert_eq!(walk.wants_another(), again, "{from} to {to}");
        }
    }

    proptest! {
        #[test]
        fn every_member_that_stays_is_passed_once(
            members in 0usize..2000, slice in 1usize..300, joins in prop::collection::vec(0usize..50, 0..20)
        ) {
            let mut walk = Walk::new(0, 100);
            let (mut members, mut next) = (members, 0);
            let mut joins = joins.into_iter();
            while !walk.is_over(members) {
                let range = walk.next_slice(members, slice);
                prop_assert_eq!(range.start, next);
                prop_assert!(range.len() <= slice);
                next = range.end;
                members += joins.next().unwrap_or(0);
            }
            prop_assert_eq!(next, members);
        }
    }
}
