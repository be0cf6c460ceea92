//! Publishes one FLV file to many streams by RTMP, in a loop, in real time, with the time of day in the stream.
//!
//! In front of each video frame it puts a data tag `onStamp` with the microseconds since 1970: what plays the
//! stream on the same machine (`uringcast stress`) can tell how old a frame is when it arrives.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::PathBuf;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, ensure};
use clap::Parser;
use uringcast::media::amf0;
use uringcast::media::flv::{FlvItem, FlvReader};
use uringcast::media::tag::{Class, Tag, TagKind};
use uringcast::protocol::rtmp::client::PublishSession;

const BODY_MAX: u32 = 1 << 20;
/// Streams do not all send at once: they are spread over a frame's time.
const SPREAD: Duration = Duration::from_millis(40);

/// Publishes a file to `rtmp://SERVER/live/PREFIX0` and so on.
#[derive(Parser)]
struct Args {
    /// The file
    file: PathBuf,
    /// HOST:PORT
    server: String,
    /// Streams; with one, its name is the prefix alone
    #[arg(long, default_value_t = 1)]
    streams: usize,
    /// Of the streams' names
    #[arg(long, default_value = "perf")]
    prefix: String,
    /// Send headers and one keyframe, then nothing: streams that are there and idle
    #[arg(long)]
    idle: bool,
    /// Seconds until it begins; says that it is ready at once
    #[arg(long, default_value_t = 0, value_name = "SECS")]
    after: u64,
}

struct Publisher {
    socket: TcpStream,
    session: PublishSession,
    /// Behind everybody else, by so much.
    phase: Duration,
    next: usize,
    round: u32,
}

fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    let (headers, frames, length) = read(&std::fs::read(&args.file)?)?;
    if args.after > 0 {
        eprintln!("ready role=publisher streams={}", args.streams);
        std::thread::sleep(Duration::from_secs(args.after));
    }
    let mut publishers = Vec::with_capacity(args.streams);
    for number in 0..args.streams {
        let name = if args.streams == 1 { args.prefix.clone() } else { format!("{}{number}", args.prefix) };
        let phase = SPREAD * u32::try_from(number)? / u32::try_from(args.streams)?;
        publishers.push(Publisher::connect(&args.server, &name, phase)?);
    }
    for publisher in &mut publishers {
        headers.iter().for_each(|tag| publisher.session.write_tag(tag));
        publisher.flush()?;
    }
    if args.idle {
        for publisher in &mut publishers {
            publisher.write_due(&frames, length, publisher.phase)?;
        }
    }
    eprintln!("ready role=publisher streams={}", args.streams);
    let began = Instant::now();
    loop {
        if args.idle {
            std::thread::park();
            continue;
        }
        let now = began.elapsed();
        for publisher in &mut publishers {
            publisher.write_due(&frames, length, now)?;
        }
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Headers, frames, and the milliseconds of a round.
fn read(file: &[u8]) -> anyhow::Result<(Vec<Tag>, Vec<Tag>, u32)> {
    let mut reader = FlvReader::new(BODY_MAX);
    reader.push(file);
    let (mut headers, mut frames) = (Vec::new(), Vec::new());
    while let Some(item) = reader.next_item()? {
        let FlvItem::Tag(tag) = item else { continue };
        match tag.class() {
            Class::Metadata | Class::SequenceHeader => headers.push(tag),
            Class::Other => {}
            _ => frames.push(tag),
        }
    }
    let last = frames.iter().map(|tag| tag.timestamp).max().context("no frames")?;
    Ok((headers, frames, last + 40))
}

fn stamp(timestamp: u32) -> Tag {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let body = amf0::encode(&["onStamp".into(), (now.as_micros() as f64).into()]);
    Tag { kind: TagKind::Script, timestamp, body: body.into() }
}

impl Publisher {
    fn connect(server: &str, name: &str, phase: Duration) -> anyhow::Result<Self> {
        let socket = TcpStream::connect(server)?;
        socket.set_nodelay(true)?;
        let session = PublishSession::new("live", &format!("rtmp://{server}/live"), name);
        let mut publisher = Self { socket, session, phase, next: 0, round: 0 };
        let mut buffer = [0; 4096];
        while !publisher.session.is_publishing() {
            publisher.flush()?;
            let len = publisher.socket.read(&mut buffer)?;
            ensure!(len > 0, "the server hung up on live/{name}");
            publisher.session.input(&buffer[..len])?;
        }
        Ok(publisher)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        while let Some(bytes) = self.session.take_output() {
            self.socket.write_all(&bytes)?;
        }
        Ok(())
    }

    fn write_due(&mut self, frames: &[Tag], length: u32, now: Duration) -> anyhow::Result<()> {
        let Some(now) = now.checked_sub(self.phase) else { return Ok(()) };
        let now = u32::try_from(now.as_millis())?;
        loop {
            let tag = &frames[self.next];
            let timestamp = tag.timestamp + self.round * length;
            if timestamp > now {
                return Ok(self.flush()?);
            }
            if tag.kind == TagKind::Video {
                self.session.write_tag(&stamp(timestamp));
            }
            self.session.write_tag(&Tag { timestamp, ..tag.clone() });
            self.next += 1;
            if self.next == frames.len() {
                (self.next, self.round) = (0, self.round + 1);
            }
        }
    }
}
