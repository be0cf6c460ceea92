//! The line of a TOML text that sets a key.

use std::collections::BTreeMap;

/// The line, from 1, that sets `key`; `None` if it is not written plainly. Tables of an array are counted from
/// 0: `forward.1.to` is the `to` of the second `[[forward]]`.
pub(super) fn line_of(text: &str, key: &str) -> Option<usize> {
    let mut table = String::new();
    let mut counts: BTreeMap<String, usize> = BTreeMap::new();
    for (at, line) in text.lines().enumerate() {
        let line = line.trim();
        if let Some(header) = line.strip_prefix('[').and_then(|rest| rest.split(']').next()) {
            table = plain(header);
            if header.starts_with('[') {
                let count = counts.entry(table.clone()).or_default();
                table = format!("{table}.{count}");
                *count += 1;
            }
            if table == key {
                return Some(at + 1);
            }
            table.push('.');
            continue;
        }
        let Some((name, _)) = line.split_once('=') else { continue };
        let name = format!("{table}{}", plain(name));
        // `origin = { rtmp = … }` holds the key on the table's own line.
        if name == key || key.strip_prefix(name.as_str()).is_some_and(|rest| rest.starts_with('.')) {
            return Some(at + 1);
        }
    }
    None
}

/// A TOML key without blanks, quotes and the second bracket of an array of tables.
fn plain(key: &str) -> String {
    key.chars().filter(|c| !c.is_whitespace() && !matches!(c, '"' | '\'' | '[')).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_of_the_right_table_are_found() {
        let text =
            "a = 1\n[[forward]]\nto = 'x'\n[origin]\nto = 'y'\n[[ forward ]]\n\nto = 'z'\n[[pull]]\nto = 1\n";
        for (key, line) in [
            ("a", Some(1)),
            ("forward.0", Some(2)),
            ("forward.0.to", Some(3)),
            ("origin.to", Some(5)),
            ("forward.1", Some(6)),
            ("forward.1.to", Some(8)),
            ("pull.0.to", Some(10)),
            ("forward.2.to", None),
        ] {
            assert_eq!(line_of(text, key), line, "{key}");
        }
        assert_eq!(line_of("forward = [{ to = 'x' }]", "forward.0.to"), Some(1));
    }
}
