//! What a viewer is sent before its first frame.

use bytes::Bytes;

use super::timeline::{StreamTime, wire_time};
use crate::media::encoding::Encoding;
use crate::media::tag::{Tag, TagKind};

/// What a viewer is sent before its first frame.
#[derive(Debug, Default)]
pub struct Headers {
    /// Counts changes; a viewer that was sent this version needs no update.
    pub version: u32,
    /// `onMetaData`.
    pub metadata: Option<Bytes>,
    /// Body of the video sequence header.
    pub video: Option<Bytes>,
    /// Body of the audio sequence header.
    pub audio: Option<Bytes>,
}

impl Headers {
    /// The body of a kind's header.
    pub fn of(&self, kind: TagKind) -> Option<&Bytes> {
        match kind {
            TagKind::Script => self.metadata.as_ref(),
            TagKind::Video => self.video.as_ref(),
            TagKind::Audio => self.audio.as_ref(),
        }
    }

    /// The next version, in which `tag` is the header of its kind.
    #[must_use]
    pub fn with(&self, tag: &Tag) -> Self {
        let of = |kind| if kind == tag.kind { Some(tag.body.clone()) } else { self.of(kind).cloned() };
        Self {
            version: self.version + 1,
            metadata: of(TagKind::Script),
            video: of(TagKind::Video),
            audio: of(TagKind::Audio),
        }
    }

    /// The next version, with only the headers for which `keep` is true; `None`: nothing would change.
    pub fn retain(&self, keep: impl Fn(TagKind) -> bool) -> Option<Self> {
        if self.bodies().all(|(kind, _)| keep(kind)) {
            return None;
        }
        let of = |kind| self.of(kind).filter(|_| keep(kind)).cloned();
        Some(Self {
            version: self.version + 1,
            metadata: of(TagKind::Script),
            video: of(TagKind::Video),
            audio: of(TagKind::Audio),
        })
    }

    /// The header tags as sent before a frame of time `at`: metadata, video, audio.
    ///
    /// `at` changes only the timestamps of the two sequence headers. In FLV they are bytes 4 to 7 of each tag (FLV 10.1,
    /// E.4.1). In RTMP they are bytes 1 to 3 of a message, and from `0xff_ffff` on (4 h 39 min) these are all ones and
    /// the value stands in four bytes more, after the message's header and after the one byte in front of each further
    /// chunk (RTMP 1.0, clause 5.3.1.3).
    ///
    /// `out` gets them piece by piece. A piece that lies inside a header's body is passed with that body, so
    /// that it can be shared.
    pub fn write(&self, at: StreamTime, encoding: Encoding, mut out: impl FnMut(&Bytes, &[u8])) {
        for (kind, body) in self.bodies() {
            let tag = Tag { kind, timestamp: wire_time(header_time(kind, at)), body: body.clone() };
            encoding.write(&tag, |piece| out(body, piece));
        }
    }

    /// As [`write`](Self::write), into one buffer.
    pub fn write_to(&self, at: StreamTime, encoding: Encoding, bytes: &mut Vec<u8>) {
        self.write(at, encoding, |_, piece| bytes.extend_from_slice(piece));
    }

    /// The headers that are present: metadata, video, audio.
    pub fn bodies(&self) -> impl Iterator<Item = (TagKind, &Bytes)> {
        let all =
            [(TagKind::Script, &self.metadata), (TagKind::Video, &self.video), (TagKind::Audio, &self.audio)];
        all.into_iter().filter_map(|(kind, body)| Some((kind, body.as_ref()?)))
    }
}

/// The time of a header tag before a frame of time `at`. Metadata is always at 0: at any other time players
/// take it for a subtitle.
pub fn header_time(kind: TagKind, at: StreamTime) -> StreamTime {
    if kind == TagKind::Script { 0 } else { at }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_come_as_metadata_video_audio() {
        let [metadata, video, audio] = ["m", "v", "a"].map(|body| Some(Bytes::from_static(body.as_bytes())));
        let headers = Headers { version: 1, metadata, video, audio };
        let mut out = Vec::new();
        headers.write_to(i64::from(u32::MAX) + 6, Encoding::Flv, &mut out);
        assert_eq!(out.len(), 3 * 16);
        let kinds: Vec<u8> = out.chunks(16).map(|tag| tag[0]).collect();
        assert_eq!(kinds, [18, 9, 8]);
        assert_eq!(out[4..8], [0; 4], "metadata is at 0");
        assert_eq!(out[20..24], [0, 0, 5, 0]);
    }
}
