//! What a stream is made of. Pure: no sockets, no clock, nothing of the other modules.

pub mod tag;
