//! Publishers: by whatever protocol its tags arrive, each claims a name, writes its stream and gives it up again.
//!
//! | file | contents |
//! |---|---|
//! | `claim` | claiming, holding and giving up a name; silence; publishers that wait for a name |
//! | `pacing` | publishers that send faster than real time |
//! | `push` | publishers that send FLV over HTTP or WebSocket |
//! | `clip` | the demo's publisher |
//!
//! RTMP connections may also play; they are in [`super::rtmp`].

pub(in crate::server) mod claim;
pub(in crate::server) mod clip;
mod pacing;
pub(in crate::server) mod push;
