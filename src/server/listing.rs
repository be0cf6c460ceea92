//! A listing that is asked for often and is costly to make: the control thread makes it, the loops read it.
//!
//! A loop never makes it. Asking for it says that it is wanted; the control thread makes a new one if the last one is
//! old enough, and tells the loops ([`super::shared::Message::Listed`]): requests that got none wait there. While there
//! are no requests nothing is made.

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
    /// The shortest time between two.
    rest: Millis,
    /// An older one is not given out.
    life: Millis,
}

#[derive(Debug)]
struct Made {
    /// When looking began: nothing that came later is in it.
    at: Millis,
    json: Bytes,
}

impl Listing {
    /// None is made yet. While it is asked for one is made every `rest`; none is given out that is older than `life`.
    pub const fn new(rest: Millis, life: Millis) -> Self {
        assert!(rest < life);
        Self { newest: ArcSwapOption::const_empty(), wanted: Notify::const_new(), rest, life }
    }

    /// The listing, if there is one that is young enough. If not, one is being made now: ask again when told so.
    pub fn fresh(&self, now: Millis) -> Option<Bytes> {
        if self.rest_left(now) == 0 {
            self.wanted.notify_one();
        }
        self.young(now)
    }

    /// The same, without a word that it is wanted: for the thread that makes it.
    pub fn young(&self, now: Millis) -> Option<Bytes> {
        let newest = self.newest.load();
        let made = newest.as_ref().filter(|made| now.saturating_sub(made.at) <= self.life);
        made.map(|made| Bytes::clone(&made.json))
    }

    /// The newest one, however old.
    pub fn newest(&self) -> Option<Bytes> {
        self.newest.load().as_ref().map(|made| Bytes::clone(&made.json))
    }

    /// Waits until it is asked for while the newest one is old. One waits at a time: the control thread.
    pub async fn until_wanted(&self) {
        self.wanted.notified().await;
    }

    /// How long until the next one may be made.
    pub fn rest_left(&self, now: Millis) -> Millis {
        let newest = self.newest.load();
        newest.as_ref().map_or(0, |made| (made.at + self.rest).saturating_sub(now))
    }

    /// Gives a new one out; `at` is when looking began.
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
    fn it_is_made_while_it_is_asked_for_and_never_served_old() {
        let listing = Listing::new(250, 1_000);
        assert!(!is_wanted(&listing));
        assert_eq!((listing.fresh(0), listing.newest()), (None, None), "the first answer is not a guess");
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
