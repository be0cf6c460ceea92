use std::time::Duration;

use super::*;
use crate::config::LogFormat;

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
        run("origin --rtmp :1 --flv 127.0.0.1:2,[::1]:2 --web [::1]:3 --data /d --record flv,hls \
         --flush 350ms --wait 1s --gap 2s --loops 2 --admin off --log debug --log-format json --drain 3s")
        .unwrap();
    let origin = &config.origin;
    assert_eq!(role, Role::Origin);
    assert_eq!(origin.rtmp.to_string(), "0.0.0.0:1");
    assert_eq!(origin.flv.to_string(), "127.0.0.1:2,[::1]:2");
    assert_eq!((origin.flv.port(), origin.web.to_string().as_str()), (2, "[::1]:3"));
    assert_eq!((origin.data.to_str(), origin.record.to_string()), (Some("/d"), "flv,hls".to_owned()));
    assert_eq!(
        (origin.flush.every(), origin.wait),
        (Some(Duration::from_millis(350)), Duration::from_secs(1))
    );
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
    assert_eq!(
        (gateway.linger, gateway.flush.every()),
        (Duration::from_secs(1), Some(Duration::from_secs(2)))
    );
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
fn the_help_names_the_real_defaults() {
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
fn each_error_has_its_exit_code() {
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

#[test]
fn a_signed_token_is_printed_alone_and_then_in_urls() {
    let file = std::env::temp_dir().join(format!("uringcast-sign-{}", std::process::id()));
    std::fs::write(&file, "may:a-secret-of-20-bytes\n").unwrap();
    let sign = |line: &str| {
        let line = format!("uringcast sign {line} --secret-file {}", file.display());
        match parse_with(line.split(' ').map(OsString::from), std::iter::empty(), Path::new("/nonexistent")) {
            Ok(Command::Sign(text)) => Ok(text.lines().map(str::to_owned).collect::<Vec<_>>()),
            Ok(other) => panic!("{other:?}"),
            Err(error) => Err(error.exit_code()),
        }
    };
    let lines = sign("live/show --for play --expires 2h --host h.example --ip 192.0.2.1").unwrap();
    let token = &lines[0];
    assert!(token.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._~-".contains(&byte)), "{token}");
    assert_eq!(lines[1], format!("rtmp://h.example:1935/live/show?token={token}"));
    assert_eq!(lines[2], format!("http://h.example:8501/live/show.flv?token={token}"));
    assert_eq!(lines[3], format!("http://h.example:80/~{token}/hls/live/show/index.m3u8"));
    assert_eq!(sign("live/* --for publish --expires 2h").unwrap().len(), 1);
    assert_eq!(sign("live --for publish --expires 2h"), Err(2));
    assert_eq!(sign("live/a --for watch --expires 2h"), Err(2));
    std::fs::remove_file(&file).unwrap();
    assert_eq!(sign("live/a --for play --expires 2h"), Err(78));
    assert_eq!(run("sign live/a --for play --expires 2h").unwrap_err().exit_code(), 78);
}
