//! An answer of the admin listener as a plain value.

use bytes::Bytes;

use crate::protocol::http::request::{Method, Request};
use crate::protocol::http::response::Head;

/// Plain text.
pub(super) const TEXT: &str = "text/plain; charset=utf-8";

/// An answer before it is written: status, fields, body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Reply {
    pub(super) status: u16,
    kind: &'static str,
    pub(super) body: Bytes,
    fields: Vec<(&'static str, &'static str)>,
}

impl Reply {
    pub(super) fn new(status: u16, kind: &'static str, body: impl Into<Bytes>) -> Self {
        Self { status, kind, body: body.into(), fields: Vec::new() }
    }

    pub(super) fn field(mut self, name: &'static str, value: &'static str) -> Self {
        self.fields.push((name, value));
        self
    }

    /// The head as it goes out, and the body: none for HEAD.
    pub(super) fn encode(self, request: &Request, stays: bool) -> (Vec<u8>, Bytes) {
        let mut head = Head::new(self.status)
            .header("Cache-Control", "no-store")
            .header("X-Content-Type-Options", "nosniff");
        if self.status != 204 {
            head = head.header("Content-Type", self.kind).header("Content-Length", self.body.len());
        }
        for (name, value) in self.fields {
            head = head.header(name, value);
        }
        let body = if request.method == Method::Head { Bytes::new() } else { self.body };
        (head.connection(stays).encode(), body)
    }
}

/// An answer of one sentence.
pub(super) fn said(status: u16, message: &str) -> Reply {
    Reply::new(status, TEXT, Bytes::from(format!("{message}\n")))
}
