//! The stress tool: what it calls served is served, in every protocol, and what is not it does not.

use std::net::SocketAddr;
use std::process::Command;

use crate::harness::{Scratch, Server, http, until};

const ANY: &str = "127.0.0.1:0";

/// Runs the tool on `url`; whether all were served, and its report.
fn stress(url: &str, more: &[&str]) -> (bool, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_uringcast"))
        .args(["stress", url, "--viewers", "12", "--ramp", "0.5", "--duration", "4", "--json", "--quiet"])
        .args(more)
        .output()
        .unwrap();
    let report = String::from_utf8(output.stdout).unwrap();
    (output.status.success(), report)
}

fn demo(scratch: &Scratch) -> Server {
    let listen = ["--rtmp", ANY, "--flv", ANY, "--web", ANY, "--admin", ANY];
    Server::start(&scratch.path(""), &[&["demo", "--no-gateway"], &listen[..]].concat())
}

/// Waits for so many segments of a live playlist.
fn wait_segments(web: SocketAddr, path: &str, count: usize) {
    until(&format!("{count} segments in {path}"), || {
        let (_, body) = http(web, "GET", path, "");
        (String::from_utf8_lossy(&body).matches("#EXTINF").count() >= count).then_some(())
    });
}

#[test]
fn every_protocol_is_played_and_checked() {
    let scratch = Scratch::new("stress");
    let mut demo = demo(&scratch);
    let (flv, web) = (demo.addr("flv"), demo.addr("web"));
    for url in
        [format!("http://{flv}/live/demo.flv"), format!("ws://{flv}/live/demo.flv"), demo.rtmp("live/demo")]
    {
        let (served, report) = stress(&url, &["--processes", "2"]);
        assert!(served && report.contains("\"connected\":12"), "{url}: {report}");
        assert!(!report.contains("\"sampled_tags\":0,"), "{url}: {report}");
    }
    let (hls, fmp4) = ("/hls/live/demo/index.m3u8", "/mp4/live/demo/output_merge/index.m3u8");
    for path in [hls, fmp4, "/index.html"] {
        if path != "/index.html" {
            wait_segments(web, path, 3);
        }
        let (served, report) = stress(&format!("http://{web}{path}"), &["--ask-every", "0.5"]);
        assert!(served && report.contains("\"requests\":{\"count\":"), "{path}: {report}");
    }
    demo.assert_up();
}

#[test]
fn what_is_not_served_is_not_called_served() {
    let scratch = Scratch::new("stress-fails");
    let demo = demo(&scratch);
    let (flv, web) = (demo.addr("flv"), demo.addr("web"));
    for (url, reason) in [
        (format!("http://{web}/no-such-file"), "answered with status 404"),
        (format!("http://{web}/hls/live/no/index.m3u8"), "answered with status 404"),
        (format!("http://{flv}/live/no.flv"), "answered with status 404"),
        (format!("rtmp://{web}/live/demo"), "RTMP"),
    ] {
        let (served, report) = stress(&url, &[]);
        assert!(!served, "{url}: {report}");
        assert!(report.contains(reason), "{url}: {report}");
    }
}
