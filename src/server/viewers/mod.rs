//! Viewers: connections that watch a stream, or wait for one.
//!
//! | file | contents |
//! |---|---|
//! | `play` | what a viewer asks for |
//! | `audience` | the viewers of this loop: those that watch, wait or have paused |
//! | `player` | a connection that plays by HTTP or WebSocket |
//! | `fanout` | the views of a loop, and the viewers that follow them |
//! | `view` | what a loop knows of one log, and how its viewers are served from it |
//! | `viewer` | one viewer: its cursor, and the framing of its bytes |
//! | `greeting` | the bytes that a viewer gets before the log |
//! | `walk`, `pace` | when viewers are served, and how a loop adapts when it is short of CPU time |
//! | `listing` | viewers as an operator sees them |

pub(in crate::server) mod audience;
pub(in crate::server) mod fanout;
pub(in crate::server) mod greeting;
pub(in crate::server) mod listing;
pub(in crate::server) mod pace;
pub(in crate::server) mod play;
pub(in crate::server) mod player;
pub(in crate::server) mod view;
pub mod viewer;
mod walk;
