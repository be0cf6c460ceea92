//! Any wrapping of any tracks: no panic, headers are bounded and unique, and a classified body has a part.
#![no_main]

use libfuzzer_sys::fuzz_target;
use uringcast::live::key::StreamKey;
use uringcast::live::log::Retention;
use uringcast::live::stream::{Selection, StreamWriter};
use uringcast::media::tag::{Tag, TagKind};
use uringcast::media::{metadata, packet, track_facts};
use uringcast::memory::Arena;

const COMMANDS_MAX: usize = 200;

fuzz_target!(|data: &[u8]| {
    let retention = Retention { bytes: 1 << 16, frames: 200, gop_time: 5_000, history: 2_000 };
    let key = StreamKey::parse("live/x").expect("a valid name");
    let mut writer = StreamWriter::new(1, key, 1, Arena::new().expect("a memfd"), retention);
    let mut rest = data;
    // Kind and step, length, body.
    for _ in 0..COMMANDS_MAX {
        let [head, len, tail @ ..] = rest else { break };
        let (body, after) = tail.split_at(tail.len().min(usize::from(*len)));
        rest = after;
        let kind = [TagKind::Audio, TagKind::Video, TagKind::Script][usize::from(head % 3)];
        if let Some(parts) = packet::parts(kind, body) {
            let tracks = parts.tracks();
            assert!(parts.clone().all(|part| tracks.contains(part.track)));
            assert!(parts.map(|part| part.payload.len()).sum::<usize>() <= body.len());
        }
        if let Some(live) = metadata::for_live(body) {
            assert!(live.len() < body.len() && metadata::for_live(&live).is_none());
        }
        // Too many headers are refused, the stream goes on.
        let _ = writer.push(&Tag { kind, timestamp: u32::from(*head) * 8, body: body.to_vec().into() });
    }
    writer.publish();
    let facts = writer.stream().facts();
    let headers = facts.headers.iter().map(|(kind, body)| (*kind, &body[..]));
    let listed = track_facts::tracks(headers, facts.metadata.as_deref());
    assert!(listed.windows(2).all(|two| (two[0].kind, two[0].number) != (two[1].kind, two[1].number)));
    let index = writer.stream().log(Selection::All).expect("the first log").index();
    for start in &index.starts {
        let bodies: Vec<_> = start.headers.bodies().collect();
        assert!(bodies.len() <= 64);
        assert!((1..bodies.len()).all(|n| !bodies[..n].contains(&bodies[n])), "a header twice");
    }
});
