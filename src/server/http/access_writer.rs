//! The access log's writer: a thread of its own that reads a bounded queue.

use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::{Duration, Instant};

/// Batches that may wait to be written.
const WAITING_MAX: usize = 256;
/// The shortest time between two reports of a failure.
const COMPLAIN: Duration = Duration::from_secs(10);
/// How long the end of the program waits for the writer.
const FINISH: Duration = Duration::from_secs(1);

/// The queue to the writer; each loop has one.
#[derive(Clone, Debug)]
pub struct LogQueue {
    batches: SyncSender<String>,
    /// Batches that are not written yet.
    waiting: Arc<AtomicUsize>,
    reopen: Arc<AtomicBool>,
}

impl LogQueue {
    /// Opens the log and starts its writer, which ends when the last queue is dropped. `-` is standard output.
    ///
    /// # Errors
    /// What the system says of the file or the thread.
    pub fn open(path: &Path) -> io::Result<Self> {
        let (batches, queue) = sync_channel(WAITING_MAX);
        let (waiting, reopen) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicBool::new(false)));
        let own = Self { batches, waiting: Arc::clone(&waiting), reopen: Arc::clone(&reopen) };
        let mut writer = Writer { path: path.to_owned(), out: None, queue, waiting, reopen };
        writer.open()?;
        std::thread::Builder::new().name("access-log".to_owned()).spawn(move || writer.run())?;
        Ok(own)
    }

    /// Queues lines; `false` if too many batches wait already.
    #[must_use]
    pub(in crate::server) fn offer(&self, lines: String) -> bool {
        self.waiting.fetch_add(1, Ordering::Relaxed);
        let taken = self.batches.try_send(lines).is_ok();
        if !taken {
            self.waiting.fetch_sub(1, Ordering::Relaxed);
        }
        taken
    }

    /// Waits until everything is written, for a second at most.
    pub fn finish(&self) {
        let deadline = Instant::now() + FINISH;
        while self.waiting.load(Ordering::Relaxed) > 0 && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Opens the file again by its name, after it was moved away.
    pub fn reopen(&self) {
        self.reopen.store(true, Ordering::Relaxed);
    }
}

struct Writer {
    path: PathBuf,
    /// `None`: standard output.
    out: Option<File>,
    queue: Receiver<String>,
    waiting: Arc<AtomicUsize>,
    reopen: Arc<AtomicBool>,
}

impl Writer {
    fn open(&mut self) -> io::Result<()> {
        if self.path != Path::new("-") {
            self.out = Some(File::options().create(true).append(true).open(&self.path)?);
        }
        Ok(())
    }

    fn run(&mut self) {
        let mut complained: Option<Instant> = None;
        while let Ok(lines) = self.queue.recv() {
            let opened = if self.reopen.swap(false, Ordering::Relaxed) { self.open() } else { Ok(()) };
            let written = match &mut self.out {
                Some(file) => file.write_all(lines.as_bytes()),
                None => io::stdout().write_all(lines.as_bytes()),
            };
            self.waiting.fetch_sub(1, Ordering::Relaxed);
            if let Err(error) = opened.and(written)
                && complained.is_none_or(|last| last.elapsed() > COMPLAIN)
            {
                tracing::warn!(path = %self.path.display(), %error, "cannot write the access log");
                complained = Some(Instant::now());
            }
        }
    }
}
