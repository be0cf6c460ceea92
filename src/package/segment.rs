//! A finished segment. Its bytes are counted for as long as a reader has them.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::SystemTime;

use bytes::Bytes;

use super::format::Format;
use super::memory::Memory;
use crate::media::m3u8;
use crate::media::track::Tracks;

/// A file in memory.
#[derive(Clone, Debug)]
pub struct File {
    /// What it holds.
    pub body: Bytes,
    /// When it was made: the time of its last change, which the file on the disk gets as well.
    pub modified: SystemTime,
}

impl File {
    /// A file whose bytes are counted until the last reader has dropped them.
    pub fn new(bytes: Vec<u8>, modified: SystemTime, memory: &Memory) -> Arc<Self> {
        Arc::new(Self { body: memory.keep(bytes), modified })
    }
}

/// An init segment.
#[derive(Debug)]
pub struct Init {
    /// Its name in the lane's folder.
    pub name: String,
    /// Its bytes.
    pub file: Arc<File>,
}

/// What a lane has of a segment.
#[derive(Debug)]
pub struct Piece {
    /// Its name in the lane's folder.
    pub name: String,
    /// Its bytes.
    pub file: Arc<File>,
    /// The init segment that it needs.
    pub init: Option<Arc<Init>>,
    /// It begins inside a group of pictures.
    pub dependent: bool,
}

/// A finished segment of all lanes of a format.
#[derive(Debug)]
pub struct Segment {
    /// Never used twice for a stream.
    pub number: u64,
    /// Discontinuities before it, since the stream's first take.
    pub discontinuities: u64,
    /// It does not continue where the segment before ended.
    pub discontinuity: bool,
    /// In milliseconds.
    pub duration: u32,
    /// The target duration of the playlists that name it, in seconds.
    pub target: u32,
    /// The tracks that it has.
    pub tracks: Tracks,
    /// By lane; `None`: the lane has none of its tracks.
    pub pieces: Vec<Option<Piece>>,
    /// Its files are on the disk under their names.
    on_disk: AtomicBool,
}

impl Segment {
    /// A segment that is nowhere but in memory.
    pub fn new(head: m3u8::Head, discontinuity: bool, duration: u32, tracks: Tracks) -> Self {
        let m3u8::Head { target, sequence, discontinuities } = head;
        let (pieces, on_disk) = (Vec::new(), AtomicBool::new(false));
        Self { number: sequence, discontinuities, discontinuity, duration, target, tracks, pieces, on_disk }
    }

    /// The head of a playlist that begins with it.
    pub fn head(&self) -> m3u8::Head {
        let Self { number: sequence, discontinuities, target, .. } = *self;
        m3u8::Head { target, sequence, discontinuities }
    }

    /// Whether it begins inside a group of pictures.
    pub fn is_dependent(&self) -> bool {
        self.pieces.iter().flatten().any(|piece| piece.dependent)
    }

    /// Its lines in a lane's playlist; `None`: the lane has none of its tracks.
    pub fn entry(&self, lane: usize) -> Option<m3u8::Segment> {
        let piece = self.pieces.get(lane)?.as_ref()?;
        Some(m3u8::Segment {
            uri: piece.name.clone(),
            duration: self.duration,
            discontinuity: self.discontinuity,
            map: piece.init.as_ref().map(|init| init.name.clone()),
            dependent: piece.dependent,
        })
    }

    /// Bytes of all its files.
    pub fn len(&self) -> u64 {
        self.pieces.iter().flatten().map(|piece| piece.file.body.len() as u64).sum()
    }

    /// Whether no lane has anything of it.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Its files are on the disk now.
    pub fn set_on_disk(&self) {
        self.on_disk.store(true, Ordering::Release);
    }

    /// Whether its files are on the disk.
    pub fn is_on_disk(&self) -> bool {
        self.on_disk.load(Ordering::Acquire)
    }

    /// Its files, by their paths in the stream's folder.
    pub fn files(&self, format: Format) -> impl Iterator<Item = (String, &Arc<File>)> {
        let pieces = format.lanes().iter().zip(&self.pieces);
        pieces.filter_map(|(lane, piece)| {
            let piece = piece.as_ref()?;
            Some((lane.path(&piece.name), &piece.file))
        })
    }
}
