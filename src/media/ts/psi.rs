//! The two tables of a program (ISO/IEC 13818-1, 2.4.4).

use super::pid::{PID_AUDIO, PID_VIDEO};
use crate::media::track::{AudioCodec, Tracks, VideoCodec};

/// The one program's number.
const PROGRAM: u8 = 1;

/// `stream_type` (13818-1, table 2-34) and packet identifier of each track.
pub(super) fn streams(tracks: &Tracks) -> Vec<(u8, u16)> {
    let mut streams = Vec::with_capacity(2);
    if let Some(video) = &tracks.video {
        streams.push((if video.codec == VideoCodec::H265 { 0x24 } else { 0x1b }, PID_VIDEO));
    }
    if let Some(audio) = &tracks.audio {
        let kind = match audio.codec {
            AudioCodec::Aac => 0x0f,
            _ if audio.sample_rate < 32_000 => 0x04,
            _ => 0x03,
        };
        streams.push((kind, PID_AUDIO));
    }
    streams
}

/// The program association table: one program, whose map is at `map`.
pub(super) fn association(map: u16) -> Vec<u8> {
    let [high, low] = map.to_be_bytes();
    section(0, 1, 0, &[0, PROGRAM, 0xe0 | high, low])
}

/// The program map table: the packet identifier of the clock, and the streams.
pub(super) fn map(version: u8, clock: u16, streams: &[(u8, u16)]) -> Vec<u8> {
    let [high, low] = clock.to_be_bytes();
    let mut body = vec![0xe0 | high, low, 0xf0, 0];
    for (kind, pid) in streams {
        let [high, low] = pid.to_be_bytes();
        body.extend_from_slice(&[*kind, 0xe0 | high, low, 0xf0, 0]);
    }
    section(2, PROGRAM, version, &body)
}

/// A section with its header and checksum; `id` is the transport stream's or the program's.
fn section(table: u8, id: u8, version: u8, body: &[u8]) -> Vec<u8> {
    let [high, low] = u16::try_from(body.len() + 9).expect("a small table").to_be_bytes();
    let mut section = vec![table, 0xb0 | high, low, 0, id, 0xc1 | version << 1, 0, 0];
    section.extend_from_slice(body);
    let crc = crc32(&section);
    section.extend_from_slice(&crc.to_be_bytes());
    section
}

/// The checksum of 13818-1, annex A.
fn crc32(bytes: &[u8]) -> u32 {
    bytes.iter().fold(u32::MAX, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte) << 24, |crc, _| {
            if crc & 0x8000_0000 == 0 { crc << 1 } else { crc << 1 ^ 0x04c1_1db7 }
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tables_of_the_standard() {
        // As written by ffmpeg.
        assert_eq!(association(0x1000), [0, 0xb0, 13, 0, 1, 0xc1, 0, 0, 0, 1, 0xf0, 0, 0x2a, 0xb1, 4, 0xb2]);
        assert_eq!(crc32(b"123456789"), 0x0376_e6e7);
        let map = map(0, 0x100, &[(0x1b, 0x100), (0x0f, 0x101)]);
        assert_eq!(crc32(&map), 0, "a section with its checksum sums to zero");
        assert_eq!(map.len(), 26);
    }
}
