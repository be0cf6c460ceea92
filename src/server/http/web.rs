//! What a loop keeps for its HTTP clients.

use super::responder::Responder;
use crate::server::files::store::Files;

/// See the module.
#[derive(Debug)]
pub(in crate::server) struct Web {
    pub(in crate::server) responder: Responder,
    pub(in crate::server) files: Files,
}
