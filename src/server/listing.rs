//! A listing that is requested often and costly to make: the control thread makes it, the loops read it.
//!
//! A loop never makes one. Asking for it marks it as wanted; the control thread then makes a new one if the
//! last one is old enough, and notifies the loops ([`super::shared::Message::Listed`]), where requests without
//! a listing wait. Without requests none is made.

use std::ops::Range;
use std::sync::Arc;

use arc_swap::ArcSwapOption;
use bytes::Bytes;
use tokio::sync::Notify;

use crate::access::Streams;
use crate::uring::Millis;

/// A listing as JSON: whole, and by its entries, so that a client can get some of them alone.
#[derive(Clone, Debug)]
pub struct Listed(Arc<Parts>);

#[derive(Debug)]
struct Parts {
    whole: Bytes,
    /// The stream of each entry, and its place in `whole`.
    entries: Vec<(String, Range<usize>)>,
    /// What stands before and after some of the entries.
    some: (String, String),
}

impl Listed {
    /// Between `all.0` and `all.1` stand the entries, each with its stream. For a client that may not see all of them,
    /// some stand between `some.0` and `some.1`, in which `{total}` is replaced by their number.
    pub fn new(all: (&str, &str), entries: Vec<(String, String)>, some: (&str, &str)) -> Self {
        let mut whole = all.0.to_owned();
        let mut places = Vec::with_capacity(entries.len());
        for (stream, json) in entries {
            if !places.is_empty() {
                whole.push(',');
            }
            let start = whole.len();
            whole.push_str(&json);
            places.push((stream, start..whole.len()));
        }
        whole.push_str(all.1);
        let some = (some.0.to_owned(), some.1.to_owned());
        Self(Arc::new(Parts { whole: whole.into(), entries: places, some }))
    }

    /// The whole listing.
    pub fn whole(&self) -> Bytes {
        Bytes::clone(&self.0.whole)
    }

    /// The listing for a client that may see these streams.
    pub fn of(&self, streams: &Streams) -> Bytes {
        let Parts { whole, entries, some: (front, back) } = &*self.0;
        if *streams == Streams::All {
            return Bytes::clone(whole);
        }
        let mut seen = front.clone().into_bytes();
        let mut total = 0;
        for (_, place) in entries.iter().filter(|(stream, _)| streams.contain(stream)) {
            if total > 0 {
                seen.push(b',');
            }
            total += 1;
            seen.extend_from_slice(&whole[place.clone()]);
        }
        seen.extend_from_slice(back.replace("{total}", &total.to_string()).as_bytes());
        seen.into()
    }
}

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
    listed: Listed,
}

impl Listing {
    /// An empty listing. While it is asked for, one is made every `rest`; none older than `life` is given out.
    pub const fn new(rest: Millis, life: Millis) -> Self {
        assert!(rest < life);
        Self { newest: ArcSwapOption::const_empty(), wanted: Notify::const_new(), rest, life }
    }

    /// The listing, if it is fresh enough. If not, a new one is being made: the caller asks again on
    /// [`super::shared::Message::Listed`].
    pub fn fresh(&self, now: Millis) -> Option<Listed> {
        if self.rest_left(now) == 0 {
            self.wanted.notify_one();
        }
        self.young(now)
    }

    /// The same, without marking it as wanted: for the thread that makes it.
    pub fn young(&self, now: Millis) -> Option<Listed> {
        let newest = self.newest.load();
        let made = newest.as_ref().filter(|made| now.saturating_sub(made.at) <= self.life);
        made.map(|made| made.listed.clone())
    }

    /// The newest listing, however old.
    pub fn newest(&self) -> Option<Listed> {
        self.newest.load().as_ref().map(|made| made.listed.clone())
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
    pub fn store(&self, at: Millis, listed: Listed) {
        self.newest.store(Some(Arc::new(Made { at, listed })));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::access::Pattern;

    fn listed(text: &str) -> Listed {
        Listed::new((text, ""), Vec::new(), ("", ""))
    }

    #[test]
    fn a_client_sees_its_own_streams_alone() {
        let entries =
            ["live/a", "live/b", "other/a"].map(|name| (name.to_owned(), format!("{{\"key\":\"{name}\"}}")));
        let listed = Listed::new(
            ("{\"secret\":1,\"streams\":[", "],\"more\":2}"),
            entries.into(),
            ("{\"streams\":[", "],\"total\":{total}}"),
        );
        let seen = |streams: &Streams| {
            let json: serde_json::Value = serde_json::from_slice(&listed.of(streams)).unwrap();
            let keys = json["streams"]
                .as_array()
                .unwrap()
                .iter()
                .map(|entry| entry["key"].as_str().unwrap().to_owned());
            (keys.collect::<Vec<_>>().join(" "), json["total"].as_u64(), json["secret"].as_u64())
        };
        let some = |pattern| Streams::Some(vec![Pattern::new(pattern)]);
        assert_eq!(seen(&Streams::All), ("live/a live/b other/a".to_owned(), None, Some(1)));
        assert_eq!(seen(&some("live/*")), ("live/a live/b".to_owned(), Some(2), None));
        assert_eq!(seen(&some("other/a")), ("other/a".to_owned(), Some(1), None));
        assert_eq!(seen(&Streams::Some(Vec::new())), (String::new(), Some(0), None));
    }

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
            (listing.fresh(0).is_none(), listing.newest().is_none()),
            (true, true),
            "nothing is made before the first request"
        );
        assert!(is_wanted(&listing) && !is_wanted(&listing), "once");
        listing.store(10, listed("one"));
        assert_eq!(listing.fresh(100).unwrap().whole(), "one");
        assert!(!is_wanted(&listing), "it is young");
        assert_eq!(listing.rest_left(100), 160);
        assert_eq!(listing.fresh(260).unwrap().whole(), "one");
        assert!(is_wanted(&listing));
        assert_eq!(listing.rest_left(260), 0);
        assert!(
            listing.fresh(1_010).is_some() && listing.fresh(1_011).is_none(),
            "after a pause it is made first"
        );
        assert!(is_wanted(&listing));
        assert!(listing.newest().is_some());
        listing.store(1_020, listed("two"));
        assert_eq!(listing.fresh(1_000).unwrap().whole(), "two", "a loop's clock may be older");
    }
}
