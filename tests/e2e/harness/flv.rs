//! A strict reader of an FLV tag chain: bytes in any portions, tags or the first thing wrong out.

use std::hash::{DefaultHasher, Hash, Hasher};

pub(crate) const AUDIO: u8 = 8;
pub(crate) const VIDEO: u8 = 9;
pub(crate) const SCRIPT: u8 = 18;

const FILE_HEADER: usize = 9;
const TAG_HEADER: usize = 11;
const TRAILER: usize = 4;
/// How far a tag may stand behind the newest tag of the other kind.
const INTERLEAVE_MS: i32 = 1500;

/// What one tag is, in place of its bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Brief {
    pub(crate) kind: u8,
    pub(crate) time: u32,
    pub(crate) len: usize,
    pub(crate) hash: u64,
    pub(crate) header: bool,
    pub(crate) key: bool,
    /// A codec without a sequence header.
    pub(crate) headless: bool,
}

impl Brief {
    fn new(kind: u8, time: u32, body: &[u8]) -> Self {
        let mut hasher = DefaultHasher::new();
        body.hash(&mut hasher);
        let [first, second] = [body.first().copied().unwrap_or(0), body.get(1).copied().unwrap_or(0xff)];
        // By FourCC (Enhanced RTMP) the packet type stands in the first byte: 0 begins a sequence.
        let by_four_cc = if kind == VIDEO { first & 0x80 != 0 } else { first >> 4 == 9 };
        // Of several tracks, it stands in the second byte.
        let is_multitrack = kind == VIDEO && first & 0x0f == 6;
        let packet = if is_multitrack { second & 0x0f } else { first & 0x0f };
        let header = match kind {
            VIDEO | AUDIO if by_four_cc => packet == 0,
            VIDEO => first & 0x0f == 7 && second == 0,
            AUDIO => first >> 4 == 10 && second == 0,
            _ => false,
        };
        let coded = if by_four_cc { [1, 3].contains(&packet) } else { second == 1 };
        let key = kind == VIDEO && !header && (first >> 4) & 7 == 1 && coded;
        let headless = kind == AUDIO && first >> 4 == 2; // MP3
        Self { kind, time, len: body.len(), hash: hasher.finish(), header, key, headless }
    }

    /// A coded picture: neither configuration nor the end-of-sequence marker.
    pub(crate) fn is_picture(&self) -> bool {
        self.kind == VIDEO && !self.header && self.len > 5
    }
}

/// Follows one chain; see [`Chain::feed`].
#[derive(Default)]
pub(crate) struct Chain {
    pending: Vec<u8>,
    flags: Option<u8>,
    newest: [Option<u32>; 2],
    had_header: [bool; 2],
    had_key: bool,
}

impl Chain {
    /// Takes the next bytes; whole tags are appended to `tags`.
    ///
    /// # Errors
    /// What is wrong with the chain, in words.
    pub(crate) fn feed(&mut self, bytes: &[u8], tags: &mut Vec<Brief>) -> Result<(), String> {
        self.pending.extend_from_slice(bytes);
        let mut at = 0;
        if self.flags.is_none() {
            if self.pending.len() < FILE_HEADER + TRAILER {
                return Ok(());
            }
            self.flags = Some(file_header(&self.pending)?);
            at = FILE_HEADER + TRAILER;
        }
        while let Some((brief, len)) = tag(&self.pending[at..])? {
            self.accept(&brief).map_err(|error| format!("tag {}: {error}: {brief:?}", tags.len()))?;
            tags.push(brief);
            at += len;
        }
        self.pending.drain(..at);
        Ok(())
    }

    /// The bytes of a tag that has begun and not ended.
    pub(crate) fn rest(&self) -> usize {
        self.pending.len()
    }

    fn accept(&mut self, tag: &Brief) -> Result<(), String> {
        let (mine, bit) = match tag.kind {
            AUDIO => (0, 4),
            VIDEO => (1, 1),
            _ => return Ok(()),
        };
        if self.flags.unwrap_or(0) & bit == 0 {
            return Err("the file header does not announce this kind".into());
        }
        for (kind, allowed) in [(mine, 0), (1 - mine, INTERLEAVE_MS)] {
            let step = self.newest[kind].map_or(0, |last| tag.time.wrapping_sub(last).cast_signed());
            if step < -allowed {
                return Err(format!("time goes back by {} ms (kind {kind})", -step));
            }
        }
        self.newest[mine] = Some(tag.time);
        if tag.header {
            self.had_header[mine] = true;
        } else if tag.len > 5 && !self.had_header[mine] && !tag.headless {
            return Err("media before its sequence header".into());
        }
        if tag.is_picture() && !self.had_key {
            if !tag.key {
                return Err("the first picture is no keyframe".into());
            }
            self.had_key = true;
        }
        Ok(())
    }
}

/// The tags of a whole file, whatever their order and times.
pub(crate) fn read(bytes: &[u8]) -> Vec<Brief> {
    let (mut at, mut tags) = (FILE_HEADER + TRAILER, Vec::new());
    while let Some((brief, len)) = tag(&bytes[at..]).unwrap() {
        tags.push(brief);
        at += len;
    }
    tags
}

/// Copies a file's tags behind each other with `shift` added to their times, their headers in front; `first`:
/// with the file's own header.
pub(crate) fn shifted(bytes: &[u8], shift: u32, first: bool) -> Vec<u8> {
    let mut out = bytes[..if first { FILE_HEADER + TRAILER } else { 0 }].to_vec();
    let mut at = FILE_HEADER + TRAILER;
    while let Some((brief, len)) = tag(&bytes[at..]).unwrap() {
        let mut copy = bytes[at..at + len].to_vec();
        if brief.kind != SCRIPT {
            let [t3, t2, t1, t0] = brief.time.wrapping_add(shift).to_be_bytes();
            copy[4..8].copy_from_slice(&[t2, t1, t0, t3]);
        }
        out.extend(copy);
        at += len;
    }
    out
}

fn file_header(bytes: &[u8]) -> Result<u8, String> {
    if &bytes[..4] != b"FLV\x01" {
        return Err(format!("not an FLV header: {:02x?}", &bytes[..13]));
    }
    if bytes[4] & !5 != 0 || bytes[5..9] != [0, 0, 0, 9] || bytes[9..13] != [0; 4] {
        return Err(format!("a wrong FLV header: {:02x?}", &bytes[..13]));
    }
    Ok(bytes[4])
}

/// The tag at the front of `bytes` and its whole length, when it is there.
fn tag(bytes: &[u8]) -> Result<Option<(Brief, usize)>, String> {
    let Some(head) = bytes.get(..TAG_HEADER) else { return Ok(None) };
    let kind = head[0];
    if ![AUDIO, VIDEO, SCRIPT].contains(&kind) || head[8..11] != [0; 3] {
        return Err(format!("no tag header: {head:02x?}"));
    }
    let len = u32::from_be_bytes([0, head[1], head[2], head[3]]) as usize;
    let time = u32::from_be_bytes([head[7], head[4], head[5], head[6]]);
    let Some(body) = bytes.get(TAG_HEADER..TAG_HEADER + len) else { return Ok(None) };
    let Some(trailer) = bytes.get(TAG_HEADER + len..TAG_HEADER + len + TRAILER) else { return Ok(None) };
    let announced = u32::from_be_bytes(trailer.try_into().map_err(|_| "trailer")?) as usize;
    if announced != TAG_HEADER + len {
        return Err(format!("PreviousTagSize {announced} behind a tag of {}", TAG_HEADER + len));
    }
    Ok(Some((Brief::new(kind, time, body), TAG_HEADER + len + TRAILER)))
}

#[test]
fn the_demo_clip_is_a_good_chain_in_any_portions_and_a_flipped_byte_is_found() {
    let mut clip = include_bytes!("../../../web/demo/clip.flv").to_vec();
    let mut whole = Vec::new();
    Chain::default().feed(&clip, &mut whole).unwrap();
    assert_eq!(whole.iter().filter(|tag| tag.key).count(), 5);
    assert_eq!(whole.iter().filter(|tag| tag.is_picture()).count(), 250);
    for step in [1, 7, 1000] {
        let (mut chain, mut tags) = (Chain::default(), Vec::new());
        clip.chunks(step).for_each(|part| chain.feed(part, &mut tags).unwrap());
        assert_eq!((tags == whole, chain.rest()), (true, 0));
    }
    let trailer_of_first = FILE_HEADER + TRAILER + TAG_HEADER + whole[0].len + 3;
    clip[trailer_of_first] ^= 1;
    let error = Chain::default().feed(&clip, &mut Vec::new()).unwrap_err();
    assert!(error.contains("PreviousTagSize"), "{error}");
}
