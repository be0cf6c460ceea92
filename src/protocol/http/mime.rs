//! File types by name: the media type, the purpose, and whether compression helps.

/// The purpose of a file for a player or a browser; its caching time follows from it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(usize)]
pub enum FileKind {
    /// Changes with each segment.
    Playlist,
    /// Written once, under a unique name.
    Segment,
    /// A recording, or an init segment: a new take has the same name.
    Recording,
    /// Part of a page.
    Page,
    /// Anything else.
    Other,
}

impl FileKind {
    /// All, in the order of their numbers.
    pub const EVERY: [Self; 5] = [Self::Playlist, Self::Segment, Self::Recording, Self::Page, Self::Other];

    /// For metrics and logs.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Playlist => "playlist",
            Self::Segment => "segment",
            Self::Recording => "recording",
            Self::Page => "page",
            Self::Other => "other",
        }
    }

    /// The value of `Cache-Control`.
    pub const fn cache_control(self) -> &'static str {
        match self {
            // Half of the shortest segment: many viewers behind one cache cost one request.
            Self::Playlist => "public, max-age=1",
            Self::Segment => "public, max-age=86400, immutable",
            Self::Recording | Self::Page => "no-cache",
            Self::Other => "public, max-age=60",
        }
    }
}

/// What is known of a file from its extension, in any case.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FileType {
    /// The value of `Content-Type`.
    pub media_type: &'static str,
    /// Its purpose.
    pub kind: FileKind,
    /// Whether to look for a compressed file next to it.
    pub shrinks: bool,
}

impl FileType {
    /// The type of a file with that extension.
    pub fn of(extension: &str) -> Self {
        let mut lower = [0; 8];
        let Some(lower) = lower.get_mut(..extension.len()) else { return UNKNOWN };
        lower.copy_from_slice(extension.as_bytes());
        lower.make_ascii_lowercase();
        let found = TABLE.iter().find(|(known, ..)| known.as_bytes() == &*lower);
        found.map_or(UNKNOWN, |&(_, media_type, kind, shrinks)| Self { media_type, kind, shrinks })
    }
}

const UNKNOWN: FileType =
    FileType { media_type: "application/octet-stream", kind: FileKind::Other, shrinks: false };

use FileKind::{Other, Page, Playlist, Recording, Segment};

const TABLE: &[(&str, &str, FileKind, bool)] = &[
    ("ts", "video/mp2t", Segment, false),
    ("m4s", "video/iso.segment", Segment, false),
    ("m3u8", "application/vnd.apple.mpegurl", Playlist, true),
    ("mpd", "application/dash+xml", Playlist, true),
    ("mp4", "video/mp4", Recording, false),
    ("m4v", "video/mp4", Recording, false),
    ("m4a", "audio/mp4", Recording, false),
    ("flv", "video/x-flv", Recording, false),
    ("aac", "audio/aac", Recording, false),
    ("mp3", "audio/mpeg", Recording, false),
    ("webm", "video/webm", Recording, false),
    ("vtt", "text/vtt; charset=utf-8", Segment, true),
    ("html", "text/html; charset=utf-8", Page, true),
    ("htm", "text/html; charset=utf-8", Page, true),
    ("js", "text/javascript; charset=utf-8", Page, true),
    ("mjs", "text/javascript; charset=utf-8", Page, true),
    ("css", "text/css; charset=utf-8", Page, true),
    ("wasm", "application/wasm", Page, true),
    ("json", "application/json", Page, true),
    ("map", "application/json", Page, true),
    ("xml", "application/xml", Other, true),
    ("txt", "text/plain; charset=utf-8", Other, true),
    ("svg", "image/svg+xml", Other, true),
    ("png", "image/png", Other, false),
    ("jpg", "image/jpeg", Other, false),
    ("jpeg", "image/jpeg", Other, false),
    ("gif", "image/gif", Other, false),
    ("webp", "image/webp", Other, false),
    ("ico", "image/x-icon", Other, false),
    ("woff2", "font/woff2", Other, false),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn extensions_in_any_case() {
        assert_eq!(FileType::of("TS").media_type, "video/mp2t");
        assert_eq!(FileType::of("m3u8").kind, FileKind::Playlist);
        assert_eq!(FileType::of("m4s").kind, FileKind::Segment);
        assert_eq!(FileType::of("mp4").kind, FileKind::Recording);
        assert_eq!(FileType::of("js").media_type, "text/javascript; charset=utf-8");
        for unknown in ["", "x", "tss", "extension-of-some-length", "é"] {
            assert_eq!(FileType::of(unknown), UNKNOWN, "{unknown}");
        }
    }

    #[test]
    fn kinds_are_numbered_as_listed() {
        for (at, kind) in FileKind::EVERY.into_iter().enumerate() {
            assert_eq!(kind as usize, at);
        }
    }
}
