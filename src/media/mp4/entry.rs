//! Sample entries: what a decoder needs (ISO/IEC 14496-12, 8.5.2; 14496-14; 14496-15; AV1 and Opus in ISOBMFF).

use super::boxes::{count, put_box, put_full, put_u16, put_u32};
use crate::media::track::{Audio, AudioCodec, Video, VideoCodec};

/// A `VisualSampleEntry` (8.5.2, 12.1.3).
pub(super) fn video(video: &Video) -> Vec<u8> {
    let (entry, config) = match video.codec {
        VideoCodec::H264 => (*b"avc1", *b"avcC"),
        VideoCodec::H265 => (*b"hvc1", *b"hvcC"),
        VideoCodec::Av1 => (*b"av01", *b"av1C"),
    };
    let mut out = Vec::with_capacity(128 + video.record.len());
    put_box(&mut out, entry, |out| {
        out.extend_from_slice(&[0, 0, 0, 0, 0, 0, 0, 1]); // data_reference_index
        out.extend_from_slice(&[0; 16]);
        put_u16(out, video.width);
        put_u16(out, video.height);
        put_u32(out, 72 << 16); // horizresolution
        put_u32(out, 72 << 16);
        put_u32(out, 0);
        put_u16(out, 1); // frame_count
        out.extend_from_slice(&[0; 32]); // compressorname
        out.extend_from_slice(&[0, 24, 0xff, 0xff]); // depth, pre_defined
        put_box(out, config, |out| out.extend_from_slice(&video.record));
    });
    out
}

/// An `AudioSampleEntry` (8.5.2, 12.2.3).
pub(super) fn audio(audio: &Audio) -> Vec<u8> {
    let entry = if audio.codec == AudioCodec::Opus { *b"Opus" } else { *b"mp4a" };
    let mut out = Vec::with_capacity(128);
    put_box(&mut out, entry, |out| {
        out.extend_from_slice(&[0, 0, 0, 0, 0, 0, 0, 1]);
        out.extend_from_slice(&[0; 8]);
        put_u16(out, u16::from(audio.channels));
        out.extend_from_slice(&[0, 16, 0, 0, 0, 0]); // samplesize, pre_defined
        // A rate that does not fit is left to the codec configuration.
        put_u32(out, u32::from(u16::try_from(audio.sample_rate).unwrap_or(0)) << 16);
        match audio.codec {
            AudioCodec::Opus => put_box(out, *b"dOps", |out| out.extend_from_slice(&audio.record)),
            AudioCodec::Aac => elementary_stream(0x40, &audio.record, out),
            AudioCodec::Mpeg => {
                elementary_stream(if audio.sample_rate < 32_000 { 0x69 } else { 0x6b }, &[], out)
            }
        }
    });
    out
}

/// `esds` (14496-14, 5.6) with its descriptors (14496-1, 7.2.6).
fn elementary_stream(object_type: u8, config: &[u8], out: &mut Vec<u8>) {
    let mut info = Vec::new();
    if !config.is_empty() {
        put_descriptor(&mut info, 5, config);
    }
    let mut decoder = vec![object_type, 0x15]; // an audio stream
    decoder.extend_from_slice(&[0; 11]); // buffer size, bit rates: unknown
    decoder.extend_from_slice(&info);
    let mut stream = vec![0; 3]; // ES_ID, flags
    put_descriptor(&mut stream, 4, &decoder);
    put_descriptor(&mut stream, 6, &[2]);
    put_full(out, *b"esds", 0, 0, |out| put_descriptor(out, 3, &stream));
}

/// A descriptor: its tag, its length in groups of seven bits (14496-1, 8.3.3), its body.
fn put_descriptor(out: &mut Vec<u8>, tag: u8, body: &[u8]) {
    out.push(tag);
    let len = count(body.len());
    for shift in [21, 14, 7].into_iter().filter(|shift| len >> shift > 0) {
        out.push(0x80 | u8::try_from(len >> shift & 0x7f).expect("seven bits"));
    }
    out.push(u8::try_from(len & 0x7f).expect("seven bits"));
    out.extend_from_slice(body);
}
