//! The names of recordings: the folders and files of a take.

use std::path::{Path, PathBuf};

use crate::media::mp4::fragment::Output;

/// The three tasks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Kind {
    Flv,
    Hls,
    Fmp4,
}

impl Kind {
    pub(super) const EVERY: [Self; 3] = [Self::Flv, Self::Hls, Self::Fmp4];

    /// Its name in `--record`.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Flv => "flv",
            Self::Hls => "hls",
            Self::Fmp4 => "fmp4",
        }
    }

    /// Its folder under the data folder.
    pub(super) const fn folder(self) -> &'static str {
        match self {
            Self::Flv => "flv",
            Self::Hls => "hls",
            Self::Fmp4 => "mp4",
        }
    }
}

/// The playlist of HLS, in the take's folder, and the master playlist of separate tracks, in theirs.
pub(super) const INDEX: &str = "index.m3u8";
/// The folder of the files with both tracks, under the take's folder.
pub(super) const MERGE: &str = "output_merge";
/// The folder of the files with one track.
pub(super) const SEPARATE: &str = "output_separate";

/// The names of the files of an output of the fMP4 task.
#[derive(Clone, Copy, Debug)]
pub(super) struct Names {
    /// The folder under the take's folder.
    pub(super) folder: &'static str,
    /// Its playlist.
    pub(super) index: &'static str,
    /// The prefix of its init segments.
    pub(super) init: &'static str,
    /// The prefix of its segments.
    pub(super) segment: &'static str,
}

/// The names of an output's files.
pub(super) const fn names(output: Output) -> Names {
    match output {
        Output::Merge => Names { folder: MERGE, index: INDEX, init: "init", segment: "segment" },
        Output::Audio => {
            Names { folder: SEPARATE, index: "audio.m3u8", init: "audio_init", segment: "audio" }
        }
        Output::Video => {
            Names { folder: SEPARATE, index: "video.m3u8", init: "video_init", segment: "video" }
        }
    }
}

/// The playlist of an output, under the take's folder.
pub(super) fn index(output: Output) -> PathBuf {
    let Names { folder, index, .. } = names(output);
    Path::new(folder).join(index)
}

/// The playlists of segments of a take in `dir`.
pub(super) fn indexes(kind: Kind, dir: &Path) -> Vec<PathBuf> {
    match kind {
        Kind::Flv => Vec::new(),
        Kind::Hls => vec![dir.join(INDEX)],
        Kind::Fmp4 => Output::EVERY.map(|output| dir.join(index(output))).to_vec(),
    }
}

/// The folders of a take that hold its files, if they are there.
pub(super) fn folders(dir: &Path) -> [PathBuf; 3] {
    [dir.to_owned(), dir.join(MERGE), dir.join(SEPARATE)]
}
