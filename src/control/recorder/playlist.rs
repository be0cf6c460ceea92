//! A playlist on the disk: the window that live players read, replaced by rename, and a journal of the whole
//! take, to which a few lines are appended per segment.
//!
//! The replay is made from the journal, now or after a crash; while the journal exists the playlist is not
//! finished.

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};

use super::disk::{Disk, Extent, read_all};
use crate::media::m3u8::{Head, Kind, Playlist, Segment, Traits, Window, write_head};

/// The suffix of a journal.
pub(super) const JOURNAL: &str = ".journal";
/// The largest journal that is read back.
const JOURNAL_MAX: usize = 64 << 20;

/// What is carried over from a take that was split off into the next one's folder, by names in that folder.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Carry {
    /// Files that live players still request under their known names.
    pub(super) linked: BTreeSet<PathBuf>,
    /// Files that the next take starts with.
    pub(super) written: Vec<(PathBuf, Vec<u8>)>,
}

/// A playlist of a take in progress.
#[derive(Debug)]
pub(super) struct LivePlaylist<D: Disk> {
    disk: D,
    path: PathBuf,
    window: Window,
    journal: Option<D::File>,
    journal_len: u64,
    /// Lines that are not in the journal yet.
    pending: String,
    /// The init segment named last in the journal.
    map: Option<String>,
}

impl<D: Disk> LivePlaylist<D> {
    /// The playlist at `path`, which continues from `head`.
    pub(super) fn new(disk: D, path: PathBuf, head: Head, window: usize) -> Self {
        let (window, journal) = (Window::new(head, window), None);
        Self { disk, path, window, journal, journal_len: 0, pending: String::new(), map: None }
    }

    /// A segment is finished: its file has its name. `head` has its number and the target duration.
    pub(super) async fn push(&mut self, head: Head, segment: Segment) -> io::Result<()> {
        self.window.push_at(head, segment.clone());
        if self.journal_len == 0 && self.pending.is_empty() {
            let traits = Traits { mapped: segment.map.is_some(), independent: true };
            write_head(self.window.head(), Kind::Event, traits, &mut self.pending);
        }
        segment.write(self.map.as_deref(), &mut self.pending);
        self.map = segment.map;
        self.write(false).await
    }

    /// The stream is over: live players can read that. The replay is a separate step.
    pub(super) async fn end(&mut self) -> io::Result<()> {
        if self.window.is_empty() { Ok(()) } else { self.write(true).await }
    }

    /// Writes the lines that are not in the journal yet.
    pub(super) async fn settle(&mut self) -> io::Result<()> {
        if self.pending.is_empty() { Ok(()) } else { self.write(false).await }
    }

    /// Adds to `carry` what the folder of the next take starts with, so that live players notice nothing: the
    /// present playlist and the files it names, and a journal without segments. `folder` is the playlist's
    /// folder within the takes' folders.
    pub(super) fn carry(&self, folder: &Path, carry: &mut Carry) {
        let index = folder.join(self.path.file_name().unwrap_or_default());
        let named = self.window.segments().flat_map(|segment| segment.map.iter().chain([&segment.uri]));
        carry.linked.extend(named.map(|name| folder.join(name)));
        carry.written.push((journal_of(&index), self.next_head().into_bytes()));
        carry.linked.insert(index);
    }

    /// The next take begins with a new journal; the window slides on.
    pub(super) fn next_take(&mut self) {
        self.pending = self.next_head();
        (self.journal, self.journal_len, self.map) = (None, 0, None);
    }

    /// The head of a journal that begins after the window.
    fn next_head(&self) -> String {
        let mut text = String::new();
        let head = Head { target: self.window.head().target, ..self.window.next_head() };
        write_head(&head, Kind::Event, Traits { independent: true, ..self.window.traits() }, &mut text);
        text
    }

    async fn write(&mut self, ended: bool) -> io::Result<()> {
        if self.journal.is_none() {
            self.journal = Some(self.disk.create(&journal_of(&self.path)).await?);
        }
        let text = self.window.render(ended).into_bytes();
        let Some(file) = self.journal.as_ref().filter(|_| !self.pending.is_empty()) else {
            return self.disk.replace(&self.path, text, false).await;
        };
        let lines = self.pending.clone().into_bytes();
        let len = lines.len() as u64;
        // What a failed write left is overwritten.
        let journal = Extent { file, at: self.journal_len, lines };
        let (is_written, result) = self.disk.extend(journal, &self.path, text).await;
        if is_written {
            self.journal_len += len;
            self.pending.clear();
        }
        result
    }
}

fn journal_of(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(JOURNAL);
    name.into()
}

/// The whole playlist, as far as it was written: from its journal if there is one, otherwise as it is.
pub(super) async fn load<D: Disk>(disk: &D, path: &Path) -> io::Result<Option<Playlist>> {
    match read(disk, &journal_of(path)).await? {
        Some(playlist) => Ok(Some(playlist)),
        None => read(disk, path).await,
    }
}

/// A playlist or its journal; `None`: there is none.
pub(super) async fn read<D: Disk>(disk: &D, path: &Path) -> io::Result<Option<Playlist>> {
    match read_all(disk, path, JOURNAL_MAX).await {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        read => Ok(Some(Playlist::parse(&String::from_utf8_lossy(&read?)))),
    }
}

/// Makes the replay from the journal. `false`: there is no journal, or nothing in it.
pub(super) async fn finish<D: Disk>(disk: &D, path: &Path, sync: bool) -> io::Result<bool> {
    let Some(mut playlist) = read(disk, &journal_of(path)).await? else { return Ok(false) };
    if playlist.segments.is_empty()
        && let Some(window) = read(disk, path).await?
    {
        // A take that was split off and not continued: it has only the end of the previous one.
        playlist = window;
    }
    if !playlist.segments.is_empty() {
        disk.replace(path, playlist.render().into_bytes(), sync).await?;
    }
    Ok(!playlist.segments.is_empty())
}

/// Removes the journal: nothing is left to do.
pub(super) async fn close<D: Disk>(disk: &D, path: &Path) -> io::Result<()> {
    match disk.remove(&journal_of(path)).await {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}
