//! Dependencies point one way: which module may name which, as `src/lib.rs` and ARCHITECTURE.md say.
#![allow(clippy::unwrap_used, reason = "a test")]

use std::collections::BTreeSet;
use std::path::Path;

/// A module and the others that it may use.
const MAY_USE: &[(&str, &[&str])] = &[
    ("media", &[]),
    ("memory", &[]),
    ("protocol", &["media"]),
    ("live", &["media", "memory"]),
    ("uring", &["memory"]),
    ("config", &[]),
    ("server", &["config", "live", "media", "memory", "protocol", "uring"]),
    ("control", &["config", "live", "media", "memory", "protocol", "server"]),
    ("tools", &["media", "protocol"]),
    ("cli", &["config", "tools"]),
];

#[test]
fn dependencies_point_one_way() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut seen = BTreeSet::new();
    for file in sources(&root) {
        let module = module_of(&root, &file);
        let Some(module) = module else { continue };
        let (_, allowed) = MAY_USE
            .iter()
            .find(|(name, _)| *name == module)
            .unwrap_or_else(|| panic!("{}: a new module needs a line in this table", file.display()));
        seen.insert(module.clone());
        let text = std::fs::read_to_string(&file).unwrap();
        for used in crate_paths(&text) {
            assert!(
                used == module || allowed.contains(&used.as_str()),
                "{}: {module} must not use {used}",
                file.display()
            );
        }
    }
    assert_eq!(seen.len(), MAY_USE.len(), "a module in the table is gone: {seen:?}");
}

fn sources(folder: &Path) -> Vec<std::path::PathBuf> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files.extend(sources(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
    files
}

/// `media` for `src/media/tag.rs`; none for `lib.rs` and `main.rs`, which name everything.
fn module_of(root: &Path, file: &Path) -> Option<String> {
    let first = file.strip_prefix(root).unwrap().components().next().unwrap();
    let name = first.as_os_str().to_str().unwrap().trim_end_matches(".rs").to_owned();
    (name != "lib" && name != "main").then_some(name)
}

/// The names behind `crate::` in code.
fn crate_paths(text: &str) -> impl Iterator<Item = String> + '_ {
    let code = text.lines().filter(|line| !line.trim_start().starts_with("//"));
    code.flat_map(|line| line.split("crate::").skip(1))
        .map(|rest| rest.chars().take_while(|c| c.is_ascii_alphanumeric() || *c == '_').collect::<String>())
        .filter(|name| name.starts_with(char::is_lowercase))
}
