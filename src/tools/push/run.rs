//! Runs a push from the first tag to the last: when each is sent, and what happens when the connection is lost.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use indicatif::{HumanBytes, ProgressBar, ProgressStyle};
use rustls::ClientConfig;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::{sleep, sleep_until, timeout};

use super::args::{PushArgs, Target};
use super::error::PushError;
use super::link::Link;
use super::pace::{Pacer, Rounds, low};
use super::socket::{Socket, connect};
use super::source::Source;
use crate::media::tag::{Class, Tag, TagKind};

/// How long a server may take to accept the stream, to take bytes, and to confirm the end.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long to wait for a server that does not support `Expect: 100-continue` (RFC 9110, 10.1.1).
const EXPECT: Duration = Duration::from_secs(1);
/// The pause before a lost connection is made again, and the longest one.
const RETRY: Duration = Duration::from_millis(500);
const RETRY_MAX: Duration = Duration::from_secs(5);
/// Bytes that are sent in one write.
const BATCH: usize = 256 << 10;
const REDRAW: Duration = Duration::from_millis(200);

/// The result of a push.
#[derive(Debug)]
pub(super) struct Pushed {
    tags: u64,
    bytes: u64,
    time: Duration,
    took: Duration,
    reconnects: u32,
}

impl fmt::Display for Pushed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (time, took) = (self.time.as_secs_f64(), self.took.as_secs_f64());
        write!(
            f,
            "pushed {time:.1} s of media ({} tags, {}) in {took:.1} s",
            self.tags,
            HumanBytes(self.bytes)
        )?;
        if self.reconnects > 0 { write!(f, ", {} reconnects", self.reconnects) } else { Ok(()) }
    }
}

/// Runs a push with the given arguments.
pub(super) fn run(args: &PushArgs) -> Result<Pushed, PushError> {
    let target = Target::parse(&args.url)?;
    if args.forever && args.file.as_os_str() == "-" {
        return Err(PushError::LoopedInput);
    }
    let tls = target.secure.then(|| args.trust.client()).transpose()?;
    let mut pusher = Pusher::new(args, (target, tls), Source::open(&args.file)?);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| PushError::Lost(error.to_string()))?;
    let result = runtime.block_on(pusher.push());
    pusher.bar.finish_and_clear();
    result.map(|()| pusher.pushed())
}

struct Pusher {
    target: Target,
    tls: Option<Arc<ClientConfig>>,
    source: Source,
    forever: bool,
    reconnect: bool,
    rounds: Rounds,
    pacer: Pacer,
    /// The next tag, stamped, and when it is due.
    next: Option<(Tag, Instant)>,
    /// The last header of each kind: a new connection begins with them.
    headers: BTreeMap<u8, Tag>,
    /// Stream times of the first tag and of the newest.
    span: Option<(i64, i64)>,
    tags: u64,
    bytes: u64,
    reconnects: u32,
    began: Instant,
    bar: ProgressBar,
    drawn: Instant,
}

impl Pusher {
    fn new(args: &PushArgs, (target, tls): (Target, Option<Arc<ClientConfig>>), source: Source) -> Self {
        for track in source.left_out() {
            eprintln!("{track}");
        }
        let bar = bar(source.duration().filter(|_| !args.forever));
        Self {
            target,
            tls,
            source,
            forever: args.forever,
            reconnect: !args.no_reconnect,
            rounds: Rounds::default(),
            pacer: Pacer::new(args.speed),
            next: None,
            headers: BTreeMap::new(),
            span: None,
            tags: 0,
            bytes: 0,
            reconnects: 0,
            began: Instant::now(),
            bar,
            drawn: Instant::now(),
        }
    }

    fn pushed(&self) -> Pushed {
        let time = self.span.map_or(0, |(first, last)| last - first);
        Pushed {
            tags: self.tags,
            bytes: self.bytes,
            time: Duration::from_millis(time.unsigned_abs()),
            took: self.began.elapsed(),
            reconnects: self.reconnects,
        }
    }

    /// Pushes to the end of the file, over as many connections as needed.
    async fn push(&mut self) -> Result<(), PushError> {
        let mut pause = RETRY;
        loop {
            let before = self.tags;
            let error = match self.session().await {
                Ok(()) => return Ok(()),
                Err(error) => error,
            };
            let lost = match error {
                PushError::Lost(_) => true,
                // After a lost connection the server may still take the old one for another publisher.
                PushError::Refused(_) => self.tags > 0,
                _ => false,
            };
            if !lost || !self.reconnect {
                return Err(error);
            }
            pause = if self.tags > before { RETRY } else { (pause * 2).min(RETRY_MAX) };
            self.bar.suspend(|| eprintln!("{error}; trying again in {:.1} s", pause.as_secs_f64()));
            self.reconnects += 1;
            sleep(pause).await;
            self.pacer.interrupt();
            self.next = self.next.take().map(|(tag, _)| (tag, Instant::now()));
        }
    }

    /// One connection.
    async fn session(&mut self) -> Result<(), PushError> {
        let mut socket = connect(&self.target, self.tls.as_ref(), PATIENCE).await?;
        let mut link = Link::new(&self.target, self.source.header());
        let let_in = timeout(PATIENCE, self.wait_ready(&mut socket, &mut link)).await;
        let_in.map_err(|_| link.refusal().unwrap_or_else(|| lost("the server does not answer")))??;
        link.begin();
        self.headers.values().for_each(|tag| link.write_tag(tag));
        let mut piece = vec![0; 16 << 10];
        while self.load()? {
            let mut batch = 0;
            while let Some((tag, due)) = self.next.take() {
                if due > Instant::now() || batch > BATCH {
                    self.next = Some((tag, due));
                    break;
                }
                link.write_tag(&tag);
                batch += tag.encoded_len();
                self.count(&tag);
                self.load()?;
            }
            send(&mut socket, &mut link).await?;
            let Some((_, due)) = self.next else { continue };
            self.draw(due);
            tokio::select! {
                biased;
                read = socket.read(&mut piece) => {
                    take(&mut link, read, &piece)?;
                    send(&mut socket, &mut link).await?;
                }
                () = sleep_until(due.into()) => {}
            }
        }
        link.finish();
        send(&mut socket, &mut link).await?;
        let _ = socket.shutdown().await;
        // If a socket is closed with unread answers, it is reset, and what the server has not read is lost.
        let confirmed = async {
            while !link.is_confirmed() {
                let read = socket.read(&mut piece).await;
                if link.ends_silently() && matches!(read, Ok(0) | Err(_)) {
                    break;
                }
                take(&mut link, read, &piece)?;
            }
            Ok(())
        };
        match timeout(PATIENCE, confirmed).await {
            Err(_) if link.ends_silently() => Ok(()),
            Err(_) => Err(lost("the server does not confirm the end")),
            Ok(confirmed) => confirmed,
        }
    }

    async fn wait_ready(&self, socket: &mut Socket, link: &mut Link) -> Result<(), PushError> {
        let mut piece = vec![0; 16 << 10];
        send(socket, link).await?;
        while !link.is_ready() {
            let read = match timeout(EXPECT, socket.read(&mut piece)).await {
                Ok(read) => read,
                Err(_) if link.may_be_silent() => return link.refusal().map_or(Ok(()), Err),
                Err(_) => continue,
            };
            take(link, read, &piece)?;
            send(socket, link).await?;
        }
        Ok(())
    }

    /// Reads the next tag, unless there is one already; `false`: the file is over.
    fn load(&mut self) -> Result<bool, PushError> {
        let mut begun_again = false;
        while self.next.is_none() {
            let Some(mut tag) = self.source.next_tag()? else {
                if !self.forever || begun_again {
                    return Ok(false);
                }
                self.source.rewind()?;
                self.rounds.next_round();
                begun_again = true;
                continue;
            };
            // With --loop the end of a round is not the end of the stream.
            if self.forever && is_end(&tag) {
                continue;
            }
            let now = Instant::now();
            let due = match self.rounds.time(&tag) {
                Some(time) => {
                    tag.timestamp = low(time);
                    self.span = Some((self.span.map_or(time, |(first, _)| first), time));
                    self.pacer.due(time, now)
                }
                None => now,
            };
            self.next = Some((tag, due));
        }
        Ok(true)
    }

    fn count(&mut self, tag: &Tag) {
        self.tags += 1;
        self.bytes += tag.encoded_len() as u64;
        if matches!(tag.class(), Class::Metadata | Class::SequenceHeader) {
            self.headers.insert(order(tag.kind), tag.clone());
        }
    }

    fn draw(&mut self, due: Instant) {
        let now = Instant::now();
        if now - self.drawn < REDRAW {
            return;
        }
        self.drawn = now;
        let pushed = self.pushed();
        self.bar.set_position(u64::try_from(pushed.time.as_millis()).unwrap_or(u64::MAX));
        #[expect(clippy::cast_precision_loss, reason = "for a person")]
        let megabits = self.bytes as f64 * 8e-6 / pushed.time.as_secs_f64().max(0.001);
        let drift = now.saturating_duration_since(due).as_millis();
        let time = pushed.time.as_secs_f64();
        self.bar.set_message(format!("{time:.1} s  {megabits:.2} Mbps  drift {drift} ms"));
    }
}

/// A bar if the length is known, otherwise a spinner; nothing if standard error is not a terminal.
fn bar(duration: Option<Duration>) -> ProgressBar {
    let (bar, template) = match duration.and_then(|duration| u64::try_from(duration.as_millis()).ok()) {
        Some(millis) => (ProgressBar::new(millis), "{wide_bar} {msg}"),
        None => (ProgressBar::new_spinner(), "{spinner} {msg}"),
    };
    bar.with_style(ProgressStyle::with_template(template).expect("a good template"))
}

/// Metadata, video, audio.
fn order(kind: TagKind) -> u8 {
    match kind {
        TagKind::Script => 0,
        TagKind::Video => 1,
        TagKind::Audio => 2,
    }
}

/// The end-of-sequence marker of AVC and of Enhanced RTMP.
fn is_end(tag: &Tag) -> bool {
    tag.kind == TagKind::Video && matches!(tag.body.as_ref(), [0x17 | 0x27, 2, ..] | [0x92 | 0xa2, ..])
}

async fn send(socket: &mut Socket, link: &mut Link) -> Result<(), PushError> {
    let bytes = link.take_output();
    if bytes.is_empty() {
        return Ok(());
    }
    match timeout(PATIENCE, socket.write_all(&bytes)).await {
        Ok(Ok(())) => Ok(()),
        // The server may have sent the reason before it closed the connection.
        Ok(Err(error)) => {
            let mut piece = [0; 4096];
            while let Ok(Ok(len @ 1..)) = timeout(Duration::ZERO, socket.read(&mut piece)).await {
                link.input(&piece[..len])?;
            }
            Err(link.refusal().unwrap_or_else(|| lost(error.to_string())))
        }
        Err(_) => Err(lost("the server takes no bytes")),
    }
}

fn take(link: &mut Link, read: std::io::Result<usize>, piece: &[u8]) -> Result<(), PushError> {
    match read {
        Ok(0) => Err(link.refusal().unwrap_or_else(|| lost("the server closed the connection"))),
        Ok(len) => link.input(&piece[..len]),
        Err(error) => Err(link.refusal().unwrap_or_else(|| lost(error.to_string()))),
    }
}

fn lost(reason: impl Into<String>) -> PushError {
    PushError::Lost(reason.into())
}
