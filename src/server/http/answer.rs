//! Builds the head and the body of an answer from a request and what was found for it.

use std::borrow::Cow;
use std::fmt::Write;
use std::rc::Rc;

use bytes::Bytes;

use crate::protocol::http::FileKind;
use crate::protocol::http::conditional::{self, Verdict};
use crate::protocol::http::range::Range;
use crate::protocol::http::request::{Method, Request};
use crate::protocol::http::response::{CORS, Head, SERVER, error_page_with, reason};
use crate::server::files::entry::{Content, Entry};
use crate::uring::files::OpenFile;

/// Bodies up to this size are sent with their head.
const TOGETHER: usize = 64 << 10;

/// The body that follows a head.
#[derive(Debug)]
pub(in crate::server) enum Body {
    /// No body, or it is in the head's bytes already.
    None,
    /// Bytes.
    Memory(Bytes),
    /// A range of a file.
    File { file: Rc<OpenFile>, from: u64, to: u64 },
}

/// A whole answer that is still to be sent.
#[derive(Debug)]
pub(in crate::server) struct Answer {
    pub(in crate::server) status: u16,
    pub(in crate::server) head: Bytes,
    pub(in crate::server) body: Body,
    /// Whether the connection stays open after it.
    pub(in crate::server) keep: bool,
    /// The kind of file or page that it carries, if any.
    pub(in crate::server) kind: Option<FileKind>,
    /// Bytes of the head alone.
    head_len: u64,
    /// Bytes that were sent.
    pub(in crate::server) sent: u64,
}

impl Answer {
    /// An answer with these bytes as its body.
    pub(in crate::server) fn of_page(status: u16, page: impl Into<Bytes>, keep: bool) -> Self {
        let page = page.into();
        let head_len = page.windows(4).position(|end| end == b"\r\n\r\n").map_or(page.len(), |at| at + 4);
        Self { status, head: page, body: Body::None, keep, kind: None, head_len: head_len as u64, sent: 0 }
    }

    /// A list as JSON.
    pub(in crate::server) fn of_json(body: impl Into<Bytes>, head_only: bool, keep: bool) -> Self {
        Self::of_body(200, "application/json", body.into(), head_only, keep)
    }

    /// A short text.
    pub(in crate::server) fn of_text(status: u16, text: &str, head_only: bool, keep: bool) -> Self {
        let body = Bytes::copy_from_slice(text.as_bytes());
        Self::of_body(status, "text/plain; charset=utf-8", body, head_only, keep)
    }

    fn of_body(status: u16, kind: &str, body: Bytes, head_only: bool, keep: bool) -> Self {
        let head = Head::new(status)
            .header("Content-Type", kind)
            .header("Content-Length", body.len())
            .header("Cache-Control", if status == 200 { "no-cache" } else { "no-store" })
            .header("X-Content-Type-Options", "nosniff")
            .cors()
            .connection(keep)
            .encode();
        let head_len = head.len() as u64;
        // The same list is held in memory once, however many clients are sent it.
        let body = if head_only || body.is_empty() { Body::None } else { Body::Memory(body) };
        Self { status, head: head.into(), body, keep, kind: None, head_len, sent: 0 }
    }

    /// The answer to a GET or HEAD of a file.
    pub(in crate::server) fn of_entry(request: &Request, entry: &Entry, date: &str, keep: bool) -> Self {
        let head_only = request.method == Method::Head;
        match conditional::evaluate(&request.headers, entry.validators()) {
            Verdict::Proceed => {}
            Verdict::NotModified => {
                let head = head(304, date, keep, &[&version_fields(request, entry)]);
                return Self::of_page(304, head, keep);
            }
            Verdict::Failed => {
                return Self::of_error(412, "The file has changed.", &[("Date", date)], head_only, keep);
            }
        }
        let asked = request.header("range");
        let asked = asked.filter(|_| conditional::range_holds(&request.headers, entry.validators()));
        match asked.map_or(Range::Whole, |value| Range::evaluate(value, entry.len)) {
            Range::Whole => Self::with_body(200, request, entry, (0, entry.len), date, keep),
            Range::Part { first, len } => Self::with_body(206, request, entry, (first, len), date, keep),
            Range::Unsatisfiable => {
                let range = format!("bytes */{}", entry.len);
                let message = format!("The file has {} bytes.", entry.len);
                Self::of_error(416, &message, &[("Date", date), ("Content-Range", &range)], head_only, keep)
            }
        }
    }

    /// An error as plain text; `fields` are added to its head.
    pub(in crate::server) fn of_error(
        status: u16,
        message: &str,
        fields: &[(&str, &str)],
        head_only: bool,
        keep: bool,
    ) -> Self {
        Self::of_page(status, error_page_with(status, message, fields, head_only, keep), keep)
    }

    fn with_body(
        status: u16,
        request: &Request,
        entry: &Entry,
        (from, len): (u64, u64),
        date: &str,
        keep: bool,
    ) -> Self {
        let mut length = format!("Content-Length: {len}\r\n");
        if status == 206 {
            let _ = write!(length, "Content-Range: bytes {from}-{}/{}\r\n", from + len - 1, entry.len);
        }
        let mut head =
            head(status, date, keep, &[&entry.content_fields, &version_fields(request, entry), &length]);
        let head_len = head.len() as u64;
        let none = request.method == Method::Head || len == 0;
        let body = match &entry.content {
            _ if none => Body::None,
            Content::File(file) => Body::File { file: Rc::clone(file), from, to: from + len },
            Content::Memory(bytes) => {
                let at = usize::try_from(from).expect("the range is within the bytes in memory");
                let bytes = bytes
                    .slice(at..at + usize::try_from(len).expect("the range is within the bytes in memory"));
                if bytes.len() <= TOGETHER {
                    head.extend_from_slice(&bytes);
                    Body::None
                } else {
                    Body::Memory(bytes)
                }
            }
        };
        Self { status, head: head.into(), body, keep, kind: Some(entry.kind), head_len, sent: 0 }
    }

    /// Bytes of the body that were sent.
    pub(in crate::server) fn body_sent(&self) -> u64 {
        self.sent.saturating_sub(self.head_len)
    }

    /// Bytes of head and body that are still to be sent.
    pub(in crate::server) fn left(&self) -> u64 {
        let body = match &self.body {
            Body::None => 0,
            Body::Memory(bytes) => bytes.len() as u64,
            Body::File { from, to, .. } => to - from,
        };
        self.head.len() as u64 + body
    }
}

/// The fields that say which version of a file this is. What a client gets for its own credential is not for the next
/// client of a cache on the way (RFC 9111, 3.5).
fn version_fields<'a>(request: &Request, entry: &'a Entry) -> Cow<'a, str> {
    match request.header("authorization") {
        Some(_) => entry.version_fields.replacen("Cache-Control: public", "Cache-Control: private", 1).into(),
        None => Cow::Borrowed(&entry.version_fields),
    }
}

/// A head: the status line, the fields that all answers carry, `fields` as whole lines, and the empty line.
fn head(status: u16, date: &str, keep: bool, fields: &[&str]) -> Vec<u8> {
    let connection = if keep { "keep-alive" } else { "close" };
    let mut text = String::with_capacity(768);
    let _ = write!(
        text,
        "HTTP/1.1 {status} {}\r\nServer: {SERVER}\r\nDate: {date}\r\nConnection: {connection}\r\n{CORS}",
        reason(status)
    );
    fields.iter().for_each(|lines| text.push_str(lines));
    text.push_str("\r\n");
    text.into_bytes()
}
