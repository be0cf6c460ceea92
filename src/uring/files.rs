//! Files on the ring: opened without blocking, read ahead if they are cold, sent by page reference.
//!
//! A part of a file that is in the page cache is sent by `sendfile(2)` from the loop, the cheapest way. For a
//! part that is not, this call would block the loop for as long as the disk takes: the ring reads it first,
//! into memory that is never looked at, and then it is sent the same way. `cachestat(2)` tells the two apart;
//! if the kernel or the filesystem does not support it, `preadv2(2)` with `RWF_NOWAIT` does.
//!
//! Deliberately not done: splice on kernel threads (one thread for each stuck client), and reading into memory
//! to send from there, except for sockets in the ring's own table, which `sendfile(2)` cannot name.

mod folder;
mod open_file;
mod opening;
mod stretch;

pub use folder::Folder;
pub use open_file::{Modified, OpenFile};
pub(super) use opening::{Opening, opened};
pub use stretch::FILE_SEND_MAX;
pub(super) use stretch::{FileSend, Scratch, filled, read_entry};
