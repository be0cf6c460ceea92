//! No two streams share a file, however they are called.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use proptest::prelude::*;

use super::common::Common;
use super::layout::Kind;
use super::sim::Sim;
use super::tests::{mend, one_parted, one_take, runtime};
use crate::live::key::{NAME_MAX, StreamKey};

/// A name that a file or folder of a recording of `live/x` has at some time.
#[derive(Debug)]
struct Made {
    /// Below the data folder.
    path: String,
    is_dir: bool,
}

/// All of them: of takes that were repeated, split, finished and moved away.
static MADE: LazyLock<Vec<Made>> = LazyLock::new(|| {
    let mut made = Vec::new();
    for kind in Kind::EVERY {
        let disk = Sim::default();
        runtime().block_on(async {
            one_take(kind, &disk, 9, "a").await;
            mend(&disk, kind, &Common::default()).await;
            one_parted(kind, &disk, 9, 4).await;
            mend(&disk, kind, &Common::default()).await;
        });
        let ever = disk.ever();
        let is_dir = |path: &Path| ever.iter().any(|other| other != path && other.starts_with(path));
        for path in &ever {
            let below = path.strip_prefix("/data").unwrap_or(path).display().to_string();
            if below.contains("/live/x") {
                made.push(Made { path: below, is_dir: is_dir(path) });
            }
        }
    }
    made
});

/// The names that a recording of `key` would have.
fn made_by(key: &str) -> (BTreeSet<PathBuf>, BTreeSet<PathBuf>) {
    let name = key.rsplit('/').next().unwrap();
    let (mut files, mut dirs) = (BTreeSet::new(), BTreeSet::new());
    for made in MADE.iter() {
        let path = made.path.replacen("/live/x", &format!("/{key}"), 1);
        let path = PathBuf::from(path.replace("/x_full.mp4", &format!("/{name}_full.mp4")));
        if made.is_dir { &mut dirs } else { &mut files }.insert(path);
    }
    (files, dirs)
}

fn component() -> impl Strategy<Value = String> {
    let own = MADE.iter().flat_map(|made| made.path.split('/').map(str::to_owned)).collect::<BTreeSet<_>>();
    let own: Vec<String> = own.into_iter().collect();
    let word = prop_oneof![
        5 => proptest::sample::select(own),
        3 => proptest::sample::select(vec!["x", "live", "y", "hls", "segment_1", "index"]).prop_map(str::to_owned),
        1 => "[a-z0-9._-]{1,6}",
    ];
    let ending =
        proptest::sample::select(vec!["", "", "", ".tmp", ".journal", ".ts", ".flv", ".m3u8", "@.tmp"]);
    (word, ending).prop_map(|(word, ending)| format!("{word}{ending}"))
}

fn key() -> impl Strategy<Value = String> {
    proptest::collection::vec(component(), 2..5).prop_map(|components| components.join("/"))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, ..ProptestConfig::default() })]

    #[test]
    fn two_streams_never_share_a_file(one in key(), other in key(), below in component()) {
        let inside = format!("{one}/{below}");
        for other in [other, inside] {
            if one == other || StreamKey::parse(&one).is_err() || StreamKey::parse(&other).is_err() {
                continue;
            }
            let (files, dirs) = made_by(&one);
            let (other_files, other_dirs) = made_by(&other);
            prop_assert!(files.is_disjoint(&other_files), "{} and {}", one, other);
            // A folder may hold another stream's folder, but no name is a file of one and a folder of the other.
            let above = |dirs: &BTreeSet<PathBuf>| -> BTreeSet<PathBuf> {
                dirs.iter().flat_map(|dir| dir.ancestors().map(Path::to_owned)).collect()
            };
            prop_assert!(files.is_disjoint(&above(&other_dirs)), "{} and {}", one, other);
            prop_assert!(other_files.is_disjoint(&above(&dirs)), "{} and {}", one, other);
        }
    }
}

#[test]
fn every_name_in_a_recording_is_refused_for_streams_inside() {
    for made in MADE.iter().filter(|made| made.path.contains("/live/x/")) {
        let (_, key) = made.path.split_once('/').unwrap();
        assert!(StreamKey::parse(key).is_err(), "{key}");
    }
}

#[test]
fn the_longest_name_fits_into_all_names_of_a_recording() {
    let key = format!("live/{}", "n".repeat(NAME_MAX));
    assert!(StreamKey::parse(&key).is_ok());
    let (files, dirs) = made_by(&key);
    let longest = files.iter().chain(&dirs).flat_map(|path| path.iter().map(|name| name.len())).max();
    // More takes than one within a second have a count.
    assert!(longest.unwrap() + "-1000".len() <= 255, "{longest:?}");
}
