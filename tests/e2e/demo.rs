//! `uringcast demo`: one command, a page, a stream that plays.

use crate::harness::{Flavor, Scratch, Server, Watch, http};

#[test]
fn the_demo_serves_its_page_and_plays() {
    let scratch = Scratch::new("demo");
    let any = "127.0.0.1:0";
    // The gateway's address has no flag of its own in this role.
    let config = scratch.path("demo.toml");
    std::fs::write(&config, format!("[flv_gateway]\nlisten = \"{any}\"\n")).unwrap();
    let config = config.to_str().unwrap();
    let args = ["demo", "--config", config, "--rtmp", any, "--flv", any, "--web", any, "--admin", any];
    let mut demo = Server::start(&scratch.path(""), &args);
    let web = demo.addr("web");
    for (path, kind, part) in [
        ("/", "text/html", "<video"),
        ("/index.html", "text/html", "<video"),
        ("/style.css", "text/css", ".readout"),
        ("/index.js", "text/javascript", "createPlayer"),
        ("/vendor/mpegts.js", "text/javascript", "mpegts"),
    ] {
        let (answer, body) = http(web, "GET", path, "");
        assert_eq!(answer.status, 200, "{path}");
        assert!(answer.header("content-type").is_some_and(|value| value.starts_with(kind)), "{path}");
        assert!(String::from_utf8_lossy(&body).contains(part), "{path}");
    }
    let (answer, body) = http(web, "GET", "/api/v1/streams", "");
    let list: serde_json::Value = serde_json::from_slice(&body).unwrap();
    assert_eq!((answer.status, &list["role"]), (200, &serde_json::json!("origin")));

    let watches: Vec<Watch> = [web, demo.addr("flv"), demo.addr("gateway")]
        .into_iter()
        .flat_map(|addr| [(addr, Flavor::Http), (addr, Flavor::Ws)])
        .map(|(addr, flavor)| Watch::start(addr, "/live/demo.flv", flavor))
        .collect();
    for watch in &watches {
        // Past the clip's end: the loop's joint must not show in the chain.
        watch.wait("the clip to begin again", |tags| {
            let mut times = tags.iter().filter(|tag| tag.is_picture()).map(|tag| tag.time);
            let first = times.clone().next();
            times.next_back().zip(first).is_some_and(|(last, first)| last.wrapping_sub(first) > 12_000)
        });
        watch.assert_well();
    }
    demo.assert_up();
}
