//! MP4 (ISO/IEC 14496-12): init segments, fragments, and the whole file that fragments are merged into.

mod boxes;
mod entry;
pub mod fragment;
pub mod merge;
mod movie;

pub use boxes::{BoxHeader, Boxes, Fields, HEADER_MAX, Mp4Error, read_header};

use super::track::{Audio, Tracks, Video};
use boxes::put_box;
use movie::Track;

/// The number of a track; the same in files with both tracks and with one.
const VIDEO_ID: u32 = 1;
const AUDIO_ID: u32 = 2;
/// Units per second of the video track's times. Those of the audio track are samples.
const VIDEO_TIMESCALE: u32 = 90_000;

/// The tracks that fragments can carry: all known ones.
pub fn supported(tracks: &Tracks) -> Tracks {
    tracks.clone()
}

/// An init segment for `tracks`.
pub fn init(tracks: &Tracks) -> Vec<u8> {
    let video = tracks.video.as_deref().map(video_track);
    let audio = tracks.audio.as_deref().map(audio_track);
    let described: Vec<Track> = video.into_iter().chain(audio).collect();
    let mut out = file_type(b"iso6", &[b"iso6", b"isom", b"mp41"]);
    out.extend_from_slice(&movie::movie(&described, 0, true));
    out
}

fn video_track(video: &Video) -> Track {
    Track {
        id: VIDEO_ID,
        size: Some((video.width, video.height)),
        timescale: VIDEO_TIMESCALE,
        entries: vec![entry::video(video)],
        ..Track::default()
    }
}

fn audio_track(audio: &Audio) -> Track {
    Track {
        id: AUDIO_ID,
        size: None,
        timescale: audio.sample_rate,
        entries: vec![entry::audio(audio)],
        ..Track::default()
    }
}

fn file_type(major: &[u8; 4], compatible: &[&[u8; 4]]) -> Vec<u8> {
    let mut out = Vec::with_capacity(64);
    put_box(&mut out, *b"ftyp", |out| {
        out.extend_from_slice(major);
        out.extend_from_slice(&[0, 0, 2, 0]);
        compatible.iter().for_each(|brand| out.extend_from_slice(*brand));
    });
    out
}

#[cfg(test)]
mod tests;
