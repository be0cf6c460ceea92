//! Dependencies point one way: which module may use which, as `src/lib.rs` and ARCHITECTURE.md say; the files
//! of `src/` do not import each other in a circle; and the loop's worker is one file.
#![allow(clippy::unwrap_used, reason = "a test")]

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// A module and the others that it may use.
const MAY_USE: &[(&str, &[&str])] = &[
    ("media", &[]),
    ("memory", &[]),
    ("protocol", &["media"]),
    ("live", &["media", "memory"]),
    ("package", &["live", "media"]),
    ("uring", &["memory"]),
    ("config", &[]),
    ("access", &["config"]),
    ("server", &["access", "config", "live", "media", "memory", "package", "protocol", "uring"]),
    ("control", &["access", "config", "live", "media", "memory", "package", "protocol", "server"]),
    ("tools", &["media", "protocol"]),
    ("cli", &["access", "config", "tools"]),
];

#[test]
fn dependencies_point_one_way() {
    let tree = Tree::read();
    let mut seen = BTreeSet::new();
    for (file, source) in &tree.files {
        let Some(module) = source.module.first().filter(|name| *name != "main") else { continue };
        let (_, allowed) = MAY_USE
            .iter()
            .find(|(name, _)| name == module)
            .unwrap_or_else(|| panic!("{}: a new module needs a line in this table", file.display()));
        seen.insert(module.clone());
        for path in source.paths() {
            let Some(used) = path.first().filter(|used| MAY_USE.iter().any(|(name, _)| name == used)) else {
                continue;
            };
            assert!(
                used == module || allowed.contains(&used.as_str()),
                "{}: {module} must not use {used}",
                file.display()
            );
        }
    }
    assert_eq!(seen.len(), MAY_USE.len(), "a module in the table is gone: {seen:?}");
}

#[test]
fn no_files_import_each_other_in_a_circle() {
    let tree = Tree::read();
    let mut edges: BTreeMap<&Path, BTreeSet<&Path>> = BTreeMap::new();
    for (file, source) in &tree.files {
        let used = source.imports().into_iter().filter_map(|path| tree.file_of(&path));
        edges.insert(file, used.filter(|used| *used != file).collect());
    }
    let circles: Vec<String> = edges
        .keys()
        .filter_map(|file| path_to_itself(file, &edges))
        .map(|way| way.iter().map(|file| file.display().to_string()).collect::<Vec<_>>().join(" -> "))
        .collect();
    assert!(circles.is_empty(), "circles of imports:\n{}", circles.join("\n"));
}

/// The shortest path along imports from a file back to itself, if there is one.
fn path_to_itself<'a>(
    file: &'a Path,
    edges: &BTreeMap<&'a Path, BTreeSet<&'a Path>>,
) -> Option<Vec<&'a Path>> {
    let mut came_from: BTreeMap<&Path, &Path> = BTreeMap::new();
    let mut todo = std::collections::VecDeque::from([file]);
    while let Some(at) = todo.pop_front() {
        for next in &edges[at] {
            if *next == file {
                let before = |step: &&'a Path| came_from.get(step).copied();
                let mut way: Vec<&Path> = std::iter::successors(Some(at), before).collect();
                way.reverse();
                way.push(file);
                return Some(way);
            }
            if !came_from.contains_key(next) {
                came_from.insert(next, at);
                todo.push_back(next);
            }
        }
    }
    None
}

#[test]
fn the_worker_is_one_file() {
    let tree = Tree::read();
    let implements = |(_, source): &(&PathBuf, &Source)| {
        source.code.contains("for Worker<") || source.code.contains("> Worker<")
    };
    let files: Vec<_> = tree.files.iter().filter(implements).map(|(file, _)| file.clone()).collect();
    assert_eq!(files, [PathBuf::from("server/worker.rs")]);
}

/// The files of `src/`, by their paths below it, without those that are compiled for tests only.
struct Tree {
    files: BTreeMap<PathBuf, Source>,
    /// The files by their modules.
    modules: BTreeMap<Vec<String>, PathBuf>,
    /// The origins of the names that a file re-exports.
    re_exports: BTreeMap<PathBuf, Vec<Vec<String>>>,
}

struct Source {
    /// Its path as a module: `["server", "viewers", "view"]`.
    module: Vec<String>,
    /// Its text without comments and without code for tests only.
    code: String,
    /// The modules that it declares.
    children: Vec<String>,
}

impl Tree {
    fn read() -> Self {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
        let mut files = BTreeMap::new();
        let mut todo =
            vec![(root.join("lib.rs"), Vec::new()), (root.join("main.rs"), vec!["main".to_owned()])];
        while let Some((path, module)) = todo.pop() {
            let code = code_of(&std::fs::read_to_string(&path).unwrap());
            let children = declared(&code);
            let folder = if path.ends_with("mod.rs") || module.is_empty() || module == ["main"] {
                path.parent().unwrap().to_owned()
            } else {
                path.with_extension("")
            };
            for child in &children {
                let (plain, nested) = (folder.join(format!("{child}.rs")), folder.join(child).join("mod.rs"));
                let file = if plain.exists() { plain } else { nested };
                todo.push((file, [module.clone(), vec![child.clone()]].concat()));
            }
            let name = path.strip_prefix(&root).unwrap().to_owned();
            files.insert(name, Source { module, code, children });
        }
        assert!(files.len() > 150, "only {} files are found", files.len());
        let modules = files.iter().map(|(file, source)| (source.module.clone(), file.clone())).collect();
        let re_exports = files.iter().map(|(file, source)| (file.clone(), source.re_exports())).collect();
        Self { files, modules, re_exports }
    }

    /// The file that a path leads to: that of the longest prefix that is a module or, if that file only
    /// re-exports the name, the file that it re-exports from.
    fn file_of(&self, path: &[String]) -> Option<&Path> {
        (1..=path.len()).rev().find_map(|len| {
            let file = self.modules.get(&path[..len])?;
            let name = path.get(len);
            let re_exports = self.re_exports[file].iter().find(|from| name.is_some() && from.last() == name);
            re_exports.map_or(Some(file.as_path()), |from| self.file_of(from))
        })
    }
}

impl Source {
    /// What the code imports; a re-exported name counts only if the code also uses it.
    fn imports(&self) -> Vec<Vec<String>> {
        let code = self.code.split(';').filter(|item| !is_re_export(item)).collect::<Vec<_>>().join(";");
        let own = Self { module: self.module.clone(), code, children: self.children.clone() };
        let words: BTreeSet<&str> = own.code.split(|c: char| !c.is_alphanumeric() && c != '_').collect();
        let is_used = |path: &Vec<String>| path.last().is_some_and(|name| words.contains(name.as_str()));
        own.paths().into_iter().chain(self.re_exports().into_iter().filter(is_used)).collect()
    }

    /// The origins of the names that this file re-exports.
    fn re_exports(&self) -> Vec<Vec<String>> {
        let items = self.code.split(';').filter(|item| is_re_export(item));
        items
            .flat_map(|item| {
                let code = item.rsplit("pub use ").next().unwrap_or_default().to_owned();
                Self { module: self.module.clone(), code, children: self.children.clone() }.paths()
            })
            .collect()
    }

    /// All paths to modules of the crate in the code, starting at its root.
    fn paths(&self) -> Vec<Vec<String>> {
        let mut paths = Vec::new();
        let mut rest = self.code.as_str();
        while let Some(at) = rest.find(|c: char| c.is_ascii_alphabetic() || c == '_') {
            let tail = &rest[at..];
            let path: String =
                tail.chars().take_while(|c| c.is_alphanumeric() || matches!(c, '_' | ':')).collect();
            let before = rest[..at].chars().next_back();
            rest = &tail[path.len()..];
            if before == Some(':') || before == Some('\'') {
                continue;
            }
            // The braces of an import list: each name in them continues the path.
            let tree = if path.ends_with("::") && rest.starts_with('{') { braces(rest) } else { "" };
            rest = &rest[tree.len()..];
            expand(path.trim_end_matches(':'), tree, &mut paths);
        }
        paths.into_iter().filter_map(|path| self.resolve(&path)).collect()
    }

    /// A path from the crate's root, if it leads into the crate.
    fn resolve(&self, path: &str) -> Option<Vec<String>> {
        let parts: Vec<&str> = path.split("::").filter(|part| !part.is_empty()).collect();
        let (first, rest) = parts.split_first()?;
        let ups = parts.iter().take_while(|part| **part == "super").count();
        let (base, rest) = match *first {
            "crate" => (Vec::new(), rest),
            "self" => (self.module.clone(), rest),
            "super" => (self.module[..self.module.len().checked_sub(ups)?].to_vec(), &parts[ups..]),
            "uringcast" => (Vec::new(), rest),
            child if parts.len() > 1 && self.children.iter().any(|own| own == child) => {
                (self.module.clone(), &parts[..])
            }
            _ => return None,
        };
        Some([base, rest.iter().map(|part| (*part).to_owned()).collect()].concat())
    }
}

/// Whether an item is a re-export.
fn is_re_export(item: &str) -> bool {
    let line = item.lines().map(str::trim).find(|line| !line.is_empty() && !line.starts_with('#'));
    line.is_some_and(|line| line.starts_with("pub use "))
}

/// The balanced braces at the beginning of a text.
fn braces(text: &str) -> &str {
    let mut depth = 0;
    for (at, c) in text.char_indices() {
        match c {
            '{' => depth += 1,
            '}' => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            return &text[..=at];
        }
    }
    text
}

/// `a::{b, c::{d, e}}` as `a::b`, `a::c::d`, `a::c::e`.
fn expand(prefix: &str, tree: &str, paths: &mut Vec<String>) {
    let Some(inner) = tree.strip_prefix('{').and_then(|rest| rest.strip_suffix('}')) else {
        return paths.push(prefix.to_owned());
    };
    let (mut depth, mut from) = (0, 0);
    for (at, c) in inner.char_indices().chain([(inner.len(), ',')]) {
        match c {
            '{' => depth += 1,
            '}' => depth -= 1,
            ',' if depth == 0 => {
                let item = inner[from..at].trim();
                from = at + 1;
                let (name, tree) = item.find('{').map_or((item, ""), |brace| item.split_at(brace));
                let name = name.split(" as ").next().unwrap().trim().trim_end_matches(':');
                if !name.is_empty() {
                    expand(&format!("{prefix}::{name}"), tree.trim(), paths);
                }
            }
            _ => {}
        }
    }
}

/// A file's text without comments and without items for tests or documentation only.
fn code_of(text: &str) -> String {
    let lines = text.lines().filter(|line| !line.trim_start().starts_with("//"));
    let mut code = String::new();
    let mut skip = false;
    let mut depth = 0usize;
    for line in lines {
        if matches!(line.trim(), "#[cfg(test)]" | "#[cfg(doc)]") {
            skip = true;
            continue;
        }
        if skip {
            depth += line.matches('{').count();
            depth = depth.saturating_sub(line.matches('}').count());
            let attribute = line.trim_start().starts_with("#[");
            let ends = line.trim_end().ends_with([';', '}', ',']);
            skip = depth > 0 || attribute || !ends;
            continue;
        }
        // A visibility such as `pub(in path)` is not an import.
        let mut line = line.to_owned();
        while let Some((before, rest)) = line.split_once("pub(") {
            line = format!("{before}pub{}", rest.split_once(')').map_or("", |(_, rest)| rest));
        }
        code.push_str(line.split(" // ").next().unwrap());
        code.push('\n');
    }
    code
}

/// The modules that a file declares.
fn declared(code: &str) -> Vec<String> {
    let names = code.lines().filter_map(|line| {
        let line = line.trim_start().strip_suffix(';')?;
        let line =
            line.strip_prefix("pub").map_or(line, |rest| rest.split_once(' ').map_or(rest, |(_, rest)| rest));
        line.trim_start().strip_prefix("mod ")
    });
    names.map(str::to_owned).collect()
}

#[test]
fn imports_are_read_in_every_form() {
    let code = code_of(
        "use crate::{a, b::{c, d as e}};\n// use crate::no;\nuse super::super::f::G;\nuse child::H;\nuse std::io;\n\
         fn x() { crate::i::j(); self::k(); }\n#[cfg(test)]\nmod tests {\n    use crate::tested;\n}\nuse super::l;\n",
    );
    let module = ["m", "n", "o"].map(str::to_owned).to_vec();
    let source = Source { module, code, children: vec!["child".to_owned()] };
    let found: Vec<String> = source.paths().iter().map(|path| path.join("::")).collect();
    let expected = ["a", "b::c", "b::d", "m::f::G", "m::n::o::child::H", "i::j", "m::n::o::k", "m::n::l"];
    assert_eq!(found, expected);
}

#[test]
fn a_re_export_is_an_import_where_it_is_used_and_a_visibility_is_not() {
    let code = code_of(
        "pub(in crate::a) struct S(pub(super) u8, pub(in crate::b) Vec<T>);\npub use child::{T, U};\n\
         pub(super) use child::V;\n#[cfg(doc)]\nuse crate::c::D;\n",
    );
    let source = Source { module: vec!["m".to_owned()], code, children: vec!["child".to_owned()] };
    let join = |paths: Vec<Vec<String>>| paths.iter().map(|path| path.join("::")).collect::<Vec<_>>();
    assert_eq!(join(source.imports()), ["m::child::T"]);
    assert_eq!(join(source.re_exports()), ["m::child::T", "m::child::U", "m::child::V"]);
}
