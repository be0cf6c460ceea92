//! The `uringcast` program: from its arguments to a role, its configuration, and its run.

use std::cell::RefCell;
use std::io::Write;
use std::mem::ManuallyDrop;
use std::process::ExitCode;

use metrics_exporter_prometheus::BuildError;

use uringcast::cli::{self, CliError, Command, FinishError};
use uringcast::config::load::Sources;
use uringcast::config::{Config, Role};
use uringcast::control::demo::DemoFolder;
use uringcast::control::logging::LogError;
use uringcast::control::metrics::Metrics;
use uringcast::control::{self, Control, logging};
use uringcast::server::announce;
use uringcast::server::start::{self, StartError};
use uringcast::uring::probe::{ProbeError, probe};
use uringcast::uring::workers::limit_workers;

/// What ends the program with a message.
#[derive(Debug, thiserror::Error)]
enum Fatal {
    #[error("{0}")]
    Engine(#[from] ProbeError),
    #[error("{0}")]
    Start(#[from] StartError),
    #[error("{0}")]
    Log(#[from] LogError),
    #[error("the metrics cannot be started: {0}")]
    Metrics(#[from] BuildError),
    #[error("{0}")]
    Finish(#[from] FinishError),
}

impl Fatal {
    /// As in `sysexits.h`: a supervisor restarts after 75, which may go away by itself, but not after 69.
    fn exit_code(&self) -> u8 {
        match self {
            Self::Engine(error) => {
                if error.is_shortage() {
                    75
                } else {
                    69
                }
            }
            Self::Start(error) => error.exit_code(),
            Self::Log(_) | Self::Metrics(_) | Self::Finish(_) => 1,
        }
    }
}

fn main() -> ExitCode {
    let fatal = match cli::parse(std::env::args_os(), std::env::vars_os()) {
        Ok(Command::Run { role, config, sources }) => run(role, *config, sources).map(|()| ExitCode::SUCCESS),
        Ok(other) => other.finish().map_err(Fatal::from),
        Err(CliError::Usage(error)) => error.exit(),
        Err(error) => {
            say(&format!("uringcast: {error}"));
            return error.exit_code().into();
        }
    };
    match fatal {
        Ok(code) => code,
        Err(fatal) => {
            say(&format!("uringcast: {fatal}"));
            fatal.exit_code().into()
        }
    }
}

/// Writes a line to stderr. Failures are ignored: stderr may be a file on a full disk or at its size limit.
fn say(line: &str) {
    let _ = writeln!(std::io::stderr(), "{line}");
}

fn run(role: Role, mut config: Config, sources: Sources) -> Result<(), Fatal> {
    let (log_level, _guard) = logging::start(&config.log, config.log_format)?;
    for advice in probe()?.advice {
        tracing::warn!("{advice}");
    }
    let metrics = Metrics::install()?;
    let admin = control::bind_admin(&config)
        .map_err(|(address, error)| StartError::listen("--admin", address, error))?;
    // Removed on every way out of this function.
    let _folder = DemoFolder::new(role, &mut config);
    control::check_data(role, &config)?;
    limit_workers();
    // Dropping it would wait for writes to a disk that may stand still.
    let runtime = ManuallyDrop::new(control::runtime().map_err(|error| StartError::Control(error.into()))?);
    let server = start::start(role, config)?;
    let own: Vec<_> = admin.iter().filter_map(|listener| listener.local_addr().ok()).collect();
    let mut announcement = announce::ready(role, &server.shared, &own);
    if let Some(hints) = announce::hints(role, &server.shared) {
        announcement = format!("{announcement}\n{hints}");
    }
    let auth = RefCell::new(server.shared.config.auth.clone());
    control::run(&runtime, Control { server, metrics, admin, log_level, announcement, role, sources, auth });
    Ok(())
}
