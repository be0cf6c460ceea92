//! Publishes one FLV file to many streams by RTMP, HTTP or WebSocket, in a loop, in real time, with the time of
//! day in the stream.
//!
//! Before each video frame it sends a data tag `onStamp` with the microseconds since 1970, so that a player of
//! the stream on the same machine (`uringcast stress`) can tell how old a frame is when it arrives. With
//! `--measure` it sends no stamps, but prints what the server used for the bytes that it was sent.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::PathBuf;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, ensure};
use clap::{Parser, ValueEnum};
use uringcast::media::amf0;
use uringcast::media::encoding::Encoding;
use uringcast::media::flv::{FileHeader, FlvItem, FlvReader};
use uringcast::media::tag::{Class, Tag, TagKind};
use uringcast::protocol::rtmp::client::PublishSession;
use uringcast::protocol::ws::{Opcode, client_frame};

const BODY_MAX: u32 = 1 << 20;
/// Streams do not all send at once: they are spread over the duration of a frame.
const SPREAD: Duration = Duration::from_millis(40);

/// The time before `--measure` begins: by then logs have reached their full length.
const WARM_UP: Duration = Duration::from_secs(15);

/// Publishes a file to `live/PREFIX0`, `live/PREFIX1`, … on a server
#[derive(Parser)]
struct Args {
    /// The file
    file: PathBuf,
    /// HOST:PORT
    server: String,
    /// Number of streams; a single stream has the prefix as its name
    #[arg(long, default_value_t = 1)]
    streams: usize,
    /// Prefix of the streams' names
    #[arg(long, default_value = "perf")]
    prefix: String,
    /// Send headers and one keyframe, then nothing: streams that exist and are idle
    #[arg(long)]
    idle: bool,
    /// Seconds until it begins; it prints that it is ready at once
    #[arg(long, default_value_t = 0, value_name = "SECS")]
    after: u64,
    /// The protocol
    #[arg(long = "as", value_enum, default_value_t = Protocol::Rtmp)]
    protocol: Protocol,
    /// Send without waiting for answers: the server is `raw_receiver`
    #[arg(long)]
    deaf: bool,
    /// Print what the server with this process id uses, once the streams have started, and exit
    #[arg(long, value_name = "PID")]
    measure: Option<u32>,
    /// Seconds to measure
    #[arg(long, default_value_t = 10.0)]
    duration: f64,
    /// Speed, as a factor of real time
    #[arg(long, default_value_t = 1)]
    speed: u32,
}

#[derive(Clone, Copy, ValueEnum)]
enum Protocol {
    Rtmp,
    Http,
    Ws,
}

struct Publisher {
    socket: TcpStream,
    protocol: Protocol,
    /// Bytes that are due and not written yet.
    out: Vec<u8>,
    /// Bytes that were written.
    written: u64,
    /// Delay of this stream, so that not all send at once.
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
        publishers.push(Publisher::connect(&args, &name, phase)?);
    }
    for publisher in &mut publishers {
        headers.iter().for_each(|tag| publisher.put(tag));
        publisher.flush()?;
    }
    if args.idle {
        for publisher in &mut publishers {
            publisher.write_due(&frames, length, publisher.phase, false)?;
        }
    }
    eprintln!("ready role=publisher streams={}", args.streams);
    let began = Instant::now();
    let mut measure = args.measure.map(|pid| Measure::new(pid, Duration::from_secs_f64(args.duration)));
    loop {
        if args.idle {
            std::thread::park();
            continue;
        }
        let now = began.elapsed();
        for publisher in &mut publishers {
            publisher.write_due(&frames, length, now * args.speed, measure.is_none())?;
        }
        let late = began.elapsed() - now;
        if let Some(measure) = &mut measure
            && measure.is_over(now, late, publishers.iter().map(|publisher| publisher.written).sum())?
        {
            return Ok(());
        }
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// What a server uses between two moments.
struct Measure {
    pid: u32,
    duration: Duration,
    /// Start of the measurement, with the server's CPU-seconds and the bytes written by then.
    from: Option<(Duration, f64, u64)>,
    /// The longest duration of one round of writing.
    late: Duration,
}

impl Measure {
    fn new(pid: u32, duration: Duration) -> Self {
        Self { pid, duration, from: None, late: Duration::ZERO }
    }

    /// Prints the result when the time is over.
    #[expect(clippy::print_stdout, reason = "its purpose")]
    fn is_over(&mut self, now: Duration, late: Duration, written: u64) -> anyhow::Result<bool> {
        let Some((since, cpu_before, before)) = self.from else {
            if now >= WARM_UP {
                self.from = Some((now, cpu_seconds(self.pid)?, written));
            }
            return Ok(false);
        };
        self.late = self.late.max(late);
        let passed = now - since;
        if passed < self.duration {
            return Ok(false);
        }
        let (cpu, bytes) = (cpu_seconds(self.pid)? - cpu_before, (written - before) as f64);
        println!(
            "{{\"cpu_seconds_per_gb\":{:.4},\"cpu_percent\":{:.1},\"mbps\":{:.1},\"late_ms\":{}}}",
            cpu * 1e9 / bytes,
            100.0 * cpu / passed.as_secs_f64(),
            bytes * 8e-6 / passed.as_secs_f64(),
            self.late.as_millis(),
        );
        Ok(true)
    }
}

/// User and system time of a process: fields 14 and 15 of proc_pid_stat(5).
fn cpu_seconds(pid: u32) -> anyhow::Result<f64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let (_, behind_name) = stat.rsplit_once(')').context("a name in brackets")?;
    let fields: Vec<&str> = behind_name.split_whitespace().collect();
    let ticks = fields[11].parse::<u64>()? + fields[12].parse::<u64>()?;
    Ok(ticks as f64 / rustix::param::clock_ticks_per_second() as f64)
}

/// Headers, frames, and the duration of a round in milliseconds.
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
    fn connect(args: &Args, name: &str, phase: Duration) -> anyhow::Result<Self> {
        let Args { server, protocol, .. } = args;
        let socket = TcpStream::connect(server)?;
        socket.set_nodelay(true)?;
        let (protocol, out) = (*protocol, Vec::new());
        let mut publisher = Self { socket, protocol, out, written: 0, phase, next: 0, round: 0 };
        let host = format!("/live/{name} HTTP/1.1\r\nHost: {server}\r\n");
        match protocol {
            Protocol::Rtmp if args.deaf => {}
            Protocol::Rtmp => publisher.ask_rtmp(server, name)?,
            Protocol::Http => {
                publisher.out = format!("POST {host}Transfer-Encoding: chunked\r\n\r\n").into_bytes();
            }
            Protocol::Ws => {
                let upgrade = "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n";
                let key = "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==";
                publisher.out = format!("GET {host}{upgrade}{key}\r\n\r\n").into_bytes();
                publisher.flush()?;
                if !args.deaf {
                    let len = publisher.socket.read(&mut [0; 4096])?;
                    ensure!(len > 0, "the server hung up on live/{name}");
                }
            }
        }
        if !matches!(protocol, Protocol::Rtmp) {
            publisher.put_flv(&FileHeader { audio: true, video: true }.encode());
        }
        Ok(publisher)
    }

    /// Everything up to the server's acceptance; after it tags are sent as [`Encoding::Rtmp`] writes them.
    fn ask_rtmp(&mut self, server: &str, name: &str) -> anyhow::Result<()> {
        let mut session = PublishSession::new("live", &format!("rtmp://{server}/live"), name);
        let mut buffer = [0; 4096];
        while !session.is_publishing() {
            session.take_output().into_iter().for_each(|bytes| self.out.extend_from_slice(&bytes));
            self.flush()?;
            let len = self.socket.read(&mut buffer)?;
            ensure!(len > 0, "the server hung up on live/{name}");
            session.input(&buffer[..len])?;
        }
        Ok(())
    }

    fn put(&mut self, tag: &Tag) {
        if let Protocol::Rtmp = self.protocol {
            return Encoding::Rtmp.write(tag, |piece| self.out.extend_from_slice(piece));
        }
        let mut bytes = Vec::with_capacity(tag.encoded_len());
        tag.write_to(&mut bytes);
        self.put_flv(&bytes);
    }

    /// A chunk of a body, or a message.
    fn put_flv(&mut self, bytes: &[u8]) {
        if let Protocol::Ws = self.protocol {
            return client_frame(Opcode::Binary, bytes, [1, 2, 3, 4], &mut self.out);
        }
        self.out.extend(format!("{:x}\r\n", bytes.len()).into_bytes());
        self.out.extend_from_slice(bytes);
        self.out.extend_from_slice(b"\r\n");
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.socket.write_all(&self.out)?;
        self.written += self.out.len() as u64;
        self.out.clear();
        Ok(())
    }

    fn write_due(&mut self, frames: &[Tag], length: u32, now: Duration, stamped: bool) -> anyhow::Result<()> {
        let Some(now) = now.checked_sub(self.phase) else { return Ok(()) };
        let now = u32::try_from(now.as_millis())?;
        loop {
            let tag = &frames[self.next];
            let timestamp = tag.timestamp + self.round * length;
            if timestamp > now {
                return Ok(self.flush()?);
            }
            if stamped && tag.kind == TagKind::Video {
                self.put(&stamp(timestamp));
            }
            self.put(&Tag { timestamp, ..tag.clone() });
            self.next += 1;
            if self.next == frames.len() {
                (self.next, self.round) = (0, self.round + 1);
            }
        }
    }
}
