//! Kernels with known bugs: which ones this kernel has, what the engine does about them, and which versions fix
//! them.
//!
//! `docs/kernels.md` has the same table for users, with the reports.

use std::fmt;

/// A kernel's version: `6.12.21`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version {
    /// The first number.
    pub major: u16,
    /// The second one.
    pub minor: u16,
    /// The third one, zero in a series' first release.
    pub patch: u16,
}

impl Version {
    /// `major.minor.patch`.
    pub const fn new(major: u16, minor: u16, patch: u16) -> Self {
        Self { major, minor, patch }
    }

    /// The version at the start of a text: the third number may be missing, and anything may follow.
    pub fn parse(text: &str) -> Option<Self> {
        let numbers = text.trim_start().split(|c: char| !c.is_ascii_digit() && c != '.').next()?;
        let mut numbers = numbers.split('.');
        let (major, minor) = (numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?);
        let patch = numbers.next().and_then(|number| number.parse().ok()).unwrap_or(0);
        Some(Self { major, minor, patch })
    }

    /// The version that a distribution's kernel was built from. Its release names only the series
    /// (`6.8.0-45-generic`, `6.1.0-18-amd64`); the rest is in `/proc/version_signature` (Ubuntu:
    /// `Ubuntu 6.8.0-45.45-generic 6.8.12`) or in `uname -v` (`… Debian 6.1.76-1 (2024-02-01)`).
    pub fn of_kernel(release: &str, version: &str, signature: &str) -> Option<Self> {
        let said = Self::parse(release)?;
        let ubuntu = signature.split_whitespace().last().and_then(Self::parse);
        let debian = version.split("Debian ").nth(1).and_then(Self::parse);
        let same_series = |other: &Self| (other.major, other.minor) == (said.major, said.minor);
        Some(ubuntu.into_iter().chain(debian).find(same_series).unwrap_or(said))
    }

    /// The version of the running kernel; `None` if it cannot be parsed.
    pub fn running() -> Option<Self> {
        let name = rustix::system::uname();
        let signature = std::fs::read_to_string("/proc/version_signature").unwrap_or_default();
        Self::of_kernel(&name.release().to_string_lossy(), &name.version().to_string_lossy(), &signature)
    }

    fn within(self, ranges: &[Range]) -> bool {
        ranges.iter().any(|range| range.from <= self && self < range.before)
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.major, self.minor, self.patch)
    }
}

/// The versions from one (included) to another (excluded).
#[derive(Clone, Copy, Debug)]
struct Range {
    from: Version,
    before: Version,
}

const fn range(from: (u16, u16, u16), before: (u16, u16, u16)) -> Range {
    Range { from: Version::new(from.0, from.1, from.2), before: Version::new(before.0, before.1, before.2) }
}

/// A bug of some kernels that affects what the engine does.
#[derive(Debug)]
struct Fault {
    affected: &'static [Range],
    /// What goes wrong, and what the engine does about it.
    text: &'static str,
    /// The versions that fix it.
    go_to: &'static str,
}

/// Multishot accepts on a ring with `DEFER_TASKRUN` may return a wrong descriptor.
const WRONG_DESCRIPTOR: Fault = Fault {
    affected: &[range((6, 6, 0), (6, 9, 0))],
    text: "multishot accept may give wrong descriptors (axboe/liburing#1062), so connections are accepted one \
           by one, which costs a little more",
    go_to: "6.12",
};

const FAULTS: &[Fault] = &[
    WRONG_DESCRIPTOR,
    Fault {
        affected: &[
            range((6, 1, 0), (6, 6, 86)),
            range((6, 7, 0), (6, 12, 21)),
            range((6, 13, 0), (6, 13, 9)),
        ],
        text: "io_uring may report a lack of memory that does not exist (scylladb/seastar#2728); such calls are \
               tried again",
        go_to: "6.6.86, 6.12.21",
    },
    Fault {
        affected: &[range((6, 12, 0), (6, 16, 5))],
        text: "rings of buffers have a security hole that local programs can use (CVE-2025-39816)",
        go_to: "6.16.5",
    },
];

/// What the engine does differently on this kernel.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Workarounds {
    /// Accepts are submitted one by one.
    pub single_accepts: bool,
}

impl Workarounds {
    /// What a version needs; an unknown version is assumed to have no bugs.
    pub fn of(version: Option<Version>) -> Self {
        let single_accepts = version.is_some_and(|version| version.within(WRONG_DESCRIPTOR.affected));
        Self { single_accepts }
    }
}

/// Advice on the bugs of a version, one text for each.
pub(super) fn advice(version: Version) -> Vec<String> {
    let known = FAULTS.iter().filter(|fault| version.within(fault.affected));
    known
        .map(|fault| {
            let Fault { text, go_to, .. } = fault;
            format!(
                "kernel {version}: {text}; unless your distribution has fixed it, upgrade to {go_to} or newer \
                 (docs/kernels.md)"
            )
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn version(text: &str) -> Version {
        Version::parse(text).unwrap()
    }

    #[test]
    fn releases_of_all_kinds_are_read() {
        for (text, expected) in [
            ("6.18.44-fc", (6, 18, 44)),
            ("6.1", (6, 1, 0)),
            ("5.15.0-91-generic", (5, 15, 0)),
            ("6.12.0-55.9.1.el10_0.x86_64", (6, 12, 0)),
            ("6.8.0-rc3+", (6, 8, 0)),
            ("6.6.87.2-microsoft-standard-WSL2", (6, 6, 87)),
            ("7.0.3", (7, 0, 3)),
        ] {
            let (major, minor, patch) = expected;
            assert_eq!(Version::parse(text), Some(Version::new(major, minor, patch)), "{text}");
        }
        for text in ["", "odd", "6", "6.", "6.x", "99999.1", "-6.1"] {
            assert_eq!(Version::parse(text), None, "{text}");
        }
    }

    #[test]
    fn a_distributions_kernel_is_known_by_its_upstream_version() {
        let of = |release, version, signature| Version::of_kernel(release, version, signature).unwrap();
        let ubuntu = "Ubuntu 6.8.0-45.45-generic 6.8.12\n";
        assert_eq!(of("6.8.0-45-generic", "#45-Ubuntu SMP", ubuntu), Version::new(6, 8, 12));
        let debian = "#1 SMP PREEMPT_DYNAMIC Debian 6.1.76-1 (2024-02-01)";
        assert_eq!(of("6.1.0-18-amd64", debian, ""), Version::new(6, 1, 76));
        // Text of another series does not apply.
        assert_eq!(of("6.12.30", debian, ubuntu), Version::new(6, 12, 30));
        assert!(Version::running().is_some());
    }

    #[test]
    fn accepts_are_single_only_on_the_kernels_that_need_it() {
        for (text, single) in [
            ("6.5.13", false),
            ("6.6.1", true),
            ("6.7.4", true),
            ("6.8.0-45-generic", true),
            ("6.9.0", false),
            ("6.18.44", false),
        ] {
            assert_eq!(Workarounds::of(Version::parse(text)).single_accepts, single, "{text}");
        }
        assert_eq!(Workarounds::of(None), Workarounds::default());
    }

    #[test]
    fn each_bug_is_reported_with_the_version_that_fixes_it() {
        let found = |text: &str| advice(version(text)).join("\n");
        assert!(found("6.6.30").contains("one by one") && found("6.6.30").contains("6.6.86"));
        assert!(!found("6.6.86").contains("lack of memory"));
        assert!(found("6.12.20").contains("CVE-2025-39816") && found("6.12.20").contains("lack of memory"));
        for sound in ["6.16.5", "6.18.1", "7.0.0"] {
            assert_eq!(found(sound), "", "{sound}");
        }
    }

    #[test]
    fn the_table_for_users_names_every_bug() {
        let table = include_str!("../../docs/kernels.md");
        for fault in FAULTS {
            let report = fault.text.split('(').nth(1).and_then(|rest| rest.split(')').next()).unwrap();
            assert!(table.contains(report), "docs/kernels.md says nothing of {report}");
        }
    }
}
