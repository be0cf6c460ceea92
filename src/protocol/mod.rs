//! How peers talk. Sans-IO: bytes in, events and bytes out; no sockets, and time is always an argument.

pub mod http;
pub mod proxy;
pub mod push;
pub mod rtmp;
pub mod tls;
pub mod ws;
