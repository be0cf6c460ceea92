//! A publisher of any tags: the log consists of whole tags, starts are at tags, and the time of each kind only
//! rises.
#![no_main]

use libfuzzer_sys::fuzz_target;
use uringcast::live::key::StreamKey;
use uringcast::live::log::Retention;
use uringcast::live::stream::{Selection, StreamWriter};
use uringcast::media::tag::{Tag, TagKind};
use uringcast::memory::Arena;

/// Enough to fill the log several times; each command makes up to 10 KB.
const COMMANDS_MAX: usize = 200;

fuzz_target!(|data: &[u8]| {
    let retention = Retention { bytes: 1 << 16, frames: 200, gop_time: 5_000, history: 2_000 };
    let key = StreamKey::parse("live/x").expect("a valid name");
    let mut writer = StreamWriter::new(1, key, 1, Arena::new().expect("a memfd"), retention);
    for command in data.chunks(9).take(COMMANDS_MAX) {
        let [what, step @ ..] = command else { break };
        match what % 16 {
            0 => writer.begin_session(),
            1 => writer.resume_session(),
            2 => drop(writer.stream().log(Selection::Audio)),
            3 => drop(writer.stream().log(Selection::Video)),
            4 => drop(writer.publish()),
            _ => {
                let kind =
                    [TagKind::Audio, TagKind::Video, TagKind::Video, TagKind::Script][usize::from(what % 4)];
                let timestamp = step.iter().take(4).fold(0u32, |time, byte| time << 8 | u32::from(*byte));
                let body = step.iter().skip(4).cycle().take(usize::from(*what) * 40).copied().collect();
                writer.push(&Tag { kind, timestamp, body }).expect("memory");
            }
        }
    }
    writer.publish();
    for selection in [Selection::All, Selection::Audio, Selection::Video] {
        let Some(log) = writer.stream().log(selection) else { continue };
        let index = log.index();
        let mut boundaries = std::collections::HashSet::new();
        for span in &index.spans {
            let mut at = 0;
            let bytes = span.segment.bytes();
            while at < bytes.len() {
                boundaries.insert(span.start + at as u64);
                at += 15
                    + usize::from(bytes[at + 1]) * 65_536
                    + usize::from(bytes[at + 2]) * 256
                    + usize::from(bytes[at + 3]);
            }
            assert_eq!(at, bytes.len(), "whole tags");
        }
        assert!(index.starts.iter().all(|start| start.at == log.head() || boundaries.contains(&start.at)));
    }
});
