//! The source of a push: the tags of an FLV file, of an MP4 file, or of FLV on standard input.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, Read, Seek};
use std::path::Path;
use std::time::Duration;

use super::error::SourceError;
use super::mp4::Mp4;
use crate::media::amf0::{self, Value};
use crate::media::flv::{FileHeader, FlvError, FlvItem, FlvReader};
use crate::media::tag::{Class, TAG_BODY_MAX, Tag};

/// Bytes that are read at a time.
const PIECE: usize = 64 << 10;
/// The offset of the type of the first box, which identifies an MP4 file.
const FTYP_AT: usize = 4;

/// The first box of an MP4 file, or of an old QuickTime file.
const FIRST_BOXES: [&[u8; 4]; 5] = [b"ftyp", b"moov", b"wide", b"mdat", b"free"];

/// A file, read tag by tag.
#[derive(Debug)]
pub enum Source {
    /// FLV.
    Flv(FlvSource),
    /// MP4.
    Mp4(Box<Mp4>),
}

/// FLV from a file or from standard input.
pub struct FlvSource {
    file: Option<File>,
    reader: FlvReader,
    header: FileHeader,
    ahead: VecDeque<Tag>,
    duration: Option<Duration>,
    ended: bool,
}

impl std::fmt::Debug for FlvSource {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("FlvSource").field("header", &self.header).finish_non_exhaustive()
    }
}

impl Source {
    /// Opens a file and detects its format; `-` is standard input.
    ///
    /// # Errors
    /// [`SourceError`].
    pub fn open(path: &Path) -> Result<Self, SourceError> {
        if path == Path::new("-") {
            return Ok(Self::Flv(FlvSource::begin(None)?));
        }
        let open = |error| SourceError::Open { path: path.to_owned(), error };
        let mut file = File::open(path).map_err(open)?;
        let mut head = [0; FTYP_AT + 4];
        let is_mp4 =
            file.read_exact(&mut head).is_ok() && FIRST_BOXES.iter().any(|kind| head.ends_with(*kind));
        file.rewind()?;
        if is_mp4 {
            return Ok(Self::Mp4(Box::new(Mp4::open(file)?)));
        }
        Ok(Self::Flv(FlvSource::begin(Some(file))?))
    }

    /// The tracks that the FLV header announces.
    pub fn header(&self) -> FileHeader {
        match self {
            Self::Flv(flv) => flv.header,
            Self::Mp4(mp4) => mp4.header(),
        }
    }

    /// Its duration, if the file states it.
    pub fn duration(&self) -> Option<Duration> {
        match self {
            Self::Flv(flv) => flv.duration,
            Self::Mp4(mp4) => Some(mp4.duration()),
        }
    }

    /// What of the file is not pushed, for its user.
    pub fn left_out(&self) -> Vec<String> {
        match self {
            Self::Flv(_) => Vec::new(),
            Self::Mp4(mp4) => mp4.left_out().iter().map(ToString::to_string).collect(),
        }
    }

    /// The next tag; `None`: the file is over.
    ///
    /// # Errors
    /// [`SourceError`].
    pub fn next_tag(&mut self) -> Result<Option<Tag>, SourceError> {
        match self {
            Self::Flv(flv) => flv.next_tag(),
            Self::Mp4(mp4) => mp4.next_tag(),
        }
    }

    /// Starts again from the beginning.
    ///
    /// # Errors
    /// [`SourceError`]; standard input cannot be rewound.
    pub fn rewind(&mut self) -> Result<(), SourceError> {
        match self {
            Self::Flv(flv) => {
                let mut file = flv.file.take().ok_or(io::Error::from(io::ErrorKind::NotSeekable))?;
                file.rewind()?;
                *flv = FlvSource::begin(Some(file))?;
                Ok(())
            }
            Self::Mp4(mp4) => mp4.rewind(),
        }
    }
}

impl FlvSource {
    /// Reads the header and, if it comes first, the metadata.
    fn begin(file: Option<File>) -> Result<Self, SourceError> {
        let reader = FlvReader::new(u32::try_from(TAG_BODY_MAX).expect("24 bits"));
        let header = FileHeader { audio: true, video: true };
        let mut source = Self { file, reader, header, ahead: VecDeque::new(), duration: None, ended: false };
        let mut begun = false;
        while !begun && !source.ended {
            begun = source.fill()?;
        }
        if !begun {
            return Err(SourceError::Flv(FlvError::Signature { found: [0; 3] }));
        }
        if let Some(first) = source.next_tag()? {
            source.duration = duration(&first);
            source.ahead.push_front(first);
        }
        Ok(source)
    }

    fn next_tag(&mut self) -> Result<Option<Tag>, SourceError> {
        while self.ahead.is_empty() && !self.ended {
            self.fill()?;
        }
        Ok(self.ahead.pop_front())
    }

    /// Reads a piece; `true` if it contained the file's header.
    fn fill(&mut self) -> Result<bool, SourceError> {
        let mut piece = [0; PIECE];
        let len = match &mut self.file {
            Some(file) => file.read(&mut piece)?,
            None => io::stdin().read(&mut piece)?,
        };
        self.ended = len == 0;
        self.reader.push(&piece[..len]);
        let mut header = false;
        while let Some(item) = self.reader.next_item()? {
            match item {
                FlvItem::Tag(tag) => self.ahead.push_back(tag),
                FlvItem::Header(found) => (self.header, header) = (found, true),
            }
        }
        Ok(header)
    }
}

/// The duration stated in `onMetaData`.
fn duration(tag: &Tag) -> Option<Duration> {
    if tag.class() != Class::Metadata {
        return None;
    }
    let values = amf0::decode_all(&tag.body, &amf0::Limits::default()).ok()?;
    let seconds = values.get(1)?.get("duration").and_then(Value::as_number)?;
    Duration::try_from_secs_f64(seconds).ok().filter(|duration| !duration.is_zero())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_demos_clip_is_read_twice() {
        let clip = Path::new(env!("CARGO_MANIFEST_DIR")).join("web/demo/clip.flv");
        let mut source = Source::open(&clip).unwrap();
        assert_eq!(source.header(), FileHeader { audio: true, video: true });
        let mut round = || {
            let tags: Vec<Tag> = std::iter::from_fn(|| source.next_tag().unwrap()).collect();
            source.rewind().unwrap();
            tags
        };
        let first = round();
        assert!(first.len() > 500);
        assert_eq!(round(), first);
    }

    #[test]
    fn each_error_has_its_exit_code() {
        let code = |path: &Path| super::super::PushError::from(Source::open(path).unwrap_err()).exit_code();
        assert_eq!(code(Path::new("/nonexistent")), 66);
        assert_eq!(code(&Path::new(env!("CARGO_MANIFEST_DIR")).join("Cargo.toml")), 65);
    }
}
