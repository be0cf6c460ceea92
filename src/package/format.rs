//! The formats that streams are packaged in, and the names of their files.
//!
//! A format has one or several lanes: a playlist with its segments. HLS has one, fMP4 has both tracks together, sound
//! alone and pictures alone, in the order of [`Output::EVERY`].

use crate::media::mp4;
use crate::media::mp4::fragment::Output;
use crate::media::track::Tracks;
use crate::media::ts;

/// The playlist of HLS in its stream's folder, of fMP4 with both tracks, and the master playlist of separate tracks.
pub const INDEX: &str = "index.m3u8";
/// The folder of the fMP4 files with both tracks.
pub const MERGE: &str = "output_merge";
/// The folder of the fMP4 files with one track.
pub const SEPARATE: &str = "output_separate";

/// A format.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Format {
    /// MPEG transport stream.
    Hls,
    /// Fragmented MP4.
    Fmp4,
}

/// A playlist with its segments.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lane {
    /// The folder in the stream's folder; empty: that itself.
    pub folder: &'static str,
    /// Its playlist.
    pub index: &'static str,
    /// The prefix of its init segments; empty: it has none.
    pub init: &'static str,
    /// The prefix of its segments.
    pub segment: &'static str,
    /// The suffix of its segments, with the dot.
    pub suffix: &'static str,
}

const HLS: [Lane; 1] = [Lane { folder: "", index: INDEX, init: "", segment: "segment", suffix: ".ts" }];
const FMP4: [Lane; 3] = [
    Lane { folder: MERGE, index: INDEX, init: "init", segment: "segment", suffix: ".m4s" },
    Lane { folder: SEPARATE, index: "audio.m3u8", init: "audio_init", segment: "audio", suffix: ".m4s" },
    Lane { folder: SEPARATE, index: "video.m3u8", init: "video_init", segment: "video", suffix: ".m4s" },
];

impl Format {
    /// All of them, in the order of their discriminants.
    pub const EVERY: [Self; 2] = [Self::Hls, Self::Fmp4];

    /// Its lanes.
    pub const fn lanes(self) -> &'static [Lane] {
        match self {
            Self::Hls => &HLS,
            Self::Fmp4 => &FMP4,
        }
    }

    /// The first name in the paths of its files.
    pub const fn root(self) -> &'static str {
        match self {
            Self::Hls => "hls",
            Self::Fmp4 => "mp4",
        }
    }

    /// Its name in the configuration, logs and metrics.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Hls => "hls",
            Self::Fmp4 => "fmp4",
        }
    }

    /// The tracks that it can carry.
    pub const fn supported(self) -> fn(&Tracks) -> Tracks {
        match self {
            Self::Hls => ts::supported,
            Self::Fmp4 => mp4::supported,
        }
    }

    /// The format, the stream and the file's name of a path such as `hls/live/a/index.m3u8` or
    /// `mp4/live/a/output_merge/segment_1.m4s`.
    pub fn parse(path: &str) -> Option<(Self, &str, &str)> {
        let (root, rest) = path.split_once('/')?;
        let format = Self::EVERY.into_iter().find(|format| format.root() == root)?;
        let (folder, _) = rest.rsplit_once('/')?;
        let stream = match format {
            Self::Hls => folder,
            Self::Fmp4 => folder.rsplit_once('/')?.0,
        };
        Some((format, stream, &rest[stream.len() + 1..]))
    }
}

impl Lane {
    /// The lane of an fMP4 output.
    pub const fn of(output: Output) -> Self {
        match output {
            Output::Merge => FMP4[0],
            Output::Audio => FMP4[1],
            Output::Video => FMP4[2],
        }
    }

    /// The path of one of its files in the stream's folder.
    pub fn path(&self, name: &str) -> String {
        if self.folder.is_empty() { name.to_owned() } else { format!("{}/{name}", self.folder) }
    }
}
