//! The rules of access of the running server: read at the start, and again when they change.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use arc_swap::ArcSwap;

use crate::access::load::{self, AccessError};
use crate::access::sessions::Sessions;
use crate::access::token::{SigningKey, TokenError, has_form};
use crate::access::{Access, Action, Asker, Denied, Grant};
use crate::config::{Auth, Limits};
use crate::protocol::http::request::Request;

/// Fields by which proxies tell that they have forwarded a request.
const FORWARDED: [&str; 10] = [
    "forwarded",
    "via",
    "x-forwarded-for",
    "x-forwarded-host",
    "x-forwarded-proto",
    "x-forwarded-server",
    "x-real-ip",
    "x-client-ip",
    "true-client-ip",
    "cf-connecting-ip",
];

/// See the module.
#[derive(Debug)]
pub struct Authority {
    rules: ArcSwap<Access>,
    /// Signs for this process; the same for as long as it runs.
    own: SigningKey,
    sessions: Sessions,
}

impl Authority {
    /// The rules of a configuration.
    ///
    /// # Errors
    /// [`AccessError`].
    pub fn load(auth: &Auth) -> Result<Self, AccessError> {
        let own = load::own_key();
        Ok(Self {
            rules: ArcSwap::from_pointee(load::access(auth, &own)?),
            own,
            sessions: Sessions::default(),
        })
    }

    /// Reads the rules again; if that fails, the present ones stay. Blocks.
    ///
    /// # Errors
    /// [`AccessError`].
    pub fn reload(&self, auth: &Auth) -> Result<(), AccessError> {
        self.rules.store(Arc::new(load::access(auth, &self.own)?));
        Ok(())
    }

    /// Whether `asker` may do something with a stream. `lasting`: it asks again and again, and one that has begun with a
    /// token goes on when that has expired.
    pub(super) fn authorise(
        &self,
        (action, stream): (Action, &str),
        asker: &Asker<'_>,
        lasting: bool,
    ) -> Result<Grant, Denied> {
        let (rules, now) = (self.rules(), unix_time());
        let answer = rules.authorise(action, stream, asker, now);
        let Some(token) = asker.token.filter(|token| lasting && has_form(token)) else { return answer };
        match answer {
            Ok(_) => self.sessions.note(token, now),
            Err(Denied::Token(TokenError::Expired)) => {
                let Some(valid) = self.sessions.went_on(token, now) else { return answer };
                let grant = rules.authorise(action, stream, asker, valid)?;
                return if grant.end.is_some_and(|end| end <= now) { answer } else { Ok(grant) };
            }
            Err(_) => {}
        }
        answer
    }

    /// The rules as they are now.
    pub fn rules(&self) -> arc_swap::Guard<Arc<Access>> {
        self.rules.load()
    }
}

/// Seconds since 1970.
pub(super) fn unix_time() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO).as_secs()
}

/// The client that sent a request over a connection from `peer`.
pub(super) fn asker_of<'a>(limits: &Limits, peer: Option<IpAddr>, request: &'a Request) -> Asker<'a> {
    let forwarded = FORWARDED.iter().any(|name| request.headers.values(name).next().is_some());
    let believed = forwarded && peer.is_some_and(|peer| limits.is_trusted(peer));
    Asker {
        address: if believed { told_address(limits, request) } else { peer },
        forwarded: forwarded && !believed,
        host: request.header("host"),
        origin: request.header("origin"),
        token: request.token(),
    }
}

/// The client's address that a trusted proxy tells: the last one in `X-Forwarded-For` that is not another trusted
/// proxy, or `X-Real-IP`. `None` if there is none or the two differ, since a proxy that sets only one of them passes on
/// what the client has written in the other.
fn told_address(limits: &Limits, request: &Request) -> Option<IpAddr> {
    let parse =
        |text: &[u8]| std::str::from_utf8(text).ok()?.trim().parse().ok().map(|ip: IpAddr| ip.to_canonical());
    let lists: Vec<&[u8]> = request.headers.values("x-forwarded-for").collect();
    let hops = lists.iter().rev().flat_map(|list| list.rsplit(|byte| *byte == b',')).map(parse);
    let mut hops = hops.skip_while(|hop| hop.is_some_and(|hop| limits.is_trusted(hop)));
    let real = request.headers.values("x-real-ip").next().map(parse);
    match (hops.next(), real) {
        (Some(told), None) | (None, Some(told)) => told,
        (Some(told), Some(real)) if told == real => told,
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::http::request::{RequestLimits, RequestReader};

    fn told(peer: &str, fields: &str) -> (Option<IpAddr>, bool) {
        let limits = Limits { trusted: vec!["10.0.0.0/8".parse().unwrap()], ..Limits::default() };
        let text = format!("GET / HTTP/1.1\r\nHost: x\r\n{fields}\r\n");
        let request = RequestReader::new(RequestLimits::new(4096)).push(text.as_bytes()).unwrap().unwrap();
        let asker = asker_of(&limits, peer.parse().ok(), &request);
        (asker.address, asker.forwarded)
    }

    #[test]
    fn only_a_trusted_proxy_is_believed() {
        let ip = |text: &str| text.parse::<IpAddr>().ok();
        assert_eq!(told("127.0.0.1", ""), (ip("127.0.0.1"), false));
        for field in FORWARDED {
            let fields = format!("{field}: 1.2.3.4\r\n");
            assert_eq!(told("127.0.0.1", &fields), (ip("127.0.0.1"), true), "{field}");
        }
        assert_eq!(
            told("10.0.0.1", "X-Forwarded-For: 127.0.0.1, 1.2.3.4, 10.9.9.9\r\n"),
            (ip("1.2.3.4"), false)
        );
        assert_eq!(
            told("10.0.0.1", "X-Forwarded-For: 6.6.6.6\r\nX-Forwarded-For: 1.2.3.4\r\n"),
            (ip("1.2.3.4"), false)
        );
        assert_eq!(told("10.0.0.1", "X-Real-IP: ::ffff:1.2.3.4\r\n"), (ip("1.2.3.4"), false));
        let both = |one: &str, other: &str| format!("X-Forwarded-For: {one}\r\nX-Real-IP: {other}\r\n");
        assert_eq!(told("10.0.0.1", &both("1.2.3.4", "1.2.3.4")), (ip("1.2.3.4"), false));
        assert_eq!(told("10.0.0.1", &both("1.2.3.4", "127.0.0.1")), (None, false));
        for unknown in [
            "Via: 1.1 x\r\n",
            "X-Forwarded-For: unknown\r\n",
            "X-Forwarded-For: \r\n",
            "X-Forwarded-For: 10.1.1.1\r\n",
        ] {
            assert_eq!(told("10.0.0.1", unknown), (None, false), "{unknown}");
        }
    }
}
