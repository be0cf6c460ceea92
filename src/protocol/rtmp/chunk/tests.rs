//! Chunk streams as real senders write them, and malformed ones.

use proptest::prelude::*;

use super::*;

fn reader() -> ChunkReader {
    ChunkReader::new(ChunkLimits::default())
}

/// Reads all messages of `pieces`, one piece at a time.
fn read(pieces: &[&[u8]]) -> Result<Vec<Message>, ChunkError> {
    let mut reader = reader();
    let mut messages = Vec::new();
    for mut piece in pieces.iter().copied() {
        while let Some(message) = reader.next_message(&mut piece)? {
            messages.push(message);
        }
        assert!(piece.is_empty());
    }
    check_memory(&reader);
    Ok(messages)
}

/// Checks that capacity follows the bytes that came, and that the count of unfinished bytes is right.
fn check_memory(reader: &ChunkReader) {
    let held: usize = reader.streams.iter().map(|stream| stream.payload.len()).sum();
    assert_eq!(held, reader.unfinished);
    for stream in &reader.streams {
        assert!(stream.payload.capacity() <= FIRST_BUFFER.max(2 * stream.payload.len()));
    }
}

fn read_split_everywhere(bytes: &[u8]) -> Result<Vec<Message>, ChunkError> {
    let whole = read(&[bytes]);
    for at in 0..=bytes.len() {
        let (front, back) = bytes.split_at(at);
        assert_eq!(read(&[front, back]), whole, "split at {at}");
    }
    let single: Vec<&[u8]> = bytes.chunks(1).collect();
    assert_eq!(read(&single), whole);
    whole
}

fn message(csid: u32, kind: u8, timestamp: u32, payload: &[u8]) -> Message {
    Message { csid, kind, timestamp, stream_id: 1, payload: Bytes::copy_from_slice(payload) }
}

/// A type 0 header on a one-byte csid, stream 1.
fn full(csid: u8, timestamp: u32, len: u8, kind: u8) -> Vec<u8> {
    let [_, t2, t1, t0] = timestamp.min(EXTENDED).to_be_bytes();
    vec![csid, t2, t1, t0, 0, 0, len, kind, 1, 0, 0, 0]
}

#[test]
fn golden_bytes_both_ways() {
    let whole = message(3, 9, 0x0102_0304, &[7; 130]);
    let mut out = Vec::new();
    ChunkWriter::default().write(&whole, &mut out);
    let mut want = vec![3, 0xff, 0xff, 0xff, 0, 0, 130, 9, 1, 0, 0, 0, 1, 2, 3, 4];
    want.extend([7; 128]);
    want.extend([0xc3, 1, 2, 3, 4, 7, 7]);
    assert_eq!(out, want);
    assert_eq!(read_split_everywhere(&out), Ok(vec![whole]));
}

#[test]
fn basic_headers_of_all_lengths() {
    let cases: &[(u32, &[u8])] = &[
        (2, &[2]),
        (63, &[63]),
        (64, &[0, 0]),
        (319, &[0, 255]),
        (320, &[1, 0, 1]),
        (65_599, &[1, 255, 255]),
    ];
    for (csid, want) in cases {
        let whole = message(*csid, 8, 5, &[1; 200]);
        let mut out = Vec::new();
        ChunkWriter::default().write(&whole, &mut out);
        assert!(out.starts_with(want), "{csid}");
        assert_eq!(read_split_everywhere(&out), Ok(vec![whole]));
    }
    // The 3-byte form of a number that would fit into fewer bytes.
    let mut long = full(1, 5, 1, 8);
    long.splice(1..1, [6, 0]);
    long.push(9);
    assert_eq!(read(&[&long]), Ok(vec![message(70, 8, 5, &[9])]));
}

/// Chunk streams above 63 behave like the others: types 1, 2 and 3, and continuations.
#[test]
fn short_headers_on_long_chunk_streams() {
    for csid in [64_u32, 319, 320, 65_599] {
        let head = |kind: u8| match csid {
            64..320 => vec![kind << 6, u8::try_from(csid - 64).unwrap()],
            _ => [vec![kind << 6 | 1], u16::try_from(csid - 64).unwrap().to_le_bytes().to_vec()].concat(),
        };
        let payload = vec![7; 150];
        let [first, rest] = [&payload[..128], &payload[128..]];
        let mut bytes = [&head(0)[..], &[0, 0, 9, 0, 0, 150, 9, 1, 0, 0, 0], first, &head(3), rest].concat();
        bytes.extend([&head(1)[..], &[0, 0, 40, 0, 0, 150, 9], first, &head(3), rest].concat());
        bytes.extend([&head(2)[..], &[0, 0, 41], first, &head(3), rest].concat());
        for _ in 0..10 {
            bytes.extend([&head(3)[..], first, &head(3), rest].concat());
        }
        let times = [9, 49].into_iter().chain((0..11).map(|n| 90 + 41 * n));
        let want: Vec<_> = times.map(|time| message(csid, 9, time, &payload)).collect();
        assert_eq!(want.len(), 13);
        assert_eq!(read_split_everywhere(&bytes), Ok(want), "{csid}");
    }
}

#[test]
fn short_headers_are_relative_to_the_previous_message() {
    let mut bytes = full(4, 1000, 2, 8);
    bytes.extend(b"ab");
    bytes.extend([0xc4, b'c', b'd']); // type 3: the delta is the time of the type 0 before it
    bytes.extend([0x44, 0, 0, 20, 0, 0, 1, 9, b'e']); // type 1: new length and kind
    bytes.extend([0x84, 0, 0, 5, b'f']); // type 2
    bytes.extend([0xc4, b'g']); // type 3: the delta of the type 2
    let want = vec![
        message(4, 8, 1000, b"ab"),
        message(4, 8, 2000, b"cd"),
        message(4, 9, 2020, b"e"),
        message(4, 9, 2025, b"f"),
        message(4, 9, 2030, b"g"),
    ];
    assert_eq!(read_split_everywhere(&bytes), Ok(want));
}

#[test]
fn a_chunk_stream_may_open_with_type_1_but_not_without_a_length() {
    // librtmp's ping response.
    let ping = [0x42, 0, 0, 0, 0, 0, 6, 4, 0, 7, 0, 0, 0, 9];
    let messages = read(&[&ping]).expect("accepted");
    assert_eq!((messages[0].stream_id, &messages[0].payload[..]), (0, &[0, 7, 0, 0, 0, 9][..]));
    assert_eq!(read(&[&[0xc5]]), Err(ChunkError::NoPrecedingHeader { csid: 5, format: 3 }));
    assert_eq!(read(&[&[0x85, 0, 0, 1]]), Err(ChunkError::NoPrecedingHeader { csid: 5, format: 2 }));
}

#[test]
fn time_wraps() {
    let mut bytes = full(4, u32::MAX, 1, 8);
    bytes.extend(u32::MAX.to_be_bytes());
    bytes.push(b'a');
    bytes.extend([0x84, 0, 0, 11, b'b']);
    assert_eq!(
        read_split_everywhere(&bytes),
        Ok(vec![message(4, 8, u32::MAX, b"a"), message(4, 8, 10, b"b")])
    );
}

#[test]
fn extended_deltas() {
    let mut bytes = full(4, 10, 1, 8);
    bytes.push(b'a');
    let delta = 0x0100_0000u32.to_be_bytes();
    bytes.extend([0x84, 0xff, 0xff, 0xff]);
    bytes.extend(delta);
    bytes.push(b'b');
    bytes.push(0xc4); // type 3 beginning a message: the field always stands there
    bytes.extend(delta);
    bytes.push(b'c');
    let want =
        vec![message(4, 8, 10, b"a"), message(4, 8, 0x0100_000a, b"b"), message(4, 8, 0x0200_000a, b"c")];
    assert_eq!(read_split_everywhere(&bytes), Ok(want));
}

/// Old librtmp writes no extended timestamp between the chunks of a message. The payload is chosen to look like
/// the beginning of the timestamp, so that a reader fed byte by byte is misled as far as possible.
#[test]
fn continuations_without_the_extended_timestamp() {
    let stamp = 0x0102_0304u32;
    for chunk_size in [1u32, 2, 3, 5, 128] {
        for likeness in 0..4 {
            let mut payload = vec![0x55; 140];
            let starts = (1..140).step_by(chunk_size as usize);
            for at in starts.map(|at| at - 1) {
                let end = (at + likeness).min(payload.len());
                payload[at..end].copy_from_slice(&stamp.to_be_bytes()[..end - at]);
            }
            let mut bytes = vec![2, 0, 0, 0, 0, 0, 4, 1, 0, 0, 0, 0];
            bytes.extend(chunk_size.to_be_bytes());
            bytes.extend(full(4, u32::MAX, 140, 9));
            bytes.extend(stamp.to_be_bytes());
            for (index, chunk) in payload.chunks(chunk_size as usize).enumerate() {
                if index > 0 {
                    bytes.push(0xc4);
                }
                bytes.extend(chunk);
            }
            // Another header follows, so that the message does not end at the end of the bytes.
            bytes.extend(full(5, 1, 1, 8));
            bytes.push(b'z');
            let messages = read_split_everywhere(&bytes).expect("accepted");
            assert_eq!(messages.len(), 3, "{chunk_size} {likeness}");
            assert_eq!(messages[1], message(4, 9, stamp, &payload), "{chunk_size} {likeness}");
            assert_eq!(messages[2], message(5, 8, 1, b"z"), "{chunk_size} {likeness}");
        }
    }
}

#[test]
fn chunk_size_changes_in_the_middle_of_another_message() {
    let mut bytes = full(4, 0, 200, 9);
    bytes.extend([1; 128]);
    bytes.extend([2, 0, 0, 0, 0, 0, 4, 1, 0, 0, 0, 0, 0, 0, 0, 50]);
    bytes.push(0xc4);
    bytes.extend([2; 50]);
    bytes.push(0xc4);
    bytes.extend([3; 22]);
    let messages = read_split_everywhere(&bytes).expect("accepted");
    assert_eq!(messages[1].payload, [&[1; 128][..], &[2; 50], &[3; 22]].concat());
}

#[test]
fn abort_and_new_headers_give_up_a_message() {
    let mut bytes = full(4, 0, 200, 9);
    bytes.extend([1; 128]);
    bytes.extend([2, 0, 0, 0, 0, 0, 4, 2, 0, 0, 0, 0, 0, 0, 0, 4]);
    bytes.extend(full(4, 7, 130, 9));
    bytes.extend([2; 128]);
    bytes.extend(full(4, 8, 1, 9)); // without an abort
    bytes.push(b'x');
    let messages = read_split_everywhere(&bytes).expect("accepted");
    assert_eq!(messages[1..], [message(4, 9, 8, b"x")]);
}

#[test]
fn invalid_and_extreme_chunk_sizes() {
    let set = |size: u32| [&[2, 0, 0, 0, 0, 0, 4, 1, 0, 0, 0, 0][..], &size.to_be_bytes()].concat();
    assert_eq!(read(&[&set(0)]), Err(ChunkError::ChunkSize { size: 0 }));
    assert_eq!(read(&[&set(0x8000_0000)]), Err(ChunkError::ChunkSize { size: 0x8000_0000 }));
    let short = [2, 0, 0, 0, 0, 0, 3, 1, 0, 0, 0, 0, 0, 0, 1];
    assert_eq!(read(&[&short]), Err(ChunkError::ControlTooShort { kind: 1, len: 3 }));
    // The largest is accepted and takes no memory.
    let mut bytes = set(CHUNK_SIZE_MAX);
    bytes.extend([4, 0, 0, 0, 0xff, 0, 0, 9, 0, 0, 0, 0, 1]);
    assert_eq!(read(&[&bytes]).map(|messages| messages.len()), Ok(1));
    // One byte a chunk.
    let mut bytes = set(1);
    bytes.extend(full(4, 0, 200, 9));
    bytes.push(0);
    (1..200).for_each(|at| bytes.extend([0xc4, at]));
    let messages = read(&[&bytes]).expect("accepted");
    assert_eq!(messages[1].payload, (0..200).collect::<Vec<u8>>());
}

#[test]
fn limits_hold() {
    let limits = ChunkLimits { message_max: 1000, streams_max: 2, unfinished_max: 300 };
    let try_read = |bytes: &[u8]| {
        let mut reader = ChunkReader::new(limits);
        reader.next_message(&mut &bytes[..])
    };
    let large = [4, 0, 0, 0, 0xff, 0xff, 0xff, 9, 0, 0, 0, 0];
    let want = ChunkError::MessageTooLarge { announced: 0xff_ffff, limit: 1000 };
    assert_eq!(try_read(&large), Err(want));

    let begun: Vec<Vec<u8>> = (4..7).map(|csid| [full(csid, 0, 200, 9), vec![0; 128]].concat()).collect();
    assert_eq!(try_read(&begun.concat()), Err(ChunkError::TooManyStreams { limit: 2 }));
    let held = [&begun[0][..], &begun[1], &[0xc4], &[0; 72]].concat();
    assert_eq!(try_read(&held), Err(ChunkError::UnfinishedTooLarge { bytes: 328, limit: 300 }));
}

#[test]
fn an_empty_message_is_a_message() {
    assert_eq!(read_split_everywhere(&full(4, 3, 0, 9)), Ok(vec![message(4, 9, 3, b"")]));
}

/// A message split into chunks by a sender that uses the shortest headers, and the chunks of several such
/// senders interleaved.
#[derive(Debug, Clone)]
struct Sender {
    csid: u8,
    /// Delta or gap in milliseconds, payload length, kind.
    messages: Vec<(u32, usize, u8)>,
    /// Whether continuations repeat the extended timestamp.
    repeats: bool,
}

impl Sender {
    /// The chunks and the messages in them.
    fn chunks(&self) -> (Vec<Vec<u8>>, Vec<Message>) {
        let (mut chunks, mut meant) = (Vec::new(), Vec::new());
        let (mut timestamp, mut before): (u32, Option<(usize, u8, u32)>) = (0, None);
        for (delta, len, kind) in &self.messages {
            timestamp = timestamp.wrapping_add(*delta);
            let (format, field) = match before {
                None => (0, timestamp),
                Some((l, k, d)) if (l, k) == (*len, *kind) => (if d == *delta { 3 } else { 2 }, *delta),
                Some(_) => (1, *delta),
            };
            before = Some((*len, *kind, field));
            // 0x55 never begins the timestamps used here.
            let payload = vec![0x55; *len];
            for (index, piece) in payload.chunks(CHUNK_SIZE_DEFAULT as usize).enumerate() {
                let format = if index > 0 { 3 } else { format };
                let mut chunk = vec![format << 6 | self.csid];
                let short = field.min(EXTENDED).to_be_bytes();
                let [_, l2, l1, l0] = u32::try_from(*len).expect("small").to_be_bytes();
                if format < 3 {
                    chunk.extend(&short[1..]);
                }
                if format < 2 {
                    chunk.extend([l2, l1, l0, *kind]);
                }
                if format == 0 {
                    chunk.extend([1, 0, 0, 0]);
                }
                if field >= EXTENDED && (index == 0 || self.repeats) {
                    chunk.extend(field.to_be_bytes());
                }
                chunk.extend(piece);
                chunks.push(chunk);
            }
            meant.push(message(u32::from(self.csid), *kind, timestamp, &payload));
        }
        (chunks, meant)
    }
}

fn senders() -> impl Strategy<Value = Vec<Sender>> {
    let delta = prop_oneof![Just(0u32), 1..50u32, Just(40), 0xff_fff0..0x100_0010u32, Just(0x2000_0000)];
    let messages = prop::collection::vec((delta, 1..400usize, 8..10u8), 1..8);
    let sender = |csid| {
        (messages.clone(), any::<bool>()).prop_map(move |(messages, repeats)| Sender {
            csid,
            messages,
            repeats,
        })
    };
    (sender(3), sender(4), sender(60)).prop_map(|(a, b, c)| vec![a, b, c])
}

proptest! {
    #[test]
    fn interleaved_senders_are_told_apart(
        senders in senders(),
        order in prop::collection::vec(0..3usize, 100),
        piece in 1..300usize,
    ) {
        let (mut queues, wants): (Vec<_>, Vec<_>) =
            senders.iter().map(|sender| { let (c, m) = sender.chunks(); (c.into_iter(), m) }).unzip();
        let mut bytes = Vec::new();
        for which in order.into_iter().chain((0..3).cycle().take(400)) {
            bytes.extend(queues[which].next().unwrap_or_default());
        }
        let pieces: Vec<&[u8]> = bytes.chunks(piece).collect();
        let got = read(&pieces).expect("well formed");
        for (sender, want) in senders.iter().zip(wants) {
            let own: Vec<Message> =
                got.iter().filter(|message| message.csid == u32::from(sender.csid)).cloned().collect();
            prop_assert_eq!(own, want);
        }
    }

    #[test]
    fn messages_survive_a_round_trip(
        csid in prop_oneof![2..70u32, 300..340u32, Just(65_599)],
        kind in 8..30u8,
        timestamp in any::<u32>(),
        stream_id in any::<u32>(),
        payload in prop::collection::vec(any::<u8>(), 0..2000),
        chunk_size in 1..3000u32,
        piece in 1..500usize,
    ) {
        let message = Message { csid, kind, timestamp, stream_id, payload: payload.into() };
        let size = Message {
            csid: 2, kind: 1, timestamp: 0, stream_id: 0,
            payload: Bytes::copy_from_slice(&chunk_size.to_be_bytes()),
        };
        let (mut writer, mut bytes) = (ChunkWriter::default(), Vec::new());
        writer.write(&size, &mut bytes);
        writer.set_chunk_size(chunk_size);
        writer.write(&message, &mut bytes);
        let pieces: Vec<&[u8]> = bytes.chunks(piece).collect();
        prop_assert_eq!(read(&pieces), Ok(vec![size, message]));
    }

    #[test]
    fn any_bytes_are_borne_and_mean_the_same_in_pieces(
        bytes in prop::collection::vec(prop_oneof![Just(0u8), Just(255u8), 0..8u8, any::<u8>()], 0..500),
        piece in 1..20usize,
    ) {
        let whole = read(&[&bytes]);
        let pieces: Vec<&[u8]> = bytes.chunks(piece).collect();
        prop_assert_eq!(read(&pieces), whole);
    }
}
