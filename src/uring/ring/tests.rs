//! The real ring against real sockets on loopback.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::*;
use crate::memory::Arena;
use crate::uring::engine::{Engine, Event, FrameHead, Payload, SendError};
use crate::uring::files::{Folder, OpenFile};
use crate::uring::mailbox::{EventFd, Wake};

const TAG: u32 = 5;
const MODES: [Descriptors; 2] = [Descriptors::PROCESS, Descriptors { process: 0, direct: 64 }];

const PATHS: [SendPath; 5] =
    [SendPath::Auto, SendPath::Copy, SendPath::Fixed, SendPath::ZeroCopy, SendPath::Pages];

pub(super) fn engine(mode: Descriptors, path: SendPath) -> Uring {
    Uring::new(mode, path, EventFd::new().unwrap(), Instant::now()).unwrap()
}

pub(super) fn listening(mode: Descriptors) -> (Uring, SocketAddr) {
    listening_by(mode, SendPath::Auto)
}

pub(super) fn listening_by(mode: Descriptors, path: SendPath) -> (Uring, SocketAddr) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let address = listener.local_addr().unwrap();
    let mut engine = engine(mode, path);
    engine.listen(listener, TAG);
    (engine, address)
}

/// Waits for the next event, at most a few seconds.
pub(super) fn next(engine: &mut Uring) -> Event<<Uring as Engine>::Buf> {
    for _ in 0..500 {
        if let Some(event) = engine.next_event() {
            return event;
        }
        engine.wait(Some(engine.now() + 10));
    }
    panic!("nothing happened");
}

pub(super) fn accept(engine: &mut Uring) -> Sock {
    match next(engine) {
        Event::Accepted { listener: TAG, sock } => sock,
        other => panic!("{other:?}"),
    }
}

#[test]
fn bytes_come_in_and_go_out() {
    for mode in MODES {
        let (mut engine, address) = listening(mode);
        let mut peer = TcpStream::connect(address).unwrap();
        let sock = accept(&mut engine);
        assert_eq!(engine.peer(sock), peer.local_addr().ok());
        peer.write_all(b"hello").unwrap();
        let Event::Received { data, .. } = next(&mut engine) else { panic!("no bytes") };
        assert_eq!(&*data, b"hello");
        drop(data);

        engine.send(sock, Payload::Bytes(Bytes::from_static(b"answer")));
        assert!(matches!(next(&mut engine), Event::Sent { result: Ok(6), .. }));

        let mut writer = Arena::new().unwrap().segment(1 << 16).unwrap();
        writer.append(b"0123456789");
        writer.publish();
        let region = engine.hold(writer.segment());
        engine.send(sock, Payload::Region { head: FrameHead::default(), region, from: 2, len: 3 });
        assert!(matches!(next(&mut engine), Event::Sent { result: Ok(3), .. }));
        engine.send(sock, Payload::Region { head: FrameHead::new(b"<>"), region, from: 8, len: 2 });
        engine.release(region);
        assert!(matches!(next(&mut engine), Event::Sent { result: Ok(4), .. }));

        let mut got = [0; 13];
        peer.read_exact(&mut got).unwrap();
        assert_eq!(&got, b"answer234<>89");

        engine.shutdown_write(sock);
        engine.wait(Some(engine.now()));
        assert_eq!(peer.read(&mut got).unwrap(), 0);
        peer.write_all(b"x").unwrap();
        assert!(matches!(next(&mut engine), Event::Received { .. }));
        drop(peer);
        assert!(matches!(next(&mut engine), Event::Finished { .. }));
        engine.close(sock);
        assert!(matches!(next(&mut engine), Event::Closed { .. }));
        assert_eq!(engine.sockets(), 0);
    }
}

#[test]
fn a_socket_that_does_not_receive_keeps_its_bytes_and_loses_none() {
    for mode in MODES {
        let (mut engine, address) = listening(mode);
        let mut peer = TcpStream::connect(address).unwrap();
        let sock = accept(&mut engine);
        let (mut sent, mut got) = (0u32, 0);
        for round in 0..20u32 {
            engine.set_receiving(sock, false);
            // Off and on again before the kernel has cancelled anything, or after it has.
            for _ in 0..round % 3 {
                engine.set_receiving(sock, true);
                engine.set_receiving(sock, false);
            }
            engine.wait(Some(engine.now() + u64::from(round % 2) * 10));
            assert!(engine.next_event().is_none(), "nothing was sent");
            peer.write_all(&sent.to_le_bytes()).unwrap();
            engine.wait(Some(engine.now() + 10));
            let early = engine.next_event();
            assert!(early.is_none(), "{early:?}");
            engine.set_receiving(sock, true);
            let Event::Received { data, .. } = next(&mut engine) else { panic!("no bytes") };
            assert_eq!(&*data, &sent.to_le_bytes());
            (sent, got) = (sent + 1, got + data.len());
        }
        assert_eq!(got, 80);
        // The peer's end comes when it is looked for, and a close needs no receive.
        engine.set_receiving(sock, false);
        drop(peer);
        engine.wait(Some(engine.now() + 10));
        assert!(engine.next_event().is_none());
        engine.set_receiving(sock, true);
        assert!(matches!(next(&mut engine), Event::Finished { .. }));
        engine.set_receiving(sock, false);
        engine.close(sock);
        assert!(matches!(next(&mut engine), Event::Closed { .. }));
        assert_eq!(engine.sockets(), 0);
    }
}

#[test]
fn a_full_socket_becomes_writable_again_on_every_send_path() {
    let pattern: Vec<u8> = (0..1usize << 20).map(|n| (n / 8 * 31).to_le_bytes()[0]).collect();
    for (mode, path) in MODES.into_iter().flat_map(|mode| PATHS.map(|path| (mode, path))) {
        let (mut engine, address) = listening_by(mode, path);
        let mut peer = TcpStream::connect(address).unwrap();
        let sock = accept(&mut engine);
        let mut writer = Arena::new().unwrap().segment(1 << 20).unwrap();
        writer.append(&pattern);
        writer.publish();
        let region = engine.hold(writer.segment());
        let mut expected: Vec<u8> = Vec::new();
        // Both sizes that `auto` tells apart.
        for len in (0..).map(|n| if n % 2 == 0 { 10_000 } else { 1 << 20 }) {
            engine.send(sock, Payload::Region { head: FrameHead::default(), region, from: 0, len });
            match next(&mut engine) {
                Event::Sent { result: Ok(taken), .. } => expected.extend(&pattern[..taken as usize]),
                Event::Sent { result: Err(SendError::Full), .. } => break,
                other => panic!("{other:?}"),
            }
        }
        engine.poll_writable(sock);
        engine.wait(Some(engine.now()));
        assert!(engine.next_event().is_none());
        let reader = std::thread::spawn(move || {
            let mut got = vec![0; expected.len()];
            peer.read_exact(&mut got).unwrap();
            assert!(got == expected, "{mode:?} {path:?}");
        });
        assert!(matches!(next(&mut engine), Event::Writable { .. }));
        reader.join().unwrap();
        engine.release(region);
    }
}

#[test]
fn pages_of_a_closed_socket_are_freed_when_the_kernel_is_done() {
    for path in PATHS {
        let (mut engine, address) = listening_by(Descriptors::PROCESS, path);
        let peer = TcpStream::connect(address).unwrap();
        let sock = accept(&mut engine);
        let arena = Arena::new().unwrap();
        let mut writer = arena.segment(1 << 20).unwrap();
        writer.append(&vec![7; 1 << 20]);
        writer.publish();
        let region = engine.hold(writer.segment());
        drop(writer);
        engine.send(sock, Payload::Region { head: FrameHead::default(), region, from: 0, len: 1 << 20 });
        assert!(matches!(next(&mut engine), Event::Sent { result: Ok(_), .. }));
        engine.close(sock);
        engine.release(region);
        assert!(matches!(next(&mut engine), Event::Closed { .. }));
        drop(peer);
        for _ in 0..500 {
            if arena.mapped() == 0 {
                break;
            }
            engine.wait(Some(engine.now() + 10));
        }
        assert_eq!(arena.mapped(), 0, "{path:?}");
    }
}

#[test]
fn close_frees_the_name_and_the_peer_sees_the_end() {
    for mode in MODES {
        let (mut engine, address) = listening(mode);
        let mut last = None;
        for _ in 0..200 {
            let mut peer = TcpStream::connect(address).unwrap();
            let sock = accept(&mut engine);
            assert_ne!(last.replace(sock), Some(sock));
            assert_eq!(sock.index, 0);
            engine.poll_writable(sock);
            engine.close(sock);
            engine.close(sock);
            engine.send(sock, Payload::Bytes(Bytes::from_static(b"too late")));
            assert!(matches!(next(&mut engine), Event::Closed { .. }));
            assert_eq!(peer.read(&mut [0; 8]).unwrap(), 0);
        }
    }
}

#[test]
fn bytes_wait_when_all_buffers_are_in_use() {
    let (mut engine, address) = listening(Descriptors::PROCESS);
    const TOTAL: usize = 16 << 20;
    let writer = std::thread::spawn(move || {
        let mut peer = TcpStream::connect(address).unwrap();
        let bytes: Vec<u8> = (0..TOTAL).map(|n| (n / 1000 % 251).to_le_bytes()[0]).collect();
        peer.write_all(&bytes).unwrap();
    });
    accept(&mut engine);
    let mut got = 0usize;
    let mut held = Vec::new();
    loop {
        match next(&mut engine) {
            Event::Received { data, .. } => {
                for byte in data.iter() {
                    assert_eq!(*byte, (got / 1000 % 251).to_le_bytes()[0]);
                    got += 1;
                }
                held.push(data);
                // Hold nearly all buffers for a while, so that the kernel runs out.
                if held.len() + 12 == usize::from(crate::uring::buffers::BUFFERS_MAX) {
                    for _ in 0..3 {
                        engine.wait(Some(engine.now() + 20));
                    }
                    held.clear();
                }
            }
            Event::Finished { error: None, .. } => break,
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(got, TOTAL);
    writer.join().unwrap();
}

#[test]
fn connections_are_opened_and_refused() {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let address = listener.local_addr().unwrap();
    let mut engine = engine(Descriptors::PROCESS, SendPath::Auto);
    let sock = engine.connect(address).unwrap();
    assert!(matches!(next(&mut engine), Event::Connected { result: Ok(()), .. }));
    let (mut peer, _) = listener.accept().unwrap();
    peer.write_all(b"hi").unwrap();
    assert!(matches!(next(&mut engine), Event::Received { .. }));
    engine.close(sock);
    assert!(matches!(next(&mut engine), Event::Closed { .. }));

    drop((listener, peer));
    engine.connect(address).unwrap();
    let event = next(&mut engine);
    assert!(matches!(event, Event::Connected { result: Err(Errno::CONNREFUSED), .. }), "{event:?}");
}

#[test]
fn the_send_buffer_of_a_live_socket_is_bounded() {
    for (mode, path) in [(MODES[0], SendPath::Copy), (MODES[1], SendPath::Copy)] {
        let (mut engine, address) = listening_by(mode, path);
        let _peer = TcpStream::connect(address).unwrap();
        let sock = accept(&mut engine);
        engine.set_send_buffer(sock, 32 << 10);
        if let Some(fd) = engine.socks.get(sock.index).unwrap().of_process() {
            // socket(7): the kernel doubles the value.
            assert_eq!(rustix::net::sockopt::socket_send_buffer_size(fd), Ok(64 << 10));
        }
        engine.close(sock);
        engine.set_send_buffer(sock, 1 << 20);
        assert!(matches!(next(&mut engine), Event::Closed { .. }));
        engine.set_send_buffer(sock, 1 << 20);
    }
}

#[test]
fn another_thread_wakes_a_sleeping_loop() {
    let eventfd = EventFd::new().unwrap();
    let mut engine =
        Uring::new(Descriptors::PROCESS, SendPath::Auto, Arc::clone(&eventfd), Instant::now()).unwrap();
    for _ in 0..3 {
        let waker = Arc::clone(&eventfd);
        let caller = std::thread::spawn(move || {
            std::thread::sleep(Duration::from_millis(5));
            waker.wake();
        });
        assert!(matches!(next(&mut engine), Event::Woken));
        caller.join().unwrap();
    }
}

#[test]
fn a_stopped_listener_refuses() {
    let (mut engine, address) = listening(Descriptors::PROCESS);
    engine.stop_accept();
    for _ in 0..3 {
        engine.wait(Some(engine.now() + 5));
    }
    assert!(TcpStream::connect(address).is_err());
    assert!(engine.next_event().is_none());
}

#[test]
fn dropping_a_busy_engine_leaks_nothing() {
    let arena = Arena::new().unwrap();
    for mode in MODES {
        let (mut engine, address) = listening(mode);
        let _peers: Vec<_> = (0..10).map(|_| TcpStream::connect(address).unwrap()).collect();
        let writer = arena.segment(4096).unwrap();
        engine.hold(writer.segment());
        for _ in 0..10 {
            let sock = accept(&mut engine);
            engine.poll_writable(sock);
        }
    }
    assert_eq!(arena.mapped(), 0);
}

#[test]
fn sockets_beyond_the_process_limit_live_in_the_ring() {
    let (mut engine, address) = listening(Descriptors { process: 2, direct: 2 });
    for _ in 0..3 {
        let mut peers: Vec<_> = (0..4).map(|_| TcpStream::connect(address).unwrap()).collect();
        let socks: Vec<_> = (0..4).map(|_| accept(&mut engine)).collect();
        for sock in &socks {
            engine.send(*sock, Payload::Bytes(Bytes::from_static(b"hi")));
            assert!(matches!(next(&mut engine), Event::Sent { result: Ok(2), .. }));
        }
        for (sock, peer) in socks.iter().zip(&mut peers) {
            let mut got = [0; 2];
            peer.read_exact(&mut got).unwrap();
            engine.close(*sock);
            assert!(matches!(next(&mut engine), Event::Closed { .. }));
            assert_eq!(peer.read(&mut got).unwrap(), 0);
        }
    }
}

/// A file of `len` bytes, each different from its neighbours, in a folder of its own.
fn file_of(name: &str, len: usize) -> (std::path::PathBuf, Vec<u8>) {
    let dir = std::env::temp_dir().join(format!("uringcast-ring-{name}-{}", std::process::id()));
    std::fs::create_dir_all(&dir).unwrap();
    let bytes: Vec<u8> = (0..len).map(|at| u8::try_from(at % 251).unwrap()).collect();
    std::fs::write(dir.join("file"), &bytes).unwrap();
    (dir, bytes)
}

fn open(engine: &mut Uring, dir: &std::path::Path, path: &str) -> Result<Rc<OpenFile>, Errno> {
    let folder = Folder::open(dir).unwrap();
    engine.open_file(&folder, path, 7);
    drop(folder);
    match next(engine) {
        Event::Opened { ticket: 7, result } => result,
        other => panic!("{other:?}"),
    }
}

#[test]
fn files_are_sent_hot_and_cold() {
    for (round, mode) in MODES.into_iter().enumerate() {
        let (mut engine, address) = listening(mode);
        let mut peer = TcpStream::connect(address).unwrap();
        let sock = accept(&mut engine);
        let (dir, bytes) = file_of(&format!("send{round}"), 1_000_000);
        let file = open(&mut engine, &dir, "file").unwrap();
        assert_eq!(file.len, 1_000_000);
        let reader = std::thread::spawn(move || {
            let mut got = Vec::new();
            peer.read_to_end(&mut got).unwrap();
            got
        });
        for cold in [false, true] {
            if cold {
                // Pages can be dropped only after they are on the disk; if they stay, the result is the same.
                let written = std::fs::File::open(dir.join("file")).unwrap();
                written.sync_all().unwrap();
                rustix::fs::fadvise(&written, 0, None, rustix::fs::Advice::DontNeed).unwrap();
            }
            let mut head = Bytes::from_static(b"head:");
            let mut at = 0;
            while at < file.len {
                let len = u32::try_from((file.len - at).min(300_000)).unwrap();
                let payload = Payload::File { head: head.clone(), file: Rc::clone(&file), from: at, len };
                engine.send(sock, payload);
                match next(&mut engine) {
                    Event::Sent { result: Ok(taken), .. } => {
                        let of_head = head.len().min(taken as usize);
                        bytes::Buf::advance(&mut head, of_head);
                        at += u64::from(taken) - of_head as u64;
                    }
                    Event::Sent { result: Err(SendError::Full), .. } => {
                        engine.poll_writable(sock);
                        assert!(matches!(next(&mut engine), Event::Writable { .. }));
                    }
                    other => panic!("{other:?}"),
                }
            }
        }
        engine.close(sock);
        assert!(matches!(next(&mut engine), Event::Closed { .. }));
        let once = [&b"head:"[..], &bytes[..]].concat();
        assert!(reader.join().unwrap() == [&once[..], &once[..]].concat(), "other bytes came");
        std::fs::remove_dir_all(dir).unwrap();
    }
}

#[test]
fn a_file_that_shrinks_breaks_its_send() {
    for (round, mode) in MODES.into_iter().enumerate() {
        let (mut engine, address) = listening(mode);
        let _peer = TcpStream::connect(address).unwrap();
        let sock = accept(&mut engine);
        let (dir, _) = file_of(&format!("shrink{round}"), 100_000);
        let file = open(&mut engine, &dir, "file").unwrap();
        std::fs::File::options().write(true).open(dir.join("file")).unwrap().set_len(10).unwrap();
        engine.send(sock, Payload::File { head: Bytes::new(), file, from: 50_000, len: 50_000 });
        let expected = SendError::Broken(Errno::NODATA);
        assert!(matches!(next(&mut engine), Event::Sent { result: Err(error), .. } if error == expected));
        std::fs::remove_dir_all(dir).unwrap();
    }
}

#[test]
fn the_beginning_of_a_file_is_loaded() {
    let mut engine = engine(Descriptors::PROCESS, SendPath::Auto);
    let (dir, bytes) = file_of("load", 5_000);
    let file = open(&mut engine, &dir, "file").unwrap();
    for (len, expected) in [(4_000, &bytes[..4_000]), (9_000, &bytes[..])] {
        engine.load_file(&file, 0, len, 3);
        let Event::Loaded { ticket: 3, result: Ok(loaded) } = next(&mut engine) else { panic!("not loaded") };
        assert_eq!(loaded, expected);
    }
    std::fs::remove_dir_all(dir).unwrap();
}

#[test]
fn only_regular_files_below_the_folder_are_opened() {
    let mut engine = engine(Descriptors::PROCESS, SendPath::Auto);
    let (dir, _) = file_of("below", 10);
    std::fs::create_dir(dir.join("sub")).unwrap();
    for (target, name) in
        [("/etc/passwd", "absolute"), ("../..", "up"), ("file", "within"), ("sub/../file", "round")]
    {
        std::os::unix::fs::symlink(target, dir.join(name)).unwrap();
    }
    rustix::fs::mknodat(rustix::fs::CWD, dir.join("pipe"), rustix::fs::FileType::Fifo, 0o600.into(), 0)
        .unwrap();
    let socket = std::os::unix::net::UnixListener::bind(dir.join("socket")).unwrap();
    for (name, error) in [
        ("absolute", Errno::XDEV),
        ("up", Errno::XDEV),
        ("../x", Errno::XDEV),
        ("sub", Errno::ISDIR),
        ("pipe", Errno::NXIO),
        ("socket", Errno::NXIO),
        ("none", Errno::NOENT),
        ("file/x", Errno::NOTDIR),
    ] {
        assert_eq!(open(&mut engine, &dir, name).err(), Some(error), "{name}");
    }
    for name in ["file", "within", "round"] {
        assert_eq!(open(&mut engine, &dir, name).unwrap().len, 10, "{name}");
    }
    drop(socket);
    std::fs::remove_dir_all(dir).unwrap();
}
