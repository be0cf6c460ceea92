//! Boxes (ISO/IEC 14496-12, 4.2): writing them, and walking through those that were read.

/// What is wrong with boxes that were read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Mp4Error {
    /// A box reaches beyond its container, or ends within its own fields.
    #[error("the box {} is cut off", kind.escape_ascii())]
    Truncated {
        /// Its type.
        kind: [u8; 4],
    },
    /// A required box is missing.
    #[error("there is no box {}", kind.escape_ascii())]
    Missing {
        /// Its type.
        kind: [u8; 4],
    },
    /// A box that this program never writes.
    #[error("the box {} is not one of ours", kind.escape_ascii())]
    Foreign {
        /// Its type.
        kind: [u8; 4],
    },
}

/// Writes a box; `body` writes its content.
pub(super) fn put_box(out: &mut Vec<u8>, kind: [u8; 4], body: impl FnOnce(&mut Vec<u8>)) {
    let at = out.len();
    out.extend_from_slice(&[0; 4]);
    out.extend_from_slice(&kind);
    body(out);
    let size = u32::try_from(out.len() - at).expect("what is kept of a take fits 4 GiB");
    out[at..at + 4].copy_from_slice(&size.to_be_bytes());
}

/// Writes a full box: one with a version and 24 bits of flags.
pub(super) fn put_full(
    out: &mut Vec<u8>,
    kind: [u8; 4],
    version: u8,
    flags: u32,
    body: impl FnOnce(&mut Vec<u8>),
) {
    put_box(out, kind, |out| {
        put_u32(out, u32::from(version) << 24 | flags);
        body(out);
    });
}

pub(super) fn put_u16(out: &mut Vec<u8>, value: u16) {
    out.extend_from_slice(&value.to_be_bytes());
}

pub(super) fn put_u32(out: &mut Vec<u8>, value: u32) {
    out.extend_from_slice(&value.to_be_bytes());
}

pub(super) fn put_u64(out: &mut Vec<u8>, value: u64) {
    out.extend_from_slice(&value.to_be_bytes());
}

/// A count or length of our own as 32 bits.
pub(super) fn count(len: usize) -> u32 {
    u32::try_from(len).expect("what is kept of a take fits 32 bits")
}

/// The header of a box in a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BoxHeader {
    /// Its type.
    pub kind: [u8; 4],
    /// Bytes of the header.
    pub header: u64,
    /// Bytes of the whole box.
    pub size: u64,
}

/// The longest header.
pub const HEADER_MAX: usize = 16;

/// Reads a box header from the start of `bytes`, which are [`HEADER_MAX`] long or end with the file.
///
/// # Errors
/// [`Mp4Error::Truncated`].
pub fn read_header(bytes: &[u8]) -> Result<BoxHeader, Mp4Error> {
    let short = Mp4Error::Truncated { kind: *b"????" };
    let (size, rest) = bytes.split_first_chunk::<4>().ok_or(short)?;
    let (kind, rest) = rest.split_first_chunk::<4>().ok_or(short)?;
    let (header, size) = match u32::from_be_bytes(*size) {
        1 => {
            let large = rest.first_chunk::<8>().ok_or(Mp4Error::Truncated { kind: *kind })?;
            (16, u64::from_be_bytes(*large))
        }
        size => (8, u64::from(size)),
    };
    if size < header {
        return Err(Mp4Error::Truncated { kind: *kind });
    }
    Ok(BoxHeader { kind: *kind, header, size })
}

/// The boxes in some bytes, each with its type and content.
#[derive(Clone, Debug)]
pub struct Boxes<'a>(
    /// The bytes that are left.
    pub &'a [u8],
);

impl<'a> Iterator for Boxes<'a> {
    type Item = Result<([u8; 4], &'a [u8]), Mp4Error>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.0.is_empty() {
            return None;
        }
        let bytes = std::mem::take(&mut self.0);
        Some(read_header(bytes).and_then(|found| {
            let short = Mp4Error::Truncated { kind: found.kind };
            let size = usize::try_from(found.size).map_err(|_| short)?;
            let (whole, rest) = bytes.split_at_checked(size).ok_or(short)?;
            self.0 = rest;
            Ok((found.kind, &whole[if found.header == 16 { 16 } else { 8 }..]))
        }))
    }
}

impl<'a> Boxes<'a> {
    /// The content of the first box of a type.
    ///
    /// # Errors
    /// [`Mp4Error`]: there is none, or boxes are cut off.
    pub fn find(self, kind: [u8; 4]) -> Result<&'a [u8], Mp4Error> {
        for found in self {
            let (found, body) = found?;
            if found == kind {
                return Ok(body);
            }
        }
        Err(Mp4Error::Missing { kind })
    }
}

/// Takes numbers from the start of a box's content.
#[derive(Clone, Debug)]
pub struct Fields<'a> {
    /// The bytes that are left.
    pub rest: &'a [u8],
    kind: [u8; 4],
}

impl<'a> Fields<'a> {
    /// The fields of a box of that type.
    pub fn new(kind: [u8; 4], rest: &'a [u8]) -> Self {
        Self { rest, kind }
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Mp4Error> {
        let (array, rest) = self.rest.split_first_chunk().ok_or(Mp4Error::Truncated { kind: self.kind })?;
        self.rest = rest;
        Ok(*array)
    }

    /// 32 bits.
    ///
    /// # Errors
    /// [`Mp4Error::Truncated`].
    pub fn u32(&mut self) -> Result<u32, Mp4Error> {
        self.array().map(u32::from_be_bytes)
    }

    /// 64 bits.
    ///
    /// # Errors
    /// [`Mp4Error::Truncated`].
    pub fn u64(&mut self) -> Result<u64, Mp4Error> {
        self.array().map(u64::from_be_bytes)
    }

    /// Skips bytes.
    ///
    /// # Errors
    /// [`Mp4Error::Truncated`].
    pub fn skip(&mut self, len: usize) -> Result<(), Mp4Error> {
        self.rest = self.rest.get(len..).ok_or(Mp4Error::Truncated { kind: self.kind })?;
        Ok(())
    }
}
