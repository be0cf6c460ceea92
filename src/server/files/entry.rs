//! One version of a file, with all that answers to it have in common.

use std::fmt::Write;
use std::rc::Rc;
use std::time::UNIX_EPOCH;

use bytes::Bytes;
use sha1::{Digest, Sha1};

use crate::package::segment::File;
use crate::protocol::http::conditional::Validators;
use crate::protocol::http::date::format_date;
use crate::protocol::http::{FileKind, FileType};
use crate::server::http::pages;
use crate::uring::files::OpenFile;

/// Files up to this size are kept in memory: one send of head and body is cheaper than two calls.
pub(in crate::server) const SMALL: u64 = 16 << 10;

/// How a file beside the one that was asked for is compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(in crate::server) enum Coding {
    Brotli,
    Gzip,
}

impl Coding {
    /// In order of preference.
    pub(in crate::server) const EVERY: [Self; 2] = [Self::Brotli, Self::Gzip];

    /// As `Accept-Encoding` has it.
    pub(in crate::server) const fn token(self) -> &'static str {
        match self {
            Self::Brotli => "br",
            Self::Gzip => "gzip",
        }
    }

    pub(in crate::server) const fn suffix(self) -> &'static str {
        match self {
            Self::Brotli => ".br",
            Self::Gzip => ".gz",
        }
    }
}

/// Where the bytes are.
#[derive(Debug)]
pub(in crate::server) enum Content {
    /// In memory.
    Memory(Bytes),
    /// In a file.
    File(Rc<OpenFile>),
}

/// One version of a file.
#[derive(Debug)]
pub(in crate::server) struct Entry {
    pub(in crate::server) content: Content,
    pub(in crate::server) len: u64,
    pub(in crate::server) kind: FileKind,
    /// The target duration in seconds that a playlist tells.
    pub(in crate::server) target: Option<u32>,
    /// Seconds since 1970.
    pub(in crate::server) modified: Option<u64>,
    etag: String,
    /// The lines of a head that say which version this is: they go with a 304 as well.
    pub(in crate::server) version_fields: String,
    /// Further lines of the heads of all answers with a body.
    pub(in crate::server) content_fields: String,
    /// Which file this is, to tell whether another look found the same.
    file: Option<Rc<OpenFile>>,
}

impl Entry {
    /// A file that was opened; `body`: all of its bytes, if they were loaded.
    pub(in crate::server) fn of_file(
        file: Rc<OpenFile>,
        body: Option<Bytes>,
        kind: FileType,
        coding: Option<Coding>,
    ) -> Self {
        let modified = u64::try_from(file.modified.seconds).unwrap_or(0);
        let etag = etag(modified, file.modified.nanos, file.len);
        let mut entry = Self::new(Content::File(Rc::clone(&file)), file.len, kind, &etag, Some(modified));
        if let Some(coding) = coding {
            let _ = write!(entry.content_fields, "Content-Encoding: {}\r\n", coding.token());
        }
        if let Some(body) = body.filter(|body| body.len() as u64 == file.len) {
            entry.target = target_duration(&body).filter(|_| entry.kind == FileKind::Playlist);
            entry.content = Content::Memory(body);
        }
        entry.file = Some(file);
        entry
    }

    /// A live file.
    pub(in crate::server) fn of_live(file: &File, kind: FileType) -> Self {
        let since = file.modified.duration_since(UNIX_EPOCH).unwrap_or_default();
        let (seconds, nanos, len) = (since.as_secs(), since.subsec_nanos(), file.body.len() as u64);
        let etag = etag(seconds, nanos, len);
        let mut entry = Self::new(Content::Memory(file.body.clone()), len, kind, &etag, Some(seconds));
        entry.target = target_duration(&file.body).filter(|_| entry.kind == FileKind::Playlist);
        entry
    }

    /// An embedded page.
    pub(in crate::server) fn of_page(media_type: &'static str, body: &'static [u8]) -> Self {
        let digest = Sha1::digest(body);
        let mut etag = String::from("\"");
        digest.iter().take(8).for_each(|byte| {
            let _ = write!(etag, "{byte:02x}");
        });
        etag.push('"');
        let kind = FileType { media_type, kind: FileKind::Page, shrinks: false };
        let content = Content::Memory(Bytes::from_static(body));
        let mut entry = Self::new(content, body.len() as u64, kind, &etag, None);
        let _ = write!(entry.content_fields, "Content-Security-Policy: {}\r\n", pages::POLICY);
        entry
    }

    fn new(content: Content, len: u64, kind: FileType, etag: &str, modified: Option<u64>) -> Self {
        let mut version_fields = String::new();
        if let Some(modified) = modified {
            let _ = write!(version_fields, "Last-Modified: {}\r\n", format_date(modified));
        }
        let _ = write!(version_fields, "ETag: {etag}\r\nCache-Control: {}\r\n", kind.kind.cache_control());
        if kind.shrinks {
            version_fields.push_str("Vary: Accept-Encoding\r\n");
        }
        let content_fields = format!(
            "Content-Type: {}\r\nAccept-Ranges: bytes\r\nX-Content-Type-Options: nosniff\r\n",
            kind.media_type
        );
        let etag = etag.to_owned();
        Self {
            content,
            len,
            kind: kind.kind,
            target: None,
            modified,
            etag,
            version_fields,
            content_fields,
            file: None,
        }
    }

    pub(in crate::server) fn validators(&self) -> Validators<'_> {
        Validators { etag: &self.etag, modified: self.modified }
    }

    /// Whether another look at the file found this version.
    pub(in crate::server) fn is_still(&self, file: &OpenFile) -> bool {
        self.file.as_ref().is_some_and(|known| known.is_same(file))
    }
}

/// The tag of the version of a file that was changed then and has so many bytes.
fn etag(seconds: u64, nanos: u32, len: u64) -> String {
    format!("\"{seconds:x}-{nanos:x}-{len:x}\"")
}

/// The value of `EXT-X-TARGETDURATION` (RFC 8216, 4.3.3.1) in a playlist.
fn target_duration(playlist: &[u8]) -> Option<u32> {
    let text = std::str::from_utf8(playlist).ok()?;
    text.lines().find_map(|line| line.strip_prefix("#EXT-X-TARGETDURATION:"))?.trim().parse().ok()
}
