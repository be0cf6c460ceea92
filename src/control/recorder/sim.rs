//! A disk in memory that a test can fill up, stall or kill.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::io;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::{Duration, SystemTime};

use super::disk::{Disk, Entry, aside};
use super::layout::ABOUT;
use super::space::{Held, Space};

/// The disk; clones are the same one.
#[derive(Clone, Debug, Default)]
pub(super) struct Sim(Rc<State>);

#[derive(Debug, Default)]
struct State {
    names: RefCell<BTreeMap<PathBuf, u64>>,
    /// All names that files and folders ever had.
    ever: RefCell<BTreeSet<PathBuf>>,
    folders: RefCell<BTreeSet<PathBuf>>,
    contents: RefCell<HashMap<u64, Vec<u8>>>,
    next: Cell<u64>,
    /// Counts changes; each is a second. Files record their last change by it.
    clock: Cell<u64>,
    changed: RefCell<HashMap<u64, u64>>,
    steps: Cell<u64>,
    /// The step at which the running task is killed.
    dies_at: Cell<Option<u64>>,
    capacity: Cell<Option<u64>>,
    /// The most files.
    files_max: Cell<Option<u64>>,
    stalled: Cell<bool>,
    /// All files are open: what is removed keeps its space.
    held: Cell<bool>,
    /// A folder whose files cannot be removed.
    stuck: RefCell<Option<PathBuf>>,
    /// How often folders were listed.
    lists: Cell<u64>,
    /// A folder from which so many renames fail: of itself, and of what is in it.
    failing: RefCell<Option<(PathBuf, u32)>>,
}

/// An open file, regardless of its present name.
#[derive(Debug)]
pub(super) struct SimFile(u64);

impl Sim {
    /// Kills the task that executes the step with this number; `None`: no task.
    pub(super) fn die_at(&self, step: Option<u64>) {
        self.0.steps.set(0);
        self.0.dies_at.set(step);
    }

    /// Whether no task is to be killed.
    pub(super) fn is_immortal(&self) -> bool {
        self.0.dies_at.get().is_none()
    }

    pub(super) fn steps(&self) -> u64 {
        self.0.steps.get()
    }

    pub(super) fn set_capacity(&self, bytes: Option<u64>) {
        self.0.capacity.set(bytes);
    }

    pub(super) fn set_files_max(&self, files: Option<u64>) {
        self.0.files_max.set(files);
    }

    /// Opens all files, or closes them.
    pub(super) fn hold(&self, held: bool) {
        self.0.held.set(held);
        self.forget();
    }

    /// Nothing in this folder can be removed from now on.
    pub(super) fn stick(&self, dir: &Path) {
        self.0.stuck.replace(Some(dir.to_owned()));
    }

    /// How often folders were listed.
    pub(super) fn lists(&self) -> u64 {
        self.0.lists.get()
    }

    /// So many renames of this folder, or of what is in it, fail.
    pub(super) fn fail_renames_from(&self, dir: &Path, times: u32) {
        self.0.failing.replace(Some((dir.to_owned(), times)));
    }

    /// Another disk with the same contents.
    pub(super) fn copy(&self) -> Self {
        let state = &self.0;
        Self(Rc::new(State {
            names: state.names.clone(),
            ever: state.ever.clone(),
            folders: state.folders.clone(),
            contents: state.contents.clone(),
            next: state.next.clone(),
            clock: state.clock.clone(),
            changed: state.changed.clone(),
            ..State::default()
        }))
    }

    fn unstuck(&self, path: &Path) -> io::Result<()> {
        let stuck = self.0.stuck.borrow();
        let is_stuck = stuck.as_ref().is_some_and(|dir| path.starts_with(dir) || dir.starts_with(path));
        if is_stuck { Err(io::ErrorKind::ResourceBusy.into()) } else { Ok(()) }
    }

    pub(super) fn stall(&self, stalled: bool) {
        self.0.stalled.set(stalled);
    }

    pub(super) fn used(&self) -> u64 {
        self.0.contents.borrow().values().map(|bytes| bytes.len() as u64).sum()
    }

    /// All names that files and folders ever had.
    pub(super) fn ever(&self) -> BTreeSet<PathBuf> {
        self.0.ever.borrow().clone()
    }

    /// All files, by name.
    pub(super) fn files(&self) -> BTreeMap<String, Vec<u8>> {
        let contents = self.0.contents.borrow();
        let names = self.0.names.borrow();
        names.iter().map(|(path, inode)| (path.display().to_string(), contents[inode].clone())).collect()
    }

    pub(super) fn file(&self, path: &str) -> Option<Vec<u8>> {
        self.files().remove(path)
    }

    /// One step. `Err(())`: it is the last one, and only half of it is done.
    async fn step(&self) -> Result<(), ()> {
        while self.0.stalled.get() {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        let step = self.0.steps.get();
        self.0.steps.set(step + 1);
        match self.0.dies_at.get() {
            Some(last) if step > last => std::future::pending().await,
            Some(last) if step == last => Err(()),
            _ => Ok(()),
        }
    }

    /// One step that is done completely or not at all.
    async fn whole_step(&self) {
        if self.step().await.is_err() {
            std::future::pending::<()>().await;
        }
    }

    fn touch(&self, inode: u64) {
        self.0.clock.set(self.0.clock.get() + 1);
        self.0.changed.borrow_mut().insert(inode, self.0.clock.get());
    }

    /// The time of the last change.
    pub(super) fn now(&self) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(self.0.clock.get())
    }

    fn inode(&self, path: &Path) -> io::Result<u64> {
        self.0.names.borrow().get(path).copied().ok_or(io::ErrorKind::NotFound.into())
    }

    /// Drops files without a name, unless they are open.
    fn forget(&self) {
        if self.0.held.get() {
            return;
        }
        let named: HashSet<u64> = self.0.names.borrow().values().copied().collect();
        self.0.contents.borrow_mut().retain(|inode, _| named.contains(inode));
    }
}

impl Disk for Sim {
    type File = SimFile;

    async fn create(&self, path: &Path) -> io::Result<SimFile> {
        self.whole_step().await;
        if !self.0.folders.borrow().contains(path.parent().unwrap()) {
            return Err(io::ErrorKind::NotFound.into());
        }
        let inode = self.inode(path).unwrap_or_else(|_| {
            self.0.next.set(self.0.next.get() + 1);
            self.0.next.get()
        });
        self.0.names.borrow_mut().insert(path.to_owned(), inode);
        self.0.ever.borrow_mut().insert(path.to_owned());
        self.0.contents.borrow_mut().insert(inode, Vec::new());
        self.touch(inode);
        Ok(SimFile(inode))
    }

    async fn open(&self, path: &Path) -> io::Result<SimFile> {
        self.inode(path).map(SimFile)
    }

    async fn write(&self, file: &SimFile, at: u64, bytes: Vec<u8>, sync: bool) -> (io::Result<()>, Vec<u8>) {
        let dying = self.step().await.is_err();
        self.touch(file.0);
        let space = self.0.capacity.get().map_or(u64::MAX, |capacity| capacity.saturating_sub(self.used()));
        let space = usize::try_from(space).unwrap_or(usize::MAX);
        let result = {
            let mut contents = self.0.contents.borrow_mut();
            let Some(content) = contents.get_mut(&file.0) else { return (Ok(()), bytes) };
            let at = usize::try_from(at).unwrap();
            let more = (at + bytes.len()).saturating_sub(content.len());
            let full = more > space;
            let len = if full || dying { bytes.len() / 2 } else { bytes.len() };
            let end = (at + len).max(content.len());
            content.resize(end, 0);
            content[at..at + len].copy_from_slice(&bytes[..len]);
            if full { Err(io::ErrorKind::StorageFull.into()) } else { Ok(()) }
        };
        if dying {
            std::future::pending::<()>().await;
        }
        if sync && result.is_ok() {
            self.whole_step().await;
        }
        (result, bytes)
    }

    async fn read(&self, file: &SimFile, at: u64, len: usize) -> io::Result<Vec<u8>> {
        let contents = self.0.contents.borrow();
        let content = contents.get(&file.0).map_or(&[][..], |content| content);
        let at = usize::try_from(at).unwrap().min(content.len());
        Ok(content[at..content.len().min(at + len)].to_vec())
    }

    async fn sync(&self, _: &SimFile) -> io::Result<()> {
        self.whole_step().await;
        Ok(())
    }

    async fn truncate(&self, path: &Path, len: u64) -> io::Result<()> {
        self.whole_step().await;
        let inode = self.inode(path)?;
        let len = usize::try_from(len).unwrap();
        self.0.contents.borrow_mut().get_mut(&inode).unwrap().resize(len, 0);
        Ok(())
    }

    async fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.whole_step().await;
        if let Some((dir, times)) = &mut *self.0.failing.borrow_mut()
            && from.starts_with(&*dir)
            && from != aside(&dir.join(ABOUT))
            && *times > 0
        {
            *times -= 1;
            return Err(io::ErrorKind::Other.into());
        }
        if let Ok(inode) = self.inode(from) {
            self.0.names.borrow_mut().remove(from);
            self.0.names.borrow_mut().insert(to.to_owned(), inode);
            self.0.ever.borrow_mut().insert(to.to_owned());
            self.forget();
            return Ok(());
        }
        if !self.0.folders.borrow().contains(from) {
            return Err(io::ErrorKind::NotFound.into());
        }
        let is_inside = |path: &PathBuf| path.starts_with(to) && path != to;
        if self.0.names.borrow().keys().any(is_inside) || self.0.folders.borrow().iter().any(is_inside) {
            return Err(io::ErrorKind::DirectoryNotEmpty.into());
        }
        let moved = |path: &Path| path.strip_prefix(from).map_or(path.to_owned(), |rest| to.join(rest));
        let names = self.0.names.take().into_iter().map(|(path, inode)| (moved(&path), inode)).collect();
        self.0.names.replace(names);
        let folders = self.0.folders.take().iter().map(|path| moved(path)).collect();
        self.0.folders.replace(folders);
        self.0.ever.borrow_mut().extend(self.0.names.borrow().keys().cloned());
        self.0.ever.borrow_mut().extend(self.0.folders.borrow().iter().cloned());
        Ok(())
    }

    async fn link(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.whole_step().await;
        let inode = self.inode(from)?;
        match self.0.names.borrow_mut().entry(to.to_owned()) {
            std::collections::btree_map::Entry::Occupied(_) => Err(io::ErrorKind::AlreadyExists.into()),
            std::collections::btree_map::Entry::Vacant(entry) => {
                entry.insert(inode);
                Ok(())
            }
        }
    }

    async fn remove(&self, path: &Path) -> io::Result<()> {
        self.whole_step().await;
        self.inode(path)?;
        self.unstuck(path)?;
        self.0.names.borrow_mut().remove(path);
        self.forget();
        Ok(())
    }

    async fn remove_dir(&self, path: &Path) -> io::Result<()> {
        self.whole_step().await;
        self.unstuck(path)?;
        let is_removed = |name: &PathBuf| name.starts_with(path) && !name.ends_with(ABOUT);
        self.0.names.borrow_mut().retain(|name, _| !is_removed(name));
        self.whole_step().await;
        self.0.names.borrow_mut().retain(|name, _| !name.starts_with(path));
        self.0.folders.borrow_mut().retain(|name| !name.starts_with(path));
        self.forget();
        Ok(())
    }

    async fn make_dir(&self, path: &Path) -> io::Result<()> {
        self.whole_step().await;
        let above = path.ancestors().map(Path::to_owned);
        self.0.folders.borrow_mut().extend(above);
        self.0.ever.borrow_mut().insert(path.to_owned());
        Ok(())
    }

    async fn list(&self, path: &Path) -> io::Result<Vec<Entry>> {
        self.0.lists.set(self.0.lists.get() + 1);
        if !self.0.folders.borrow().contains(path) {
            return Err(io::ErrorKind::NotFound.into());
        }
        let mut entries = BTreeMap::new();
        for folder in self.0.folders.borrow().iter().filter(|folder| folder.parent() == Some(path)) {
            let name = folder.file_name().unwrap().to_str().unwrap().to_owned();
            let modified = SystemTime::UNIX_EPOCH;
            let entry = Entry { name: name.clone(), is_dir: true, size: 0, modified, links: 2 };
            entries.insert(name, entry);
        }
        for (file, inode) in self.0.names.borrow().iter().filter(|(file, _)| file.parent() == Some(path)) {
            let name = file.file_name().unwrap().to_str().unwrap().to_owned();
            let size = self.0.contents.borrow()[inode].len() as u64;
            let changed = Duration::from_secs(self.0.changed.borrow()[inode]);
            let modified = SystemTime::UNIX_EPOCH + changed;
            let links = self.0.names.borrow().values().filter(|named| *named == inode).count() as u64;
            let entry = Entry { name: name.clone(), is_dir: false, size, modified, links };
            entries.insert(name, entry);
        }
        Ok(entries.into_values().collect())
    }

    async fn free(&self, _: &Path) -> io::Result<Space> {
        let bytes = self.0.capacity.get().map_or(u64::MAX, |capacity| capacity.saturating_sub(self.used()));
        let inodes = self.0.contents.borrow().len() as u64;
        let files = self.0.files_max.get().map_or(u64::MAX, |most| most.saturating_sub(inodes));
        Ok(Space { bytes, files })
    }

    async fn held(&self, _: &Path) -> io::Result<Held> {
        let (names, contents) = (self.0.names.borrow(), self.0.contents.borrow());
        let mut held = Held::default();
        for (_, bytes) in contents.iter().filter(|(inode, _)| !names.values().any(|named| named == *inode)) {
            held.space += Space { bytes: bytes.len() as u64, files: 1 };
            held.by = vec!["reader (1)".to_owned()];
        }
        Ok(held)
    }
}
