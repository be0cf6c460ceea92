//! Roles: the loops that wire media, protocols and the engine together.
//!
//! | file | what lives there |
//! |---|---|
//! | `start` | listeners, threads, the `ready` line |
//! | `shared` | what all loops share: roles, directories, messages |
//! | `worker` | one loop: events in, handlers, flushes, sweeps |
//! | `conn` | a connection and what it waits for |
//! | `publish` | RTMP publishers |
//! | `request`, `pages`, `api` | HTTP requests and their answers |
//! | `files` | static files: the file gateway, and the origin's web listener |
//! | `play` | from a request to a viewer, and back when there is no stream |
//! | `fanout`, `view`, `viewer` | views of streams and the viewers that follow them |
//! | `walk`, `pace` | when viewers are served, and what a loop does that runs short of time |
//! | `roster` | who watches, and who is to go, for operators |
//! | `pull` | streams pulled from an upstream |
//! | `clip` | the demo's publisher |
//! | `counters` | what a loop counts |
//! | `listing` | what many ask for and the control thread makes |
//! | `log_limit` | how many lines of a kind peers may cause |
//! | `announce` | what is said at the start |

pub mod announce;
mod api;
mod clip;
mod conn;
#[cfg(test)]
mod cost;
pub mod counters;
mod fanout;
pub mod files;
pub mod listing;
pub mod log_limit;
mod pace;
mod pages;
mod play;
mod publish;
mod pull;
mod relay;
mod request;
mod retry;
pub mod roster;
mod rtmp;
pub mod shared;
#[cfg(test)]
mod simulation;
pub mod start;
mod view;
mod viewer;
mod walk;
mod worker;

pub use api::streams_json;
pub use pages::find_operator as operator_page;
pub use viewer::Protocol;
