//! uringcast: a live-streaming edge for bare-metal Linux.
//!
//! One idea is carried through: *a stream is one log of bytes, a viewer is a cursor on it*.
//!
//! | module | what lives there | may use |
//! |---|---|---|
//! | [`media`] | what a stream is made of: tags, FLV, AMF0 | – |
//! | [`protocol`] | how peers talk: RTMP, HTTP, WebSocket; sans-IO | `media` |
//! | [`memory`] | append-only memory, one writer and many readers | – |
//! | [`live`] | streams, their logs, cursors, the lag policy; no sockets, no clock | `media`, `memory` |
//! | [`uring`] | the engine: rings, operations, buffers; knows no media | `memory` |
//! | [`tools`] | what comes with the server: the stress tool | – |
//!
//! `live`, `protocol` and `uring` never see each other; a test holds this table.

pub mod media;
pub mod tools;
