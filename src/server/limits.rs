//! Limits per client address: concurrent connections, publishers and waits, and requests a second.
//!
//! All loops share the counts; they are checked when a connection or request comes or goes, never per tag. IPv6
//! addresses are counted by their /64. Loopback, private and trusted addresses are not limited, nor are viewers
//! of live streams.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard};

use crate::config;
use crate::uring::Millis;

/// Parts of the table, each with its own lock.
const SHARDS: usize = 32;
/// The most addresses that a part remembers. Further addresses are not limited, except by the limit of all
/// connections.
const ADDRESSES_MAX: usize = 1 << 14;

/// What is limited.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Connections that are not viewers.
    Connection,
    Publish,
    /// Requests that wait for a stream.
    Wait,
}

/// Why a peer is refused, for its answer and for the metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// The server has reached its limit of connections.
    #[error("the server is full")]
    Full,
    /// The memory budget does not admit another publisher, or what a connection would hold.
    #[error("the server's memory budget is used up")]
    Memory,
    /// The server has reached its limit of streams.
    #[error("the server has as many streams as it may")]
    Streams,
    /// The stream has as many viewers as it may have.
    #[error("the stream has as many viewers as it may have")]
    Viewers,
    /// What is sent of the stream has reached its limit.
    #[error("the stream is sent to as many viewers as limits.egress_per_stream allows")]
    StreamEgress,
    /// What the server sends has reached its limit.
    #[error("the server sends as much as it may; ask another one, or this one again soon")]
    Egress,
    /// A publisher exceeds its bit rate.
    #[error("more bits a second than a publisher may send")]
    Bitrate,
    /// The address has reached its limit of connections.
    #[error("too many connections from this address")]
    Connections,
    /// The address has reached its limit of publishers.
    #[error("too many publishers from this address")]
    Publishes,
    /// The address has reached its limit of waits.
    #[error("too many requests from this address wait for a stream")]
    Waits,
    /// The address has reached its limit of requests a second.
    #[error("too many requests a second from this address")]
    Requests,
    /// The app's name is reserved for the server's own paths.
    #[error("the app's name is reserved: hls, mp4, flv and api are paths of the server")]
    Reserved,
    /// It has no right to the stream.
    #[error("it has no right to the stream")]
    Unauthorised,
    /// The name is taken by another publisher.
    #[error("the stream name is taken by another publisher")]
    Taken,
}

impl Refused {
    /// All reasons.
    pub const EVERY: [Self; 14] = [
        Self::Full,
        Self::Memory,
        Self::Streams,
        Self::Viewers,
        Self::StreamEgress,
        Self::Egress,
        Self::Bitrate,
        Self::Connections,
        Self::Publishes,
        Self::Waits,
        Self::Requests,
        Self::Reserved,
        Self::Unauthorised,
        Self::Taken,
    ];

    /// Its value as a metric's label.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Full => "full",
            Self::Memory => "memory",
            Self::Streams => "streams",
            Self::Viewers => "stream-viewers",
            Self::StreamEgress => "stream-egress",
            Self::Egress => "egress",
            Self::Bitrate => "bitrate",
            Self::Connections => "address-connections",
            Self::Publishes => "address-publishes",
            Self::Waits => "address-waits",
            Self::Requests => "address-requests",
            Self::Reserved => "reserved-name",
            Self::Unauthorised => "unauthorised",
            Self::Taken => "name-taken",
        }
    }

    /// The HTTP status of the answer.
    pub(super) const fn status(self) -> u16 {
        match self {
            Self::Full | Self::Memory | Self::Streams => 503,
            Self::Viewers | Self::StreamEgress | Self::Egress => 503,
            Self::Bitrate | Self::Connections | Self::Publishes | Self::Waits | Self::Requests => 429,
            Self::Reserved => 400,
            Self::Unauthorised => 403,
            Self::Taken => 409,
        }
    }
}

#[derive(Debug, Default)]
struct Counts {
    connections: u32,
    publishes: u32,
    waits: u32,
    /// The second that is counted, and its number of requests.
    second: u64,
    requests: u32,
}

impl Counts {
    fn of(&mut self, kind: Kind) -> &mut u32 {
        match kind {
            Kind::Connection => &mut self.connections,
            Kind::Publish => &mut self.publishes,
            Kind::Wait => &mut self.waits,
        }
    }

    fn is_idle(&self) -> bool {
        self.connections == 0 && self.publishes == 0 && self.waits == 0
    }
}

/// See the module.
#[derive(Debug)]
pub(super) struct AddressLimits {
    config: config::Limits,
    hasher: RandomState,
    shards: [Mutex<HashMap<IpAddr, Counts>>; SHARDS],
}

/// One counted connection, publisher or wait; uncounted when dropped. Boxed, since most connections, established
/// viewers, have none.
#[derive(Debug)]
pub(super) struct Pass(#[expect(dead_code, reason = "only dropped")] Box<Counted>);

#[derive(Debug)]
struct Counted {
    limits: Arc<AddressLimits>,
    address: IpAddr,
    kind: Kind,
}

impl Drop for Counted {
    fn drop(&mut self) {
        let mut shard = self.limits.shard(self.address);
        let Some(counts) = shard.get_mut(&self.address) else { return };
        *counts.of(self.kind) -= 1;
        if counts.is_idle() {
            shard.remove(&self.address);
        }
    }
}

/// The address to count: for IPv6 the /64 network, since one client may have all of it.
pub(super) fn counted(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(address) => address.into(),
        IpAddr::V6(address) => {
            let network = u128::from(address) & !u128::from(u64::MAX);
            std::net::Ipv6Addr::from(network).into()
        }
    }
}

impl AddressLimits {
    pub(super) fn new(config: &config::Limits) -> Arc<Self> {
        let shards = std::array::from_fn(|_| Mutex::default());
        Arc::new(Self { config: config.clone(), hasher: RandomState::new(), shards })
    }

    fn shard(&self, address: IpAddr) -> MutexGuard<'_, HashMap<IpAddr, Counts>> {
        let place = self.hasher.hash_one(address) % SHARDS as u64;
        self.shards[usize::try_from(place).expect("below SHARDS")]
            .lock()
            .expect("no thread panics while it holds this lock")
    }

    /// Whether an address is exempt from the limits.
    pub(super) fn is_exempt(&self, address: Option<IpAddr>) -> bool {
        address.is_none_or(|address| self.config.is_exempt(address.to_canonical()))
    }

    /// Counts one more for an address; `None` for addresses that are not limited.
    ///
    /// # Errors
    /// [`Refused`] when the address has reached its limit.
    pub(super) fn enter(
        self: &Arc<Self>,
        kind: Kind,
        address: Option<IpAddr>,
    ) -> Result<Option<Pass>, Refused> {
        let (limit, refused) = match kind {
            Kind::Connection => (self.config.connections_per_address, Refused::Connections),
            Kind::Publish => (self.config.publishes_per_address, Refused::Publishes),
            Kind::Wait => (self.config.waits_per_address, Refused::Waits),
        };
        let Some(address) = address.filter(|_| limit > 0 && !self.is_exempt(address)) else {
            return Ok(None);
        };
        let address = counted(address);
        let mut shard = self.shard(address);
        if shard.len() >= ADDRESSES_MAX && !shard.contains_key(&address) {
            return Ok(None);
        }
        let count = shard.entry(address).or_default().of(kind);
        if *count as usize >= limit {
            return Err(refused);
        }
        *count += 1;
        drop(shard);
        Ok(Some(Pass(Box::new(Counted { limits: Arc::clone(self), address, kind }))))
    }

    /// Counts a request of an address.
    ///
    /// # Errors
    /// [`Refused::Requests`] when there were too many within this second.
    pub(super) fn request(&self, address: Option<IpAddr>, now: Millis) -> Result<(), Refused> {
        let limit = self.config.requests_per_address;
        let Some(address) = address.filter(|_| limit > 0 && !self.is_exempt(address)) else { return Ok(()) };
        let address = counted(address);
        let mut shard = self.shard(address);
        // An address without a connection is not in the table: it makes no requests.
        let Some(counts) = shard.get_mut(&address) else { return Ok(()) };
        let second = now / 1000;
        if counts.second != second {
            (counts.second, counts.requests) = (second, 0);
        }
        counts.requests += 1;
        if counts.requests as usize > limit { Err(Refused::Requests) } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limits() -> Arc<AddressLimits> {
        AddressLimits::new(&config::Limits {
            connections_per_address: 2,
            publishes_per_address: 1,
            waits_per_address: 0,
            requests_per_address: 3,
            ..config::Limits::default()
        })
    }

    fn address(text: &str) -> Option<IpAddr> {
        Some(text.parse().unwrap())
    }

    #[test]
    fn an_address_is_limited_at_a_time() {
        let limits = limits();
        let client = address("203.0.113.7");
        let first = limits.enter(Kind::Connection, client).unwrap();
        let second = limits.enter(Kind::Connection, client).unwrap();
        assert!(first.is_some() && second.is_some());
        assert_eq!(limits.enter(Kind::Connection, client).err(), Some(Refused::Connections));
        assert!(limits.enter(Kind::Connection, address("203.0.113.8")).unwrap().is_some());
        assert!(limits.enter(Kind::Publish, client).unwrap().is_some());
        assert!(limits.enter(Kind::Wait, client).unwrap().is_none(), "zero means no limit");
        drop(first);
        let third = limits.enter(Kind::Connection, client).unwrap();
        assert!(third.is_some());
        drop((second, third));
        assert!(
            limits.shards.iter().all(|shard| shard.lock().unwrap().is_empty()),
            "addresses without connections are forgotten"
        );
    }

    #[test]
    fn loopback_private_and_unknown_addresses_are_not_limited() {
        let limits = limits();
        for text in ["127.0.0.1", "10.1.2.3", "192.168.0.1", "::1", "fd00::1", "::ffff:127.0.0.1"] {
            assert!(limits.enter(Kind::Publish, address(text)).unwrap().is_none(), "{text}");
        }
        assert!(limits.enter(Kind::Publish, None).unwrap().is_none());
    }

    #[test]
    fn a_network_of_64_bits_is_one_client() {
        let limits = limits();
        let _one = limits.enter(Kind::Publish, address("2001:db8:1:2::1")).unwrap().unwrap();
        assert_eq!(
            limits.enter(Kind::Publish, address("2001:db8:1:2:ffff::9")).err(),
            Some(Refused::Publishes)
        );
        assert!(limits.enter(Kind::Publish, address("2001:db8:1:3::1")).unwrap().is_some());
    }

    #[test]
    fn requests_are_counted_by_the_second() {
        let limits = limits();
        let client = address("203.0.113.7");
        let _connection = limits.enter(Kind::Connection, client).unwrap();
        for _ in 0..3 {
            assert_eq!(limits.request(client, 1_999), Ok(()));
        }
        assert_eq!(limits.request(client, 1_999), Err(Refused::Requests));
        assert_eq!(limits.request(client, 2_000), Ok(()));
    }
}
