//! The demo's temporary folder, which is removed when the demo ends, in whatever way.
//!
//! While the demo runs it holds a lock on the folder. A folder without a lock belongs to a demo that was
//! killed, and the next demo removes it. (Process ids would not do: containers that share a folder have
//! separate ones.)

use std::fs::File;
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, OFlags, flock};
use tracing::warn;

use crate::config::{Config, DEMO_FOLDER, Role};

/// How often creating the folder is tried while other demos clean up.
const ATTEMPTS: u32 = 3;

/// The folder, removed when this is dropped.
#[derive(Debug)]
pub struct DemoFolder {
    path: PathBuf,
    _lock: File,
}

impl DemoFolder {
    /// Creates the folder that the demo records into, and removes those of demos that were killed. `None` for
    /// other roles, and if the user has named a folder. If no folder can be created, the demo runs without
    /// recording.
    pub fn new(role: Role, config: &mut Config) -> Option<Self> {
        if !config.is_temporary(role) {
            return None;
        }
        let path = config.origin.data.parent()?.to_owned();
        sweep(path.parent()?);
        match create(&path) {
            Ok(lock) => {
                remove_before_abort(&path);
                Some(Self { path, _lock: lock })
            }
            Err(error) => {
                warn!(folder = %path.display(), %error, "no temporary folder: the demo is not recorded");
                config.origin.record = crate::config::Record::default();
                config.origin.record_apps.clear();
                None
            }
        }
    }
}

impl Drop for DemoFolder {
    fn drop(&mut self) {
        remove(&self.path);
    }
}

fn remove(path: &Path) {
    match std::fs::remove_dir_all(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            warn!(folder = %path.display(), %error, "cannot remove the demo's folder");
        }
        _ => {}
    }
}

/// A panic aborts a release build without running any drop: only the panic hook still runs.
fn remove_before_abort(path: &Path) {
    if cfg!(panic = "abort") {
        let path = path.to_owned();
        let hook = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            hook(panic);
            remove(&path);
        }));
    }
}

/// Creates a folder for this user alone and takes its lock. Another demo may remove it before it is locked.
fn create(path: &Path) -> io::Result<File> {
    for _ in 0..ATTEMPTS {
        std::fs::DirBuilder::new().mode(0o700).create(path)?;
        if let Some(lock) = lock(path)? {
            return Ok(lock);
        }
    }
    Err(io::ErrorKind::WouldBlock.into())
}

/// The folder's lock; `None` if another process has it, or the folder is gone.
fn lock(path: &Path) -> io::Result<Option<File>> {
    let flags = i32::try_from((OFlags::DIRECTORY | OFlags::NOFOLLOW).bits()).map_err(io::Error::other)?;
    let folder = match std::fs::OpenOptions::new().read(true).custom_flags(flags).open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        opened => opened?,
    };
    if flock(&folder, FlockOperation::NonBlockingLockExclusive).is_err() {
        return Ok(None);
    }
    let same = std::fs::symlink_metadata(path).is_ok_and(|now| {
        folder.metadata().is_ok_and(|locked| (locked.dev(), locked.ino()) == (now.dev(), now.ino()))
    });
    Ok(same.then_some(folder))
}

/// Removes the folders of this user's demos that have ended without doing so.
fn sweep(parent: &Path) {
    let Ok(entries) = std::fs::read_dir(parent) else { return };
    for entry in entries.flatten() {
        let name = entry.file_name();
        if !name.to_str().is_some_and(|name| name.starts_with(DEMO_FOLDER)) {
            continue;
        }
        let own = std::fs::symlink_metadata(entry.path())
            .is_ok_and(|facts| facts.is_dir() && facts.uid() == rustix::process::geteuid().as_raw());
        if own && let Ok(Some(_lock)) = lock(&entry.path()) {
            remove(&entry.path());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folders_of_killed_demos_are_removed_and_those_in_use_stay() {
        let parent = std::env::temp_dir().join(format!("uringcast-sweep-{}", std::process::id()));
        let name = |number: u32| parent.join(format!("{DEMO_FOLDER}{number}"));
        std::fs::create_dir_all(name(1).join("data/hls")).unwrap();
        std::fs::create_dir_all(parent.join("other")).unwrap();
        std::os::unix::fs::symlink(parent.join("other"), name(3)).unwrap();
        let living = create(&name(2)).unwrap();
        sweep(&parent);
        assert!(!name(1).exists() && name(2).exists() && parent.join("other").exists());
        assert!(name(3).is_symlink(), "anything but a folder is left alone");
        assert!(create(&name(2)).is_err(), "it exists already");
        drop(living);
        // A program that another test is starting at this moment has inherited the lock until it runs.
        let gone = (0..500).any(|_| {
            sweep(&parent);
            std::thread::sleep(std::time::Duration::from_millis(10));
            !name(2).exists()
        });
        assert!(gone);
        std::fs::remove_dir_all(&parent).unwrap();
    }

    #[test]
    fn only_the_demo_s_own_folder_is_removed() {
        let mut config = Config::for_role(Role::Origin);
        assert!(DemoFolder::new(Role::Origin, &mut config).is_none());
        let demo = Role::Demo { gateway: false };
        let mut config = Config::for_role(demo);
        config.origin.data = "/nonexistent/own".into();
        assert!(DemoFolder::new(demo, &mut config).is_none());
        assert!(config.origin.record.is_any(), "recordings go to the user's folder");
    }
}
