//! What a role serves: its folder, and what of it.

use std::path::PathBuf;
use std::sync::Arc;

use arc_swap::ArcSwapOption;

use super::audience::Audience;
use super::library::Library;
use super::proxy::Proxy;
use crate::live::key;
use crate::package::shelf::Shelf;
use crate::protocol::http::RelPath;
use crate::server::http::routes::RECORDINGS;
use crate::server::listing::Listing;
use crate::uring::Millis;
use crate::uring::files::Folder;

/// Files that a role serves.
#[derive(Debug)]
pub struct Site {
    root: PathBuf,
    /// The root, opened by the control thread; `None` while there is no such folder.
    folder: ArcSwapOption<Folder>,
    /// Whether this is an origin's: embedded pages come first, and of the folder only recordings are shown.
    origin: bool,
    /// The live files of streams, which come before those in the folder.
    pub live: Arc<Shelf>,
    /// Where files come from that are not there.
    pub proxy: Option<Proxy>,
    /// Who watches by playlists and segments.
    pub audience: Audience,
    /// The recordings in it.
    pub(in crate::server) library: Library,
}

impl Site {
    /// An origin's data.
    pub(in crate::server) fn of_origin(root: PathBuf) -> Self {
        Self {
            root,
            folder: ArcSwapOption::empty(),
            origin: true,
            live: Arc::default(),
            proxy: None,
            audience: Audience::default(),
            library: Library::default(),
        }
    }

    /// A file gateway's root: files there come before the embedded pages. It shows the live files of an origin in the
    /// same process whose data is that folder.
    pub(in crate::server) fn of_gateway(root: PathBuf, origin: Option<&Self>) -> Self {
        let own = origin.filter(|origin| origin.root == root).map(|origin| Arc::clone(&origin.live));
        Self { origin: false, live: own.unwrap_or_default(), ..Self::of_origin(root) }
    }

    /// Opens the folder, or opens it again where another one has taken its place.
    ///
    /// # Errors
    /// What the system says; what was open stays.
    pub(in crate::server) fn open(&self) -> std::io::Result<()> {
        let found = Folder::open(&self.root);
        match found {
            Ok(folder) => {
                let known = self.folder.load().as_ref().is_some_and(|known| known.is_same(&folder));
                if !known {
                    self.folder.store(Some(folder));
                }
                Ok(())
            }
            Err(error) => Err(error),
        }
    }

    /// Opens the folder again where another one has taken its place or it has come. Blocks.
    pub fn refresh(&self) {
        if let Err(error) = self.open() {
            tracing::debug!(root = %self.root.display(), %error, "no such folder to serve");
        }
    }

    /// Looks which recordings there are. Blocks.
    pub fn list_recordings(&self, now: Millis) {
        self.library.refresh(&self.root, now);
    }

    pub(in crate::server) fn folder(&self) -> Option<Arc<Folder>> {
        self.folder.load_full()
    }

    /// The recordings that there are; made by the control thread.
    pub fn recordings(&self) -> &Listing {
        &self.library.listing
    }

    /// Whether embedded pages come before files.
    pub(in crate::server) fn pages_first(&self) -> bool {
        self.origin
    }

    /// Whether a path is one that is shown: the recorder's own files are not. An origin shows recordings and challenges.
    pub(in crate::server) fn shows(&self, path: &RelPath) -> bool {
        let is_public = !path.as_str().split('/').any(key::is_internal);
        is_public && (!self.origin || RECORDINGS.contains(&path.first()) || path.is_challenge())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_recorders_own_files_are_not_shown() {
        let (origin, gateway) = (Site::of_origin("/data".into()), Site::of_gateway("/data".into(), None));
        let shown = |path: &str| {
            let path = RelPath::parse(path).unwrap();
            (origin.shows(&path), gateway.shows(&path))
        };
        for path in ["/hls/live/x/index.m3u8", "/mp4/live/x@20261121T091545Z/output_merge/x_full.mp4"] {
            assert_eq!(shown(path), (true, true), "{path}");
        }
        assert_eq!(shown("/notes/journal"), (false, true));
        for path in [
            "/hls/live/x/take.json",
            "/hls/live/x/index.m3u8.journal",
            "/mp4/live/x/output_merge/segment_3.m4s.tmp",
            "/hls/live/x@.tmp/index.m3u8",
        ] {
            assert_eq!(shown(path), (false, false), "{path}");
        }
    }
}
