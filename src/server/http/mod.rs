//! One HTTP/1.1 connection for every listener of the loops.
//!
//! | file | contents |
//! |---|---|
//! | `connection` | an HTTP client: its requests are answered one after the other |
//! | `routes` | the table of routes of each listener |
//! | `answer` | builds the head and the body of an answer |
//! | `transfer` | an answer that is being sent |
//! | `responder` | what a loop keeps for all its clients: the queue of file transfers, the date, the access log |
//! | `web` | the responder and the files of a loop |
//! | `access_log`, `access_writer` | the access log: lines, and the thread that writes them |
//! | `live` | a request for a live stream |
//! | `players` | players of playlists and segments, and whether there may be another one |
//! | `pages`, `api` | the embedded pages, and the lists of streams |

mod access_log;
pub mod access_writer;
pub(in crate::server) mod answer;
pub mod api;
pub(in crate::server) mod connection;
mod live;
pub mod pages;
mod players;
pub(in crate::server) mod responder;
pub(in crate::server) mod routes;
mod transfer;
pub(in crate::server) mod web;
