//! The demo's publisher: an embedded clip that repeats in real time.

use crate::live::directory::Claim;
use crate::live::key::StreamKey;
use crate::live::stream::StreamWriter;
use crate::media::flv::{FlvItem, FlvReader};
use crate::media::tag::{Class, Tag, TagKind};
use crate::server::core::Core;
use crate::uring::{Engine, Millis};

const CLIP: &[u8] = include_bytes!("../../../web/demo/clip.flv");
const BODY_MAX: u32 = 1 << 20;

/// A clip that is being published.
#[derive(Debug)]
struct Clip {
    role: usize,
    writer: Box<StreamWriter>,
    tags: Vec<Tag>,
    next: usize,
    /// When the current round began, on the loop's clock and on the stream's.
    began: Millis,
    round: u32,
    /// Length of a round in milliseconds.
    length: u32,
}

impl Clip {
    fn new(role: usize, writer: Box<StreamWriter>, now: Millis) -> Self {
        let mut reader = FlvReader::new(BODY_MAX);
        reader.push(CLIP);
        let items = std::iter::from_fn(|| reader.next_item().expect("the embedded clip is whole"));
        let tags: Vec<Tag> = items
            .filter_map(|item| match item {
                FlvItem::Tag(tag) => Some(tag),
                FlvItem::Header(_) => None,
            })
            .filter(|tag| tag.class() != Class::Other)
            .collect();
        let length = round_length(&tags);
        Self { role, writer, tags, next: 0, began: now, round: 0, length }
    }

    fn due(&self) -> Millis {
        self.began + Millis::from(self.tags[self.next].timestamp)
    }

    /// The next tag, with its timestamp in the current round.
    fn take(&mut self) -> Tag {
        let tag = &self.tags[self.next];
        let timestamp = tag.timestamp + self.round * self.length;
        let tag = Tag { timestamp, ..tag.clone() };
        self.next += 1;
        if self.next == self.tags.len() {
            self.next = 0;
            self.round += 1;
            self.began += Millis::from(self.length);
        }
        tag
    }
}

/// The newest video timestamp plus the duration of one frame.
fn round_length(tags: &[Tag]) -> u32 {
    let times = tags.iter().filter(|tag| tag.kind == TagKind::Video).map(|tag| tag.timestamp);
    let last = times.clone().max().unwrap_or(0);
    let before = times.filter(|time| *time < last).max().unwrap_or(0);
    (2 * last).saturating_sub(before).max(1)
}

/// The clips of a loop.
#[derive(Debug, Default)]
pub(in crate::server) struct Clips(Vec<Clip>);

impl Clips {
    /// Publishes the embedded clip under `key`, for ever.
    pub(in crate::server) fn publish<E: Engine>(&mut self, core: &mut Core<E>, role: usize, key: &StreamKey) {
        let now = core.now();
        let Ok(writer) = core.role(role).directory.publish(key, &Claim::fixed(now)) else { return };
        writer.stream().began(now);
        core.counters[role].publishers.add(1);
        self.0.push(Clip::new(role, writer, now));
    }

    /// When the next tag is due.
    pub(in crate::server) fn next(&self) -> Option<Millis> {
        self.0.iter().map(Clip::due).min()
    }

    /// Publishes what is due.
    pub(in crate::server) fn play<E: Engine>(&mut self, core: &mut Core<E>) {
        let now = core.now();
        for clip in self.0.iter_mut().filter(|clip| clip.due() <= now) {
            clip.writer.stream().heard(now);
            while clip.due() <= now {
                let tag = clip.take();
                core.counters[clip.role].bytes_in.add(tag.encoded_len() as u64);
                if let Err(error) = clip.writer.push(&tag) {
                    tracing::warn!(%error, "cannot keep the demo's stream");
                }
            }
            core.announce(&mut clip.writer);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::live::log::Retention;
    use crate::memory::Arena;

    #[test]
    fn rounds_follow_each_other_without_a_jump() {
        let key = StreamKey::parse("live/demo").unwrap();
        let retention = Retention { bytes: 1 << 25, frames: 10_000, gop_time: 60_000, history: 60_000 };
        let writer = StreamWriter::new(1, key, 1, Arena::new().unwrap(), retention);
        let mut clip = Clip::new(0, Box::new(writer), 500);
        assert!(clip.tags.len() > 100 && clip.length > 5_000);
        let mut last = [0; 2];
        for _ in 0..3 * clip.tags.len() {
            let due = clip.due();
            let tag = clip.take();
            assert_eq!(due, 500 + Millis::from(tag.timestamp));
            let slot = match tag.kind {
                TagKind::Audio => 0,
                TagKind::Video => 1,
                TagKind::Script => continue,
            };
            assert!(tag.timestamp >= last[slot] && tag.timestamp - last[slot] <= 100);
            last[slot] = tag.timestamp;
        }
    }
}
