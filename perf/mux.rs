//! What muxing costs: a clip through the transport stream muxer and the fragmenter, again and again, in memory.
//!
//! `cargo run --release --example mux [FILE.flv] [ROUNDS]` prints MB/s of media. For instructions per frame run it
//! under `valgrind --tool=callgrind --toggle-collect='*TsMuxer*sample*'` with one round.
#![allow(clippy::print_stdout, clippy::unwrap_used, clippy::cast_precision_loss, reason = "a measuring tool")]

use std::time::Instant;

use uringcast::media::flv::{FlvItem, FlvReader};
use uringcast::media::mp4::{self, fragment::Fragmenter};
use uringcast::media::remux::Remuxer;
use uringcast::media::segmenter::{Lengths, Muxer, Segmenter};
use uringcast::media::tag::{Tag, TagRef};
use uringcast::media::track::Tracks;
use uringcast::media::ts::{self, TsMuxer};

const CLIP: &[u8] = include_bytes!("../web/demo/clip.flv");
const LENGTHS: Lengths = Lengths { target: 4_000, longest: 32_000 };

fn main() {
    let mut arguments = std::env::args().skip(1);
    let clip = arguments.next().map_or_else(|| CLIP.to_vec(), |file| std::fs::read(file).unwrap());
    let rounds: u32 = arguments.next().map_or(300, |rounds| rounds.parse().unwrap());
    let mut reader = FlvReader::new(1 << 24);
    reader.push(&clip);
    let items = std::iter::from_fn(|| reader.next_item().unwrap());
    let tags: Vec<Tag> =
        items.filter_map(|item| if let FlvItem::Tag(tag) = item { Some(tag) } else { None }).collect();

    let mut ts = TsMuxer::default();
    run("transport stream", &tags, rounds, ts::supported, &mut ts, |ts| {
        let len = ts.out.len();
        ts.out.clear();
        len
    });
    let mut fragmenter = Fragmenter::default();
    run("fragments, three outputs", &tags, rounds, mp4::supported, &mut fragmenter, |muxer| {
        let pieces = muxer.pieces.drain(..);
        pieces
            .map(
                |piece| if let mp4::fragment::Piece::Bytes(bytes) = piece { bytes.concat().len() } else { 0 },
            )
            .sum()
    });
}

/// Muxes the clip `rounds` times as one stream.
fn run<M: Muxer>(
    name: &str,
    tags: &[Tag],
    rounds: u32,
    supported: fn(&Tracks) -> Tracks,
    muxer: &mut M,
    take: impl Fn(&mut M) -> usize,
) {
    let (mut remuxer, mut segmenter) = (Remuxer::default(), Segmenter::new(LENGTHS, supported));
    let length = i64::from(tags.last().map_or(0, |tag| tag.timestamp)) + 40;
    let (mut bytes, mut frames, mut out) = (0, 0u64, 0);
    let begin = Instant::now();
    for round in 0..i64::from(rounds) {
        for tag in tags {
            let time = i64::from(tag.timestamp) + round * length;
            let tag = TagRef { kind: tag.kind, timestamp: 0, body: &tag.body };
            if let Ok(Some(sample)) = remuxer.push(&tag, time) {
                segmenter.push(remuxer.tracks(), &sample, muxer);
                frames += 1;
            }
            bytes += tag.body.len();
        }
        out += take(muxer);
    }
    segmenter.end(muxer);
    let seconds = begin.elapsed().as_secs_f64();
    let rate = bytes as f64 / seconds / 1e6;
    let each = seconds * 1e9 / frames as f64;
    println!(
        "{name}: {rate:.0} MB/s in, {each:.0} ns a frame, {:.3} bytes out for one in",
        out as f64 / bytes as f64
    );
}
