//! Connections that the server itself opens: to the upstreams of a gateway, and to other servers by `[[forward]]` and
//! `[[pull]]`.
//!
//! | file | what lives there |
//! |---|---|
//! | `link` | one connection: what is said on it, and how long it may take |
//! | `pull` | streams that a gateway pulls |
//! | `relay` | streams that are forwarded to other servers, and fetched from them |
//! | `links` | the loop's upstreams as the worker sees them, and probes |

pub(in crate::server) mod link;
pub(in crate::server) mod links;
mod pull;
mod relay;
