//! Files on the ring: opened without blocking, read ahead where they are cold, sent by page reference.
//!
//! A stretch that is in the page cache goes out by `sendfile(2)` from the loop, the cheapest way there is. One
//! that is not would block the loop for as long as the disk takes: the ring reads it first, into memory that
//! nobody looks at, and then it is sent the same way. `cachestat(2)` tells the two apart; where the kernel or
//! the filesystem has no use of it, `preadv2(2)` with `RWF_NOWAIT` does.
//!
//! What it deliberately does not do: splice on kernel threads (one thread for each stuck client), and reading
//! into memory to send from there, except for sockets in the ring's own table, which `sendfile(2)` cannot name.

mod folder;
mod open_file;
mod opening;
mod stretch;

pub use folder::Folder;
pub use open_file::{Modified, OpenFile};
pub(super) use opening::{Opening, opened};
pub use stretch::FILE_SEND_MAX;
pub(super) use stretch::{FileSend, Scratch, filled, read_entry};
