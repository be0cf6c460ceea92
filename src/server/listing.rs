//! A listing that is requested often and costly to make: the control thread makes it, the loops read it.
//!
//! A loop never makes one. Asking for it marks it as wanted; the control thread then makes a new one if the
//! last one is old enough, and notifies the loops ([`super::shared::Message::Listed`]), where requests without
//! a listing wait. Without requests none is made.

use std::sync::Arc;

use arc_swap::ArcSwapOption;
use bytes::Bytes;
use tokio::sync::Notify;

use crate::uring::Millis;

/// A listing as JSON, and how old it may be.
#[derive(Debug)]
pub struct Listing {
    newest: ArcSwapOption<Made>,
    wanted: Notify,
    /// The shortest time between two listings.
    rest: Millis,
    /// A listing older than this is not given out.
    life: Millis,
}

#[derive(Debug)]
struct Made {
    /// When reading began: nothing that came later is in it.
    at: Millis,
    json: Bytes,
}

impl Listing {
    /// An empty listing. While it is asked for, one is made every `rest`; none older than `life` is given out.
    pub const fn new(rest: Millis, life: Millis) -> Self {
        assert!(rest < life);
        Self { newest: ArcSwapOption::const_empty(), wanted: Notify::const_new(), rest, life }
    }

    /// The listing, if it is fresh enough. If not, a new one is being made: the caller asks again on
    /// [`super::shared::Message::Listed`].
    pub fn fresh(&self, now: Millis) -> Option<Bytes> {
        if self.rest_left(now) == 0 {
            self.wanted.notify_one();
        }
        self.young(now)
    }

    /// The same, without marking it as wanted: for the thread that makes it.
    pub fn young(&self, now: Millis) -> Option<Bytes> {
        let newest = self.newest.load();
        let made = newest.as_ref().filter(|made| now.saturating_sub(made.at) <= self.life);
        made.map(|made| Bytes::clone(&made.json))
    }

    /// The newest listing, however old.
    pub fn newest(&self) -> Option<Bytes> {
        self.newest.load().as_ref().map(|made| Bytes::clone(&made.json))
    }

    /// Waits until a listing is asked for while the newest one is old. Only one task may wait: that of the
    /// control thread.
    pub async fn until_wanted(&self) {
        self.wanted.notified().await;
    }

    /// How long until the next listing may be made.
    pub fn rest_left(&self, now: Millis) -> Millis {
        let newest = self.newest.load();
        newest.as_ref().map_or(0, |made| (made.at + self.rest).saturating_sub(now))
    }

    /// Stores a new listing; `at` is when reading began.
    pub fn store(&self, at: Millis, json: Bytes) {
        self.newest.store(Some(Arc::new(Made { at, json })));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_wanted(listing: &Listing) -> bool {
        let mut wanted = std::pin::pin!(listing.until_wanted());
        let mut context = std::task::Context::from_waker(std::task::Waker::noop());
        wanted.as_mut().poll(&mut context).is_ready()
    }

    #[test]
    fn it_is_made_only_on_demand_and_never_served_old() {
        let listing = Listing::new(250, 1_000);
        assert!(!is_wanted(&listing));
        assert_eq!(
            (listing.fresh(0), listing.newest()),
            (None, None),
            "nothing is made before the first request"
        );
        assert!(is_wanted(&listing) && !is_wanted(&listing), "once");
        listing.store(10, Bytes::from_static(b"one"));
        assert_eq!(listing.fresh(100).as_deref(), Some(&b"one"[..]));
        assert!(!is_wanted(&listing), "it is young");
        assert_eq!(listing.rest_left(100), 160);
        assert_eq!(listing.fresh(260).as_deref(), Some(&b"one"[..]));
        assert!(is_wanted(&listing));
        assert_eq!(listing.rest_left(260), 0);
        assert!(
            listing.fresh(1_010).is_some() && listing.fresh(1_011).is_none(),
            "after a pause it is made first"
        );
        assert!(is_wanted(&listing));
        assert!(listing.newest().is_some());
        listing.store(1_020, Bytes::from_static(b"two"));
        assert_eq!(listing.fresh(1_000).as_deref(), Some(&b"two"[..]), "a loop's clock may be older");
    }
}
