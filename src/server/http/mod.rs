//! One HTTP/1.1 connection for every listener of the loops.
//!
//! | file | what lives there |
//! |---|---|
//! | `connection` | a client: its requests, answered one after the other |
//! | `routes` | what a listener has under which path: a table |
//! | `answer` | from a request and what was found to a head and a body |
//! | `transfer` | an answer on its way |
//! | `responder` | what a loop keeps for all its clients: whose file goes on next, the date, the access log |
//! | `web` | the responder and the files of a loop |
//! | `access_log`, `access_writer` | the access log: lines, and the thread that writes them |
//! | `live` | a request for a live stream |
//! | `pages`, `api` | the embedded pages, and the lists of streams |

mod access_log;
pub mod access_writer;
pub(in crate::server) mod answer;
pub mod api;
pub(in crate::server) mod connection;
mod live;
pub mod pages;
pub(in crate::server) mod responder;
pub(in crate::server) mod routes;
mod transfer;
pub(in crate::server) mod web;
