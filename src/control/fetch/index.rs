//! What the cache's folder holds, and in which order it may go.

use std::collections::{BTreeMap, HashMap};

/// The files of the folder.
#[derive(Debug, Default)]
pub(super) struct Index {
    files: HashMap<String, Kept>,
    /// By when each was asked for last.
    order: BTreeMap<u64, String>,
    clock: u64,
    bytes: u64,
}

#[derive(Debug)]
struct Kept {
    len: u64,
    used: u64,
    etag: Option<String>,
}

impl Index {
    pub(super) fn len(&self) -> usize {
        self.files.len()
    }

    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// The entity tag that the upstream gave a file.
    pub(super) fn etag(&self, path: &str) -> Option<String> {
        self.files.get(path)?.etag.clone()
    }

    /// The bytes of a file.
    pub(super) fn size_of(&self, path: &str) -> Option<u64> {
        self.files.get(path).map(|kept| kept.len)
    }

    /// All files, the one that was not asked for the longest first.
    pub(super) fn oldest(&self) -> impl Iterator<Item = &str> {
        self.order.values().map(String::as_str)
    }

    /// A file has come, or a newer version of it.
    pub(super) fn add(&mut self, path: &str, len: u64, etag: Option<String>) {
        self.remove(path);
        self.clock += 1;
        self.bytes += len;
        self.order.insert(self.clock, path.to_owned());
        self.files.insert(path.to_owned(), Kept { len, used: self.clock, etag });
    }

    /// A file was asked for.
    pub(super) fn touch(&mut self, path: &str) {
        let Some(kept) = self.files.get_mut(path) else { return };
        self.clock += 1;
        let place = self.order.remove(&kept.used).expect("each file has its place");
        kept.used = self.clock;
        self.order.insert(self.clock, place);
    }

    /// A file goes; `false` if it was not there.
    pub(super) fn remove(&mut self, path: &str) -> bool {
        let Some(kept) = self.files.remove(path) else { return false };
        self.order.remove(&kept.used);
        self.bytes -= kept.len;
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_unused_goes_first() {
        let mut index = Index::default();
        for (path, len) in [("a", 10), ("b", 20), ("c", 30)] {
            index.add(path, len, Some(path.to_owned()));
        }
        index.touch("a");
        index.touch("none");
        index.add("b", 5, None);
        assert_eq!((index.bytes(), index.len(), index.etag("a").as_deref()), (45, 3, Some("a")));
        assert_eq!(index.oldest().collect::<Vec<_>>(), ["c", "a", "b"]);
        assert_eq!((index.size_of("b"), index.size_of("none")), (Some(5), None));
        assert!(index.remove("b") && !index.remove("b"));
        assert_eq!((index.bytes(), index.oldest().count()), (40, 2));
    }
}
