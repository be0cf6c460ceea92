//! The check at the start whether recordings can be written at all.

use std::fs::OpenOptions;
use std::io;
use std::path::Path;

use super::layout::Kind;
use crate::config::{Config, Role};
use crate::server::start::StartError;

/// Checks that the folder of the recordings can be written, if anything is recorded. Blocks.
///
/// # Errors
/// [`StartError::Data`]. A disk that is full is none: it may have space again.
pub fn check_data(role: Role, config: &Config) -> Result<(), StartError> {
    let data = &config.origin.data;
    if !role.has_origin() || !config.origin.records() || config.is_temporary(role) {
        return Ok(());
    }
    let folders = Kind::EVERY.map(|kind| data.join(kind.folder()));
    let existing = folders.iter().filter(|folder| folder.exists());
    for folder in std::iter::once(data).chain(existing) {
        match write_to(folder) {
            Err(error)
                if matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded) => {}
            Err(error) => return Err(StartError::Data { folder: folder.clone(), error }),
            Ok(()) => {}
        }
    }
    Ok(())
}

/// Creates the folder, and a file in it, which is removed again.
fn write_to(folder: &Path) -> io::Result<()> {
    std::fs::create_dir_all(folder)?;
    let probe = folder.join(format!(".uringcast-{}.tmp", std::process::id()));
    OpenOptions::new().write(true).create(true).truncate(true).open(&probe)?;
    std::fs::remove_file(&probe)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Record;

    #[test]
    fn a_folder_that_cannot_be_written_is_an_error_only_if_something_is_recorded() {
        let dir = std::env::temp_dir().join(format!("uringcast-data-{}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        let mut config = Config::default();
        // A file in place of the folder, or of the folder of a kind.
        std::fs::write(dir.join("file"), "").unwrap();
        config.origin.data = dir.join("file");
        assert!(check_data(Role::Origin, &config).is_ok(), "nothing is recorded");
        config.origin.record = Record { flv: true, hls: false, fmp4: false };
        let error = check_data(Role::Origin, &config).unwrap_err();
        assert_eq!(error.exit_code(), 78);
        assert!(error.to_string().contains("--data"), "{error}");
        config.origin.data = dir.join("new/data");
        assert!(check_data(Role::Origin, &config).is_ok());
        std::fs::write(dir.join("new/data/flv"), "").unwrap();
        assert!(check_data(Role::Origin, &config).is_err());
        let left: Vec<_> = std::fs::read_dir(dir.join("new/data")).unwrap().flatten().collect();
        assert_eq!(left.len(), 1, "the probe is removed: {left:?}");
        std::fs::remove_dir_all(&dir).unwrap();
    }
}
