//! AAC: the audio specific config, and the ADTS header before each frame in a transport stream.

use bytes::Bytes;

use super::bits::BitReader;
use super::track::{Audio, AudioCodec};

/// Samples per second by `samplingFrequencyIndex` (ISO/IEC 14496-3, table 1.18).
const RATES: [u32; 13] =
    [96_000, 88_200, 64_000, 48_000, 44_100, 32_000, 24_000, 22_050, 16_000, 12_000, 11_025, 8_000, 7_350];
/// Channels by `channelConfiguration` (ISO/IEC 14496-3, table 1.19).
const CHANNELS: [u8; 8] = [0, 1, 2, 3, 4, 5, 6, 8];
/// Bytes of an ADTS header without a checksum.
pub const ADTS_HEADER: usize = 7;
/// The longest frame that ADTS can carry: its length field has 13 bits and counts the header.
pub const ADTS_FRAME_MAX: usize = (1 << 13) - 1 - ADTS_HEADER;

/// Reads an `AudioSpecificConfig` (ISO/IEC 14496-3, 1.6.2.1). `None`: it is truncated or uses reserved values.
pub fn parse_config(record: &Bytes) -> Option<Audio> {
    let config = parse(record)?;
    Some(Audio {
        codec: AudioCodec::Aac,
        record: record.clone(),
        sample_rate: config.rate,
        channels: config.channels.max(1),
        frame: config.frame,
        codecs: format!("mp4a.40.{}", config.signalled),
    })
}

/// The contents of an `AudioSpecificConfig`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Config {
    /// The first object type: 5 and 29 announce an extension.
    signalled: u32,
    /// The object type of the core coder.
    object: u32,
    /// Of the core coder.
    rate: u32,
    /// 0: unknown.
    channels: u8,
    frame: u32,
}

fn parse(record: &[u8]) -> Option<Config> {
    let mut bits = BitReader::new(record);
    let signalled = object_type(&mut bits)?;
    let rate = sampling_rate(&mut bits)?;
    let configuration = bits.bits(4)?;
    let mut object = signalled;
    if matches!(signalled, 5 | 29) {
        sampling_rate(&mut bits)?; // of the extension
        object = object_type(&mut bits)?;
    }
    let mut channels = *CHANNELS.get(configuration as usize).unwrap_or(&0);
    let mut short = false;
    // GASpecificConfig (4.4.1); without it frames have the usual length.
    if matches!(object, 1..=4 | 6 | 7 | 17 | 19..=23) {
        short = bits.flag().unwrap_or(false);
        if configuration == 0 {
            channels = program_channels(&mut bits).unwrap_or(0);
        }
    }
    Some(Config { signalled, object, rate, channels, frame: if short { 960 } else { 1024 } })
}

fn object_type(bits: &mut BitReader<'_>) -> Option<u32> {
    match bits.bits(5)? {
        31 => Some(32 + bits.bits(6)?),
        object => Some(object),
    }
}

fn sampling_rate(bits: &mut BitReader<'_>) -> Option<u32> {
    match bits.bits(4)? {
        15 => bits.bits(24).filter(|rate| (1..=192_000).contains(rate)),
        index => RATES.get(index as usize).copied(),
    }
}

/// Channels of a `program_config_element` (ISO/IEC 14496-3, 4.4.1.1), read as far as the element lists that
/// count them.
fn program_channels(bits: &mut BitReader<'_>) -> Option<u8> {
    if bits.flag()? {
        bits.skip(14)?; // coreCoderDelay
    }
    bits.skip(1)?; // extensionFlag
    bits.skip(4 + 2 + 4)?; // element_instance_tag, object_type, sampling_frequency_index
    let (front, side, back) = (bits.bits(4)?, bits.bits(4)?, bits.bits(4)?);
    let lfe = u8::try_from(bits.bits(2)?).ok()?;
    bits.skip(3 + 4)?; // num_assoc_data_elements, num_valid_cc_elements
    for skipped in [4, 4, 3] {
        if bits.flag()? {
            bits.skip(skipped)?; // mono, stereo and matrix mixdown
        }
    }
    let mut channels = lfe;
    for _ in 0..front + side + back {
        channels += if bits.flag()? { 2 } else { 1 };
        bits.skip(4)?;
    }
    Some(channels)
}

/// The parts that are the same in every ADTS header of a track.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Adts {
    profile: u8,
    rate_index: u8,
    channels: u8,
}

impl Adts {
    /// From an `AudioSpecificConfig`. HE-AAC is announced as its core, and decoders detect the extension.
    /// `None`: ADTS cannot express it.
    pub fn new(record: &[u8]) -> Option<Self> {
        let config = parse(record)?;
        let profile = u8::try_from(config.object.checked_sub(1)?).ok().filter(|profile| *profile < 4)?;
        let rate_index = RATES.iter().position(|rate| *rate == config.rate)?;
        let channels = CHANNELS.iter().position(|channels| *channels == config.channels.max(1))?;
        Some(Self {
            profile,
            rate_index: u8::try_from(rate_index).ok()?,
            channels: u8::try_from(channels).ok()?,
        })
    }

    /// The header of a frame of `len` bytes (ISO/IEC 13818-7, 6.2), at most [`ADTS_FRAME_MAX`].
    pub fn header(self, len: usize) -> [u8; ADTS_HEADER] {
        assert!(len <= ADTS_FRAME_MAX, "the caller has checked the length");
        let length = len + ADTS_HEADER;
        let [.., l1, l0] = length.to_be_bytes();
        let Self { profile, rate_index, channels } = self;
        [
            0xff,
            0xf1, // MPEG-4, no checksum
            profile << 6 | rate_index << 2 | channels >> 2,
            channels << 6 | l1 >> 3,
            l1 << 5 | l0 >> 3,
            l0 << 5 | 0x1f,
            0xfc, // the buffer's fullness is unknown; one frame
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn audio(record: &[u8]) -> Option<(u32, u8, u32, String)> {
        let audio = parse_config(&Bytes::copy_from_slice(record))?;
        Some((audio.sample_rate, audio.channels, audio.frame, audio.codecs))
    }

    #[test]
    fn configs() {
        let lc = |rate, channels| Some((rate, channels, 1024, "mp4a.40.2".to_owned()));
        assert_eq!(audio(&[0x12, 0x10]), lc(44_100, 2));
        assert_eq!(audio(&[0x11, 0x88]), lc(48_000, 1));
        assert_eq!(audio(&[0x12, 0x14]).unwrap().2, 960);
        // HE-AAC, explicitly signalled: a core of 22,050 Hz.
        assert_eq!(audio(&[0x2b, 0x92, 0x08, 0x00]), Some((22_050, 2, 1024, "mp4a.40.5".to_owned())));
        // A rate that is written in full.
        assert_eq!(audio(&[0x17, 0x80, 0x56, 0x22, 0x10]).unwrap().0, 44_100);
        assert_eq!(audio(&[0x12]), None);
        assert_eq!(audio(&[]), None);
        assert_eq!(audio(&[0x16, 0x90]), None, "a reserved rate");
    }

    #[test]
    fn the_adts_header_says_what_the_config_says() {
        let adts = Adts::new(&[0x12, 0x10]).unwrap();
        assert_eq!(adts.header(100), [0xff, 0xf1, 0x50, 0x80, 0x0d, 0x7f, 0xfc]);
        assert_eq!(Adts::new(&[0x2b, 0x92, 0x08, 0x00]).unwrap().profile, 1);
        assert_eq!(adts.header(ADTS_FRAME_MAX)[3..6], [0x83, 0xff, 0xff]);
        assert_eq!(Adts::new(&[0x17, 0, 0, 0x22, 0x10]), None, "34 Hz");
    }

    #[test]
    fn any_config_is_read_without_a_panic() {
        for first in 0..=255 {
            for second in 0..=255 {
                audio(&[first, second]);
                audio(&[first, second, 0xff, 0xff, 0xff, 0, 0xff]);
            }
        }
    }
}
