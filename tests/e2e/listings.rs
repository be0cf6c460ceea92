//! What there is, as the pages are told: an answer that claims to be complete is, and none is old.

use std::path::Path;
use std::time::Duration;

use serde_json::Value;

use crate::harness::{Scratch, Server, http, until};

fn write(data: &Path, key: &str) {
    let folder = data.join("hls").join(key);
    std::fs::create_dir_all(&folder).unwrap();
    std::fs::write(folder.join("index.m3u8"), "#EXTM3U\n").unwrap();
}

/// The streams that are recorded, and whether these are all.
fn recordings(server: &Server) -> (Vec<String>, bool) {
    let (answer, body) = http(server.addr("web"), "GET", "/api/v1/recordings", "");
    assert_eq!(answer.status, 200);
    let said: Value = serde_json::from_slice(&body).unwrap();
    let keys = said["recordings"].as_array().unwrap().iter();
    let mut keys: Vec<String> = keys.map(|take| take["key"].as_str().unwrap().to_owned()).collect();
    keys.sort();
    (keys, said["complete"].as_bool().unwrap())
}

#[test]
fn recordings_are_complete_or_said_not_to_be() {
    let scratch = Scratch::new("listings");
    let data = scratch.path("data");
    write(&data, "live/a");
    let any = "127.0.0.1:0";
    let args =
        ["origin", "--rtmp", any, "--flv", any, "--web", any, "--admin", "off", "--loops", "1", "--data"];
    let mut server = Server::start(&scratch.path(""), &[&args[..], &[data.to_str().unwrap()]].concat());
    let complete = || {
        until("a complete answer", || {
            let (keys, complete) = recordings(&server);
            complete.then_some(keys)
        })
    };
    assert_eq!(complete(), ["live/a"], "the first answer that claims to be complete");
    write(&data, "live/b");
    // Nobody asks for longer than an answer may be old.
    std::thread::sleep(Duration::from_secs(8));
    assert_eq!(complete(), ["live/a", "live/b"], "the first one after a pause");
    server.assert_up();
}

#[test]
fn streams_that_come_are_listed() {
    let scratch = Scratch::new("streams");
    let origin = Server::origin(&scratch.path(""), "1s");
    let listed = |port: &str| {
        let (answer, body) = http(origin.addr(port), "GET", "/api/v1/streams", "");
        assert_eq!(answer.status, 200);
        let said: Value = serde_json::from_slice(&body).unwrap();
        let streams = said["streams"].as_array().unwrap().len();
        assert_eq!(said["total"].as_u64(), Some(streams as u64));
        assert_eq!(said.get("operator").is_some(), port == "admin", "{said}");
        streams
    };
    let ports = ["web", "flv", "admin"];
    assert!(ports.iter().all(|port| listed(port) == 0), "the first answer is a true one");
    let clip = Path::new(env!("CARGO_MANIFEST_DIR")).join("web/demo/clip.flv");
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_uringcast"));
    command.arg("push").arg(clip).args([&origin.rtmp("live/one"), "--loop"]);
    let _pusher = crate::harness::process::Guard::spawn("push", &mut command);
    for port in ports {
        until(&format!("the stream in the list of {port}"), || (listed(port) == 1).then_some(()));
    }
}
