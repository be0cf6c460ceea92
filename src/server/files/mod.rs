//! Files over HTTP: one implementation behind the file gateway and the origin's web listener.
//!
//! | file | what it holds |
//! |---|---|
//! | `site` | what a role serves: its folder, and what of it |
//! | `library` | the recordings in that folder, for the pages |
//! | `entry` | one version of a file, with all that answers to it have in common |
//! | `cache` | the versions that a loop knows, and who waits for one |
//! | `store` | what a loop knows of files |
//! | `lookup` | from a path to an entry, through the cache and the ring |
//! | `proxy`, `open_set` | files that come from an upstream, and which of them are open |
//! | `counters`, `audience` | what is counted: answers, and who watches by playlists and segments |
//!
//! What it deliberately does not do: list folders, follow links out of the folder, several ranges in one answer.

pub mod audience;
pub(super) mod cache;
pub mod counters;
pub(super) mod entry;
pub(super) mod library;
pub(super) mod lookup;
pub mod open_set;
pub mod proxy;
pub mod site;
pub(super) mod store;
