//! The example of an authorisation service, `etc/auth-hook.py`, with ffmpeg as the publisher.

use std::process::Command;

use crate::harness::ffmpeg::{make_clip, publish};
use crate::harness::process::Guard;
use crate::harness::{Flavor, Scratch, Server, Watch, need_ffmpeg, until};

const ANY: &str = "127.0.0.1:0";

#[test]
fn a_service_of_a_few_lines_decides_who_publishes() {
    need_ffmpeg!();
    let scratch = Scratch::new("hook-example");
    let (clip, keys) = (scratch.path("clip.flv"), scratch.path("keys.json"));
    make_clip(&clip, 2, "160x90");
    std::fs::write(&keys, r#"{"live/stage": "a-key-that-is-long"}"#).unwrap();
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/etc/auth-hook.py");
    let service = Guard::spawn("auth-hook.py", Command::new("python3").args([script, ANY]).arg(&keys));
    let port = until("the service's port", || {
        service.log().iter().find_map(|line| line.strip_prefix("listening on port ").map(str::to_owned))
    });
    let hook = format!("http://127.0.0.1:{port}/");
    let args = ["origin", "--rtmp", ANY, "--flv", ANY, "--web", ANY, "--admin", ANY, "--record", "none"];
    let mut origin =
        Server::start(&scratch.path(""), &[&args[..], &["--auth-hook", &hook, "--wait", "1s"]].concat());
    let (rtmp, flv) = (origin.addr("rtmp"), origin.addr("flv"));
    for refused in ["stage", "stage?token=another-key", "other?token=a-key-that-is-long"] {
        let mut publisher = publish(&clip, &format!("rtmp://{rtmp}/live/{refused}"), true);
        assert!(!publisher.wait(), "{refused}");
    }
    assert_eq!(origin.metric("uringcast_streams", ""), 0.0);
    for right in ["token", "pass"] {
        let address = format!("rtmp://{rtmp}/live/stage?{right}=a-key-that-is-long");
        let _publisher = publish(&clip, &address, true);
        let watch = Watch::start(flv, "/live/stage.flv", Flavor::Http);
        watch.wait("a keyframe", |tags| tags.iter().any(|tag| tag.key));
    }
    origin.assert_up();
}
