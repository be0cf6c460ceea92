//! Packaging: HLS and fMP4 out of a stream's tags, in memory.
//!
//! | file | contents |
//! |---|---|
//! | `format` | the formats, their playlists, and the names of their files |
//! | `source` | tags to a muxer's segments |
//! | `muxing` | the muxers, with a whole segment as their output |
//! | `memory` | how much memory all of it takes, and buffers to be used again |
//! | `packager` | numbers segments and names their files |
//! | `segment` | a finished segment, and its bytes |
//! | `window` | the segments that live players see, with their playlists |
//! | `shelf` | where the loops find all of that, without a lock |
//!
//! A finished segment is immutable and shared: live clients are served from it, and the recorder writes it to the
//! disk. Nothing here waits, reads a clock or touches a disk. A part of a segment, as Low-Latency HLS has it, would be
//! another file of the window: a name on the shelf, and a line in the playlist.

pub mod format;
pub mod memory;
mod muxing;
pub mod packager;
pub mod segment;
pub mod shelf;
pub mod source;
#[cfg(test)]
mod tests;
pub mod window;
