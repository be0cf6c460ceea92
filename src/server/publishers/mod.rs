//! Publishers: however their tags come in, one claims a name, writes its stream and gives it up again.
//!
//! | file | what lives there |
//! |---|---|
//! | `claim` | a name that is wanted, had and given up; silence; who waits for a name |
//! | `push` | publishers that send FLV over HTTP or WebSocket |
//! | `clip` | the demo's publisher |
//!
//! Publishers that speak RTMP may watch as well: their connection is in [`super::rtmp`].

pub(in crate::server) mod claim;
pub(in crate::server) mod clip;
pub(in crate::server) mod push;
