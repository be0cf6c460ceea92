//! AAC: the audio specific config, and the ADTS header before each frame in a transport stream.

use bytes::Bytes;

use super::bits::BitReader;
use super::track::{Audio, AudioCodec};

/// Samples per second by `samplingFrequencyIndex` (ISO/IEC 14496-3, table 1.18).
const RATES: [u32; 13] =
    [96_000, 88_200, 64_000, 48_000, 44_100, 32_000, 24_000, 22_050, 16_000, 12_000, 11_025, 8_000, 7_350];
/// Channels by `channelConfiguration` (ISO/IEC 14496-3, table 1.19); 0: reserved, or told elsewhere.
const CHANNELS: [u8; 16] = [0, 1, 2, 3, 4, 5, 6, 8, 0, 0, 0, 7, 8, 24, 8, 0];
/// The largest `channelConfiguration` that ADTS can carry: its field has 3 bits.
const ADTS_CONFIGURATION_MAX: u32 = 7;
/// `id_syn_ele` of a `program_config_element` (table 4.85).
const ID_PCE: u32 = 5;
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
#[derive(Clone, Debug, PartialEq, Eq)]
struct Config {
    /// The first object type: 5 and 29 announce an extension.
    signalled: u32,
    /// The object type of the core coder.
    object: u32,
    /// Of the core coder.
    rate: u32,
    /// `channelConfiguration`; 0: the channels stand in a program config element.
    configuration: u32,
    /// 0: unknown.
    channels: u8,
    /// The program config element as an element of a frame; empty: there is none.
    program: Vec<u8>,
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
    let (mut short, mut program) = (false, Vec::new());
    // GASpecificConfig (4.4.1); without it frames have the usual length.
    if matches!(object, 1..=4 | 6 | 7 | 17 | 19..=23) {
        short = bits.flag().unwrap_or(false);
        if configuration == 0 {
            if bits.flag() == Some(true) {
                bits.skip(14)?; // coreCoderDelay
            }
            bits.skip(1)?; // extensionFlag
            (channels, program) = read_program(&mut bits, record).unwrap_or_default();
        }
    }
    let frame = if short { 960 } else { 1024 };
    Some(Config { signalled, object, rate, configuration, channels, program, frame })
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

/// Reads a `program_config_element` (ISO/IEC 14496-3, 4.4.1.1) of a `record`: how many channels it has, and itself
/// as the first element of a frame.
fn read_program(bits: &mut BitReader<'_>, record: &[u8]) -> Option<(u8, Vec<u8>)> {
    let mut out = BitWriter::default();
    out.put(ID_PCE, 3);
    let mut copy = |bits: &mut BitReader<'_>, count| bits.bits(count).inspect(|value| out.put(*value, count));
    copy(bits, 4 + 2 + 4)?; // element_instance_tag, object_type, sampling_frequency_index
    let (front, side, back) = (copy(bits, 4)?, copy(bits, 4)?, copy(bits, 4)?);
    let (lfe, data, coupling) = (copy(bits, 2)?, copy(bits, 3)?, copy(bits, 4)?);
    for mixdown in [4, 4, 3] {
        // Mono, stereo and matrix mixdown.
        if copy(bits, 1)? == 1 {
            copy(bits, mixdown)?;
        }
    }
    let mut channels = lfe;
    for _ in 0..front + side + back {
        channels += 1 + copy(bits, 1)?; // is_cpe
        copy(bits, 4)?;
    }
    for _ in 0..lfe + data {
        copy(bits, 4)?;
    }
    for _ in 0..coupling {
        copy(bits, 5)?;
    }
    // Both are aligned here, each from its own beginning.
    let comment = record.get(bits.position().div_ceil(8)..)?;
    let (&len, comment) = comment.split_first()?;
    let mut program = out.bytes;
    program.push(len);
    program.extend_from_slice(comment.get(..usize::from(len))?);
    Some((u8::try_from(channels).ok()?, program))
}

/// Writes bits, the most significant first.
#[derive(Debug, Default)]
struct BitWriter {
    bytes: Vec<u8>,
    /// Bits in the last byte.
    used: u32,
}

impl BitWriter {
    fn put(&mut self, value: u32, count: u32) {
        for n in (0..count).rev() {
            if self.used.is_multiple_of(8) {
                self.bytes.push(0);
                self.used = 0;
            }
            let last = self.bytes.last_mut().expect("pushed above");
            *last |= u8::from(value >> n & 1 == 1) << (7 - self.used);
            self.used += 1;
        }
    }
}

/// The parts that are the same in every ADTS header of a track.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Adts {
    profile: u8,
    rate_index: u8,
    channels: u8,
    program: Vec<u8>,
}

impl Adts {
    /// From an `AudioSpecificConfig`. HE-AAC is announced as its core, and decoders detect the extension.
    /// `None`: ADTS cannot express it.
    pub fn new(record: &[u8]) -> Option<Self> {
        let config = parse(record)?;
        let profile = u8::try_from(config.object.checked_sub(1)?).ok().filter(|profile| *profile < 4)?;
        let rate_index = RATES.iter().position(|rate| *rate == config.rate)?;
        if config.configuration > ADTS_CONFIGURATION_MAX
            || (config.configuration == 0 && config.program.is_empty())
        {
            return None;
        }
        Some(Self {
            profile,
            rate_index: u8::try_from(rate_index).ok()?,
            channels: u8::try_from(config.configuration).ok()?,
            program: config.program,
        })
    }

    /// The element that names the channels, where the header cannot: it belongs in front of a frame's own elements,
    /// at least where a decoder may start. Otherwise empty.
    pub fn program(&self) -> &[u8] {
        &self.program
    }

    /// The header of a frame of `len` bytes (ISO/IEC 13818-7, 6.2), at most [`ADTS_FRAME_MAX`].
    pub fn header(&self, len: usize) -> [u8; ADTS_HEADER] {
        assert!(len <= ADTS_FRAME_MAX, "the caller has checked the length");
        let length = len + ADTS_HEADER;
        let [.., l1, l0] = length.to_be_bytes();
        let &Self { profile, rate_index, channels, .. } = self;
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
pub(super) mod tests {
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

    /// What ffmpeg's encoder writes for 5.1(side): a program config element with a comment.
    pub(crate) const SIDE: &[u8] = &[
        0x11, 0x80, 0x04, 0xc8, 0x44, 0x00, 0x20, 0x00, 0xc4, 0x0d, 0x4c, 0x61, 0x76, 0x63, 0x35, 0x39, 0x2e,
        0x33, 0x37, 0x2e, 0x31, 0x30, 0x30, 0x56, 0xe5, 0x00,
    ];

    #[test]
    fn channels_of_a_program_config_element() {
        assert_eq!(audio(SIDE).map(|audio| audio.1), Some(6));
        let adts = Adts::new(SIDE).unwrap();
        assert_eq!((adts.channels, adts.program().first().map(|byte| byte >> 5)), (0, Some(5)));
        // The element in a frame says what it said in the record.
        let mut bits = BitReader::new(adts.program());
        bits.skip(3).unwrap();
        assert_eq!(read_program(&mut bits, adts.program()), Some((6, adts.program().to_vec())));
        // The last three bytes are the extension's.
        for len in 2..SIDE.len() - 3 {
            assert_eq!(Adts::new(&SIDE[..len]), None, "{len}");
        }
        // 6.1 and both further kinds of 7.1: ADTS has no number for them.
        for (configuration, channels) in [(11u8, 7), (12, 8), (14, 8)] {
            let record = [0x11, 0x80 | configuration << 3];
            assert_eq!((audio(&record).unwrap().1, Adts::new(&record)), (channels, None));
        }
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
