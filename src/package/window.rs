//! The segments that live players see, and their playlists.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::sync::Arc;
use std::time::SystemTime;

use super::format::{Format, INDEX, Lane, SEPARATE};
use super::memory::Memory;
use super::segment::{File, Segment};
use crate::media::m3u8::{Rendition, Window, master};
use crate::media::mp4::fragment::Output;
use crate::media::track::Tracks;

/// Segments that stay in memory although they are on the disk: players at the live edge read these.
const HOT: usize = 3;
/// The fewest segments of a playlist when memory is short.
const SHORT: usize = 3;

/// How short memory is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Pressure {
    /// There is enough.
    None,
    /// What is on the disk is not kept in memory as well.
    Tight,
    /// Nothing is kept but what playlists name, and they name less.
    Spent,
}

/// The bit rates of a lane.
#[derive(Clone, Copy, Debug, Default)]
struct Rate {
    /// Bits per second of the largest segment.
    peak: u64,
    bytes: u64,
    millis: u64,
}

impl Rate {
    fn add(&mut self, bytes: u64, millis: u32) {
        self.peak = self.peak.max(bytes * 8000 / u64::from(millis).max(1));
        self.bytes += bytes;
        self.millis += u64::from(millis);
    }

    fn bandwidth(&self) -> (u64, u64) {
        (self.peak.max(1), (self.bytes * 8000 / self.millis.max(1)).max(1))
    }
}

/// The bit rates of all lanes, for the master playlist of separate tracks.
#[derive(Clone, Debug, Default)]
pub struct Rates([Rate; 3]);

impl Rates {
    /// A segment is added.
    pub fn add(&mut self, segment: &Segment) {
        for (rate, piece) in self.0.iter_mut().zip(&segment.pieces) {
            if let Some(piece) = piece {
                rate.add(piece.file.body.len() as u64, segment.duration);
            }
        }
    }

    /// The peak rate of both tracks, in bits per second.
    pub fn peak(&self) -> u64 {
        self.0[Output::Merge as usize].peak
    }

    /// The master playlist of separate tracks, if they are these.
    pub fn master(&self, tracks: &Tracks) -> String {
        let rendition = |output: Output, codecs: &str| Rendition {
            uri: Lane::of(output).index.to_owned(),
            codecs: codecs.to_owned(),
            bandwidth: self.0[output as usize].bandwidth(),
        };
        let video = tracks.video.as_deref();
        let video = video.map(|video| (rendition(Output::Video, &video.codecs), video.width, video.height));
        let audio = tracks.audio.as_deref().map(|audio| rendition(Output::Audio, &audio.codecs));
        master(video.as_ref().map(|(video, width, height)| (video, *width, *height)), audio.as_ref())
    }
}

/// All files of a stream in one format, by their paths in the stream's folder.
#[derive(Debug, Default)]
pub struct Snapshot {
    files: HashMap<String, Arc<File>>,
    ended: bool,
}

impl Snapshot {
    /// The file with that path in the stream's folder.
    pub fn find(&self, path: &str) -> Option<&Arc<File>> {
        self.files.get(path)
    }

    /// Whether its playlists say that the stream is over.
    pub fn has_ended(&self) -> bool {
        self.ended
    }

    /// The paths of its files.
    pub fn paths(&self) -> impl Iterator<Item = &str> {
        self.files.keys().map(String::as_str)
    }
}

/// The live window of a stream in one format.
#[derive(Debug)]
pub struct LiveWindow {
    format: Format,
    /// Segments of a playlist.
    size: usize,
    /// By lane; `None`: it has had no segment.
    playlists: Vec<Option<Window>>,
    /// The segments in memory, the oldest first.
    kept: VecDeque<Arc<Segment>>,
    /// The init segments that segments need, by their paths.
    inits: BTreeMap<String, Arc<File>>,
    rates: Rates,
    tracks: Tracks,
    ended: bool,
    memory: Memory,
}

impl LiveWindow {
    /// An empty window of `size` segments.
    pub fn new(format: Format, size: usize, memory: Memory) -> Self {
        Self {
            format,
            size,
            playlists: vec![None; format.lanes().len()],
            kept: VecDeque::new(),
            inits: BTreeMap::new(),
            rates: Rates::default(),
            tracks: Tracks::default(),
            ended: false,
            memory,
        }
    }

    /// A segment is finished.
    pub fn push(&mut self, segment: Arc<Segment>, pressure: Pressure) {
        assert!(!self.ended, "no segment comes after the end");
        assert!(self.kept.back().is_none_or(|last| last.number < segment.number), "numbers only rise");
        self.resize(pressure);
        for (lane, names) in self.format.lanes().iter().enumerate() {
            let Some(entry) = segment.entry(lane) else { continue };
            let playlist = self.playlists[lane].get_or_insert_with(|| Window::new(segment.head(), self.size));
            playlist.push_at(segment.head(), entry);
            if let Some(init) = segment.pieces[lane].as_ref().and_then(|piece| piece.init.as_ref()) {
                self.inits.insert(names.path(&init.name), Arc::clone(&init.file));
            }
        }
        self.rates.add(&segment);
        self.tracks = segment.tracks.clone();
        self.kept.push_back(segment);
        self.trim(pressure);
    }

    /// The stream is over: playlists say so.
    pub fn end(&mut self) {
        self.ended = true;
    }

    /// Sets how many segments playlists name.
    fn resize(&mut self, pressure: Pressure) -> usize {
        let size = if pressure == Pressure::Spent { SHORT.min(self.size) } else { self.size };
        self.playlists.iter_mut().flatten().for_each(|playlist| playlist.resize(size));
        size
    }

    /// Drops what need not be kept.
    pub fn trim(&mut self, pressure: Pressure) {
        let size = self.resize(pressure);
        // A player may still ask for what the playlist that it has names (RFC 8216, 6.2.2).
        let (kept, hot) = if pressure == Pressure::None { (2 * size + 1, HOT) } else { (size, 0) };
        let next = self.kept.back().map_or(0, |segment| segment.number + 1);
        self.kept.retain(|segment| {
            let is_among = |newest: usize| segment.number + newest as u64 >= next;
            is_among(kept) && (is_among(hot) || !segment.is_on_disk())
        });
        let needed = self.needed_inits();
        self.inits.retain(|path, _| needed.contains(path));
        if pressure > Pressure::None {
            self.memory.release();
        }
    }

    /// The paths of the init segments of what is in memory or in a playlist.
    fn needed_inits(&self) -> BTreeSet<String> {
        let mut paths = BTreeSet::new();
        for (at, (lane, playlist)) in self.format.lanes().iter().zip(&self.playlists).enumerate() {
            let named = playlist.iter().flat_map(Window::segments).filter_map(|one| one.map.as_deref());
            let kept = self.kept.iter().filter_map(|one| one.pieces[at].as_ref()?.init.as_deref());
            paths.extend(named.chain(kept.map(|init| init.name.as_str())).map(|name| lane.path(name)));
        }
        paths
    }

    /// Whether all segments that playlists name are on the disk.
    pub fn is_on_disk(&self) -> bool {
        self.kept.iter().all(|segment| segment.is_on_disk())
    }

    /// The time for which players that read the playlist now have something to play, in milliseconds.
    pub fn length(&self) -> u64 {
        let playlists = self.playlists.iter().flatten();
        playlists.map(|one| one.segments().map(|one| u64::from(one.duration)).sum()).max().unwrap_or(0)
    }

    /// All its files as they are now.
    pub fn snapshot(&self, now: SystemTime) -> Snapshot {
        let mut files: HashMap<String, Arc<File>> = HashMap::new();
        for segment in &self.kept {
            files.extend(segment.files(self.format).map(|(path, file)| (path, Arc::clone(file))));
        }
        files.extend(self.inits.iter().map(|(path, file)| (path.clone(), Arc::clone(file))));
        let text = |text: String| File::new(text.into_bytes(), now, &self.memory);
        for (lane, playlist) in self.format.lanes().iter().zip(&self.playlists) {
            let Some(playlist) = playlist else { continue };
            files.insert(lane.path(lane.index), text(playlist.render(self.ended)));
        }
        if self.format == Format::Fmp4 && !files.is_empty() {
            files.insert(format!("{SEPARATE}/{INDEX}"), text(self.rates.master(&self.tracks)));
        }
        Snapshot { files, ended: self.ended }
    }
}
