//! Roles: the loops that wire media, protocols and the engine together.
//!
//! | file | what lives there |
//! |---|---|
//! | `start`, `listen` | threads and listening sockets |
//! | `shared`, `roles` | what all loops share; what they tell each other |
//! | `worker` | one loop: events in, handlers, flushes, sweeps |
//! | `dispatch` | from an event of a connection to the handler of what it is: the one match on that |
//! | `core` | what every handler may touch |
//! | `conn`, `conns`, `head` | connections: what one is, all of a loop, what each has and what becomes of it |
//! | `transport` | between a connection's session and its socket |
//! | `http` | HTTP clients: routes, answers, pages, the access log |
//! | `rtmp` | RTMP connections |
//! | `streams` | the publishers and the viewers of a loop |
//! | `publishers` | names that are claimed, pushes over HTTP and WebSocket, the demo's clip |
//! | `viewers` | who watches and who waits; the fan-out |
//! | `upstreams` | connections that the server opens: pulls, relays, probes |
//! | `files` | static files: the file gateway, and the origin's web listener |
//! | `askers`, `health`, `millis`, `counter` | small things that several of them use |
//! | `reception` | new connections: who is let in, who has to make way |
//! | `budget`, `limits` | what all peers together, and each address, may cost |
//! | `roster` | what operators ask of the loops |
//! | `counters` | what a loop counts |
//! | `listing` | what many ask for and the control thread makes |
//! | `log_limit` | how many lines of a kind peers may cause |
//! | `announce` | what is said at the start |

pub mod announce;
mod askers;
pub mod budget;
mod conn;
mod conns;
mod core;
#[cfg(test)]
mod cost;
mod counter;
pub mod counters;
mod dispatch;
pub mod files;
mod head;
pub mod health;
pub mod http;
pub mod limits;
mod listen;
pub mod listing;
pub mod log_limit;
mod millis;
mod publishers;
mod reception;
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
