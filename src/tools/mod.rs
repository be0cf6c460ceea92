//! Tools that come with the server but are not part of it.

pub mod push;
pub mod stress;
pub mod trust;
mod url;
