//! Any tags written as a log of RTMP chunks: a player's session reads the same tags, and the log's own reader
//! finds the same boundaries. Reading any bytes does not panic.
#![no_main]

use libfuzzer_sys::fuzz_target;
use uringcast::media::encoding::{Encoding, RTMP_CHUNK};
use uringcast::media::tag::{Tag, TagKind};
use uringcast::protocol::rtmp::chunk::{ChunkLimits, ChunkReader, ChunkWriter};
use uringcast::protocol::rtmp::message::Control;

fuzz_target!(|data: &[u8]| {
    let _ = Encoding::Rtmp.read(data);
    let mut wire = Vec::new();
    let size = u32::try_from(RTMP_CHUNK).expect("small");
    ChunkWriter::default().write(&Control::SetChunkSize { size }.message(), &mut wire);
    let mut tags = Vec::new();
    for command in data.chunks(8) {
        let &[kind, t3, t2, t1, t0, l1, l0, fill] = command else { break };
        let kind = [TagKind::Audio, TagKind::Video, TagKind::Script][usize::from(kind % 3)];
        let len = usize::from(u16::from_be_bytes([l1, l0])) * 3;
        let tag = Tag { kind, timestamp: u32::from_be_bytes([t3, t2, t1, t0]), body: vec![fill; len].into() };
        let at = wire.len();
        Encoding::Rtmp.write(&tag, |piece| wire.extend_from_slice(piece));
        let stored = Encoding::Rtmp.read(&wire[at..]).expect("it has just been written");
        assert_eq!((stored.kind, stored.timestamp, stored.len), (kind, tag.timestamp, wire.len() - at));
        tags.push(tag);
    }
    let mut reader = ChunkReader::new(ChunkLimits::default());
    let mut input = &wire[..];
    let mut want = tags.iter();
    while let Some(message) = reader.next_message(&mut input).expect("our own bytes") {
        if let Some(kind) = TagKind::from_type(message.kind) {
            let tag = want.next().expect("as many as were written");
            assert_eq!((kind, message.timestamp, &message.payload), (tag.kind, tag.timestamp, &tag.body));
        }
    }
    assert!(want.next().is_none() && reader.is_at_boundary());
});
