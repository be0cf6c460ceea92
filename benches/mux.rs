//! The cost of muxing: a clip through the transport stream muxer and the fragmenter, repeatedly, in memory.
//!
//! `cargo bench --bench mux` times each step, in bytes of media per second. `scripts/instructions-mux` counts
//! instructions per frame under callgrind: with `URINGCAST_COUNT="NAME ROUNDS"` the program runs only this step
//! and prints the size of a round. `URINGCAST_CLIP=FILE.flv` uses another clip than the demo's.
#![allow(clippy::unwrap_used, reason = "our own clip")]

use std::hint::black_box;

use criterion::{Criterion, Throughput};
use uringcast::media::flv::{FlvItem, FlvReader};
use uringcast::media::mp4::{self, fragment::Fragmenter};
use uringcast::media::remux::Remuxer;
use uringcast::media::segmenter::{Lengths, Muxer, Segmenter};
use uringcast::media::tag::{Tag, TagRef};
use uringcast::media::track::Tracks;
use uringcast::media::ts::{self, TsMuxer};

const CLIP: &[u8] = include_bytes!("../web/demo/clip.flv");
const LENGTHS: Lengths = Lengths { target: 4_000, longest: 32_000 };

/// Input and output of a round, to relate the counts to.
#[derive(Default)]
struct Round {
    frames: usize,
    out: usize,
}

/// A step: its name, and a round of it: the clip once more, on a timeline that continues.
struct Step {
    name: &'static str,
    run: Box<dyn FnMut() -> Round>,
}

impl Step {
    /// `take` removes the muxer's output and returns its length.
    fn muxing<M: Muxer + 'static>(
        name: &'static str,
        tags: Vec<Tag>,
        supported: fn(&Tracks) -> Tracks,
        mut muxer: M,
        take: fn(&mut M) -> usize,
    ) -> Self {
        let (mut remuxer, mut segmenter) = (Remuxer::default(), Segmenter::new(LENGTHS, supported));
        let length = i64::from(tags.last().map_or(0, |tag| tag.timestamp)) + 40;
        let mut begin = 0;
        let run = move || {
            let mut round = Round::default();
            for tag in &tags {
                let time = begin + i64::from(tag.timestamp);
                let tag = TagRef { kind: tag.kind, timestamp: 0, body: &tag.body };
                if let Some(sample) = remuxer.push(&tag, time).unwrap() {
                    segmenter.push(remuxer.tracks(), &sample, &mut muxer);
                    round.frames += 1;
                }
            }
            begin += length;
            round.out = take(&mut muxer);
            round
        };
        Self { name, run: Box::new(run) }
    }
}

/// Remuxing alone, to tell what the muxers add to it.
fn remuxing(tags: Vec<Tag>) -> Step {
    let mut remuxer = Remuxer::default();
    let run = move || {
        let mut round = Round::default();
        for tag in &tags {
            let tag = TagRef { kind: tag.kind, timestamp: 0, body: &tag.body };
            if let Some(sample) = remuxer.push(&tag, 0).unwrap() {
                black_box(sample);
                round.frames += 1;
            }
        }
        round
    };
    Step { name: "remux", run: Box::new(run) }
}

fn steps(tags: &[Tag]) -> Vec<Step> {
    let take_packets = |ts: &mut TsMuxer| {
        let len = ts.out.len();
        ts.out.clear();
        len
    };
    let take_fragments = |muxer: &mut Fragmenter| {
        let len = muxer.outs.iter().map(Vec::len).sum();
        muxer.outs.iter_mut().for_each(Vec::clear);
        len
    };
    vec![
        remuxing(tags.to_vec()),
        Step::muxing("transport_stream", tags.to_vec(), ts::supported, TsMuxer::default(), take_packets),
        Step::muxing("fragments", tags.to_vec(), mp4::supported, Fragmenter::default(), take_fragments),
    ]
}

fn main() {
    let clip =
        std::env::var("URINGCAST_CLIP").map_or_else(|_| CLIP.to_vec(), |file| std::fs::read(file).unwrap());
    let mut reader = FlvReader::new(1 << 24);
    reader.push(&clip);
    let items = std::iter::from_fn(|| reader.next_item().unwrap());
    let tag = |item| if let FlvItem::Tag(tag) = item { Some(tag) } else { None };
    let tags: Vec<Tag> = items.filter_map(tag).collect();
    let bytes: usize = tags.iter().map(|tag| tag.body.len()).sum();
    let mut steps = steps(&tags);
    if let Ok(count) = std::env::var("URINGCAST_COUNT") {
        let (name, rounds) = count.split_once(' ').expect("NAME ROUNDS");
        let step = steps.iter_mut().find(|step| step.name == name).expect("the name of a step");
        let rounds: u32 = rounds.parse().expect("a number");
        let last = (0..rounds).map(|_| (step.run)()).last().unwrap_or_default();
        eprintln!("round: {} frames, {bytes} bytes in, {} out", last.frames, last.out);
        return;
    }
    let mut criterion = Criterion::default().configure_from_args();
    for step in &mut steps {
        let mut group = criterion.benchmark_group("mux");
        group.throughput(Throughput::Bytes(bytes as u64));
        group.bench_function(step.name, |bencher| bencher.iter(|| (step.run)()));
    }
    criterion.final_summary();
}
