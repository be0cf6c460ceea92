//! The cost of receiving a publisher's bytes, and of writing RTMP chunks for viewers to the log.
//!
//! `cargo bench --bench ingest` times each step, in bytes per second. `scripts/instructions-ingest` counts
//! instructions per tag under callgrind: with `URINGCAST_COUNT="NAME ROUNDS"` the program runs only this step.
#![allow(clippy::unwrap_used, reason = "our own bytes")]

use std::hint::black_box;

use bytes::Bytes;
use criterion::{Criterion, Throughput};
use uringcast::media::amf0::{self, Limits, Value};
use uringcast::media::encoding::Encoding;
use uringcast::media::flv::{FileHeader, FlvReader};
use uringcast::media::tag::{Tag, TagKind};
use uringcast::protocol::rtmp::chunk::{ChunkLimits, ChunkReader, ChunkWriter};
use uringcast::protocol::rtmp::message::Message;
use uringcast::protocol::ws::{FrameReader, Opcode, client_frame};

/// The size of a receive buffer of the ring.
const PIECE: usize = 16 << 10;

/// The tags of one second at 4 Mbps: 25 pictures of 19.5 KB and 43 frames of sound.
fn second() -> Vec<Tag> {
    let tag = |n: usize, kind, timestamp: usize, len: usize| Tag {
        kind,
        timestamp: u32::try_from(timestamp).unwrap(),
        body: Bytes::from(vec![u8::try_from(n).unwrap(); len]),
    };
    let pictures = (0..25).map(|n| tag(n, TagKind::Video, n * 40, 19_500));
    let sound = (0..43).map(|n| tag(n, TagKind::Audio, n * 23, 372));
    let mut tags: Vec<Tag> = pictures.chain(sound).collect();
    tags.sort_by_key(|tag| tag.timestamp);
    tags
}

/// A step: its name, the bytes of a round, and the function to run.
struct Step {
    name: &'static str,
    bytes: usize,
    run: Box<dyn Fn()>,
}

impl Step {
    fn over(name: &'static str, wire: Vec<u8>, run: impl Fn(&[u8]) + 'static) -> Self {
        Self { name, bytes: wire.len(), run: Box::new(move || run(&wire)) }
    }
}

fn steps() -> Vec<Step> {
    let tags = second();
    let mut chunks = Vec::new();
    for tag in &tags {
        let Tag { kind, timestamp, body } = tag.clone();
        let message = Message { csid: 4, kind: kind as u8, timestamp, stream_id: 1, payload: body };
        ChunkWriter::default().write(&message, &mut chunks);
    }
    let mut flv = FileHeader { audio: true, video: true }.encode().to_vec();
    tags.iter().for_each(|tag| tag.write_to(&mut flv));
    let mut frames = Vec::new();
    for piece in flv.chunks(4096) {
        client_frame(Opcode::Binary, piece, [1, 2, 3, 4], &mut frames);
    }
    let properties = (0..20).map(|n| (format!("property-{n}"), Value::Number(f64::from(n)))).collect();
    let metadata = amf0::encode(&["onMetaData".into(), Value::EcmaArray(properties)]);
    let encoded = tags.iter().map(|tag| Encoding::Rtmp.len(tag)).sum();
    let lane = move || {
        let mut out = Vec::with_capacity(encoded);
        for tag in &tags {
            Encoding::Rtmp.write(tag, |piece| out.extend_from_slice(piece));
        }
        black_box(out);
    };
    vec![
        Step::over("chunk_reader", chunks, |wire| {
            let mut reader = ChunkReader::new(ChunkLimits::default());
            for mut piece in wire.chunks(PIECE) {
                while let Some(message) = reader.next_message(&mut piece).unwrap() {
                    black_box(message);
                }
            }
        }),
        Step::over("flv_reader", flv, |wire| {
            let mut reader = FlvReader::new(1 << 24);
            for piece in wire.chunks(PIECE) {
                reader.push(piece);
                while let Some(item) = reader.next_item().unwrap() {
                    black_box(item);
                }
            }
        }),
        Step::over("ws_frames", frames, |wire| {
            let mut reader = FrameReader::new(u64::MAX);
            for piece in wire.chunks(PIECE) {
                reader.push(piece, &mut |event| _ = black_box(event)).unwrap();
            }
        }),
        Step { name: "rtmp_lane", bytes: encoded, run: Box::new(lane) },
        Step::over("amf0_metadata", metadata, |wire| {
            black_box(amf0::decode_all(wire, &Limits::default()).unwrap());
        }),
    ]
}

fn main() {
    let steps = steps();
    if let Ok(count) = std::env::var("URINGCAST_COUNT") {
        let (name, rounds) = count.split_once(' ').expect("NAME ROUNDS");
        let step = steps.iter().find(|step| step.name == name).expect("the name of a step");
        (0..rounds.parse().expect("a number")).for_each(|_: u32| (step.run)());
        return;
    }
    let mut criterion = Criterion::default().configure_from_args();
    for step in &steps {
        let mut group = criterion.benchmark_group("ingest");
        group.throughput(Throughput::Bytes(step.bytes as u64));
        group.bench_function(step.name, |bencher| bencher.iter(|| (step.run)()));
    }
    criterion.final_summary();
}
