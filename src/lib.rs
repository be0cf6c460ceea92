//! uringcast: a live-streaming edge for bare-metal Linux.
//!
//! One idea is carried through: *a stream is one log of bytes, a viewer is a cursor on it*.
//!
//! | module | what lives there | may use |
//! |---|---|---|
//! | [`media`] | what a stream is made of: tags, codecs, FLV, TS, MP4, playlists | – |
//! | [`memory`] | append-only memory, one writer and many readers | – |
//! | [`protocol`] | how peers talk: RTMP, HTTP, WebSocket; sans-IO | `media` |
//! | [`live`] | streams, their logs, cursors, the lag policy; no sockets, no clock | `media`, `memory` |
//! | [`uring`] | the engine: rings, operations, buffers; knows no media | `memory` |
//! | [`config`] | what can be set, read and checked once | – |
//! | [`server`] | roles: the loops that wire the others together | all of the above |
//! | [`control`] | the side thread: signals, admin HTTP, metrics, the recorder | `server` and below |
//! | [`tools`] | what is no server: the load generator | `media`, `protocol` |
//! | [`cli`] | the command line | `config`, `tools` |
//!
//! `live`, `protocol` and `uring` never see each other; a test holds this table.

pub mod cli;
pub mod config;
pub mod control;
pub mod live;
pub mod media;
pub mod memory;
pub mod protocol;
pub mod server;
pub mod tools;
#[expect(unsafe_code, reason = "the engine: each block says who owns the memory and what frees it")]
pub mod uring;
