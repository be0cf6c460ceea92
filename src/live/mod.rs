//! Live state: a stream is one log of bytes, a viewer is a cursor on it.
//!
//! | type | what it is |
//! |---|---|
//! | [`StreamKey`](key::StreamKey) | `app/name`, checked |
//! | [`Directory`](directory::Directory) | the streams that exist, and who publishes them |
//! | [`Stream`](stream::Stream), [`StreamWriter`](stream::StreamWriter) | one stream, as readers and as its publisher see it |
//! | [`Log`](log::Log), [`LogWriter`](log::LogWriter) | encoded tags in append-only memory, with the places where a viewer may start |
//! | [`Events`](events::Events) | what happens to a directory's streams, for subscribers |
//! | [`Index`](index::Index) | what a log keeps, and where in it a viewer may start |
//! | [`Hold`](hold::Hold) | a reader that must not miss anything, for whom a log keeps more |
//! | [`Mark`](waiters::Mark), [`Reached`](reached::Reached) | a reader that waits for a log to grow |
//! | [`Cursor`](cursor::Cursor) | a viewer's position, and what it is sent next |
//! | [`Timeline`](timeline::Timeline) | a publisher's timestamps as a clock that never goes back |
//!
//! No sockets and no clock: time is always an argument.

mod content;
pub mod cursor;
pub mod directory;
pub mod events;
mod headers;
pub mod hold;
pub mod index;
pub mod key;
mod lane;
mod life;
pub mod log;
mod rate;
pub mod reached;
pub mod stream;
pub mod timeline;
pub mod waiters;
