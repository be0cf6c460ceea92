//! How peers talk. Sans-IO: bytes in, events and bytes out; no sockets, no clock.

pub mod rtmp;
