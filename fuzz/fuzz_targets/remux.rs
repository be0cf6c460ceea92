//! Any tags: no panic, and the merge can read what the muxers write.
#![no_main]

use libfuzzer_sys::fuzz_target;
use uringcast::media::mp4::fragment::{Fragmenter, Output, Piece};
use uringcast::media::mp4::merge::Merger;
use uringcast::media::mp4::{self, read_header};
use uringcast::media::remux::Remuxer;
use uringcast::media::segmenter::{Lengths, Segmenter};
use uringcast::media::tag::{TagKind, TagRef};
use uringcast::media::ts::{self, TsMuxer};

const LENGTHS: Lengths = Lengths { target: 1000, longest: 8000 };

fuzz_target!(|data: &[u8]| {
    let mut remuxer = Remuxer::default();
    let mut segmenters = (Segmenter::new(LENGTHS, ts::supported), Segmenter::new(LENGTHS, mp4::supported));
    let mut muxers = (TsMuxer::default(), Fragmenter::default());
    let (mut rest, mut time) = (data, 0);
    // Kind, step, length, body.
    while let [head, step, len, tail @ ..] = rest {
        let kind = [TagKind::Audio, TagKind::Video, TagKind::Script][usize::from(head % 3)];
        let (body, after) = tail.split_at(tail.len().min(usize::from(*len)));
        rest = after;
        time += i64::from(*step) * 8;
        let tag = TagRef { kind, timestamp: 0, body };
        if let Ok(Some(sample)) = remuxer.push(&tag, time) {
            segmenters.0.push(remuxer.tracks(), &sample, &mut muxers.0);
            segmenters.1.push(remuxer.tracks(), &sample, &mut muxers.1);
        }
        if head & 0x80 != 0 {
            segmenters.0.gap(&mut muxers.0);
            segmenters.1.gap(&mut muxers.1);
        }
    }
    segmenters.0.end(&mut muxers.0);
    segmenters.1.end(&mut muxers.1);
    assert!(muxers.0.out.chunks(ts::PACKET).all(|packet| packet.len() == ts::PACKET && packet[0] == 0x47));

    let mut merger = Merger::default();
    for piece in &muxers.1.pieces {
        match piece {
            Piece::Open(opening) => {
                let tracks = Output::Merge.pick(&opening.tracks).expect("a segment has a track");
                merger.init(&mp4::init(&tracks)).expect("our own init segment");
            }
            Piece::Bytes([bytes, ..]) => {
                let moof = read_header(bytes).expect("our own fragment").size as usize;
                merger.fragment(&bytes[..moof], (bytes.len() - moof - 8) as u64).expect("our own fragment");
            }
            Piece::Close { .. } => {}
        }
    }
    merger.finish();
});
