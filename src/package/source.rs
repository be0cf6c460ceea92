//! From tags to a muxer's segments: the first stage of packaging.

use crate::live::log::{Start, wire_time};
use crate::live::timeline::StreamTime;
use crate::media::remux::{RemuxError, Remuxer};
use crate::media::segmenter::{Lengths, Muxer, Segmenter};
use crate::media::tag::TagRef;
use crate::media::track::Tracks;

/// Remuxes one stream and cuts it into segments.
#[derive(Debug)]
pub struct Source {
    remuxer: Remuxer,
    segmenter: Segmenter,
    supported: fn(&Tracks) -> Tracks,
    /// The tracks that were checked last.
    seen: Tracks,
    /// The last error of a tag, which is logged once.
    last_error: Option<RemuxError>,
}

/// Why a part of a stream is not recorded.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Complaint {
    /// A tag gives no frame.
    #[error("{0}")]
    Tag(#[from] RemuxError),
    /// The container cannot hold a track.
    #[error("the container cannot hold {codecs}")]
    Unsupported {
        /// As RFC 6381 writes it.
        codecs: String,
    },
}

impl Source {
    /// For a container that can hold the tracks that `supported` returns.
    pub fn new(lengths: Lengths, supported: fn(&Tracks) -> Tracks) -> Self {
        let (remuxer, segmenter) = (Remuxer::default(), Segmenter::new(lengths, supported));
        Self { remuxer, segmenter, supported, seen: Tracks::default(), last_error: None }
    }

    /// Continues at a start, with its headers.
    pub fn begin(&mut self, start: &Start, gap: bool, muxer: &mut impl Muxer) {
        if gap {
            self.segmenter.gap(muxer);
        }
        for (kind, body) in start.headers.bodies() {
            // An error in a header shows again in its frames.
            let _ = self.remuxer.push(&TagRef { kind, timestamp: wire_time(start.time), body }, start.time);
        }
    }

    /// Takes a tag. `Some`: an error that has not been reported yet.
    pub fn tag(&mut self, tag: &TagRef<'_>, time: StreamTime, muxer: &mut impl Muxer) -> Option<Complaint> {
        match self.remuxer.push(tag, time) {
            Ok(Some(sample)) => {
                self.segmenter.push(self.remuxer.tracks(), &sample, muxer);
                self.look_at_tracks()
            }
            Ok(None) => None,
            Err(error) => {
                let told = self.last_error.replace(error);
                (told != Some(error)).then_some(error.into())
            }
        }
    }

    /// Whether there is a new track that the container cannot hold.
    fn look_at_tracks(&mut self) -> Option<Complaint> {
        let tracks = self.remuxer.tracks();
        if *tracks == self.seen {
            return None;
        }
        self.seen = tracks.clone();
        let supported = (self.supported)(tracks);
        let video = tracks.video.as_deref().filter(|_| supported.video.is_none()).map(|video| &video.codecs);
        let audio = tracks.audio.as_deref().filter(|_| supported.audio.is_none()).map(|audio| &audio.codecs);
        let codecs: Vec<&str> = video.into_iter().chain(audio).map(String::as_str).collect();
        (!codecs.is_empty()).then(|| Complaint::Unsupported { codecs: codecs.join(" and ") })
    }

    /// `EXT-X-TARGETDURATION`, in seconds; zero before the first segment has ended.
    pub fn target_seconds(&self) -> u32 {
        self.segmenter.target_seconds().unwrap_or(0)
    }

    /// The stream is over.
    pub fn end(&mut self, muxer: &mut impl Muxer) {
        self.segmenter.end(muxer);
    }

    /// The current segment is lost.
    pub fn reset(&mut self) {
        self.segmenter.reset();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::media::remux::Sample;
    use crate::media::segmenter::Opening;
    use crate::media::tag::TagKind;
    use crate::media::ts;

    struct Deaf;

    impl Muxer for Deaf {
        fn open(&mut self, _: &Opening) {}
        fn sample(&mut self, _: &Sample<'_>) {}
        fn close(&mut self, _: i64) {}
    }

    #[test]
    fn what_is_not_recorded_is_reported_once() {
        let mut source = Source::new(Lengths { target: 4000, longest: 32_000 }, ts::supported);
        let mut tag =
            |body: &[u8]| source.tag(&TagRef { kind: TagKind::Audio, timestamp: 0, body }, 0, &mut Deaf);
        assert_eq!(tag(b"\x90Opus"), None);
        assert_eq!(tag(b"\x91Opus\xfc"), Some(Complaint::Unsupported { codecs: "opus".to_owned() }));
        assert_eq!(tag(b"\x91Opus\xfc"), None);
        let speex = Some(Complaint::Tag(RemuxError::Codec { track: "audio" }));
        assert_eq!([tag(&[0xb2, 1]), tag(&[0xb2, 1])], [speex, None]);
    }
}
