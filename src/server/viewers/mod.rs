//! Viewers: connections that watch a stream, or wait for one.
//!
//! | file | what lives there |
//! |---|---|
//! | `play` | what a viewer asks for |
//! | `audience` | who watches, who waits and who has paused on this loop |
//! | `player` | a connection that plays by HTTP or WebSocket |
//! | `fanout` | the views of a loop, and the viewers that follow them |
//! | `view` | what a loop knows of one log, and how a viewer is served out of it |
//! | `viewer` | one viewer: a cursor, and how its bytes are framed |
//! | `greeting` | what a viewer is told first |
//! | `walk`, `pace` | when viewers are served, and what a loop does that runs short of time |
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
