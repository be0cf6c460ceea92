use proptest::prelude::*;

use super::*;
use crate::protocol::ws::frame::frame_header;

/// A client's frame.
fn frame(first: u8, payload: &[u8], mask: [u8; 4]) -> Vec<u8> {
    let mut header = [0; 10];
    let n = frame_header(Opcode::Binary, payload.len(), &mut header);
    header[0] = first;
    header[1] |= 0x80;
    let masked = payload.iter().enumerate().map(|(at, byte)| byte ^ mask[at % 4]);
    [&header[..n], &mask].concat().into_iter().chain(masked).collect()
}

/// The events, with messages reassembled.
#[derive(Clone, Debug, Default, PartialEq)]
struct Seen {
    messages: Vec<(bool, Vec<u8>)>,
    open: Vec<u8>,
    control: Vec<String>,
}

fn read(pieces: &[&[u8]], limit: u64) -> Result<Seen, WsError> {
    let (mut reader, mut seen) = (FrameReader::new(limit), Seen::default());
    for piece in pieces {
        reader.push(piece, &mut |event| match event {
            Event::Data { text, bytes, end } => {
                seen.open.extend_from_slice(bytes);
                if end {
                    seen.messages.push((text, std::mem::take(&mut seen.open)));
                }
            }
            other => seen.control.push(format!("{other:?}")),
        })?;
    }
    Ok(seen)
}

const MASK: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];

#[test]
fn the_standards_examples() {
    let hello = b"\x81\x85\x37\xfa\x21\x3d\x7f\x9f\x4d\x51\x58"; // RFC 6455, 5.7
    assert_eq!(read(&[hello], 100).unwrap().messages, [(true, b"Hello".to_vec())]);
    let ping = b"\x89\x85\x37\xfa\x21\x3d\x7f\x9f\x4d\x51\x58";
    assert_eq!(read(&[ping], 100).unwrap().control, [format!("{:?}", Event::Ping(b"Hello"))]);
}

#[test]
fn bytes_after_an_error_are_dropped() {
    let mut reader = FrameReader::new(100);
    assert!(reader.push(&[0x89, 0x00], &mut |event| panic!("{event:?}")).is_err());
    for _ in 0..20 {
        reader.push(&[0x89, 0x00], &mut |event| panic!("{event:?}")).unwrap();
    }
    assert!(reader.is_closed());
}

#[test]
fn frames_split_at_any_point_read_the_same() {
    let wire = [
        frame(0x01, "hé".as_bytes(), MASK),
        frame(0x89, b"ping", MASK),
        frame(0x00, b"", MASK),
        frame(0x80, "llö".as_bytes(), [0; 4]),
        frame(0x82, &[7; 300], MASK),
        frame(0x82, b"", MASK),
        frame(0x8a, b"", MASK),
        frame(0x88, b"\x03\xe8bye", MASK),
        b"after the close".to_vec(),
    ]
    .concat();
    let whole = read(&[&wire], 1000).unwrap();
    assert_eq!(whole.messages, [(true, "héllö".into()), (false, vec![7; 300]), (false, Vec::new())]);
    assert_eq!(whole.control.len(), 3);
    assert_eq!(whole.control[2], "Close { code: Some(1000), reason: \"bye\" }");
    for split in 0..wire.len() {
        assert_eq!(read(&[&wire[..split], &wire[split..]], 1000).unwrap(), whole, "split at {split}");
    }
    let single: Vec<&[u8]> = wire.chunks(1).collect();
    assert_eq!(read(&single, 1000).unwrap(), whole);
}

#[test]
fn pieces_of_a_message_are_passed_on_at_once() {
    let wire = frame(0x82, b"abcdef", MASK);
    assert_eq!(read(&[&wire[..9]], 100).unwrap().open, b"abc");
}

#[test]
fn each_fault_is_named() {
    let error = |wire: &[u8]| read(&[wire], 1000).unwrap_err();
    assert_eq!(error(&[0xc2]), WsError::ReservedBits { byte: 0xc2 });
    assert_eq!(error(&[0x82, 0x05]), WsError::NotMasked);
    assert_eq!(error(&frame(0x83, b"", MASK)), WsError::ReservedOpcode { opcode: 3 });
    assert_eq!(error(&[0x82, 0xfe, 0, 125, 0, 0, 0, 0]), WsError::BadLength { length: 125, bytes: 2 });
    let long = |length: u64| [&[0x82, 0xff], &length.to_be_bytes()[..], &MASK].concat();
    assert_eq!(error(&long(65_535)), WsError::BadLength { length: 65_535, bytes: 8 });
    assert_eq!(error(&long(1 << 63)), WsError::BadLength { length: 1 << 63, bytes: 8 });
    assert_eq!(error(&frame(0x09, b"", MASK)), WsError::FragmentedControl);
    assert_eq!(error(&frame(0x89, &[0; 126], MASK)), WsError::LongControl { length: 126 });
    assert_eq!(error(&frame(0x80, b"", MASK)), WsError::NothingToContinue);
    let twice = [frame(0x02, b"", MASK), frame(0x82, b"", MASK)].concat();
    assert_eq!(error(&twice), WsError::Interleaved);
    let sum = [frame(0x02, &[0; 600], MASK), frame(0x80, &[0; 600], MASK)].concat();
    assert_eq!(error(&sum), WsError::MessageTooLarge { length: 1200, limit: 1000 });
    assert_eq!(error(&long(1 << 62)).close_code(), 1009);
    assert_eq!(error(&twice).close_code(), 1002);
}

#[test]
fn text_must_be_utf8_to_its_end() {
    let error = |parts: &[&[u8]]| {
        let last = parts.len() - 1;
        let frames = parts.iter().enumerate().map(|(at, part)| {
            let first = if at == 0 { 1 } else { 0 } | if at == last { 0x80 } else { 0 };
            frame(first, part, MASK)
        });
        read(&[&frames.collect::<Vec<_>>().concat()], 1000).map_err(|error| error.close_code())
    };
    assert_eq!(error(&[b"\xff"]), Err(1007));
    assert_eq!(error(&[b"\xe4\xbd"]), Err(1007));
    assert_eq!(error(&[b"\xe4\xbd", b"x"]), Err(1007));
    assert_eq!(error(&[b"\xed\xa0\x80"]), Err(1007));
    assert!(error(&[b"\xe4\xbd", b"\xa0", b""]).is_ok());
}

#[test]
fn close_frames_are_checked() {
    let close = |payload: &[u8]| read(&[&frame(0x88, payload, MASK)], 100);
    assert_eq!(close(b"").unwrap().control, ["Close { code: None, reason: \"\" }"]);
    for code in [1000, 1001, 1003, 1011, 1014, 3000, 4999u16] {
        assert!(close(&code.to_be_bytes()).is_ok(), "{code}");
    }
    for code in [0, 999, 1004, 1005, 1006, 1015, 2999, 5000, 65_535u16] {
        assert_eq!(close(&code.to_be_bytes()), Err(WsError::BadClose { code }));
    }
    assert_eq!(close(b"\x03"), Err(WsError::BadClose { code: 0 }));
    assert_eq!(close(b"\x03\xe8\xff"), Err(WsError::NotUtf8));
}

proptest! {
    #[test]
    fn written_messages_read_back(
        payloads in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..400), 0..6),
        mask in any::<[u8; 4]>(),
        split in 0usize..2500,
    ) {
        let wire: Vec<u8> = payloads.iter().flat_map(|payload| frame(0x82, payload, mask)).collect();
        let (first, second) = wire.split_at(split.min(wire.len()));
        let seen = read(&[first, second], 1000).unwrap();
        prop_assert_eq!(seen.messages, payloads.into_iter().map(|p| (false, p)).collect::<Vec<_>>());
    }

    #[test]
    fn garbage_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        let _ = read(&[&bytes], 1000);
    }

    #[test]
    fn garbage_in_frames_never_panics(
        frames in proptest::collection::vec((any::<u8>(), proptest::collection::vec(any::<u8>(), 0..130)), 0..6)
    ) {
        let wire: Vec<u8> = frames.iter().flat_map(|(first, body)| frame(first & 0x8f, body, MASK)).collect();
        let single: Vec<&[u8]> = wire.chunks(1).collect();
        prop_assert_eq!(read(&single, 300), read(&[&wire], 300));
    }
}

#[test]
fn large_payloads_come_in_bounded_pieces() {
    let wire = frame(0x82, &[9; 100_001], MASK);
    let mut reader = FrameReader::new(u64::MAX);
    let (mut total, mut largest) = (0, 0);
    reader
        .push(&wire, &mut |event| {
            if let Event::Data { bytes, .. } = event {
                assert!(bytes.iter().all(|byte| *byte == 9));
                (total, largest) = (total + bytes.len(), largest.max(bytes.len()));
            }
        })
        .unwrap();
    assert_eq!((total, largest), (100_001, PIECE));
}
