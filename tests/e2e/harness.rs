//! What the tests share: processes under guard, ffmpeg, viewers whose tag chain is checked.

pub(crate) mod client;
pub(crate) mod disk;
pub(crate) mod ffmpeg;
pub(crate) mod flv;
pub(crate) mod nginx;
pub(crate) mod players;
pub(crate) mod process;
pub(crate) mod raw;
pub(crate) mod secure;
pub(crate) mod watch;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

pub(crate) use client::{Flavor, http};
pub(crate) use process::Server;
pub(crate) use watch::Watch;

/// The upper bound for anything that should happen at once: wide, for two busy cores.
pub(crate) const SOON: Duration = Duration::from_secs(40);

/// Ends the test early, with its reason printed, where ffmpeg is missing (never in CI).
macro_rules! need_ffmpeg {
    () => {
        if !crate::harness::ffmpeg::available() {
            return;
        }
    };
}
pub(crate) use need_ffmpeg;

/// Asks `probe` again and again until it gives something.
///
/// # Panics
/// After [`SOON`], naming `what`.
pub(crate) fn until<T>(what: &str, mut probe: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + SOON;
    loop {
        if let Some(found) = probe() {
            return found;
        }
        assert!(Instant::now() < deadline, "waited {SOON:?} in vain: {what}");
        std::thread::sleep(Duration::from_millis(25));
    }
}

/// An address where nobody listens: the tests' servers bind to 127.0.0.1, and a free port of that may be another's
/// by the time it is asked.
pub(crate) fn nobody() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 2], 9))
}

/// A directory of one test, removed when the test has passed.
pub(crate) struct Scratch(PathBuf);

impl Scratch {
    pub(crate) fn new(name: &str) -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let unique = format!("{name}-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(unique);
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    pub(crate) fn path(&self, file: &str) -> PathBuf {
        self.0.join(file)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            let _ = std::fs::remove_dir_all(&self.0);
        }
    }
}
