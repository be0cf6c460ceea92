//! Connections of our own making that are lost and made again: pulls and relays.

use std::net::SocketAddr;

use crate::uring::Millis;

/// The head of an answer, in bytes.
pub(super) const ANSWER_HEAD_MAX: usize = 16 << 10;

/// The pauses between tries: each twice as long as the one before it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Backoff {
    /// Behind the first failure.
    pub(super) first: Millis,
    pub(super) longest: Millis,
}

impl Backoff {
    /// The pause behind a failure before which there were so many in a row.
    pub(super) fn pause(self, failures: u32) -> Millis {
        self.first.saturating_mul(1 << failures.min(32)).min(self.longest)
    }
}

/// The address for a round of tries: a name may have some that do not answer, like `localhost` the one of
/// IPv6.
pub(super) fn address(addresses: &[SocketAddr], round: usize) -> Option<SocketAddr> {
    addresses.get(round % addresses.len().max(1)).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_to_the_longest_and_stay_there() {
        let backoff = Backoff { first: 500, longest: 5_000 };
        let pauses: Vec<Millis> = (0..5).map(|failures| backoff.pause(failures)).collect();
        assert_eq!(pauses, [500, 1_000, 2_000, 4_000, 5_000]);
        assert!((5..200).chain([u32::MAX]).all(|failures| backoff.pause(failures) == 5_000));
    }

    #[test]
    fn each_round_tries_another_address() {
        let addresses: Vec<SocketAddr> = ["[::1]:1", "127.0.0.1:1"].map(|text| text.parse().unwrap()).into();
        let tried: Vec<_> = (0..3).map(|round| address(&addresses, round).unwrap()).collect();
        assert_eq!(tried, [addresses[0], addresses[1], addresses[0]]);
        assert_eq!(address(&[], 7), None);
    }
}
