//! The program as a service manager, a container and a person at a shell meet it: the environment, what is told of its
//! state, and what is left when it has ended.

use std::net::TcpListener;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use crate::harness::process::Guard;
use crate::harness::{SOON, Scratch, until};

const ANY: &str = "127.0.0.1:0";

fn program(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_uringcast"));
    command.args(args);
    command
}

fn origin(data: &Path) -> Command {
    let data = data.to_str().unwrap();
    program(&[
        "origin", "--rtmp", ANY, "--flv", ANY, "--web", ANY, "--admin", "off", "--loops", "1", "--data", data,
    ])
}

fn demo(temporary: &Path) -> Command {
    let mut command = program(&[
        "demo",
        "--no-gateway",
        "--rtmp",
        ANY,
        "--flv",
        ANY,
        "--web",
        ANY,
        "--admin",
        "off",
        "--loops",
        "1",
    ]);
    command.env("TMPDIR", temporary);
    command
}

fn wait_ready(guard: &Guard) {
    until("the ready line", || guard.log().iter().any(|line| line.starts_with("ready ")).then_some(()));
}

#[test]
fn the_service_manager_is_told_by_an_abstract_socket() {
    let scratch = Scratch::new("notify");
    let name = format!("uringcast-service-{}", std::process::id());
    let manager = UnixDatagram::bind_addr(&SocketAddr::from_abstract_name(&name).unwrap()).unwrap();
    manager.set_read_timeout(Some(SOON)).unwrap();
    let mut command = origin(&scratch.path("data"));
    let mut guard = Guard::spawn("origin", command.env("NOTIFY_SOCKET", format!("@{name}")));
    let heard = || {
        let mut text = [0; 256];
        let len = manager.recv(&mut text).unwrap();
        String::from_utf8(text[..len].to_vec()).unwrap()
    };
    assert_eq!(heard(), "READY=1");
    guard.terminate();
    assert_eq!(heard(), "STOPPING=1");
    assert!(guard.wait());
}

#[test]
fn a_service_manager_that_cannot_be_told_is_logged() {
    let scratch = Scratch::new("deaf");
    let mut command = origin(&scratch.path("data"));
    let guard = Guard::spawn("origin", command.env("NOTIFY_SOCKET", scratch.path("none")));
    until("a log line of it", || {
        guard.log().iter().any(|line| line.contains("cannot tell the service manager")).then_some(())
    });
}

#[test]
fn booleans_and_tables_come_by_the_environment() {
    let scratch = Scratch::new("environment");
    let mut command = origin(&scratch.path("data"));
    command
        .env("URINGCAST_RECORDING__SYNC", "false")
        .env("URINGCAST_ORIGIN__RECORD_APPS", r#"{"live": "hls"}"#);
    let guard = Guard::spawn("origin", &mut command);
    wait_ready(&guard);
    let wrong = origin(&scratch.path("data")).env("URINGCAST_RECORDING__SYNC", "maybe").output().unwrap();
    assert_eq!(wrong.status.code(), Some(78));
}

fn check(file: &Path) -> Output {
    program(&["check-config", file.to_str().unwrap()]).output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[test]
fn a_configuration_is_checked_and_no_key_is_told() {
    let scratch = Scratch::new("check");
    let file = scratch.path("x.toml");
    let missing = check(&file);
    assert_eq!(missing.status.code(), Some(78));
    assert!(text(&missing.stderr).ends_with("x.toml: no such file\n"), "{missing:?}");

    let forward = "[[forward]]\nstream = \"live/*\"\nto = \"rtmp://h/app/SECRET?token=SECRET\"\n";
    std::fs::write(
        &file,
        format!("{forward}[[forward]]\nstream = \"live/a\"\nto = \"ftp://h/app/SECRET\"\n"),
    )
    .unwrap();
    let wrong = check(&file);
    let said = text(&wrong.stderr);
    assert!(wrong.status.code() == Some(78) && said.contains("x.toml:6: forward.1.to: "), "{said}");

    std::fs::write(&file, format!("admin = \"0.0.0.0:9935\"\n{forward}")).unwrap();
    let odd = check(&file);
    assert!(odd.status.success() && text(&odd.stdout).ends_with("x.toml: good\n"), "{odd:?}");
    let warned = text(&odd.stderr);
    assert!(warned.contains("x.toml: warning: admin: "), "{warned}");
    for output in [said, text(&odd.stdout), warned] {
        assert!(!output.contains("SECRET"), "{output}");
    }
}

/// The demos' folders below a temporary folder.
fn folders(temporary: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(temporary).unwrap();
    entries.map(|entry| entry.unwrap().path()).collect()
}

fn wait_recorded(temporary: &Path) {
    until("something to be recorded", || {
        folders(temporary).iter().any(|folder| folder.join("data").is_dir()).then_some(())
    });
}

#[test]
fn the_demo_s_folder_goes_in_every_way_of_ending() {
    let scratch = Scratch::new("ending");
    let temporary = scratch.path("");
    for signals in [&["INT"][..], &["TERM"], &["TERM", "TERM"], &["INT", "INT"]] {
        let mut guard = Guard::spawn("demo", &mut demo(&temporary));
        wait_ready(&guard);
        wait_recorded(&temporary);
        signals.iter().for_each(|signal| guard.signal(signal));
        until("the demo to end", || (!guard.is_running()).then_some(()));
        assert!(folders(&temporary).is_empty(), "{signals:?}");
    }

    let taken = TcpListener::bind(ANY).unwrap();
    let web = taken.local_addr().unwrap().to_string();
    let args = ["demo", "--no-gateway", "--rtmp", ANY, "--flv", ANY, "--web", &web, "--admin", "off"];
    let failed = program(&args).env("TMPDIR", &temporary).output().unwrap();
    assert_eq!(failed.status.code(), Some(75), "{failed:?}");
    assert!(folders(&temporary).is_empty(), "a start that failed");

    let mut killed = Guard::spawn("demo", &mut demo(&temporary));
    wait_ready(&killed);
    wait_recorded(&temporary);
    let living = Guard::spawn("demo", &mut demo(&temporary));
    wait_ready(&living);
    assert_eq!(folders(&temporary).len(), 2, "that of a demo that runs stays");
    killed.kill();
    let mut next = Guard::spawn("demo", &mut demo(&temporary));
    wait_ready(&next);
    assert_eq!(folders(&temporary).len(), 2, "that of a demo that was killed goes");
    next.terminate();
    until("the demo to end", || (!next.is_running()).then_some(()));
}

#[test]
fn the_demo_s_help_tells_the_demo_s_defaults() {
    let help = text(&program(&["demo", "--help"]).output().unwrap().stdout);
    for part in ["127.0.0.1:1935", "127.0.0.1:8501", "127.0.0.1:8088", "a temporary folder"] {
        assert!(help.contains(part), "{part}: {help}");
    }
    assert!(!help.contains("0.0.0.0") && !help.contains("/var/lib"), "{help}");
}
