//! Follows an FLV tag chain in pieces of any size without keeping it.
//!
//! It checks the server and therefore shares no code with the server's own FLV.

const FILE_HEADER: usize = 13;
/// `onStamp` and a number, in AMF0: the time of day at which a publisher sent this, in microseconds.
const STAMP: &[u8] = b"\x02\x00\x07onStamp\x00";
const STAMP_LEN: usize = STAMP.len() + 8;
const TAG_HEADER: usize = 11;
const TRAILER: usize = 4;
/// How far a tag may be behind the newest tag of the other kind.
const INTERLEAVE_MS: i32 = 1500;

/// The first error in a chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ChainError {
    /// The first 13 bytes are not those of an FLV file.
    #[error("not an FLV header")]
    FileHeader,
    /// Unknown type, or a stream id other than 0.
    #[error("no tag header where one is expected (type {kind})")]
    TagHeader {
        /// The type byte.
        kind: u8,
    },
    /// `PreviousTagSize` differs from the tag before it.
    #[error("PreviousTagSize {announced} after a tag of {actual} bytes")]
    Trailer {
        /// The value of the field.
        announced: u32,
        /// The length of the tag.
        actual: u32,
    },
    /// A timestamp lower than an earlier one.
    #[error("time goes back by {by} ms")]
    TimeGoesBack {
        /// Milliseconds.
        by: i32,
    },
    /// The first picture is not a keyframe.
    #[error("the first picture is not a keyframe")]
    NoKeyframe,
    /// A coded frame came before its configuration.
    #[error("media before its sequence header (type {kind})")]
    NoSequenceHeader {
        /// The tag's type.
        kind: u8,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    FileHeader,
    TagHeader,
    Body,
    Trailer,
}

/// See [`Chain::feed`].
#[derive(Clone, Debug)]
pub(super) struct Chain {
    step: Step,
    /// Collected bytes of the current header or trailer, or the first bytes of the body.
    small: [u8; STAMP_LEN],
    filled: usize,
    body_left: usize,
    body_len: u32,
    kind: u8,
    time: u32,
    newest: [Option<u32>; 2],
    had_header: [bool; 2],
    keyframes: u64,
    tags: u64,
    stamps: Vec<u64>,
}

impl Chain {
    pub(super) const fn new() -> Self {
        Self {
            step: Step::FileHeader,
            small: [0; STAMP_LEN],
            filled: 0,
            body_left: 0,
            body_len: 0,
            kind: 0,
            time: 0,
            newest: [None; 2],
            had_header: [false; 2],
            keyframes: 0,
            tags: 0,
            stamps: Vec::new(),
        }
    }

    /// Whole tags so far.
    pub(super) const fn tags(&self) -> u64 {
        self.tags
    }

    /// Whole keyframes so far.
    pub(super) const fn keyframes(&self) -> u64 {
        self.keyframes
    }

    /// The newest time of the leading kind.
    pub(super) fn media_time(&self) -> Option<u32> {
        self.newest[1].or(self.newest[0])
    }

    /// When the stamped tags since the last call were sent, in microseconds since 1970.
    pub(super) fn take_stamps(&mut self) -> std::vec::Drain<'_, u64> {
        self.stamps.drain(..)
    }

    /// Takes the next bytes of the chain.
    ///
    /// # Errors
    /// The first error; the chain cannot be followed after it.
    pub(super) fn feed(&mut self, mut bytes: &[u8]) -> Result<(), ChainError> {
        while !bytes.is_empty() {
            match self.step {
                Step::FileHeader => {
                    if self.collect(&mut bytes, FILE_HEADER) {
                        self.end_file_header()?;
                    }
                }
                Step::TagHeader => {
                    if self.collect(&mut bytes, TAG_HEADER) {
                        self.end_tag_header()?;
                    }
                }
                Step::Body => self.pass_body(&mut bytes)?,
                Step::Trailer => {
                    if self.collect(&mut bytes, TRAILER) {
                        self.end_trailer()?;
                    }
                }
            }
        }
        Ok(())
    }

    /// Moves bytes to `small` until it holds `want`.
    fn collect(&mut self, bytes: &mut &[u8], want: usize) -> bool {
        let take = bytes.len().min(want - self.filled);
        self.small[self.filled..self.filled + take].copy_from_slice(&bytes[..take]);
        *bytes = &bytes[take..];
        self.filled += take;
        self.filled == want
    }

    fn enter(&mut self, step: Step) {
        self.step = step;
        self.filled = 0;
    }

    fn end_file_header(&mut self) -> Result<(), ChainError> {
        let flags = self.small[4];
        let fixed =
            self.small.starts_with(b"FLV\x01") && self.small[5..FILE_HEADER] == [0, 0, 0, 9, 0, 0, 0, 0];
        if !fixed || flags & !5 != 0 {
            return Err(ChainError::FileHeader);
        }
        self.enter(Step::TagHeader);
        Ok(())
    }

    fn end_tag_header(&mut self) -> Result<(), ChainError> {
        let [kind, l0, l1, l2, t0, t1, t2, t3, id @ ..] = self.small;
        if ![8, 9, 18].contains(&kind) || id[..3] != [0; 3] {
            return Err(ChainError::TagHeader { kind });
        }
        self.kind = kind;
        self.body_len = u32::from_be_bytes([0, l0, l1, l2]);
        self.body_left = self.body_len as usize;
        self.time = u32::from_be_bytes([t3, t0, t1, t2]);
        self.check_time()?;
        self.enter(if self.body_left == 0 { Step::Trailer } else { Step::Body });
        Ok(())
    }

    fn check_time(&mut self) -> Result<(), ChainError> {
        let Some(mine) = self.track() else { return Ok(()) };
        for (track, allowed) in [(mine, 0), (1 - mine, INTERLEAVE_MS)] {
            let step = self.newest[track].map_or(0, |last| self.time.wrapping_sub(last).cast_signed());
            if step < -allowed {
                return Err(ChainError::TimeGoesBack { by: -step });
            }
        }
        self.newest[mine] = Some(self.time);
        Ok(())
    }

    fn track(&self) -> Option<usize> {
        match self.kind {
            8 => Some(0),
            9 => Some(1),
            _ => None,
        }
    }

    /// Skips the body; its first bytes say what it is.
    fn pass_body(&mut self, bytes: &mut &[u8]) -> Result<(), ChainError> {
        let take = bytes.len().min(self.body_left);
        let lead = take.min(STAMP_LEN - self.filled.min(STAMP_LEN));
        self.small[self.filled..self.filled + lead].copy_from_slice(&bytes[..lead]);
        self.filled += lead;
        *bytes = &bytes[take..];
        self.body_left -= take;
        if self.body_left == 0 {
            self.judge()?;
            self.enter(Step::Trailer);
        }
        Ok(())
    }

    fn judge(&mut self) -> Result<(), ChainError> {
        let Some(track) = self.track() else {
            self.stamps.extend(self.read_stamp());
            return Ok(());
        };
        let (first, second) = (self.small[0], if self.body_len > 1 { self.small[1] } else { 0xff });
        let is_header = second == 0 && if track == 1 { first & 0x0f == 7 } else { first >> 4 == 10 };
        let needs_header = if track == 1 { first & 0x0f == 7 } else { first >> 4 == 10 };
        if is_header {
            self.had_header[track] = true;
        } else if needs_header && self.body_len > 5 && !self.had_header[track] {
            return Err(ChainError::NoSequenceHeader { kind: self.kind });
        } else if track == 1 && self.body_len > 5 {
            // Enhanced FLV has the frame type in three bits below its marker.
            if (first >> 4) & 7 == 1 {
                self.keyframes += 1;
            } else if self.keyframes == 0 {
                return Err(ChainError::NoKeyframe);
            }
        }
        Ok(())
    }

    fn read_stamp(&self) -> Option<u64> {
        let number = self.small[..self.filled].strip_prefix(STAMP)?.first_chunk()?;
        let micros = f64::from_be_bytes(*number);
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a time of day")]
        let stamp = (0.0..1e18).contains(&micros).then_some(micros as u64);
        stamp
    }

    fn end_trailer(&mut self) -> Result<(), ChainError> {
        let [a, b, c, d, ..] = self.small;
        let (announced, actual) = (u32::from_be_bytes([a, b, c, d]), 11 + self.body_len);
        if announced != actual {
            return Err(ChainError::Trailer { announced, actual });
        }
        self.tags += 1;
        self.enter(Step::TagHeader);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CLIP: &[u8] = include_bytes!("../../../web/demo/clip.flv");

    #[test]
    fn a_valid_chain_is_accepted_in_any_pieces() {
        for step in [1, 2, 3, 13, 1024, CLIP.len()] {
            let mut chain = Chain::new();
            CLIP.chunks(step).for_each(|part| chain.feed(part).unwrap());
            assert_eq!((chain.keyframes(), chain.step, chain.filled), (5, Step::TagHeader, 0));
            assert_eq!(chain.media_time(), Some(9983));
        }
    }

    #[test]
    fn a_stamp_is_read_in_any_pieces() {
        let mut bytes = CLIP[..FILE_HEADER].to_vec();
        let body = [STAMP, &1.5e15f64.to_be_bytes()].concat();
        let len = u8::try_from(body.len()).unwrap();
        bytes.extend([18, 0, 0, len, 0, 0, 0, 0, 0, 0, 0]);
        bytes.extend(body);
        bytes.extend([0, 0, 0, 11 + len]);
        for step in 1..=bytes.len() {
            let mut chain = Chain::new();
            bytes.chunks(step).for_each(|part| chain.feed(part).unwrap());
            assert_eq!(chain.take_stamps().collect::<Vec<_>>(), [1_500_000_000_000_000]);
            assert_eq!(chain.take_stamps().count(), 0);
        }
    }

    #[test]
    fn a_byte_too_many_or_too_few_is_found() {
        let mut wrong = CLIP.to_vec();
        wrong.remove(100_000);
        assert!(Chain::new().feed(&wrong).is_err());
        wrong = CLIP.to_vec();
        wrong.insert(100_000, 0);
        assert!(Chain::new().feed(&wrong).is_err());
        assert_eq!(Chain::new().feed(b"HTTP/1.1 200 OK\r\n"), Err(ChainError::FileHeader));
    }

    #[test]
    fn a_chain_that_begins_inside_a_gop_is_found() {
        let mut bytes = CLIP[..FILE_HEADER].to_vec();
        let mut tag = |body: &[u8], time: u8| {
            let len = u8::try_from(body.len()).unwrap();
            bytes.extend([9, 0, 0, len, 0, 0, time, 0, 0, 0, 0]);
            bytes.extend(body);
            bytes.extend([0, 0, 0, 11 + len]);
        };
        tag(&[0x17, 0, 0, 0, 0, 1], 0);
        tag(&[0x27, 1, 0, 0, 0, 1, 2], 40);
        assert_eq!(Chain::new().feed(&bytes), Err(ChainError::NoKeyframe));
    }
}
