//! Segments, their memory, and how it is returned.

use std::time::Duration;

use super::*;

/// Waits until all released memory has been returned.
fn settle(arena: &Arena) {
    for _ in 0..5_000 {
        if arena.leaving.bytes() == 0 {
            return;
        }
        std::thread::sleep(Duration::from_millis(2));
    }
    panic!("memory is not released");
}

#[test]
fn readers_see_what_was_published_and_nothing_more() {
    let arena = Arena::new().unwrap();
    let mut writer = arena.segment(5000).unwrap();
    let segment = Arc::clone(writer.segment());
    assert_eq!(segment.capacity(), 8192);
    writer.append(b"abc");
    assert_eq!(segment.bytes(), b"");
    writer.publish();
    assert_eq!(segment.bytes(), b"abc");
    writer.append(b"def");
    assert_eq!(segment.bytes(), b"abc");
    writer.publish();
    assert_eq!(segment.bytes(), b"abcdef");
    assert_eq!(writer.room(), 8186);
}

#[test]
fn a_dropped_segment_gives_its_memory_back() {
    let arena = Arena::new().unwrap();
    let mut writer = arena.segment(1 << 20).unwrap();
    writer.append(&vec![7; 1 << 20]);
    writer.publish();
    let blocks = || rustix::fs::fstat(arena.memfd.lock().unwrap().as_fd()).unwrap().st_blocks;
    assert!(blocks() >= 2048);
    let reader = Arc::clone(writer.segment());
    drop(writer);
    assert_eq!(arena.mapped(), 1 << 20);
    assert!(reader.bytes().iter().all(|byte| *byte == 7));
    drop(reader);
    settle(&arena);
    assert_eq!((arena.mapped(), arena.idle(), blocks()), (0, 0, 0));
}

#[test]
fn memory_is_used_again_unless_sockets_may_refer_to_it() {
    let arena = Arena::new().unwrap();
    let held: Vec<SegmentWriter> = (0..8).map(|_| arena.segment(PAGE).unwrap()).collect();
    let mut writer = arena.segment(PAGE).unwrap();
    let base = writer.segment().base();
    writer.append(b"before");
    drop(writer);
    let again = arena.segment(1).unwrap();
    assert_eq!((again.segment().base(), again.segment().bytes()), (base, &b""[..]));
    let (_, offset) = again.segment().file();
    drop(again);
    assert_eq!(arena.spare.lock().unwrap().len(), 0);
    let fresh = arena.segment(PAGE).unwrap();
    assert!(fresh.segment().file().1 > offset);
    drop(held);
    let spare: usize = arena.spare.lock().unwrap().iter().map(|mapping| mapping.capacity).sum();
    assert_eq!((arena.mapped(), spare), (PAGE as u64, 0));
}

#[test]
fn the_memfd_holds_the_same_bytes() {
    let arena = Arena::new().unwrap();
    let _first = arena.segment(1).unwrap();
    let mut writer = arena.segment(1).unwrap();
    writer.append(b"by page reference");
    writer.publish();
    let (fd, offset) = writer.segment().file();
    let mut got = [0; 17];
    rustix::io::pread(fd, &mut got, offset).unwrap();
    assert_eq!(&got, b"by page reference");
}

#[test]
fn many_segments_are_released_on_another_thread() {
    let arena = Arena::new().unwrap();
    let segments: Vec<SegmentWriter> = (0..200)
        .map(|place| {
            let mut writer = arena.segment(1 << 16).unwrap();
            writer.append(&[1; 100]);
            writer.publish();
            if place % 2 == 0 {
                writer.segment().file(); // its pages are not used again
            }
            writer
        })
        .collect();
    let reader = Arc::clone(segments[7].segment());
    drop(segments);
    assert_eq!(reader.bytes(), [1; 100]);
    assert_eq!(arena.mapped(), 1 << 16);
    settle(&arena);
    assert_eq!(arena.idle(), arena.spare.lock().unwrap().len() as u64 * (1 << 16));
    let threads = arena.leaving.threads();
    assert!(!threads.is_empty() && !threads.contains(&std::thread::current().id()), "{threads:?}");
}

#[test]
fn a_used_up_memfd_is_followed_by_another() {
    let arena = Arena::new().unwrap();
    *arena.memfd.lock().unwrap() = Arc::new(Memfd::of_size(3 * PAGE as u64).unwrap());
    let mut segments: Vec<SegmentWriter> = (0..3).map(|_| arena.segment(PAGE).unwrap()).collect();
    let mut beyond = arena.segment(2 * PAGE).unwrap();
    beyond.append(b"in the second memfd");
    beyond.publish();
    segments[2].append(b"in the first one");
    segments[2].publish();
    let read = |writer: &SegmentWriter, len: usize| {
        let (fd, offset) = writer.segment().file();
        let mut got = vec![0; len];
        rustix::io::pread(fd, &mut got, offset).unwrap();
        got
    };
    assert_eq!(read(&beyond, 19), b"in the second memfd");
    assert_eq!(read(&segments[2], 16), b"in the first one");
}
