//! The command line: one definition per flag gives the parser, the help, the completions and the man pages.
//!
//! A flag that was given becomes a [`Setting`]; one that was not leaves the layers below alone. No default is
//! written here.

use std::ffi::OsString;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::error::ErrorKind;
use clap::{Args, CommandFactory, FromArgMatches, Parser, Subcommand};
use clap_complete::Shell;

use crate::config::load::{DEFAULT_FILE, Setting, Sources};
use crate::config::units;
use crate::config::{Config, ConfigError, LogFormat, Place, Record, Role, Upstream, Warning};
use crate::tools::push::{self, PushArgs};
use crate::tools::stress::{self, StressArgs};

/// What the user asked for.
#[derive(Debug)]
pub enum Command {
    /// Run a role until a signal ends it.
    Run {
        /// Which one.
        role: Role,
        /// Its configuration, checked.
        config: Box<Config>,
        /// Where it came from, for a reload.
        sources: Sources,
    },
    /// Hold viewers: [`stress::main`].
    Stress(StressArgs),
    /// Publish a file: [`push::main`].
    Push(PushArgs),
    /// The configuration was checked and is good.
    CheckConfig {
        /// The file that was checked, if there is one.
        file: Option<PathBuf>,
        /// What is legal and odd.
        warnings: Vec<Warning>,
    },
    /// Print completions: [`write_completions`].
    Completions(Shell),
    /// Print or write man pages: [`write_man`].
    Man {
        /// The folder to write all pages to; `None`: the first page goes to standard output.
        dir: Option<PathBuf>,
    },
}

impl Command {
    /// Does what is no running role: prints what was asked for.
    ///
    /// # Errors
    /// What standard output or the folder says.
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
            Self::Completions(shell) => {
                write_completions(shell, &mut out);
                Ok(())
            }
            Self::Man { dir } => write_man(dir.as_deref(), &mut out),
        };
        Ok(done.map(|()| ExitCode::SUCCESS)?)
    }
}

/// Why a command that runs no role failed.
#[derive(Debug, thiserror::Error)]
pub enum FinishError {
    /// The load generator.
    #[error("{0:#}")]
    Stress(#[from] anyhow::Error),
    /// Standard output, or the folder of the man pages.
    #[error("{0}")]
    Output(#[from] io::Error),
}

/// Why there is nothing to run.
#[derive(Debug, thiserror::Error)]
pub enum CliError {
    /// The command line is wrong, or it asked for help or the version. `exit()` of the inner error prints it.
    #[error(transparent)]
    Usage(#[from] clap::Error),
    /// The configuration is refused.
    #[error(transparent)]
    Config(#[from] ConfigError),
}

impl CliError {
    /// The exit code: 0 for help and version, 2 for usage, 78 for configuration.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Usage(error) if !error.use_stderr() => 0,
            Self::Usage(_) => 2,
            Self::Config(_) => 78,
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
    /// Unless told otherwise it listens on 127.0.0.1 only: 1935 RTMP, 8501 FLV, 8088 pages, 8080 gateway; it
    /// records into a temporary folder that goes when it ends (about 6 MB a minute; --record none does not), and
    /// it reads no file but one that --config names.
    Demo {
        #[command(flatten)]
        origin: OriginFlags,
        /// Run no FLV gateway beside the origin.
        #[arg(long)]
        no_gateway: bool,
    },
    /// Hold many viewers of one stream, check what they get, and say what it cost.
    Stress(StressArgs),
    /// Publish an FLV or MP4 file in real time.
    ///
    /// Exit codes: 0 pushed to the end, 2 usage, 65 not FLV or MP4, 66 no such file, 75 no connection,
    /// 77 refused by the server.
    Push(PushArgs),
    /// Check a configuration file and say which line is wrong.
    CheckConfig {
        /// The file; without it the one that a role would read.
        file: Option<PathBuf>,
    },
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

#[derive(Debug, Args)]
struct CommonFlags {
    /// Read this TOML file [default: /etc/uringcast/uringcast.toml if it exists].
    #[arg(long, global = true, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Event loops, one thread each [default: one a core].
    #[arg(long, global = true, value_name = "N", value_parser = checked(|text| text.parse::<u16>()))]
    loops: Option<String>,
    /// Answer metrics, probes and the API here; "off": nowhere [default: 127.0.0.1:9935].
    #[arg(long, global = true, value_name = "ADDR", value_parser = checked(units::parse_admin))]
    admin: Option<String>,
    /// Log filter: "warn", "info", "debug", "info,uringcast::server=debug" [default: info].
    #[arg(long, global = true, value_name = "FILTER")]
    log: Option<String>,
    /// Log format: text or json [default: text].
    #[arg(long, global = true, value_name = "FORMAT", value_parser = checked(str::parse::<LogFormat>))]
    log_format: Option<String>,
    /// Let viewers finish so long after SIGTERM [default: 10s].
    #[arg(long, global = true, value_name = "TIME", value_parser = checked(units::parse_duration))]
    drain: Option<String>,
}

#[derive(Debug, Args)]
struct OriginFlags {
    /// Listen here for RTMP [default: 0.0.0.0:1935].
    #[arg(long, value_name = "ADDR", value_parser = checked(units::parse_listen))]
    rtmp: Option<String>,
    /// Listen here for HTTP-FLV and WS-FLV, push and play [default: 0.0.0.0:8501].
    #[arg(long, value_name = "ADDR", value_parser = checked(units::parse_listen))]
    flv: Option<String>,
    /// Listen here for pages and files [default: 0.0.0.0:80].
    #[arg(long, value_name = "ADDR", value_parser = checked(units::parse_listen))]
    web: Option<String>,
    /// Keep recordings under this folder [default: /var/lib/uringcast].
    #[arg(long, value_name = "DIR")]
    data: Option<String>,
    /// Record every stream: "none" or some of "flv,hls,fmp4" [default: none; all in the all-in-one and the demo].
    #[arg(long, value_name = "KINDS", value_parser = checked(str::parse::<Record>))]
    record: Option<String>,
    #[command(flatten)]
    viewers: ViewerFlags,
}

#[derive(Debug, Args)]
struct FlvGatewayFlags {
    /// Listen here for viewers [default: 0.0.0.0:8080].
    #[arg(long, value_name = "ADDR", value_parser = checked(units::parse_listen))]
    listen: Option<String>,
    /// Pull from here, http://host:port/prefix; given again, the next one to try.
    #[arg(long, value_name = "URL", value_parser = checked(str::parse::<Upstream>))]
    upstream: Vec<String>,
    /// Keep a pull so long after its last viewer went [default: 10s].
    #[arg(long, value_name = "TIME", value_parser = checked(units::parse_duration))]
    linger: Option<String>,
    #[command(flatten)]
    viewers: ViewerFlags,
}

#[derive(Debug, Args)]
struct ViewerFlags {
    /// Gather tags so long before they are sent [default: 0ms].
    #[arg(long, value_name = "TIME", value_parser = checked(units::parse_duration))]
    flush: Option<String>,
    /// Let a GET wait so long for a stream that is not live [default: 5s].
    #[arg(long, value_name = "TIME", value_parser = checked(units::parse_duration))]
    wait: Option<String>,
    /// Keep viewers so long after the publisher went [default: 10s].
    #[arg(long, value_name = "TIME", value_parser = checked(units::parse_duration))]
    gap: Option<String>,
}

#[derive(Debug, Args)]
struct FileGatewayFlags {
    /// Listen here for HTTP clients [default: 0.0.0.0:8100].
    #[arg(long, value_name = "ADDR", value_parser = checked(units::parse_listen))]
    listen: Option<String>,
    /// Serve this folder [default: /var/lib/uringcast].
    #[arg(long, value_name = "DIR")]
    root: Option<String>,
    /// Fetch files that are not there from here, http://host:port/prefix; given again, the next one to try.
    #[arg(long, value_name = "URL", value_parser = checked(str::parse::<Upstream>))]
    upstream: Vec<String>,
    /// Keep fetched files in this folder [default: /var/cache/uringcast].
    #[arg(long, value_name = "DIR")]
    cache: Option<String>,
    /// Log requests to this file; "-" is standard output [default: off].
    #[arg(long, value_name = "FILE")]
    access_log: Option<String>,
}

/// A value parser that checks the text and keeps it: the layers hold text.
fn checked<T, E>(
    parse: fn(&str) -> Result<T, E>,
) -> impl Fn(&str) -> Result<String, E> + Clone + Send + Sync {
    move |text| parse(text).map(|_| text.to_owned())
}

/// The definition of the command line, with the demo's own defaults in its help.
fn definition() -> clap::Command {
    Cli::command().mut_subcommand("demo", |demo| {
        demo.mut_args(|arg| {
            let default = match arg.get_id().as_str() {
                "rtmp" => "127.0.0.1:1935",
                "flv" => "127.0.0.1:8501",
                "web" => "127.0.0.1:8088",
                "data" => "a temporary folder that goes when the demo ends",
                "record" => "flv,hls,fmp4",
                _ => return arg,
            };
            let help = arg.get_help().map(ToString::to_string).unwrap_or_default();
            let text = help.split(" [default: ").next().unwrap_or_default();
            arg.help(format!("{text} [default: {default}]"))
        })
    })
}

/// The flags that were given, as settings.
#[derive(Default)]
struct Given(Vec<Setting>);

impl Given {
    fn add(&mut self, flag: &str, keys: &[&str], value: Option<&String>) {
        let Some(value) = value else { return };
        for key in keys {
            let place = Place::Flag(flag.to_owned());
            self.0.push(Setting { place, key: (*key).to_owned(), value: value.clone() });
        }
    }

    fn common(&mut self, flags: &CommonFlags) {
        self.add("--loops", &["loops"], flags.loops.as_ref());
        self.add("--admin", &["admin"], flags.admin.as_ref());
        self.add("--log", &["log"], flags.log.as_ref());
        self.add("--log-format", &["log_format"], flags.log_format.as_ref());
        self.add("--drain", &["drain"], flags.drain.as_ref());
    }

    /// The origin's flags; those on viewers hold for the gateway beside it as well.
    fn origin(&mut self, flags: &OriginFlags, role: Role) {
        self.add("--rtmp", &["origin.rtmp"], flags.rtmp.as_ref());
        self.add("--flv", &["origin.flv"], flags.flv.as_ref());
        self.add("--web", &["origin.web"], flags.web.as_ref());
        self.add("--data", &["origin.data"], flags.data.as_ref());
        self.add("--record", &["origin.record"], flags.record.as_ref());
        self.viewers(&flags.viewers, role);
    }

    fn flv_gateway(&mut self, flags: &FlvGatewayFlags) {
        self.add("--listen", &["flv_gateway.listen"], flags.listen.as_ref());
        let upstream = (!flags.upstream.is_empty()).then(|| flags.upstream.join(","));
        self.add("--upstream", &["flv_gateway.upstream"], upstream.as_ref());
        self.add("--linger", &["flv_gateway.linger"], flags.linger.as_ref());
        self.viewers(&flags.viewers, Role::FlvGateway);
    }

    fn file_gateway(&mut self, flags: &FileGatewayFlags) {
        self.add("--listen", &["file_gateway.listen"], flags.listen.as_ref());
        self.add("--root", &["file_gateway.root"], flags.root.as_ref());
        let upstream = (!flags.upstream.is_empty()).then(|| flags.upstream.join(","));
        self.add("--upstream", &["file_gateway.upstream"], upstream.as_ref());
        self.add("--cache", &["file_gateway.cache"], flags.cache.as_ref());
        self.add("--access-log", &["access_log.path"], flags.access_log.as_ref());
    }

    fn viewers(&mut self, flags: &ViewerFlags, role: Role) {
        for (name, value) in [("flush", &flags.flush), ("wait", &flags.wait), ("gap", &flags.gap)] {
            for (has, table) in [(role.has_origin(), "origin"), (role.has_flv_gateway(), "flv_gateway")] {
                if has {
                    self.add(&format!("--{name}"), &[&format!("{table}.{name}")], value.as_ref());
                }
            }
        }
    }
}

/// Parses a command line and loads the configuration it names.
///
/// `arguments` begin with the program's name; `environment` is usually `std::env::vars_os()`.
///
/// # Errors
/// [`CliError::Usage`] for the command line itself, help and version; [`CliError::Config`] for what a file,
/// the environment or the values of flags hold.
pub fn parse(
    arguments: impl IntoIterator<Item = OsString>,
    environment: impl Iterator<Item = (OsString, OsString)>,
) -> Result<Command, CliError> {
    parse_with(arguments, environment, Path::new(DEFAULT_FILE))
}

/// As [`parse`], with the file that is read where none is named.
fn parse_with(
    arguments: impl IntoIterator<Item = OsString>,
    environment: impl Iterator<Item = (OsString, OsString)>,
    default_file: &Path,
) -> Result<Command, CliError> {
    let mut clap = definition();
    let cli = Cli::from_arg_matches(&clap.try_get_matches_from_mut(arguments)?)?;
    let (role, misplaced) = (role_of(cli.command.as_ref()), given_before_role(&cli));
    if let (Some(_), Some(flag)) = (&cli.command, misplaced) {
        return Err(clap.error(ErrorKind::ArgumentConflict, format!("put {flag} behind the role")).into());
    }
    let sources = sources(&cli, role).with_environment(environment);
    match cli.command {
        Some(Sub::Stress(arguments)) => Ok(Command::Stress(arguments)),
        Some(Sub::Push(arguments)) => Ok(Command::Push(arguments)),
        Some(Sub::Completions { shell }) => Ok(Command::Completions(shell)),
        Some(Sub::Man { dir }) => Ok(Command::Man { dir }),
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

/// The first of the origin's flags that stands in front of a subcommand, where it would be lost.
fn given_before_role(cli: &Cli) -> Option<String> {
    let mut given = Given::default();
    given.origin(&cli.origin, Role::Origin);
    given.0.first().map(|setting| setting.place.to_string())
}

fn sources(cli: &Cli, role: Role) -> Sources {
    let mut given = Given::default();
    given.common(&cli.common);
    let mut file = cli.common.config.clone();
    match &cli.command {
        None => given.origin(&cli.origin, role),
        Some(Sub::Origin(flags) | Sub::Demo { origin: flags, .. }) => given.origin(flags, role),
        Some(Sub::FlvGateway(flags)) => given.flv_gateway(flags),
        Some(Sub::FileGateway(flags)) => given.file_gateway(flags),
        Some(Sub::CheckConfig { file: named }) => file = named.clone().or(file),
        Some(Sub::Stress(_) | Sub::Push(_) | Sub::Completions { .. } | Sub::Man { .. }) => {}
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

/// Writes the first man page to `out`, or with `dir` one page a subcommand into that folder, which is made.
///
/// # Errors
/// What the folder or `out` says.
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
mod tests {
    use std::time::Duration;

    use super::*;

    fn run(line: &str) -> Result<(Role, Config), CliError> {
        let arguments = std::iter::once("uringcast").chain(line.split_whitespace()).map(OsString::from);
        match parse_with(arguments, std::iter::empty(), Path::new("/nonexistent"))? {
            Command::Run { role, config, .. } => Ok((role, *config)),
            other => panic!("{line}: {other:?}"),
        }
    }

    #[test]
    fn the_definition_is_sound() {
        definition().debug_assert();
    }

    #[test]
    fn the_origin_takes_its_stable_flags() {
        let (role, config) =
            run("origin --rtmp :1 --flv 127.0.0.1:2 --web [::1]:3 --data /d --record flv,hls \
             --flush 350ms --wait 1s --gap 2s --loops 2 --admin off --log debug --log-format json --drain 3s")
            .unwrap();
        let origin = &config.origin;
        assert_eq!(role, Role::Origin);
        assert_eq!(origin.rtmp.to_string(), "0.0.0.0:1");
        assert_eq!((origin.flv.port(), origin.web.to_string().as_str()), (2, "[::1]:3"));
        assert_eq!((origin.data.to_str(), origin.record.to_string()), (Some("/d"), "flv,hls".to_owned()));
        assert_eq!((origin.flush, origin.wait), (Duration::from_millis(350), Duration::from_secs(1)));
        assert_eq!((origin.gap, config.drain), (Duration::from_secs(2), Duration::from_secs(3)));
        assert_eq!((config.loops, config.admin, config.admin_explicit), (2, None, true));
        assert_eq!((config.log.as_str(), config.log_format), ("debug", LogFormat::Json));
    }

    #[test]
    fn the_gateways_take_their_stable_flags() {
        let (role, config) =
            run("flv-gateway --listen :1 --upstream http://a:1 --upstream http://b --linger 1s --flush 2s")
                .unwrap();
        let gateway = &config.flv_gateway;
        assert_eq!((role, gateway.listen.port(), gateway.upstream.len()), (Role::FlvGateway, 1, 2));
        assert_eq!((gateway.linger, gateway.flush), (Duration::from_secs(1), Duration::from_secs(2)));
        assert_eq!(config.origin, Config::default().origin);
        let (role, config) = run("--loops 1 file-gateway --listen :2 --root /srv").unwrap();
        assert_eq!((role, config.loops, config.file_gateway.listen.port()), (Role::FileGateway, 1, 2));
        assert_eq!(config.file_gateway.root.to_str(), Some("/srv"));
    }

    #[test]
    fn roles_together_share_the_viewers_flags() {
        let (role, config) = run("--flush 40ms --web :8088").unwrap();
        assert_eq!((role, config.origin.web.port()), (Role::AllInOne, 8088));
        assert_eq!(config.origin.flush, config.flv_gateway.flush);
        let (role, config) = run("demo --rtmp 127.0.0.1:7000 --no-gateway").unwrap();
        assert_eq!(role, Role::Demo { gateway: false });
        assert_eq!((config.origin.rtmp.port(), config.origin.web.port()), (7000, 8088));
    }

    #[test]
    fn the_default_file_is_read_by_all_but_the_demo() {
        let etc = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/etc/flv-gateway.toml"));
        let admin = |role: &str| {
            let arguments = ["uringcast", role].map(OsString::from);
            match parse_with(arguments, std::iter::empty(), etc).unwrap() {
                Command::Run { config, sources, .. } => {
                    (config.admin.map(|address| address.port()), sources.file.is_some())
                }
                other => panic!("{role}: {other:?}"),
            }
        };
        assert_eq!(admin("flv-gateway"), (Some(9936), true));
        assert_eq!(admin("demo"), (Some(9935), false));
    }

    /// The help repeats defaults for the reader; giving them all must change nothing.
    #[test]
    fn the_help_tells_true_defaults() {
        let clap = definition();
        let demo = Role::Demo { gateway: true };
        for (name, defaults) in [
            ("origin", Config::default()),
            ("flv-gateway", Config::default()),
            ("file-gateway", Config::default()),
            ("demo", Config::for_role(demo)),
        ] {
            let sub = clap.get_subcommands().find(|sub| sub.get_name() == name).unwrap();
            let mut line = format!("{name} --admin 127.0.0.1:9935");
            for arg in clap.get_arguments().filter(|arg| arg.is_global_set()).chain(sub.get_arguments()) {
                let help = arg.get_help().map(ToString::to_string).unwrap_or_default();
                let Some((_, default)) = help.split_once("[default: ") else { continue };
                let default = default.trim_end_matches(['.', ']']);
                if !default.contains(' ') && arg.get_id() != "admin" {
                    line.push_str(&format!(" --{} {default}", arg.get_long().unwrap()));
                }
            }
            assert!(line.matches("--").count() >= 6, "{line}");
            let upstream = if name == "flv-gateway" { " --upstream http://a" } else { "" };
            let (_, mut config) = run(&format!("{line}{upstream}")).unwrap();
            config.flv_gateway.upstream.clear();
            assert_eq!(config, Config { admin_explicit: true, ..defaults }, "{line}");
        }
    }

    #[test]
    fn what_is_wrong_has_its_exit_code() {
        let code = |line: &str| run(line).unwrap_err().exit_code();
        assert_eq!([code("--help"), code("--version"), code("origin --help")], [0; 3]);
        assert_eq!([code("nonsense"), code("origin --rtmp x"), code("--rtmp :1 origin")], [2; 3]);
        assert_eq!([code("flv-gateway"), code("origin --flush 6s"), code("--config /nonexistent")], [78; 3]);
    }

    #[test]
    fn other_commands() {
        let other = |line: &str| {
            let arguments = std::iter::once("uringcast").chain(line.split_whitespace()).map(OsString::from);
            parse_with(arguments, std::iter::empty(), Path::new("/nonexistent"))
        };
        let file = concat!(env!("CARGO_MANIFEST_DIR"), "/etc/uringcast.toml");
        let checked = other(&format!("check-config {file}")).unwrap();
        assert!(matches!(checked, Command::CheckConfig { file: Some(path), .. } if path == Path::new(file)));
        assert_eq!(other("check-config /nonexistent").unwrap_err().exit_code(), 78);
        assert!(matches!(other("completions bash").unwrap(), Command::Completions(Shell::Bash)));
        assert!(matches!(other("man /tmp").unwrap(), Command::Man { dir: Some(_) }));
        let (mut script, mut page) = (Vec::new(), Vec::new());
        write_completions(Shell::Bash, &mut script);
        write_man(None, &mut page).unwrap();
        assert!(script.len() > 1000 && page.len() > 1000);
    }
}
