//! The shipped units: systemd accepts them without a warning, and their exposure stays low.

use std::path::{Path, PathBuf};
use std::process::Command;

const UNITS: [&str; 3] =
    ["uringcast-origin.service", "uringcast-flv-gateway.service", "uringcast-file-gateway.service"];

/// The highest exposure that passes, in tenths.
const EXPOSURE_MAX: &str = "20";

fn source(unit: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("systemd").join(unit)
}

fn read(unit: &str) -> String {
    std::fs::read_to_string(source(unit)).expect("the unit is shipped")
}

fn has_systemd_analyze() -> bool {
    let found =
        Command::new("systemd-analyze").arg("--version").output().is_ok_and(|out| out.status.success());
    if !found {
        eprintln!("skipped: there is no systemd-analyze here; it is in the package systemd");
    }
    found
}

/// A folder with copies of the units that start the program that was just built. Removed at the end.
struct Copies(PathBuf);

impl Copies {
    fn new(name: &str) -> Self {
        let dir = std::env::temp_dir().join(format!("uringcast-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&dir).expect("a folder for the copies");
        for unit in UNITS {
            let text = read(unit);
            assert!(text.contains("ExecStart=/usr/bin/uringcast "), "{unit}");
            let text = text.replace("/usr/bin/uringcast", env!("CARGO_BIN_EXE_uringcast"));
            std::fs::write(dir.join(unit), text).expect("the copy is written");
        }
        Self(dir)
    }
}

impl Drop for Copies {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

#[test]
fn systemd_accepts_the_units() {
    if !has_systemd_analyze() {
        return;
    }
    let copies = Copies::new("verify");
    for unit in UNITS {
        let out = Command::new("systemd-analyze")
            .args(["verify", "--man=no", "--recursive-errors=no"])
            .arg(copies.0.join(unit))
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&out.stderr);
        assert!(out.status.success(), "{unit}: {said}");
        // An unknown key is only a warning of systemd; in this test it is an error.
        assert!(!said.contains(unit), "{unit}: {said}");
    }
}

#[test]
fn the_units_are_hardened() {
    if !has_systemd_analyze() {
        return;
    }
    let copies = Copies::new("security");
    for unit in UNITS {
        let out = Command::new("systemd-analyze")
            .args(["security", "--offline=true", "--no-pager", "--threshold", EXPOSURE_MAX])
            .arg(copies.0.join(unit))
            .output()
            .unwrap();
        let report = String::from_utf8_lossy(&out.stdout);
        let last = report.lines().last().unwrap_or_default();
        println!("{unit}: {last}");
        assert!(out.status.success(), "{unit}: {report}{}", String::from_utf8_lossy(&out.stderr));
    }
}

#[test]
fn the_units_and_the_configuration_fit() {
    for (unit, file) in UNITS.iter().zip(["origin.toml", "flv-gateway.toml", "file-gateway.toml"]) {
        let text = read(unit);
        assert!(text.contains(&format!(" --config /etc/uringcast/{file}\n")), "{unit}");
        assert!(Path::new(env!("CARGO_MANIFEST_DIR")).join("etc").join(file).exists(), "{file}");
        for line in ["Type=notify\n", "RestartPreventExitStatus=78 69\n", "LimitMEMLOCK=infinity\n"] {
            assert!(text.contains(line), "{unit} lacks {line}");
        }
    }
}
