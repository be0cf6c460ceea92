//! The baseline for recording: writes the files that recording writes, from memory that is ready, and does nothing else.
//!
//! No stream, no muxing, no other thread: for every four seconds of each stream one TS segment, three fMP4 segments (all,
//! picture, sound) and four playlists with their journals, and one FLV that grows each second. A file is written under
//! another name, synced if it is a segment, and renamed, as the recorder does.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use clap::Parser;

/// Bytes given to the kernel at a time.
const WRITE: usize = 512 << 10;
/// Seconds of a segment.
const SEGMENT: u64 = 4;
/// Bytes of a playlist, and of its lines for one segment.
const PLAYLIST: usize = 500;
const LINES: usize = 40;

/// Writes the files of recorded streams and prints what that costs.
#[derive(Parser)]
struct Args {
    /// The folder to write in; it must not exist
    #[arg(long)]
    data: PathBuf,
    /// Number of streams
    #[arg(long, default_value_t = 8)]
    streams: u64,
    /// Bit rate of each, in kbit/s, of which 64 are sound
    #[arg(long, default_value_t = 1000)]
    kbps: u64,
    /// Seconds to write before the measured ones
    #[arg(long, default_value_t = 20)]
    warm: u64,
    /// Seconds to measure
    #[arg(long, default_value_t = 24)]
    duration: u64,
}

/// The files of one stream.
struct Stream {
    dir: PathBuf,
    flv: File,
    journals: Vec<File>,
    /// Seconds written.
    seconds: u64,
}

impl Stream {
    fn new(dir: PathBuf) -> io::Result<Self> {
        std::fs::create_dir_all(&dir)?;
        let journals = (0..4).map(|lane| File::create(dir.join(format!("index_{lane}.m3u8.journal"))));
        Ok(Self {
            journals: journals.collect::<io::Result<_>>()?,
            flv: File::create(dir.join("index.flv"))?,
            dir,
            seconds: 0,
        })
    }

    /// One second of the stream has come; `media` has the bytes of a segment of each lane.
    fn second(&mut self, media: &[u8], lanes: &[usize; 4]) -> io::Result<()> {
        let second = lanes[0] / usize::try_from(SEGMENT).unwrap_or(1);
        write(&self.flv, &media[..second], self.seconds * second as u64)?;
        self.seconds += 1;
        if !self.seconds.is_multiple_of(SEGMENT) {
            return Ok(());
        }
        self.flv.sync_data()?;
        let number = self.seconds / SEGMENT;
        for (lane, len) in lanes.iter().enumerate() {
            store(&self.dir.join(format!("segment_{lane}_{number}")), &media[..*len], true)?;
        }
        for (lane, journal) in self.journals.iter().enumerate() {
            write(journal, &media[..LINES], number * LINES as u64)?;
            store(&self.dir.join(format!("index_{lane}.m3u8")), &media[..PLAYLIST], false)?;
        }
        Ok(())
    }
}

fn write(file: &File, bytes: &[u8], mut at: u64) -> io::Result<()> {
    for piece in bytes.chunks(WRITE) {
        file.write_all_at(piece, at)?;
        at += piece.len() as u64;
    }
    Ok(())
}

fn store(path: &Path, bytes: &[u8], sync: bool) -> io::Result<()> {
    let aside = path.with_extension("tmp");
    let file = OpenOptions::new().write(true).create(true).truncate(true).open(&aside)?;
    write(&file, bytes, 0)?;
    if sync {
        file.sync_data()?;
    }
    drop(file);
    std::fs::rename(aside, path)
}

/// User and system time of this process.
fn cpu() -> anyhow::Result<Duration> {
    let times = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    Ok(Duration::new(u64::try_from(times.tv_sec)?, u32::try_from(times.tv_nsec)?))
}

#[expect(clippy::cast_precision_loss, reason = "figures for people")]
fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    let second = usize::try_from(args.kbps * 125)?;
    let segment = second * usize::try_from(SEGMENT)?;
    let sound = usize::try_from(SEGMENT * 8000)?;
    let media = vec![0x47; segment];
    let lanes = [segment, segment, segment - sound, sound];
    let dirs = (0..args.streams).map(|n| args.data.join(format!("live/s{n}")));
    let mut streams = dirs.map(Stream::new).collect::<io::Result<Vec<_>>>()?;
    let began = Instant::now();
    let mut before = Duration::ZERO;
    for round in 0..args.warm + args.duration {
        if round == args.warm {
            before = cpu()?;
        }
        for (at, stream) in (0u32..).zip(&mut streams) {
            // Streams do not begin all at once.
            let offset = Duration::from_secs(1) * at / u32::try_from(args.streams)?;
            let due = began + Duration::from_secs(round) + offset;
            std::thread::sleep(due.saturating_duration_since(Instant::now()));
            stream.second(&media, &lanes)?;
        }
    }
    let used = (cpu()? - before).as_secs_f64();
    let bytes = (args.streams * args.duration) as f64 * second as f64;
    eprintln!("{:.1} CPU-s per GB of stream", used * 1e9 / bytes);
    drop(streams);
    Ok(std::fs::remove_dir_all(&args.data)?)
}
