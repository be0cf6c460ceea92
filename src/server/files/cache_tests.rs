//! How places come and go, and who waits for what.

use super::*;

fn key(name: &str) -> Key {
    Key { role: 0, path: RelPath::parse(&format!("/{name}")).unwrap(), coding: None }
}

fn sock(index: u32) -> Sock {
    Sock { index, generation: 0 }
}

fn asker(index: u32) -> Asker {
    Asker { sock: sock(index), address: std::net::Ipv4Addr::LOCALHOST.into() }
}

fn look(cache: &mut Cache, name: &str, now: Millis) -> u64 {
    match cache.get(&key(name), asker(0), now) {
        Known::Look(ticket) => ticket,
        other => panic!("{other:?}"),
    }
}

#[test]
fn one_looks_and_the_others_wait() {
    let mut cache = Cache::new(10);
    let ticket = look(&mut cache, "a", 0);
    assert!(matches!(cache.get(&key("a"), asker(1), 0), Known::Wait(_)));
    assert!(matches!(cache.get(&key("a"), asker(2), 5), Known::Wait(_)));
    assert_eq!(cache.found(ticket, Finding::Missing, 10), [sock(0), sock(1), sock(2)]);
    assert!(matches!(cache.get(&key("a"), asker(1), 10 + MISSING_FRESH - 1), Known::Missing));
    assert!(matches!(cache.get(&key("a"), asker(1), 10 + MISSING_FRESH), Known::Look(_)));
}

#[test]
fn places_are_bounded_and_the_used_ones_stay() {
    let mut cache = Cache::new(10);
    for round in 0..100 {
        let now = round * 10;
        let ticket = look(&mut cache, &format!("other{round}"), now);
        cache.found(ticket, Finding::Missing, now);
        if let Known::Look(ticket) = cache.get(&key("dear"), asker(0), now) {
            assert!(round == 0 || round * 10 % MISSING_FRESH == 0, "forgotten in round {round}");
            cache.found(ticket, Finding::Missing, now);
        }
        assert!(cache.places.len() <= 10 && cache.round.len() == cache.places.len());
    }
    // Those that are being looked at have no room to give.
    for name in 0..20 {
        look(&mut cache, &format!("busy{name}"), 10_000);
    }
    assert!(matches!(cache.get(&key("busy0"), asker(1), 10_000), Known::Wait(_)));
}

#[test]
fn looks_are_bounded() {
    let mut cache = Cache::new(10);
    for name in 0..OPENING_MAX {
        look(&mut cache, &name.to_string(), 0);
    }
    assert!(matches!(cache.get(&key("more"), asker(0), 0), Known::Busy));
}

#[test]
fn files_that_no_request_asks_for_are_let_go() {
    let mut cache = Cache::new(1000);
    for name in 0..600 {
        let ticket = look(&mut cache, &name.to_string(), 0);
        cache.found(ticket, Finding::Missing, 0);
    }
    let waiting = look(&mut cache, "slow", 0);
    let ticket = look(&mut cache, "dear", IDLE - 1);
    cache.found(ticket, Finding::Missing, IDLE - 1);
    (0..10).for_each(|_| cache.sweep(IDLE - 1));
    assert_eq!(cache.places.len(), 602);
    cache.sweep(IDLE);
    assert_eq!(cache.places.len(), 602 - SWEPT_MAX, "a sweep is bounded");
    (0..3).for_each(|_| cache.sweep(IDLE));
    assert_eq!((cache.places.len(), cache.round.len()), (2, 2), "one was asked for, one is looked for");
    cache.found(waiting, Finding::Missing, 2 * IDLE);
    cache.sweep(2 * IDLE);
    assert!(cache.places.is_empty() && cache.round.is_empty());
}

#[test]
fn a_look_at_an_upstream_goes_with_its_last_client() {
    let mut cache = Cache::new(10);
    let ticket = look(&mut cache, "a", 0);
    cache.get(&key("a"), asker(1), 0);
    cache.get(&key("a"), asker(1), 0);
    cache.left(sock(0));
    assert!(cache.goes_upstream(ticket).is_empty() && !cache.give_up_unwanted(ticket));
    assert_eq!(cache.fetching(0, &key("a").path), Some(ticket));
    cache.left(sock(1));
    cache.left(sock(1));
    assert_eq!(cache.fetching(0, &key("a").path), None);
    assert!(cache.looks.is_empty() && cache.waits.is_empty());
    // One that waits for a disk stays until the disk has answered.
    let ticket = look(&mut cache, "a", 0);
    cache.left(sock(0));
    assert!(cache.goes_upstream(ticket).is_empty() && cache.give_up_unwanted(ticket));
    assert!(matches!(cache.get(&key("a"), asker(0), 0), Known::Look(_)), "it is looked for anew");
}

#[test]
fn a_client_waits_for_one_file() {
    let mut cache = Cache::new(10);
    let first = look(&mut cache, "a", 0);
    cache.goes_upstream(first);
    let second = look(&mut cache, "b", 0);
    assert!(!cache.looks.contains_key(&first), "its client waits for another one");
    assert_eq!(cache.found(second, Finding::Missing, 0), [sock(0)]);
    assert!(cache.waits.is_empty());
}

#[test]
fn who_has_hung_up_does_not_wait_for_an_upstream() {
    let mut cache = Cache::new(10);
    let ticket = look(&mut cache, "a", 0);
    cache.get(&key("a"), asker(1), 0);
    assert!(!cache.half_closed(sock(0)), "what is on a disk is still sent");
    assert_eq!(cache.goes_upstream(ticket), [sock(0)]);
    assert!(!cache.half_closed(sock(2)) && cache.half_closed(sock(1)));
    assert!(!cache.give_up_unwanted(ticket), "it waits until it is closed");
    cache.left(sock(1));
    assert!(cache.looks.is_empty() && cache.waits.is_empty());
}

#[test]
fn a_newer_version_is_waited_for_a_short_time_only() {
    let mut cache = Cache::new(10);
    let ticket = look(&mut cache, "a", 0);
    cache.goes_upstream(ticket);
    cache.wait_for_newer(ticket, 0);
    assert_eq!(cache.take_late(STALE_WAIT), None, "there is no old version");
    assert!(!cache.is_overdue(ticket));
    cache.set_overdue(ticket, true);
    cache.found(ticket, Finding::Missing, 0);
    let ticket = look(&mut cache, "a", MISSING_FRESH);
    assert!(cache.is_overdue(ticket), "it is remembered of the file");
}
