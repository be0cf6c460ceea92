//! The log: one format on stderr, written by a thread of its own so that no loop waits for a terminal.

use std::sync::Arc;

use tracing_appender::non_blocking::{NonBlocking, NonBlockingBuilder, WorkerGuard};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::reload;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer, Registry, fmt};

use crate::config::LogFormat;

/// Why the log cannot be started or changed.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// The filter cannot be parsed.
    #[error("log filter {filter:?}: {error}")]
    Filter {
        /// The filter.
        filter: String,
        /// What is wrong with it.
        error: tracing_subscriber::filter::ParseError,
    },
    /// The filter cannot be changed.
    #[error("the log's filter cannot be changed: {0}")]
    Reload(#[from] reload::Error),
}

fn parse(filter: &str) -> Result<EnvFilter, LogError> {
    EnvFilter::try_new(filter).map_err(|error| LogError::Filter { filter: filter.to_owned(), error })
}

/// The most lines that wait for a slow reader of the log; further ones are dropped.
const LINES_MAX: usize = 65_536;

/// Changes the log's filter while the program runs.
#[derive(Clone)]
pub struct LogLevel(Arc<reload::Handle<EnvFilter, Registry>>);

impl std::fmt::Debug for LogLevel {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LogLevel").finish_non_exhaustive()
    }
}

impl LogLevel {
    /// Sets the filter: `info`, `uringcast=debug`, …
    ///
    /// # Errors
    /// What is wrong with the filter.
    pub fn set(&self, filter: &str) -> Result<(), LogError> {
        Ok(self.0.reload(parse(filter)?)?)
    }
}

/// Starts the log. Queued lines are written when the guard is dropped.
///
/// # Errors
/// What is wrong with the filter.
pub fn start(filter: &str, format: LogFormat) -> Result<(LogLevel, WorkerGuard), LogError> {
    let (filter, handle) = reload::Layer::new(parse(filter)?);
    let (writer, guard) =
        NonBlockingBuilder::default().lossy(true).buffered_lines_limit(LINES_MAX).finish(std::io::stderr());
    tracing_subscriber::registry().with(filter).with(lines(format, writer)).init();
    Ok((LogLevel(Arc::new(handle)), guard))
}

type Lines = Box<
    dyn Layer<tracing_subscriber::layer::Layered<reload::Layer<EnvFilter, Registry>, Registry>> + Send + Sync,
>;

fn lines(format: LogFormat, writer: NonBlocking) -> Lines {
    let layer = fmt::layer().with_writer(writer).with_target(false);
    match format {
        LogFormat::Text => layer.with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr())).boxed(),
        LogFormat::Json => layer.json().flatten_event(true).boxed(),
    }
}
