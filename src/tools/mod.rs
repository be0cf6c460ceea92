//! What comes with the server and is no part of it.

pub mod push;
pub mod stress;
