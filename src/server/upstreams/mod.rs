//! Connections that the server itself opens: to the upstreams of a gateway, and to other servers by `[[forward]]` and
//! `[[pull]]`.
//!
//! | file | contents |
//! |---|---|
//! | `link` | one connection: its protocol and its timeouts |
//! | `pull` | streams that a gateway pulls |
//! | `relay` | streams that are forwarded to other servers or fetched from them |
//! | `links` | the loop's upstreams as the worker sees them, and probes |

pub(in crate::server) mod link;
pub(in crate::server) mod links;
mod pull;
mod relay;
