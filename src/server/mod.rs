//! Roles: the loops that connect media, protocols and the engine.
//!
//! | file | contents |
//! |---|---|
//! | `start`, `listen` | threads and listening sockets |
//! | `shared`, `roles` | what all loops share; the messages between them |
//! | `worker` | one loop: events in, handlers, flushes, sweeps |
//! | `dispatch` | hands each event of a connection to the handler for its kind |
//! | `core` | what every handler may use |
//! | `conn`, `conns`, `head` | connections: the kinds, the table of a loop, and what all kinds have in common |
//! | `transport` | between a connection's session and its socket |
//! | `http` | HTTP clients: routes, answers, pages, the access log |
//! | `rtmp` | RTMP connections |
//! | `streams` | the publishers and the viewers of a loop |
//! | `publishers` | claiming names, pushes over HTTP and WebSocket, the demo's clip |
//! | `viewers` | viewers that watch or wait; the fan-out |
//! | `upstreams` | connections that the server opens: pulls, relays, probes |
//! | `files` | static files: the file gateway, and the origin's web listener |
//! | `askers`, `health`, `millis`, `counter` | small parts that several of them use |
//! | `reception` | new connections: which are accepted, and which have to make way |
//! | `budget`, `limits` | limits of all peers together, and of each address |
//! | `roster` | operators' requests to the loops |
//! | `counters` | what a loop counts |
//! | `listing` | listings that are requested often, made by the control thread |
//! | `log_limit` | limits of the log lines that peers can cause |
//! | `announce` | the output at the start |

pub mod announce;
mod askers;
pub mod authority;
pub mod budget;
pub mod certificates;
mod conn;
mod conns;
mod core;
#[cfg(test)]
mod cost;
mod counter;
pub mod counters;
mod dispatch;
mod egress;
pub mod files;
mod forwarded;
mod head;
pub mod health;
pub mod http;
pub mod limits;
pub mod listen;
pub mod listing;
pub mod log_limit;
mod millis;
mod publishers;
mod reception;
pub mod recording;
pub mod roles;
pub mod roster;
mod rtmp;
pub mod shared;
#[cfg(test)]
mod simulation;
pub mod start;
mod streams;
mod transport;
mod upstreams;
pub mod viewers;
mod worker;

pub use http::api::streams_json;
pub use http::pages::find_operator as operator_page;
pub use viewers::viewer::Protocol;
