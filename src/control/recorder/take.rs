//! The folder of a take, and what becomes of the take before it.
//!
//! The newest take of `app/name` is in `{kind}/app/name`. When another begins, the one before is renamed to
//! `{kind}/app/name@{when it began}`: `@` is in no stream's name, so the two never meet.

use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::disk::{Disk, read_all, replace};

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
}

/// Makes the folder of a take; an earlier take that is there is moved away first, and its new place given.
pub(super) async fn begin<D: Disk>(disk: &D, dir: &Path, about: &About) -> io::Result<Option<PathBuf>> {
    let moved = match began(disk, dir).await? {
        Some(earlier) => Some(move_away(disk, dir, &earlier).await?),
        None => None,
    };
    disk.make_dir(dir).await?;
    replace(disk, &dir.join(ABOUT), serde_json::to_vec(about)?, false).await?;
    Ok(moved)
}

/// When the take in `dir` began; `None`: there is none.
async fn began<D: Disk>(disk: &D, dir: &Path) -> io::Result<Option<String>> {
    match read_all(disk, &dir.join(ABOUT), ABOUT_MAX).await {
        Ok(bytes) => {
            let about = serde_json::from_slice::<About>(&bytes).ok();
            // Whatever stands there, it becomes part of a path.
            let good = |began: &String| began.len() == 16 && began.bytes().all(|b| b.is_ascii_alphanumeric());
            Ok(Some(about.map(|about| about.began).filter(good).unwrap_or_else(|| "unknown".to_owned())))
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
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
                disk.rename(dir, &place).await?;
                return Ok(place);
            }
            Err(error) => return Err(error),
            Ok(_) => {}
        }
    }
    Err(io::Error::from(io::ErrorKind::AlreadyExists))
}
