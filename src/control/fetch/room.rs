//! Keeps the cache's folder within its size: whole files, parts under way, and files that were removed while a
//! loop had them open.

use std::io;
use std::os::unix::fs::MetadataExt;
use std::time::{Duration, Instant};

use tracing::warn;

use super::error::FetchError;
use super::fetcher::{Fetcher, Gone};
use crate::server::files::open_set::Identity;
use crate::server::shared::Message;

/// How long a fetch waits for files to be closed.
const WAIT: Duration = Duration::from_secs(5);
/// How often it looks whether they are.
const TICK: Duration = Duration::from_millis(50);
/// How often loops are asked to close files that they do not send.
const ASK: Duration = Duration::from_secs(1);
/// How many files are looked at for one that is not open.
const LOOKED_AT_MAX: usize = 256;
/// A file that was just removed may be about to be opened by a loop.
const OPENING: Duration = Duration::from_secs(1);
/// By this much the room of a file of unknown length grows.
const STEP: u64 = 1 << 20;

/// The space that a part under way may take.
pub(super) struct Room<'a> {
    fetcher: &'a Fetcher,
    bytes: u64,
}

impl<'a> Room<'a> {
    pub(super) async fn of(fetcher: &'a Fetcher, bytes: u64) -> Result<Self, FetchError> {
        let mut room = Self { fetcher, bytes: 0 };
        room.cover(bytes).await?;
        Ok(room)
    }

    /// Waits until there is space for `len` bytes.
    pub(super) async fn cover(&mut self, len: u64) -> Result<(), FetchError> {
        let missing = len.saturating_sub(self.bytes);
        if missing == 0 {
            return Ok(());
        }
        let more = if self.bytes == 0 { missing } else { missing.max(STEP) };
        self.fetcher.make_room(more).await?;
        *self.fetcher.reserved.borrow_mut() += more;
        self.bytes += more;
        Ok(())
    }
}

impl Drop for Room<'_> {
    fn drop(&mut self) {
        *self.fetcher.reserved.borrow_mut() -= self.bytes;
    }
}

impl Fetcher {
    /// Removes the files that were not asked for the longest until the folder and `more` bytes are in bounds.
    /// Files that are open are left, since their removal frees nothing.
    pub(super) async fn make_room(&self, more: u64) -> Result<(), FetchError> {
        let began = Instant::now();
        let mut asked: Option<Instant> = None;
        while self.used() + more > self.proxy().cache_size {
            if self.remove_oldest().await {
                continue;
            }
            if began.elapsed() >= WAIT {
                return Err(FetchError::NoRoom { needed: more });
            }
            if asked.is_none_or(|asked| asked.elapsed() >= ASK) {
                asked = Some(Instant::now());
                self.shared.tell_all(|| Message::CloseFiles);
            }
            tokio::time::sleep(TICK).await;
        }
        Ok(())
    }

    /// The disk is full: removes what is not open, up to so many bytes; `false`: there is nothing.
    pub(super) async fn free(&self, bytes: u64) -> bool {
        let bound = self.index.borrow().bytes().saturating_sub(bytes);
        let mut freed = false;
        while self.index.borrow().bytes() > bound && self.remove_oldest().await {
            freed = true;
        }
        freed
    }

    /// Bytes of whole files, of parts, and of removed files that are open.
    fn used(&self) -> u64 {
        let open = &self.proxy().open;
        let mut gone = self.gone.borrow_mut();
        gone.retain(|gone| gone.at.elapsed() < OPENING || open.contains(gone.identity));
        let gone: u64 = gone.iter().map(|gone| gone.len).sum();
        self.index.borrow().bytes() + *self.reserved.borrow() + gone
    }

    /// Removes the file that was not asked for the longest among those that are not open; `false`: there is none.
    async fn remove_oldest(&self) -> bool {
        let oldest: Vec<String> =
            self.index.borrow().oldest().take(LOOKED_AT_MAX).map(str::to_owned).collect();
        for path in oldest {
            match self.identity(&path) {
                Some(identity) if self.proxy().open.contains(identity) => continue,
                _ => {}
            }
            self.remove(&path).await;
            return true;
        }
        false
    }

    /// Removes a fetched file.
    pub(super) async fn remove(&self, path: &str) {
        self.goes(path);
        if !self.index.borrow_mut().remove(path) {
            return;
        }
        match tokio_uring::fs::remove_file(self.path(path)).await {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                warn!(path, %error, "cannot remove a fetched file");
            }
            _ => {}
        }
    }

    /// A fetched file is about to be removed or replaced: its bytes count as long as it is open.
    pub(super) fn goes(&self, path: &str) {
        let known = self.index.borrow().size_of(path);
        let (Some(len), Some(identity)) = (known, self.identity(path)) else { return };
        if self.proxy().open.contains(identity) {
            self.gone.borrow_mut().push(Gone { identity, len, at: Instant::now() });
        }
    }

    fn identity(&self, path: &str) -> Option<Identity> {
        let meta = std::fs::symlink_metadata(self.path(path)).ok()?;
        // As statx(2) numbers devices.
        let (major, minor) = (rustix::fs::major(meta.dev()), rustix::fs::minor(meta.dev()));
        Some((u64::from(major) << 32 | u64::from(minor), meta.ino()))
    }
}
