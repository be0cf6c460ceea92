//! The command line: one definition per flag gives the parser, the help, the completions and the man pages.
//!
//! A flag that was given becomes a [`Setting`](crate::config::load::Setting); one that was not leaves the lower
//! layers unchanged. No default is written here.

mod flags;
mod sign;

use std::ffi::OsString;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::error::ErrorKind;
use clap::{CommandFactory, FromArgMatches, Parser, Subcommand};
use clap_complete::Shell;

use crate::config::load::{DEFAULT_FILE, Sources};
use crate::config::{Config, ConfigError, Role, Warning};
use crate::tools::push::{self, PushArgs};
use crate::tools::stress::{self, StressArgs};
pub use sign::SignError;

use flags::{CommonFlags, FileGatewayFlags, FlvGatewayFlags, Given, OriginFlags};

/// What the user asked for.
#[derive(Debug)]
pub enum Command {
    /// Run a role until a signal ends it.
    Run {
        /// The role.
        role: Role,
        /// Its configuration, which has been validated.
        config: Box<Config>,
        /// Where it came from, for a reload.
        sources: Sources,
    },
    /// Hold viewers: [`stress::main`].
    Stress(StressArgs),
    /// Publish a file: [`push::main`].
    Push(PushArgs),
    /// The configuration was checked and is valid.
    CheckConfig {
        /// The file that was checked, if there is one.
        file: Option<PathBuf>,
        /// Settings that are valid but probably not intended.
        warnings: Vec<Warning>,
    },
    /// Print a signed token and its URLs.
    Sign(String),
    /// Print completions: [`write_completions`].
    Completions(Shell),
    /// Print or write man pages: [`write_man`].
    Man {
        /// The folder to write all pages to; `None`: the first page goes to standard output.
        dir: Option<PathBuf>,
    },
}

impl Command {
    /// Executes a command that does not run a role: prints what was asked for.
    ///
    /// # Errors
    /// The error of standard output or of the folder.
    pub fn finish(self) -> Result<ExitCode, FinishError> {
        let mut out = io::stdout().lock();
        let done = match self {
            Self::Run { .. } => Ok(()),
            Self::Stress(arguments) => {
                drop(out);
                return Ok(stress::main(&arguments)?);
            }
            Self::Push(arguments) => {
                drop(out);
                return Ok(push::main(&arguments));
            }
            Self::CheckConfig { file, warnings } => {
                let name = file.map_or_else(|| "no file".to_owned(), |file| file.display().to_string());
                let what = if name == "no file" { "the defaults are good" } else { "good" };
                warnings
                    .iter()
                    .try_for_each(|warning| writeln!(io::stderr(), "{name}: warning: {warning}"))
                    .and_then(|()| writeln!(out, "{name}: {what}"))
            }
            Self::Sign(text) => out.write_all(text.as_bytes()),
            Self::Completions(shell) => {
                write_completions(shell, &mut out);
                Ok(())
            }
            Self::Man { dir } => write_man(dir.as_deref(), &mut out),
        };
        Ok(done.map(|()| ExitCode::SUCCESS)?)
    }
}

/// Why a command that does not run a role failed.
#[derive(Debug, thiserror::Error)]
pub enum FinishError {
    /// The load generator, or the publisher, failed.
    #[error("{0:#}")]
    Stress(#[from] anyhow::Error),
    /// Standard output, or the folder of the man pages.
    #[error("{0}")]
    Output(#[from] io::Error),
}

/// Why no command can be executed.
#[derive(Debug, thiserror::Error)]
pub enum CliError {
    /// The command line is wrong, or it asked for help or the version. `exit()` of the inner error prints it.
    #[error(transparent)]
    Usage(#[from] clap::Error),
    /// The configuration is refused.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// Nothing can be signed.
    #[error(transparent)]
    Sign(#[from] SignError),
}

impl CliError {
    /// The exit code: 0 for help and version, 2 for usage, 78 for configuration.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Usage(error) if !error.use_stderr() => 0,
            Self::Usage(_) => 2,
            Self::Config(_) | Self::Sign(_) => 78,
        }
    }
}

/// A live-streaming edge: RTMP in, HTTP-FLV, WebSocket-FLV, HLS and fMP4 out.
///
/// Without a role, an origin, an FLV gateway and a file gateway run in one process.
#[derive(Debug, Parser)]
#[command(name = "uringcast", version, max_term_width = 100)]
#[command(after_help = "Every flag is a key of the configuration file as well; \
    the file < environment (URINGCAST_ORIGIN__RTMP=:1935) < flags.")]
struct Cli {
    #[command(flatten)]
    common: CommonFlags,
    #[command(flatten)]
    origin: OriginFlags,
    #[command(subcommand)]
    command: Option<Sub>,
}

#[derive(Debug, Subcommand)]
enum Sub {
    /// Take publishers and serve viewers, pages and files.
    Origin(OriginFlags),
    /// Pull streams from an origin or another gateway and fan them out.
    FlvGateway(FlvGatewayFlags),
    /// Serve recorded files and the pages.
    FileGateway(FileGatewayFlags),
    /// Publish a test picture as live/demo to an origin on loopback, for a first look.
    ///
    /// By default it listens on 127.0.0.1 only: 1935 RTMP, 8501 FLV, 8088 pages, 8080 gateway. It records into
    /// a temporary folder that is removed when it ends (about 6 MB a minute; --record none records nothing),
    /// and it reads no file except one that --config names.
    Demo {
        #[command(flatten)]
        origin: OriginFlags,
        /// Run no FLV gateway with the origin.
        #[arg(long)]
        no_gateway: bool,
        /// Take TLS as well, with a certificate made for this run, which browsers warn of.
        #[arg(long)]
        tls: bool,
    },
    /// Hold many viewers of one stream, check what they receive, and report the cost.
    Stress(StressArgs),
    /// Publish an FLV or MP4 file in real time.
    ///
    /// Exit codes: 0 pushed to the end, 2 usage, 65 not FLV or MP4, 66 no such file, 75 no connection,
    /// 77 refused by the server.
    Push(PushArgs),
    /// Check a configuration file and report the line of an error.
    CheckConfig {
        /// The file; without it the one that a role would read.
        file: Option<PathBuf>,
    },
    /// Sign a token that lets its bearer publish or play a stream.
    ///
    /// Prints the token alone on the first line, then URLs that carry it. It is a JSON Web Token (HS256).
    Sign(sign::SignArgs),
    /// Print completions for a shell.
    Completions {
        /// Which shell.
        shell: Shell,
    },
    /// Print the man page, or write all of them to a folder.
    Man {
        /// The folder.
        dir: Option<PathBuf>,
    },
}

/// The definition of the command line, with the demo's own defaults in its help.
fn definition() -> clap::Command {
    Cli::command().mut_subcommand("demo", |demo| {
        demo.mut_args(|arg| {
            let default = match arg.get_id().as_str() {
                "rtmp" => "127.0.0.1:1935",
                "flv" => "127.0.0.1:8501",
                "web" => "127.0.0.1:8088",
                "data" => "a temporary folder that is removed when the demo ends",
                "record" => "flv,hls,fmp4",
                _ => return arg,
            };
            let help = arg.get_help().map(ToString::to_string).unwrap_or_default();
            let text = help.split(" [default: ").next().unwrap_or_default();
            arg.help(format!("{text} [default: {default}]"))
        })
    })
}

/// Parses a command line and loads the configuration it names.
///
/// `arguments` begin with the program's name; `environment` is usually `std::env::vars_os()`.
///
/// # Errors
/// [`CliError::Usage`] for the command line itself, help and version; [`CliError::Config`] for the contents of
/// a file, the environment or the values of flags.
pub fn parse(
    arguments: impl IntoIterator<Item = OsString>,
    environment: impl Iterator<Item = (OsString, OsString)>,
) -> Result<Command, CliError> {
    parse_with(arguments, environment, Path::new(DEFAULT_FILE))
}

/// As [`parse`], with the file to read if none is named.
fn parse_with(
    arguments: impl IntoIterator<Item = OsString>,
    environment: impl Iterator<Item = (OsString, OsString)>,
    default_file: &Path,
) -> Result<Command, CliError> {
    let mut clap = definition();
    let cli = Cli::from_arg_matches(&clap.try_get_matches_from_mut(arguments)?)?;
    let (role, misplaced) = (role_of(cli.command.as_ref()), given_before_role(&cli));
    if let (Some(_), Some(flag)) = (&cli.command, misplaced) {
        return Err(clap.error(ErrorKind::ArgumentConflict, format!("put {flag} after the role")).into());
    }
    let sources = sources(&cli, role).with_environment(environment);
    match cli.command {
        Some(Sub::Stress(arguments)) => Ok(Command::Stress(arguments)),
        Some(Sub::Push(arguments)) => Ok(Command::Push(arguments)),
        Some(Sub::Completions { shell }) => Ok(Command::Completions(shell)),
        Some(Sub::Man { dir }) => Ok(Command::Man { dir }),
        Some(Sub::Sign(arguments)) => {
            let config = with_default_file(sources, default_file).check()?;
            Ok(Command::Sign(arguments.sign(&config)?))
        }
        Some(Sub::CheckConfig { .. }) => {
            let sources = with_default_file(sources, default_file);
            let mut warnings = sources.check()?.warnings();
            warnings.extend(sources.file.as_deref().and_then(Warning::of_file));
            Ok(Command::CheckConfig { file: sources.file, warnings })
        }
        _ => {
            // The demo must not take a machine's real ports by accident.
            let demo = matches!(role, Role::Demo { .. });
            let sources = if demo { sources } else { with_default_file(sources, default_file) };
            let config = Box::new(sources.load(role)?);
            Ok(Command::Run { role, config, sources })
        }
    }
}

fn role_of(command: Option<&Sub>) -> Role {
    match command {
        Some(Sub::Origin(_)) => Role::Origin,
        Some(Sub::FlvGateway(_)) => Role::FlvGateway,
        Some(Sub::FileGateway(_)) => Role::FileGateway,
        Some(Sub::Demo { no_gateway, .. }) => Role::Demo { gateway: !no_gateway },
        _ => Role::AllInOne,
    }
}

/// The first of the origin's flags that precedes a subcommand, where it would be ignored.
fn given_before_role(cli: &Cli) -> Option<String> {
    let mut given = Given::default();
    given.origin(&cli.origin, Role::Origin);
    given.0.first().map(|setting| setting.place.to_string())
}

fn sources(cli: &Cli, role: Role) -> Sources {
    let mut given = Given::default();
    given.common(&cli.common);
    let mut file = cli.common.config.clone();
    if let Some(Sub::Demo { tls: true, .. }) = &cli.command {
        given.demo_certificate();
    }
    match &cli.command {
        None => given.origin(&cli.origin, role),
        Some(Sub::Origin(flags) | Sub::Demo { origin: flags, .. }) => given.origin(flags, role),
        Some(Sub::FlvGateway(flags)) => given.flv_gateway(flags),
        Some(Sub::FileGateway(flags)) => given.file_gateway(flags),
        Some(Sub::CheckConfig { file: named }) => file = named.clone().or(file),
        Some(Sub::Stress(_) | Sub::Push(_) | Sub::Sign(_) | Sub::Completions { .. } | Sub::Man { .. }) => {}
    }
    Sources { file, flags: given.0, environment: Vec::new() }
}

fn with_default_file(mut sources: Sources, default: &Path) -> Sources {
    if sources.file.is_none() && default.exists() {
        sources.file = Some(default.to_owned());
    }
    sources
}

/// Writes the completions for a shell.
pub fn write_completions(shell: Shell, out: &mut dyn Write) {
    clap_complete::generate(shell, &mut definition(), "uringcast", out);
}

/// Writes the first man page to `out` or, with `dir`, one page per subcommand into that folder, which is
/// created.
///
/// # Errors
/// The error of the folder or of `out`.
pub fn write_man(dir: Option<&Path>, out: &mut dyn Write) -> io::Result<()> {
    match dir {
        Some(dir) => {
            std::fs::create_dir_all(dir)?;
            clap_mangen::generate_to(definition(), dir)
        }
        None => clap_mangen::Man::new(definition()).render(out),
    }
}

#[cfg(test)]
mod tests;
