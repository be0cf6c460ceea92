//! Disks of a test's own, which can be full or frozen, if this machine lets us mount them.

use std::path::PathBuf;
use std::process::Command;

use super::Scratch;

/// A mounted file system.
pub(crate) struct Disk(pub(crate) PathBuf);

/// A disk that stands still until this is dropped: before the processes that wait for it are.
pub(crate) struct Frozen(PathBuf);

fn done(command: &mut Command) -> bool {
    command.output().is_ok_and(|output| output.status.success())
}

impl Disk {
    /// A small one, of a size such as `4m`. `None`: there is no right to mount it, which is printed.
    pub(crate) fn small(scratch: &Scratch, size: &str) -> Option<Self> {
        Self::mount(
            scratch,
            Command::new("mount").args(["-t", "tmpfs", "-o", &format!("size={size}"), "tmpfs"]),
        )
    }

    /// One that can be frozen. `None`: there is no right to mount it, which is printed.
    pub(crate) fn freezable(scratch: &Scratch) -> Option<Self> {
        let image = scratch.path("image");
        std::fs::File::create(&image).unwrap().set_len(64 << 20).unwrap();
        if !done(Command::new("mkfs.ext4").args(["-q", "-F"]).arg(&image)) {
            eprintln!("skipped: no mkfs.ext4");
            return None;
        }
        Self::mount(scratch, Command::new("mount").args(["-o", "loop"]).arg(&image))
    }

    fn mount(scratch: &Scratch, command: &mut Command) -> Option<Self> {
        let at = scratch.path("disk");
        std::fs::create_dir_all(&at).unwrap();
        let mounted = done(command.arg(&at));
        if !mounted {
            eprintln!("skipped: no right to mount a disk");
        }
        mounted.then_some(Self(at))
    }

    pub(crate) fn freeze(&self) -> Frozen {
        assert!(done(Command::new("fsfreeze").arg("-f").arg(&self.0)));
        Frozen(self.0.clone())
    }
}

impl Drop for Frozen {
    fn drop(&mut self) {
        done(Command::new("fsfreeze").arg("-u").arg(&self.0));
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        done(Command::new("umount").arg("-l").arg(&self.0));
    }
}
