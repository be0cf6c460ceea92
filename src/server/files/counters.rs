//! What a loop counts for a role that serves files.

use crate::protocol::http::FileKind;
use crate::server::counter::Counter;

/// The statuses that are counted each by itself; all others count as the last place's `other`.
pub const STATUSES: [u16; 15] = [200, 204, 206, 304, 400, 404, 405, 412, 413, 414, 416, 431, 501, 502, 503];

/// Counts of requests for files and pages.
#[derive(Debug, Default)]
pub struct FileCounters {
    /// Answers, by [`STATUSES`], and others.
    pub answers: [Counter; STATUSES.len() + 1],
    /// Answers with a file or a page, by [`FileKind`].
    pub kinds: [Counter; FileKind::EVERY.len()],
    /// Bytes of their bodies that were sent, by [`FileKind`].
    pub kind_bytes: [Counter; FileKind::EVERY.len()],
    /// Bytes sent in all, heads included.
    pub bytes: Counter,
    /// Looks for a file that the cache could answer, and that it could not.
    pub hits: Counter,
    /// Looks that had to open the file, or wait for somebody who did.
    pub misses: Counter,
    /// Stretches that had to be read from a disk before they could be sent.
    pub cold_reads: Counter,
    /// Lines of the access log that were lost, because its writer could not keep up.
    pub lost_lines: Counter,
}

impl FileCounters {
    /// An answer has ended, whole or not: `sent` bytes of it, `body_sent` of them of its body.
    pub(in crate::server) fn answered(&self, status: u16, kind: Option<FileKind>, sent: u64, body_sent: u64) {
        let place = STATUSES.iter().position(|known| *known == status);
        self.answers[place.unwrap_or(STATUSES.len())].add(1);
        self.bytes.add(sent);
        if let Some(kind) = kind {
            self.kinds[kind as usize].add(1);
            self.kind_bytes[kind as usize].add(body_sent);
        }
    }
}
