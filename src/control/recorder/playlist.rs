//! A playlist on the disk: the window that live players read, replaced by rename, and a journal of the whole
//! take, to which a few lines are appended per segment.
//!
//! The replay is made from the journal, now or after a crash; while the journal exists the playlist is not
//! finished.

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};

use super::disk::{Change, Disk, Lines, read_all};
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
    path: PathBuf,
    window: Window,
    journal: Option<D::File>,
    journal_len: u64,
    /// Lines that are not in the journal yet.
    pending: String,
    /// The init segment named last in the journal.
    map: Option<String>,
    /// The stream is over.
    ended: bool,
}

impl<D: Disk> LivePlaylist<D> {
    /// The playlist at `path`, which continues from `head`.
    pub(super) fn new(path: PathBuf, head: Head, window: usize) -> Self {
        let (window, journal) = (Window::new(head, window), None);
        Self { path, window, journal, journal_len: 0, pending: String::new(), map: None, ended: false }
    }

    /// A segment is finished: its file has its name. `head` has its number and the target duration. [`write()`] writes
    /// that.
    pub(super) fn push(&mut self, head: Head, segment: Segment) {
        self.window.push_at(head, segment.clone());
        if self.journal_len == 0 && self.pending.is_empty() {
            let traits = Traits { mapped: segment.map.is_some(), independent: true };
            write_head(self.window.head(), Kind::Event, traits, &mut self.pending);
        }
        segment.write(self.map.as_deref(), &mut self.pending);
        self.map = segment.map;
    }

    /// The stream is over: live players can read that when it is written. The replay is a separate step.
    pub(super) fn end(&mut self) {
        self.ended = true;
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

    /// Whether the disk does not have all of it.
    fn is_behind(&self) -> bool {
        !self.pending.is_empty() || self.ended && !self.window.is_empty()
    }

    /// What makes the disk have all of it.
    fn change(&self) -> Change<'_, D> {
        let added = || Lines {
            file: self.journal.as_ref().expect("lines are written after it was created"),
            at: self.journal_len, // what a failed write left is overwritten
            bytes: self.pending.clone().into_bytes(),
        };
        Change {
            lines: (!self.pending.is_empty()).then(added),
            path: self.path.clone(),
            bytes: self.window.render(self.ended).into_bytes(),
        }
    }
}

/// Writes what the disk does not have yet of these playlists, up to the first that fails.
pub(super) async fn write<D: Disk>(disk: &D, playlists: &mut [&mut LivePlaylist<D>]) -> io::Result<()> {
    let mut behind: Vec<_> = playlists.iter_mut().filter(|one| one.is_behind()).collect();
    for playlist in behind.iter_mut().filter(|one| one.journal.is_none()) {
        playlist.journal = Some(disk.create(&journal_of(&playlist.path)).await?);
    }
    let (done, result) = disk.change(behind.iter().map(|one| one.change()).collect()).await;
    for playlist in behind.into_iter().take(done) {
        playlist.journal_len += playlist.pending.len() as u64;
        playlist.pending.clear();
    }
    result
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
