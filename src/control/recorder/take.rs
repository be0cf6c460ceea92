//! The folder of a take, and what becomes of the take before it.
//!
//! The newest take of `app/name` is in `{kind}/app/name`. When another begins, the one before is renamed to
//! `{kind}/app/name@{when it began}`: `@` is in no stream's name, so the two never meet.

use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::disk::{Disk, Entry, read_all, replace};
use super::fmp4::{MERGE, SEPARATE};

/// The file that says when a take began. A folder without it is nobody's take.
pub(super) const ABOUT: &str = "take.json";
const ABOUT_MAX: usize = 4096;
/// Takes of one stream that began within the same second.
const SAME_SECOND_MAX: u32 = 1000;

/// What [`ABOUT`] holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct About {
    /// The stream's name.
    pub(super) stream: String,
    /// As `20261121T091545Z`.
    pub(super) began: String,
    /// Of no other take.
    pub(super) id: String,
}

/// A take that was moved away: its id, and where it is.
pub(super) type Moved = (String, PathBuf);

/// Makes the folder of a take; an earlier take that is there is moved away first.
pub(super) async fn begin<D: Disk>(disk: &D, dir: &Path, about: &About) -> io::Result<Option<Moved>> {
    let moved = match found(disk, dir).await? {
        // An attempt that failed halfway.
        Some(own) if own.id == about.id => None,
        Some(earlier) => {
            let place = move_away(disk, dir, &earlier.began).await?;
            Some((earlier.id, place))
        }
        None => None,
    };
    disk.make_dir(dir).await?;
    replace(disk, &dir.join(ABOUT), serde_json::to_vec(about)?, false).await?;
    Ok(moved)
}

/// What is known of the take in `dir`; `None`: there is none.
pub(super) async fn found<D: Disk>(disk: &D, dir: &Path) -> io::Result<Option<About>> {
    let bytes = match read_all(disk, &dir.join(ABOUT), ABOUT_MAX).await {
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
            return Ok(None);
        }
        read => read?,
    };
    let unknown = || About { stream: String::new(), began: String::new(), id: String::new() };
    let mut about = serde_json::from_slice::<About>(&bytes).unwrap_or_else(|_| unknown());
    // Whatever stands there, it becomes part of a path.
    if about.began.len() != 16 || !about.began.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
        "unknown".clone_into(&mut about.began);
    }
    Ok(Some(about))
}

async fn move_away<D: Disk>(disk: &D, dir: &Path, began: &str) -> io::Result<PathBuf> {
    for count in 1..=SAME_SECOND_MAX {
        let mut name = dir.as_os_str().to_owned();
        name.push("@");
        name.push(began);
        if count > 1 {
            name.push(format!("-{count}"));
        }
        let place = PathBuf::from(name);
        match disk.list(&place).await {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                move_to(disk, dir, &place).await?;
                return Ok(place);
            }
            Err(error) => return Err(error),
            Ok(_) => {}
        }
    }
    Err(io::Error::from(io::ErrorKind::AlreadyExists))
}

/// Moves a take. Where other streams' folders are inside (`app/name` and `app/name/other`), these stay.
async fn move_to<D: Disk>(disk: &D, dir: &Path, place: &Path) -> io::Result<()> {
    let Some(own) = own_among_others(disk, dir).await? else { return disk.rename(dir, place).await };
    disk.make_dir(place).await?;
    for name in own {
        disk.rename(&dir.join(&name), &place.join(&name)).await?;
    }
    Ok(())
}

/// Removes a take, but not other streams' folders inside.
pub(super) async fn remove<D: Disk>(disk: &D, dir: &Path) -> io::Result<()> {
    let Some(own) = own_among_others(disk, dir).await? else { return disk.remove_dir(dir).await };
    for name in own {
        let path = dir.join(&name);
        if [MERGE, SEPARATE].contains(&name.as_str()) {
            disk.remove_dir(&path).await?;
        } else {
            disk.remove(&path).await?;
        }
    }
    Ok(())
}

/// What in a folder belongs to its take, [`ABOUT`] last; `None`: all of it.
async fn own_among_others<D: Disk>(disk: &D, dir: &Path) -> io::Result<Option<Vec<String>>> {
    let entries = disk.list(dir).await?;
    let other = |entry: &Entry| entry.is_dir && ![MERGE, SEPARATE].contains(&entry.name.as_str());
    if !entries.iter().any(other) {
        return Ok(None);
    }
    let mut own: Vec<String> =
        entries.into_iter().filter(|entry| !other(entry)).map(|entry| entry.name).collect();
    own.sort_by_key(|name| name == ABOUT);
    Ok(Some(own))
}
