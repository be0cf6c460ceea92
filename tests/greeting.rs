//! The RTMP greeting of a viewer: for any size and timestamp, a chunk reader finds the same headers in it.
#![allow(clippy::unwrap_used, reason = "a test")]

use bytes::Bytes;
use uringcast::live::log::Headers;
use uringcast::media::encoding::{Encoding, RTMP_CHUNK, RTMP_STREAM};
use uringcast::media::tag::TagKind;
use uringcast::protocol::rtmp::chunk::{ChunkLimits, ChunkReader};

const MIB: usize = 1 << 20;

fn body(len: usize, seed: u8) -> Bytes {
    // No two chunks are equal, and some bytes look like chunk headers.
    (0..len).map(|n| seed.wrapping_add(u8::try_from(n * n / 7 % 251).unwrap())).collect::<Vec<_>>().into()
}

fn headers(len: usize) -> Headers {
    let (metadata, video, audio) = (body(len, 2), body(len, 0x17), body(len, 0xaf));
    Headers::new(1, [(TagKind::Script, metadata), (TagKind::Video, video), (TagKind::Audio, audio)])
}

fn reader() -> ChunkReader {
    let mut reader = ChunkReader::new(ChunkLimits::default());
    let size = u32::try_from(RTMP_CHUNK).unwrap().to_be_bytes();
    let set_chunk_size = [&[2, 0, 0, 0, 0, 0, 4, 1, 0, 0, 0, 0][..], &size].concat();
    assert!(reader.next_message(&mut &set_chunk_size[..]).unwrap().is_some());
    reader
}

#[test]
fn headers_of_any_size_and_time_are_read_back_from_rtmp_chunks() {
    let edges = [0, 1, RTMP_CHUNK - 1, RTMP_CHUNK, RTMP_CHUNK + 1, 65_535, 65_536, 2 * RTMP_CHUNK + 1, MIB];
    for len in edges {
        for at in [0i64, 40, 0xff_fffe, 0xff_ffff, 0x100_0000, 0xffff_ffff, 0x1_0000_0005] {
            let (headers, mut bytes) = (headers(len), Vec::new());
            headers.write_to(at, Encoding::Rtmp, &mut bytes);
            for step in [bytes.len(), 1_000, 60_001] {
                let (mut reader, mut found) = (reader(), Vec::new());
                for mut piece in bytes.chunks(step.max(1)) {
                    while let Some(message) = reader.next_message(&mut piece).unwrap() {
                        assert_eq!(message.stream_id, RTMP_STREAM);
                        found.push((message.kind, message.timestamp, message.payload));
                    }
                }
                assert!(reader.is_at_boundary());
                let time = u32::try_from(at & 0xffff_ffff).unwrap();
                let want: Vec<_> = headers
                    .bodies()
                    .map(|(kind, body)| {
                        let time = if kind == TagKind::Script { 0 } else { time };
                        (kind as u8, time, body.clone())
                    })
                    .collect();
                assert_eq!(want.len(), 3);
                assert!(found == want, "{len} bytes at {at}, read in steps of {step}");
            }
        }
    }
}

#[test]
fn the_time_changes_only_the_timestamps() {
    let written = |at, encoding| {
        let mut bytes = Vec::new();
        headers(2 * RTMP_CHUNK + 1).write_to(at, encoding, &mut bytes);
        bytes
    };
    for (encoding, timestamp) in [(Encoding::Flv, 4..8), (Encoding::Rtmp, 1..4)] {
        let (zero, later) = (written(0, encoding), written(0x12_3456, encoding));
        assert_eq!(zero.len(), later.len());
        let third = zero.len() / 3;
        let changed = (0..zero.len()).filter(|n| zero[*n] != later[*n]);
        assert!(changed.clone().count() == 6, "three bytes in each of two headers");
        assert!(
            changed.map(|n| (n / third, n % third)).all(|(header, n)| header > 0 && timestamp.contains(&n))
        );
    }
}
