//! The folder of a take that begins, and where the earlier take goes.
//!
//! That takes several steps, of which a crash may leave a part: the next take's folder is prepared under a temporary
//! name, the earlier take is moved away, and the folder gets its own name. What was interrupted is completed by the
//! next take of the stream or by the next start, whichever comes first ([`recover`]):
//!
//! - An earlier take that other streams' folders kept from being moved at once is in two places. Its description is
//!   moved last, so that the move can be continued.
//! - A folder under its temporary name is dropped while the earlier take is still in its place. Afterwards it holds
//!   the stream's numbers, and what live players need of the take that was split off: it gets its own name.

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};

use super::disk::{ASIDE, Disk, Entry, listed};
use super::layout::ABOUT;
use super::playlist::Carry;
use super::take::{
    About, Numbers, beside, found, fresh, is_others, names_of, own_among_others, written_numbers,
};

/// The most takes of one stream that may begin within the same second.
const SAME_SECOND_MAX: u32 = 1000;

/// An earlier take that was moved to make way for the next one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Moved {
    /// Its id.
    pub(super) id: String,
    /// Where it is now.
    pub(super) place: PathBuf,
}

/// Creates the folder of a take; an earlier take there is moved away. The new folder is prepared under a
/// temporary name, so that a full disk changes nothing. Returns the first numbers of its playlists, and adds what was
/// moved to `moved`, also if a later step fails: the next attempt does not move it again.
pub(super) async fn begin<D: Disk>(
    disk: &D,
    dir: &Path,
    about: &About,
    carry: &Carry,
    moved: &mut Vec<Moved>,
) -> io::Result<Numbers> {
    let fresh = fresh(dir);
    if found(disk, &fresh).await?.is_none_or(|attempt| attempt.id != about.id) {
        moved.extend(recover(disk, dir).await?);
    }
    let earlier = found(disk, dir).await?;
    let first = match &earlier {
        // An attempt that failed halfway.
        Some(own) if own.id == about.id => return Ok(own.first),
        _ => written_numbers(disk, dir).await?.at_least(about.first),
    };
    let about = serde_json::to_vec(&About { first, ..about.clone() })?;
    disk.make_dir(&fresh).await?;
    disk.replace(&fresh.join(ABOUT), about, false).await?;
    bring(disk, dir, &fresh, carry).await?;
    if let Some(earlier) = earlier.filter(|earlier| earlier.next.is_none()) {
        let place = move_away(disk, dir, &earlier.began).await?;
        moved.push(Moved { id: earlier.id, place });
    }
    place(disk, &fresh, dir).await?;
    Ok(first)
}

/// Gives the folder `fresh` its own name, `dir`.
async fn place<D: Disk>(disk: &D, fresh: &Path, dir: &Path) -> io::Result<()> {
    if disk.rename(fresh, dir).await.is_ok() {
        return Ok(());
    }
    // Something stays in the folder: other streams' folders, or what a removed take has left.
    disk.make_dir(dir).await?;
    for name in names_of(disk.list(fresh).await?) {
        disk.rename(&fresh.join(&name), &dir.join(&name)).await?;
    }
    disk.remove_dir(fresh).await
}

/// Puts into the folder `fresh` what is carried over from the take in `dir`.
async fn bring<D: Disk>(disk: &D, dir: &Path, fresh: &Path, carry: &Carry) -> io::Result<()> {
    let written = carry.written.iter().map(|(name, _)| name);
    for folder in carry.linked.iter().chain(written).filter_map(|name| name.parent()).collect::<BTreeSet<_>>()
    {
        disk.make_dir(&fresh.join(folder)).await?;
    }
    for name in &carry.linked {
        match disk.link(&dir.join(name), &fresh.join(name)).await {
            // It was removed, or an earlier attempt has brought it.
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::AlreadyExists) => {}
            linked => linked?,
        }
    }
    for (name, bytes) in &carry.written {
        disk.replace(&fresh.join(name), bytes.clone(), false).await?;
    }
    Ok(())
}

async fn move_away<D: Disk>(disk: &D, dir: &Path, began: &str) -> io::Result<PathBuf> {
    if let Some(place) = half_moved(disk, dir, began).await? {
        move_to(disk, dir, &place).await?;
        return Ok(place);
    }
    for place in places(dir, began) {
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

/// Moves a take, or what is left of it to move. Folders of other streams inside it (`app/name` and `app/name/other`)
/// stay.
async fn move_to<D: Disk>(disk: &D, dir: &Path, place: &Path) -> io::Result<()> {
    let own = match own_among_others(disk, dir).await? {
        Some(own) => own,
        None if disk.list(place).await.is_err() => return disk.rename(dir, place).await,
        None => names_of(disk.list(dir).await?),
    };
    disk.make_dir(place).await?;
    for name in own {
        disk.rename(&dir.join(&name), &place.join(&name)).await?;
    }
    Ok(())
}

/// The places for an earlier take of `dir`, in their order.
fn places(dir: &Path, began: &str) -> impl Iterator<Item = PathBuf> {
    (1..=SAME_SECOND_MAX).map(move |count| {
        let suffix = if count == 1 { String::new() } else { format!("-{count}") };
        beside(dir, &format!("{began}{suffix}"))
    })
}

/// A folder that a crash has left, by its name: the stream's folder that it belongs to. `described`: it has an
/// [`ABOUT`].
pub(super) fn left_by_crash(dir: &Path, described: bool) -> Option<PathBuf> {
    let (stream, rest) = dir.file_name()?.to_str()?.split_once('@')?;
    (rest == ASIDE || !described).then(|| dir.with_file_name(stream))
}

/// Completes what was interrupted when a take began in `dir`. Returns the earlier take, if its move was continued.
/// Nothing may work in `dir` meanwhile. May itself be interrupted and repeated.
pub(super) async fn recover<D: Disk>(disk: &D, dir: &Path) -> io::Result<Option<Moved>> {
    let mut moved = None;
    if let Some(About { id, began, next: None, .. }) = found(disk, dir).await?
        && let Some(place) = half_moved(disk, dir, &began).await?
    {
        move_to(disk, dir, &place).await?;
        moved = Some(Moved { id, place });
    }
    let fresh = fresh(dir);
    let Some(about) = found(disk, &fresh).await? else {
        // It has no description yet, or all else of it is in place.
        if disk.list(&fresh).await.is_ok() {
            disk.remove_dir(&fresh).await?;
        }
        return Ok(moved);
    };
    let has_take = found(disk, dir).await?.is_some();
    let is_carried = has_own(disk, &fresh).await? || has_own(disk, dir).await?;
    if has_take || !is_carried && about.first == Numbers::default() {
        disk.remove_dir(&fresh).await?;
    } else if is_carried {
        place(disk, &fresh, dir).await?;
    } else {
        // A take without anything in it: only its numbers matter.
        let numbers = About { next: Some(about.first), ..about };
        disk.replace(&fresh.join(ABOUT), serde_json::to_vec(&numbers)?, false).await?;
        place(disk, &fresh, dir).await?;
    }
    Ok(moved)
}

/// The place to which a part of the take in `dir` was moved; the part that is not there can be moved there.
async fn half_moved<D: Disk>(disk: &D, dir: &Path, began: &str) -> io::Result<Option<PathBuf>> {
    for place in places(dir, began) {
        let there = match disk.list(&place).await {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            there => there?,
        };
        if there.iter().any(|entry| entry.name == ABOUT) {
            continue;
        }
        let names = |entries: Vec<Entry>| -> BTreeSet<String> {
            entries.into_iter().map(|entry| entry.name).collect()
        };
        let here = names(disk.list(dir).await?);
        if here.is_disjoint(&names(there)) {
            return Ok(Some(place));
        }
    }
    Ok(None)
}

/// Whether a folder holds anything of a take other than its description.
async fn has_own<D: Disk>(disk: &D, dir: &Path) -> io::Result<bool> {
    let entries = listed(disk, dir).await?;
    Ok(entries.iter().any(|entry| !is_others(entry) && !entry.name.starts_with(ABOUT)))
}
