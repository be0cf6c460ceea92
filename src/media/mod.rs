//! What a stream is made of. Pure: no sockets, no clock, nothing of the other modules.

pub mod amf0;
pub mod codec;
pub mod encoding;
pub mod flv;
pub mod tag;
