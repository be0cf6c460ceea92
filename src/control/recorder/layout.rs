//! The names of recordings: the folders and files of a take.

use std::path::{Path, PathBuf};

use crate::media::mp4::fragment::Output;
use crate::package::format::{Format, Lane};

pub(super) use crate::package::format::{INDEX, MERGE, SEPARATE};

/// The file that says when a take began. A folder without it is not a take.
pub(super) const ABOUT: &str = "take.json";

/// The three tasks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Kind {
    Flv,
    Hls,
    Fmp4,
}

impl Kind {
    pub(super) const EVERY: [Self; 3] = [Self::Flv, Self::Hls, Self::Fmp4];

    /// The recording of a format that is packaged.
    pub(super) const fn of(format: Format) -> Self {
        match format {
            Format::Hls => Self::Hls,
            Format::Fmp4 => Self::Fmp4,
        }
    }

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

/// The names of an output's files.
pub(super) const fn names(output: Output) -> Lane {
    Lane::of(output)
}

/// The playlist of an output, under the take's folder.
pub(super) fn index(output: Output) -> PathBuf {
    let Lane { folder, index, .. } = names(output);
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
