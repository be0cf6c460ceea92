//! uringcast: a live-streaming edge for bare-metal Linux.
//!
//! One idea is used throughout: *a stream is one log of bytes, a viewer is a cursor on it*.
//!
//! | module | contents | may use |
//! |---|---|---|
//! | [`media`] | what a stream consists of: tags, codecs, FLV, TS, MP4, playlists | – |
//! | [`memory`] | append-only memory, one writer and many readers | – |
//! | [`protocol`] | how peers talk: RTMP, HTTP, WebSocket; sans-IO | `media` |
//! | [`live`] | streams, their logs, cursors, the lag policy; no sockets, no clock | `media`, `memory` |
//! | [`package`] | HLS and fMP4 out of a stream, in memory | `live`, `media` |
//! | [`uring`] | the engine: rings, operations, buffers; knows no media | `memory` |
//! | [`config`] | the settings, read and checked once | – |
//! | [`access`] | who may publish and play: policies, keys, tokens | `config` |
//! | [`server`] | the roles: loops that connect the other modules | all of the above |
//! | [`control`] | the side thread: signals, admin HTTP, metrics, the recorder | `server` and below |
//! | [`tools`] | what is not part of the server: the pusher and the load generator | `media`, `protocol` |
//! | [`cli`] | the command line | `access`, `config`, `tools` |
//!
//! `live`, `protocol` and `uring` never use each other. `tests/layers.rs` checks this table.

pub mod access;
pub mod cli;
pub mod config;
pub mod control;
pub mod live;
pub mod media;
pub mod memory;
pub mod package;
pub mod protocol;
pub mod server;
pub mod tools;
#[expect(unsafe_code, reason = "the engine: each block says who owns the memory and what frees it")]
pub mod uring;
