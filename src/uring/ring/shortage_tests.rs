//! The ring under stress: a kernel that is short of resources, one with bugs, and the end of a ring.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

use bytes::Bytes;

use super::tests::{accept, engine, listening, listening_by, next};
use super::*;
use crate::memory::Arena;
use crate::uring::buffers::BUFFERS_MAX;
use crate::uring::engine::{Engine, Event, FrameHead, Payload, Region};

const TAG: u32 = 5;

/// What a kernel that is short of resources answers for a while.
fn shortage() -> impl Iterator<Item = Errno> {
    [Errno::AGAIN, Errno::NOMEM, Errno::BUSY, Errno::INTR].into_iter().cycle().take(40)
}

#[test]
fn calls_are_repeated_when_the_kernel_is_short_of_resources() {
    let (mut engine, address) = listening(Descriptors::PROCESS);
    engine.refusals.injected.extend(shortage());
    let mut peer = TcpStream::connect(address).unwrap();
    let sock = accept(&mut engine);
    engine.refusals.injected.extend(shortage());
    peer.write_all(b"hello").unwrap();
    let Event::Received { data, .. } = next(&mut engine) else { panic!("no bytes") };
    assert_eq!(&*data, b"hello");
    drop(data);
    engine.send(sock, Payload::Bytes(Bytes::from_static(b"answer")));
    engine.refusals.injected.extend(shortage());
    assert!(matches!(next(&mut engine), Event::Sent { result: Ok(6), .. }));
    let mut got = [0; 6];
    peer.read_exact(&mut got).unwrap();
    assert_eq!(&got, b"answer");
    engine.refusals.injected.extend(shortage());
    engine.close(sock);
    assert!(matches!(next(&mut engine), Event::Closed { .. }));
    // Interrupted calls do not count.
    assert_eq!(engine.refusals.count, 4 * 30);
}

#[test]
fn a_full_queue_waits_while_the_kernel_is_short_of_resources() {
    let (mut engine, address) = listening(Descriptors::PROCESS);
    let _peer = TcpStream::connect(address).unwrap();
    let sock = accept(&mut engine);
    engine.refusals.injected.extend(shortage());
    let polls = 2 * crate::uring::setup::SUBMISSIONS;
    for _ in 0..polls {
        engine.poll_writable(sock);
    }
    let mut writable = 0;
    while writable < polls {
        let event = next(&mut engine);
        assert!(matches!(event, Event::Writable { .. }), "{event:?}");
        writable += 1;
    }
    // Listeners are closed only after the kernel has taken the cancels of their accepts.
    engine.refusals.injected.extend(shortage());
    engine.stop_accept();
    refused_in_the_end(&mut engine, address);
}

/// The kernel keeps a listener until the cancels of its accepts have run.
fn refused_in_the_end(engine: &mut Uring, address: SocketAddr) {
    for _ in 0..500 {
        if TcpStream::connect(address).is_err() {
            return;
        }
        engine.wait(Some(engine.now() + 10));
    }
    panic!("the listener is still open");
}

#[test]
fn single_accepts_take_every_connection() {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let address = listener.local_addr().unwrap();
    let mut engine = engine(Descriptors::PROCESS, SendPath::Auto);
    engine.workarounds.single_accepts = true;
    engine.listen(listener, TAG);
    for round in 0..3 {
        let peers: Vec<TcpStream> = (0..100).map(|_| TcpStream::connect(address).unwrap()).collect();
        let socks: Vec<Sock> = peers.iter().map(|_| accept(&mut engine)).collect();
        // Each is the connection of one of the peers, and works.
        for peer in &peers {
            assert!(socks.iter().any(|sock| engine.peer(*sock) == peer.local_addr().ok()), "round {round}");
        }
        engine.send(socks[0], Payload::Bytes(Bytes::from_static(b"x")));
        assert!(matches!(next(&mut engine), Event::Sent { result: Ok(1), .. }));
        for sock in socks {
            engine.close(sock);
            while !matches!(next(&mut engine), Event::Closed { .. }) {}
        }
    }
    engine.stop_accept();
    refused_in_the_end(&mut engine, address);
}

#[test]
fn single_accepts_that_fail_are_reported_once_and_pause() {
    let (mut engine, address) = listening(Descriptors::PROCESS);
    for _ in 0..3 {
        engine.accept_ended(TAG, 0 - libc::EMFILE);
        engine.listeners[0].armed += 1;
    }
    assert!(matches!(next(&mut engine), Event::AcceptFailed { listener: TAG, error: Errno::MFILE }));
    assert!(engine.next_event().is_none());
    engine.resume_accept(TAG);
    engine.accept_ended(TAG, 0 - libc::ENFILE);
    assert!(matches!(next(&mut engine), Event::AcceptFailed { error: Errno::NFILE, .. }));
    engine.listeners[0].armed += 1;
    engine.resume_accept(TAG);
    let _peer = TcpStream::connect(address).unwrap();
    accept(&mut engine);
}

#[test]
fn buffers_are_added_when_they_run_out_up_to_a_limit() {
    const PEERS: usize = 1500;
    let (mut engine, address) = listening(Descriptors::PROCESS);
    let first = engine.receive_buffers();
    assert_eq!(first.starvations, 0);
    let mut peers: Vec<TcpStream> = Vec::new();
    for _ in 0..PEERS {
        peers.push(TcpStream::connect(address).unwrap());
        accept(&mut engine);
    }
    for peer in &mut peers {
        peer.write_all(b"all at once").unwrap();
    }
    let mut held = Vec::new();
    while held.len() < usize::from(BUFFERS_MAX) {
        match next(&mut engine) {
            Event::Received { data, .. } => held.push(data),
            other => panic!("{other:?}"),
        }
    }
    let now = engine.receive_buffers();
    assert!(now.count > first.count && now.count == u32::from(BUFFERS_MAX), "{now:?}");
    assert!(now.starvations > 0);
    // No more than that: the others wait until buffers are returned.
    for _ in 0..3 {
        engine.wait(Some(engine.now() + 5));
    }
    assert!(engine.next_event().is_none());
    held.clear();
    for _ in usize::from(BUFFERS_MAX)..PEERS {
        assert!(matches!(next(&mut engine), Event::Received { .. }));
    }
    assert_eq!(engine.receive_buffers().count, now.count);
}

#[test]
fn zero_copy_memory_outlives_the_close_until_the_kernel_is_done() {
    const LEN: u32 = 4 << 20;
    let pattern: Vec<u8> = (0..LEN).map(|n| (n / 8 * 31).to_le_bytes()[0]).collect();
    let (mut engine, address) = listening_by(Descriptors::PROCESS, SendPath::ZeroCopy);
    let mut peer = TcpStream::connect(address).unwrap();
    let sock = accept(&mut engine);
    let arena = Arena::new().unwrap();
    let mut writer = arena.segment(LEN as usize).unwrap();
    writer.append(&pattern);
    writer.publish();
    let region = engine.hold(writer.segment());
    drop(writer);
    assert!(engine.regions.get(region).unwrap().fixed.is_some(), "the memory is registered");
    engine.send(sock, Payload::Region { head: FrameHead::default(), region, from: 0, len: LEN });
    let Event::Sent { result: Ok(taken), .. } = next(&mut engine) else { panic!("not sent") };
    engine.close(sock);
    engine.release(region);
    assert!(!matches!(next(&mut engine), Event::Sent { .. }));
    // The peer reads nothing, so its window is closed, and the remaining bytes stay in our socket: in our
    // pages.
    for _ in 0..20 {
        engine.wait(Some(engine.now() + 5));
    }
    let notified = engine.regions.get(region).is_none();
    assert!(!notified && arena.mapped() == u64::from(LEN), "freed while the kernel sends it ({taken} bytes)");
    // Memory that other bytes are written to meanwhile must not be the same.
    let mut other = arena.segment(LEN as usize).unwrap();
    other.append(&vec![0xee; LEN as usize]);
    let mut got = Vec::new();
    peer.read_to_end(&mut got).unwrap();
    assert!(got == pattern[..taken as usize], "other bytes came");
    drop(other);
    for _ in 0..500 {
        if arena.mapped() == 0 {
            break;
        }
        engine.wait(Some(engine.now() + 10));
    }
    assert_eq!(arena.mapped(), 0, "it is released in the end");
}

#[test]
fn registered_memory_is_released_in_pieces() {
    const REGIONS: usize = 40;
    let arena = Arena::new().unwrap();
    let mut engine = engine(Descriptors::PROCESS, SendPath::Fixed);
    let regions: Vec<Region> =
        (0..REGIONS).map(|_| engine.hold(arena.segment(1 << 20).unwrap().segment())).collect();
    assert!(regions.iter().all(|region| engine.regions.get(*region).unwrap().fixed.is_some()));
    let free = engine.regions.free.len();
    regions.into_iter().for_each(|region| engine.release(region));
    assert_eq!((engine.regions.free.len(), arena.mapped()), (free, (REGIONS as u64) << 20));
    for turn in 1..=REGIONS / 8 {
        // A loop that has nothing else to do does not sleep before everything is released.
        let until = (turn == REGIONS / 8).then(|| engine.now());
        engine.wait(until);
        assert_eq!(
            (engine.regions.free.len(), engine.regions.stale.len()),
            (free + 8 * turn, REGIONS - 8 * turn)
        );
    }
    assert_eq!(arena.mapped(), 0);
    // If no slot is free, a stale one is emptied at once.
    engine.regions.free.clear();
    let region = engine.hold(arena.segment(1 << 20).unwrap().segment());
    assert_eq!(engine.regions.get(region).unwrap().fixed, None);
    engine.regions.stale.push_back((3, Arc::clone(arena.segment(1 << 20).unwrap().segment())));
    let region = engine.hold(arena.segment(1 << 20).unwrap().segment());
    assert_eq!(engine.regions.get(region).unwrap().fixed, Some(3));
}

#[test]
fn dropping_an_engine_releases_all_pending_operations() {
    const PEERS: usize = 700;
    let arena = Arena::new().unwrap();
    let (mut engine, address) = listening_by(Descriptors::PROCESS, SendPath::Auto);
    let mut peers = Vec::new();
    for _ in 0..PEERS {
        peers.push(TcpStream::connect(address).unwrap());
        accept(&mut engine);
    }
    let mut writer = arena.segment(1 << 20).unwrap();
    writer.append(&[7; 100]);
    writer.publish();
    engine.hold(writer.segment());
    drop(writer);
    // The receives are more than the queue holds at once.
    let received = std::rc::Rc::clone(&engine.received);
    engine.refusals.injected.extend(shortage());
    drop(engine);
    assert_eq!(std::rc::Rc::strong_count(&received), 1, "the receive buffers were not released");
    assert_eq!(arena.mapped(), 0);
    for peer in &mut peers {
        peer.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        assert_eq!(peer.read(&mut [0; 1]).unwrap(), 0);
    }
}
