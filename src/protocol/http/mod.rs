//! HTTP/1.1 heads and body framing (RFC 9110, RFC 9112), for a server and for a gateway's pull.
//!
//! Deliberately not done: HTTP/2, content codings, trailers (read and dropped), lenient line ends. A form that
//! two implementations could read differently is refused, because there are proxies in between.

pub mod chunked;
pub mod client;
pub mod conditional;
pub mod date;
pub mod head;
pub mod mime;
pub mod path;
pub mod range;
pub mod request;
pub mod response;

pub use chunked::{ChunkError, ChunkedReader};
pub use client::{ResponseError, ResponseHead, ResponseReader};
pub use head::{HeadFault, Headers};
pub use mime::{FileKind, FileType};
pub use path::{PathError, RelPath};
pub use range::Range;
pub use request::{HttpError, Method, Request, RequestLimits, RequestReader};
pub use response::{Head, error_page};

/// How a message's body is delimited (RFC 9112, 6.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BodyLength {
    /// There is no body.
    None,
    /// A body of this many bytes.
    Length(u64),
    /// Chunks: [`ChunkedReader`] removes the framing.
    Chunked,
}
