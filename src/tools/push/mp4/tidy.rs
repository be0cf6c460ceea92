//! Puts a `moov` box into a form that the demuxer reads, without changing its length.
//!
//! Files of phones and editors have tracks and sample entries of QuickTime. The sound entry of version 1 (QTFF,
//! "Sound Sample Description (Version 1)") becomes one of version 0 with its `esds` box; a track that cannot be
//! read or that FLV cannot carry becomes a `free` box, so that it does not keep the others from being read.

use std::fmt;
use std::ops::Range;

use shiguredo_mp4::Decode;
use shiguredo_mp4::boxes::{SampleEntry, TrakBox};

use super::codec::Codec;
use crate::media::mp4::read_header;

/// Bytes of an `AudioSampleEntry` of version 0, header included.
const SOUND_ENTRY: usize = 36;
/// Bytes that version 1 adds.
const VERSION_1: usize = 16;
/// The formats of uncompressed sound in MP4 and QuickTime.
const PCM: [&[u8; 4]; 12] = [
    b"sowt", b"twos", b"lpcm", b"ipcm", b"fpcm", b"in24", b"in32", b"fl32", b"fl64", b"raw ", b"NONE",
    b"s16l",
];

/// A track that is not pushed, and why.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::tools::push) enum LeftOut {
    /// FLV has no name for its format.
    Format {
        /// It is sound, otherwise pictures.
        sound: bool,
        /// The type of its sample entry.
        format: [u8; 4],
    },
    /// Its boxes are damaged or of an unknown version.
    Unreadable {
        /// It is sound, otherwise pictures.
        sound: bool,
    },
}

impl fmt::Display for LeftOut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (Self::Format { sound, .. } | Self::Unreadable { sound }) = self;
        let track = if *sound { "a sound track" } else { "a video track" };
        match self {
            Self::Format { format, .. } if PCM.contains(&format) => {
                write!(
                    f,
                    "{track} is left out: it is PCM ({}), which FLV does not carry",
                    format.escape_ascii()
                )
            }
            Self::Format { format, .. } => {
                write!(f, "{track} is left out: FLV does not carry its format ({})", format.escape_ascii())
            }
            Self::Unreadable { .. } => write!(f, "{track} is left out: its description cannot be read"),
        }
    }
}

/// Tidies a whole `moov` box; returns the tracks that are left out.
pub(super) fn tidy(moov: &mut [u8]) -> Vec<LeftOut> {
    let mut left_out = Vec::new();
    let tracks: Vec<Child> = children(moov, content_of(moov, 0..moov.len())).collect();
    for track in tracks.into_iter().filter(|child| &child.kind == b"trak") {
        match judge(moov, &track) {
            Verdict::Read => {}
            Verdict::Other => free(moov, &track),
            Verdict::LeaveOut(why) => {
                left_out.push(why);
                free(moov, &track);
            }
        }
    }
    left_out
}

enum Verdict {
    Read,
    /// It is neither sound nor pictures: nobody misses it.
    Other,
    LeaveOut(LeftOut),
}

fn judge(moov: &mut [u8], track: &Child) -> Verdict {
    let media = find(moov, track.content.clone(), &[b"mdia"]);
    let handler = media.clone().and_then(|media| find(moov, media, &[b"hdlr"]));
    let sound = match handler.and_then(|hdlr| moov.get(hdlr.start + 8..hdlr.start + 12)) {
        Some(b"soun") => true,
        Some(b"vide") => false,
        _ => return Verdict::Other,
    };
    let described = media.and_then(|media| find(moov, media, &[b"minf", b"stbl", b"stsd"]));
    // Version, flags and the number of entries come first.
    let Some(entries) = described.filter(|stsd| stsd.len() > 8).map(|stsd| stsd.start + 8..stsd.end) else {
        return Verdict::LeaveOut(LeftOut::Unreadable { sound });
    };
    let entries: Vec<Child> = children(moov, entries).collect();
    for entry in &entries {
        if &entry.kind == b"mp4a" {
            tidy_sound(moov, entry);
        }
    }
    let Some(entry) = entries.first() else { return Verdict::LeaveOut(LeftOut::Unreadable { sound }) };
    match SampleEntry::decode(&moov[entry.whole.clone()]) {
        Ok((found, _)) if Codec::of(&found).is_none() => {
            Verdict::LeaveOut(LeftOut::Format { sound, format: entry.kind })
        }
        Ok(_) if TrakBox::decode(&moov[track.whole.clone()]).is_ok() => Verdict::Read,
        _ => Verdict::LeaveOut(LeftOut::Unreadable { sound }),
    }
}

/// Makes a sound entry of QuickTime's version 1 one of version 0, with its `esds` box and a `free` box.
fn tidy_sound(moov: &mut [u8], entry: &Child) {
    let Range { start, end } = entry.whole.clone();
    let header = entry.content.start - start;
    if header != 8 || end - start < SOUND_ENTRY + VERSION_1 || moov[start + 16..start + 18] != [0, 1] {
        return;
    }
    let boxes = start + SOUND_ENTRY + VERSION_1..end;
    let inside = find(moov, boxes.clone(), &[b"wave"]).unwrap_or_else(|| boxes.clone());
    let Some(esds) = children(moov, inside).find(|child| &child.kind == b"esds") else { return };
    let esds = moov[esds.whole].to_vec();
    let (from, to) = (start + SOUND_ENTRY, start + SOUND_ENTRY + esds.len());
    // The version's own fields leave space for the header of a box at least.
    let Some(spare) = end.checked_sub(to).filter(|spare| *spare >= 8) else { return };
    moov[start + 16..start + 18].fill(0);
    moov[from..to].copy_from_slice(&esds);
    moov[to..end].fill(0);
    let Ok(size) = u32::try_from(spare) else { return };
    moov[to..to + 4].copy_from_slice(&size.to_be_bytes());
    moov[to + 4..to + 8].copy_from_slice(b"free");
}

fn free(moov: &mut [u8], track: &Child) {
    let kind = track.whole.start + 4;
    moov[kind..kind + 4].copy_from_slice(b"free");
}

/// A box within other bytes.
#[derive(Clone, Debug)]
struct Child {
    kind: [u8; 4],
    whole: Range<usize>,
    content: Range<usize>,
}

/// The boxes in a range, as far as they are whole.
fn children(bytes: &[u8], within: Range<usize>) -> impl Iterator<Item = Child> + use<> {
    let (mut at, mut found) = (within.start, Vec::new());
    while at < within.end {
        let Ok(header) = read_header(&bytes[at..within.end]) else { break };
        let Some(end) = usize::try_from(header.size).ok().and_then(|size| at.checked_add(size)) else {
            break;
        };
        if end > within.end {
            break;
        }
        let content = at + usize::try_from(header.header).unwrap_or(usize::MAX)..end;
        found.push(Child { kind: header.kind, whole: at..end, content });
        at = end;
    }
    found.into_iter()
}

fn content_of(bytes: &[u8], whole: Range<usize>) -> Range<usize> {
    children(bytes, whole).next().map_or(0..0, |child| child.content)
}

/// The content of the box at the end of a path of types.
fn find(bytes: &[u8], within: Range<usize>, path: &[&[u8; 4]]) -> Option<Range<usize>> {
    path.iter().try_fold(within, |within, kind| {
        children(bytes, within).find(|child| child.kind == **kind).map(|child| child.content)
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn boxed(kind: &[u8; 4], content: &[u8]) -> Vec<u8> {
        let size = u32::try_from(content.len() + 8).unwrap();
        [&size.to_be_bytes(), &kind[..], content].concat()
    }

    /// A track whose sample description is `entry`.
    fn movie(handler: &[u8; 4], entry: &[u8]) -> Vec<u8> {
        let stsd = boxed(b"stsd", &[&[0, 0, 0, 0, 0, 0, 0, 1], entry].concat());
        let hdlr = boxed(b"hdlr", &[&[0; 8][..], handler, &[0; 13]].concat());
        let mdia = boxed(b"mdia", &[hdlr, boxed(b"minf", &boxed(b"stbl", &stsd))].concat());
        boxed(b"moov", &boxed(b"trak", &mdia))
    }

    #[test]
    fn a_sound_entry_of_version_1_becomes_one_of_version_0() {
        let esds = boxed(b"esds", &[7; 40]);
        let wave = boxed(b"wave", &[boxed(b"frma", b"mp4a"), esds.clone(), boxed(&[0; 4], &[])].concat());
        let fields = [&[0, 0, 0, 0, 0, 0, 0, 1, 0, 1][..], &[0; 18], &[9; 16]].concat();
        let mut moov = movie(b"soun", &boxed(b"mp4a", &[fields, wave].concat()));
        let len = moov.len();
        tidy(&mut moov);
        assert_eq!(moov.len(), len);
        let at = moov.windows(4).position(|four| four == b"mp4a").unwrap();
        assert_eq!(moov[at + 12..at + 14], [0, 0], "the version");
        assert_eq!(moov[at + 32..at + 32 + esds.len()], esds[..]);
        assert_eq!(&moov[at + 36 + esds.len()..][..4], b"free");
    }

    #[test]
    fn tracks_that_cannot_be_pushed_are_named() {
        let said = |handler, entry: &[u8]| {
            let mut moov = movie(handler, entry);
            let said = tidy(&mut moov);
            assert!(!moov.windows(4).any(|four| four == b"trak"));
            said.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
        };
        assert!(said(b"soun", &boxed(b"sowt", &[0; 28])).contains("PCM (sowt)"));
        assert!(said(b"vide", &boxed(b"ap4h", &[0; 78])).contains("video track is left out: FLV does not"));
        assert!(said(b"soun", &boxed(b"mp4a", &[0; 4])).contains("cannot be read"));
        assert!(said(b"soun", &[]).contains("cannot be read"));
        assert_eq!(said(b"tmcd", &boxed(b"tmcd", &[0; 28])), "");
    }

    proptest! {
        #[test]
        fn any_bytes_keep_their_length(
            handler in proptest::sample::select(vec![*b"soun", *b"vide", *b"meta"]),
            kind in proptest::sample::select(vec![*b"mp4a", *b"avc1", *b"sowt"]),
            content in proptest::collection::vec(prop_oneof![3 => Just(0u8), 1 => any::<u8>()], 0..120),
            flip in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..6),
        ) {
            let mut moov = movie(&handler, &boxed(&kind, &content));
            for (at, byte) in flip {
                let at = at.index(moov.len());
                moov[at] = byte;
            }
            let len = moov.len();
            tidy(&mut moov);
            prop_assert_eq!(moov.len(), len);
        }
    }
}
