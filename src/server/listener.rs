//! What a listener is for, and what a loop may hold.

use super::http::routes::Routes;

/// A listener of a role.
#[derive(Clone, Copy, Debug)]
pub(super) struct Listener {
    /// The role.
    pub(super) role: usize,
    /// What is spoken there.
    pub(super) speaks: Speaks,
}

/// What is spoken at a listener.
#[derive(Clone, Copy, Debug)]
pub(super) enum Speaks {
    /// RTMP.
    Rtmp,
    /// HTTP, with these routes.
    Http(&'static Routes),
}

/// What a loop may hold.
#[derive(Clone, Copy, Debug)]
pub(super) struct Capacity {
    /// Connections; further ones are told that the server is full.
    pub(super) connections: usize,
    /// How many of them are kept for publishers.
    pub(super) reserve: usize,
    /// Open files that it keeps for the next client that asks.
    pub(super) files: usize,
}
