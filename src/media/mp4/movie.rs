//! `moov` of a fragmented file, with empty tables, and of a whole one (ISO/IEC 14496-12, clause 8).

use super::boxes::{count, put_box, put_full, put_u16, put_u32, put_u64};

/// Units per second of a movie's own times.
pub(super) const MOVIE_TIMESCALE: u32 = 1000;

/// One track as described by `trak`.
#[derive(Clone, Debug, Default)]
pub(super) struct Track {
    pub(super) id: u32,
    /// Width and height of pictures; `None`: sound.
    pub(super) size: Option<(u16, u16)>,
    pub(super) timescale: u32,
    /// Sample entries, as boxes.
    pub(super) entries: Vec<Vec<u8>>,
    pub(super) tables: Tables,
    pub(super) edits: Vec<Edit>,
}

/// An entry of the edit list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Edit {
    /// In the movie's units.
    pub(super) duration: u64,
    /// In the track's units; -1: nothing is shown.
    pub(super) media_time: i64,
}

/// Where each sample is and when it is shown; run-length coded like the boxes.
#[derive(Clone, Debug, Default)]
pub(super) struct Tables {
    /// Numbers of samples in a row and their duration.
    pub(super) durations: Vec<(u32, u32)>,
    /// Numbers of samples in a row and their composition offset.
    pub(super) offsets: Vec<(u32, i32)>,
    pub(super) sizes: Vec<u32>,
    /// Numbers, counted from 1, of the samples that can be decoded by themselves.
    pub(super) sync: Vec<u32>,
    /// First chunk (from 1), samples in each, sample entry (from 1).
    pub(super) chunk_runs: Vec<(u32, u32, u32)>,
    /// Offsets of the chunks in the media data.
    pub(super) chunks: Vec<u64>,
}

impl Tables {
    pub(super) fn media_duration(&self) -> u64 {
        self.durations.iter().map(|(count, each)| u64::from(*count) * u64::from(*each)).sum()
    }
}

impl Track {
    /// How long the track is shown, in the movie's units.
    fn shown(&self) -> u64 {
        self.edits.iter().map(|edit| edit.duration).sum()
    }
}

/// `moov`. Chunk offsets are counted from `base`. `fragmented`: the samples are in fragments.
pub(super) fn movie(tracks: &[Track], base: u64, fragmented: bool) -> Vec<u8> {
    let mut out = Vec::with_capacity(1024);
    put_box(&mut out, *b"moov", |out| {
        put_full(out, *b"mvhd", 1, 0, |out| {
            out.extend_from_slice(&[0; 16]); // creation time: left out, so that the same take gives the same file
            put_u32(out, MOVIE_TIMESCALE);
            put_u64(out, tracks.iter().map(Track::shown).max().unwrap_or(0));
            put_u32(out, 1 << 16); // rate
            put_u16(out, 1 << 8); // volume
            out.extend_from_slice(&[0; 10]);
            put_matrix(out);
            out.extend_from_slice(&[0; 24]);
            put_u32(out, tracks.iter().map(|track| track.id).max().unwrap_or(0) + 1);
        });
        tracks.iter().for_each(|track| put_track(track, base, out));
        if fragmented {
            put_box(out, *b"mvex", |out| {
                for track in tracks {
                    put_full(out, *b"trex", 0, 0, |out| {
                        put_u32(out, track.id);
                        put_u32(out, 1); // the sample entry
                        out.extend_from_slice(&[0; 12]);
                    });
                }
            });
        }
    });
    out
}

fn put_matrix(out: &mut Vec<u8>) {
    for value in [1 << 16, 0, 0, 0, 1 << 16, 0, 0, 0, 1 << 30] {
        put_u32(out, value);
    }
}

fn put_track(track: &Track, base: u64, out: &mut Vec<u8>) {
    put_box(out, *b"trak", |out| {
        put_full(out, *b"tkhd", 1, 3, |out| {
            out.extend_from_slice(&[0; 16]);
            put_u32(out, track.id);
            put_u32(out, 0);
            put_u64(out, track.shown());
            out.extend_from_slice(&[0; 12]); // layer, group
            put_u16(out, if track.size.is_none() { 1 << 8 } else { 0 }); // volume
            put_u16(out, 0);
            put_matrix(out);
            let (width, height) = track.size.unwrap_or((0, 0));
            put_u32(out, u32::from(width) << 16);
            put_u32(out, u32::from(height) << 16);
        });
        if !track.edits.is_empty() {
            put_box(out, *b"edts", |out| {
                put_full(out, *b"elst", 1, 0, |out| {
                    put_u32(out, count(track.edits.len()));
                    for edit in &track.edits {
                        put_u64(out, edit.duration);
                        put_u64(out, edit.media_time.cast_unsigned());
                        put_u32(out, 1 << 16); // rate
                    }
                });
            });
        }
        put_box(out, *b"mdia", |out| put_media(track, base, out));
    });
}

fn put_media(track: &Track, base: u64, out: &mut Vec<u8>) {
    let video = track.size.is_some();
    put_full(out, *b"mdhd", 1, 0, |out| {
        out.extend_from_slice(&[0; 16]);
        put_u32(out, track.timescale);
        put_u64(out, track.tables.media_duration());
        put_u32(out, 0x55c4 << 16); // und
    });
    put_full(out, *b"hdlr", 0, 0, |out| {
        put_u32(out, 0);
        out.extend_from_slice(if video { b"vide" } else { b"soun" });
        out.extend_from_slice(&[0; 12]);
        out.extend_from_slice(if video { b"video\0" } else { b"sound\0" });
    });
    put_box(out, *b"minf", |out| {
        if video {
            put_full(out, *b"vmhd", 0, 1, |out| out.extend_from_slice(&[0; 8]));
        } else {
            put_full(out, *b"smhd", 0, 0, |out| out.extend_from_slice(&[0; 4]));
        }
        put_box(out, *b"dinf", |out| {
            put_full(out, *b"dref", 0, 0, |out| {
                put_u32(out, 1);
                put_full(out, *b"url ", 0, 1, |_| {});
            });
        });
        put_box(out, *b"stbl", |out| put_tables(track, base, out));
    });
}

fn put_tables(track: &Track, base: u64, out: &mut Vec<u8>) {
    let tables = &track.tables;
    put_full(out, *b"stsd", 0, 0, |out| {
        put_u32(out, count(track.entries.len()));
        track.entries.iter().for_each(|entry| out.extend_from_slice(entry));
    });
    put_full(out, *b"stts", 0, 0, |out| {
        put_u32(out, count(tables.durations.len()));
        for (samples, each) in &tables.durations {
            put_u32(out, *samples);
            put_u32(out, *each);
        }
    });
    if tables.offsets.iter().any(|(_, offset)| *offset != 0) {
        // Version 1: the offsets are signed.
        put_full(out, *b"ctts", 1, 0, |out| {
            put_u32(out, count(tables.offsets.len()));
            for (samples, offset) in &tables.offsets {
                put_u32(out, *samples);
                put_u32(out, offset.cast_unsigned());
            }
        });
    }
    if track.size.is_some() && tables.sync.len() != tables.sizes.len() {
        put_full(out, *b"stss", 0, 0, |out| {
            put_u32(out, count(tables.sync.len()));
            tables.sync.iter().for_each(|number| put_u32(out, *number));
        });
    }
    put_full(out, *b"stsc", 0, 0, |out| {
        put_u32(out, count(tables.chunk_runs.len()));
        for (first, samples, entry) in &tables.chunk_runs {
            put_u32(out, *first);
            put_u32(out, *samples);
            put_u32(out, *entry);
        }
    });
    put_full(out, *b"stsz", 0, 0, |out| {
        put_u32(out, 0);
        put_u32(out, count(tables.sizes.len()));
        tables.sizes.iter().for_each(|size| put_u32(out, *size));
    });
    let last = tables.chunks.last().map_or(0, |last| base + last);
    if u32::try_from(last).is_ok() {
        put_full(out, *b"stco", 0, 0, |out| {
            put_u32(out, count(tables.chunks.len()));
            for chunk in &tables.chunks {
                put_u32(out, u32::try_from(base + chunk).expect("no offset is above the last one"));
            }
        });
    } else {
        put_full(out, *b"co64", 0, 0, |out| {
            put_u32(out, count(tables.chunks.len()));
            tables.chunks.iter().for_each(|chunk| put_u64(out, base + chunk));
        });
    }
}
