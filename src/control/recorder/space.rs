//! Space on a disk: bytes, and the files that can still be created.

use std::io;
use std::ops::AddAssign;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// An amount of space.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Space {
    pub(super) bytes: u64,
    pub(super) files: u64,
}

impl Space {
    /// What `other` does not cover.
    pub(super) fn minus(self, other: Self) -> Self {
        let (bytes, files) = (self.bytes.saturating_sub(other.bytes), self.files.saturating_sub(other.files));
        Self { bytes, files }
    }

    /// The smaller amounts of both.
    pub(super) fn at_most(self, other: Self) -> Self {
        Self { bytes: self.bytes.min(other.bytes), files: self.files.min(other.files) }
    }

    /// Half of it.
    pub(super) fn half(self) -> Self {
        Self { bytes: self.bytes / 2, files: self.files / 2 }
    }

    /// Whether neither bytes nor files are left.
    pub(super) fn is_none(self) -> bool {
        self == Self::default()
    }
}

impl AddAssign for Space {
    fn add_assign(&mut self, other: Self) {
        self.bytes = self.bytes.saturating_add(other.bytes);
        self.files = self.files.saturating_add(other.files);
    }
}

/// Removed files that are still open, so that their space is not free.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Held {
    pub(super) space: Space,
    /// The processes that have them open, as `name (pid)`.
    pub(super) by: Vec<String>,
}

/// The free space on the file system of `path`. File systems without a limit of files say that they have none.
pub(super) fn free(path: &Path) -> io::Result<Space> {
    let stat = rustix::fs::statvfs(path)?;
    let files = if stat.f_files == 0 { u64::MAX } else { stat.f_favail };
    Ok(Space { bytes: stat.f_bavail.saturating_mul(stat.f_frsize), files })
}

/// The removed files of the folder `data` that processes have open, as far as this process may see that: its own
/// and those of its user.
pub(super) fn held(data: &Path) -> io::Result<Held> {
    let data = std::fs::canonicalize(data)?;
    let mut held = Held::default();
    let mut seen = std::collections::HashSet::new();
    for process in std::fs::read_dir("/proc")?.flatten() {
        let is_process = process.file_name().to_str().is_some_and(|name| name.parse::<u32>().is_ok());
        let Some(files) = is_process.then(|| std::fs::read_dir(process.path().join("fd")).ok()).flatten()
        else {
            continue;
        };
        let mut holds = false;
        for file in files.flatten() {
            let Ok(target) = std::fs::read_link(file.path()) else { continue };
            if !target.starts_with(&data) || !target.as_os_str().as_encoded_bytes().ends_with(b" (deleted)") {
                continue;
            }
            let Ok(meta) = std::fs::metadata(file.path()) else { continue };
            if meta.nlink() > 0 {
                continue;
            }
            holds = true;
            if seen.insert((meta.dev(), meta.ino())) {
                held.space += Space { bytes: meta.blocks().saturating_mul(512), files: 1 };
            }
        }
        if holds {
            let name = std::fs::read_to_string(process.path().join("comm")).unwrap_or_default();
            held.by.push(format!("{} ({})", name.trim(), process.file_name().display()));
        }
    }
    Ok(held)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_removed_file_that_is_open_holds_its_space() {
        let dir = std::env::temp_dir().join(format!("uringcast-held-{}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        let path = dir.join("file");
        std::fs::write(&path, vec![1; 100_000]).unwrap();
        let open = std::fs::File::open(&path).unwrap();
        assert_eq!(held(&dir).unwrap(), Held::default(), "it has its name");
        std::fs::remove_file(&path).unwrap();
        let found = held(&dir).unwrap();
        assert!(found.space.bytes >= 100_000 && found.space.files == 1, "{found:?}");
        assert!(found.by.iter().any(|name| name.contains(&std::process::id().to_string())), "{found:?}");
        drop(open);
        assert_eq!(held(&dir).unwrap(), Held::default());
        std::fs::remove_dir_all(&dir).unwrap();
    }
}
